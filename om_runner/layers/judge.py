# SPDX-License-Identifier: Apache-2.0
"""From the figures of all layers to the layers that cause the error.

Entire error: the device's tensor in the running model against TensorFlow's. Single error: the layer alone, on
TensorFlow's inputs (rounded as on the device), against TensorFlow's layer on the same inputs. Effect: what that single
error alone changes in the model's outputs, everything else being TensorFlow's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence

from om_runner.layers.matching import NET_OUTPUT, Layer
from vxm_convert.ascend.operators import OPS

EUCLID = "RelativeEuclideanDistance"
#: Every fp16 rounding is below 4.9e-4 of the value; a layer with sums of some hundred products stays below 2e-3.
DEFAULT_LAYER_LIMIT = 1e-2
#: For a model output; the fp16 convolutions of the network each stay below it, positions in fp16 do not.
DEFAULT_OUTPUT_LIMIT = 1e-3
#: types that ATC refuses to keep in fp32
_CUBE_HALF = frozenset(row.ge_type for row in OPS.values() if row.cube and "float32" not in row.floats)
#: an error that inputs do not explain is larger than theirs by this factor
_LEAP = 10.0


@dataclass
class LayerResult:
    """All results for one layer; figures have the names of Ascend's comparer."""

    layer: Layer
    entire: Optional[Dict[str, Any]] = None
    single: Optional[Dict[str, Any]] = None
    #: meaning of a model output → relative Euclidean distance that the single error alone causes there
    effect: Dict[str, float] = field(default_factory=dict)
    overflow: str = ""
    golden_dtype: str = ""
    flip_rate: Optional[float] = None
    boundary_distance: Optional[float] = None
    #: share of elements that flip although the inputs are TensorFlow's
    single_flip_rate: Optional[float] = None
    reason: str = ""
    source: bool = False
    share: Optional[float] = None
    advice: str = ""

    @property
    def entire_error(self) -> Optional[float]:
        return None if self.entire is None else float(self.entire[EUCLID])

    @property
    def single_error(self) -> Optional[float]:
        return None if self.single is None else float(self.single[EUCLID])

    @property
    def worst_effect(self) -> Optional[float]:
        return max(self.effect.values()) if self.effect else None

    @property
    def own_error(self) -> Optional[float]:
        """Criterion of the ranking: the effect on the outputs, else the single error."""
        return self.worst_effect if self.effect else self.single_error


@dataclass(frozen=True)
class Limits:
    """Largest acceptable relative Euclidean distances of a layer and of a model output."""

    layer: float = DEFAULT_LAYER_LIMIT
    output: float = DEFAULT_OUTPUT_LIMIT


def mark_sources(results: Sequence[LayerResult], limits: Limits) -> List[LayerResult]:
    """Set `source`, `share` and `advice` of every result; returns the sources, the largest share first.

    A source's inputs are good and its own output is not. Discontinuous layers are never a source, and after a
    discontinuous layer that flipped, an entire error says nothing about the layer that shows it.
    """
    by_golden: Dict[str, LayerResult] = {}
    for result in results:
        if result.layer.golden is not None:
            by_golden.setdefault(result.layer.golden, result)
    introduced: Dict[int, float] = {}
    spoiled, errors = _spoiled(results, by_golden), _errors(results)
    for result in results:
        if result.layer.type == NET_OUTPUT or result.layer.jumps:
            continue
        inputs = max([errors.get(name, 0.0) for name in result.layer.inputs] or [0.0])
        own = result.own_error
        if own is None and result.entire_error is not None and not result.layer.indexed and id(result) not in spoiled:
            own = (
                math.sqrt(max(0.0, result.entire_error**2 - inputs**2))
                if math.isfinite(result.entire_error)
                else math.inf
            )
        if own is not None:
            introduced[id(result)] = own
        by_run = id(result) not in spoiled and not result.layer.indexed and _leaps(result.entire_error, inputs, limits)
        result.source = by_run or _bad_alone(result, limits)
        if result.source:
            result.advice = _advice(result, by_run, limits)
            introduced[id(result)] = max(introduced.get(id(result), 0.0), result.entire_error or 0.0 if by_run else 0.0)
    _share(results, introduced)
    return sorted((r for r in results if r.source), key=lambda r: -(r.share or 0.0))


def _leaps(error: Optional[float], inputs: float, limits: Limits) -> bool:
    return error is not None and inputs <= limits.layer < error and error > _LEAP * inputs


def _bad_alone(result: LayerResult, limits: Limits) -> bool:
    single, effect = result.single_error, result.worst_effect
    return (single is not None and single > limits.layer) or (effect is not None and effect > limits.output)


def _errors(results: Sequence[LayerResult]) -> Dict[str, float]:
    """Golden tensor → entire error; for one without, the largest of its sources (results are in execution order)."""
    errors: Dict[str, float] = {}
    for result in results:
        if result.layer.golden is not None and result.layer.golden not in errors:
            own = result.entire_error
            errors[result.layer.golden] = (
                own if own is not None else max([errors.get(n, 0.0) for n in result.layer.inputs] or [0.0])
            )
    return errors


def _spoiled(results: Sequence[LayerResult], by_golden: Dict[str, LayerResult]) -> Dict[int, bool]:
    """Layers that have a discontinuous layer with flips somewhere before them (results are in execution order)."""
    spoiled: Dict[int, bool] = {}
    for result in results:
        before = [by_golden[name] for name in result.layer.inputs if name in by_golden]
        if result.layer.indexed:
            result.flip_rate = max([b.flip_rate for b in before if b.layer.jumps and b.flip_rate is not None] or [0.0])
        if any(id(b) in spoiled or (b.layer.jumps and (b.flip_rate or 0) > 0) for b in before):
            spoiled[id(result)] = True
    return spoiled


def _share(results: Sequence[LayerResult], introduced: Dict[int, float]) -> None:
    """Squares of independent rounding errors add up."""
    infinite = [key for key, value in introduced.items() if not math.isfinite(value)]
    weights = {key: float(key in infinite) if infinite else value**2 for key, value in introduced.items()}
    total = sum(weights.values())
    for result in results:
        if id(result) in weights and total > 0:
            result.share = weights[id(result)] / total


def _advice(result: LayerResult, by_run: bool, limits: Limits) -> str:
    names = ", ".join(result.layer.originals) or result.layer.op
    alone = result.single_error
    if by_run and alone is not None and not _bad_alone(result, limits):
        return (
            f"correct when it runs alone: its weights or its kernel in this .om are not those of the graph ({names}); "
            "export again"
        )
    if result.overflow in ("YES", "NaN"):
        return f"exceeds the fp16 range: {_more_fp32(result.layer, names)}, or scale its weights"
    if result.layer.desc.dtype == "float16":
        return _more_fp32(result.layer, names)
    return f"computes in fp32 and is still wrong: check the weights and inputs of {names}"


def _more_fp32(layer: Layer, names: str) -> str:
    """A convolution has no fp32 kernel and cannot be kept; its result can be fp32."""
    if layer.type in _CUBE_HALF:
        first = (layer.originals or (layer.op,))[0]
        return f"return fp32 from it (fp32_results of a plan, --customize_dtypes: {first})"
    return f"keep it in fp32 (--keep_dtype: {names})"
