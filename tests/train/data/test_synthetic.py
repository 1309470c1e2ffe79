# SPDX-License-Identifier: Apache-2.0
"""Synthetic pairs as the training takes them: the same however many processes make them, and other ones to validate with."""

from __future__ import annotations

import numpy as np
import pytest

from train.data.synthetic import VALIDATION_SEED, SyntheticLoader, synthetic_orders
from train.settings.run import SyntheticData
from vxm_convert.errors import VxmError
from vxm_convert.model.spec import ModelSpec

SPEC = ModelSpec("vm2", (16, 32, 16))


def test_samples_do_not_depend_on_the_number_of_processes() -> None:
    order, _ = synthetic_orders(SyntheticData(), SPEC, 7)
    here, there = SyntheticLoader(SPEC, 0, 7), SyntheticLoader(SPEC, 2, 7)
    for number in (0, 5):
        one, other = (loader.arrays(order.pair(number), number) for loader in (here, there))
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_validation_pairs_are_none_of_the_training_and_the_same_for_every_seed() -> None:
    train, validation = synthetic_orders(SyntheticData(validation=3), SPEC, 7)
    _, of_another_run = synthetic_orders(SyntheticData(validation=3), SPEC, 8)
    pairs = validation.each_once()
    assert len(pairs) == 3 and pairs == of_another_run.each_once()
    assert {pair.settings.seed for pair in pairs} == {VALIDATION_SEED}
    assert train.pair(0).settings.seed == 7


def test_noise_comes_with_diffeomorphic_variants_only() -> None:
    spec = ModelSpec("miccai2018", SPEC.volume_shape)
    order, _ = synthetic_orders(SyntheticData(), spec, 7)
    loader = SyntheticLoader(spec, 0, 7)
    assert loader.arrays(order.pair(0), 0)["noise"].shape == (8, 16, 8, 3)
    assert "noise" not in loader.plain(order.pair(0))


def test_a_failure_in_a_process_is_kept_for_the_loop() -> None:
    order, _ = synthetic_orders(SyntheticData(), SPEC, 7)
    loader = SyntheticLoader(SPEC, 1, 7)
    bad = order.pair(0)
    object.__setattr__(bad.settings, "shape", (16, 16))
    with pytest.raises(Exception) as caught:
        loader.arrays(bad, 0)
    assert loader.error is caught.value


def test_shares_are_checked() -> None:
    with pytest.raises(VxmError, match="same-contrast"):
        SyntheticData(same_contrast=2.0)
