# SPDX-License-Identifier: Apache-2.0
"""Makes a tree of results with the public commands of the checkout it runs in, for `scripts.same_results` to compare.

Parts: `demo` (the demo), `small` (every other command, on small grids; needs demo), `brains` (real brains at full
size) and `scan` (one raw scan in another space; needs brains). The commands are in results_commands.ini. Imports
nothing of the stages.
"""

from __future__ import annotations

import configparser
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from scripts.results_inputs import write_bids, write_mixed, write_points, write_raw

MADE = "made.json"
SAID = "said"
PARTS = ("demo", "small", "brains", "scan")
NEEDS = {"small": "demo", "scan": "brains"}
NEED_DATA = ("brains", "scan")
_CODE = Path(__file__).resolve().parent.parent
_COMMANDS = Path(__file__).with_name("results_commands.ini")
#: what the verbs work on: a registered subject of the part, how names of moving and fixed files start and end
_VERBS = {
    "small": (
        "mixed/turned",
        "{inputs}/mixed/turned",
        "{inputs}/atlas/",
        (".nii.gz", "_seg.nii.gz", "brain.nii.gz", "seg.nii.gz"),
    ),
    "scan": (
        "network/norm",
        "{data}/native/bert/",
        "{data}/native/fsaverage/",
        ("norm.mgz", "aseg.mgz", "brain.mgz", "aseg.mgz"),
    ),
}


def make(out: Path, data: Optional[Path], parts: Sequence[str]) -> int:
    """Make the parts in their order; those that are complete stay.

    Raises
    ------
    SystemExit
        When a part needs another one that is not there, or data and there are none.
    """
    out, data = out.resolve(), data.resolve() if data else None
    for part in (part for part in PARTS if part in parts and not (out / part / MADE).is_file()):
        needed = NEEDS.get(part)
        if needed and not (out / needed / MADE).is_file():
            raise SystemExit(f"part {part}: {out / needed} is not complete; make the part {needed} first")
        if data is None and part in NEED_DATA:
            raise SystemExit(f"part {part}: no data; give --data a folder with brains, native and weights")
        shutil.rmtree(str(out / part), ignore_errors=True)
        (out / part / SAID).mkdir(parents=True)
        _write_inputs(out, part)
        runs = [_run(out / part / SAID, name, words) for name, words in commands(part, out, data).items()]
        places = {"TREE": str(out), "DATA": str(data) if data else None, "CODE": str(_CODE), "PYTHON": sys.executable}
        record = {"places": places, "runs": runs}
        (out / part / MADE).write_text(json.dumps(record, indent=1), encoding="utf-8")
    return 0


def commands(part: str, out: Path, data: Optional[Path]) -> Dict[str, List[str]]:
    """The commands of a part, name → words after ``python -m``, with the places filled in."""
    table = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    table.read(str(_COMMANDS), encoding="utf-8")
    places = {"tree": str(out), "data": str(data or "(none)")}
    for name, text in table["names"].items():
        places[name] = text.format(**places)
    rows = dict(table[part])
    if part in _VERBS:
        subject, moving, fixed, ends = _VERBS[part]
        starts = (moving.format(**places), moving.format(**places), fixed.format(**places), fixed.format(**places))
        for name, start, end in zip(("moving", "moving_seg", "fixed", "fixed_seg"), starts, ends):
            places[name] = start + end
        places.update(verbs=f"{out}/{part}/verbs", points=f"{out}/{part}/verbs/points.csv")
        places.update(
            {name: f"{out}/{part}/{subject}/{file}.nii.gz" for name, file in (("warp", "flow"), ("inverse", "inverse"))}
        )
        rows.update(table["verbs"])
    return {name: [word.format(**places) for word in text.split()] for name, text in rows.items()}


def _write_inputs(out: Path, part: str) -> None:
    if part == "small":
        cohort, inputs = out / "demo/made/cohort", out / "small/inputs"
        write_mixed(cohort, inputs / "mixed", inputs / "atlas")
        write_bids(cohort, inputs / "bids")
        write_raw(cohort, inputs / "raw")
    if part in _VERBS:
        write_points(out / part / "verbs")


def _run(said: Path, name: str, words: Sequence[str]) -> Dict[str, Any]:
    """Run a command; its standard output is a result where it is named after a file, else a part of what it says."""
    start = time.time()
    kept = said / name if name.endswith(".json") else Path(os.devnull)
    with (said / f"{name}.txt").open("wb") as messages, kept.open("wb") as result:
        output = messages if str(kept) == os.devnull else result
        code = subprocess.call(
            [sys.executable, "-m"] + list(words),
            cwd=str(_CODE),
            stdout=output,
            stderr=messages,
            stdin=subprocess.DEVNULL,
        )
    ran = {"name": name, "arguments": list(words), "exit": code, "seconds": round(time.time() - start, 1)}
    print(f"{said.parent.name}: {name}: exit code {code}, {ran['seconds']} s", flush=True)
    return ran
