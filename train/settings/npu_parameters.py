# SPDX-License-Identifier: Apache-2.0
"""The session parameters of the TensorFlow adapter: names, types, legal values, and valid combinations. No TensorFlow.

The adapter ends the whole process on several wrong values and silently ignores unknown names, so everything is checked
here first. Source: `SetNpuOptimizerAttr` in the adapter's `tf_adapter/util/npu_attrs.cc`, releases r1.7.0 to r1.13.0.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Optional, Tuple, Union

from vxm_convert.errors import SpecError

Value = Union[bool, int, str]

MIXED_MODES = ("allow_mix_precision", "allow_mix_precision_fp16", "allow_mix_precision_bf16")
MIXED_MODES_V2 = ("mixed_float16", "mixed_bfloat16")
#: the 910A has no bf16: modes that need it are for later chips
PRECISION_MODES = (
    "allow_fp32_to_fp16",
    "force_fp32",
    "force_fp16",
    "must_keep_origin_dtype",
    "cube_fp16in_fp32out",
    "allow_fp32_to_bf16",
) + MIXED_MODES
_DUMP_STEPS = re.compile(r"\d+(-\d+)?(\|\d+(-\d+)?){0,99}")


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Parameters
    ----------
    field : str — field of TensorFlow's AttrValue: ``b`` bool, ``i`` integer, ``s`` string.
    choices : tuple — legal values; empty: any of the type.
    low, high : int or None — limits of an integer.
    pattern : str — regular expression for the whole string; empty: anything.
    """

    field: str
    choices: Tuple[Value, ...] = ()
    low: Optional[int] = None
    high: Optional[int] = None
    pattern: str = ""

    def problem(self, value: Value) -> Optional[str]:
        """The expected value, if `value` is not legal."""
        kind = {"b": bool, "i": int, "s": str}[self.field]
        # Python treats True as 1; the adapter would read another field of the AttrValue.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            return {"b": "true or false", "i": "an integer", "s": "text"}[self.field]
        if self.choices and value not in self.choices:
            return "one of " + ", ".join(str(c) for c in self.choices)
        high = 2**63 - 1 if self.high is None else self.high
        if isinstance(value, int) and kind is int and not (-(2**63) if self.low is None else self.low) <= value <= high:
            return f"{'any number' if self.low is None else self.low} to {high}"
        if self.pattern and isinstance(value, str) and not re.fullmatch(self.pattern, value):
            return f"text of the form {self.pattern}"
        return None


def _flags(*names: str) -> Dict[str, Parameter]:
    return {name: Parameter("b") for name in names}


def _texts(*names: str) -> Dict[str, Parameter]:
    return {name: Parameter("s") for name in names}


