# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while a command imports its packages ends in one line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["om_runner", "vxm_convert", "train", "export"])
def test_ctrl_c_during_imports_is_one_line(tmp_path, project_root, package):
    """A module that every command imports raises what Ctrl-C raises."""
    (tmp_path / "argparse.py").write_text("raise KeyboardInterrupt\n", encoding="utf-8")
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), str(project_root)]))
    done = subprocess.run(
        [sys.executable, "-m", package, "--help"], cwd=str(tmp_path), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 130 and done.stderr == "stopped by the user\n", done.stderr
