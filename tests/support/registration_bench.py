# SPDX-License-Identifier: Apache-2.0
"""A folder of scans, a model without a device, and one call that registers them."""

from __future__ import annotations

import csv
from pathlib import Path

from om_runner import __main__ as cli
from om_runner.registration import session
from tests.support import fakes


class Bench:
    """A folder of scans, a fake model, and one call to run them."""

    def __init__(self, folder: Path, monkeypatch, batch: int = 1, spoil=lambda outputs: None) -> None:
        self.inputs, self.out = folder / "in", folder / "out"
        self.atlas = fakes.write_scan(folder / "atlas.npz", 0)
        self.model = fakes.offline_model(folder / "model", batch)
        self.runtime = fakes.FakeRuntime(self.model.contract, spoil)
        monkeypatch.setattr(session, "open_model", lambda *args: self.model)

    def run(self, *extra: str) -> int:
        argv = ["--input", str(self.inputs), "--atlas", str(self.atlas), "--out", str(self.out), "--compare", "none"]
        # The arithmetic of the fakes is no warp: no limit would mean anything.
        argv += ["--profile", "none", *extra]
        settings = cli.settings_from(cli.build_parser().parse_args(argv), argv)
        return session.run_session(settings, lambda model, device: self.runtime)

    def table(self, name: str):
        with open(str(self.out / name), encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle, delimiter="\t"))
