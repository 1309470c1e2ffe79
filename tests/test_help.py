# SPDX-License-Identifier: Apache-2.0
"""What ``--help`` of every command and verb promises: verbs one per line, an example that fits the options, exit codes,
and a default or the word "required" for every option.
"""

from __future__ import annotations

import argparse
import importlib
import re
from typing import List, Set

import pytest

from tests.support.command_lines import MORE_SUBCOMMANDS, SUBCOMMANDS, help_of, options_in

COMMANDS = [(module,) for module in ("om_runner", "train", "export", "vxm_convert")]
COMMANDS += [(module, verb) for module, verbs in MORE_SUBCOMMANDS.items() for verb in verbs]
COMMANDS += [("vxm_convert", verb) for verb in SUBCOMMANDS] + [("vxm_convert", "sim", "env")]
IDS = [" ".join(words) for words in COMMANDS]


def section(text: str, title: str) -> List[str]:
    """Lines of a part of the help, without their indentation."""
    found = re.search(rf"^{re.escape(title)}:\n((?:  .*\n?)+)", text, flags=re.MULTILINE)
    assert found is not None, f"no {title!r} in the help"
    return [line.strip() for line in found.group(1).splitlines()]


@pytest.mark.parametrize("words", COMMANDS, ids=IDS)
def test_examples_use_options_that_exist(words) -> None:
    text = help_of(*words)
    examples = section(text, "examples")
    own = [line for line in examples if "python -m " + " ".join(words) in line]
    assert own, "no example of this command itself"
    for line in examples:
        module, *rest = line.split("python -m ")[1].rstrip('")').split()
        verbs = MORE_SUBCOMMANDS.get(module, SUBCOMMANDS) + ("env",)
        described = help_of(module, *[word for word in rest[:2] if word in verbs]).split("\nexamples:\n")[0]
        assert options_in(line) <= options_in(described), line


@pytest.mark.parametrize("words", COMMANDS, ids=IDS)
def test_exit_codes_are_listed_one_per_line(words) -> None:
    codes = [int(line.split()[0]) for line in section(help_of(*words), "exit codes")]
    assert {0, 1, 2} <= set(codes) and codes == sorted(set(codes))


@pytest.mark.parametrize("module", list(MORE_SUBCOMMANDS) + ["vxm_convert"])
def test_verbs_are_listed_one_per_line(module: str) -> None:
    lines = section(help_of(module), "verbs (VERB --help says more)")
    listed = [line.split()[0] for line in lines if line != "VERB"]
    assert listed == sorted(MORE_SUBCOMMANDS.get(module, ())) or set(listed) == set(SUBCOMMANDS)
    assert all(len(line.split()) > 3 for line in lines if line != "VERB"), "a verb without a description"


@pytest.mark.parametrize("words", COMMANDS, ids=IDS)
def test_every_option_has_a_default_or_is_required(words, monkeypatch) -> None:
    seen: List[argparse.ArgumentParser] = []
    monkeypatch.setattr(argparse.ArgumentParser, "print_help", lambda self, file=None: seen.append(self))
    with pytest.raises(SystemExit):
        importlib.import_module(words[0] + ".__main__").main(list(words[1:]) + ["--help"])
    one_of: Set[argparse.Action] = {
        action for group in seen[-1]._mutually_exclusive_groups if group.required for action in group._group_actions
    }
    for action in seen[-1]._actions:
        if action.option_strings and not {"--help", "--help-all"} & {*action.option_strings} and action not in one_of:
            assert re.search(r"default: |\(required", action.help or ""), action.option_strings
            assert action.required == ("(required)" in action.help), action.option_strings


def test_the_help_of_a_long_command_line_starts_short() -> None:
    for module in ("om_runner", "train", "export"):
        usage = help_of(module).split("\n\n")[0]
        assert usage.startswith("usage: ") and len(usage.splitlines()) <= 3 and "VERB" in usage
