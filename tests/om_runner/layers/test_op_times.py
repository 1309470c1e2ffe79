# SPDX-License-Identifier: Apache-2.0
"""Times per operator: tables as msprof exports them, joined to layers and estimates; profiled runs on the simulator."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Dict, List

import pytest

from om_runner.device.profiled import ProfiledRuntime, find_msprof, operator_summaries
from om_runner.device_check.operator_rung import points_of
from om_runner.device_check.probes.convolution import leaky_probes
from om_runner.device_check.sides import compile_probe
from om_runner.layers.op_times import OpTime, estimates_beside, join, lines_of, read_summaries, write_op_times
from tests.om_runner.device_check.climbing import fresh_device
from tests.support.cann_releases import put_atc
from vxm_convert.device_check.points import AS_PREDICTED, DIFFERS, MEASURED
from vxm_convert.errors import ArtifactError, FormatError, ToolchainError
from vxm_convert.formats.om import read_om
from vxm_convert.toolchain.find import Toolchain, find_toolchain

__all__ = ["fresh_device"]

#: columns of two releases: 8.x, and an older one with other cases
NEW = "Device_id,Model ID,Task ID,Stream ID,Op Name,OP Type,Task Type,Task Duration(us),Block Dim\n"
OLD = "Model Name,Op Name,Op Type,Task Duration(us),Task Wait Time(us)\n"


def rows(path: Path) -> List[Dict[str, str]]:
    with open(str(path), encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_tables_of_both_kinds_are_read(tmp_path: Path) -> None:
    (tmp_path / "op_summary_1.csv").write_text(
        NEW + "0,1,3,2,conv,Conv3D,AI_CORE,12.5,32\n0,1,4,2,sync,Event,N/A,N/A,0\n"
    )
    (tmp_path / "op_summary_2.csv").write_text("\ufeff" + OLD + "vxm,conv,Conv3D,7.5,1\nvxm,cut\n", encoding="utf-8")
    found = read_summaries(sorted(tmp_path.glob("*.csv")))
    assert list(found) == ["conv"]
    assert found["conv"][0] == "Conv3D" and found["conv"][1] == pytest.approx([12.5e-6, 7.5e-6])


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "Op Name,OP Type\nx,y\n"])
def test_other_tables_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "op_summary.csv").write_text(text)
    with pytest.raises(FormatError, match="has no column"):
        read_summaries([tmp_path / "op_summary.csv"])


def test_estimates_of_the_export(tmp_path: Path) -> None:
    nodes = [
        {"node": "conv", "estimate_ms": 2.0, "estimate_convert_ms": 0.5},
        {"node": "odd", "estimate_ms": None, "estimate_convert_ms": 0.5},
        "no row",
    ]
    assert estimates_beside(tmp_path / "vxm.om") == {}
    (tmp_path / "preflight.json").write_text(json.dumps({"nodes": nodes}))
    assert estimates_beside(tmp_path / "vxm.om") == pytest.approx({"conv": 2.5e-3})


def test_a_profiled_run_on_the_simulator(tmp_path: Path, fresh_device: None) -> None:
    toolchain = find_toolchain("sim")
    probe = leaky_probes()[0]
    compiled = compile_probe(probe, toolchain, "Ascend910A", tmp_path / "compiled")
    acl = toolchain.load_acl()
    with ProfiledRuntime(acl, compiled.om_path, compiled.contract, 0, tmp_path / "profile") as runtime:
        for _ in range(2):
            runtime.run(dict(probe.feeds))
    summaries = operator_summaries(tmp_path / "profile", toolchain)
    times = read_summaries(summaries)
    assert "biased_conv" in times and all(seconds > 0 for _, taken in times.values() for seconds in taken)
    assert {row["Task Type"] for row in rows(summaries[0])} == {"SIMULATED"}
    joined = join(times, read_om(compiled.om_path), {"biased_conv": 1e-5, "biased": 2e-5})
    conv = next(entry for entry in joined if entry.operator == "biased_conv")
    assert conv.nodes == ("biased_conv", "biased") and conv.estimate == pytest.approx(3e-5)
    table = rows(write_op_times(tmp_path, joined, True))
    assert all(row["measured_by"].startswith("SIMULATED") and row["times_estimate"] == "" for row in table)
    assert sum(float(row["share"]) for row in table) == pytest.approx(1, abs=1e-3)
    assert "SIMULATED" in lines_of(joined, True)[0]


def times_of(conv: float, gather: float) -> List[OpTime]:
    return [
        OpTime("conv_1", "Conv3D", ("conv_1",), 5, conv, 1e-3),
        OpTime("conv_2", "Conv3D", ("conv_2",), 5, conv, 1e-3),
        OpTime("gather", "GatherV2", ("gather",), 5, gather, 1e-3),
        OpTime("trans_Cast_0", "Cast", (), 5, 1e-6, None),
    ]


def test_types_of_operators_are_judged_by_the_estimate_on_a_device() -> None:
    points = {point.name: point for point in points_of(times_of(2e-3, 9e-3), False)}
    assert points["time of Conv3D"].state == AS_PREDICTED
    assert points["time of GatherV2"].state == DIFFERS and points["time of GatherV2"].assumption == "kernel_speed"
    assert points["time of Cast"].state == MEASURED
    (point,) = points_of(times_of(2e-3, 9e-3), True)
    assert point.state == MEASURED and "SIMULATED" in point.found
    assert "times_estimate" not in lines_of(times_of(2e-3, 9e-3), False)[1]


def real(tmp_path: Path, script: Any) -> Toolchain:
    root = tmp_path / "cann"
    if script is not None:
        put_atc(root / "tools" / "profiler" / "bin" / "msprof", script)
    return Toolchain("cann", "8.1.RC1", ("atc",), {"PATH": str(tmp_path)}, root)


def test_msprof_exports_a_real_profile(tmp_path: Path) -> None:
    profile = tmp_path / "profile" / "PROF_000001_2026"
    profile.mkdir(parents=True)
    script = f'#!/bin/sh\n[ "$1" = --export=on ] || exit 9\n/bin/echo \'{NEW.strip()}\' > "${{2#--output=}}/op_summary_0.csv"\n'
    toolchain = real(tmp_path, script)
    assert find_msprof(toolchain) == str(toolchain.root / "tools/profiler/bin/msprof")
    assert [path.name for path in operator_summaries(tmp_path / "profile", toolchain)] == ["op_summary_0.csv"]


@pytest.mark.parametrize(
    "script, words, error",
    [
        (None, "not found on PATH", ToolchainError),
        ("#!/bin/sh\necho no such device; exit 4\n", "exit code 4 .*no such device", ToolchainError),
        ("#!/bin/sh\nexit 0\n", "has no op_summary", ArtifactError),
    ],
)
def test_an_export_that_fails(tmp_path: Path, script: Any, words: str, error: Any) -> None:
    (tmp_path / "profile" / "PROF_1").mkdir(parents=True)
    with pytest.raises(error, match=words):
        operator_summaries(tmp_path / "profile", real(tmp_path, script))


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="left no PROF_ folder"):
        operator_summaries(tmp_path, find_toolchain("sim"))