_SWITCH = Parameter("i", low=0, high=1)
PARAMETERS: Dict[str, Parameter] = {
    **_flags(
        "use_off_line",
        "mix_compile_mode",
        "enable_data_pre_proc",
        "enable_dump",
        "enable_dump_debug",
        "profiling_mode",
        "hcom_parallel",
        "hcom_multi_mode",
        "is_tailing_optimization",
        "enable_compress_weight",
        "external_weight",
        "lower_functional_ops",
        "frozen_variable",
        "in_out_pair_flag",
        "enable_graph_parallel",
    ),
    **_texts(
        "modify_mixlist",
        "op_precision_mode",
        "optypelist_for_implmode",
        "customize_dtypes",
        "fusion_switch_file",
        "dump_path",
        "dump_layer",
        "op_debug_config",
        "debug_dir",
        "op_compiler_cache_dir",
        "profiling_options",
        "work_path",
        "aoe_config_file",
        "distribute_config",
        "HCCL_algorithm",
        "input_shape",
        "dynamic_dims",
        "stream_max_parallel_num",
        "ac_parallel_enable",
        "enable_scope_fusion_passes",
        "compress_weight_conf",
        "resource_config_path",
        "memory_optimization_policy",
        "graph_compiler_cache_dir",
        "in_out_pair",
    ),
    "iterations_per_loop": Parameter("i", low=1),
    "precision_mode": Parameter("s", PRECISION_MODES),
    "precision_mode_v2": Parameter("s", ("fp16", "origin", "cube_fp16in_fp32out") + MIXED_MODES_V2),
    "op_select_implmode": Parameter(
        "s", ("high_precision", "high_performance", "high_precision_for_all", "high_performance_for_all")
    ),
    "buffer_optimize": Parameter("s", ("l2_optimize", "off_optimize")),
    "deterministic": _SWITCH,
    "graph_run_mode": _SWITCH,
    "session_device_id": Parameter("i", low=0),
    "graph_memory_max_size": Parameter("s", pattern=r"\d+"),
    "variable_memory_max_size": Parameter("s", pattern=r"\d+"),
    "static_memory_policy": Parameter("i", low=0),
    "atomic_clean_policy": _SWITCH,
    "dump_step": Parameter("s", pattern=_DUMP_STEPS.pattern),
    "dump_mode": Parameter("s", ("input", "output", "all")),
    "dump_debug_mode": Parameter("s", ("aicore_overflow", "atomic_overflow", "all")),
    "dump_data": Parameter("s", ("tensor", "stats")),
    "enable_exception_dump": Parameter("i", low=0, high=2),
    "op_debug_level": Parameter("i", low=0, high=4),
    "op_compiler_cache_mode": Parameter("s", ("enable", "disable", "force")),
    "aoe_mode": Parameter("s", ("1", "2", "4", "mdat")),
    "graph_slice": Parameter("s", ("auto", "manual")),
    "variable_placement": Parameter("s", ("Host", "Device")),
    "jit_compile": Parameter("s", ("true", "false", "auto")),
    "dynamic_node_type": _SWITCH,
    "local_rank_id": Parameter("i", low=-1, high=7),
    "task_index": Parameter("i", low=0),
    "topo_sorting_mode": Parameter("i", low=0),
    "enable_small_channel": _SWITCH,
    "hccl_timeout": Parameter("i", low=0),
    "op_wait_timeout": Parameter("i", low=0),
    "op_execute_timeout": Parameter("i", low=0),
    "graph_exec_timeout": Parameter("i", low=-1),
    "stream_sync_timeout": Parameter("i", low=-1),
    "event_sync_timeout": Parameter("i", low=-1),
}
_DYNAMIC = ("input_shape", "dynamic_dims", "dynamic_node_type")
#: (illegal combination, remedy)
_RULES: Tuple[Tuple[Callable[[Mapping[str, Value]], bool], str], ...] = (
    (
        lambda v: "precision_mode" in v and "precision_mode_v2" in v,
        "precision_mode and precision_mode_v2 exclude each other; pass one",
    ),
    (
        lambda v: bool(v.get("modify_mixlist")) and not _mixed(v),
        "modify_mixlist needs mixed precision; pass --precision-mode allow_mix_precision",
    ),
    (
        lambda v: bool(v.get("optypelist_for_implmode")) and "op_select_implmode" not in v,
        "optypelist_for_implmode needs op_select_implmode",
    ),
    (
        lambda v: bool(v.get("enable_dump") or v.get("enable_dump_debug")) and not v.get("dump_path"),
        "dumps need dump_path, a folder",
    ),
    (
        lambda v: bool(v.get("enable_dump") and v.get("enable_dump_debug")),
        "dump either data or overflows in one run, not both",
    ),
    (
        lambda v: bool(v.get("mix_compile_mode")) and v.get("iterations_per_loop", 1) != 1,
        "mix_compile_mode needs iterations_per_loop 1",
    ),
    (
        lambda v: bool(v.get("mix_compile_mode")) and any(n in v for n in _DYNAMIC),
        "mix_compile_mode excludes dynamic shapes",
    ),
    (lambda v: 0 < sum(n in v for n in _DYNAMIC) < 3, f"{', '.join(_DYNAMIC)} belong together; pass all three or none"),
    (
        lambda v: bool(v.get("enable_compress_weight")) and bool(v.get("compress_weight_conf")),
        "enable_compress_weight and compress_weight_conf exclude each other",
    ),
)


def _mixed(values: Mapping[str, Value]) -> bool:
    return values.get("precision_mode") in MIXED_MODES or values.get("precision_mode_v2") in MIXED_MODES_V2


def check_parameters(values: Mapping[str, Value]) -> None:
    """Raise SpecError with all errors unless the adapter accepts `values`."""
    problems: List[str] = []
    for name, value in values.items():
        parameter = PARAMETERS.get(name)
        if parameter is None:
            near = difflib.get_close_matches(name, PARAMETERS, 1)
            problems.append(f"{name}: no such parameter" + (f", did you mean {near[0]}?" if near else ""))
            continue
        expected = parameter.problem(value)
        if expected is not None:
            problems.append(f"{name}: got {value!r}, expected {expected}")
    if not problems:
        problems = [advice for broken, advice in _RULES if broken(values)]
    if problems:
        raise SpecError("npu parameters: " + "; ".join(problems))


def parse_parameter(text: str) -> Tuple[str, Value]:
    """``NAME=VALUE`` of a command line, converted to the parameter's type."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SpecError(f"npu-parameter: got {text!r}, expected NAME=VALUE such as op_select_implmode=high_precision")
    kind = PARAMETERS[name].field if name in PARAMETERS else "s"
    if kind == "b" and value.lower() in ("true", "false", "1", "0"):
        return name, value.lower() in ("true", "1")
    if kind == "i" and re.fullmatch(r"-?\d{1,18}", value):
        return name, int(value)
    return name, value


def fill(parameter_map: Mapping[str, object], values: Mapping[str, Value]) -> None:
    """Write checked values into the `parameter_map` of TensorFlow's RewriterConfig.CustomGraphOptimizer."""
    check_parameters(values)
    for name, value in values.items():
        field = PARAMETERS[name].field
        setattr(parameter_map[name], field, str(value).encode("utf-8") if field == "s" else value)
