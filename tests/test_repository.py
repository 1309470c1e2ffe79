# SPDX-License-Identifier: Apache-2.0
"""The repository checks itself: make targets, the 3.7 dialect, no path of one machine, pinned locks. Documents:
test_documents.py.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import List, Set

import pytest

from scripts.layout import imported
from tests.support.command_lines import make_targets
from tests.support.longest_first import LONGEST, LongestFirst

pytestmark = pytest.mark.any_python("reads the texts of this project")

CODE_FOLDERS = ("vxm_convert", "train", "export", "om_runner", "scripts", "tests", "examples")
TEXT_SUFFIXES = (".py", ".sh", ".md", ".toml", ".lock", ".json", ".cfg", ".yaml")
#: Beginnings of paths that exist on one machine only; spelled in parts so that this file does not match itself.
_STARTS = ("home/(?!someone/)[a-z]", "root/", "work/", "tmp/w/", "Users/[A-Za-z]", "opt/pypi", "mnt/[a-z]")
MACHINE_PATHS = re.compile(r"(?<![\w.])(?:" + "|".join("/" + start for start in _STARTS) + ")")

#: names of test modules, but where a test is defined; most sources are done with this search
MAY_IMPORT_TESTS = re.compile(r"(?<!def )\b(?:conftest|test_\w+)")
#: an import of the tests' own modules in a program that is a string
EMBEDDED_IMPORT = re.compile(r"^\s*(?:from|import)\s+(tests[\w.]*)", flags=re.MULTILINE)


def python_files(root: Path) -> List[Path]:
    return [p for folder in CODE_FOLDERS for p in sorted((root / folder).rglob("*.py"))]


def phony_targets(text: str) -> Set[str]:
    return {name for line in re.findall(r"^\.PHONY:(.*)$", text, flags=re.MULTILINE) for name in line.split()}


def test_every_target_is_phony(project_root: Path) -> None:
    text = (project_root / "Makefile").read_text(encoding="utf-8")
    assert make_targets(text) == phony_targets(text)


def test_the_promised_targets_exist(project_root: Path) -> None:
    text = (project_root / "Makefile").read_text(encoding="utf-8")
    promised = "setup demo test test-all lint train export-om register bench doctor clean help".split()
    assert set(promised) <= make_targets(text)


def test_make_alone_lists_every_target(project_root: Path) -> None:
    text = (project_root / "Makefile").read_text(encoding="utf-8")
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=str(project_root), stdout=subprocess.PIPE, timeout=60, check=True
    )
    listed = set(re.findall(r"^  make ([a-z-]+)", done.stdout.decode(), flags=re.MULTILINE))
    assert listed == make_targets(text)


def test_a_stage_without_its_input_says_what_to_set(project_root: Path, tmp_path: Path) -> None:
    stamp = tmp_path / "venv" / ".stamp"
    stamp.parent.mkdir()
    stamp.touch()
    argv = ["make", "train", f"VENV={stamp.parent}", "DATA=/my/scans", "ATLAS="]
    done = subprocess.run(argv, cwd=str(project_root), capture_output=True, timeout=60)
    assert done.returncode != 0
    assert b"ATLAS is not set; for example: make train ATLAS=" in done.stderr


def test_training_without_data_makes_its_own(project_root: Path, tmp_path: Path) -> None:
    argv = ["make", "-n", "--always-make", "train", f"VENV={tmp_path}", "DATA=", "ATLAS="]
    done = subprocess.run(argv, cwd=str(project_root), stdout=subprocess.PIPE, timeout=60, check=True)
    text = done.stdout.decode()
    assert (
        "vxm_convert phantom --out build/cohort" in text
        and "--data build/cohort/scans --atlas build/cohort/atlas.npz" in text
    )


@pytest.mark.skipif(
    sys.version_info < (3, 8), reason="3.7 itself compiles the files; newer Pythons can check the old grammar"
)
def test_sources_parse_as_python_37(project_root: Path) -> None:
    for path in python_files(project_root):
        ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 7))


@pytest.mark.skipif(sys.version_info < (3, 8), reason="feature_version came with 3.8")
def test_newer_grammar_is_noticed() -> None:
    with pytest.raises(SyntaxError):
        ast.parse("if (n := 3):\n    pass", feature_version=(3, 7))


def test_every_source_starts_as_agreed(project_root: Path) -> None:
    bad = []
    for path in python_files(project_root):
        text = path.read_text(encoding="utf-8")
        if path.name == "__init__.py" and not text:
            continue
        if not text.startswith("# SPDX-License-Identifier: Apache-2.0\n"):
            bad.append(f"{path.name}: no SPDX line")
        elif path.name != "__init__.py" and ast.get_docstring(ast.parse(text)) is None:
            bad.append(f"{path}: no docstring")
    assert not bad, "\n".join(bad)


def imported_test_modules(source: str) -> List[str]:
    """Test modules and conftests that a source imports; programs in its strings count as well."""
    if not MAY_IMPORT_TESTS.search(source):
        return []
    # A literal is `Str` with `s` on Python 3.7, `Constant` with `value` later.
    literals = (getattr(node, "value", getattr(node, "s", None)) for node in ast.walk(ast.parse(source)))
    strings = [text for text in literals if isinstance(text, str)]
    names = set(imported(source)) | {name for text in strings for name in EMBEDDED_IMPORT.findall(text)}
    return sorted(n for n in names if any(p == "conftest" or p.startswith("test_") for p in n.split(".")))


def test_no_file_imports_a_test_module(project_root: Path) -> None:
    """What two test modules need is in tests/support, or a fixture of their folder."""
    sources = {str(p.relative_to(project_root)): p.read_text(encoding="utf-8") for p in python_files(project_root)}
    # The examples below are strings as well.
    del sources[str(Path(__file__).relative_to(project_root))]
    assert {p: names for p, names in ((p, imported_test_modules(s)) for p, s in sources.items()) if names} == {}


@pytest.mark.parametrize(
    "source, found",
    [
        ("from tests.train.conftest import SHAPE", ["tests.train.conftest", "tests.train.conftest.SHAPE"]),
        ("from tests.train import test_losses", ["tests.train.test_losses"]),
        ("def f():\n    import tests.test_browser", ["tests.test_browser"]),
        ("from .conftest import cohort", [".conftest", ".conftest.cohort"]),
        ("from . import test_x", ["..test_x"]),
        ("CHILD = 'import os\\nfrom tests.a.test_b import C\\n'", ["tests.a.test_b"]),
        ("from tests.support.training import SHAPE\nimport testing", []),
    ],
)
def test_the_check_of_imports_itself(source: str, found: List[str]) -> None:
    assert imported_test_modules(source) == found


def test_no_path_of_one_machine(project_root: Path) -> None:
    folders = CODE_FOLDERS + ("docs", "requirements", ".ci")
    files = [p for folder in folders for p in (project_root / folder).rglob("*") if p.suffix in TEXT_SUFFIXES]
    files += [project_root / name for name in ("Makefile", "README.md", "CHANGELOG.md", "pyproject.toml")]
    found = [f"{p}: {m.group(0)}" for p in files for m in [MACHINE_PATHS.search(p.read_text(encoding="utf-8"))] if m]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text, hit",
    [
        ("/ho" + "me/jane/x", True),
        ("/ro" + "ot/.pyenv", True),
        ("/my/scans", False),
        ("a/workflow", False),
        ("net/wo" + "rk/x", False),
    ],
)
def test_the_path_check_itself(text: str, hit: bool) -> None:
    assert bool(MACHINE_PATHS.search(text)) == hit


def test_the_files_that_workers_begin_with_are_there(project_root: Path) -> None:
    assert not [name for name in LONGEST if not (project_root / name).is_file()]


class _Worker:
    def __init__(self) -> None:
        self.given: List[int] = []

    def send_runtest_some(self, places: List[int]) -> None:
        self.given += places


def test_workers_begin_with_the_longest_file() -> None:
    names = ["tests/a.py", "tests/b.py", LONGEST[1], LONGEST[0]]
    worker, scheduling = _Worker(), object.__new__(LongestFirst)
    scheduling.workqueue = OrderedDict((name, OrderedDict({f"{name}::test": False})) for name in names)
    scheduling.assigned_work = OrderedDict()
    scheduling.registered_collections = {worker: [f"{name}::test" for name in names]}
    while scheduling.workqueue:
        scheduling._assign_work_unit(worker)
    assert worker.given == [3, 2, 0, 1]


def test_a_test_that_one_python_leaves_out_says_why(project_root: Path) -> None:
    """Whole runs of `make test` leave out by these markers alone, and never two of them."""
    sources = {str(p): p.read_text(encoding="utf-8") for p in (project_root / "tests").rglob("test_*.py")}
    marked = {
        name: re.findall(r"mark\.(any_python|python37)\b(\(\s*\"[a-z][^\"]{10,}\"\s*\))?", t)
        for name, t in sources.items()
    }
    assert all(why for found in marked.values() for _, why in found)
    both = [name for name, found in marked.items() if len({mark for mark, _ in found}) > 1]
    assert not both, "runs nowhere"
    text = (project_root / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"\$\(call whole,(\w+)\)", text) == ["any_python", "python37"]


@pytest.mark.parametrize("name", ["py37.lock", "current.lock", "atc.lock", "tf2.lock"])
def test_locks_are_exact(project_root: Path, name: str) -> None:
    lines = (project_root / "requirements" / name).read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 15
    assert all(re.match(r"^[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*$", pin) for pin in pins)
    assert len({pin.split("==")[0].lower() for pin in pins}) == len(pins)


def test_the_environment_that_trains_has_what_training_imports(project_root: Path) -> None:
    """Dependencies of the package that `requirements/tf2.lock` leaves out are those of other stages."""
    text = (project_root / "pyproject.toml").read_text(encoding="utf-8")
    (block,) = re.findall(r"^dependencies = \[\n(.*?)^\]", text, flags=re.MULTILINE | re.DOTALL)
    needed = {name.lower() for name in re.findall(r'^ +"([A-Za-z0-9_-]+)', block, flags=re.MULTILINE)}
    pins = (project_root / "requirements" / "tf2.lock").read_text(encoding="utf-8")
    locked = {line.split("==")[0].lower() for line in pins.splitlines()}
    assert needed - locked == {"onnx", "openvino", "isal", "simpleitk", "numba", "argcomplete"}
