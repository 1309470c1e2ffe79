# SPDX-License-Identifier: Apache-2.0
"""Every option of the commands whose work takes long reaches that work: two command lines that differ in one option are
two requests. What a request does is the subject of the tests of each stage.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, List

import numpy as np
import pytest

import export.__main__ as export_command
import export.tune.command as tune_command
import om_runner.__main__ as runner
import train.__main__ as train_command
import train.prepare.run as prepare_run
from export.plans import save_plan
from om_runner.commands import audit, compare_files, device_check, layers
from train.settings import rank_table
from vxm_convert.__main__ import main as tools_main
from vxm_convert.cliargs import add_common_group, set_up_logging
from vxm_convert.model.precision import PLANS, PrecisionPlan

_RUN = "om_runner --input @scans --atlas @atlas.npz"
_PAIRED = "om_runner --pairs @pairs.tsv"
_APP = "om_runner @scans @out participant --atlas @atlas.npz"
_LAYERS = "om_runner layers --input @scans --atlas @atlas.npz --out @out"
_AUDIT = "om_runner audit --input @scans --atlas @atlas.npz"
_EXPORT = "export --checkpoint @w.h5 --out @out"
_TUNE = "export tune --checkpoint @w.h5 --input @scans --atlas @atlas.npz --out @out --shape 16,16,16"
_PREPARE = "train prepare --data @scans"
_TABLE = "train rank-table --hosts 10.0.0.1=@w.h5 --devices 0,1 --out @out"
_WORKER = "om_runner worker --scheduler tcp://127.0.0.1:8786"
_CHECK = "om_runner device-check"
_STARTED = "vxm_convert device-check"
_FILES = "om_runner compare-files --golden @golden --results @results"
_GOLDEN = "export golden --exported @vxm --out @out"
_CHECKED = (
    "--out @elsewhere",
    "--short",
    "--only cube",
    "--rung-seconds 3",
    "--shape 16,16,32",
    "--exported @vxm",
    "--reference-python python3",
    "--device 3",
    "--soc-version Ascend310",
    "--toolchain sim",
    "--compare @check.zip",
)
#: a command line, and what is added to it or stands instead of what it has; the option is the first word of that
LINES = [
    (_RUN, "--input @list"),
    (_PAIRED, "--pairs @other.tsv"),
    (_RUN, "--out @elsewhere"),
    (_RUN, "--atlas @other.npz"),
    (_RUN, "--model @other.om"),
    (_RUN, "--contract @contract.json"),
    (_RUN, "--limit 1"),
    (_RUN, "--force"),
    (_RUN, "--retry-failed"),
    (_RUN, "--dry-run"),
    (_RUN, "--threads 7"),
    (_RUN, "--trace @trace.json"),
    (_RUN, "--affine auto"),
    (_RUN, "--orientation RAS"),
    (_RUN, "--intensity match"),
    (_RUN, "--outputs moved,warp"),
    (_RUN, "--warp-format fsl"),
    (_RUN, "--space native"),
    (_RUN, "--edge clamp"),
    (_RUN, "--label-interpolation label-safe"),
    (_RUN, "--compress none"),
    (_RUN, "--bids"),
    (_RUN, "--participant-label 01"),
    (_RUN, "--session-label 01"),
    (_RUN, "--bids-filter suffix=T2w"),
    (_RUN, "--atlas-label mine"),
    (_RUN, "--compare all"),
    (_RUN, "--profile smoke"),
    (_RUN, "--labels common24"),
    (_RUN, "--reference-python python3"),
    (_RUN, "--reference-cache @cache"),
    (_RUN, "--toolchain sim"),
    (_RUN, "--device 3"),
    (_APP, "--participant_label 02"),
    (_APP, "--session_label 02"),
    (_LAYERS, "--input @list"),
    (_LAYERS, "--atlas @other.npz"),
    (_LAYERS, "--model @other.om"),
    (_LAYERS, "--contract @contract.json"),
    (_LAYERS, "--out @elsewhere"),
    (_LAYERS, "--dump @dump"),
    (_LAYERS, "--single"),
    (f"{_LAYERS} --single", "--no-effect"),
    (_LAYERS, "--layer-limit 0.5"),
    (f"{_LAYERS} --single", "--output-limit 0.5"),
    (_LAYERS, "--limit-gib 1"),
    (_LAYERS, "--reference-python python3"),
    (_LAYERS, "--toolchain sim"),
    (_LAYERS, "--device 3"),
    (_AUDIT, "--input @list"),
    (_AUDIT, "--atlas @other.npz"),
    (_AUDIT, "--model @other.om"),
    (_AUDIT, "--contract @contract.json"),
    (_AUDIT, "--other-model @third.om"),
    (_AUDIT, "--out @elsewhere"),
    (_AUDIT, "--limit 3"),
    (_AUDIT, "--profile smoke"),
    (_AUDIT, "--toolchain sim"),
    (_AUDIT, "--device 3"),
    (_EXPORT, "--checkpoint @v.h5"),
    (_EXPORT, "--out @elsewhere"),
    (_EXPORT, "--h5-indexing xy"),
    (_EXPORT, "--skip-onnx"),
    (_EXPORT, "--variant vm1"),
    (_EXPORT, "--shape 16,16,32"),
    (_EXPORT, "--batch 2"),
    (_EXPORT, "--soc-version Ascend310"),
    (_EXPORT, "--preflight report"),
    (_EXPORT, "--precision fast"),
    (_EXPORT, "--plan @plan.json"),
    (_EXPORT, "--toolchain sim"),
    (_EXPORT, "--atc-flag op_select_implmode=high_precision"),
    (_EXPORT, "--tune-kernels"),
    (_EXPORT, "--check-determinism"),
    (_TABLE, "--hosts 10.0.0.2=@w.h5"),
    (_TABLE, "--devices 0-3"),
    (_TABLE, "--out @elsewhere"),
    (_TUNE, "--checkpoint @v.h5"),
    (_TUNE, "--input @list"),
    (_TUNE, "--atlas @other.npz"),
    (_TUNE, "--out @elsewhere"),
    (_TUNE, "--h5-indexing xy"),
    (_TUNE, "--variant vm1"),
    (_TUNE, "--shape 16,16,32"),
    (_TUNE, "--profile smoke"),
    (_TUNE, "--start balanced"),
    (_TUNE, "--batch 2"),
    (_TUNE, "--soc-version Ascend310"),
    (_TUNE, "--device 3"),
    (_TUNE, "--reference-python python3"),
    (_TUNE, "--toolchain sim"),
    (_RUN, "--profile-ops"),
    (_RUN, "--shard 1/2"),
    (_RUN, "--device-timeout 9"),
    (_RUN, "--devices 0,1"),
    (_RUN, "--scheduler tcp://127.0.0.1:8786"),
    ("om_runner scheduler", "--listen 127.0.0.1"),
    ("om_runner scheduler", "--port 9999"),
    ("om_runner scheduler", "--scheduler-file @scheduler.json"),
    (_WORKER, "--scheduler tcp://127.0.0.1:8787"),
    (_WORKER, "--device 3"),
    (_WORKER, "--listen 127.0.0.1"),
    (_WORKER, "--slots 5"),
    *[(_CHECK, more) for more in _CHECKED],
    *[(_STARTED, more) for more in _CHECKED],
    (_FILES, "--golden @other"),
    (_FILES, "--results @other"),
    (_FILES, "--out @elsewhere"),
    (_FILES, "--profile smoke"),
    (_FILES, "--device-was real"),
    (_GOLDEN, "--exported @other"),
    (_GOLDEN, "--out @elsewhere"),
    (_GOLDEN, "--executions 5"),
    (_GOLDEN, "--seed 5"),
    (_PREPARE, "--data @list"),
    (_PREPARE, "--out @elsewhere"),
    (_PREPARE, "--reference a"),
    (_PREPARE, "--format nii.gz"),
    (_PREPARE, "--array vol_data"),
    (_PREPARE, "--transform rigid"),
    (_PREPARE, "--tool simpleitk"),
    (_PREPARE, "--shape 16,16,32"),
    (_PREPARE, "--intensity convention"),
    (_PREPARE, "--orientation RAS"),
    (_PREPARE, "--labels common24"),
    (_PREPARE, "--jobs 7"),
    (_PREPARE, "--force"),
    (_PREPARE, "--dry-run"),
]


@dataclass
class Started:
    """Words or values that another program or function gets."""

    words: List[Any]


@dataclass
class Archive:
    """What is read instead of climbing."""

    path: Path


class Requests(List[Any]):
    """What the work of a command was asked to do."""

    def take(self, *request: Any, result: Any = 0) -> Any:
        self.append([replace(part, command=[]) if hasattr(part, "command") else part for part in request])
        return result


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, value in (("atlas", 1), ("other", 2), ("scans/a", 3), ("list/b", 4)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.savez(str(tmp_path / f"{name}.npz"), vol=np.full((16, 16, 16), value, np.uint8))
    for name in ("w.h5", "v.h5"):
        (tmp_path / name).write_bytes(name.encode())
    save_plan(tmp_path / "plan.json", PrecisionPlan("mine", "force_fp16", ("a",)))
    assert PLANS["fast"].name != "mine"
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Requests:
    found = Requests()
    monkeypatch.setattr("om_runner.registration.session.run_session", found.take)
    monkeypatch.setattr(runner.cluster, "run_on_cluster", lambda *request: found.take(Started(list(request))))
    for name in ("schedule", "serve"):
        monkeypatch.setattr(f"om_runner.cluster.serve.{name}", lambda *request: found.take(Started(list(request))))
    monkeypatch.setattr(layers, "run_layers", lambda request: found.take(request, result=""))
    monkeypatch.setattr(audit, "run_audit", lambda request: found.take(request, result=("", 0)))
    monkeypatch.setattr(
        export_command,
        "export_model",
        lambda *request, **more: found.take(Started([*request, sorted(more.items(), key=str)])),
    )
    monkeypatch.setattr(export_command, "_print_summary", lambda *about: None)
    monkeypatch.setattr(prepare_run, "run", found.take)
    monkeypatch.setattr(device_check, "run_check", lambda request: found.take(request, result=("", 0)))
    monkeypatch.setattr(device_check, "lines_of", lambda archive: found.take(Archive(archive), result=[]))
    monkeypatch.setattr("vxm_convert.device_check.comparison.lines_of", device_check.lines_of)
    monkeypatch.setattr(compare_files, "compare_files", lambda request: found.take(request, result=[]))
    monkeypatch.setattr("vxm_convert.__main__.subprocess.call", lambda words: found.take(Started(words)))

    monkeypatch.setattr(rank_table, "rank_table", lambda *request: found.take(Started(list(request)), result={}))
    monkeypatch.setattr(rank_table, "write_json", lambda *request: found.take(Started(list(request))))
    monkeypatch.setattr(rank_table, "environment_lines", lambda table, path: [])

    def golden(*request: Any) -> Any:
        return found.take(Started(list(request)), result=SimpleNamespace(stems=(), subjects=()))

    monkeypatch.setattr("export.golden.write_golden", golden)

    def freeze(contract: Any, checkpoint: Any, indexing: str, pb: Path) -> None:
        found.take(contract, checkpoint, indexing)
        pb.write_bytes(b"graph")

    monkeypatch.setattr(tune_command, "_freeze", freeze)
    monkeypatch.setattr(
        tune_command, "_run", lambda args: found.take(*tune_command._prepare(args, tune_command._scans(args)))
    )
    monkeypatch.setattr(tune_command, "find_toolchain", _Tools)
    return found


class _Tools:
    simulated, version = False, "9.9"

    def __init__(self, choice: Any) -> None:
        self.choice, self.root = choice, Path("/")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Tools) and other.choice == self.choice

    def describe(self) -> Dict[str, Any]:
        return {"kind": str(self.choice), "version": self.version}


def run(line: str, files: Path) -> None:
    module, *words = line.replace("@", f"{files}/").split()
    main = {
        "om_runner": runner.main,
        "export": export_command.main,
        "train": train_command.main,
        "vxm_convert": tools_main,
    }[module]
    assert main(words) == 0, line


def instead(line: str, more: str) -> str:
    """The line with what is added, without another value of the same option."""
    words, option = line.split(), more.split()[0]
    if option in words:
        at = words.index(option)
        del words[at : at + 2]
    return " ".join(words + more.split())


@pytest.mark.parametrize(
    "line, more", LINES, ids=[f"{x[0].split(' -')[0].split(' @')[0]} {x[1].split()[0]}" for x in LINES]
)
def test_an_option_is_part_of_the_request(line: str, more: str, files: Path, asked: Requests) -> None:
    run(line, files)
    count = len(asked)
    run(instead(line, more), files)
    assert count and len(asked) == 2 * count and asked[:count] != asked[count:]
    assert any(is_dataclass(part) for part in asked[0])


#: a command line in which the last option has no effect
REFUSED = [
    f"{_RUN} --outputs moved,seg --warp-format fsl",
    f"{_RUN} --outputs qc --compress 3",
    f"{_RUN} --compare none --reference-python python3",
    f"{_RUN} --compare none --reference-cache @cache",
    f"{_RUN} --compare 0 --reference-cache @cache",
    f"{_PAIRED} --input @scans",
    f"{_PAIRED} --atlas @atlas.npz",
    f"{_PAIRED} --participant-label 01",
    "om_runner @scans @out group --atlas @atlas.npz",
    "om_runner @scans @out group --participant-label 01",
    f"{_LAYERS} --no-effect",
    f"{_LAYERS} --output-limit 3",
    f"{_LAYERS} --single --no-effect --output-limit 3",
    f"{_LAYERS} --dump @dump --device 3",
    f"{_EXPORT} --plan @plan.json --precision fast",
    "export preflight --pb @graph.pb --plan @plan.json --precision balanced",
    f"{_PREPARE} --format nii.gz --array vol",
    "train evaluate --checkpoint @w.h5 --data @scans --atlas-seg @atlas.npz",
    f"{_CHECK} --compare @check.zip --short",
    f"{_CHECK} --compare @check.zip --device 3",
    f"{_RUN} --quiet --verbose",
    f"{_EXPORT} --quiet --verbose",
    f"{_PREPARE} --quiet --verbose",
]


@pytest.mark.parametrize(
    "line", REFUSED, ids=[line.split(" -")[0].split(" @")[0] + line.split("-")[-1] for line in REFUSED]
)
def test_an_option_without_effect_is_refused(
    line: str, files: Path, asked: Requests, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(line, files)
    option = [word for word in line.split() if word.startswith("--")][-1]
    assert ended.value.code == 2 and not asked
    assert f"argument {option}" in capsys.readouterr().err.replace("-v/--verbose", "--verbose")


def test_a_name_of_an_atlas_needs_a_derivative(files: Path, monkeypatch: Any, capsys: pytest.CaptureFixture) -> None:
    """A dataset that is read as one although plain folders are written."""
    from tests.support.bids_bench import Bids

    bids = Bids(files, monkeypatch)
    words = ["--input", str(bids.raw), "--out", str(bids.out), *bids.usual(), "--atlas-label", "mine"]
    assert bids.main(*words) == 1
    assert "--atlas-label mine: names files of a BIDS derivative" in capsys.readouterr().err


@pytest.mark.parametrize("more", ["--out @two", "--kind shapes", "--shape 16,16,32", "--subjects 2", "--seed 5"])
def test_an_option_of_phantom_changes_what_it_writes(more: str, files: Path) -> None:
    line, found = "phantom --shape 16,16,16 --subjects 1 --out @one -q", []
    for words in (line, instead(line, more)):
        assert tools_main([word.replace("@", f"{files}/") for word in words.split()]) == 0
        found.append({str(path): path.read_bytes() for path in files.rglob("phantom.json")})
    assert found[0] != found[1]


def test_a_profile_has_a_name_with_show_only(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        tools_main(["profiles", "list", "research"])
    assert "takes no NAME" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, level", [("--verbose", logging.DEBUG), ("--quiet", logging.WARNING), ("", logging.INFO)]
)
def test_more_or_fewer_messages(words: str, level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found: List[int] = []
    monkeypatch.setattr(logging, "basicConfig", lambda level, handlers: found.append(level))
    parser = argparse.ArgumentParser()
    add_common_group(parser)
    set_up_logging(parser.parse_args(words.split()))
    assert found == [level]
