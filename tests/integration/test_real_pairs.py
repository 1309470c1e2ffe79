# SPDX-License-Identifier: Apache-2.0
"""Every ordered pair of four real brains on a small grid, as Learn2Reg has them: with one load of the model, the results of
runs in which the pair's fixed image is the atlas.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

from om_runner import Pair, Registrar
from om_runner.api import registrar
from tests.support.stages import SHAPE

pytestmark = [
    pytest.mark.tf,
    pytest.mark.real_data,
    pytest.mark.python37("the exported model is there; what is compared is NumPy"),
]

BRAINS = ("bert", "dfsp", "niivue_fs", "vxm_test")


def small(source: Path, target: Path) -> Path:
    """Every fourth voxel, cut or filled up to the grid of the model about the centre."""
    with np.load(str(source)) as archive:
        arrays = {"vol": archive["vol"][::4, ::4, ::4], "seg": archive["seg"][::4, ::4, ::4]}
    for name, array in arrays.items():
        missing = [max(0, want - have) for want, have in zip(SHAPE, array.shape)]
        array = np.pad(array, [(n // 2, n - n // 2) for n in missing], mode="constant")
        starts = [(have - want) // 2 for want, have in zip(SHAPE, array.shape)]
        arrays[name] = array[tuple(slice(start, start + want) for start, want in zip(starts, SHAPE))]
    np.savez(str(target), **arrays)
    return target


def test_twelve_pairs_are_registered_as_to_an_atlas(
    shared_data: Path, exported: Path, tmp_path: Path, monkeypatch
) -> None:
    brains = {name: small(shared_data / "brains" / f"{name}.npz", tmp_path / f"{name}.npz") for name in BRAINS}
    opened: List[Any] = []
    open_runtime = registrar.open_runtime
    monkeypatch.setattr(registrar, "open_runtime", lambda *args: opened.append(args) or open_runtime(*args))
    pairs = [Pair(brains[a], brains[b]) for a in BRAINS for b in BRAINS if a != b]
    with Registrar(exported / "vxm.om", toolchain="sim", profile="none") as register:
        found = {result.name: result for result in register.pairs(pairs)}
    assert len(found) == 12 and len(opened) == 1, "one load of the model"
    scores: Dict[str, float] = {}
    for fixed in BRAINS:
        with Registrar(exported / "vxm.om", brains[fixed], toolchain="sim", profile="none") as register:
            for result in register.many([brains[name] for name in BRAINS if name != fixed]):
                pair = found[f"{result.name}__{fixed}"]
                assert np.array_equal(pair.flow, result.flow)
                assert np.array_equal(np.asarray(pair.moved.dataobj), np.asarray(result.moved.dataobj))
                assert np.array_equal(np.asarray(pair.labels.dataobj), np.asarray(result.labels.dataobj))
                assert pair.metrics.structures == result.metrics.structures and len(pair.metrics.structures) > 20
                assert pair.metrics.dice_after == result.metrics.dice_after
                scores[pair.name] = float(result.metrics.dice_after)
    assert len(set(scores.values())) == 12 and min(scores.values()) > 0.2, "twelve different results"
