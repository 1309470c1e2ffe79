# SPDX-License-Identifier: Apache-2.0
"""What the command lines share: help texts, option groups, logging set-up, error → exit code."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence

from vxm_convert.artifacts.shares import is_environment, write_problem
from vxm_convert.artifacts.targets import check_not_replaced
from vxm_convert.errors import EXIT_USER, VxmError
from vxm_convert.metrics.labels import LABEL_MAPS
from vxm_convert.model.precision import DEFAULT_PLAN, PLANS
from vxm_convert.model.spec import VARIANTS
from vxm_convert.text import printable

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
#: what every command promises; a command adds its own codes
EXIT_CODES = {0: "done", 1: "something to fix; one message says what", 2: "wrong usage"}
_HELP_WIDTH = 79


def help_texts(
    description: str,
    examples: Sequence[str],
    exits: Optional[Mapping[int, str]] = None,
    verbs: Optional[Mapping[str, str]] = None,
    writes: str = "",
) -> Dict[str, Any]:
    """Keyword arguments of a parser whose help lists verbs, examples and exit codes one per line.

    Parameters
    ----------
    description : str — one or two sentences.
    examples : sequence of str — whole command lines.
    exits : exit code → meaning, beyond or instead of `EXIT_CODES`.
    verbs : first word of the command line → one line about it.
    writes : str — the files that the command writes, where the description does not say.
    """
    above = textwrap.fill(description, _HELP_WIDTH)
    if verbs:
        width = max(map(len, verbs)) + 2
        above += "\n\nverbs (VERB --help says more):\n"
        above += "\n".join(f"  {verb:<{width}}{text}" for verb, text in sorted(verbs.items()))
    below = [textwrap.fill(f"writes {writes}", _HELP_WIDTH, subsequent_indent="  ")] if writes else []
    below.append("\n".join(["examples:"] + [f"  {example}" for example in examples]))
    codes = {**EXIT_CODES, **(exits or {})}
    below.append("\n".join(["exit codes:"] + [f"  {code:<5}{text}" for code, text in sorted(codes.items())]))
    return {"description": above, "epilog": "\n\n".join(below), "formatter_class": _Help}


class _Help(argparse.RawDescriptionHelpFormatter):
    """argparse forgets that verbs are indented when it measures them, and breaks the line after the longest."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        for verb in self._iter_indented_subactions(action):
            length = len(self._format_action_invocation(verb)) + self._current_indent
            self._action_max_length = max(self._action_max_length, length)


def add_common_group(parser: argparse.ArgumentParser) -> None:
    """``--verbose``, ``--quiet`` and ``--log-format``."""
    messages = parser.add_argument_group("messages")
    group = messages.add_mutually_exclusive_group()
    group.add_argument("-v", "--verbose", action="store_true", help="log more detail (default: off)")
    group.add_argument("-q", "--quiet", action="store_true", help="log only warnings and errors (default: off)")
    messages.add_argument(
        "--log-format",
        default="text",
        choices=("text", "json"),
        help="messages as lines of text, or as one JSON object per line for programs that collect them (default: "
        "%(default)s)",
    )


def add_label_map(group: argparse._ActionsContainer, whose: str) -> None:
    """``--label-map``.

    Parameters
    ----------
    whose : str — the segmentations that it is for, in words.
    """
    group.add_argument(
        "--label-map",
        default=None,
        metavar="NAME|FILE",
        help=f"labels of another tool, of {whose}, are turned into FreeSurfer's: {', '.join(LABEL_MAPS)}, or a table with the "
        "columns from, to and name, separated by tabs; labels that it does not have become background, which is said "
        "(default: they are FreeSurfer's already)",
    )


