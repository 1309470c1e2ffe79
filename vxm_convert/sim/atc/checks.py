# SPDX-License-Identifier: Apache-2.0
"""ATC's checks of its flags, in the order of the real one, ending in a compile request."""
from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Dict, FrozenSet, List, Tuple

from vxm_convert.sim.atc.flags import UNSUPPORTED
from vxm_convert.sim.compiler import CompileRequest
from vxm_convert.sim.dtypes import FORCE_HALF, MODES, ORIGIN
from vxm_convert.sim.refusal import AtcRefusal

#: chip → AI cores. First-generation 910 parts; CANN's platform files name the same (Ascend910 is rewritten to Ascend910A).
SOC_CORES = {"Ascend910A": 32, "Ascend910ProA": 32, "Ascend910PremiumA": 32, "Ascend910B": 30, "Ascend910ProB": 30}
_FORMATS = ("NCHW", "NHWC", "ND", "NCDHW", "NDHWC")
_LOG_LEVELS = ("debug", "info", "warning", "error", "null")
_MODEL_CHARACTERS = re.compile(r"^[A-Za-z0-9\-._/ \u4e00-\u9fff]+$")
_V2_MODES = {"fp16": FORCE_HALF, "origin": ORIGIN, "cube_fp16in_fp32out": "cube_fp16in_fp32out", "mixed_float16": "allow_mix_precision"}
_MAX_PATH = 4096


def check_request(flags: Dict[str, str], command: str) -> CompileRequest:
    """Validate everything that can be judged without the graph; raises AtcRefusal."""
    if flags["log"] not in _LOG_LEVELS:
        raise AtcRefusal("E10010", f"--log is {flags['log']!r}, expected one of {', '.join(_LOG_LEVELS)}")
    if flags["auto_tune_mode"]:
        raise AtcRefusal("E10001", f"--auto_tune_mode is {flags['auto_tune_mode']!r}; the vendor withdrew it", solution="Use the AOE tool.")
    if flags["framework"] not in ("0", "1", "3", "5"):
        raise AtcRefusal("E10007", f"--framework is {flags['framework']}, expected 3 (TensorFlow) or 5 (ONNX)")
    if flags["input_format"] and flags["input_format"] not in _FORMATS:
        raise AtcRefusal("E10001", f"--input_format is {flags['input_format']!r}, expected one of {', '.join(_FORMATS)}")
    for name in ("soc_version", "output", "model"):
        if not flags[name]:
            raise AtcRefusal("E10054", f"--{name} is required")
    _check_paths(flags)
    soc = _check_soc(flags["soc_version"])
    mode = _check_precision(flags)
    for name in UNSUPPORTED:
        if flags[name]:
            solution = "Compile with the real one (VXM_TOOLCHAIN=cann)."
            raise AtcRefusal("E10055", f"--{name} is not supported by the simulated ATC", solution=solution)
    return CompileRequest(
        model_name=os.path.basename(flags["output"]), soc_version=soc, command=command, precision_mode=mode,
        input_shapes=parse_input_shape(flags["input_shape"]), out_nodes=parse_out_nodes(flags["out_nodes"]),
        keep_dtype=_read_keep_dtype(flags["keep_dtype"], mode),
    )


def _check_paths(flags: Dict[str, str]) -> None:
    model = flags["model"]
    if not _MODEL_CHARACTERS.match(model):
        raise AtcRefusal("E10001", f"--model is {model!r}; a path may hold letters, digits and -._/ only")
    if not os.path.isfile(model) or not os.access(model, os.R_OK):
        raise AtcRefusal("E10001", f"--model is {model!r}, which is no readable file")
    if flags["framework"] != "3":
        raise AtcRefusal(
            "E10055", f"--framework={flags['framework']}: the simulated ATC compiles TensorFlow graphs (3) only",
            solution="Compile frozen.pb, or use the real ATC.",
        )
    output = flags["output"]
    if len(output) > _MAX_PATH:
        raise AtcRefusal("E10021", f"--output has {len(output)} characters, expected at most {_MAX_PATH}")
    if not os.path.basename(output):
        raise AtcRefusal("E10022", f"--output is {output!r}, which ends in a folder; name the file without .om")


def _check_soc(value: str) -> str:
    soc = "Ascend910A" if value == "Ascend910" else value
    if soc not in SOC_CORES:
        raise AtcRefusal(
            "E20101", f"--soc_version is {value!r}; no platform of that name is known",
            solution=f"Use one of {', '.join(SOC_CORES)} (Ascend910B1 to B4 are another chip).",
        )
    return soc


def _check_precision(flags: Dict[str, str]) -> str:
    mode, newer = flags["precision_mode"], flags["precision_mode_v2"]
    if mode and newer:
        raise AtcRefusal("E10056", "--precision_mode and --precision_mode_v2 exclude each other; give one of them")
    mode = _V2_MODES.get(newer, newer) if newer else mode or FORCE_HALF
    if mode not in MODES:
        raise AtcRefusal("E10001", f"precision mode {mode!r} needs bf16, which a first-generation 910 does not have")
    return mode


def parse_input_shape(text: str) -> Dict[str, Tuple[int, ...]]:
    """``name:d,d;name:d,d`` → shapes; the last colon separates, because node names may hold some."""
    shapes: Dict[str, Tuple[int, ...]] = {}
    for entry in filter(None, text.split(";")):
        name, colon, dims = entry.rpartition(":")
        parts = [part.strip() for part in dims.split(",")]
        if not colon or not name or not all(re.match(r"^-?\d+$", part) for part in parts):
            example = "For example moving:1,160,192,224,1"
            raise AtcRefusal("E10002", f"--input_shape holds {entry!r}, expected name:number,number,…", solution=example)
        if any(int(part) <= 0 for part in parts):
            raise AtcRefusal("E10011", f"--input_shape gives {name} the shape {dims}; every dimension must be above 0")
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def parse_out_nodes(text: str) -> List[Tuple[str, int]]:
    """``node:index;node:index`` → outputs in that order."""
    nodes: List[Tuple[str, int]] = []
    for entry in filter(None, text.split(";")):
        name, colon, index = entry.rpartition(":")
        if not colon or not name or not index.isdigit():
            raise AtcRefusal("E10001", f"--out_nodes holds {entry!r}, expected node:index")
        nodes.append((name, int(index)))
    return nodes


def _read_keep_dtype(path: str, mode: str) -> FrozenSet[str]:
    if not path:
        return frozenset()
    if not os.path.isfile(path):
        raise AtcRefusal("E10001", f"--keep_dtype is {path!r}, which is no readable file")
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines()]
    names = frozenset(line for line in lines if line)
    types = sorted(name for name in names if name.startswith("OpType::"))
    if types:
        raise AtcRefusal("E10055", f"--keep_dtype names operator types ({', '.join(types)}); the simulated ATC takes node names only")
    return frozenset() if mode == ORIGIN else names
