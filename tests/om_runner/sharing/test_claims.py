# SPDX-License-Identifier: Apache-2.0
"""Claims and owners: one process per subject, whoever dies; nothing depends on locks or on equal clocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from om_runner.sharing import claims as claims_module
from om_runner.sharing.claims import Claims
from om_runner.sharing.folder import output_folder
from om_runner.sharing.owners import SILENT, Owners
from vxm_convert.artifacts import temporaries
from vxm_convert.artifacts.temporaries import machine, process_is_dead, process_token, temporary_prefix, token_of
from vxm_convert.errors import ArtifactError

ELSEWHERE = "00000000.12.34"


@pytest.fixture
def dead():
    """The token of a process that has just ended."""
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        token = f"{machine()}.{child.pid}.{temporaries._state_of(child.pid)[1]}"
        assert process_is_dead(token) is False
    assert process_is_dead(token) is True
    return token


def claims_in(folder, session="", clock=None) -> Claims:
    owners = Owners(folder) if clock is None else Owners(folder, clock)
    return Claims(owners, session)


def planted(folder, subject, owner, number=1, **more):
    """The claim of another process."""
    (folder / "claims").mkdir(parents=True, exist_ok=True)
    about = {"owner": owner, "host": "cluster7", "pid": 12, "boot": "b", "session": "", **more}
    (folder / "claims" / f"{subject}.{number}").write_text(json.dumps(about), encoding="utf-8")


def left(folder):
    return sorted(path.name for path in (folder / "claims").iterdir())


def test_of_many_at_once_one_gets_it(tmp_path):
    everyone = [claims_in(tmp_path) for _ in range(12)]
    gate, got = threading.Barrier(len(everyone)), []

    def take(claims):
        gate.wait()
        got.extend([subject for subject in "abc" if claims.take(subject) is None])

    threads = [threading.Thread(target=take, args=(claims,)) for claims in everyone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == ["a", "b", "c"]
    for claims in everyone:
        claims.close()
    assert left(tmp_path) == []


def test_a_claim_of_a_living_process_is_left_alone(tmp_path):
    planted(tmp_path, "a", f"{machine()}.{os.getppid()}.{temporaries._state_of(os.getppid())[1]}")
    held = claims_in(tmp_path).take("a")
    assert held is not None and held.by == "process 12 on cluster7"


def test_a_claim_of_a_dead_process_is_taken_over_and_said(tmp_path, dead, caplog):
    planted(tmp_path, "a", dead, session="s")
    planted(tmp_path, "b", dead, session="another")
    claims = claims_in(tmp_path, "s")
    assert claims.take("a") is None and claims.take("b") is None and claims.take("c") is None
    assert "a: taken over from process 12 on cluster7, which is gone" in caplog.text
    assert [claims.deaths(subject) for subject in "abc"] == [1, 0, 0]
    assert claims.holds("a") and left(tmp_path) == ["a.1", "a.2", "b.1", "b.2", "c.1"]
    claims.close()
    assert left(tmp_path) == []


def test_a_process_number_that_is_used_again_is_another_process(tmp_path):
    where, pid, start = process_token().split(".")
    assert process_is_dead(f"{where}.{pid}.{int(start) - 1}") is True and process_is_dead(process_token()) is False


def test_another_machine_is_given_up_when_it_is_silent_by_our_clock(tmp_path):
    now = [0.0]
    claims = claims_in(tmp_path, clock=lambda: now[0])
    (tmp_path / "owners").mkdir()
    owner = tmp_path / "owners" / ELSEWHERE
    owner.write_text('{"host": "cluster7", "pid": 12, "boot": "b"}', encoding="utf-8")
    planted(tmp_path, "a", ELSEWHERE)
    assert claims.take("a") is not None
    for step in range(1, 4):
        # It gives signs of life, by a clock that is far off.
        now[0] += SILENT / 2 + 1
        os.utime(str(owner), (step, step))
        assert claims.take("a") is not None
    now[0] += SILENT + 1
    assert claims.take("a") is None


def test_another_machine_whose_file_is_hours_old_is_gone_at_once(tmp_path):
    owners = Owners(tmp_path)
    owners.join()
    path = tmp_path / "owners" / ELSEWHERE
    path.write_text('{"host": "cluster7", "pid": 12, "boot": "b"}', encoding="utf-8")
    assert owners.is_gone(ELSEWHERE) is None and owners.in_use()
    os.utime(str(path), (1, 1))
    assert owners.is_gone(ELSEWHERE) is True and not owners.in_use()
    owners.leave()


def test_another_machine_that_left_the_folder_holds_nothing(tmp_path):
    planted(tmp_path, "a", ELSEWHERE)
    assert claims_in(tmp_path).take("a") is None


def test_a_machine_that_was_started_again_holds_nothing(tmp_path):
    owners = Owners(tmp_path)
    owners.join()
    about = json.loads((tmp_path / "owners" / owners.token).read_text(encoding="utf-8"))
    (tmp_path / "owners" / ELSEWHERE).write_text(json.dumps({**about, "boot": "earlier"}), encoding="utf-8")
    assert owners.is_gone(ELSEWHERE) is bool(about["boot"]) or owners.is_gone(ELSEWHERE) is None
    owners.leave()
    assert not (tmp_path / "owners" / owners.token).exists()


def test_a_claim_whose_writer_was_killed_before_it_wrote(tmp_path, monkeypatch):
    planted(tmp_path, "a", "x")
    (tmp_path / "claims" / "a.1").write_text("", encoding="utf-8")
    claims = claims_in(tmp_path)
    assert claims.take("a") is not None, "it may just be being written"
    monkeypatch.setattr(claims_module, "_EMPTY", -1.0)
    assert claims.take("a") is None


def test_a_process_that_was_thought_dead_notices(tmp_path):
    first = claims_in(tmp_path)
    assert first.take("a") is None and first.holds("a")
    planted(tmp_path, "a", ELSEWHERE, number=2)
    assert not first.holds("a")


def test_claims_never_follow_links(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine", encoding="utf-8")
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "a.1").symlink_to(victim)
    (tmp_path / "claims" / "b.1").symlink_to(tmp_path / "nowhere")
    claims = claims_in(tmp_path)
    for subject in "ab":
        claims.take(subject)
    claims.close()
    assert victim.read_text(encoding="utf-8") == "mine" and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "name", [".om_runner", ".om_runner/claims", ".om_runner/owners", ".om_runner/failed", ".om_runner/cohort", "qc"]
)
def test_a_link_in_place_of_a_folder_is_refused(tmp_path, name):
    out, target = tmp_path / "out", tmp_path / "target"
    target.mkdir()
    (out / name).parent.mkdir(parents=True)
    (out / name).symlink_to(target)
    with pytest.raises(ArtifactError, match="is a link, and nothing is written through links"):
        with output_folder(out):
            pytest.fail("it was entered")
    assert not list(target.iterdir())


def test_what_the_dead_left_goes_and_what_the_living_have_stays(tmp_path, dead, caplog):
    out = tmp_path / "out"
    places = [out, out / ".om_runner", out / "sub-01" / "anat" / "provenance", out / "a"]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / f".tmp-{dead}-x.json").write_text("", encoding="utf-8")
        (place / f".tmp-{ELSEWHERE}-x.json").write_text("", encoding="utf-8")
    aside = out / f".tmp-{dead}-1234-old"
    (aside / "b").mkdir(parents=True)
    (out / ".om_runner" / "owners").mkdir()
    about = '{"host": "cluster7", "pid": 12, "boot": "b"}'
    for token in (dead, ELSEWHERE):
        (out / ".om_runner" / "owners" / token).write_text(about, encoding="utf-8")
    planted(out / ".om_runner", "a", dead)
    planted(out / ".om_runner", "b", ELSEWHERE)
    with output_folder(out):
        assert "the previous run (process 12 on cluster7) was killed; its finished results are kept" in caplog.text
    assert sorted({path.name for path in out.rglob(".tmp-*")}) == [f".tmp-{ELSEWHERE}-x.json"]
    assert (out / "b").is_dir(), "an earlier result that was moved aside is back"
    assert left(out / ".om_runner") == ["b.1"]
    assert [path.name for path in (out / ".om_runner" / "owners").iterdir()] == [ELSEWHERE]


def test_a_folder_that_stays_empty_goes_again(tmp_path):
    with output_folder(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()


def test_temporary_names_say_whose_they_are():
    assert token_of(temporary_prefix() + "abc-moved.nii.gz") == process_token()
    assert token_of(".tmp-abc") is None and token_of("moved.nii.gz") is None
