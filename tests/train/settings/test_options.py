# SPDX-License-Identifier: Apache-2.0
"""Every option of the training reaches the settings of the run, or is refused where it would have no effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, List

import pytest

from train.__main__ import main
from train.options import build_parser, settings_from

_SCANS = "--data @scans --atlas @atlas.npz --device cpu"
_SYNTHETIC = "--synthetic --shape 16,16,32 --device cpu"
_VELOCITY = f"{_SCANS} --variant miccai2018"
_SCALED = f"{_SCANS} --loss-scale exponential"
_WORKERS = f"{_SCANS} --workers a:1,b:2"
_NPU = "--data @scans --atlas @atlas.npz --device npu"
#: a command line, what is added to it, and the option in question
ADDED = [
    (_SCANS.replace("--device cpu", ""), "--device npu", "--device"),
    ("--data @scans --pairs scans --device cpu", "--atlas @atlas.npz", "--atlas"),
    (_SCANS, "--data @list.txt", "--data"),
    (_SCANS, "--out elsewhere", "--out"),
    (_SCANS, "--init @model", "--init"),
    (f"{_SCANS} --init @weights.h5", "--h5-indexing xy", "--h5-indexing"),
    (_SCANS, "--resume", "--resume"),
    (_SCANS, "--pairs scans", "--pairs"),
    (_SCANS, "--split 0.5,0.5,0", "--split"),
    (_SCANS, "--augment flip", "--augment"),
    (_SCANS, "--cache", "--cache"),
    ("--shape 16,16,32 --device cpu --data @scans --atlas @atlas.npz", "--synthetic", "--synthetic"),
    (_SYNTHETIC, "--synthetic-heads 0.2", "--synthetic-heads"),
    (_SYNTHETIC, "--same-contrast 0.2", "--same-contrast"),
    (_SYNTHETIC, "--validation-pairs 3", "--validation-pairs"),
    (_SYNTHETIC, "--makers 3", "--makers"),
    (_SYNTHETIC, "--shape 16,32,32", "--shape"),
    (_SCANS, "--variant vm1", "--variant"),
    (_SCANS, "--batch 2", "--batch"),
    (_VELOCITY, "--integration-steps 3", "--integration-steps"),
    (_SCANS, "--epochs 2", "--epochs"),
    (_SCANS, "--steps-per-epoch 2", "--steps-per-epoch"),
    (_SCANS, "--lr 0.1", "--lr"),
    (_SCANS, "--lr-half-life 9", "--lr-half-life"),
    (_SCANS, "--seed 3", "--seed"),
    (_SCANS, "--keep 2", "--keep"),
    (_SCANS, "--save-every 3", "--save-every"),
    (_SCANS, "--threads 1", "--threads"),
    (_SCANS, "--convolutions direct", "--convolutions"),
    (_SCANS, "--no-tensorboard", "--no-tensorboard"),
    (_SCANS, "--loss ncc", "--loss"),
    (_SCANS, "--lambda 3", "--lambda"),
    (_SCANS, "--penalty l1", "--penalty"),
    (_VELOCITY, "--prior-lambda 3", "--prior-lambda"),
    (_VELOCITY, "--image-sigma 0.1", "--image-sigma"),
    (_VELOCITY, "--bidir", "--bidir"),
    (_SCANS, "--dice-weight 1", "--dice-weight"),
    (_SCANS, "--labels common24", "--labels"),
    (_SCANS, "--loss-scale fixed", "--loss-scale"),
    (_SCALED, "--loss-scale-value 8", "--loss-scale-value"),
    (_SCALED, "--loss-scale-grow-every 8", "--loss-scale-grow-every"),
    (_SCALED, "--loss-scale-shrink-after 8", "--loss-scale-shrink-after"),
    (_SCANS, "--workers a:1,b:2", "--workers"),
    (_WORKERS, "--rank 1", "--rank"),
    (_WORKERS, "--worker-timeout 5", "--worker-timeout"),
    (_NPU, "--precision-mode force_fp32", "--precision-mode"),
    (f"{_NPU} --precision-mode allow_mix_precision", "--modify-mixlist @mix.json", "--modify-mixlist"),
    (_NPU, "--fusion-switch off", "--fusion-switch"),
    (_NPU, "--iterations-per-loop 2", "--iterations-per-loop"),
    (_NPU, "--device-id 2", "--device-id"),
    (_NPU, "--data-dump", "--data-dump"),
    (f"{_NPU} --data-dump", "--data-dump-step 2", "--data-dump-step"),
    (_NPU, "--over-dump", "--over-dump"),
    (_NPU, "--profiling", "--profiling"),
    (_NPU, "--npu-parameter deterministic=1", "--npu-parameter"),
]


@pytest.fixture(scope="module")
def files(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cohort, and other files that options name."""
    home = tmp_path_factory.mktemp("options")
    (home / "scans").symlink_to(cohort / "scans")
    (home / "atlas.npz").symlink_to(cohort / "atlas.npz")
    (home / "list.txt").write_text(f"{cohort / 'scans' / 'sub-01.npz'}\n")
    (home / "mix.json").write_text(json.dumps({"black-list": {"to-add": ["GatherV2"]}}))
    return home


