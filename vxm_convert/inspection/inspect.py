# SPDX-License-Identifier: Apache-2.0
"""Describes a file of the chain: kind, inputs and outputs, origin. Changes nothing.

`vxm_convert.inspection.graphs` reads graphs and `vxm_convert.inspection.weights` checkpoints; this module owns the
display and the JSON files of the chain.
"""

from __future__ import annotations

import json
import typing
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from vxm_convert.artifacts.files import read_json, sidecar_path
from vxm_convert.artifacts.names import CONTRACT_NAME
from vxm_convert.errors import ArtifactError, FormatError, VxmError
from vxm_convert.inspection.description import Description, OpLine
from vxm_convert.model.contract import GraphContract, TensorSpec
from vxm_convert.weights.foreign import UNKNOWN
from vxm_convert.weights.foreign import describe_file as describe_foreign

_SHOWN_HASH = 12
_LABEL_WIDTH = 9


def inspect_file(path: Path) -> Description:
    """Read a file and describe it, including its side-car.

    Parameters
    ----------
    path : Path — a file, or a checkpoint's prefix.

    Raises
    ------
    ArtifactError
        If there is no such file, or its kind is unknown.
    FormatError
        If the bytes do not match the name.
    """
    path = Path(path)
    target = _resolve(path)
    description = _reader(target)(target)
    return replace(
        description,
        facts=(("size", f"{target.stat().st_size} bytes"),) + description.facts + tuple(_sidecar_facts(target)),
    )


def describe_file(path: Path, with_ops: bool = False) -> List[str]:
    """Lines for the terminal; `with_ops` lists every operator. Raises as `inspect_file`."""
    found = inspect_file(path)
    lines = [f"{path}: {found.kind}"] + [f"{label:{_LABEL_WIDTH}s} {text}" for label, text in found.facts]
    if found.ops:
        lines.append(f"{found.noun:{_LABEL_WIDTH}s} {len(found.ops)}: " + ", ".join(_per_type(found.ops)))
    if with_ops:
        lines += [_op_text(op) for op in found.ops]
    if found.content is not None:
        lines += json.dumps(found.content, indent=2, sort_keys=True, ensure_ascii=False).splitlines()
    return lines


def _resolve(path: Path) -> Path:
    """The file itself, or the index of a checkpoint's prefix."""
    index = Path(str(path) + ".index")
    if path.is_file():
        return path
    if index.is_file():
        return index
    raise ArtifactError(
        f"{path}: no such file; pass a contract.json, side-car, .pb, .onnx, .om, .h5, dump file or checkpoint prefix"
    )


def _reader(path: Path) -> Callable[[Path], Description]:
    from vxm_convert.formats.dump import parse_dump_name
    from vxm_convert.inspection import graphs as models
    from vxm_convert.inspection import weights

    readers: Dict[str, Callable[[Path], Description]] = {
        ".json": _describe_json,
        ".om": models.describe_om,
        ".pb": models.describe_pb,
        ".onnx": models.describe_onnx,
        ".index": weights.describe_checkpoint,
        ".h5": weights.describe_h5,
        ".hdf5": weights.describe_h5,
    }
    if path.suffix.lower() in readers:
        return readers[path.suffix.lower()]
    try:
        parse_dump_name(path.name)
    except FormatError:
        what = describe_foreign(path)
        if path.is_file() and what not in (None, UNKNOWN):
            raise ArtifactError(f"{path}: is {what}") from None
        got = path.suffix or "file without suffix"
        raise ArtifactError(
            f"{path}: got a {got}, expected one of {', '.join(sorted(readers))} or a dump file"
        ) from None
    return models.describe_dump


def _describe_json(path: Path) -> Description:
    if path.name == CONTRACT_NAME:
        return _describe_contract(GraphContract.load(path))
    data = read_json(path)
    if isinstance(data, dict) and {"file", "sha256", "made_from"} <= set(data):
        return Description("side-car", (("file", str(data["file"])), *_provenance(path.parent, data)), content=data)
    return Description("JSON", content=data)


