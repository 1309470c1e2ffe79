# SPDX-License-Identifier: Apache-2.0
"""Every option of every command has an entry that names a test which sees its effect. A new option without an entry
fails here; so does an entry whose test is gone, or does not use the option of that command.
"""

from __future__ import annotations

import argparse
import ast
import importlib
from pathlib import Path
from typing import Dict, List, Set

import pytest

from tests.support.command_lines import MORE_SUBCOMMANDS, SUBCOMMANDS
from tests.support.option_table import EVERYWHERE, SEEN_BY

pytestmark = pytest.mark.any_python("reads the sources of this project")

COMMANDS = [(module,) for module in ("om_runner", "train", "export", "vxm_convert")]
COMMANDS += [(module, verb) for module, verbs in MORE_SUBCOMMANDS.items() for verb in verbs]
COMMANDS += [("vxm_convert", verb) for verb in SUBCOMMANDS] + [("vxm_convert", "sim", "env")]
APP = ("om_runner", "BIDS_DIR", "OUT_DIR", "participant")


def parser_of(words: List[str], monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser whose help a command prints."""
    seen: List[argparse.ArgumentParser] = []
    monkeypatch.setattr(argparse.ArgumentParser, "print_help", lambda self, file=None: seen.append(self))
    with pytest.raises(SystemExit):
        importlib.import_module(f"{words[0]}.__main__").main([*words[1:], "--help"])
    return seen[-1]


def options_of(words: List[str], monkeypatch: pytest.MonkeyPatch) -> Set[str]:
    """The long spelling of each option, without those that every command has."""
    actions = parser_of(words, monkeypatch)._actions
    names = {next(name for name in a.option_strings if name.startswith("--")) for a in actions if a.option_strings}
    return names - set(EVERYWHERE)


@pytest.mark.parametrize("words", [*COMMANDS, APP], ids=" ".join)
def test_every_option_has_a_test_that_sees_its_effect(words, monkeypatch) -> None:
    command = "om_runner participant" if words == APP else " ".join(words)
    known = SEEN_BY.get(command, {})
    if words == APP:
        known = {
            **known,
            **{name: test for name, test in SEEN_BY["om_runner"].items() if name not in ("--input", "--out")},
        }
        # An App's input is a BIDS dataset.
        for name in ("--bids", "--pairs"):
            known.pop(name)
    assert set(known) == options_of(list(words), monkeypatch), f"entries of SEEN_BY[{command!r}] and options differ"


def test_every_command_of_the_table_exists() -> None:
    assert set(SEEN_BY) <= {" ".join(words) for words in COMMANDS} | {"om_runner participant"}


def used_text(path: Path, name: str) -> str:
    """Source of a test, with the module's own constants, functions and fixtures that it uses, and those of them."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    parts: Dict[str, ast.stmt] = {}
    for node in ast.parse(source).body:
        targets = [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            ends = node.targets if isinstance(node, ast.Assign) else [node.target]
            targets = [end.id for end in ends if isinstance(end, ast.Name)]
        parts.update(dict.fromkeys(targets, node))
    assert name in parts, f"{path}: no {name}"
    todo, done, text = [name], set(), []
    while todo:
        at = todo.pop()
        if at in done or at not in parts:
            continue
        done.add(at)
        node = parts[at]
        start = min([node.lineno] + [d.lineno for d in getattr(node, "decorator_list", [])])
        end = max(getattr(part, "lineno", 0) for part in ast.walk(node))
        text += lines[start - 1 : end + 1]
        todo += [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
        todo += [part.arg for part in ast.walk(node) if isinstance(part, ast.arg)]
    return "\n".join(text)


def test_the_named_tests_exist_and_use_the_option(project_root: Path) -> None:
    wrong = []
    texts: Dict[str, str] = {}
    for command, options in [*SEEN_BY.items(), ("every command", EVERYWHERE)]:
        for option, test in options.items():
            place, _, name = test.partition("::")
            path = project_root / "tests" / place
            if test not in texts:
                texts[test] = used_text(path, name) if path.is_file() else ""
            words = texts[test].replace("\n", " ").replace('"', " ").replace("'", " ").replace("=", " ").split()
            spellings = {option, "--" + option[2:].replace("-", "_")}
            if not spellings & {word.strip("(),[]{}") for word in words}:
                wrong.append(f"{command} {option}: {test} does not use it")
    assert not wrong, "\n".join(wrong)
