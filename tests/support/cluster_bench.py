# SPDX-License-Identifier: Apache-2.0
"""A Dask scheduler and workers as processes of their own, and a cohort that is registered on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import numpy as np

from om_runner import __main__ as cli
from om_runner.cluster import task
from om_runner.cluster.engine import ClusterEngine
from om_runner.registration import session
from tests.support import fakes, worker_preload
from tests.support.registration_bench import Bench
from vxm_convert.artifacts.files import write_json

ROOT = Path(__file__).resolve().parents[2]
PRELOAD = "tests.support.worker_preload"
_CLIENT = """
import logging, sys, pytest
from pathlib import Path
from om_runner.cluster.engine import ClusterEngine
from tests.support import fakes
from tests.support.cluster_bench import ClusterBench
from vxm_convert.cliargs import run_main
if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    # The atlas is there.
    fakes.write_scan = lambda path, *args, **more: path
    bench = ClusterBench(Path(sys.argv[1]), pytest.MonkeyPatch(), 0)
    engine = ClusterEngine(None, sys.argv[2]) if len(sys.argv) > 2 else ClusterEngine([0, 1])
    sys.exit(run_main(lambda: bench.register(engine), "om_runner"))
"""


class Processes:
    """A scheduler and workers with fake devices; `behave` changes what the devices do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "executed"
        self._behaviour = folder / "behaviour.json"
        self.behave()
        self.environment = {
            **os.environ,
            worker_preload.VARIABLE: str(self._behaviour),
            "DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([PRELOAD]),
            # A worker in place of a killed one need not load Dask; runs with --devices start theirs as users' do.
            "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver",
            "PYTHONPATH": str(ROOT),
        }
        self.scheduler: Any = None
        self.address = ""
        self.workers: List[Any] = []

    def behave(self, **wanted: object) -> None:
        """What the devices do from now on."""
        # A device may just be reading it.
        write_json(self._behaviour, {"log": str(self.log), **wanted})

    def executed(self) -> List[List[str]]:
        """Sum of the values, device and process of every execution since the last call."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        self.log.write_text("", encoding="utf-8")
        return [line.split() for line in lines]

    def start_scheduler(self) -> None:
        """On a free port of loopback."""
        place = self.folder / "scheduler.json"
        self.scheduler = self._start("om_runner", "scheduler", "--port", "0", "--scheduler-file", str(place))
        while not place.is_file() or not place.read_text(encoding="utf-8").endswith("}"):
            assert self.scheduler.poll() is None
            time.sleep(0.02)
        self.address = json.loads(place.read_text(encoding="utf-8"))["address"]

    def start_worker(self, device: int) -> None:
        """``om_runner worker``."""
        words = ["worker", "--scheduler", self.address, "--device", str(device), "--slots", "2"]
        self.workers.append(self._start("om_runner", *words))

    def said(self) -> str:
        """What scheduler and workers have written to their terminals."""
        return (self.folder / "output.txt").read_text(encoding="utf-8")

    def _start(self, module: str, *words: str) -> Any:
        with open(str(self.folder / "output.txt"), "ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", module, *words],
                env=self.environment,
                cwd=str(ROOT),
                stdout=output,
                stderr=output,
            )

    def close(self) -> None:
        """End all of them."""
        for process in [*self.workers, self.scheduler]:
            if process is not None:
                process.terminate()
        for process in [*self.workers, self.scheduler]:
            if process is not None:
                process.wait(30)


class ClusterBench(Bench):
    """A cohort that is registered by an engine of several devices; `one_device` registers it in this process."""

    def __init__(self, folder: Path, monkeypatch: Any, scans: int) -> None:
        super().__init__(folder, monkeypatch)
        monkeypatch.setattr(task, "open_model", worker_preload.open_model)
        self.sums: Dict[str, float] = {}
        for seed in range(1, scans + 1):
            self.add(f"s{seed:02d}", seed)

    def add(self, name: str, seed: int) -> None:
        """One scan more."""
        fakes.write_scan(self.inputs / f"{name}.npz", seed)
        image = fakes.brain(seed)[0].astype(np.float32) / np.float32(255)
        self.sums[name] = float(image.sum(dtype="float64"))

    def register(self, engine: ClusterEngine, *extra: str, out: str = "out", compare: str = "none") -> int:
        """Register with an engine."""
        argv = ["--input", str(self.inputs), "--atlas", str(self.atlas), "--out", str(self.out.with_name(out))]
        argv += [
            "--model",
            str(self.model.om_path),
            "--compare",
            compare,
            "--profile",
            "none",
            "--threads",
            "2",
            *extra,
        ]
        settings = cli.settings_from(cli.build_parser().parse_args(argv), argv)
        return session.run_session(settings, engine=engine)

    def volumes(self, out: str = "out") -> Dict[str, bytes]:
        """Bytes of all images of results."""
        folder = self.out.with_name(out)
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.nii.gz"))}


def started_client(bench: ClusterBench, *scheduler: str) -> Any:
    """A run over the cohort of a bench in a process of its own: over a running cluster, or over two devices."""
    return subprocess.Popen(
        [sys.executable, "-c", _CLIENT, str(bench.out.parent), *scheduler],
        env={**os.environ, "DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([PRELOAD]), "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        universal_newlines=True,
        cwd=str(ROOT),
    )
