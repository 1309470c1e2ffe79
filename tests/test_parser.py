# SPDX-License-Identifier: Apache-2.0
"""What every command line offers before it does anything: completion in the shell, suggestions, common options first."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

from tests.support.command_lines import options_in
from vxm_convert.parser import Parser, command_line, meant


def completions(folder: Path, root: Path, module: str, line: str, start: int = 1) -> List[str]:
    """What the shell would offer for a line with the cursor at its end."""
    answer = folder / "answer"
    environ = dict(
        os.environ,
        PYTHONPATH=str(root),
        _ARGCOMPLETE=str(start),
        _ARGCOMPLETE_STDOUT_FILENAME=str(answer),
        _ARGCOMPLETE_IFS="\n",
        COMP_LINE=line,
        COMP_POINT=str(len(line)),
        COMP_TYPE="9",
    )
    done = subprocess.run([sys.executable, "-m", module], cwd=str(folder), env=environ, capture_output=True, timeout=60)
    assert done.stdout == b"", done.stdout
    assert answer.is_file(), done.stderr.decode()
    return [word.strip() for word in answer.read_text().split("\n")]


@pytest.mark.parametrize(
    "module, line, start, offered, kept_back",
    [
        ("om_runner", "vxm-register --aff", 1, ["--affine"], ["--atlas"]),
        ("om_runner", "vxm-register ap", 1, ["apply"], ["invert"]),
        ("om_runner", "vxm-register apply --interpolation ", 1, ["nearest", "labels", "linear"], []),
        ("om_runner", "vxm-register --input x --space ", 1, ["atlas", "native", "network"], []),
        ("om_runner", "python -m om_runner invert --inv", 3, ["--inverse"], ["--input"]),
        ("export", "vxm-export --precision ", 1, ["balanced", "fast", "accurate"], []),
        ("export", "vxm-export tu", 1, ["tune"], []),
        ("train", "vxm-train prepare --o", 1, ["--out"], ["--optimizer"]),
        ("vxm_convert", "vxm doc", 1, ["doctor"], ["verify"]),
    ],
)
def test_the_shell_completes(
    tmp_path: Path, project_root: Path, module: str, line: str, start: int, offered: List[str], kept_back: List[str]
) -> None:
    found = completions(tmp_path, project_root, module, line, start)
    assert set(offered) <= set(found) and not set(kept_back) & set(found), found


@pytest.mark.parametrize(
    "module, words, said",
    [
        (
            "om_runner",
            ["--input", "x", "--atlas", "y", "--affin", "none", "--outptus", "moved"],
            "did you mean --outputs?",
        ),
        ("om_runner", ["aply", "--image", "x"], "did you mean apply?"),
        ("om_runner", ["--input", "x", "--atlas", "y", "--space", "natvie"], "did you mean native?"),
        ("export", ["--checkpoint", "x", "--out", "y", "--precison", "fast"], "did you mean --precision?"),
        ("export", ["--checkpoint", "x", "--out", "y", "--precision", "balance"], "did you mean balanced?"),
        ("train", ["--data", "x", "--epcohs", "3"], "did you mean --epochs?"),
        ("train", ["--data", "x", "prepair"], "did you mean prepare?"),
        ("vxm_convert", ["docter"], "did you mean doctor?"),
        ("om_runner", ["--input", "x", "--atlas", "y", "--qqqqqq"], "unrecognized arguments: --qqqqqq\n"),
    ],
)
def test_a_typing_error_gets_a_suggestion(module: str, words: List[str], said: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module + ".__main__").main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def help_text(module: str, option: str, capsys) -> str:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module + ".__main__").main([option])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "module, option",
    [
        ("om_runner", "--input"),
        ("om_runner", "--pairs"),
        ("om_runner", "--out"),
        ("om_runner", "--atlas"),
        ("train", "--data"),
        ("train", "--out"),
        ("vxm_convert", "verify"),
    ],
)
def test_an_empty_path_is_not_the_current_folder(module: str, option: str, capsys) -> None:
    """A variable of the shell that is not set leaves one."""
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"{module}.__main__").main([option, ""])
    assert ended.value.code == 2 and "is empty, expected a path; is a variable" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["om_runner", "train"])
def test_help_shows_the_common_options_and_help_all_the_rest(module: str, capsys) -> None:
    short, full = help_text(module, "--help", capsys), help_text(module, "--help-all", capsys)
    common = importlib.import_module({"om_runner": "om_runner.__main__", "train": "train.options"}[module])._COMMON
    shown = options_in(short.split("\nexamples:")[0])
    assert set(common) <= shown < options_in(full) and "more options: --help-all" in short
    assert len(short) < 0.7 * len(full) and "more options" not in full


def test_a_parser_without_common_options_shows_all(capsys) -> None:
    parser = Parser(prog="x")
    parser.add_argument("--rare", help="rare (default: none)")
    assert "--rare" in parser.format_help() and "--help-all" not in parser.format_help()
    with pytest.raises(SystemExit):
        parser.parse_args(["--help-all"])
    assert "--rare" in capsys.readouterr().out


def test_messages_as_json(tmp_path: Path, project_root: Path) -> None:
    words = ["om_runner", "invert", "--warp", "no\nsuch.nii", "--inverse", "x.nii.gz", "--log-format", "json"]
    done = subprocess.run([sys.executable, "-m", *words], cwd=str(project_root), capture_output=True, timeout=60)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.decode().splitlines()]
    assert lines and all(set(line) == {"time", "level", "logger", "message"} for line in lines)
    assert lines[-1]["level"] == "ERROR" and "such.nii: no such file" in lines[-1]["message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[-1]["time"])


def test_no_command_writes_colours(project_root: Path) -> None:
    """So NO_COLOR has nothing to switch off, but in the help of newer Pythons, which heed it themselves."""
    folders = ("vxm_convert", "train", "export", "om_runner")
    sources = [p.read_text(encoding="utf-8") for folder in folders for p in (project_root / folder).rglob("*.py")]
    assert len(sources) > 300 and not any(re.search(r"\\033\[|\\x1b\[|\\u001b\[|colorama", text) for text in sources)


def test_words_are_those_of_the_process_unless_given(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["vxm", "doctor"])
    assert command_line(None) == ["doctor"] and command_line(["a"]) == ["a"]
    assert meant("zzz", ["doctor"]) == ""
