# SPDX-License-Identifier: Apache-2.0
"""What one command line of ATC does, by ``--mode``: 0 compile, 1 model to JSON, 3 pre-check, 6 show a model."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Callable, Dict, List, Tuple

from vxm_convert.artifacts.files import write_text
from vxm_convert.ascend.chips import family_of
from vxm_convert.errors import VxmError
from vxm_convert.formats import ge_ir, om, plain, tf_graph
from vxm_convert.formats.tf_graph import TfNode, read_graph
from vxm_convert.sim.atc import reports
from vxm_convert.sim.atc.checks import ONNX, TENSORFLOW, check_framework, check_log, check_path, check_request
from vxm_convert.sim.compiler.compile import (
    IGNORED_NAMES,
    CompileRequest,
    compile_graph,
    original_model,
    write_model,
    write_original,
)
from vxm_convert.sim.compiler.gears import Parser, compile_gears, largest_gear, static_request
from vxm_convert.sim.refusal import AtcRefusal

Say = Callable[[str], None]


def run_mode(flags: Dict[str, str], command: str, say: Say) -> None:
    """Do what the flags request; raises AtcRefusal."""
    action = _MODES.get(flags["mode"])
    if action is None:
        raise AtcRefusal(
            "E10055", f"--mode={flags['mode']}: the simulated ATC has the modes {', '.join(sorted(_MODES))}"
        )
    action(flags, command, say)


def _compile(flags: Dict[str, str], command: str, say: Say) -> None:
    request = check_request(flags, command)
    family = family_of(request.soc_version)
    if family is not None and family.unknown:
        say(
            f"NOTE: the simulated device rounds as a first-generation Ascend 910 does; {request.soc_version} is recorded "
            f"in the model. Not known of {family.products}: {'; '.join(family.unknown)}"
        )
    parse = _parser(flags)
    # The largest of several shapes represents the model; each is compiled separately.
    asked = static_request(request, largest_gear(request)) if request.gears else request
    static, nodes = parse(asked)
    try:
        model = compile_gears(parse, request) if request.gears else compile_graph(nodes, static)
        original = original_model(nodes, static) if flags["save_original_model"] == "true" else None
    except AtcRefusal as exc:
        if reports.is_parse_failure(exc):
            reports.write_check_report(
                flags["check_report"], flags["model"], [(node.name, node.op) for node in nodes], exc
            )
        raise
    ignored = model.attrs.get(IGNORED_NAMES)
    if ignored:
        say(
            f"NOTE: --keep_dtype names nodes that the graph does not have: {', '.join(map(str, ignored))}; as the real "
            "ATC, which says so in its log file only, the simulated one ignores them"
        )
    target = Path(flags["output"] + ".om")
    write_model(target, model)
    if original is not None:
        write_original(Path(flags["output"] + "_original.om"), original)
    reports.write_fusion_result(model)
    if flags["display_model_info"] == "1":
        _show(target, say)


def _parser(flags: Dict[str, str]) -> Parser:
    """A function that returns the model's nodes for a request with static shapes; it reads a frozen graph once."""
    graphs: List[List[TfNode]] = []

    def parse(request: CompileRequest) -> Tuple[CompileRequest, List[TfNode]]:
        if not graphs or flags["framework"] != TENSORFLOW:
            request, nodes = _parse(flags, request)
            graphs[:] = [nodes]
        return request, graphs[0]

    return parse


