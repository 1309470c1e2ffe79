# SPDX-License-Identifier: Apache-2.0
"""Says in a few lines what a file of the chain is: contract, side-car, frozen graph, ONNX, offline model. Changes nothing."""
from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List

from vxm_convert.contract import CONTRACT_NAME, GraphContract, TensorSpec
from vxm_convert.errors import ArtifactError, FormatError

MAX_JSON_BYTES = 64 << 20
MAX_ONNX_BYTES = (1 << 31) - 1


def describe_file(path: Path) -> List[str]:
    """Lines for the terminal.

    Raises
    ------
    ArtifactError
        No such file, or a kind that is not known.
    FormatError
        The bytes are not what the name says.
    """
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; pass a contract.json, a .pb, .onnx or .om")
    describe = _KINDS.get(path.suffix.lower())
    if describe is None:
        raise ArtifactError(f"{path}: got a {path.suffix or 'file without suffix'}, expected one of {', '.join(sorted(_KINDS))}")
    return [f"{path}: {path.stat().st_size} bytes"] + describe(path)


def read_json(path: Path) -> Any:
    """A JSON file of ours; raises ArtifactError when unreadable or too large, FormatError when it is no JSON."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise FormatError(f"{path}: {size} bytes, expected at most {MAX_JSON_BYTES}; this is no file of ours")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ArtifactError(f"{path}: cannot read it ({exc.strerror})") from exc
    except ValueError as exc:
        raise FormatError(f"{path}: not JSON ({exc})") from exc


def _describe_json(path: Path) -> List[str]:
    if path.name == CONTRACT_NAME:
        return _describe_contract(GraphContract.load(path))
    return json.dumps(read_json(path), indent=2, sort_keys=True, ensure_ascii=False).splitlines()


def _describe_contract(contract: GraphContract) -> List[str]:
    model, plan = contract.model, contract.precision
    lines = [
        "graph contract",
        f"model     {model.variant}, {'x'.join(str(n) for n in model.volume_shape)} voxels, batch {model.batch}",
        f"grid      {contract.grid.orientation}, {' x '.join(f'{s:g}' for s in contract.grid.spacing_mm)} mm",
        f"intensity value / {contract.intensity.scale:g}: {contract.intensity.convention}",
        f"precision {plan.name}: {plan.mode}, {len(plan.keep_dtype)} nodes kept in fp32",
        f"device    {contract.soc_version}",
    ]
    lines += [_tensor_line("input", t) for t in contract.inputs] + [_tensor_line("output", t) for t in contract.outputs]
    lines += [f"sha256    {role:12s} {digest}" for role, digest in sorted(contract.hashes.items())]
    return lines + [f"tool      {tool:12s} {version}" for tool, version in sorted(contract.tools.items())]


def _tensor_line(kind: str, spec: TensorSpec) -> str:
    what = f"{spec.tensor_name} {spec.dtype} {list(spec.shape)} {spec.layout}"
    return f"{kind:9s} {spec.meaning:8s} {what}, {spec.unit} {spec.frame}".rstrip()


def _describe_om(path: Path) -> List[str]:
    from vxm_convert.formats.om import read_om

    model = read_om(path)
    kind = "SIMULATED offline model (made by the simulated atc; no device will load it)" if model.simulated else "offline model"
    lines = [kind, f"name      {model.name}", f"device    {model.soc_version}", f"weights   {len(model.weights)} bytes"]
    lines += [f"attribute {key} = {_short(value)}" for key, value in sorted(model.attrs.items())]
    return lines + _op_lines(op.type for op in model.graph)


def _describe_pb(path: Path) -> List[str]:
    from vxm_convert.formats.tf_graph import placeholders, read_graph

    nodes = read_graph(path)
    used = {name.split(":")[0].lstrip("^") for node in nodes for name in node.inputs}
    lines = ["frozen TensorFlow graph"]
    lines += [f"input     {name} {dtype} {list(shape or ())}" for name, (dtype, shape) in placeholders(nodes).items()]
    lines += [f"output    {node.name}" for node in nodes if node.name not in used]
    return lines + _op_lines(node.op for node in nodes)


def _describe_onnx(path: Path) -> List[str]:
    import onnx
    from google.protobuf.message import DecodeError

    if path.stat().st_size > MAX_ONNX_BYTES:
        raise FormatError(f"{path}: larger than 2 GiB, expected a single-file ONNX model")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as exc:
        raise FormatError(f"{path}: not an ONNX model ({exc}); export it again") from exc
    if not model.graph.node:
        raise FormatError(f"{path}: holds no ONNX graph; export it again")
    opsets = ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import)
    lines = ["ONNX model", f"opset     {opsets}", f"made by   {model.producer_name} {model.producer_version}".rstrip()]
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        lines += [f"{kind:9s} {v.name} {[d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim]}" for v in values]
    return lines + _op_lines(node.op_type for node in model.graph.node)


def _op_lines(ops: Iterable[str]) -> List[str]:
    counts = Counter(ops)
    return [f"operators {sum(counts.values())}: " + ", ".join(f"{op} {n}" for op, n in sorted(counts.items()))]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "..."


_KINDS: Dict[str, Callable[[Path], List[str]]] = {
    ".json": _describe_json, ".om": _describe_om, ".pb": _describe_pb, ".onnx": _describe_onnx,
}
