# SPDX-License-Identifier: Apache-2.0
"""Flags of ATC that a user may add to an export: which, with what values, and why others are refused.

Names and legal values: ATC's open sources (`api/atc/atc_flags.cc`, `cmd_flag_info.cc`). The command line
(``--atc-flag NAME=VALUE``), the contract and the manifest carry them.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Dict, Mapping, Tuple

from vxm_convert.errors import SpecError

_SWITCH = ("0", "1")


@dataclass(frozen=True)
class PassedFlag:
    """What a flag takes.

    Parameters
    ----------
    what : str — a few words for the help.
    values : tuple of str — legal values; empty: see the others.
    pattern : str — regular expression of a legal text.
    suffix : str — the value is a file, which an export keeps as ``atc_<flag><suffix>`` beside the model.
    folder : bool — the value is a folder.
    """

    what: str
    values: Tuple[str, ...] = ()
    pattern: str = ""
    suffix: str = ""
    folder: bool = False


ALLOWED: Dict[str, PassedFlag] = {
    "op_select_implmode": PassedFlag(
        "kernels: precise or fast",
        ("high_precision", "high_performance", "high_precision_for_all", "high_performance_for_all"),
    ),
    "optypelist_for_implmode": PassedFlag("operator types for op_select_implmode", pattern=r"\w+(,\w+)*"),
    "op_precision_mode": PassedFlag("file: kernels per operator", suffix=".ini"),
    "precision_mode_v2": PassedFlag(
        "newer name of the plan's mode", ("fp16", "origin", "cube_fp16in_fp32out", "mixed_float16")
    ),
    "customize_dtypes": PassedFlag("file: dtypes per operator", suffix=".cfg"),
    "modify_mixlist": PassedFlag("file: lists of mixed precision", suffix=".json"),
    "fusion_switch_file": PassedFlag("file: fusion passes on and off", suffix=".cfg"),
    "deterministic": PassedFlag("kernels that add in a fixed order", _SWITCH),
    "buffer_optimize": PassedFlag("use of the L1 and L2 buffers", ("l1_optimize", "l2_optimize", "off_optimize")),
    "enable_small_channel": PassedFlag("first layer with few channels", _SWITCH),
    "disable_reuse_memory": PassedFlag("no sharing of memory", _SWITCH),
    "status_check": PassedFlag("overflow detection", _SWITCH),
    "is_weight_clip": PassedFlag("weights clipped to finite fp16", _SWITCH),
    "aicore_num": PassedFlag("number of AI cores", pattern=r"[1-9][0-9]{0,2}"),
    "op_bank_path": PassedFlag("folder: AOE's results for operators", folder=True),
    "mdl_bank_path": PassedFlag("folder: AOE's results for subgraphs", folder=True),
    "op_compiler_cache_mode": PassedFlag("cache of compiled kernels", ("disable", "enable", "force")),
    "log": PassedFlag("level of the compiler's log", ("debug", "info", "warning", "error", "null")),
    "op_debug_level": PassedFlag("files of the operator compiler", ("0", "1", "2", "3", "4")),
}
_OWN = "this export sets it from the contract"
#: Flags that people ask for and that an export cannot pass on.
REFUSED: Dict[str, str] = {
    **{name: _OWN for name in ("model", "framework", "output", "soc_version", "input_shape", "out_nodes")},
    "precision_mode": "pass --precision or --plan, which set it",
    "keep_dtype": "pass a plan with keep_dtype (--plan)",
    "output_type": "the contract says float32 for every output",
    "input_fp16_nodes": "the contract says float32 for every input",
    "input_format": "every operator of the graph carries its own format",
    "external_weight": "the weights would be in files beside the model, which nothing here keeps together with it",
    "insert_op_conf": "AIPP prepares camera images",
    "dynamic_batch_size": "this export makes models with one shape",
    "dynamic_dims": "this export makes models with one shape",
    "dynamic_image_size": "this export makes models with one shape",
    "auto_tune_mode": "the vendor withdrew it; use AOE and pass its results with op_bank_path and mdl_bank_path",
}
#: `precision_mode_v2` → `precision_mode`
V2_MODES = {
    "fp16": "force_fp16",
    "origin": "must_keep_origin_dtype",
    "cube_fp16in_fp32out": "cube_fp16in_fp32out",
    "mixed_float16": "allow_mix_precision",
}


def kept_name(flag: str) -> str:
    """Name beside the model of the file that a flag names."""
    return f"atc_{flag}{ALLOWED[flag].suffix}"


#: every name that `kept_name` can give
KEPT_NAMES = tuple(f"atc_{name}{flag.suffix}" for name, flag in ALLOWED.items() if flag.suffix)


def split_flag(text: str) -> Tuple[str, str]:
    """``NAME=VALUE`` (with or without leading ``--``) → (name, value), checked as far as the text says.

    Raises
    ------
    SpecError
        For a flag that may not be passed, and for a value that it does not have.
    """
    name, equals, value = text.lstrip("-").partition("=")
    name = name.strip().replace("-", "_")
    if not equals:
        raise SpecError(f"--atc-flag: got {text!r}, expected NAME=VALUE, for example deterministic=1")
    if name in REFUSED:
        raise SpecError(f"--atc-flag {name}: {REFUSED[name]}")
    if name not in ALLOWED:
        close = difflib.get_close_matches(name, ALLOWED, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(ALLOWED))}"
        raise SpecError(f"--atc-flag: got the flag {name!r}; {hint}")
    _check_value(name, value)
    return name, value


def _check_value(name: str, value: str) -> None:
    flag = ALLOWED[name]
    if flag.values and value not in flag.values:
        raise SpecError(f"--atc-flag {name}: got {value!r}, expected one of {', '.join(flag.values)}")
    if flag.pattern and not re.fullmatch(flag.pattern, value):
        raise SpecError(f"--atc-flag {name}: got {value!r}, expected {flag.what}")
    if not value or any(ord(sign) < 32 for sign in value):
        raise SpecError(f"--atc-flag {name}: got {value!r}, expected {flag.what}")


def check_flags(flags: Mapping[str, str], mode: str, custom: bool) -> None:
    """Check the flags of a contract against each other and its plan.

    Parameters
    ----------
    mode : str — ``--precision_mode`` of the plan.
    custom : bool — whether the plan has a ``--customize_dtypes`` file of its own.

    Raises
    ------
    SpecError
        For an unknown flag or value, a file that is not beside the model, or a contradiction.
    """
    for name, value in flags.items():
        split_flag(f"{name}={value}")
        if ALLOWED[name].suffix and value != kept_name(name):
            raise SpecError(f"--atc-flag {name}: its file is {value!r}, expected {kept_name(name)} beside the model")
    newer = V2_MODES.get(flags.get("precision_mode_v2", ""), mode)
    if newer != mode:
        raise SpecError(
            f"--atc-flag precision_mode_v2={flags['precision_mode_v2']} is {newer}, the plan says {mode}; "
            "pass the plan that you want with --precision or --plan, and this flag only as its newer name"
        )
    if custom and "customize_dtypes" in flags:
        raise SpecError(
            "--atc-flag customize_dtypes: the plan has fp32_results and so a file of its own; put all into one of them"
        )
    if "optypelist_for_implmode" in flags and "op_select_implmode" not in flags:
        raise SpecError("--atc-flag optypelist_for_implmode: needs --atc-flag op_select_implmode=…")


def listing() -> str:
    """The flags for a help text."""
    return ", ".join(f"{name} ({flag.what})" for name, flag in ALLOWED.items())
