# SPDX-License-Identifier: Apache-2.0
"""Where the figures come from: the files from checkpoint to this page with their hashes, and what the compiler was told
to keep in fp32.
"""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Tuple

from om_runner.precision.page.figures import dig
from vxm_convert.webpage.elements import Column, Html, definitions, element, join, prose, section
from vxm_convert.webpage.tables import table

_MODES = {
    "force_fp16": "everything the device can compute in fp16 is fp16",
    "allow_fp32_to_fp16": "fp32 where the device has a kernel for it, else fp16",
    "force_fp32": "fp16 operands of convolutions, fp32 results; fp32 everywhere else",
    "must_keep_origin_dtype": "the dtypes of the graph, or no model at all",
    "allow_mix_precision": "operators on the compiler's list in fp16, the others in fp32",
}
_ROLES = {"frozen_pb": "frozen graph (pb)", "pb": "frozen graph (pb)", "onnx": "ONNX", "om": "offline model (om)"}


def provenance_section(report: Mapping[str, Any], report_sha256: Optional[str]) -> Html:
    """The chain as an ordered list, then model and reference in words."""
    steps = [
        element(
            "li",
            element("strong", role),
            " ",
            element("span", file),
            " ",
            element("code", f"sha256 {sha}") if sha else element("span", "no hash recorded", class_="missing"),
        )
        for role, file, sha in _chain(report, report_sha256)
    ]
    toolchain = report.get("toolchain") if isinstance(report.get("toolchain"), Mapping) else {}
    facts = [
        (
            "Toolchain",
            ", ".join(f"{key}: {value}" for key, value in toolchain.items() if isinstance(value, (str, int, float))),
        ),
        ("Model", _model(report)),
        (
            "Reference",
            f"TensorFlow {dig(report, 'reference.tensorflow') or 'of unknown version'} on the CPU, the same frozen "
            "graph",
        ),
        ("Labels", f"{report.get('label_set')}, warped with nearest neighbour"),
        ("Profile", _profile(report)),
    ]
    note = prose(
        "Each file was made from the one above it. ",
        element("code", "python -m vxm_convert verify"),
        " checks the chain on disk and names the first broken link.",
        note=True,
    )
    return section(
        "Where the figures come from",
        element("ol", *steps, class_="chain"),
        note,
        definitions(facts),
        anchor="provenance",
    )


def _chain(report: Mapping[str, Any], report_sha256: Optional[str]) -> List[Tuple[str, str, str]]:
    listed = report.get("provenance")
    chain = [
        (str(entry.get("role")), str(entry.get("file") or ""), str(entry.get("sha256") or ""))
        for entry in listed or ()
        if isinstance(entry, Mapping)
    ]
    if not chain:
        chain = [
            ("frozen_pb", "", str(dig(report, "reference.frozen_pb_sha256") or "")),
            ("om", str(dig(report, "model.om") or ""), str(dig(report, "model.om_sha256") or "")),
        ]
    if report_sha256 and not any(role == "report" for role, _, _ in chain):
        chain.append(("report", "report.json, which this page shows", report_sha256))
    return [(_ROLES.get(role, role), file, sha) for role, file, sha in chain]


def _model(report: Mapping[str, Any]) -> str:
    model = report.get("model") if isinstance(report.get("model"), Mapping) else {}
    shape = "\u00d7".join(str(n) for n in model.get("volume_shape") or ()) or "n/a"
    return (
        f"{model.get('variant')}, {shape} voxels, batch {model.get('batch')}, precision {model.get('precision')}, "
        f"for {model.get('soc_version')}"
    )


def _profile(report: Mapping[str, Any]) -> Html:
    profile = report.get("profile")
    if not isinstance(profile, Mapping):
        return join([f"none; {report.get('criterion') or 'only NaN and Inf are judged'}"])
    sha = profile.get("sha256")
    return join([str(profile.get("name")), " ", element("code", f"sha256 {sha}") if sha else ""])


def plan_section(report: Mapping[str, Any]) -> Html:
    """What is computed in which precision, and why; empty text where the report does not say."""
    plan = report.get("precision_plan")
    if not isinstance(plan, Mapping):
        return Html("")
    reasons = plan.get("reasons") if isinstance(plan.get("reasons"), Mapping) else {}
    treated = [(str(node), "kept in fp32 (keep_dtype)") for node in plan.get("keep_dtype") or ()]
    treated += [
        (str(node), "weights as an fp16 part and the rest (split_weights)") for node in plan.get("split_weights") or ()
    ]
    named = {node for node, _ in treated}
    treated += [(str(node), "\u2014") for node in reasons if str(node) not in named]
    body = [[element("code", node), what, str(reasons.get(node) or "no reason recorded")] for node, what in treated]
    mode = str(plan.get("mode"))
    intro = prose(
        "Plan ",
        element("strong", str(plan.get("name"))),
        ": ",
        element("code", f"--precision_mode={mode}"),
        f" ({_MODES[mode]})." if mode in _MODES else ".",
    )
    if not body:
        return section("Precision plan", intro, prose("No node is treated on its own."), anchor="plan")
    columns = [Column("node", "name"), Column("treatment", "text"), Column("why", "text")]
    listed = table(f"Nodes with a treatment of their own, n = {len(body)}", columns, body)
    return section("Precision plan", intro, listed, anchor="plan")
