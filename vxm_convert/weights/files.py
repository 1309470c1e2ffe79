# SPDX-License-Identifier: Apache-2.0
"""The files of a ``--checkpoint`` argument, and their hashes. Reads no weights and needs no TensorFlow."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import CheckpointError
from vxm_convert.weights.foreign import TAKEN, describe_file

_LOG = logging.getLogger(__name__)

_STATE_FILE = "checkpoint"
_MAX_STATE_BYTES = 1 << 20
_MAX_SHARDS = 1000
_SHARD = re.compile(r"\.data-(\d{5})-of-(\d{5})$")
_TF_SUFFIX = re.compile(r"(\.index|\.meta|\.data-\d{5}-of-\d{5})$")
_STATE_PATH = re.compile(r'^\s*model_checkpoint_path\s*:\s*"((?:[^"\\]|\\.)*)"', re.MULTILINE)
H5_SUFFIXES = (".h5", ".hdf5", ".keras")


@dataclass(frozen=True)
class CheckpointFiles:
    """One set of weights on disk.

    Parameters
    ----------
    kind : str — ``tensorflow`` or ``h5``.
    path : Path — the h5 file, or TensorFlow's checkpoint prefix.
    files : tuple of Path — every file with weights.
    """

    kind: str
    path: Path
    files: Tuple[Path, ...]

    def hashes(self) -> Dict[str, str]:
        """Role → sha256: ``checkpoint`` is the h5 file or the first data shard, then ``checkpoint_index``,
        ``checkpoint_shard_<n>``.
        """
        if self.kind == "h5":
            return {"checkpoint": sha256_of(self.path)}
        roles = ["checkpoint_index", "checkpoint"] + [f"checkpoint_shard_{n}" for n in range(1, len(self.files) - 1)]
        return {role: sha256_of(path) for role, path in zip(roles, self.files)}


def find_checkpoint(source: Path) -> CheckpointFiles:
    """Resolve a checkpoint prefix (or any of its files), a folder of checkpoints, or a Keras ``.h5`` file.

    Raises
    ------
    CheckpointError
        If there is none, or a shard is missing.
    """
    try:
        return _find(Path(source))
    except OSError as exc:
        raise CheckpointError(
            f"{source}: cannot access it ({exc.strerror}); check the permissions of the folder"
        ) from exc


def _find(source: Path) -> CheckpointFiles:
    if source.suffix.lower() in H5_SUFFIXES:
        if not source.is_file():
            raise CheckpointError(
                f"{source}: no such file; pass --checkpoint an existing .h5, or a TensorFlow checkpoint"
            )
        return CheckpointFiles("h5", source, (source,))
    foreign = describe_file(source) if not _prefixes_in(source) and not _TF_SUFFIX.search(str(source)) else None
    if foreign is not None and source.exists() and not Path(str(source) + ".index").is_file():
        raise CheckpointError(f"{source}: is {foreign}; {TAKEN}")
    prefix = _newest_in(source) if source.is_dir() else Path(_TF_SUFFIX.sub("", str(source)))
    index = Path(str(prefix) + ".index")
    if not index.is_file():
        raise CheckpointError(
            f"{source}: no such checkpoint (looked for {index.name} in {index.parent}); pass --checkpoint the prefix "
            "without "
            f"suffix{_suggestion(prefix.parent)}"
        )
    return CheckpointFiles("tensorflow", prefix, (index,) + _shards(prefix))


def _newest_in(folder: Path) -> Path:
    """The checkpoint in the folder's state file, else the newest index in the folder."""
    named = _named_by_state(folder)
    if named is not None and Path(str(named) + ".index").is_file():
        return named
    candidates = _prefixes_in(folder)
    if not candidates:
        raise CheckpointError(
            f"{folder}: contains no checkpoint (no *.index file); pass --checkpoint a folder with one, a prefix or a "
            ".h5"
        )
    newest = max(candidates, key=lambda p: (Path(str(p) + ".index").stat().st_mtime_ns, p.name))
    if named is not None:
        _LOG.warning(
            "%s names %s, which is not in that folder; using the newest one, %s",
            folder / _STATE_FILE,
            named.name,
            newest.name,
        )
    return newest


def _named_by_state(folder: Path) -> Optional[Path]:
    """The state file may contain a path of the training machine: only its last component is used, in `folder`."""
    state = folder / _STATE_FILE
    try:
        if not state.is_file() or state.stat().st_size > _MAX_STATE_BYTES:
            return None
        found = _STATE_PATH.search(state.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    name = re.split(r"[/\\]+", found.group(1))[-1] if found else ""
    return folder / name if name not in ("", ".", "..") else None


def _prefixes_in(folder: Path) -> List[Path]:
    return sorted(Path(_TF_SUFFIX.sub("", str(p))) for p in folder.glob("*.index")) if folder.is_dir() else []


def _suggestion(folder: Path) -> str:
    have = [p.name for p in _prefixes_in(folder)][:5]
    return f"; that folder has {', '.join(have)}" if have else ""


def _shards(prefix: Path) -> Tuple[Path, ...]:
    names = sorted(p.name for p in prefix.parent.iterdir() if p.name.startswith(prefix.name + ".data-"))
    found = [match for match in map(_SHARD.search, names) if match]
    count = int(found[0].group(2)) if found else 1
    if count > _MAX_SHARDS:
        raise CheckpointError(
            f"{prefix}: announces {count} data files, expected at most {_MAX_SHARDS}; this is not a checkpoint of "
            "this project"
        )
    expected = tuple(Path(f"{prefix}.data-{n:05d}-of-{count:05d}") for n in range(count))
    missing = [p.name for p in expected if not p.is_file()]
    if missing:
        raise CheckpointError(
            f"{prefix}: {', '.join(missing[:3])} is missing beside {prefix.name}.index; copy the whole checkpoint"
        )
    return expected
