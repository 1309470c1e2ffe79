# SPDX-License-Identifier: Apache-2.0
"""A frozen graph in which every layer is isolated: each of its inputs is a placeholder. Its compiled form gives single
errors.

Nodes keep their names, so that a plan (``--keep_dtype``) still applies to them. An input that the device keeps in fp16
is fed in fp16 (``--input_fp16_nodes``), and the compiler adds the same cast, or none, as in the whole model.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, FrozenSet, List, Sequence, Set, Tuple

from google.protobuf.message import Message

from om_runner.layers.matching import FLOATS, NET_OUTPUT, GoldenGraph, Layer, results_of, tensor_name
from vxm_convert.artifacts.names import CUSTOM_DTYPES_NAME, KEEP_DTYPE_NAME
from vxm_convert.ascend.atc_flags import ALLOWED
from vxm_convert.errors import AtcError, ToolchainError
from vxm_convert.formats.ge_ir import Desc
from vxm_convert.formats.om import OmModel, read_om
from vxm_convert.formats.tf_graph import DTYPES, read_message
from vxm_convert.model.contract import GraphContract, TensorSpec
from vxm_convert.toolchain.find import Toolchain

LOG = logging.getLogger(__name__)

_NUMBERS = {name: number for number, name in DTYPES.items()}
_TAIL = 1500
#: prefix of the placeholders' names
_INPUT = "vxm_golden_"


@dataclass(frozen=True)
class CutInput:
    """A placeholder for a golden tensor in one of its dtypes on the device."""

    node: str
    golden: str
    dtype: str
    shape: Tuple[int, ...]


@dataclass(frozen=True)
class CutModel:
    """The compiled layers of one group; `layers` are those with the same arithmetic as in the whole model."""

    om_path: Path
    contract: GraphContract
    inputs: Tuple[CutInput, ...]
    layers: Tuple[Layer, ...]
    #: golden name of a layer → reason for a missing single error
    refused: Dict[str, str]


def compile_cut(
    group: Sequence[Layer],
    pb: Path,
    graph: GoldenGraph,
    known: FrozenSet[str],
    held: Dict[str, Desc],
    contract: GraphContract,
    toolchain: Toolchain,
    folder: Path,
) -> CutModel:
    """Cut and compile the layers of a group.

    Parameters
    ----------
    group : list of Layer — computed ones that belong to a node.
    known : frozenset of str — golden tensors that may be inputs.
    held : dict — golden tensor → its form on the device.
    folder : Path — a separate folder for the graph, the model and ATC's log.

    Raises
    ------
    AtcError
        If ATC refuses the cut graph.
    """
    inputs, message = _cut(group, pb, graph, known, held)
    (folder / "layers.pb").write_bytes(message.SerializeToString(deterministic=True))
    outputs = {str(layer.golden): layer.desc.dtype for layer in group}
    nodes = {node.name for node in message.node}
    arguments = _arguments(inputs, outputs, nodes, contract, folder)
    _run_atc(arguments + _passed_flags(contract, pb.parent, folder, nodes), toolchain, folder)
    model = read_om(folder / "layers.om")
    good, refused = _same_arithmetic(group, model)
    return CutModel(folder / "layers.om", _contract(model, inputs, sorted(outputs), contract), inputs, good, refused)


def _cut(
    group: Sequence[Layer], pb: Path, graph: GoldenGraph, known: FrozenSet[str], held: Dict[str, Desc]
) -> Tuple[Tuple[CutInput, ...], Any]:
    source = read_message(pb)
    wanted: Dict[str, Dict[str, str]] = {}
    inputs: Dict[str, CutInput] = {}
    for layer in group:
        feeds, between = graph.behind(str(layer.golden), known)
        for feed in feeds:
            inputs.setdefault(
                feed, CutInput(f"{_INPUT}{len(inputs)}", feed, held[feed].dtype, tuple(held[feed].logical_shape))
            )
        for name in between:
            wanted.setdefault(name, {}).update((feed, inputs[feed].node) for feed in feeds)
    made = type(source)()
    made.versions.CopyFrom(source.versions)
    for entry in inputs.values():
        _add_placeholder(made, entry)
    for node in source.node:
        if node.name in wanted:
            copy = made.node.add()
            copy.CopyFrom(node)
            kept = [name for name in node.input if not name.startswith("^")]
            del copy.input[:]
            copy.input.extend(wanted[node.name].get(tensor_name(name), name) for name in kept)
    return tuple(inputs.values()), made


def _add_placeholder(made: Message, entry: CutInput) -> None:
    node = made.node.add(name=entry.node, op="Placeholder")
    node.attr.add(key="dtype").value.type = _NUMBERS["float32" if entry.dtype in FLOATS else entry.dtype]
    shape = node.attr.add(key="shape").value.shape
    shape.SetInParent()
    for side in entry.shape:
        shape.dim.add(size=side)


def _arguments(
    inputs: Sequence[CutInput], outputs: Dict[str, str], nodes: Any, contract: GraphContract, folder: Path
) -> List[str]:
    arguments = [
        "--model=layers.pb",
        "--framework=3",
        "--output=layers",
        "--soc_version=" + contract.soc_version,
        "--input_shape=" + ";".join(f"{i.node}:{','.join(str(n) for n in i.shape)}" for i in inputs),
        "--out_nodes=" + ";".join(sorted(outputs)),
    ]
    if "precision_mode_v2" not in contract.atc_flags:
        arguments.append("--precision_mode=" + contract.precision.mode)
    half = [i.node for i in inputs if i.dtype == "float16"]
    if half:
        arguments.append("--input_fp16_nodes=" + ";".join(half))
    # Used unchanged: a cast to fp32 would double the memory of the largest layers.
    half = [f"{name}:FP16" for name, dtype in sorted(outputs.items()) if dtype == "float16"]
    if half:
        arguments.append("--output_type=" + ";".join(half))
    plan = contract.precision
    kept = [name for name in plan.keep_dtype if name in nodes]
    custom = [line for name, line in zip(plan.fp32_results, plan.custom_dtypes) if name in nodes]
    for name, flag, lines in ((KEEP_DTYPE_NAME, "keep_dtype", kept), (CUSTOM_DTYPES_NAME, "customize_dtypes", custom)):
        if lines:
            (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
            arguments.append(f"--{flag}={name}")
    return arguments


def _passed_flags(contract: GraphContract, beside: Path, folder: Path, nodes: Set[str]) -> List[str]:
    """The flags that the model was compiled with; files that they name are copied from beside the model, dtypes of nodes
    only where these layers have the node.
    """
    for name, value in contract.atc_flags.items():
        if name == "customize_dtypes":
            lines = (beside / value).read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.startswith("OpType::") or line.partition("::")[0] in nodes]
            (folder / value).write_text("".join(kept), encoding="utf-8")
        elif ALLOWED[name].suffix:
            shutil.copyfile(str(beside / value), str(folder / value))
    return [f"--{name}={value}" for name, value in sorted(contract.atc_flags.items())]


def _run_atc(arguments: List[str], toolchain: Toolchain, folder: Path) -> None:
    if not toolchain.atc_command:
        raise ToolchainError(
            f"ATC: {toolchain.root} contains only the runtime, and single errors need the compiler; omit --single"
        )
    command = list(toolchain.atc_command) + arguments
    LOG.debug("ATC: %s", " ".join(command))
    try:
        done = subprocess.run(
            command,
            cwd=str(folder),
            env=toolchain.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except OSError as exc:
        raise ToolchainError(f"ATC: cannot start {command[0]} ({exc.strerror}); check the CANN installation") from exc
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode or not (folder / "layers.om").is_file():
        raise AtcError(
            f"ATC refused the graph of single layers (exit {done.returncode}); omit --single. Its last "
            f"output:\n{said[-_TAIL:]}",
            None,
            said,
        )


def _same_arithmetic(group: Sequence[Layer], model: OmModel) -> Tuple[Tuple[Layer, ...], Dict[str, str]]:
    """Layers whose operator has the dtypes of the whole model; another dtype would be another error."""
    made = {op.name: op for op in model.graph}
    good: List[Layer] = []
    refused: Dict[str, str] = {}
    for layer in group:
        op, name = made.get(layer.op), str(layer.golden)
        if op is None or layer.output >= len(op.output_descs):
            refused[name] = "alone, the compiler turns it into another operator"
        elif (op.type, op.output_descs[layer.output].dtype) != (layer.type, layer.desc.dtype):
            refused[name] = (
                f"alone, the compiler turns it into a {op.type} that returns {op.output_descs[layer.output].dtype}"
            )
        elif tuple(d.dtype for d in op.input_descs) != layer.reads:
            refused[name] = f"alone, the compiler gives it the inputs {', '.join(d.dtype for d in op.input_descs)}"
        else:
            good.append(layer)
    return tuple(good), refused


def _contract(
    model: OmModel, inputs: Sequence[CutInput], outputs: Sequence[str], contract: GraphContract
) -> GraphContract:
    """The contract for the runtime's checks of the cut model; output shapes are the model's own."""
    ends = next(results_of(op) for op in model.graph if op.type == NET_OUTPUT)
    names = [str(name) for name in model.attrs.get("attr_model_out_nodes_name") or []]
    results = []
    for name in outputs:
        desc = ends[names.index(name)]
        node, _, index = name.rpartition(":")
        results.append(TensorSpec(name, node, int(index), tuple(desc.logical_shape), desc.dtype))
    specs = tuple(TensorSpec(i.node, i.node, 0, i.shape, i.dtype) for i in inputs)
    return replace(contract, inputs=specs, outputs=tuple(results), hashes={})


def fresh_folder(parent: Path, name: str) -> Path:
    """An empty folder below the work folder."""
    folder = parent / name
    os.makedirs(str(folder))
    return folder
