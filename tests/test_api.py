# SPDX-License-Identifier: Apache-2.0
"""The Python interface as its page shows it: the names, their docstrings and types, and every block of code run."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import List

import numpy as np
import pytest

from tests.support import fakes
from tests.support.shift import ShiftBench
from vxm_convert.scans.nifti import write_nifti

PACKAGES = ("om_runner", "vxm_convert", "export", "train")
AFFINE = np.array([[-1.0, 0, 0, 8], [0, 0, 1, -16], [0, -1, 0, 8], [0, 0, 0, 1]])


def blocks(project_root: Path, kind: str) -> List[str]:
    text = (project_root / "docs" / "api.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def public(package: str) -> List[object]:
    module = importlib.import_module(package)
    return [getattr(module, name) for name in module.__all__ if not inspect.ismodule(getattr(module, name))]


@pytest.mark.parametrize("package", PACKAGES)
def test_names_are_few_listed_and_there(project_root: Path, package: str) -> None:
    module = importlib.import_module(package)
    assert 0 < len(module.__all__) <= 12 and module.__all__ == sorted(module.__all__)
    assert dir(module) == sorted(module.__all__)
    row = re.search(
        rf"^\| `{package}` \| (.*) \|$", (project_root / "docs" / "api.md").read_text("utf-8"), re.MULTILINE
    )
    assert re.findall(r"`(\w+)`", row.group(1)) == sorted(module.__all__)
    stub = (project_root / package / "__init__.py").read_text("utf-8")
    assert set(re.findall(r"import \w+ as (\w+)$", stub, re.MULTILINE)) == set(module.__all__)
    with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018
    assert (project_root / package / "py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_types_and_a_docstring(package: str) -> None:
    for thing in public(package):
        if isinstance(thing, type) and issubclass(thing, Exception):
            assert thing.__doc__
            continue
        assert thing.__doc__ and thing.__module__.split(".")[0] in PACKAGES, thing
        functions = (
            [thing] if inspect.isfunction(thing) else [f for _, f in inspect.getmembers(thing, inspect.isfunction)]
        )
        for function in functions:
            if function.__name__.startswith("_") and function.__name__ not in ("__init__", "__call__"):
                continue
            if function.__name__ == "__init__" and dataclasses.is_dataclass(thing):
                continue
            parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", "cls")]
            assert all(p.annotation is not inspect.Parameter.empty for p in parameters), function
            assert inspect.signature(function).return_annotation is not inspect.Signature.empty, function
            assert "argparse" not in str(inspect.signature(function)), function
            assert function.__doc__ or function.__name__ == "__init__", function


def test_importing_a_package_imports_nothing_heavy(project_root: Path) -> None:
    code = (
        "import sys, om_runner, vxm_convert, export, train\n"
        "from vxm_convert import VxmError\n"
        "print(sorted({'numpy', 'scipy', 'nibabel', 'tensorflow', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=str(project_root), stdout=subprocess.PIPE, timeout=60)
    assert done.stdout.decode().strip() == "[]"


def test_the_blocks_of_the_page_run(project_root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    ShiftBench(tmp_path, monkeypatch)
    (tmp_path / "scans").mkdir()
    for name, seed in (("atlas", 0), ("scans/sub-01", 1), ("scans/sub-02", 2)):
        image, seg = fakes.brain(seed)
        write_nifti(tmp_path / f"{name}.nii.gz", image, AFFINE)
        write_nifti(tmp_path / f"{name}_seg.nii.gz", seg, AFFINE)
    monkeypatch.chdir(tmp_path)
    code = blocks(project_root, "python")
    assert len(code) == 5
    names: dict = {"__name__": "page"}
    for block in code:
        exec(compile(block, "docs/api.md", "exec"), names)
    assert sorted(p.name for p in (tmp_path / "registered").iterdir()) == ["sub-01", "sub-02"]
    assert "broken failed: " in capsys.readouterr().out
    for name in ("moved.nii.gz", "moved_seg.nii.gz", "warp_fsl.nii.gz", "warp_itk.nii.gz"):
        assert (tmp_path / name).is_file()


@pytest.mark.tf
@pytest.mark.slow
def test_the_block_that_trains_runs(project_root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("tensorflow")
    from vxm_convert.synthetic.heads import PhantomSettings, write_cohort

    write_cohort(tmp_path / "cohort", PhantomSettings((32, 32, 32), 2))
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(project_root, "python tensorflow")
    exec(compile(block, "docs/api.md", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out.strip().endswith("True")
    assert (tmp_path / "build" / "vxm" / "contract.json").is_file()
