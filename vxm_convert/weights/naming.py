# SPDX-License-Identifier: Apache-2.0
"""Finds the network's variables in files with other names: inside a scope, or with other numbers.

Layers of one kind are numbered in the order in which they were created, so that order and the shapes identify them. If
the numbers leave the order open, nothing is guessed.
"""

from __future__ import annotations

import logging
import re
from typing import Dict, List, NamedTuple, Optional, Tuple

from vxm_convert.model.spec import ModelSpec
from vxm_convert.model.variables import HEADS, conv_layers, expected_variables

Shapes = Dict[str, Tuple[int, ...]]

_LOG = logging.getLogger(__name__)
#: names of the two variables of a convolution in other layer libraries of TensorFlow 1
_KINDS = {"kernel": "kernel", "weights": "kernel", "w": "kernel", "bias": "bias", "biases": "bias", "b": "bias"}
_NUMBERED = re.compile(r"(.*?)_?(\d+)?$")
_KERNEL_RANK = 5
ENCODER, DECODER, UNNAMED = range(3)


class _Layer(NamedTuple):
    """A convolution of the file: its variables, its name without scope and number, and its number."""

    scope: str
    base: str
    number: int
    variables: Dict[str, str]


def stored_names(found: Shapes, spec: ModelSpec, where: str) -> Dict[str, str]:
    """Name of each of the network's variables → its name in the file.

    Parameters
    ----------
    found : dict — name → shape of the file's variables, without those of the training.
    spec : ModelSpec — the requested network.
    where : str — the file, for the log.

    Returns
    ------- dict — every name to itself if the names are the usual ones, or if they identify no layer;
        `vxm_convert.weights.fit.check_fit` then reports what is missing.
    """
    expected = expected_variables(spec)
    usual = {name: name for name in expected}
    if set(expected) <= set(found):
        return usual
    layers = _in_order(found)
    heads = {layer.name for layer in conv_layers(spec)} & set(HEADS)
    named = {layer.base for layer in layers or ()} & set(HEADS)
    # A named head beside an unnamed one could be either of the two.
    if layers is None or len(layers) != len(conv_layers(spec)) or named not in (set(), heads):
        return usual
    names = {}
    for layer, stored in zip(conv_layers(spec), layers):
        for kind, name in stored.variables.items():
            names[f"{layer.name}/{kind}"] = name
    if set(names) != set(expected) or any(tuple(found[names[name]]) != shape for name, shape in expected.items()):
        return usual
    _LOG.warning(
        "%s: has other layer names (%s … %s); matched its %d convolutions by order and shape",
        where,
        layers[0].scope,
        layers[-1].scope,
        len(layers),
    )
    return names


def _in_order(found: Shapes) -> Optional[List[_Layer]]:
    """The file's convolutions in order of creation; None if their names do not determine it."""
    layers = _layers(found)
    heads = {layer.base: layer for layer in layers if layer.base in HEADS}
    rest = [layer for layer in layers if layer.base not in HEADS]
    series = sorted({_series(layer) for layer in rest}, key=_half)
    halves = [_half(one) for one in series]
    places = [(_half(_series(layer)), layer.number) for layer in rest]
    # One series, or one of the encoder and one of the decoder; each number once.
    told = len(series) == 1 or halves == [ENCODER, DECODER]
    if not told or len(set(places)) != len(places) or len(heads) != len(layers) - len(rest):
        return None
    rest.sort(key=lambda layer: (_half(_series(layer)), layer.number))
    return rest + [heads[name] for name in HEADS if name in heads]


def _series(layer: _Layer) -> str:
    """The common part of layers numbered together: their scope and the name without the number."""
    return f"{layer.scope.rpartition('/')[0]}/{layer.base}"


def _half(series: str) -> int:
    """The half of the U-Net that the name of a series means."""
    words = re.split(r"[/_\d]+", series.lower())
    if any(word.startswith(("enc", "down", "contract")) for word in words):
        return ENCODER
    return DECODER if any(word.startswith(("dec", "up", "expan")) for word in words) else UNNAMED


def _layers(found: Shapes) -> List[_Layer]:
    """Every scope that holds the kernel of a 3-D convolution and its bias."""
    scopes: Dict[str, Dict[str, str]] = {}
    for name in found:
        scope, _, leaf = name.rpartition("/")
        if leaf in _KINDS:
            scopes.setdefault(scope, {})[_KINDS[leaf]] = name
    layers = []
    for scope, variables in scopes.items():
        if set(variables) == {"kernel", "bias"} and len(found[variables["kernel"]]) == _KERNEL_RANK:
            base, number = _base_and_number(scope.rpartition("/")[2])
            layers.append(_Layer(scope, base, number, variables))
    return layers


def _base_and_number(name: str) -> Tuple[str, int]:
    """``conv3d_7`` → (conv3d, 7); the first layer of a kind has no number, which counts as 0."""
    # The dimension in conv3d is not the number of a layer.
    match = re.match(r"(conv3d)(?:_(\d+))?$", name, re.IGNORECASE) or _NUMBERED.match(name)
    return (match.group(1), int(match.group(2) or 0)) if match else (name, 0)
