# SPDX-License-Identifier: Apache-2.0
"""The table of docs/running.md: what each command that lists a folder does with each kind of entry in it."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from export.tune import command as tune
from om_runner.audit import run as audit
from om_runner.layers import run as layers
from om_runner.registration import session
from tests.support import fakes
from tests.support.folder_kinds import BEGIN, END, ENTRIES, IGNORED, KINDS, READ, SAID, SKIPPED, UNREAD, table
from train.data.cohort import read_cohort
from train.evaluate import command as evaluate
from train.prepare.subjects import find_sources
from train.settings.run import DataSettings

#: command → the scans that it finds in a folder, by its own listing
LISTING: Dict[str, Callable[[Path, Path], List[Path]]] = {
    "om_runner": lambda folder, atlas: [scan.path for scan in session.discover(folder, atlas)],
    "audit": lambda folder, atlas: [scan.path for scan in audit.discover(folder, atlas)],
    "layers": lambda folder, atlas: [scan.path for scan in layers.discover(folder, atlas)],
    "export tune": lambda folder, atlas: tune._scans(
        argparse.Namespace(input=folder, atlas=atlas, out=folder.parent / "out")
    ),
    "train": lambda folder, atlas: [s.moving for s in read_cohort(DataSettings(folder, atlas), 0).subjects],
    "train evaluate": lambda folder, atlas: [
        s.moving for s in evaluate.read_cohort(DataSettings(folder, atlas), 0).subjects
    ],
    "train prepare": lambda folder, atlas: [source.path for source in find_sources(folder, folder.parent / "out")],
}


def test_every_command_is_tried() -> None:
    assert tuple(LISTING) == ENTRIES


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_cell_of_the_table(tmp_path: Path, caplog: Any, entry: str, kind: str) -> None:
    folder, atlas = tmp_path / "in", fakes.write_scan(tmp_path / "atlas.npz", 0)
    fakes.write_scan(folder / "sub-01.npz", 1)
    names, outcome = KINDS[kind].make(folder), KINDS[kind].outcome
    found = sorted(path.name for path in LISTING[entry](folder, atlas))
    assert found == sorted(["sub-01.npz"] + (names if outcome == READ else []))
    start = f"{folder}"
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and r.getMessage().startswith(start)]
    if outcome in (READ, IGNORED):
        assert said == []
    elif outcome == SKIPPED:
        assert len(said) == len(names) and all(any(f"/{name}: " in text for text in said) for name in names)
    else:
        (line,) = said
        start = "left out" if outcome == SAID else "files of kinds"
        assert start in line and all(name in line for name in names[:4])
        assert f" {len(names)} file" in line and ("convert to .nii.gz" in line) == (outcome == UNREAD)


def test_the_table_of_the_document_is_that_of_the_tests(project_root: Path) -> None:
    document = (project_root / "docs" / "running.md").read_text(encoding="utf-8")
    assert document.split(BEGIN)[1].split(END)[0].strip() == table()
