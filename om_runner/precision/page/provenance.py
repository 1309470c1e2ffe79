# SPDX-License-Identifier: Apache-2.0
"""Origin of the figures: the files from checkpoint to this page with their hashes, and the nodes kept in fp32."""

from __future__ import annotations

from typing import Any, List, Mapping, NamedTuple, Optional, Tuple

from om_runner.precision.page.quantities import dig, mapping_at
from vxm_convert.webpage.tables import Column, table
from vxm_convert.webpage.templates import Html, parts

_MODES = {
    "force_fp16": "everything that the device can compute in fp16 is fp16",
    "allow_fp32_to_fp16": "fp32 if the device has a kernel for it, else fp16",
    "force_fp32": "fp16 operands of convolutions, fp32 results; fp32 everywhere else",
    "must_keep_origin_dtype": "the dtypes of the graph; without a kernel, no model",
    "allow_mix_precision": "operators on the compiler's list in fp16, the others in fp32",
}
_ROLES = {"frozen_pb": "frozen graph (pb)", "pb": "frozen graph (pb)", "onnx": "ONNX", "om": "offline model (om)"}


def facts(report: Mapping[str, Any]) -> List[Tuple[str, Any]]:
    """Toolchain, model, reference, labels and profile as text."""
    toolchain = mapping_at(report, "toolchain")
    tools = ", ".join(f"{key}: {value}" for key, value in toolchain.items() if isinstance(value, (str, int, float)))
    tensorflow = dig(report, "reference.tensorflow") or "of unknown version"
    return [
        ("Toolchain", tools),
        ("Model", _model(report)),
        ("Reference", f"TensorFlow {tensorflow} on the CPU, the same frozen graph"),
        ("Labels", f"{report.get('label_set')}, warped with nearest neighbour"),
        ("Profile", _profile(report)),
    ]


def chain(report: Mapping[str, Any], report_sha256: Optional[str]) -> List[Tuple[str, str, str]]:
    """The files from checkpoint to page, each made from the previous one: role, file, sha256 ("" where unknown)."""
    listed = report.get("provenance")
    files = [
        (str(entry.get("role")), str(entry.get("file") or ""), str(entry.get("sha256") or ""))
        for entry in listed or ()
        if isinstance(entry, Mapping)
    ]
    if not files:
        files = [
            ("frozen_pb", "", str(dig(report, "reference.frozen_pb_sha256") or "")),
            ("om", str(dig(report, "model.om") or ""), str(dig(report, "model.om_sha256") or "")),
        ]
    if report_sha256 and not any(role == "report" for role, _, _ in files):
        files.append(("report", "report.json, which this page shows", report_sha256))
    return [(_ROLES.get(role, role), file, sha) for role, file, sha in files]


def _model(report: Mapping[str, Any]) -> str:
    model = mapping_at(report, "model")
    shape = "\u00d7".join(str(n) for n in model.get("volume_shape") or ()) or "n/a"
    return (
        f"{model.get('variant')}, {shape} voxels, batch {model.get('batch')}, precision {model.get('precision')}, "
        f"for {model.get('soc_version')}"
    )


def _profile(report: Mapping[str, Any]) -> str:
    profile = report.get("profile")
    if not isinstance(profile, Mapping):
        return f"none; {report.get('criterion') or 'only NaN and Inf are judged'}"
    sha = profile.get("sha256")
    return f"{profile.get('name')} sha256 {sha}" if sha else str(profile.get("name"))


class Plan(NamedTuple):
    """The precision plan: name, mode and its meaning, and the nodes with special treatment."""

    name: str
    mode: str
    meaning: str
    nodes: Optional[Html]


def plan(report: Mapping[str, Any]) -> Optional[Plan]:
    """The precision plan with the reasons for its decisions; None if the report has none."""
    entry = report.get("precision_plan")
    if not isinstance(entry, Mapping):
        return None
    reasons = mapping_at(entry, "reasons")
    treated = [(str(node), "kept in fp32 (keep_dtype)") for node in entry.get("keep_dtype") or ()]
    treated += [
        (str(node), "fp32 result from fp16 operands (fp32_results)") for node in entry.get("fp32_results") or ()
    ]
    treated += [
        (str(node), "weights in two parts, fp16 and the rest (split_weights)")
        for node in entry.get("split_weights") or ()
    ]
    named = {node for node, _ in treated}
    treated += [(str(node), "\u2014") for node in reasons if str(node) not in named]
    body = [
        [parts().code(node), treatment, str(reasons.get(node) or "no reason recorded")] for node, treatment in treated
    ]
    columns = [Column("node", "name"), Column("treatment", "text"), Column("why", "text")]
    nodes = table(f"Nodes with special treatment, n = {len(body)}", columns, body) if body else None
    mode = str(entry.get("mode"))
    return Plan(str(entry.get("name")), mode, _MODES.get(mode, ""), nodes)
