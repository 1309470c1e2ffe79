# SPDX-License-Identifier: Apache-2.0
"""Compares two trees of results file by file, to show that a change of the code changes no result.

`scripts.results_tree` makes the trees, `scripts.results_content` says what counts as the same content. None of them
imports anything of the stages, so that the same files run in an old checkout and in a new one. Not compared are the
files of LEFT_OUT, and where the tree, its data and the code lie. A recorded sha256 of a file of the same tree counts as
that file's name: its content is compared once, in its own place.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Dict, List, Match, NamedTuple, Optional, Sequence

from google.protobuf.message import DecodeError

from scripts.results_content import TIMES, VERSIONS, differences
from scripts.results_tree import MADE, NEED_DATA, PARTS, make

#: files that are not compared, by pattern of their path in the tree, and why
LEFT_OUT = {
    "*.html": "pages: look at them side by side",
    "*/said/*.txt": "what commands print: words and times",
    "*.log": "words and times",
    "*/log.txt": "words and times",
    "*_log.txt": "words and times (BIDS)",
    "*/CHANGES": "date and version (BIDS)",
    "*/tensorboard/*": "times, and a time in the name",
    "*/.om_runner/cohort/process-*.json": "number and times of the process",
    "*/.made-by-scripts": "a mark without content",
}
_HASH = re.compile(r"\b[0-9a-f]{64}\b")
#: TensorBoard's files are named after a time and a machine
_EVENTS = re.compile(r"events\.out\.tfevents\.\d+\.[^\s\"<>]+")
_SHOWN = 8


class Tree:
    """The files of the parts of one tree.

    Attributes
    ----------
    files : dict, path in the tree → path on disk, without those of LEFT_OUT
    left_out : list of str — paths that a pattern of LEFT_OUT names
    hashes : dict, path in the tree → sha256, of all files
    exits : dict, part: command → exit code
    """

    def __init__(self, root: Path, parts: Sequence[str]) -> None:
        found: Dict[str, Path] = {}
        self.exits: Dict[str, int] = {}
        places: Dict[str, str] = {}
        for part in parts:
            made = json.loads((root / part / MADE).read_text(encoding="utf-8"))
            self.exits.update({f"{part}: {run['name']}": run["exit"] for run in made["runs"]})
            places.update({place: f"<{word}>" for word, place in made["places"].items() if place})
            found.update(
                {path.relative_to(root).as_posix(): path for path in (root / part).rglob("*") if path.is_file()}
            )
            del found[f"{part}/{MADE}"]
        self.left_out = [name for name in found if any(fnmatch.fnmatch(name, pattern) for pattern in LEFT_OUT)]
        self.files = {name: path for name, path in found.items() if name not in set(self.left_out)}
        self.hashes = {name: _sha256(path) for name, path in sorted(found.items())}
        self._names: Dict[str, str] = {}
        self._places = sorted(places.items(), key=lambda item: -len(item[0]))

    def name_hashes(self, other: Tree) -> None:
        """Choose a name for each hash: of equal files the first that both trees have, so that new files rename none."""
        for name in sorted(self.hashes, key=lambda name: (name not in other.hashes, name)):
            self._names.setdefault(self.hashes[name], name)

    def neutral(self, text: str) -> str:
        """`text` without what names the place and the time of this tree; hashes of its files are their names."""
        for place, word in self._places:
            text = text.replace(place, word)
        return _EVENTS.sub("<events of TensorBoard>", _HASH.sub(self._name_for, text))

    def _name_for(self, found: Match[str]) -> str:
        name = self._names.get(found.group())
        return f"<sha256 of {name}>" if name else found.group()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


class Difference(NamedTuple):
    """One file that differs, and the first few places where."""

    name: str
    places: List[str]


def compare(before: Tree, after: Tree) -> List[Difference]:
    """Every file that differs, in order of the names; exit codes of the commands come first."""
    before.name_hashes(after)
    after.name_hashes(before)
    found = [Difference("exit codes", _exit_codes(before, after))]
    for name in sorted({**before.files, **after.files}):
        if name not in before.files or name not in after.files:
            found.append(Difference(name, [f"only in {'AFTER' if name in after.files else 'BEFORE'}"]))
            continue
        one, other = (tree.files[name].read_bytes() for tree in (before, after))
        try:
            found.append(Difference(name, list(differences(name, one, other, (before.neutral, after.neutral)))))
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, DecodeError) as exc:
            found.append(Difference(name, [f"cannot be read: {type(exc).__name__}: {exc}"]))
    return [difference for difference in found if difference.places]


def _exit_codes(before: Tree, after: Tree) -> List[str]:
    names = list({**before.exits, **after.exits})
    codes = [(name, before.exits.get(name, "not run"), after.exits.get(name, "not run")) for name in names]
    return [f"{name}: {old} -> {new}" for name, old, new in codes if old != new]


def build_parser() -> argparse.ArgumentParser:
    """Options of the comparison."""
    left_out = [f"  {pattern:24} {why}" for pattern, why in LEFT_OUT.items()]
    parser = argparse.ArgumentParser(
        prog="python -m scripts.same_results",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compare two trees of results, which `python -m scripts.same_results make OUT` makes.",
        epilog="\n".join(["not compared:", *left_out, f"  entries and columns      {', '.join(TIMES + VERSIONS)}"])
        + "\n  places                   of the tree, the data, the code"
        + "\n  in ONNX                  the numbers of nodes that tf2onnx adds"
        + "\n\nexit codes: 0 the same; 1 something differs; 2 usage",
    )
    parser.add_argument("before", type=Path, metavar="BEFORE", help="tree of the old code")
    parser.add_argument("after", type=Path, metavar="AFTER", help="tree of the new code")
    _add_parts(parser, "all that BEFORE has")
    return parser


def build_make_parser() -> argparse.ArgumentParser:
    """Options of ``make``."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.same_results make",
        description="Make a tree of results with the commands of this checkout. Parts that are there stay.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the tree")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with brains, native and weights (default: none)"
    )
    _add_parts(parser, "all, without --data those that need none")
    return parser


