# SPDX-License-Identifier: Apache-2.0
"""What a --checkpoint argument may be, and what is said when it is nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import CheckpointError
from vxm_convert.weights.files import find_checkpoint


def fake_checkpoint(folder: Path, name: str, age: int = 0, shards: int = 1) -> Path:
    for part in [f"{name}.index"] + [f"{name}.data-{n:05d}-of-{shards:05d}" for n in range(shards)]:
        (folder / part).write_bytes(part.encode())
        os.utime(str(folder / part), (1_700_000_000 - age, 1_700_000_000 - age))
    return folder / name


@pytest.mark.parametrize("suffix", ["", ".index", ".meta", ".data-00000-of-00001"])
def test_any_file_of_a_checkpoint_means_the_checkpoint(tmp_path, suffix):
    prefix = fake_checkpoint(tmp_path, "model.ckpt-100")
    found = find_checkpoint(Path(str(prefix) + suffix))
    assert found.kind == "tensorflow" and found.path == prefix
    assert found.hashes() == {
        "checkpoint": sha256_of(Path(str(prefix) + ".data-00000-of-00001")),
        "checkpoint_index": sha256_of(Path(str(prefix) + ".index")),
    }


def test_every_shard_is_hashed(tmp_path):
    prefix = fake_checkpoint(tmp_path, "model", shards=3)
    assert sorted(find_checkpoint(prefix).hashes()) == [
        "checkpoint",
        "checkpoint_index",
        "checkpoint_shard_1",
        "checkpoint_shard_2",
    ]


def test_a_folder_means_what_its_state_file_names(tmp_path):
    fake_checkpoint(tmp_path, "model-1", age=10)
    fake_checkpoint(tmp_path, "model-2")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model-1"\nall_model_checkpoint_paths: "model-2"\n')
    assert find_checkpoint(tmp_path).path.name == "model-1"


@pytest.mark.parametrize("foreign", ["/home/someone/run/model-1", "C:\\\\runs\\\\model-1", "../../elsewhere/model-1"])
def test_a_foreign_path_in_the_state_file_counts_by_its_name(tmp_path, foreign):
    fake_checkpoint(tmp_path, "model-1", age=10)
    fake_checkpoint(tmp_path, "model-2")
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{foreign}"\n')
    assert find_checkpoint(tmp_path).path == tmp_path / "model-1"


@pytest.mark.parametrize(
    "state", [None, b"", b"\xff\xfe\x00garbage", b'model_checkpoint_path: "gone"\n', b'model_checkpoint_path: ".."\n']
)
def test_without_a_usable_state_file_the_newest_counts(tmp_path, state):
    fake_checkpoint(tmp_path, "model-9", age=10)
    fake_checkpoint(tmp_path, "model-10")
    if state is not None:
        (tmp_path / "checkpoint").write_bytes(state)
    assert find_checkpoint(tmp_path).path.name == "model-10"


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="contains no checkpoint"):
        find_checkpoint(tmp_path)


def test_a_missing_checkpoint_names_those_beside_it(tmp_path):
    fake_checkpoint(tmp_path, "model-9")
    with pytest.raises(CheckpointError, match=r"no such checkpoint .*that folder has model-9"):
        find_checkpoint(tmp_path / "model-8")
    with pytest.raises(CheckpointError, match="no such file"):
        find_checkpoint(tmp_path / "weights.h5")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        find_checkpoint(tmp_path / "nowhere" / "model")


def test_a_missing_shard_is_named(tmp_path):
    prefix = fake_checkpoint(tmp_path, "model", shards=3)
    (tmp_path / "model.data-00001-of-00003").unlink()
    with pytest.raises(CheckpointError, match="model.data-00001-of-00003 is missing"):
        find_checkpoint(prefix)
