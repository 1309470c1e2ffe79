# SPDX-License-Identifier: Apache-2.0
"""The audit over runtimes that are wrong in one known way each: exactly the checks that ask for it must see it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest

import om_runner.audit.run as session
from om_runner.audit.differences import measure, same_bits
from om_runner.audit.plan import FILLER, checks_of, in_batches
from om_runner.audit.run import BEYOND, EQUAL, WITHIN, AuditSettings, check_same_network, run_audit
from tests.support.fakes import FakeRuntime, offline_model, write_scan
from vxm_convert.artifacts.names import SUMS_NAME
from vxm_convert.artifacts.sha256sums import read_manifest
from vxm_convert.errors import ArtifactError, ContractError, PrecisionError

Outputs = Dict[str, np.ndarray]
SMALL, LARGE = 1e-4, 0.5


class Bench:
    """Two models of one network, scans, and a way to spoil what the device gives."""

    def __init__(self, folder: Path, monkeypatch: Any, batch: int, scans: int) -> None:
        self.folder = folder
        for number in range(scans):
            write_scan(folder / "scans" / f"sub-{number}.npz", number + 1)
        write_scan(folder / "atlas.npz", 0)
        self.models = {"own.om": offline_model(folder / "own", batch), "other.om": offline_model(folder / "other", 1)}
        monkeypatch.setattr(session, "open_model", lambda path, contract, toolchain: self.models[path.name])
        self.runtimes: List[FakeRuntime] = []

    def run(
        self, spoil: Callable[[Outputs, int, int], None] = lambda outputs, run, load: None, **settings: Any
    ) -> Dict[str, Any]:
        """The report; `spoil(outputs, number of the run since loading, number of the load)` changes outputs in
        place.
        """
        del self.runtimes[:]

        def open_fake(model: Any, device: int) -> FakeRuntime:
            load = len(self.runtimes)
            made = FakeRuntime(model.contract)
            made.spoil = lambda outputs: spoil(outputs, len(made.fed) - 1, load)
            self.runtimes.append(made)
            return made

        @contextmanager
        def started(model: Any):
            yield

        given = dict(
            input=self.folder / "scans",
            atlas=self.folder / "atlas.npz",
            model=Path("own.om"),
            contract=None,
            other_model=None,
            out=self.folder / "out",
            profile="research",
            limit=None,
            toolchain=None,
            device=0,
        )
        self.text, self.beyond = run_audit(AuditSettings(**{**given, **settings}), open_fake, started)
        return json.loads((self.folder / "out" / "audit.json").read_text(encoding="utf-8"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: Any) -> Bench:
    """Batch 3, four scans: a last batch that is filled up."""
    return Bench(tmp_path, monkeypatch, 3, 4)


def verdicts(report: Dict[str, Any]) -> Dict[str, str]:
    return {check["name"]: check["verdict"] for check in report["checks"]}


def test_an_exact_device_is_bit_equal_in_every_check(bench: Bench) -> None:
    report = bench.run(other_model=Path("other.om"))
    names = ["repeat", "order", "place", "neighbours", "padding", "reload", "other model"]
    assert verdicts(report) == {name: EQUAL for name in names} and list(verdicts(report)) == names
    assert (
        report["verdict"] == EQUAL
        and bench.beyond == 0
        and report["n_samples"] == 4
        and report["kind"] == "determinism"
    )
    assert all(check["compared"] == check["equal"] > 0 and check["worst"] is None for check in report["checks"])
    assert len(bench.runtimes) == 3, "the model, the model loaded anew, the other model"
    assert read_manifest(bench.folder / "out" / SUMS_NAME).keys() == {"audit.json"}
    assert sorted(p.name for p in (bench.folder / "out").iterdir()) == [SUMS_NAME, "audit.json"]
    assert len({row["flow_sha256"] for row in report["results"]}) == 4
    assert "4 scans" in bench.text and "SIMULATED" in bench.text


def test_every_scan_was_at_every_place_and_beside_the_fixed_image(bench: Bench) -> None:
    bench.run()
    first = bench.runtimes[0]
    places = {at: set() for at in range(3)}
    for fed in first.fed:
        for at in range(3):
            places[at].add(fed["moving"][at].tobytes())
    scans = set.intersection(*places.values())
    assert len(scans) == 4
    fixed = first.fed[0]["fixed"][0]
    beside = [
        fed for fed in first.fed if np.array_equal(fed["moving"][1], fixed) and np.array_equal(fed["moving"][2], fixed)
    ]
    assert len({fed["moving"][0].tobytes() for fed in beside}) == 4


def at_place_one(outputs: Outputs, run: int, load: int) -> None:
    outputs["flow"][1] += np.float32(SMALL)


def every_other_run(outputs: Outputs, run: int, load: int) -> None:
    outputs["moved"][...] += np.float32(SMALL * (run % 2))


def after_loading(outputs: Outputs, run: int, load: int) -> None:
    outputs["flow"][...] += np.float32(SMALL * load)


def by_neighbours(outputs: Outputs, run: int, load: int) -> None:
    outputs["flow"][...] += np.float32(SMALL) * np.float32(outputs["moved"].mean())


@pytest.mark.parametrize(
    "spoil, at_least, never",
    [
        (at_place_one, {"place"}, {"repeat", "reload"}),
        (every_other_run, {"repeat"}, set()),
        (after_loading, {"reload"}, {"repeat", "order", "place", "neighbours", "padding"}),
        (by_neighbours, {"neighbours", "padding"}, {"repeat", "reload", "place"}),
    ],
)
def test_each_fault_is_seen_by_the_checks_that_ask_for_it(bench: Bench, spoil: Any, at_least: set, never: set) -> None:
    report = bench.run(spoil)
    found = {name for name, verdict in verdicts(report).items() if verdict != EQUAL}
    assert at_least <= found and not found & never, found
    assert set(verdicts(report).values()) <= {EQUAL, WITHIN} and report["verdict"] == WITHIN and bench.beyond == 0


def test_a_difference_beyond_the_profile_is_counted_and_its_figure_named(bench: Bench) -> None:
    def far(outputs: Outputs, run: int, load: int) -> None:
        outputs["flow"][...] += np.float32(LARGE * load)

    report = bench.run(far)
    assert bench.beyond == 1 and report["verdict"] == BEYOND
    check = next(check for check in report["checks"] if check["name"] == "reload")
    assert check["verdict"] == BEYOND and any("epe_voxel.max" in text for text in check["failures"])
    assert check["worst"]["epe_voxel"]["max"] == pytest.approx(LARGE * 3**0.5, rel=1e-4)
    assert "same model, same scan" in check["explanation"] and check["explanation"] in bench.text


def test_nan_that_appears_in_a_later_run_is_beyond_every_profile(bench: Bench) -> None:
    def poisoned(outputs: Outputs, run: int, load: int) -> None:
        outputs["moved"][0, 3, 3, 3, 0] += np.float32(np.nan if load else 0)

    report = bench.run(poisoned, profile="none")
    assert verdicts(report)["reload"] == BEYOND and bench.beyond == 1


def test_nan_from_the_start_stops_the_audit(bench: Bench) -> None:
    def broken(outputs: Outputs, run: int, load: int) -> None:
        outputs["flow"][0, 1, 1, 1] = np.inf

    with pytest.raises(PrecisionError, match="sub-0.*3 NaN or infinite"):
        bench.run(broken)
    assert not (bench.folder / "out" / "audit.json").exists()


def test_another_batch_whose_roundings_flip_is_measured_and_explained(bench: Bench) -> None:
    """Both models round to fp16; one value in a thousand of the other's goes to the neighbouring fp16 number."""

    def rounded(outputs: Outputs, run: int, load: int) -> None:
        outputs["flow"][...] = outputs["flow"].astype(np.float16)
        if load == 2:
            flat = outputs["flow"].reshape(-1)
            flat[::1000] = np.nextafter(flat[::1000].astype(np.float16), np.float16(9))

    report = bench.run(rounded, other_model=Path("other.om"))
    check = report["checks"][-1]
    assert check["name"] == "other model" and check["verdict"] == WITHIN and check["equal"] == 0
    assert {c["verdict"] for c in report["checks"][:-1]} == {EQUAL}
    difference = check["worst"]["difference"]
    assert difference["flow_is_fp16"] is True and difference["fp16_steps"] == 1.0
    assert difference["flow_values"] == -(-difference["flow_size"] // 1000) and difference["moved_values"] == 0
    assert "by at most 1 fp16 steps" in check["explanation"] and "may round to the other one" in check["explanation"]


@pytest.mark.parametrize("change", ["checkpoint", "precision"])
def test_another_network_is_refused(bench: Bench, change: str) -> None:
    from dataclasses import replace

    from vxm_convert.model.precision import PLANS

    other = bench.models["other.om"]
    made = replace(
        other.contract,
        **{
            "checkpoint": {"hashes": {**other.contract.hashes, "checkpoint": "f" * 64}},
            "precision": {"precision": PLANS["fast"]},
        }[change],
    )
    with pytest.raises(ContractError, match=change):
        check_same_network(bench.models["own.om"], replace(other, contract=made))


def test_wrong_input(bench: Bench) -> None:
    with pytest.raises(ArtifactError, match="reserch.*research"):
        bench.run(profile="reserch")
    assert not bench.runtimes


def test_one_scan_and_batch_one_leave_out_what_cannot_be_asked(tmp_path: Path, monkeypatch: Any) -> None:
    bench = Bench(tmp_path, monkeypatch, 1, 1)
    assert verdicts(bench.run()) == {name: EQUAL for name in ("repeat", "order", "reload")}


def test_the_plan() -> None:
    assert in_batches(range(5), 2) == ((0, 1), (2, 3), (4, 4))
    plan = {check.name: check for check in checks_of(3, 2)}
    assert plan["order"].batches == ((2, 1), (0, 0))
    assert plan["place"].batches == ((1, 0), (2, 2))
    assert plan["neighbours"].batches == ((0, FILLER), (1, FILLER), (2, FILLER))
    assert plan["padding"].batches == ((0, 0),) and plan["reload"].reload
    assert [check.name for check in checks_of(3, 1)] == ["repeat", "order", "reload"]
    assert {check.name: check for check in checks_of(2, 4)}["padding"].batches == ((0, 0, 0, 0), (0, 1, 1, 1))


def test_bits_not_values_are_compared() -> None:
    zero = np.zeros((2, 2, 2), np.float32)
    assert same_bits(zero * np.nan, zero * np.nan) and not same_bits(zero, -zero)
    flow = np.zeros((2, 2, 2, 3), np.float32)
    found = measure(-zero, flow, zero, flow)
    assert (found.moved_values, found.flow_values, found.fp16_steps) == (8, 0, None)
    assert "the flow is bit-equal" in found.explain(True)
