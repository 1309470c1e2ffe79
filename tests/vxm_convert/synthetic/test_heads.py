# SPDX-License-Identifier: Apache-2.0
"""The synthetic cohort: deterministic, smooth, and its true flows really register it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.overlaps import mean_dice, pull
from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import SpecError
from vxm_convert.synthetic.heads import STRUCTURES, PhantomSettings, integrate, make_atlas, make_subject, write_cohort

SMALL = PhantomSettings((32, 32, 48), subjects=2, seed=3)
PAPER_LABELS = {
    2,
    3,
    4,
    7,
    8,
    10,
    11,
    12,
    13,
    14,
    15,
    16,
    17,
    18,
    24,
    28,
    31,
    41,
    42,
    43,
    46,
    47,
    49,
    50,
    51,
    52,
    53,
    54,
    60,
    63,
}


def test_same_seed_same_files(tmp_path: Path) -> None:
    first, second = (write_cohort(tmp_path / name, SMALL) for name in ("a", "b"))
    assert [p.name for p in first] == ["sub-01.npz", "sub-02.npz"]
    for name in ("atlas.npz", "scans/sub-01.npz", "scans/sub-02.npz", "truth/sub-02_flow.npz", "phantom.json"):
        assert sha256_of(tmp_path / "a" / name) == sha256_of(tmp_path / "b" / name), name
    assert len({sha256_of(p) for p in first + second}) == 2


def test_another_seed_another_head() -> None:
    other = make_subject(PhantomSettings(SMALL.shape, 1, SMALL.seed + 1), 0)
    assert not np.array_equal(make_subject(SMALL, 0).vol, other.vol)


def test_atlas_has_the_labels_of_the_paper_and_sane_values() -> None:
    atlas = make_atlas(PhantomSettings((48, 64, 64)))
    assert set(np.unique(atlas.seg)) == PAPER_LABELS | {0}
    assert atlas.vol.dtype == np.uint8 and atlas.seg.dtype == np.int16
    assert atlas.vol[atlas.seg == 0].max() == 0
    assert abs(float(atlas.vol[np.isin(atlas.seg, (2, 41))].mean()) - 110.0) < 6.0
    assert not atlas.flow.any()


def test_left_structures_lie_at_higher_first_index() -> None:
    seg = make_atlas(PhantomSettings((48, 64, 64))).seg
    for one in STRUCTURES:
        if one.left != one.right:
            assert np.argwhere(seg == one.left)[:, 0].mean() > np.argwhere(seg == one.right)[:, 0].mean() + 4, one


@pytest.mark.parametrize("index", [0, 1])
def test_true_flow_registers(index: int) -> None:
    settings = PhantomSettings((48, 64, 64), seed=1)
    atlas, head = make_atlas(settings), make_subject(settings, index)
    before, after = mean_dice(atlas.seg, head.seg), mean_dice(atlas.seg, pull(head.seg, head.flow, 0))
    assert after > before + 0.08 and after > 0.84
    error = np.abs(pull(head.vol.astype(float), head.flow, 1) - atlas.vol)
    assert error.mean() < 0.6 * np.abs(head.vol.astype(float) - atlas.vol).mean()


def test_flow_does_not_fold() -> None:
    flow = make_subject(SMALL, 0).flow.astype(float)
    jacobian = np.stack([np.stack(np.gradient(flow[..., c]), -1) for c in range(3)], -2) + np.eye(3)
    assert np.linalg.det(jacobian).min() > 0


def test_integrate_of_a_constant_is_that_constant() -> None:
    velocity = np.ones((3, 8, 8, 8)) * np.array([0.5, -1.0, 2.0]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(integrate(velocity), velocity, atol=1e-12)


def test_integrate_forth_and_back_is_the_identity() -> None:
    x = np.linspace(0, np.pi, 24)
    bump = np.sin(x)[:, None, None] * np.sin(x)[None, :, None] * np.sin(x)[None, None, :]
    velocity = np.stack([bump, -bump, 0.5 * bump])
    there, back = integrate(velocity), integrate(-velocity)
    composed = there + np.stack([pull(c, np.moveaxis(there, 0, -1), 1) for c in back])
    assert np.abs(there).max() > 0.9
    assert np.abs(composed).max() < 0.02


@pytest.mark.parametrize(
    "fields, word",
    [
        ({"shape": (8, 32, 32)}, "shape"),
        ({"shape": (1024, 32, 32)}, "shape"),
        ({"shape": (32, 32, 32), "subjects": 0}, "subjects"),
        ({"shape": (32, 32, 32), "seed": -1}, "seed"),
    ],
)
def test_bad_settings_are_named(fields: dict, word: str) -> None:
    with pytest.raises(SpecError, match=word):
        PhantomSettings(**fields)
