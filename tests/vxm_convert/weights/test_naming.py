# SPDX-License-Identifier: Apache-2.0
"""The same network under other names: found by order and shape, refused where the names leave the order open."""

from __future__ import annotations

import logging
from typing import Callable, Dict, Tuple

import pytest

from vxm_convert.errors import CheckpointError
from vxm_convert.model.spec import VARIANTS, ModelSpec
from vxm_convert.model.variables import HEADS, conv_layers, expected_variables
from vxm_convert.weights.fit import check_fit
from vxm_convert.weights.naming import stored_names

Shapes = Dict[str, Tuple[int, ...]]
SHAPE = (16, 16, 32)


def renamed(spec: ModelSpec, name_of: Callable[[int, str], str]) -> Tuple[Shapes, Dict[str, str]]:
    """Shapes of a file whose layer n is called ``name_of(n, usual)``, and usual → stored name of every variable."""
    shapes: Shapes = {}
    names = {}
    expected = expected_variables(spec)
    # Written backwards: the order of the file's variables must not matter.
    for number, layer in reversed(list(enumerate(conv_layers(spec)))):
        for kind in ("bias", "kernel"):
            usual = f"{layer.name}/{kind}"
            names[usual] = f"{name_of(number, layer.name)}/{kind}"
            shapes[names[usual]] = expected[usual]
    return shapes, names


OTHER_NAMES = {
    "inside a scope": lambda n, usual: f"voxelmorph/unet/{usual}",
    "flow numbered like the others": lambda n, usual: "conv3d" if n == 0 else f"conv3d_{n}",
    "numbered from 95": lambda n, usual: f"conv3d_{95 + n}",
    "scope and numbers": lambda n, usual: f"tower_0/conv3d_{n + 1}",
    "another word": lambda n, usual: f"net/Conv_{n}",
    "second graph of a session": lambda n, usual: f"{usual}_1" if usual in HEADS else f"conv3d_{20 + n}",
    "encoder and decoder": lambda n, usual: f"enc_conv_{n}" if n < 4 else f"dec_conv_{n - 4}",
    "encoder and decoder as scopes": lambda n, usual: f"down/conv3d_{n}" if n < 4 else f"up/conv3d_{n - 4}",
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name_of", OTHER_NAMES.values(), ids=OTHER_NAMES)
def test_other_names_are_found_by_order(variant: str, name_of: Callable[[int, str], str], caplog) -> None:
    spec = ModelSpec(variant, SHAPE)
    found, names = renamed(spec, name_of)
    with caplog.at_level(logging.WARNING):
        assert stored_names(found, spec, "model.ckpt") == names
    assert "by order and shape" in caplog.text


def test_the_usual_names_are_taken_without_a_word(caplog) -> None:
    spec = ModelSpec("vm2", SHAPE)
    found = {**expected_variables(spec), "extra/kernel": (3, 3, 3, 2, 2), "extra/bias": (2,)}
    assert stored_names(found, spec, "model.ckpt") == {name: name for name in expected_variables(spec)}
    assert not caplog.records


AMBIGUOUS = {
    "two networks": lambda n, usual: f"a/{usual}",
    "words only": lambda n, usual: f"layer{'abcdefghijkl'[n]}",
    "three series": lambda n, usual: f"part_{'xyz'[n % 3]}/conv3d_{n}",
    "the same number twice": lambda n, usual: f"enc/conv3d_{n // 2}" if n % 2 else f"dec/conv3d_{n // 2}",
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_an_open_order_is_refused_with_the_names(case: str) -> None:
    spec = ModelSpec("vm2", SHAPE)
    found, _ = renamed(spec, AMBIGUOUS[case])
    if case == "two networks":
        found.update({name.replace("a/", "b/"): shape for name, shape in found.items()})
    names = stored_names(found, spec, "model.ckpt")
    assert names == {name: name for name in expected_variables(spec)}
    with pytest.raises(CheckpointError, match="variable .* is missing"):
        check_fit(found, spec, "model.ckpt")


def test_one_of_two_heads_named_is_refused() -> None:
    spec = ModelSpec("miccai2018", SHAPE)
    found, _ = renamed(spec, lambda n, usual: "flow_1" if usual == "flow" else f"conv3d_{20 + n}")
    assert stored_names(found, spec, "model.ckpt") == {name: name for name in expected_variables(spec)}


def test_another_network_under_other_names_is_refused() -> None:
    found, _ = renamed(ModelSpec("vm1", SHAPE), OTHER_NAMES["inside a scope"])
    spec = ModelSpec("vm2", SHAPE)
    assert stored_names(found, spec, "model.ckpt") == {name: name for name in expected_variables(spec)}
