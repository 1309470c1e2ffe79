# SPDX-License-Identifier: Apache-2.0
"""Programs for models with gears (tests/programs/gears), written as for a device: run unmodified, in processes of their
own.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.forked import forking
from tests.support.gear_graphs import CASES, build, compile_static, feeds
from vxm_convert.formats.om import read_om
from vxm_convert.sim.engine.load import load_program

ROOT = Path(__file__).resolve().parents[4]
PROGRAMS = ROOT / "tests" / "programs" / "gears"
MINUTE = 60


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Function: (command, folder, settings) → what came of it, in the environment of `sim env`."""
    folder = tmp_path_factory.mktemp("env")
    base = {name: value for name, value in os.environ.items() if not name.startswith("VXM_SIM_")}
    base = forking(dict(base, PYTHONPATH=str(ROOT)))
    script = 'eval "$("$0" -m vxm_convert sim env)" && printf "%s\\n" "$PATH" "$PYTHONPATH" "$VXM_SIM_PYTHON"'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable], cwd=str(folder), env=base, capture_output=True, text=True, timeout=MINUTE
    )
    assert done.returncode == 0, done.stderr
    base.update(zip(("PATH", "PYTHONPATH", "VXM_SIM_PYTHON"), done.stdout.splitlines()))

    def run(command, where, **settings):
        words = [str(word) for word in command]
        return subprocess.run(
            words, cwd=str(where), env=dict(base, **settings), capture_output=True, text=True, timeout=MINUTE
        )

    return run


def _atc(shell, name, folder):
    """Compile with the command `atc` on PATH."""
    pb, case = build(name, folder), CASES[name]
    outputs = ";".join(f"{node}:0" for node in case.outputs)
    done = shell(
        [
            "atc",
            f"--model={pb}",
            "--framework=3",
            "--output=net",
            "--soc_version=Ascend910A",
            f"--out_nodes={outputs}",
            *case.flags,
        ],
        folder,
    )
    assert done.returncode == 0 and "ATC run success" in done.stdout, done.stdout
    return folder / "net.om"


def _start(shell, program, folder, om):
    (folder / "out").mkdir()
    done = shell([sys.executable, PROGRAMS / f"{program}.py", om, folder, folder / "out"], folder, VXM_SIM_STRICT="1")
    assert done.returncode == 0, done.stderr
    assert "SIMULATED" in done.stderr and "simulated device:" not in done.stderr, done.stderr
    return done.stdout


def _alone(name, gear, folder, arrays):
    return load_program(read_om(compile_static(name, gear, folder))).run(arrays)


@pytest.mark.parametrize("path", sorted(PROGRAMS.glob("*.py")), ids=lambda path: path.stem)
def test_programs_know_nothing_of_us(path):
    modules = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert "acl" in modules and not any(name.startswith(("vxm_convert", "tests")) for name in modules)


@pytest.mark.parametrize("name, program", [("hw", "dynamic_hw"), ("dims", "dynamic_dims")])
def test_a_program_gives_what_the_static_models_give(name, program, shell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    om = _atc(shell, name, tmp_path)
    for gear in range(3):
        for index, array in enumerate(feeds(name, gear)):
            np.save(str(tmp_path / f"input_{gear}_{index}.npy"), array)
    _start(shell, program, tmp_path, om)
    for gear in range(3):
        for index, expected in enumerate(_alone(name, gear, tmp_path, feeds(name, gear))):
            got = np.load(str(tmp_path / "out" / f"output_{gear}_{index}.npy"))
            assert got.shape == expected.shape and np.array_equal(got, expected)


def test_a_classifier_pads_to_the_next_gear(shell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    om = _atc(shell, "batch", tmp_path)
    pictures = feeds("batch", 2)[0]
    for count in (1, 3, 8):
        np.save(str(tmp_path / f"input_{count}_0.npy"), pictures[:count])
    said = _start(shell, "dynamic_batch", tmp_path, om)
    assert "gears: 3 [1, 4, 8]" in said and "3 pictures in gear 4: [4, 5]" in said
    for count, gear in ((1, 0), (3, 1), (8, 2)):
        fed = np.zeros(CASES["batch"].shapes[gear][0], np.float32)
        fed[:count] = pictures[:count]
        got = np.load(str(tmp_path / "out" / f"output_{count}_0.npy"))
        assert np.array_equal(got, _alone("batch", gear, tmp_path, [fed])[0][:count]) and len(got) == count
