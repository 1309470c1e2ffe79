# SPDX-License-Identifier: Apache-2.0
"""ATC's command line: the flags, their defaults and legal values, and how arguments are parsed.

Source: open ATC sources (`api/atc/atc_flags.cc`, `cmd_flag_info.cc`); the help texts are ours.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from vxm_convert.sim.refusal import AtcRefusal

TEXT, NUMBER, BOOLEAN, SWITCH = "text", "number", "true/false", "0/1"
#: The real tool keeps whole numbers in 32 bits.
MAX_NUMBER = (1 << 31) - 1


class Flag(NamedTuple):
    """Kind of value, default, legal values (empty: any), and a line of help."""

    kind: str
    default: str
    legal: Tuple[str, ...]
    help: str


_PRECISION_MODES = (
    "force_fp16",
    "force_fp32",
    "cube_fp16in_fp32out",
    "allow_mix_precision",
    "allow_mix_precision_fp16",
    "allow_mix_precision_bf16",
    "allow_fp32_to_fp16",
    "allow_fp32_to_bf16",
    "must_keep_origin_dtype",
)
_PRECISION_MODES_V2 = ("fp16", "origin", "cube_fp16in_fp32out", "mixed_float16", "mixed_bfloat16")

_IMPL_MODES = ("high_precision", "high_performance", "high_precision_for_all", "high_performance_for_all")

FLAGS: Dict[str, Flag] = {
    "model": Flag(TEXT, "", (), "frozen graph (.pb) or ONNX file"),
    "weight": Flag(TEXT, "", (), "Caffe weights; not used for TensorFlow and ONNX"),
    "framework": Flag(NUMBER, "-1", (), "0 Caffe, 1 MindSpore, 3 TensorFlow, 5 ONNX"),
    "output": Flag(TEXT, "", (), "output path without the suffix .om"),
    "soc_version": Flag(TEXT, "", (), "chip, for example Ascend910A"),
    "input_shape": Flag(TEXT, "", (), "name:d,d,d;name:d,d,d"),
    "input_shape_range": Flag(TEXT, "", (), "ranges of dynamic shapes"),
    "input_format": Flag(TEXT, "", (), "NCHW, NHWC, ND, NCDHW or NDHWC"),
    "out_nodes": Flag(TEXT, "", (), "node:index;node:index"),
    "output_type": Flag(TEXT, "", (), "data type of the outputs: FP16, or node:index:FP16;…"),
    "mode": Flag(
        NUMBER, "0", ("0", "1", "3", "5", "6", "7", "30"), "0 compile, 1 model to JSON, 3 pre-check, 6 show a model"
    ),
    "precision_mode": Flag(TEXT, "", _PRECISION_MODES, "dtype policy (empty: force_fp16)"),
    "precision_mode_v2": Flag(TEXT, "", _PRECISION_MODES_V2, "dtype policy, newer names"),
    "keep_dtype": Flag(TEXT, "", (), "file of node names, or OpType::Type, that keep their dtype"),
    "customize_dtypes": Flag(TEXT, "", (), "file of dtypes per node"),
    "modify_mixlist": Flag(TEXT, "", (), "JSON file that edits the mixed-precision lists"),
    "op_precision_mode": Flag(TEXT, "", (), "ini file of precision per operator"),
    "op_select_implmode": Flag(TEXT, "", _IMPL_MODES, "kernel choice"),
    "optypelist_for_implmode": Flag(TEXT, "", (), "operators that op_select_implmode is for"),
    "fusion_switch_file": Flag(TEXT, "", (), "file of fusion passes to switch off"),
    "log": Flag(TEXT, "null", (), "log level: debug, info, warning, error, null"),
    "op_debug_level": Flag(NUMBER, "0", ("0", "1", "2", "3", "4"), "debug files of operators"),
    "op_debug_config": Flag(TEXT, "", (), "file of operator debug switches"),
    "op_name_map": Flag(TEXT, "", (), "file of custom operator names"),
    "buffer_optimize": Flag(TEXT, "l2_optimize", ("l1_optimize", "l2_optimize", "off_optimize"), "data caching"),
    "core_type": Flag(TEXT, "AiCore", ("AiCore", "VectorCore"), "core type"),
    "aicore_num": Flag(NUMBER, "", (), "number of AI cores"),
    "enable_small_channel": Flag(SWITCH, "0", (), "first-layer optimisation"),
    "disable_reuse_memory": Flag(SWITCH, "0", (), "1 disables the reuse of memory"),
    "op_compiler_cache_mode": Flag(TEXT, "", ("disable", "enable", "force"), "operator cache"),
    "op_compiler_cache_dir": Flag(TEXT, "", (), "folder of the operator cache"),
    "op_bank_path": Flag(TEXT, "", (), "operator tuning bank"),
    "mdl_bank_path": Flag(TEXT, "", (), "model tuning bank"),
    "debug_dir": Flag(TEXT, "./kernel_meta", (), "folder of debug files"),
    "check_report": Flag(TEXT, "check_result.json", (), "report of the pre-check or of a failed parse"),
    "deterministic": Flag(SWITCH, "0", (), "deterministic kernels"),
    "external_weight": Flag(NUMBER, "0", ("0", "1", "2"), "weights in separate files"),
    "enable_scope_fusion_passes": Flag(TEXT, "", (), "scope fusion passes to switch on"),
    "enable_single_stream": Flag(BOOLEAN, "false", (), "one stream only"),
    "enable_compress_weight": Flag(BOOLEAN, "false", (), "weight compression"),
    "compress_weight_conf": Flag(TEXT, "", (), "nodes whose weights are compressed"),
    "compression_optimize_conf": Flag(TEXT, "", (), "quantisation settings"),
    "save_original_model": Flag(BOOLEAN, "false", (), "also write the uncompiled model as <output>_original.om"),
    "input_fp16_nodes": Flag(TEXT, "", (), "inputs fed in fp16: node;node"),
    "is_input_adjust_hw_layout": Flag(TEXT, "", (), "inputs in the device's layout"),
    "is_output_adjust_hw_layout": Flag(TEXT, "", (), "outputs in the device's layout"),
    "insert_op_conf": Flag(TEXT, "", (), "AIPP configuration"),
    "dynamic_batch_size": Flag(TEXT, "", (), "batch sizes of a dynamic model: 1,2,4"),
    "dynamic_image_size": Flag(TEXT, "", (), "image sizes of a dynamic model: h,w;h,w"),
    "dynamic_dims": Flag(TEXT, "", (), "dimensions of a dynamic model: d,d;d,d"),
    "auto_tune_mode": Flag(TEXT, "", (), "withdrawn by the vendor"),
    "singleop": Flag(TEXT, "", (), "description of single operators"),
    "om": Flag(TEXT, "", (), "model to convert or show (modes 1 and 6)"),
    "json": Flag(TEXT, "", (), "JSON output of mode 1"),
    "dump_mode": Flag(SWITCH, "0", (), "mode 1 with shapes"),
    "virtual_type": Flag(SWITCH, "0", (), "virtual devices"),
    "sparsity": Flag(SWITCH, "0", (), "structured sparsity"),
    "display_model_info": Flag(SWITCH, "0", (), "print the model's memory and sizes"),
    "jit_compile": Flag(NUMBER, "0", ("0", "1", "2"), "compile when first run"),
    "host_env_os": Flag(TEXT, "", ("linux",), "operating system of the host"),
    "host_env_cpu": Flag(TEXT, "", ("x86_64", "aarch64"), "processor of the host"),
    "status_check": Flag(SWITCH, "0", (), "overflow detection"),
    "atomic_clean_policy": Flag(SWITCH, "0", (), "when memory is cleared"),
    "is_weight_clip": Flag(SWITCH, "1", (), "clip weights to finite fp16"),
    "tiling_schedule_optimize": Flag(SWITCH, "0", (), "tiling on the device"),
    "help": Flag(BOOLEAN, "false", (), "show this text"),
}

#: Flags that the simulator cannot honour, and why. They are refused rather than ignored.
UNSUPPORTED = {
    "insert_op_conf": "AIPP prepares 8-bit camera images; volumes need no preparation",
    "input_shape_range": "ranges make a model without fixed shapes; pass single shapes, or several with --dynamic_dims",
    "singleop": "single operators are not compiled; pass a model",
    "compress_weight_conf": "weights are stored unchanged",
    "compression_optimize_conf": "quantisation is not simulated",
    "is_input_adjust_hw_layout": "inputs keep the framework's layout",
    "is_output_adjust_hw_layout": "outputs keep the framework's layout",
}
#: Flags whose value is checked and changes nothing: they are about kernels, memory and files that the simulator does
#: not have.
WITHOUT_EFFECT = frozenset(
    "op_debug_level op_debug_config op_name_map buffer_optimize core_type enable_small_channel disable_reuse_memory "
    "op_compiler_cache_mode op_compiler_cache_dir op_bank_path mdl_bank_path debug_dir deterministic external_weight "
    "enable_scope_fusion_passes enable_single_stream enable_compress_weight dump_mode virtual_type sparsity jit_compile "
    "host_env_os host_env_cpu status_check atomic_clean_policy is_weight_clip tiling_schedule_optimize".split()
)

_TRUE = ("1", "t", "true", "y", "yes")
_FALSE = ("0", "f", "false", "n", "no")


class UsageError(Exception):
    """The arguments break ATC's grammar; the text goes to stderr."""


