# SPDX-License-Identifier: Apache-2.0
"""The commands behind the first word of the command line, as far as `layers` is concerned."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from om_runner import __main__ as cli
from om_runner.commands import layers as command
from om_runner.precision.store import CompareStore


def test_the_verb_has_a_help_of_its_own(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["layers", "--help"])
    assert stop.value.code == 0
    assert "usage: python -m om_runner layers" in capsys.readouterr().out


def test_the_verbs_are_listed_and_layers_is_imported_only_when_asked_for(project_root: Path):
    code = (
        "import sys, om_runner.__main__ as m; h = m.build_parser().format_help(); print([v for v in m.VERBS if v not "
        "in h]); "
        "print(m.VERBS['layers'][0] in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=str(project_root), capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "False"], done.stderr


def test_another_first_word_is_no_verb(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["layer"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "'layer' is not a verb (" in said and "layers" in said


def test_the_verb_takes_the_rest_of_the_line(monkeypatch):
    seen = []
    module = importlib.import_module(cli.VERBS["layers"][0])
    monkeypatch.setattr(module, "main", lambda argv: seen.append(argv) or 7)
    assert cli.main(["layers", "--out", "x"]) == 7 and seen == [["--out", "x"]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_leaves_no_temporary_folder(tmp_path, monkeypatch, capsys, number):
    def compare(settings):
        with CompareStore(settings.out, 0) as store:
            assert list(tmp_path.iterdir()) == [store.folder]
            os.kill(os.getpid(), number)
            raise AssertionError("the signal did not stop the comparison")

    monkeypatch.setattr(command, "run_layers", compare)
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread only, and a parallel runner put this test elsewhere")
    before = signal.getsignal(signal.SIGTERM)
    # A shell that starts the tests in the background makes them ignore Ctrl-C.
    keyboard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert cli.main(["layers", "--input", "a", "--atlas", "b", "--out", str(tmp_path)]) == 130
    finally:
        signal.signal(signal.SIGINT, keyboard)
    assert list(tmp_path.iterdir()) == [] and signal.getsignal(signal.SIGTERM) is before
    assert "stopped" in capsys.readouterr().err
