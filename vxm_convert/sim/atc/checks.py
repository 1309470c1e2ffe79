# SPDX-License-Identifier: Apache-2.0
"""ATC's checks of its flags, in the order of the real one, ending in a compile request."""

from __future__ import annotations

import os
import re
from typing import Dict, List, NoReturn, Optional

from vxm_convert.sim.atc import sidefiles, values
from vxm_convert.sim.atc.chips import check_soc
from vxm_convert.sim.atc.flags import UNSUPPORTED
from vxm_convert.sim.atc.gears import check_gears, chosen_gear
from vxm_convert.sim.compiler.compile import BIAS_FUSION, CompileRequest
from vxm_convert.sim.compiler.dtypes import FORCE_HALF, MODES, ORIGIN
from vxm_convert.sim.refusal import AtcRefusal

TENSORFLOW, ONNX = "3", "5"
MIX_MODES = ("allow_mix_precision", "allow_mix_precision_fp16")
_FRAMEWORKS = ("0", "1", TENSORFLOW, ONNX)
_FORMATS = {TENSORFLOW: ("NCHW", "NHWC", "ND", "NCDHW", "NDHWC"), ONNX: ("NCHW", "NHWC", "ND", "NCDHW")}
_LOG_LEVELS = ("debug", "info", "warning", "error", "null")
_PATH_CHARACTERS = re.compile(r"^[A-Za-z0-9\-._/ \u4e00-\u9fff]+$")
_V2_MODES = {
    "fp16": FORCE_HALF,
    "origin": ORIGIN,
    "cube_fp16in_fp32out": "cube_fp16in_fp32out",
    "mixed_float16": "allow_mix_precision",
}
_MAX_PATH = 4096
_USE_REAL = "Compile with the real one (VXM_TOOLCHAIN=cann)."
_FILES = (
    "insert_op_conf",
    "singleop",
    "compress_weight_conf",
    "compression_optimize_conf",
    "op_debug_config",
    "op_name_map",
)


def check_request(flags: Dict[str, str], command: str) -> CompileRequest:
    """Validate everything that does not need the graph; raises AtcRefusal for the first error."""
    _check_start(flags)
    soc = check_soc(flags["soc_version"], flags["aicore_num"])
    _check_paths(flags)
    listed = _check_implmode(flags)
    type_modes, node_modes = sidefiles.read_op_precision(flags["op_precision_mode"])
    mode = _check_precision(flags)
    mixlist = _check_mixlist(flags, mode)
    gear = chosen_gear(flags)
    shapes = values.parse_input_shape(flags["input_shape"], dynamic=bool(gear))
    gears = check_gears(flags, shapes)
    outputs = values.parse_out_nodes(flags["out_nodes"])
    output_type, output_types = values.parse_output_type(flags["output_type"], outputs)
    keep, keep_types = sidefiles.read_keep_dtype(flags["keep_dtype"])
    custom = sidefiles.read_custom_dtypes(flags["customize_dtypes"])
    fusions_off = sidefiles.read_disabled_fusions(flags["fusion_switch_file"], [BIAS_FUSION])
    _check_unsupported(flags)
    return CompileRequest(
        model_name=os.path.basename(flags["output"]),
        soc_version=soc,
        command=command,
        precision_mode=mode,
        input_shapes=shapes,
        out_nodes=outputs,
        keep_dtype=frozenset() if mode == ORIGIN else keep,
        keep_types=frozenset() if mode == ORIGIN else keep_types,
        framework="Onnx" if flags["framework"] == ONNX else "TensorFlow",
        output_type=output_type,
        output_types=output_types,
        half_inputs=frozenset(values.parse_names(flags["input_fp16_nodes"])),
        mixlist=mixlist,
        impl_modes_by_type={**listed, **type_modes},
        impl_modes_by_node=node_modes,
        fusions_off=fusions_off,
        custom_dtypes=custom,
        gears=gears,
    )


def check_framework(flags: Dict[str, str], legal: Optional[List[str]] = None) -> None:
    """E10007 for an unknown framework, E10008 for Caffe without weights, E10055 for a framework that the simulator
    cannot read.
    """
    framework = flags["framework"]
    if framework not in _FRAMEWORKS:
        raise AtcRefusal("E10007", f"--framework is {framework}, expected 3 (TensorFlow) or 5 (ONNX)")
    if framework == "0" and not flags["weight"]:
        raise AtcRefusal("E10008", "--weight is empty; --framework=0 (Caffe) needs it")
    if framework not in (legal or [TENSORFLOW, ONNX]):
        raise AtcRefusal(
            "E10055",
            f"--framework={framework}: the simulated ATC reads TensorFlow (3) and ONNX (5) models only",
            solution=_USE_REAL,
        )


