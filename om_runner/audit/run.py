# SPDX-License-Identifier: Apache-2.0
"""From a command line to OUT/audit.json: the executions of every check, each result against the scan's first one.

The profile judges a difference; a bit-equal result needs no judgement.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, List, Optional, Sequence, Set, Tuple

import numpy as np

from om_runner.audit.differences import Difference, digest, measure, same_bits
from om_runner.audit.plan import FILLER, Check, check_of_other, checks_of, in_batches
from om_runner.device.acl_runtime import acl_started, open_runtime
from om_runner.device.offline_model import OfflineModel, open_model
from om_runner.device.runtime import Runtime
from om_runner.inputs.placement import BY_HEADERS, load_anywhere, load_atlas
from om_runner.inputs.scans import LoadedScan, discover
from om_runner.names import AUDIT_NAME
from om_runner.precision.comparison import Standard, compare_subject
from om_runner.precision.store import FLOW, MOVED, REFERENCE_FLOW, REFERENCE_MOVED, CompareStore
from vxm_convert.artifacts.files import check_output_folder
from vxm_convert.artifacts.reports import report_head, write_report_json
from vxm_convert.artifacts.sha256sums import begin_manifest, finish_manifest
from vxm_convert.artifacts.targets import check_apart
from vxm_convert.errors import ContractError, PrecisionError
from vxm_convert.geometry.orientations import spacing_mm
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET, label_set
from vxm_convert.profiles.profile import Profile, load_profile

LOG = logging.getLogger(__name__)

AUDIT_SCHEMA = 1
EQUAL, WITHIN, BEYOND = "bit-equal", "within profile", "beyond profile"
_SEVERITY = (EQUAL, WITHIN, BEYOND)
#: Figures of a single result, which say nothing about a difference.
_NO_DIFFERENCE = "moved.warp_only."


@dataclass(frozen=True)
class AuditSettings:
    """A parsed command line; `limit` None takes one scan more than the batch, and at least two."""

    input: Path
    atlas: Path
    model: Path
    contract: Optional[Path]
    other_model: Optional[Path]
    out: Path
    profile: str
    limit: Optional[int]
    toolchain: Optional[str]
    device: int


@dataclass
class Outcome:
    """The result of a check; `worst` is the row of the largest difference relative to the limits, None if all bits are
    equal.
    """

    check: Check
    compared: int = 0
    equal: int = 0
    verdict: str = EQUAL
    worst: Optional[Dict[str, Any]] = None
    explanation: str = ""
    failures: List[str] = field(default_factory=list)

    def to_dict(self) -> Dict[str, Any]:
        return {
            "name": self.check.name,
            "question": self.check.question,
            "executions": len(self.check.batches),
            "compared": self.compared,
            "equal": self.equal,
            "verdict": self.verdict,
            "explanation": self.explanation,
            "failures": self.failures,
            "worst": self.worst,
        }


def run_audit(
    settings: AuditSettings,
    runtime_factory: Callable[[OfflineModel, int], Runtime] = open_runtime,
    started: Callable[[OfflineModel], ContextManager[None]] = lambda model: acl_started(
        model.toolchain.load_acl(), str(model.om_path)
    ),
) -> Tuple[str, int]:
    """Run every check and write audit.json; returns the table for the terminal and the number of checks outside the
    profile.

    Raises
    ------
    VxmError
        If the audit must stop: an unusable scan or model, a device that fails or leaves outputs unwritten.
    PrecisionError
        If a result has NaN or Inf, which cannot be compared.
    """
    begun = time.time()
    check_apart(settings.out, settings.input, "--input")
    profile = load_profile(settings.profile)
    model = open_model(settings.model, settings.contract, settings.toolchain)
    other = None if settings.other_model is None else open_model(settings.other_model, None, settings.toolchain)
    if other is not None:
        check_same_network(model, other)
    atlas = load_atlas(settings.atlas, model)
    found = discover(settings.input, settings.atlas, settings.limit or max(2, model.contract.model.batch + 1))
    scans = [load_anywhere(scan, model.contract, atlas, BY_HEADERS) for scan in found]
    check_output_folder(settings.out)
    earlier = begin_manifest(settings.out)
    with CompareStore(settings.out, None) as store, ExitStack() as stack:
        stack.enter_context(started(model))
        audit = Audit(scans, atlas, profile, store)
        outcomes = _run_checks(audit, model, other, settings.device, runtime_factory)
    report = _report(model, other, profile, settings, audit, outcomes, time.time() - begun)
    write_report_json(settings.out / AUDIT_NAME, report)
    finish_manifest(settings.out, [AUDIT_NAME], earlier)
    LOG.info("%d checks in %.0f s: %s", len(outcomes), report["seconds"], settings.out / AUDIT_NAME)
    badge = "SIMULATED device" if model.simulated else "device"
    head = f"{badge}, batch {model.contract.model.batch}, n = {len(scans)} scans, profile {profile.name}"
    return f"{head}\n{terminal_table(outcomes)}", sum(outcome.verdict == BEYOND for outcome in outcomes)


def check_same_network(model: OfflineModel, other: OfflineModel) -> None:
    """Raise ContractError unless both models have the same weights and precision plan."""
    first, second = model.contract, other.contract
    for what, mine, theirs in (
        ("variant", first.model.variant, second.model.variant),
        ("volume shape", first.model.volume_shape, second.model.volume_shape),
        ("precision plan", first.precision, second.precision),
        ("checkpoint", first.hashes.get("checkpoint"), second.hashes.get("checkpoint")),
    ):
        if mine != theirs:
            raise ContractError(
                f"{other.om_path}: {what} {theirs}, {model.om_path} has {mine}; --other-model takes the same network "
                "exported with "
                "another batch"
            )


class Audit:
    """The scans, the first result of each, and the judgement of every difference from it.

    Parameters
    ----------
    scans : sequence of LoadedScan
    atlas : LoadedScan — the fixed image.
    profile : Profile — limits differences.
    store : CompareStore — keeps first results on disk; 110 MB each at full size.
    """

    def __init__(self, scans: Sequence[LoadedScan], atlas: LoadedScan, profile: Profile, store: CompareStore) -> None:
        self.scans, self._atlas, self._profile, self._store = scans, atlas, profile, store
        self._judged: Dict[Tuple[int, Tuple[str, ...]], Tuple[str, Dict[str, Any], List[str]]] = {}
        store.put_fixed(atlas.image)
        #: sha256 of moved and flow of every scan's first result
        self.digests: List[List[str]] = []

    def first(self, runtime: Runtime, batch: int) -> Outcome:
        """The first result of every scan, and each batch once more directly afterwards: the check ``repeat``."""
        check = checks_of(len(self.scans), batch)[0]
        outcome = Outcome(check)
        for places in in_batches(range(len(self.scans)), batch):
            for moved, flow, scan in self._results(runtime, places):
                if scan == len(self.digests):
                    self._keep(scan, moved, flow)
            self.compare(runtime, places, outcome)
        return outcome

    def compare(self, runtime: Runtime, places: Sequence[int], outcome: Outcome) -> None:
        """Execute one batch and compare every scan in it with its first result."""
        seen: Set[int] = set()
        for moved, flow, scan in self._results(runtime, places):
            if scan in seen and not outcome.check.copies:
                continue
            seen.add(scan)
            name = self._name(scan)
            outcome.compared += 1
            first_moved, first_flow = (self._store.get(name, what) for what in (REFERENCE_MOVED, REFERENCE_FLOW))
            if same_bits(moved, first_moved) and same_bits(flow, first_flow):
                outcome.equal += 1
                continue
            difference = measure(moved, flow, first_moved, first_flow)
            verdict, row, failures = self._judge(scan, moved, flow, difference)
            worse = _SEVERITY.index(verdict) > _SEVERITY.index(outcome.verdict)
            if worse or row["epe_voxel"]["max"] > (outcome.worst or row)["epe_voxel"]["max"]:
                outcome.worst, outcome.explanation, outcome.failures = (
                    row,
                    difference.explain(outcome.check.other),
                    failures,
                )
            outcome.verdict = verdict if worse else outcome.verdict

    def _results(self, runtime: Runtime, places: Sequence[int]) -> List[Tuple[np.ndarray, np.ndarray, int]]:
        """(moved, flow, scan) of the positions with a scan."""
        images = [self._atlas.image if scan == FILLER else self.scans[scan].image for scan in places]
        moving = np.ascontiguousarray(np.stack(images)[..., np.newaxis], np.float32)
        fixed = np.repeat(self._atlas.image[np.newaxis, ..., np.newaxis], len(places), axis=0)
        outputs = runtime.run({"moving": moving, "fixed": fixed}).outputs
        return [
            (outputs["moved"][at, ..., 0], outputs["flow"][at], scan)
            for at, scan in enumerate(places)
            if scan != FILLER
        ]

    def _keep(self, scan: int, moved: np.ndarray, flow: np.ndarray) -> None:
        loaded = self.scans[scan]
        bad = int(np.count_nonzero(~np.isfinite(moved)) + np.count_nonzero(~np.isfinite(flow)))
        if bad:
            raise PrecisionError(
                f"{loaded.scan.path}: the model returned {bad} NaN or infinite values, expected none; export again"
            )
        self._store.put(self._name(scan), loaded.image, loaded.seg, moved, flow)
        for what, array in ((REFERENCE_MOVED, moved), (REFERENCE_FLOW, flow)):
            np.save(str(self._store.path(self._name(scan), what)), array, allow_pickle=False)
        self.digests.append(digest(moved, flow))

    def _judge(
        self, scan: int, moved: np.ndarray, flow: np.ndarray, difference: Difference
    ) -> Tuple[str, Dict[str, Any], List[str]]:
        """Verdict, row and failures; results are judged only once."""
        key = (scan, tuple(digest(moved, flow)))
        if key not in self._judged:
            name = self._name(scan)
            for what, array in ((MOVED, moved), (FLOW, flow)):
                np.save(str(self._store.path(name, what)), array, allow_pickle=False)
            labels = label_set(DEFAULT_LABEL_SET)
            spacing = spacing_mm(self._atlas.affine)
            standard = Standard(self._atlas.seg, DEFAULT_LABEL_SET, labels, spacing, self._profile)
            result = compare_subject(self._store, name, standard, 0.0)
            failures = [one.text for one in result.judgement.failures if not one.figure.startswith(_NO_DIFFERENCE)]
            row = {
                entry: value
                for entry, value in result.to_dict().items()
                if entry not in ("histograms", "reference_seconds")
            }
            row["difference"] = difference.to_dict()
            self._judged[key] = (BEYOND if failures else WITHIN, row, failures)
        return self._judged[key]

    def _name(self, scan: int) -> str:
        return self.scans[scan].scan.subject


def _run_checks(
    audit: Audit,
    model: OfflineModel,
    other: Optional[OfflineModel],
    device: int,
    runtime_factory: Callable[[OfflineModel, int], Runtime],
) -> List[Outcome]:
    """All checks; models are loaded one after the other, so that two never need memory at once."""
    count, batch = len(audit.scans), model.contract.model.batch
    outcomes: List[Outcome] = []
    later: List[Check] = []
    with runtime_factory(model, device) as runtime:
        outcomes.append(audit.first(runtime, batch))
        for check in checks_of(count, batch)[1:]:
            if check.reload:
                later.append(check)
            else:
                outcomes.append(_run_check(audit, check, runtime))
    for check in later:
        with runtime_factory(model, device) as runtime:
            outcomes.append(_run_check(audit, check, runtime))
    if other is not None:
        with runtime_factory(other, device) as runtime:
            outcomes.append(_run_check(audit, check_of_other(count, other.contract.model.batch, batch), runtime))
    return outcomes


def _run_check(audit: Audit, check: Check, runtime: Runtime) -> Outcome:
    outcome = Outcome(check)
    for places in check.batches:
        audit.compare(runtime, places, outcome)
    LOG.info("%s: %s, %d of %d results bit-equal", check.name, outcome.verdict, outcome.equal, outcome.compared)
    return outcome


def _report(
    model: OfflineModel,
    other: Optional[OfflineModel],
    profile: Profile,
    settings: AuditSettings,
    audit: Audit,
    outcomes: Sequence[Outcome],
    seconds: float,
) -> Dict[str, Any]:
    verdict = max((outcome.verdict for outcome in outcomes), key=_SEVERITY.index)
    return {
        **report_head("determinism", model.toolchain.describe(), model.simulated, len(audit.scans)),
        "audit_schema": AUDIT_SCHEMA,
        "verdict": verdict,
        "profile": profile.to_dict(),
        "fixed": settings.atlas.name,
        "model": _described(model),
        "other_model": None if other is None else _described(other),
        "outputs_poisoned": True,
        "results": [
            {"subject": scan.scan.subject, "scan_sha256": scan.sha256, "moved_sha256": sums[0], "flow_sha256": sums[1]}
            for scan, sums in zip(audit.scans, audit.digests)
        ],
        "checks": [outcome.to_dict() for outcome in outcomes],
        "seconds": seconds,
    }


def _described(model: OfflineModel) -> Dict[str, Any]:
    contract = model.contract
    return {
        "om": model.om_path.name,
        "om_sha256": contract.hashes["om"],
        "batch": contract.model.batch,
        "volume_shape": list(contract.model.volume_shape),
        "precision": contract.precision.name,
        "soc_version": contract.soc_version,
    }


def terminal_table(outcomes: Sequence[Outcome]) -> str:
    """One line per check; figures if bits differ, and the reasons below."""
    lines = [f"{'check':12s} {'bit-equal':>11s}  {'verdict':15s} {'EPE max, voxel':>15s} {'moved max':>10s}  question"]
    for one in outcomes:
        epe, moved = (
            ("-", "-")
            if one.worst is None
            else (f"{one.worst['epe_voxel']['max']:.3g}", f"{one.worst['moved']['max_abs']:.3g}")
        )
        equal = f"{one.equal} of {one.compared}"
        lines.append(
            f"{one.check.name:12s} {equal:>11s}  {one.verdict:15s} {epe:>15s} {moved:>10s}  {one.check.question}"
        )
    for one in outcomes:
        lines += [f"{one.check.name}: {text}" for text in [one.explanation] * bool(one.explanation) + one.failures]
    return "\n".join(lines)
