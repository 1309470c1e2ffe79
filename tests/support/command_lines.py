# SPDX-License-Identifier: Apache-2.0
"""Every command line of the project: modules, their sub-commands, targets of make."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from typing import Set

import pytest

#: modules with a command line; sub-commands have a parser of their own
COMMANDS = (
    "train",
    "export",
    "om_runner",
    "vxm_convert",
    "scripts.picture",
    "scripts.benchmark.training",
    "scripts.scale_bench",
    "scripts.kill_bench",
    "scripts.affine_table",
)
#: those that `make bench` runs one after the other; the page of their figures names them
PARTS = tuple(
    f"scripts.benchmark.{name}"
    for name in (
        "inference",
        "cohort",
        "scaling",
        "comparer",
        "files",
        "exporting",
        "host",
        "beside",
        "raw",
        "compiling",
    )
)
SUBCOMMANDS = ("doctor", "device-check", "inspect", "verify", "phantom", "profiles", "sim")
#: a word that may follow the module's name and has options of its own
MORE_SUBCOMMANDS = {
    "train": ("evaluate", "prepare", "rank-table"),
    "export": ("golden", "preflight", "tune"),
    "om_runner": (
        "layers",
        "audit",
        "apply",
        "collect",
        "compare-files",
        "convert-warp",
        "device-check",
        "evaluate",
        "invert",
        "jacobian",
        "qc",
        "scheduler",
        "worker",
    ),
}


def make_targets(text: str) -> Set[str]:
    """Targets with a plain name; file targets are written with variables."""
    return set(re.findall(r"^([a-z][a-z0-9-]*):(?!=)", text, flags=re.MULTILINE))


def help_of(module: str, *words: str) -> str:
    """The help text of a command with all its options, as a user sees it."""
    ours = not module.startswith("scripts.")
    name = module + ".__main__" if ours else module
    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit) as ended:
        importlib.import_module(name).main(list(words) + ["--help-all" if ours else "--help"])
    assert ended.value.code == 0
    return text.getvalue()


def options_in(text: str) -> Set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*(?![\w-])", text))
