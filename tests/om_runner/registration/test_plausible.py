# SPDX-License-Identifier: Apache-2.0
"""Outputs that cannot be a registration of their scan fail it, without any comparison and before a file is written."""

from __future__ import annotations

import numpy as np
import pytest

from om_runner import __main__ as cli
from om_runner.device.runtime import RunResult
from om_runner.registration import session
from tests.support import fakes
from tests.support.registration_bench import Bench
from vxm_convert.geometry.reference_warp import warp_linear
from vxm_convert.profiles.plausible_figures import PLAUSIBLE_FIGURES
from vxm_convert.profiles.profile import load_profile, shipped_profiles

pytestmark = pytest.mark.any_python("sums of NumPy arrays and a scripted device")

SEEDS = {"a": 1, "b": 2, "c": 3}


class WarpingRuntime(fakes.FakeRuntime):
    """A device whose moved image is the scan warped by its flow, as a network's is; then `spoil` on what it returns."""

    def _run(self, feeds):
        self.fed.append(dict(feeds))
        shape = feeds["moving"].shape[1:4]
        moved, flow = np.empty_like(feeds["moving"]), np.empty(feeds["moving"].shape[:-1] + (3,), np.float32)
        waves = [np.sin(np.linspace(0, 2 * np.pi, n)) for n in shape]
        for at in range(len(moved)):
            size = 0.5 + float(feeds["moving"][at].mean())
            for axis in range(3):
                wave = waves[axis].reshape([-1 if d == axis else 1 for d in range(3)])
                flow[at, ..., axis] = size * wave
            moved[at, ..., 0] = warp_linear(feeds["moving"][at, ..., 0], flow[at])
        outputs = {"moved": moved, "flow": flow}
        self.spoil(outputs)
        return RunResult(outputs, fakes.DEVICE_SECONDS)


@pytest.fixture(params=["scipy", "numba"])
def bench(request, tmp_path, monkeypatch):
    """With the figures by NumPy, and by compiled loops, as for volumes of full size."""
    if request.param == "numba":
        pytest.importorskip("numba")
    monkeypatch.setenv("VXM_HOST", request.param)
    made = Bench(tmp_path, monkeypatch)
    for name, seed in SEEDS.items():
        fakes.write_scan(made.inputs / f"{name}.npz", seed)
    return made


def run(bench, spoil, profile="research", *extra):
    bench.runtime = WarpingRuntime(bench.model.contract, spoil)
    argv = ["--input", str(bench.inputs), "--atlas", str(bench.atlas), "--out", str(bench.out), "--compare", "none"]
    argv += ["--profile", profile, *extra]
    settings = cli.settings_from(cli.build_parser().parse_args(argv), argv)
    return session.run_session(settings, lambda model, device: bench.runtime)


def words(outputs, name, pattern):
    """One bit pattern over 16 values in the middle, as a device with a broken memory leaves it."""
    raw = outputs[name].reshape(-1).view(np.uint32)
    middle = raw.size // 2
    raw[middle : middle + 16] ^= np.uint32(pattern)


def one_pattern(outputs):
    words(outputs, "flow", 0x40000000)


def one_pattern_of_moved(outputs):
    words(outputs, "moved", 0x40000000)


def nan(outputs):
    outputs["flow"][0, 3, 3, 3, 0] = np.nan


def garbage(outputs):
    outputs["flow"][...] = np.random.RandomState(0).uniform(-3, 3, outputs["flow"].shape)


def garbage_moved(outputs):
    outputs["moved"][...] = np.random.RandomState(0).uniform(0, 1, outputs["moved"].shape)


def flow_over_moved(outputs):
    outputs["moved"][...] = outputs["flow"][..., :1]


def half_flow(outputs):
    outputs["flow"].reshape(-1)[outputs["flow"].size // 2 :] = 0


def half_moved(outputs):
    outputs["moved"].reshape(-1)[outputs["moved"].size // 2 :] = 0


def black(outputs):
    outputs["moved"][...] = 0


def beyond_the_grid(outputs):
    outputs["flow"][...] = 900
    outputs["moved"][...] = 0


SPOILT = (
    one_pattern,
    one_pattern_of_moved,
    nan,
    garbage,
    garbage_moved,
    flow_over_moved,
    half_flow,
    half_moved,
    black,
    beyond_the_grid,
)


@pytest.mark.parametrize("profile", ["research", "clinical-strict", "smoke"])
def test_honest_outputs_pass(bench, profile):
    assert run(bench, lambda outputs: None, profile) == 0
    assert [row["subject"] for row in bench.table("metrics.tsv")] == ["a", "b", "c"]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("profile", ["research", "smoke"])
def test_a_spoilt_output_fails_its_scan_and_no_other(bench, spoil, profile):
    """Only the second scan is spoilt."""
    count = []

    def second(outputs):
        count.append(1)
        if len(count) == 2:
            spoil(outputs)

    assert run(bench, second, profile) == 1
    assert [row["subject"] for row in bench.table("metrics.tsv")] == ["a", "c"]
    (row,) = bench.table("failures.tsv")
    assert row["subject"] == "b" and row["stage"] == "run" and "b.npz" in row["reason"]
    assert "--profile" not in row["reason"], "another profile does not make it right"
    assert not (bench.out / "b").exists() and not (bench.out / ".om_runner" / "b.json").exists()


def test_outputs_of_the_scan_before_fail(bench):
    """What a device returns that did not run: consistent in itself, but of another scan."""
    kept = {}

    def stale(outputs):
        for name in outputs:
            kept.setdefault(name, outputs[name].copy())
            outputs[name][...] = kept[name]

    assert run(bench, stale) == 1
    assert [row["subject"] for row in bench.table("failures.tsv")] == ["b", "c"]
    assert all("warp.max_abs" in row["reason"] for row in bench.table("failures.tsv"))


def test_outputs_swapped_within_a_batch_fail(tmp_path, monkeypatch):
    made = Bench(tmp_path, monkeypatch, batch=2)
    for name in ("a", "b"):
        fakes.write_scan(made.inputs / f"{name}.npz", SEEDS[name])

    def swap(outputs):
        for name in outputs:
            outputs[name][...] = outputs[name][::-1].copy()

    assert run(made, swap) == 1
    assert [row["subject"] for row in made.table("failures.tsv")] == ["a", "b"]


def test_the_lowest_bit_of_a_value_is_rounding(bench):
    """What one execution cannot show, see `audit`: the limits must not pretend to find it."""

    def unsteady(outputs):
        raw = outputs["flow"].reshape(-1).view(np.uint32)
        raw[raw.size // 2] ^= 1

    assert run(bench, unsteady, "clinical-strict") == 0


def test_a_profile_without_the_section_is_as_lenient_as_smoke(bench, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("schema: 1\nname: mine\nlimits:\n  epe_mm.p999: {max: 0.03}\n", encoding="utf-8")
    assert load_profile(str(mine)).plausible == load_profile("smoke").plausible
    assert run(bench, garbage_moved, str(mine)) == 1
    mine.write_text("schema: 1\nname: mine\nlimits: {}\nplausible: {}\n", encoding="utf-8")
    assert load_profile(str(mine)).plausible == ()
    assert run(bench, garbage_moved, str(mine)) == 0, "an empty section switches them off"


def test_every_shipped_profile_limits_every_figure():
    for name in shipped_profiles():
        assert [limit.figure.name for limit in load_profile(name).plausible] == list(PLAUSIBLE_FIGURES)
