# SPDX-License-Identifier: Apache-2.0
"""The parser of every command: completes words in a shell, suggests what was meant, and shows common options first.
Refuses empty paths.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from pathlib import Path
from typing import Any, Iterable, List, NoReturn, Optional, Sequence

#: set by the shell's completion: position of the program's name among the words, from 1
COMPLETING = "_ARGCOMPLETE"
_CHOICE = re.compile(r"invalid choice: '?([^' ]+)'? \(choose from (.*)\)$", re.DOTALL)
_LINE, _POINT = "COMP_LINE", "COMP_POINT"


class Parser(argparse.ArgumentParser):
    """An argparse parser; takes its arguments.

    Parameters
    ----------
    verbs : sequence of str — first words that have parsers of their own, to complete and to suggest.
    common : sequence of str — options that ``--help`` shows; the others are under ``--help-all``. Empty: it shows all.
    """

    def __init__(self, *args: Any, verbs: Sequence[str] = (), common: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.verbs, self.common, self._everything = tuple(verbs), tuple(common), False
        self.register("type", Path, _given_path)
        said = "show every option and exit" if common else argparse.SUPPRESS
        self.add_argument("--help-all", action=_HelpAll, help=said)

    def parse_args(self, args: Optional[Sequence[str]] = None, namespace: Any = None) -> Any:
        """Parse; with a suggestion for what nobody knows."""
        words = command_line(None if args is None else list(args))
        if COMPLETING in os.environ:
            self._complete(words)
        found, left = self.parse_known_args(words, namespace)
        if left:
            known = [name for action in self._actions for name in action.option_strings] + list(self.verbs)
            self.error(f"unrecognized arguments: {' '.join(left)}{meant(left[0].partition('=')[0], known)}")
        return found

    def error(self, message: str) -> NoReturn:
        """End with a usage error."""
        found = _CHOICE.search(message)
        if found is not None:
            message += meant(found.group(1), re.findall(r"[^\s',]+", found.group(2)))
        super().error(message)
        raise AssertionError("argparse's error does not return")

    def format_help(self) -> str:
        """The help; without the rare options unless they are asked for."""
        hidden = [] if self._everything or not self.common else [a for a in self._actions if not self._shown(a)]
        said = [action.help for action in hidden]
        try:
            for action in hidden:
                action.help = argparse.SUPPRESS
            text = super().format_help()
        finally:
            for action, help_text in zip(hidden, said):
                action.help = help_text
        if hidden:
            text = text.rstrip("\n") + f"\n\n{len(hidden)} more options: --help-all\n"
        return text

    def everything(self) -> str:
        """The help with every option."""
        self._everything = True
        try:
            return self.format_help()
        finally:
            self._everything = False

    def _shown(self, action: argparse.Action) -> bool:
        if not action.option_strings or action.required or isinstance(action, (argparse._HelpAction, _HelpAll)):
            return True
        return any(name in self.common for name in action.option_strings)

    def _complete(self, words: List[str]) -> None:
        """Answer the shell and end the process; words that led to this parser are passed over."""
        import argcomplete

        consumed = len(command_line(None)) - len(words)
        os.environ[COMPLETING] = str(int(os.environ[COMPLETING]) + consumed)
        if self.verbs and not words:
            self.add_argument("verb", choices=sorted(self.verbs), nargs="?")
        argcomplete.autocomplete(self)


def _given_path(word: str) -> Path:
    """A path; nothing, as of a variable of the shell that is not set, would be the current folder."""
    if not word:
        raise argparse.ArgumentTypeError("is empty, expected a path; is a variable of the shell not set?")
    return Path(word)


class _HelpAll(argparse.Action):
    """``--help-all``."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: Optional[str] = None) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        everything = parser.everything() if isinstance(parser, Parser) else parser.format_help()
        sys.stdout.write(everything)
        parser.exit()


def command_line(argv: Optional[List[str]]) -> List[str]:
    """Words after the program's name: `argv`, or those of the process; while a shell completes, those before the cursor
    but the one being typed.
    """
    if argv is not None:
        return list(argv)
    if COMPLETING not in os.environ:
        return sys.argv[1:]
    from argcomplete import lexers

    split: Any = lexers.split_line
    _, _, _, words, _ = split(os.environ[_LINE], int(os.environ[_POINT]))
    return list(words[int(os.environ[COMPLETING]) :])


def meant(word: str, known: Iterable[str]) -> str:
    """``; did you mean …?``, or nothing."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""
