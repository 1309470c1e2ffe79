# SPDX-License-Identifier: Apache-2.0
"""BIDS participants as processes of their own, all into one derivative at the same time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from om_runner.__main__ import main
from tests.support.bids_bench import Bids, validator_errors
from tests.support.forked import ROOT
from vxm_convert.inspection.verify import first_broken, verify_folders

CHILD = """
import sys
from pathlib import Path
from om_runner import __main__ as cli
from om_runner.registration import session
from tests.support import fakes
model = fakes.offline_model(Path(sys.argv[1]))
session.open_model = lambda *args: model
real = session.run_session
session.run_session = lambda settings: real(settings, lambda model, device: fakes.FakeRuntime(model.contract))
sys.exit(cli.main(sys.argv[2:]))
"""


LABELS = ("01", "02", "03", "04")


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    """A dataset whose four participants were registered at the same time, by four processes."""
    folder = tmp_path_factory.mktemp("bids")
    with pytest.MonkeyPatch.context() as patch:
        made = Bids(folder, patch)
        for number in (3, 4):
            made.scan(f"sub-0{number}_T1w", number)
        words = [sys.executable, "-c", CHILD, str(folder / "model"), str(made.raw), str(made.out), "participant"]
        children = [
            subprocess.Popen(
                [*words, "--participant-label", label, *made.usual()], cwd=str(ROOT), stderr=subprocess.PIPE
            )
            for label in LABELS
        ]
        said = [child.communicate(timeout=200)[1] for child in children]
        assert [child.returncode for child in children] == [0, 0, 0, 0], said
        yield made


def test_four_participants_at_the_same_time_make_one_derivative(bids):
    assert [row["participant_id"] for row in bids.table("participants.tsv")] == [f"sub-{label}" for label in LABELS]
    assert len(bids.table("metrics.tsv")) == 6 and not bids.table("failures.tsv")
    tables = (bids.out / "metrics.tsv").read_bytes()
    assert main(["collect", str(bids.out)]) == 0 and (bids.out / "metrics.tsv").read_bytes() == tables
    assert first_broken(verify_folders([bids.out])) is None
    assert not list(bids.out.rglob(".tmp-*")) and not (bids.out / ".om_runner" / "claims").exists()


def test_the_validator_of_bids_accepts_what_four_processes_made(bids):
    assert validator_errors(bids.out) == []