def parse_arguments(argv: Sequence[str]) -> Dict[str, str]:
    """Flag → value for the flags that were given.

    ``--a=b``, ``--a b`` and ``-a`` are equivalent, ``-`` inside a name counts as ``_``, and a unique prefix of a name
    is enough. Raises UsageError for unknown flags, missing values and stray words.
    """
    given: Dict[str, str] = {}
    words: List[str] = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word.strip("-") == "":
            raise UsageError(f"ERROR: Non-option parameter: {word}")
        name, equals, value = word.lstrip("-").partition("=")
        flag = _find(name.replace("-", "_"))
        if flag is None:
            raise UsageError(f"ERROR: unknown command line flag '{name}'")
        if flag in ("help", "h"):
            value = value or "true"
        elif not equals:
            if not words:
                raise UsageError(
                    f"ERROR: flag '--{flag}' is missing its argument; flag description: {FLAGS[flag].help}"
                )
            value = words.pop(0)
        given[flag] = value
    return given


def _find(name: str) -> Optional[str]:
    if name == "h":
        return "help"
    if name in FLAGS:
        return name
    matches = [flag for flag in FLAGS if flag.startswith(name)]
    return matches[0] if name and len(matches) == 1 else None


def check_values(given: Dict[str, str]) -> Dict[str, str]:
    """All flags with defaults filled in, truth values as ``true`` or ``false``; raises AtcRefusal for the first illegal
    value.
    """
    values = {name: flag.default for name, flag in FLAGS.items()}
    for name, value in given.items():
        values[name] = _check_value(name, FLAGS[name], value)
    return values


