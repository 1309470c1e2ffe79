# SPDX-License-Identifier: Apache-2.0
"""The kill bench over trials that are not made: it goes on where it stopped, and its last line has the figures."""

from __future__ import annotations

import pytest

from scripts import kill_bench
from scripts.benchmark.kills import KillTrial

GOOD = KillTrial(7, 9, 6, 0, 0, 0, 1.5, [])
BAD = GOOD._replace(once=5, left=2, broken=1, other=3, problems=["left behind: a, b"])


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Calls the bench; `made` has the victims of its trials, `ends` what they end with."""
    monkeypatch.setattr(kill_bench, "small_model", lambda out: None)
    monkeypatch.setattr(kill_bench, "phantoms", lambda folder, scans: folder)
    monkeypatch.setattr(kill_bench, "run_stage", lambda words: None)
    monkeypatch.setattr(kill_bench.os, "environ", {})

    class Trials:
        def __init__(self, *args):
            self.made, self.ends = made, ends

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def run(self, chance, victim, shards, killing):
            end = self.ends.pop(0)
            if end is None:
                raise KeyboardInterrupt
            self.made.append((victim, shards, killing, round(chance.random(), 3)))
            return end

    made, ends = [], []
    monkeypatch.setattr(kill_bench, "Trials", Trials)

    def call(*wanted, more=()):
        made.clear()
        ends[:] = wanted
        words = [
            "--out",
            str(tmp_path / "kills"),
            "--moments",
            "3",
            "--scans",
            "6",
            "--victims",
            "worker,client",
            *more,
        ]
        return kill_bench.main(words), list(made)

    return call


def test_it_goes_on_where_it_stopped_and_sums_up(bench, capsys):
    code, first = bench(GOOD, GOOD, None)
    assert code == 130 and [made[:3] for made in first] == [("worker", 3, True), ("client", 3, True)]
    code, second = bench(GOOD, GOOD)
    assert code == 0 and [made[:3] for made in second] == [("worker", 3, True), ("together", 20, False)]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(
        "3 kills and 1 start of many shards: 4 of 4 passed; 24 of 24 subjects registered to the end exactly"
    )
    assert "; 0 files left over; verify: 0 broken; other bytes than undisturbed: 0; 6 s" in last
    code, third = bench()
    assert code == 0 and third == [], "nothing is left to do"
    code, again = bench(GOOD, GOOD, GOOD, GOOD, more=["--fresh"])
    assert code == 0 and again[:2] == first, "the same seeds"


def test_what_did_not_pass_is_counted_and_ends_with_3(bench, capsys):
    code, _ = bench(GOOD, BAD, GOOD, more=["--shards", "0"])
    assert code == 3
    said = capsys.readouterr().out.splitlines()
    assert "seed 2: client at scan 7, 9 finished before the rerun, 1.5 s: left behind: a, b" in said[1]
    assert said[-1].startswith("3 kills and 0 start of many shards: 2 of 3 passed; 17 of 18 subjects")
    assert "; 2 files left over; verify: 1 broken; other bytes than undisturbed: 3; " in said[-1]
