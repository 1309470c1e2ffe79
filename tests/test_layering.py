# SPDX-License-Identifier: Apache-2.0
"""The layout, proved on the syntax trees: who may import whom, no circles, floors that are not climbed, small folders.

Imports inside functions, under ``TYPE_CHECKING`` and through ``importlib`` count like any other. `scripts.layout` holds
the rules and makes the tables of docs/architecture.md from them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict

import pytest

from scripts.layout import (
    FENCES,
    FLOORS,
    MAX_MODULES,
    Modules,
    circles,
    climbs,
    crowded,
    fence_table,
    floor_table,
    folder_graph,
    import_graph,
    read_modules,
    room_table,
    rooms_without_a_sentence,
    trespasses,
)

pytestmark = pytest.mark.any_python("reads the sources of this project")


@pytest.fixture(scope="module")
def modules(project_root: Path) -> Modules:
    """Every module of the four packages, path → source."""
    found = read_modules(project_root)
    assert len(found) > 300
    return found


def with_planted(modules: Modules, planted: Dict[str, str]) -> Modules:
    """The modules with the sources of `planted` added at the end of theirs, or as modules of their own."""
    result = dict(modules)
    for path, source in planted.items():
        result[path] = result.get(path, "") + "\n" + source
    return result


def test_no_circles_of_files(modules: Modules) -> None:
    assert circles(import_graph(modules)) == []


def test_no_circles_of_folders(modules: Modules) -> None:
    assert circles(folder_graph(modules)) == []


def test_every_floor_is_held(modules: Modules) -> None:
    assert climbs(modules) == []


def test_no_fence_is_broken(modules: Modules) -> None:
    assert trespasses(modules) == []


def test_folders_are_small(modules: Modules) -> None:
    assert crowded(modules) == {}


def test_every_room_says_what_belongs_in_it(modules: Modules) -> None:
    assert rooms_without_a_sentence(modules) == []


@pytest.mark.parametrize(
    "source",
    [
        "import vxm_convert.geometry.resample",
        "def f():\n    from vxm_convert.geometry import resample",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vxm_convert.geometry.resample import resample",
        "import importlib\nimportlib.import_module('vxm_convert.geometry.resample')",
        "from vxm_convert.lazy import LazyModule\nx = LazyModule('vxm_convert.geometry.resample')",
    ],
    ids=["plain", "lazy", "type only", "importlib", "LazyModule"],
)
def test_a_planted_circle_is_found(modules: Modules, source: str) -> None:
    # resample imports grids; with this, grids imports resample.
    planted = with_planted(modules, {"vxm_convert/geometry/grids.py": source})
    assert any("vxm_convert/geometry/grids.py" in circle for circle in circles(import_graph(planted)))


def test_a_planted_circle_of_folders_is_found(modules: Modules) -> None:
    # No circle of files: a new module of geometry that nothing imports reads scans, which reads geometry.
    planted = with_planted(modules, {"vxm_convert/geometry/planted.py": "from vxm_convert.scans import header"})
    assert circles(import_graph(planted)) == []
    assert any("vxm_convert/geometry" in circle for circle in circles(folder_graph(planted)))


@pytest.mark.parametrize(
    "path, source",
    [
        ("om_runner/inputs/planted.py", "from om_runner.results import layout"),
        ("om_runner/device/planted.py", "from om_runner.precision import report"),
        ("om_runner/results/planted.py", "def f():\n    from om_runner.bids import names"),
        ("om_runner/qc/planted.py", "import om_runner.registration.loop"),
        ("om_runner/registration/planted.py", "import om_runner.commands.apply"),
        ("vxm_convert/metrics/planted.py", "import vxm_convert.geometry.grids"),
        ("vxm_convert/geometry/planted.py", "import vxm_convert.scans.header"),
        ("vxm_convert/scans/planted.py", "import vxm_convert.transforms.warps"),
        ("vxm_convert/formats/planted.py", "import vxm_convert.sim.version"),
        ("train/settings/planted.py", "import train.run.loop"),
        ("export/preflight/view/planted.py", "import export.preflight.rules.nodes"),
    ],
)
def test_a_planted_upward_import_is_found(modules: Modules, path: str, source: str) -> None:
    assert any(path in line for line in climbs(with_planted(modules, {path: source})))


def test_every_folder_has_a_floor(modules: Modules) -> None:
    for package, floors in FLOORS.items():
        held = {room for floor in floors for room in floor}
        there = {path.split("/")[1] for path in modules if path.startswith(package + "/") and path.count("/") > 1}
        assert there <= held, f"{package}: {sorted(there - held)} on no floor of scripts/layout.py"


@pytest.mark.parametrize(
    "path, source",
    [
        ("vxm_convert/metrics/planted.py", "import tensorflow as tf"),
        ("om_runner/inputs/planted.py", "import SimpleITK as sitk"),
        ("vxm_convert/metrics/planted.py", "def f():\n    from tensorflow.compat import v1"),
        ("om_runner/registration/planted.py", "import tensorflow.compat.v1"),
        ("om_runner/device/planted.py", "import acl"),
        ("om_runner/device/planted.py", "from vxm_convert.sim import acl"),
        ("om_runner/device/planted.py", "from vxm_convert import sim"),
        ("export/planted.py", "import importlib\nimportlib.import_module('vxm_convert.sim.atc')"),
        ("om_runner/inputs/planted.py", "from vxm_convert.lazy import LazyModule\nsitk = LazyModule('SimpleITK')"),
        ("vxm_convert/model/planted.py", "from train.settings.run import TrainSettings"),
        ("train/run/planted.py", "import export.freeze"),
        ("export/planted.py", "from om_runner.device import runtime"),
        ("vxm_convert/artifacts/planted.py", "from vxm_convert.network.unet import build_unet"),
        ("train/run/planted.py", "from . import loop"),
        ("om_runner/inputs/planted.py", "import nibabel as nib"),
        ("train/data/planted.py", "from vxm_convert.scans.npz import NpzReader"),
        ("om_runner/commands/planted.py", "from vxm_convert.scans.raw_header import judge"),
        ("train/data/planted.py", "import numpy as np\nvolume = np.load('scan.npz')['vol']"),
    ],
)
def test_a_planted_trespass_is_found(modules: Modules, path: str, source: str) -> None:
    assert any(path in line for line in trespasses(with_planted(modules, {path: source})))


def test_a_name_that_only_begins_alike_is_no_trespass(modules: Modules) -> None:
    planted = with_planted(modules, {"vxm_convert/artifacts/planted.py": "import exporter, trainer, aclocal"})
    assert trespasses(planted) == []


def test_a_crowded_folder_is_found(modules: Modules) -> None:
    planted = with_planted(modules, {f"vxm_convert/model/planted_{n}.py": "" for n in range(MAX_MODULES)})
    assert "vxm_convert/model" in crowded(planted)


def test_logic_in_an_init_is_found(modules: Modules) -> None:
    planted = with_planted(modules, {"vxm_convert/model/__init__.py": "X = 1"})
    assert any("vxm_convert/model" in line for line in rooms_without_a_sentence(planted))


@pytest.mark.parametrize(
    "source",
    [
        "import numpy",
        "X = 1",
        "from om_runner.api.registrar import Registrar",
        "def f(): pass",
        "__getattr__ = dict().get",
    ],
)
def test_a_package_holds_its_public_names_and_nothing_else(modules: Modules, source: str) -> None:
    assert "__getattr__" in modules["om_runner/__init__.py"]
    planted = with_planted(modules, {"om_runner/__init__.py": source})
    assert any(line.startswith("om_runner: ") for line in rooms_without_a_sentence(planted))


def test_the_tables_of_the_document_are_the_rules(project_root: Path, modules: Modules) -> None:
    document = (project_root / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name, table in (("rooms", room_table(modules)), ("fences", fence_table()), ("floors", floor_table())):
        begin, end = f"<!-- {name}: made by scripts/layout.py -->\n", f"<!-- end of {name} -->"
        assert begin in document and end in document, f"docs/architecture.md has no place for {name}"
        there = document.split(begin)[1].split(end)[0].strip()
        assert there == table.strip(), f"table of {name} is not the current one; run python -m scripts.layout"


def test_fences_name_places_that_exist(project_root: Path) -> None:
    missing = [place for fence in FENCES for place in fence.allowed if not (project_root / place).exists()]
    assert missing == []


def test_the_main_job_takes_at_most_15_steps(project_root: Path, modules: Modules) -> None:
    document = (project_root / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = document.split("<!-- steps of the main job -->")[1].split("<!-- end of the steps -->")[0]
    steps = re.findall(r"^\| (\d+) \| `([^`]+)` \|", table, re.MULTILINE)
    files = [path for _, path in steps]
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1)) and 10 <= len(steps) <= 15
    assert files[0] == "om_runner/__main__.py" and len(set(files)) == len(files)
    graph = import_graph(modules)
    for at, path in enumerate(files[1:], 1):
        assert any(path in graph[earlier] for earlier in files[:at]), f"no earlier step imports {path}"
