# SPDX-License-Identifier: Apache-2.0
"""An estimate as lines for the terminal, each table under the word ESTIMATE. Formats; computes nothing."""

from __future__ import annotations

from typing import List

from export.preflight.estimate.speeds import assumptions
from export.preflight.estimate.timing import LABEL, NOTE, WORTH, TimeEstimate

_SLOWEST = 12
_MIB = float(1 << 20)
_FITS = {True: "yes", False: "no", None: "unknown"}


def estimate_table(estimate: TimeEstimate) -> List[str]:
    """Kinds, slowest layers, batches, advice and assumptions."""
    chip = estimate.device.soc_version
    size = "unknown batch" if estimate.batch is None else f"batch {estimate.batch}"
    lines = [f"  {NOTE}", f"  {LABEL} of one run, {size}, {chip}: {estimate.seconds * 1e3:.2f} ms"]
    if estimate.unknown or estimate.endless:
        lines.append(
            f"  at least that: {estimate.unknown} layers have an unknown shape, {len(estimate.endless)} loops an "
            "unknown length"
        )
    return lines + _kinds(estimate) + _layers(estimate) + _batches(estimate) + _assumptions(estimate)


def _kinds(estimate: TimeEstimate) -> List[str]:
    total = estimate.seconds or 1.0
    lines = [f"  {LABEL} by kind", "        ms   share  kernels  kind"]
    for kind, seconds in estimate.kinds().items():
        number = sum(layer.steps for layer in estimate.layers if layer.kind == kind)
        lines.append(f"  {seconds * 1e3:8.2f}  {seconds / total:5.1%}  {number:7d}  {kind}")
    return lines


def _layers(estimate: TimeEstimate) -> List[str]:
    lines = [f"  {LABEL}, slowest layers", "        ms    GFLOP        MB  bound by       layer"]
    for layer in estimate.slowest(_SLOWEST):
        times = f", {layer.steps} steps" if layer.steps > 1 else ""
        what = f"{layer.node} ({layer.op}{times})"
        lines.append(
            f"  {layer.seconds * 1e3:8.3f}  {layer.flop / 1e9:7.1f}  {layer.nbytes / 1e6:8.1f}  {layer.bound:13s}  "
            f"{what}"
        )
    return lines


def _batches(estimate: TimeEstimate) -> List[str]:
    if not estimate.batches:
        return [f"  {LABEL} of other batches: none, because the inputs do not share a first side that is known"]
    lines = [f"  {LABEL} by batch", "   batch    ms/run   ms/scan       MiB  fits"]
    for row in estimate.batches:
        own = "  (this graph)" if row.batch == estimate.batch else ""
        figures = f"{row.batch:6d}  {row.seconds * 1e3:8.2f}  {row.ms_per_scan:8.2f}  {row.memory / _MIB:8.0f}"
        lines.append(f"  {figures}  {_FITS[row.fits]}{own}")
    return lines + [f"  {LABEL}: {advice(estimate)}"]


def advice(estimate: TimeEstimate) -> str:
    """Which batch to take, and why."""
    if estimate.recommended is None:
        fits = {row.fits for row in estimate.batches}
        if fits == {False}:
            return "no batch fits into the memory; use a smaller --shape"
        if not estimate.device.known:
            return f"no batch is advised: the speeds of {estimate.device.soc_version} are not known"
        return (
            f"no batch is advised: the memory of {estimate.device.soc_version}, or what the graph takes of it, is "
            "not known"
        )
    looked_at = ", ".join(str(row.batch) for row in estimate.batches)
    return (
        f"take batch {estimate.recommended} of {looked_at}: the smallest that fits and is within {WORTH:.0%} of "
        "the best time per scan"
    )


def _assumptions(estimate: TimeEstimate) -> List[str]:
    lines = ["  assumptions, with where they come from"]
    return lines + [f"    {what}: {value} [{source}]" for what, value, source in assumptions(estimate.device)]