def _parse(flags: Dict[str, str], request: CompileRequest) -> Tuple[CompileRequest, List[TfNode]]:
    """The model's nodes; writes a check report if the file cannot be parsed."""
    try:
        if flags["framework"] == TENSORFLOW:
            return request, read_graph(Path(flags["model"]))
        from vxm_convert.sim.frontends.onnx.importer import read_onnx

        parsed = read_onnx(Path(flags["model"]), request.input_shapes, request.out_nodes)
        places = dict(zip(parsed.out_places, parsed.outputs))
        types = {places[f"{node}:{index}"]: kind for (node, index), kind in request.output_types.items()}
        halves = frozenset(parsed.inputs.get(name, name) for name in request.half_inputs)
        given = {name: parsed.inputs.get(name, parsed.inputs.get(f"{name}:0", name)) for name in request.input_shapes}
        return replace(
            request,
            out_nodes=parsed.outputs,
            out_names=parsed.out_names,
            output_types=types,
            half_inputs=halves,
            input_shapes={},
            input_nodes=given,
        ), parsed.nodes
    except VxmError as exc:
        refusal = AtcRefusal("E13005", str(exc))
        reports.write_check_report(flags["check_report"], flags["model"], [], refusal)
        raise refusal from exc
    except AtcRefusal as exc:
        if reports.is_parse_failure(exc):
            reports.write_check_report(flags["check_report"], flags["model"], exc.operators, exc)
        raise


def _precheck(flags: Dict[str, str], command: str, say: Say) -> None:
    """Read and compile without writing a model; the report lists every operator."""
    request, parse = check_request(flags, command), _parser(flags)
    static, nodes = parse(static_request(request, largest_gear(request)) if request.gears else request)
    listed = [(node.name, node.op) for node in nodes]
    try:
        if request.gears:
            compile_gears(parse, request)
        else:
            compile_graph(nodes, static)
    except AtcRefusal as exc:
        reports.write_check_report(flags["check_report"], flags["model"], listed, exc)
        raise
    reports.write_check_report(flags["check_report"], flags["model"], listed, None)


def _to_json(flags: Dict[str, str], command: str, say: Say) -> None:
    check_log(flags)
    for name in ("om", "json"):
        if not flags[name]:
            raise AtcRefusal("E10004", f"--{name} is empty; --mode=1 needs it")
    path = flags["om"]
    check_path("om", path)
    if not os.path.basename(flags["json"]):
        raise AtcRefusal("E10022", f"--json is {flags['json']!r}, which ends in a folder")
    with open(path, "rb") as handle:
        is_om = handle.read(len(om.MAGIC)) == om.MAGIC
    data = _om_json(path) if is_om else _framework_json(path, flags)
    write_text(Path(flags["json"]), json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _om_json(path: str) -> Dict[str, object]:
    try:
        return plain.to_plain(
            ge_ir.parse_message(om.read_model_def(Path(path)), path), plain.GE_ENUMS, plain.GE_WEIGHTS
        )
    except VxmError as exc:
        raise AtcRefusal("E10041", f"--om is {path!r}, which cannot be loaded: {exc}") from exc


def _framework_json(path: str, flags: Dict[str, str]) -> Dict[str, object]:
    check_framework(flags)
    try:
        if flags["framework"] == ONNX:
            from vxm_convert.sim.frontends.onnx.importer import onnx_json

            return onnx_json(Path(path))
        return plain.to_plain(tf_graph.read_message(Path(path)), plain.TF_ENUMS, plain.TF_WEIGHTS)
    except VxmError as exc:
        raise AtcRefusal("E13005", str(exc)) from exc


def _show_model(flags: Dict[str, str], command: str, say: Say) -> None:
    check_log(flags)
    if not flags["om"]:
        raise AtcRefusal("E10004", "--om is empty; --mode=6 needs it")
    check_path("om", flags["om"])
    _show(Path(flags["om"]), say)


def _show(path: Path, say: Say) -> None:
    try:
        overview = om.read_overview(path)
    except VxmError as exc:
        raise AtcRefusal("E10041", f"--om is {str(path)!r}, which cannot be loaded: {exc}") from exc
    for line in reports.model_info(overview):
        say(line)


_MODES: Dict[str, Callable[[Dict[str, str], str, Say], None]] = {
    "0": _compile,
    "1": _to_json,
    "3": _precheck,
    "6": _show_model,
}
