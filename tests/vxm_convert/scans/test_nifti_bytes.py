# SPDX-License-Identifier: Apache-2.0
"""Equal voxels give equal files, wherever in memory the compressor is."""

from __future__ import annotations

import gzip
from types import SimpleNamespace
from typing import Any, List

import numpy as np
import pytest

from vxm_convert.scans import nifti

#: streams that are alive at once, each at its own address, by level of compression; before the first bytes were compressed
#: alone, 6 of 20,000 of level 1 differed, and levels 1 and 2 run the same loop
STREAMS = {1: 12000, 2: 1000, 3: 1000}
#: the start of a NIfTI header of a displacement field: zeros, and short integers that repeat
HEAD = b"\x5c\x01\0\0" + bytes(34) + b"r\0\5\0 \0 \0 \0\1\0\3\0\1\0\1\0" + bytes(298)


@pytest.mark.parametrize("level", sorted(STREAMS))
def test_the_address_of_a_compressor_changes_no_byte(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    isal_zlib = pytest.importorskip("isal.isal_zlib")
    alive: List[Any] = []

    def kept(*arguments: int) -> Any:
        alive.append(isal_zlib.compressobj(*arguments))
        return alive[-1]

    monkeypatch.setattr(nifti, "_deflate", SimpleNamespace(compressobj=kept))
    voxels = np.sin(np.arange(500, dtype="<f4")).data
    made = {b"".join(nifti._gzipped(HEAD, iter([voxels]), level)) for _ in range(STREAMS[level])}
    assert len(made) == 1
    assert gzip.decompress(made.pop()) == HEAD + bytes(voxels)
