# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while a command imports its packages ends in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from vxm_convert.cliargs import run_main, stop_if_asked


@pytest.mark.parametrize("package", ["om_runner", "vxm_convert", "train", "export"])
def test_ctrl_c_during_imports_is_one_line(tmp_path, project_root, package):
    """A module that every command imports raises what Ctrl-C raises."""
    (tmp_path / "argparse.py").write_text("raise KeyboardInterrupt\n", encoding="utf-8")
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), str(project_root)]))
    done = subprocess.run(
        [sys.executable, "-m", package, "--help"], cwd=str(tmp_path), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 130 and done.stderr == "stopped by the user\n", done.stderr


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_sigterm_that_a_finalizer_swallows_is_not_lost(capsys):
    """Python drops an exception that a signal's handler raises there."""

    class Dying:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            # A handler runs between two instructions.
            sum(range(1000))

    def body():
        dying = Dying()
        del dying
        sys.stderr.write("still here\n")
        stop_if_asked()
        return 0

    assert run_main(body, "vxm") == 130
    assert "still here" in capsys.readouterr().err
    stop_if_asked()
