# SPDX-License-Identifier: Apache-2.0
"""Start-up: no ``--help`` imports a package that takes long to load; they are imported when something is done with
them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest

from tests.support.command_lines import MORE_SUBCOMMANDS, SUBCOMMANDS
from vxm_convert.lazy import LazyModule

HEAVY = (
    "tensorflow",
    "npu_bridge",
    "acl",
    "numba",
    "scipy",
    "nibabel",
    "SimpleITK",
    "matplotlib",
    "jinja2",
    "PIL",
    "openvino",
    "onnx",
    "onnxruntime",
    "tf2onnx",
    "h5py",
    "yaml",
    "torch",
)
#: Every command's help in one process: command → heavy packages that were not there before it.
_CODE = """
import contextlib, importlib, io, json, sys
found = {}
for words in COMMANDS:
    before = set(sys.modules)
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            importlib.import_module(words[0] + ".__main__").main(words[1:] + ["--help"])
        except SystemExit as ended:
            assert ended.code == 0, words
    assert "usage:" in text.getvalue(), words
    found[" ".join(words)] = sorted({name.partition(".")[0] for name in set(sys.modules) - before} & set(HEAVY))
print(json.dumps(found))
"""


def commands() -> List[List[str]]:
    """Every command with every sub-command that the documents know."""
    named = [[module] for module in ("train", "export", "om_runner", "vxm_convert")]
    subs = {**MORE_SUBCOMMANDS, "vxm_convert": SUBCOMMANDS}
    return named + [[module, word] for module, words in subs.items() for word in words]


def loaded_by(lines: List[List[str]], root: Path, first: str = "") -> Dict[str, List[str]]:
    code = f"{first}\nCOMMANDS, HEAVY = {lines!r}, {HEAVY!r}\n{_CODE}"
    done = subprocess.run([sys.executable, "-c", code], cwd=str(root), capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.decode())


def test_no_help_imports_a_heavy_package(project_root: Path) -> None:
    found = loaded_by(commands(), project_root)
    assert len(found) > 15
    assert {command: names for command, names in found.items() if names} == {}


def test_a_heavy_import_would_be_noticed(project_root: Path) -> None:
    planted = (
        "import importlib.util, om_runner.options.geometry as m\nm.add_geometry_group = (lambda old: lambda parser: ("
        "importlib.import_module('yaml'), old(parser)))(m.add_geometry_group)"
    )
    assert loaded_by([["om_runner"]], project_root, planted) == {"om_runner": ["yaml"]}


def test_a_lazy_module_is_imported_when_it_is_used() -> None:
    sys.modules.pop("wave", None)
    wave = LazyModule("wave")
    assert "wave" not in sys.modules and "when used" in repr(wave)
    assert wave.WAVE_FORMAT_PCM == 1 and "wave" in sys.modules
    with pytest.raises(AttributeError):
        getattr(wave, "no_such_name")  # noqa: B009
    with pytest.raises(ImportError):
        getattr(LazyModule("no.such.module"), "name")  # noqa: B009
