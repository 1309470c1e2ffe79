# SPDX-License-Identifier: Apache-2.0
"""The cache of references: hits without a process, misses, damage, and what must not hit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, List

import numpy as np
import pytest

from om_runner.precision.reference_cache import CachedReference
from om_runner.precision.store import MOVING, REFERENCE_FLOW, REFERENCE_MOVED, CompareStore
from vxm_convert.errors import ArtifactError

SHAPE = (4, 5, 6)


class Counting:
    """Stands for the TensorFlow process: results depend on the moving image."""

    tensorflow_version = "1.15.test"

    def __init__(self, store: CompareStore, started: List[Counting]) -> None:
        self.store, self.computed, self.closed = store, [], False
        started.append(self)

    def run(self, subjects: List[str]) -> float:
        for subject in subjects:
            moving = np.asarray(self.store.get(subject, MOVING))
            np.save(str(self.store.path(subject, REFERENCE_MOVED)), moving + 1)
            np.save(str(self.store.path(subject, REFERENCE_FLOW)), np.stack([moving] * 3, -1))
        self.computed += subjects
        return 2.0 * len(subjects)

    def close(self) -> None:
        self.closed = True


def once(tmp_path: Path, images: Any, fixed: float = 0.0, pb: str = "ab" * 32, batch: int = 1) -> Any:
    """One run over subjects; returns (what was computed, seconds, references, version)."""
    started: List[Counting] = []
    with CompareStore(tmp_path, None) as store:
        store.put_fixed(np.full(SHAPE, fixed, np.float32))
        for name, value in images.items():
            array = np.full(SHAPE, value, np.float32)
            store.put(name, array, None, array, np.stack([array] * 3, -1))
        with CachedReference(tmp_path / "cache", lambda: Counting(store, started), pb, batch, store) as reference:
            seconds = reference.run(list(images))
            version = reference.tensorflow_version
        found = [float(np.load(str(store.path(name, REFERENCE_MOVED))).mean()) for name in images]
        flows = [np.load(str(store.path(name, REFERENCE_FLOW))).shape for name in images]
    assert all(process.closed for process in started) and set(flows) == {SHAPE + (3,)}
    return [name for process in started for name in process.computed], seconds, found, version


def test_a_second_run_starts_no_process(tmp_path: Path) -> None:
    assert once(tmp_path, {"a": 1, "b": 2}, batch=2) == (["a", "b"], 4.0, [2.0, 3.0], "1.15.test")
    # By content, not by name; figures of the first run stand.
    assert once(tmp_path, {"x": 2, "y": 1}, batch=2) == ([], 4.0, [3.0, 2.0], "1.15.test")


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    once(tmp_path, {"a": 1}, batch=2)
    assert once(tmp_path, {"a": 1, "b": 2}, batch=2)[:3] == (["b"], 4.0, [2.0, 3.0])


@pytest.mark.parametrize("other", [{"fixed": 1.0}, {"pb": "cd" * 32}, {"batch": 2}])
def test_other_inputs_do_not_hit(tmp_path: Path, other: Any) -> None:
    once(tmp_path, {"a": 1})
    assert once(tmp_path, {"a": 1}, **other)[0] == ["a"]


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "entry", "no hash", "huge"])
def test_a_damaged_entry_is_computed_again(tmp_path: Path, damage: str) -> None:
    once(tmp_path, {"a": 1})
    (entry,) = [path for path in (tmp_path / "cache").iterdir()]
    flow, about = entry / "flow.npy", entry / "entry.json"
    if damage == "flip":
        data = bytearray(flow.read_bytes())
        data[-1] ^= 1
        flow.write_bytes(bytes(data))
    elif damage == "cut":
        flow.write_bytes(flow.read_bytes()[:-8])
    elif damage == "gone":
        flow.unlink()
    elif damage == "entry":
        about.write_text("{")
    elif damage == "no hash":
        about.write_text(json.dumps({"seconds": 1, "tensorflow": "x"}))
    else:
        about.write_text(" " * (1 << 17))
    assert once(tmp_path, {"a": 1})[0] == ["a"]
    assert once(tmp_path, {"a": 1})[0] == []


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    once(tmp_path, {"a": 1})
    (entry,) = list((tmp_path / "cache").iterdir())
    assert sorted(path.name for path in entry.iterdir()) == ["entry.json", "flow.npy", "moved.npy"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ArtifactError, match="cache"):
        once(tmp_path, {"a": 1})
