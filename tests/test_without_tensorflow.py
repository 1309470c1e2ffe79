# SPDX-License-Identifier: Apache-2.0
"""What must work where TensorFlow is absent, and what must say so in one message where it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_BLOCKED = (
    "import runpy, sys; sys.modules.update(dict.fromkeys(('tensorflow', 'npu_bridge', 'tf2onnx', 'h5py', 'acl'))); "
)


def run(code: str, root: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", _BLOCKED + code], cwd=str(root), capture_output=True, timeout=120)


@pytest.mark.parametrize("stage", ["vxm_convert", "train", "export", "om_runner"])
def test_help_needs_no_tensorflow(stage: str, project_root: Path) -> None:
    done = run(f"sys.argv = ['{stage}', '--help']; runpy.run_module('{stage}', run_name='__main__')", project_root)
    assert done.returncode == 0, done.stderr.decode()
    assert f"usage: python -m {stage}" in done.stdout.decode()


def test_doctor_needs_no_tensorflow(project_root: Path) -> None:
    done = run("sys.argv = ['x', 'doctor']; runpy.run_module('vxm_convert', run_name='__main__')", project_root)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def test_training_without_tensorflow_is_one_message(project_root: Path, tmp_path: Path) -> None:
    done = run(
        "from vxm_convert.synthetic.heads import *; from train.__main__ import main; from pathlib import Path\n"
        f"root = Path({str(tmp_path)!r}); write_cohort(root, PhantomSettings((16, 16, 16), 1))\n"
        "sys.exit(main(['--data', str(root / 'scans'), '--atlas', str(root / 'atlas.npz'), '--out', str(root / 'o')]))",
        project_root,
    )
    message = done.stderr.decode()
    assert (
        done.returncode == 1 and "train: error: TensorFlow: cannot import it" in message and "Traceback" not in message
    )