def check_path(flag: str, path: str) -> None:
    """E10001 unless the flag's value is a readable file with a legal name."""
    if not _PATH_CHARACTERS.match(path):
        raise AtcRefusal("E10001", f"--{flag} is {path!r}; a path may hold letters, digits and -._/ only")
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        raise AtcRefusal("E10001", f"--{flag} is {path!r}, which is not a readable file")


def check_log(flags: Dict[str, str]) -> None:
    """E10010 for an unknown log level; the very first check."""
    if flags["log"] not in _LOG_LEVELS:
        raise AtcRefusal("E10010", f"--log is {flags['log']!r}, expected one of {', '.join(_LOG_LEVELS)}")


def _check_start(flags: Dict[str, str]) -> None:
    check_log(flags)
    if flags["singleop"]:
        # It takes the place of a model, so none of the flags below need be there.
        _refuse("singleop")
    if flags["auto_tune_mode"]:
        raise AtcRefusal(
            "E10001",
            f"--auto_tune_mode is {flags['auto_tune_mode']!r}; the vendor withdrew it",
            solution="Use the AOE tool.",
        )
    check_framework(flags)
    formats = _FORMATS[flags["framework"]]
    if flags["input_format"] and flags["input_format"] not in formats:
        raise AtcRefusal("E10001", f"--input_format is {flags['input_format']!r}, expected one of {', '.join(formats)}")
    for name in ("soc_version", "output", "model"):
        if not flags[name]:
            raise AtcRefusal("E10054", f"--{name} is required")
    if flags["weight"]:
        raise AtcRefusal(
            "E10055", f"--weight is {flags['weight']!r}; separate weight files belong to Caffe (--framework=0)"
        )


def _check_paths(flags: Dict[str, str]) -> None:
    check_path("model", flags["model"])
    output = flags["output"]
    if len(output) > _MAX_PATH:
        raise AtcRefusal("E10021", f"--output has {len(output)} characters, expected at most {_MAX_PATH}")
    if not os.path.basename(output):
        raise AtcRefusal("E10022", f"--output is {output!r}, which ends in a folder; name the file without .om")
    if not _PATH_CHARACTERS.match(output):
        raise AtcRefusal("E10001", f"--output is {output!r}; a path may hold letters, digits and -._/ only")
    if os.path.isdir(output + ".om"):
        raise AtcRefusal("E10001", f"--output is {output!r}, but {output}.om is a folder")


def _check_implmode(flags: Dict[str, str]) -> Dict[str, int]:
    """Operator type → kernel mode of the types that ``--optypelist_for_implmode`` lists."""
    mode, types = flags["op_select_implmode"], flags["optypelist_for_implmode"]
    if types and not mode:
        raise AtcRefusal("E10001", f"--optypelist_for_implmode is {types!r}, which needs --op_select_implmode")
    if types and mode.endswith("_for_all"):
        raise AtcRefusal(
            "E10001",
            f"--optypelist_for_implmode is {types!r}; --op_select_implmode={mode} already applies to all operators",
        )
    return {kind.strip(): sidefiles.IMPL_MODES[mode] for kind in types.split(",") if kind.strip()}


def _check_precision(flags: Dict[str, str]) -> str:
    mode, newer = flags["precision_mode"], flags["precision_mode_v2"]
    if mode and newer:
        raise AtcRefusal("E10056", "--precision_mode and --precision_mode_v2 exclude each other; pass one of them")
    mode = _V2_MODES.get(newer, newer) if newer else mode or FORCE_HALF
    if mode not in MODES:
        raise AtcRefusal("E10001", f"precision mode {mode!r} needs bf16, which a first-generation 910 does not have")
    return mode


def _check_mixlist(flags: Dict[str, str], mode: str) -> Dict[str, Optional[bool]]:
    if flags["modify_mixlist"] and mode not in MIX_MODES:
        raise AtcRefusal(
            "E10001",
            f"--modify_mixlist is {flags['modify_mixlist']!r}, which needs --precision_mode=allow_mix_precision",
        )
    return sidefiles.read_mixlist(flags["modify_mixlist"])


def _check_unsupported(flags: Dict[str, str]) -> None:
    for name in _FILES:
        if flags[name]:
            sidefiles.read_text(name, flags[name])
    for name in UNSUPPORTED:
        if flags[name]:
            _refuse(name)


def _refuse(name: str) -> NoReturn:
    raise AtcRefusal(
        "E10055", f"--{name} is not supported by the simulated ATC: {UNSUPPORTED[name]}", solution=_USE_REAL
    )