def words(line: str, files: Path) -> List[str]:
    return [word.replace("@", f"{files}/") for word in line.split()]


@pytest.mark.parametrize("line, more, option", ADDED, ids=[option for _, _, option in ADDED])
def test_an_option_reaches_the_run(line: str, more: str, option: str, files: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("train.options.choose_device", lambda choice: (choice.replace("auto", "cpu"), "asked for"))
    if option == "--synthetic":
        first, second = line, line.replace("--data @scans --atlas @atlas.npz", more)
    else:
        first, second = line, f"{line} {more}"
    got, other = (settings_from(build_parser().parse_args(words(text, files))) for text in (first, second))
    assert got != other


#: a command line in which the last option has no effect
REFUSED = [
    f"{_SCANS} --h5-indexing ij",
    f"{_SCANS} --synthetic-heads 0.5",
    f"{_SCANS} --same-contrast 0.5",
    f"{_SCANS} --validation-pairs 2",
    f"{_SCANS} --makers 2",
    f"{_SYNTHETIC} --split 1,0,0",
    f"{_SYNTHETIC} --pairs scans",
    f"{_SYNTHETIC} --cache",
    f"{_SYNTHETIC} --augment flip",
    f"{_SYNTHETIC} --labels paper30",
    f"{_SCANS} --prior-lambda 10",
    f"{_SCANS} --image-sigma 0.02",
    f"{_VELOCITY} --lambda 0.01",
    f"{_VELOCITY} --penalty l2",
    f"{_SCANS} --loss-scale none --loss-scale-value 8",
    f"{_SCANS} --loss-scale fixed --loss-scale-grow-every 8",
    f"{_SCANS} --loss-scale fixed --loss-scale-shrink-after 8",
    f"{_SCANS} --rank 0",
    f"{_SCANS} --worker-timeout 9",
    f"{_SCANS} --data-dump-step 3",
]


@pytest.mark.parametrize("line", REFUSED, ids=[line.split("--")[-1] for line in REFUSED])
def test_an_option_without_effect_is_refused(line: str, files: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words(line, files))
    option = "--" + line.split("--")[-1].split()[0]
    assert ended.value.code == 2 and f"argument {option}: has no effect here, " in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", ["--profiling", "--npu-parameter deterministic=1", "--fusion-switch off", "--loss-scale-value 8"]
)
def test_options_of_an_npu_are_refused_elsewhere(more: str, files: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(words(f"{_SCANS} {more}", files)) == 1
    assert more.split()[0][2:] in capsys.readouterr().err