def add_model_group(parser: argparse.ArgumentParser, default_shape: str = "160,192,224") -> None:
    """``--variant`` and ``--shape``."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--variant", default="vm2", choices=sorted(VARIANTS), help="network variant (default: %(default)s)"
    )
    group.add_argument(
        "--shape",
        default=default_shape,
        metavar="X,Y,Z",
        help="network grid in voxels, each side a multiple of 16 (default: %(default)s)",
    )


def add_toolchain_group(parser: argparse.ArgumentParser) -> None:
    """``--toolchain``."""
    group = parser.add_argument_group("toolchain")
    group.add_argument(
        "--toolchain",
        default=None,
        choices=["auto", "cann", "sim"],
        help="cann: the real tools; sim: the simulated ones; auto: CANN if it is installed, else sim "
        "(default: $VXM_TOOLCHAIN, else auto)",
    )


def add_precision_group(parser: argparse.ArgumentParser) -> None:
    """``--precision``."""
    group = parser.add_argument_group("precision")
    group.add_argument(
        "--precision",
        default=DEFAULT_PLAN,
        choices=sorted(PLANS),
        help="fast: everything in fp16; balanced: convolutions in fp16, warp in fp32; accurate: all results in fp32 "
        "(default: %(default)s)",
    )


def set_up_logging(args: argparse.Namespace) -> None:
    """Log to stderr; called by `main` functions only."""
    level = (
        logging.DEBUG
        if getattr(args, "verbose", False)
        else logging.WARNING
        if getattr(args, "quiet", False)
        else logging.INFO
    )
    handler = logging.StreamHandler(sys.stderr)
    as_json = getattr(args, "log_format", "text") == "json"
    handler.setFormatter(JsonLines() if as_json else _Printable(LOG_FORMAT, datefmt="%H:%M:%S"))
    logging.basicConfig(level=level, handlers=[handler])
    for chatty in ("matplotlib", "PIL", "tensorflow", "tf2onnx", "h5py", "nibabel"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def refuse_overwriting(args: argparse.Namespace, outputs: Sequence[str]) -> None:
    """Refuse a command line whose output is one of its inputs, or two outputs.

    Parameters
    ----------
    args : Namespace
    outputs : sequence of str — names of the options that are written to.

    Raises
    ------
    ArtifactError
        If a result would replace an input.
    """
    for name in outputs:
        out = getattr(args, name, None)
        if out is not None:
            others = [(other, path) for other, value in vars(args).items() if other != name for path in _paths(value)]
            check_not_replaced(out, [("--" + other.replace("_", "-"), path) for other, path in others])


def run_main(body: Callable[[], int], prog: str) -> int:
    """Run a command's body; a user-fixable error becomes one message and its exit code, Ctrl-C and SIGTERM become
    130.
    """
    try:
        with _stop_on_sigterm():
            return body()
    except VxmError as exc:
        _say(prog, "error", str(exc))
        return exc.exit_code
    except BrokenPipeError:
        return EXIT_USER
    except OSError as exc:
        if not is_environment(exc):
            raise
        where = f"{printable(str(exc.filename))}: " if exc.filename else ""
        sys.stderr.write(f"{prog}: error: {where}{write_problem(exc)}\n")
        return EXIT_USER
    except KeyboardInterrupt:
        _say(prog, "", "stopped by the user; finished results are kept")
        return 130


def _paths(value: object) -> List[Path]:
    """The paths in the value of an option; words of a chain of transforms are files, whatever is in front."""
    values = value if isinstance(value, (list, tuple)) else [value]
    words = [Path(word.rpartition(":")[2]) for word in values if isinstance(word, str) and word]
    return [path for path in values if isinstance(path, Path)] + [path for path in words if path.is_file()]


def _say(prog: str, kind: str, text: str) -> None:
    """The last message of a command, in the form of the others."""
    if any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers):
        logging.getLogger(prog).error("%s", text)
    else:
        sys.stderr.write(f"{prog}: {kind + ': ' if kind else ''}{printable(text)}\n")


class JsonLines(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": printable(record.getMessage()),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # A line break in a file's name must not look like a line of its own.
        return printable(super().format(record)).replace("\n", "\n    ")


#: set by SIGTERM, until the command ends
_ASKED = threading.Event()


def stop_if_asked() -> None:
    """Raise KeyboardInterrupt where SIGTERM came and its exception was lost: Python drops one that is raised in a
    finalizer or in a callback from C. Long commands call it between their steps.
    """
    if _ASKED.is_set():
        raise KeyboardInterrupt


@contextmanager
def _stop_on_sigterm() -> Iterator[None]:
    """Let SIGTERM (a batch system's time limit) unwind like Ctrl-C, so that temporary folders are cleared away."""

    def stop(number: int, frame: Optional[FrameType]) -> None:
        _ASKED.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _ASKED.clear()
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        # None: somebody's handler in C, which cannot be put back from here.
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
        _ASKED.clear()