def _describe_contract(contract: GraphContract) -> Description:
    model, plan = contract.model, contract.precision
    facts = [
        ("model", f"{model.variant}, {'x'.join(str(n) for n in model.volume_shape)} voxels, batch {model.batch}"),
        ("grid", f"{contract.grid.orientation}, {' x '.join(f'{s:g}' for s in contract.grid.spacing_mm)} mm"),
        ("intensity", f"value / {contract.intensity.scale:g}: {contract.intensity.convention}"),
        (
            "precision",
            f"{plan.name}: {plan.mode}, {len(plan.keep_dtype)} nodes kept in fp32"
            + (f", {len(plan.fp32_results)} convolutions with fp32 results" if plan.fp32_results else ""),
        ),
        ("device", contract.soc_version),
    ]
    facts += [("input", _tensor_text(t)) for t in contract.inputs] + [
        ("output", _tensor_text(t)) for t in contract.outputs
    ]
    facts += [("atc flag", f"{name}={value}") for name, value in sorted(contract.atc_flags.items())]
    facts += [("sha256", f"{role:12s} {digest}") for role, digest in sorted(contract.hashes.items())]
    facts += [("tool", f"{tool:12s} {version}") for tool, version in sorted(contract.tools.items())]
    return Description("graph contract", tuple(facts))


def _tensor_text(spec: TensorSpec) -> str:
    what = f"{spec.tensor_name} {spec.dtype} {list(spec.shape)} {spec.layout}"
    return f"{spec.meaning:8s} {what}, {spec.unit} {spec.frame}".rstrip()


def _sidecar_facts(path: Path) -> List[Tuple[str, str]]:
    """The origin of a file by its side-car; a damaged side-car is reported, `verify` judges it."""
    side = sidecar_path(path)
    if not side.is_file() or path.suffix == ".json":
        return []
    try:
        return _provenance(path.parent, read_json(side))
    except VxmError as exc:
        return [("side-car", f"cannot be read: {exc}")]


def _provenance(folder: Path, data: object) -> List[Tuple[str, str]]:
    """Origin recorded in a side-car, with the file of the same folder that has this hash in its own side-car."""
    if not isinstance(data, dict):
        return [("side-car", "is not a JSON object")]
    toolchain = data.get("toolchain")
    facts = [("sha256", str(data.get("sha256")))]
    for role, digest in sorted(data["made_from"].items() if isinstance(data.get("made_from"), dict) else ()):
        source = _file_with_hash(folder, str(digest))
        facts.append(("made from", f"{role} {str(digest)[:_SHOWN_HASH]}" + (f" ({source})" if source else "")))
    if isinstance(toolchain, dict) and toolchain.get("kind") not in (None, "none"):
        simulated = ", SIMULATED" if toolchain.get("simulated") else ""
        facts.append(("toolchain", f"{toolchain['kind']} {toolchain.get('version', '')}{simulated}"))
    return facts


def _file_with_hash(folder: Path, digest: str) -> Optional[str]:
    for side in sorted(folder.glob("*.json")):
        try:
            data = read_json(side)
        except VxmError:
            continue
        if isinstance(data, dict) and data.get("sha256") == digest:
            return str(data.get("file"))
    return None


def _per_type(ops: Sequence[OpLine]) -> List[str]:
    """``Conv3D 11 (float16)``, ``Add 40 (float32 30, int32 10)``."""
    kinds: Dict[str, typing.Counter[str]] = {}
    for op in ops:
        kinds.setdefault(op.type, Counter())[", ".join(dict.fromkeys(op.outputs))] += 1
    texts = []
    for kind, dtypes in sorted(kinds.items()):
        count = sum(dtypes.values())
        named = [(name, n) for name, n in sorted(dtypes.items()) if name]
        shown = ", ".join(name if len(named) == 1 else f"{name} {n}" for name, n in named)
        texts.append(f"{kind} {count}" + (f" ({shown})" if shown else ""))
    return texts


def _op_text(op: OpLine) -> str:
    types = (
        ", ".join(dict.fromkeys(op.inputs))
        + (" -> " if op.inputs and op.outputs else "")
        + ", ".join(dict.fromkeys(op.outputs))
    )
    shapes = " ".join("x".join(str(n) for n in shape) or "scalar" for shape in op.shapes)
    return f"  {op.type:24s} {op.name:40s} {types:22s} {shapes}".rstrip()