def _check_value(name: str, flag: Flag, value: str) -> str:
    if flag.kind in (NUMBER, SWITCH) and not (value.isascii() and value.isdigit()):
        raise AtcRefusal("E10003", f"--{name} is {value!r}, expected a whole number")
    if flag.kind == NUMBER and int(value) > MAX_NUMBER:
        raise AtcRefusal("E10013", f"--{name} is {value}, expected at most {MAX_NUMBER}")
    if flag.kind == SWITCH and value not in ("0", "1"):
        raise AtcRefusal("E10006", f"--{name} is {value!r}, expected 0 or 1")
    if flag.kind == BOOLEAN:
        if value.lower() not in _TRUE + _FALSE:
            raise AtcRefusal("E10005", f"--{name} is {value!r}, expected true or false")
        return "true" if value.lower() in _TRUE else "false"
    if flag.legal and value and value not in flag.legal:
        raise AtcRefusal("E10001", f"--{name} is {value!r}, expected one of {', '.join(flag.legal)}")
    return value


def usage() -> str:
    """Text of ``--help``."""
    lines = ["usage: atc --model=FILE --framework=3 --output=PATH --soc_version=CHIP [flags]", ""]
    told = [name for name in FLAGS if name not in WITHOUT_EFFECT and name not in UNSUPPORTED]
    lines += [_line(name) for name in told]
    lines += ["", "checked, and without effect in the simulated ATC:"]
    lines += [_line(name) for name in FLAGS if name in WITHOUT_EFFECT]
    lines += ["", "refused by the simulated ATC:"]
    lines += [f"  --{name:<28}{reason}" for name, reason in UNSUPPORTED.items()]
    return "\n".join(lines)


def _line(name: str) -> str:
    flag = FLAGS[name]
    return f"  --{name:<28}{flag.help}" + (f" (default: {flag.default})" if flag.default else "")
