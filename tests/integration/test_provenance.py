# SPDX-License-Identifier: Apache-2.0
"""One flipped bit in any file of a chain, from checkpoint to report, is caught, and the file is named as the first
broken link.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Dict, List, NamedTuple

import pytest

from tests.support.stages import run_stage
from vxm_convert.__main__ import main
from vxm_convert.artifacts.files import sidecar_path
from vxm_convert.artifacts.names import SUMS_NAME, position_of, step_of
from vxm_convert.artifacts.sha256sums import read_manifest
from vxm_convert.synthetic.heads import ATLAS_FILE, SCANS_FOLDER, PhantomSettings, write_cohort

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tf

FOLDERS = ("train", "vxm", "out")


class Chain(NamedTuple):
    """Folders of one chain, and every file that counts."""

    root: Path
    files: List[Path]

    def verify(self) -> int:
        return main(["verify"] + [str(self.root / name) for name in FOLDERS])


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """One training step, an export with everything, two scans registered and compared."""
    root = tmp_path_factory.mktemp("chain")
    write_cohort(root / "data", PhantomSettings((16, 16, 16), 2))
    scans, atlas = root / "data" / SCANS_FOLDER, root / "data" / ATLAS_FILE
    stages = [
        [
            "train",
            "--data",
            scans,
            "--atlas",
            atlas,
            "--out",
            root / "train",
            "--epochs",
            "1",
            "--steps-per-epoch",
            "1",
        ],
        ["export", "--checkpoint", root / "train", "--shape", "16,16,16", "--toolchain", "sim", "--out", root / "vxm"],
        [
            "om_runner",
            "--input",
            scans,
            "--atlas",
            atlas,
            "--model",
            root / "vxm" / "vxm.om",
            "--out",
            root / "out",
            "--compare",
            "all",
            "--profile",
            "smoke",
        ],
    ]
    for stage in stages:
        done = run_stage(root, *stage)
        assert done.returncode in (0, 3), done.stderr
    inputs = [atlas] + sorted(scans.iterdir())
    return Chain(root, inputs + sorted(p for name in FOLDERS for p in (root / name).rglob("*") if p.is_file()))


def flip(path: Path, share: float) -> None:
    """One bit of the byte at that share of the file."""
    data = bytearray(path.read_bytes())
    data[min(int(share * len(data)), len(data) - 1)] ^= 1
    path.write_bytes(bytes(data))


def test_the_chain_is_whole_and_has_every_step(chain: Chain, capsys: pytest.CaptureFixture) -> None:
    assert chain.verify() == 0
    said = capsys.readouterr()
    assert ", 0 broken" in said.out.splitlines()[-1] and said.err == "" and "note:" not in said.out
    assert "UNPROVEN" not in said.out.upper()
    found = {step_of(path) for path in chain.files}
    assert found >= {
        "checkpoint",
        "frozen graph",
        "preflight",
        "parity",
        "ONNX",
        "ATC",
        "offline model",
        "contract",
        "output",
        "run",
        "report",
    }
    assert "other" not in found, [path.name for path in chain.files if step_of(path) == "other"]
    steps = [line.split(None, 1)[1][:13].strip() for line in said.out.splitlines() if line.startswith("ok ")]
    assert [position_of(step) for step in steps] == sorted(position_of(step) for step in steps)
    for sums in (chain.root / name / SUMS_NAME for name in FOLDERS):
        below = {p.relative_to(sums.parent).as_posix() for p in sums.parent.rglob("*") if p.is_file()}
        assert set(read_manifest(sums)) == below - {SUMS_NAME}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_one_flipped_bit_is_caught_and_named_first(chain: Chain, capsys: pytest.CaptureFixture, share: float) -> None:
    """Every file in turn; failures are collected, so that the message shows all gaps at once."""
    missed: Dict[str, str] = {}
    for path in chain.files:
        if not path.stat().st_size:
            continue
        whole = path.read_bytes()
        flip(path, share)
        code = chain.verify()
        path.write_bytes(whole)
        last = capsys.readouterr().out.splitlines()[-1]
        if code != 1 or not last.startswith("first broken link: ") or f": {path}: " not in last:
            missed[str(path.relative_to(chain.root))] = f"exit {code}, {last}"
    assert missed == {}
    assert chain.verify() == 0, "the test restored every file"


def test_a_folder_named_twice_counts_once(chain: Chain, capsys: pytest.CaptureFixture) -> None:
    assert chain.verify() == 0
    once = capsys.readouterr().out.splitlines()
    assert main(["verify", str(chain.root), str(chain.root / "vxm"), str(chain.root / "out" / ".." / "train")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == once[-1]


def test_a_damaged_sidecar_is_named_itself_and_not_its_file(chain: Chain, capsys: pytest.CaptureFixture) -> None:
    """Its recorded hash is changed: the model is as it was, and another record proves that."""
    om = chain.root / "vxm" / "vxm.om"
    side = sidecar_path(om)
    whole = side.read_text(encoding="utf-8")
    at = whole.index('"sha256": "') + len('"sha256": "')
    side.write_text(whole[:at] + ("0" if whole[at] != "0" else "1") + whole[at + 1 :], encoding="utf-8")
    code = chain.verify()
    side.write_text(whole, encoding="utf-8")
    said = capsys.readouterr()
    assert code == 1 and said.err.count("error: ") == 1 and f"{side}: " in said.err


def test_of_two_broken_links_the_earlier_one_is_first(chain: Chain, capsys: pytest.CaptureFixture) -> None:
    late, early = chain.root / "out" / "precision" / "report.html", chain.root / "vxm" / "frozen.pb"
    wholes = {path: path.read_bytes() for path in (late, early)}
    for path in wholes:
        flip(path, 0.5)
    code = chain.verify()
    for path, whole in wholes.items():
        path.write_bytes(whole)
    said = capsys.readouterr()
    assert code == 1 and said.out.splitlines()[-1].startswith(f"first broken link: frozen graph: {early}: ")
    assert str(late) in said.err


def test_a_file_of_the_list_that_is_gone_is_named(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    copy = tmp_path / "vxm"
    shutil.copytree(str(chain.root / "vxm"), str(copy))
    (copy / "atc.log").unlink()
    assert main(["verify", str(copy)]) == 1
    assert (
        capsys.readouterr().out.splitlines()[-1].startswith(f"first broken link: ATC: {copy / 'atc.log'}: is missing")
    )
    (copy / SUMS_NAME).unlink()
    assert main(["verify", str(copy)]) == 0
    assert f"note: {copy}: has no SHA256SUMS" in capsys.readouterr().out


def test_a_later_run_into_the_same_folder_keeps_what_it_did_not_make(chain: Chain, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(str(chain.root / "out"), str(copy))
    data = chain.root / "data"
    done = run_stage(
        tmp_path,
        "om_runner",
        "--input",
        data / SCANS_FOLDER,
        "--atlas",
        data / ATLAS_FILE,
        "--model",
        chain.root / "vxm" / "vxm.om",
        "--out",
        copy,
        "--compare",
        "none",
        "--profile",
        "smoke",
        "--force",
        "--limit",
        "1",
    )
    assert done.returncode == 0, done.stderr
    listed = set(read_manifest(copy / SUMS_NAME))
    assert {"sub-01/flow.nii.gz", "sub-02/flow.nii.gz", "sub-02/flow.nii.gz.json", "run.json"} <= listed
    assert not any(name.startswith("precision/") for name in listed), "the report of the first run is gone"
    assert main(["verify", str(copy)]) == 0
