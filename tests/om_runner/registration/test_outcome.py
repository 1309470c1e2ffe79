# SPDX-License-Identifier: Apache-2.0
"""What follows from the model's outputs: how long they stay in memory."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from om_runner.inputs.placement import BY_HEADERS, load_anywhere, load_atlas_anywhere
from om_runner.inputs.scans import Scan
from om_runner.registration import outcome
from om_runner.registration.outcome import ModelOutputs, products_of
from om_runner.results.products import OutputOptions
from tests.support import fakes
from tests.support.nifti import write_turned
from vxm_convert.profiles.profile import load_profile


@pytest.mark.parametrize("turned", [True, False])
def test_the_models_outputs_are_let_go_before_a_resampled_scan_is_moved(turned, tmp_path, monkeypatch):
    """A scan on the network grid takes them as results, and keeps them."""
    contract, real, alive = fakes.contract(), outcome.register, []
    fakes.write_scan(tmp_path / "atlas.npz", 0)
    fakes.write_scan(tmp_path / "scan.npz", 1)
    write_turned(tmp_path, "scan", "RAS", pad=2)
    atlas = load_atlas_anywhere(Scan("atlas", tmp_path / "atlas.npz"), contract, BY_HEADERS)
    path = tmp_path / ("scan.nii.gz" if turned else "scan.npz")
    loaded = load_anywhere(Scan("scan", path), contract, atlas, BY_HEADERS)
    outputs = [ModelOutputs(loaded.image.copy(), np.zeros(loaded.image.shape + (3,), np.float32))]
    made = [weakref.ref(array) for array in (outputs[0].moved, outputs[0].flow)]

    def registered(*args):
        alive.extend(one() is not None for one in made)
        return real(*args)

    monkeypatch.setattr(outcome, "register", registered)
    done, figures = products_of(loaded, atlas, outputs, OutputOptions(), load_profile("research"), (2, 41), 0)
    assert alive == [not turned] * 2 and not outputs
    assert done.by_network is not turned and figures["flow_max_voxel"] == 0
