# SPDX-License-Identifier: Apache-2.0
"""Which options a command line names, and the refusal of those that the others leave without effect."""

from __future__ import annotations

import argparse
import contextlib
import io
from typing import Dict, Mapping, Sequence, Set


class _NotGiven:
    """What an option holds until it is read."""


def given_options(parser: argparse.ArgumentParser, argv: Sequence[str]) -> Set[str]:
    """First spellings of the options that a command line names, such as ``--edge``; for one that parses."""
    absent = _NotGiven()
    options = [action for action in parser._actions if action.option_strings and action.dest != argparse.SUPPRESS]
    # Repeated options grow a list, which None starts anew.
    held = argparse.Namespace(
        **{a.dest: None if isinstance(a, argparse._AppendAction) else absent for a in options if a.dest != "help"}
    )
    with contextlib.redirect_stderr(io.StringIO()):
        parser.parse_args(list(argv), held)
    named = {dest for dest, value in vars(held).items() if value is not absent and value is not None}
    return {_spelling(action) for action in options if action.dest in named}


def refuse_unused(parser: argparse.ArgumentParser, argv: Sequence[str], unused: Mapping[str, str]) -> None:
    """End with a usage error where a command line names an option that has no effect in it.

    Parameters
    ----------
    unused : option → why it has no effect, and with what it has one.
    """
    given = given_options(parser, argv) & set(unused) if unused else set()
    for option in unused:
        if option in given:
            parser.error(f"argument {option}: has no effect here, {unused[option]}")


def unless(used: bool, why: str, *options: str) -> Dict[str, str]:
    """`options`, with `why`, unless they are used; for tables of `refuse_unused`."""
    return {} if used else dict.fromkeys(options, why)


def _spelling(action: argparse.Action) -> str:
    return next((name for name in action.option_strings if name.startswith("--")), action.option_strings[0])
