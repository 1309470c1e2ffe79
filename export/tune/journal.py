# SPDX-License-Identifier: Apache-2.0
"""Every candidate of a search as a line of JSON, on disk before the next one starts. A search with the same inputs goes
on from it.

First line: what the search rests on (hashes of graph, scans, profile; compiler, chip, mode) and the key made of it.
Then one line per candidate. A last line without an end, as a crash leaves it, is dropped; a damaged line before it is
refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from export.tune.trials import Atoms, Verdict
from vxm_convert.artifacts.shares import Lock, sync, take_lock, write_problem
from vxm_convert.errors import ArtifactError, FormatError

_LOG = logging.getLogger(__name__)

JOURNAL_NAME = "trials.jsonl"
SCHEMA = 1
_MAX_BYTES = 1 << 28


def content_key(data: object) -> str:
    """sha256 of the data as canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode("utf-8")).hexdigest()


class Journal:
    """Append-only record; a context manager.

    Parameters
    ----------
    path : Path — the file; made if missing.
    inputs : mapping — what verdicts depend on besides the candidate; JSON values.
    resume : bool — go on with an existing file of the same inputs. Without it an existing file is moved aside.

    Raises
    ------
    ArtifactError
        With `resume`, a file of other inputs; a file that cannot be written, or that another process writes.
    FormatError
        A damaged line that is not the last.
    """

    def __init__(self, path: Path, inputs: Mapping[str, Any], resume: bool) -> None:
        self.path = Path(path)
        self.inputs = dict(inputs)
        self.key = content_key(self.inputs)
        self._verdicts: Dict[str, Verdict] = {}
        if self.path.exists() and not resume:
            _move_aside(self.path)
        try:
            self._handle = open(str(self.path), "a+b")
        except OSError as exc:
            raise ArtifactError(
                f"{self.path}: cannot write the journal ({exc.strerror}); choose another --out"
            ) from exc
        try:
            self._lock()
            self._read()
        except BaseException:
            self._handle.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def __len__(self) -> int:
        return len(self._verdicts)

    def candidate_key(self, atoms: Atoms) -> str:
        return content_key([self.key, sorted(atoms)])

    def find(self, atoms: Atoms) -> Optional[Verdict]:
        """The recorded verdict, or None."""
        return self._verdicts.get(self.candidate_key(atoms))

    def add(self, atoms: Atoms, verdict: Verdict, **details: object) -> None:
        """Record a verdict; it is on disk when this returns. `details` are JSON values for people."""
        key = self.candidate_key(atoms)
        score = verdict.score if math.isfinite(verdict.score) else None
        self._append(
            {
                "key": key,
                "decisions": sorted(atoms),
                "accepted": verdict.accepted,
                "score": score,
                "reason": verdict.reason,
                "invalid": verdict.invalid,
                **details,
            }
        )
        self._verdicts[key] = verdict

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            self._handle.write(line.encode("utf-8"))
            self._handle.flush()
            sync(self._handle.fileno())
        except OSError as exc:
            raise ArtifactError(f"{self.path}: writing the journal failed: {write_problem(exc)}") from exc

    def _lock(self) -> None:
        if take_lock(self._handle.fileno(), self.path) is Lock.BUSY:
            raise ArtifactError(f"{self.path}: another search writes it; wait for it or choose another --out")

    def _read(self) -> None:
        size = self._handle.seek(0, os.SEEK_END)
        if size > _MAX_BYTES:
            raise FormatError(
                f"{self.path}: {size} bytes, a journal has at most {_MAX_BYTES}; this is no journal of ours"
            )
        self._handle.seek(0)
        data = self._handle.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            _LOG.warning("%s: the last line is torn and was dropped", self.path)
            self._handle.truncate(whole)
        lines = data[:whole].splitlines()
        if not lines:
            self._append({"schema": SCHEMA, "key": self.key, "inputs": self.inputs})
            return
        self._check_head(_parse(self.path, 1, lines[0]))
        for number, line in enumerate(lines[1:], 2):
            entry = _parse(self.path, number, line)
            verdict = _verdict(entry)
            if verdict is None or entry.get("key") != self.candidate_key(frozenset(entry["decisions"])):
                raise FormatError(
                    f"{self.path}, line {number}: no candidate of this search; delete the line, or start without "
                    "--resume"
                )
            self._verdicts[entry["key"]] = verdict

    def _check_head(self, head: Mapping[str, Any]) -> None:
        if head.get("key") == self.key and head.get("schema") == SCHEMA:
            return
        given = head.get("inputs")
        theirs = given if isinstance(given, dict) else {}
        other = sorted(name for name in set(self.inputs) | set(theirs) if self.inputs.get(name) != theirs.get(name))
        raise ArtifactError(
            f"{self.path}: a journal of other inputs ({', '.join(other) or 'schema'} differ); its verdicts do not "
            "hold here: "
            "start without --resume, or choose another --out"
        )


def _parse(path: Path, number: int, line: bytes) -> Dict[str, Any]:
    try:
        entry = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise FormatError(
            f"{path}, line {number}: not JSON ({exc}); delete the line, or start without --resume"
        ) from exc
    if not isinstance(entry, dict):
        raise FormatError(f"{path}, line {number}: expected an object; delete the line, or start without --resume")
    return entry


def _verdict(entry: Mapping[str, Any]) -> Optional[Verdict]:
    """None where the entry does not have the form of one."""
    decisions, score = entry.get("decisions"), entry.get("score")
    shaped = isinstance(decisions, list) and all(isinstance(name, str) for name in decisions)
    accepted, invalid = entry.get("accepted"), entry.get("invalid")
    if not shaped or not isinstance(accepted, bool) or not isinstance(invalid, bool) or isinstance(score, bool):
        return None
    if score is not None and not isinstance(score, (int, float)):
        return None
    return Verdict(accepted, -math.inf if score is None else float(score), str(entry.get("reason", "")), invalid)


def _move_aside(path: Path) -> None:
    number = 1
    while path.with_name(f"{path.stem}-{number}{path.suffix}").exists():
        number += 1
    try:
        os.rename(str(path), str(path.with_name(f"{path.stem}-{number}{path.suffix}")))
    except OSError as exc:
        raise ArtifactError(
            f"{path}: cannot move the journal of an earlier search aside ({exc.strerror}); choose another --out"
        ) from exc