def _add_parts(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--parts", metavar="LIST", help=f"of {','.join(PARTS)} (default: {default})")


def main(argv: Optional[List[str]] = None) -> int:
    """Exit code: 0 the same, or made; 1 something differs; 2 usage."""
    argv = sys.argv[1:] if argv is None else argv
    making = argv[:1] == ["make"]
    parser = build_make_parser() if making else build_parser()
    args = parser.parse_args(argv[1:] if making else argv)
    wanted = args.parts.split(",") if args.parts else None
    if wanted and not set(wanted) <= set(PARTS):
        parser.error(f"--parts {args.parts}: expected some of {','.join(PARTS)}")
    if making:
        return make(args.out, args.data, wanted or [part for part in PARTS if args.data or part not in NEED_DATA])
    parts = wanted or [part for part in PARTS if (args.before / part / MADE).is_file()]
    for part, root in ((part, root) for part in parts or PARTS[:1] for root in (args.before, args.after)):
        if not (root / part / MADE).is_file():
            parser.error(f"{root}: the part {part} is not there or not complete; make it, or choose with --parts")
    return _report(Tree(args.before, parts), Tree(args.after, parts))


def _report(before: Tree, after: Tree) -> int:
    found = compare(before, after)
    for name, places in found:
        print("\n    ".join([name, *places[:_SHOWN], *[f"… {len(places)} in all"][: len(places) > _SHOWN]]))
    print(
        f"{len(before.exits)} commands, {len(before.files)} files before, {len(after.files)} after: {len(found)} differ"
    )
    print(f"left out: {len(before.left_out)} files before, {len(after.left_out)} after: {', '.join(LEFT_OUT)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
