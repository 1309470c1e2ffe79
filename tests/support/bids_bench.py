# SPDX-License-Identifier: Apache-2.0
"""A small BIDS dataset, and one call to register it over a fake device."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import nibabel as nib
import numpy as np
import pytest

from om_runner import __main__ as cli
from om_runner.registration import session
from tests.support import fakes
from vxm_convert.scans.network_grid import network_affine

_REGISTER = session.run_session


class Bids:
    """A dataset folder, a fake model, and runs over them.

    The dataset has two participants; the second has two sessions, one of them with two runs. The first has a
    segmentation.
    """

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        self.folder = folder
        self.raw, self.out = folder / "my data set", folder / "out"
        self.raw.mkdir()
        self.describe()
        self.atlas = fakes.write_scan(folder / "atlas_v2.npz", 0)
        self.model = fakes.offline_model(folder / "model")
        self.runtime = fakes.FakeRuntime(self.model.contract)
        monkeypatch.setattr(session, "open_model", lambda *args: self.model)
        monkeypatch.setattr(
            session, "run_session", lambda settings: _REGISTER(settings, lambda model, device: self.runtime)
        )
        for number, name in enumerate(
            ("sub-01_T1w", "sub-02_ses-a_T1w", "sub-02_ses-b_run-1_T1w", "sub-02_ses-b_run-2_T1w"), start=1
        ):
            self.scan(name, number)
        self.seg("derivatives/fs/sub-01/anat/sub-01_desc-aseg_dseg.nii.gz", 1)
        self.write("participants.tsv", "participant_id\tage\tsex\nsub-01\t34\tF\nsub-02\t61\tM\n")
        self.write(
            "participants.json",
            json.dumps({"age": {"Description": "Age", "Units": "year"}, "sex": {"Description": "Sex"}}),
        )

    def describe(self, **entries: Any) -> None:
        data = {
            "Name": "Nuts & bolts",
            "BIDSVersion": "1.9.0",
            "Authors": ["A. One", "B. Two"],
            "License": "CC0",
            **entries,
        }
        self.write("dataset_description.json", json.dumps(data))

    def scan(self, stem: str, seed: int, **sidecar: Any) -> Path:
        """An image in its folder by name."""
        words = stem.split("_")
        folder = self.raw.joinpath(*[word for word in words if word.startswith(("sub-", "ses-"))], "anat")
        path = _save(folder / f"{stem}.nii.gz", fakes.brain(seed)[0])
        if sidecar:
            (folder / f"{stem}.json").write_text(json.dumps(sidecar), encoding="utf-8")
        return path

    def seg(self, name: str, seed: int) -> Path:
        return _save(self.raw / name, fakes.brain(seed)[1].astype(np.int16))

    def write(self, name: str, text: str) -> Path:
        path = self.raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8"))
        return path

    def run(self, *extra: str) -> int:
        """``--bids`` with what is needed besides; an --out or --input in `extra` wins."""
        return self.main("--input", str(self.raw), "--out", str(self.out), "--bids", *self.usual(), *extra)

    def app(self, *extra: str, level: str = "participant") -> int:
        return self.main(str(self.raw), str(self.out), level, *(self.usual() if level == "participant" else ()), *extra)

    def usual(self) -> List[str]:
        # The arithmetic of the fakes is no warp: no limit would mean anything.
        return ["--atlas", str(self.atlas), "--compare", "none", "--profile", "none"]

    @staticmethod
    def main(*argv: str) -> int:
        return cli.main(list(argv))

    def names(self) -> List[str]:
        """What BIDS sees: without hidden files, records, hashes and reports."""
        files = sorted(p.relative_to(self.out).as_posix() for p in self.out.rglob("*") if p.is_file())
        return [
            f
            for f in files
            if not f.startswith(".om_runner") and "/provenance/" not in f and not f.endswith(".nii.gz.json")
        ]

    def json(self, name: str) -> Dict[str, Any]:
        return json.loads((self.out / name).read_text(encoding="utf-8"))

    def table(self, name: str) -> List[Dict[str, str]]:
        with open(str(self.out / name), encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))


def _save(path: Path, data: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, network_affine(data.shape))
    image.header.set_xyzt_units("mm")
    nib.save(image, str(path))
    return path


def validator_errors(folder: Path) -> List[Dict[str, Any]]:
    """What bids-validator objects to; skips the test where it is not installed (Python 3.7) or does not run."""
    beside = Path(sys.executable).with_name("bids-validator-deno")
    validator = str(beside) if beside.is_file() else shutil.which("bids-validator-deno")
    if validator is None:
        pytest.skip("bids-validator-deno is not installed (pip install bids-validator-deno)")
    done = subprocess.run([validator, str(folder), "--format", "json"], capture_output=True)
    try:
        issues = json.loads(done.stdout.decode("utf-8"))["issues"]["issues"]
    except ValueError:
        pytest.skip(f"bids-validator-deno does not run here: {done.stderr.decode('utf-8', 'replace')[:200]}")
    return [issue for issue in issues if issue["severity"] == "error"]
