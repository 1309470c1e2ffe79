# SPDX-License-Identifier: Apache-2.0
"""Outputs of a probe → points: each part against NumPy's account and the simulator's, with the alternative that fits."""

from __future__ import annotations

from collections import Counter
from typing import Dict, List, Mapping, Optional, Sequence

import numpy as np

from om_runner.device_check.probes.probe import Part, Probe
from om_runner.device_check.sides import differing, mismatches, values_text
from vxm_convert.device_check.assumptions import BY_KEY
from vxm_convert.device_check.points import AS_PREDICTED, DIFFERS, FAILED, Point
from vxm_convert.formats.om import OmModel

Arrays = Mapping[str, np.ndarray]


def judge(probe: Probe, found: Arrays, predicted: Optional[Arrays]) -> List[Point]:
    """A point per assumption that the probe's parts depend on, and one for exchanged outputs.

    Parameters
    ----------
    found, predicted : mapping — output node → ndarray, of the device and of the simulator; None where
        it cannot be run.
    """
    points: List[Point] = []
    swapped = _exchanged(probe, found)
    if probe.twins:
        points.append(_order_point(probe, swapped))
    if swapped:
        first, second = probe.twins
        found = {**found, first: found[second], second: found[first]}
    by_assumption: Dict[str, List[Part]] = {}
    for part in probe.parts:
        by_assumption.setdefault(part.assumption, []).append(part)
    return points + [_point(probe, key, parts, found, predicted) for key, parts in by_assumption.items()]


def _exchanged(probe: Probe, found: Arrays) -> bool:
    """Whether the twins have each other's values rather than their own."""
    if not probe.twins:
        return False
    own = other = 0
    for part in probe.parts:
        if part.output in probe.twins:
            twin = probe.twins[1 - probe.twins.index(part.output)]
            own += differing(found[part.output][part.where], part.expected)
            other += differing(found[twin][part.where], part.expected)
    return other < own


def _order_point(probe: Probe, swapped: bool) -> Point:
    order = ", ".join(probe.outputs)
    name = f"{probe.name}, {probe.mode}: order of the outputs"
    if not swapped:
        return Point(name, AS_PREDICTED, order, order, "output_order")
    return Point(name, DIFFERS, order, f"{' and '.join(probe.twins)} are exchanged", "output_order")


def _point(probe: Probe, key: str, parts: List[Part], found: Arrays, predicted: Optional[Arrays]) -> Point:
    name = f"{probe.name}, {probe.mode}: {key}"
    total = sum(np.asarray(part.expected).size for part in parts)
    doubtful = sum(differing(predicted[p.output][p.where], p.expected, p.tolerance) for p in parts if predicted)
    wrong = [part for part in parts if differing(found[part.output][part.where], part.expected, part.tolerance)]
    text = BY_KEY[key].text
    if doubtful:
        return Point(
            name,
            FAILED,
            text,
            f"the simulator and NumPy disagree in {doubtful} of {total} values, so nothing can be said of the device",
            key,
            "report this with the archive: it is a fault of vxm_convert",
        )
    whose = " and the simulator's" if predicted else "; the simulator cannot run here"
    if not wrong:
        return Point(name, AS_PREDICTED, text, f"{total} values equal NumPy's{whose}", key)
    count = sum(differing(found[part.output][part.where], part.expected, part.tolerance) for part in wrong)
    return Point(name, DIFFERS, text, f"{count} of {total} values differ: {_explanation(wrong[0], found)}", key)


def _explanation(part: Part, found: Arrays) -> str:
    """The alternative that gives every value, else the first difference."""
    values = np.asarray(found[part.output][part.where])
    for words, other in part.alternatives:
        if not differing(values, other, part.tolerance):
            return words
    at = np.flatnonzero(mismatches(values, part.expected, part.tolerance))[:4]
    return (
        f"got {values_text(values.ravel()[at])} where {values_text(np.asarray(part.expected).ravel()[at])} was expected; "
        "no known alternative gives these values"
    )


def operator_point(probe: Probe, found: OmModel, predicted: OmModel) -> Point:
    """The compiled operators of both sides: types and dtypes of those with one name."""
    name = f"{probe.name}, {probe.mode}: operators and their dtypes"
    ours, theirs = _operators(predicted), _operators(found)
    changed = [f"{op}: predicted {ours[op]}, found {theirs[op]}" for op in sorted(set(ours) & set(theirs))
               if ours[op] != theirs[op]]  # fmt: skip
    added = _counts(found)
    more = added - _counts(predicted)
    words = ", ".join(f"{count} × {kind}" for kind, count in sorted(added.items()))
    if changed:
        return Point(name, DIFFERS, "the dtypes of the operator table", "; ".join(changed[:4]), "operator_table")
    extra = f"; beyond the prediction: {', '.join(sorted(more))}" if more else ""
    return Point(name, AS_PREDICTED, "the dtypes of the operator table", words + extra, "operator_table")


def _operators(model: OmModel) -> Dict[str, str]:
    """Operators by name, without those that the compiler adds, as type and dtypes."""
    return {
        op.name: f"{op.type} {_dtypes(op.input_descs)} → {_dtypes(op.output_descs)}"
        for op in model.graph
        if op.data is None and op.type not in ("Data", "NetOutput", "Const") and not op.name.startswith("trans_")
    }


def _dtypes(descs: Sequence[object]) -> str:
    return "/".join(str(getattr(desc, "dtype", "?")) for desc in descs)


def _counts(model: OmModel) -> Counter:  # type: ignore[type-arg]
    return Counter(op.type for op in model.graph if op.data is None and op.type not in ("Data", "NetOutput", "Const"))


def refusal(probe: Probe, said: str, advice: str, predicted_too: Optional[str]) -> Point:
    """A graph that ATC did not compile."""
    name = f"{probe.name}, {probe.mode}: compiled by ATC"
    expected = "refused as well" if predicted_too else "compiled"
    return Point(name, FAILED, f"by the simulated ATC: {expected}", said, "accepted", advice)
