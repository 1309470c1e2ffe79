# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner compare-files``: judges results that msame or ais_bench wrote for golden inputs."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np

from om_runner.precision.acceptance import VERDICT_FAILED
from om_runner.precision.comparison import Standard, SubjectComparison, compare_subject, describe, summary
from om_runner.precision.foreign_files import find_results, golden_arrays, read_result
from om_runner.precision.store import FLOW, MOVED, REFERENCE_FLOW, REFERENCE_MOVED, CompareStore
from vxm_convert.artifacts.files import check_output_folder
from vxm_convert.artifacts.golden import GoldenIndex
from vxm_convert.artifacts.names import COMPARED_FILES_NAME
from vxm_convert.artifacts.reports import report_head, write_report_json
from vxm_convert.cliargs import add_common_group, help_texts, run_main, set_up_logging
from vxm_convert.errors import EXIT_OK, ContractError, PrecisionError
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET
from vxm_convert.parser import Parser
from vxm_convert.profiles.profile import CHOICE_HELP, DEFAULT_PROFILE, load_profile

PROG = "om_runner compare-files"
DEFAULT_OUT = Path("build") / "compared-files"


@dataclass(frozen=True)
class FileSettings:
    """A parsed command line; `simulated` None: nobody said which device wrote the results."""

    golden: Path
    results: Path
    out: Path
    profile: str
    simulated: Optional[bool]


def build_parser() -> argparse.ArgumentParser:
    """The command line of the comparison."""
    parser = Parser(
        prog=f"python -m {PROG}",
        **help_texts(
            "Judge by an acceptance profile what msame or ais_bench wrote for the inputs of `python -m export golden`. "
            "Needs neither TensorFlow nor a device.",
            [f"python -m {PROG} --golden build/golden --results results"],
            {0: "every result is within the profile", 3: "a result is outside the profile or is NaN"},
            writes=f"OUT/{COMPARED_FILES_NAME}.",
        ),
    )
    parser.add_argument(
        "--golden", required=True, type=Path, metavar="DIR", help="folder that export golden wrote (required)"
    )
    parser.add_argument(
        "--results",
        required=True,
        type=Path,
        metavar="DIR",
        help="output folder of the tool, .bin or .npy files in fp32 or fp16 (required)",
    )
    parser.add_argument(
        "--out", default=DEFAULT_OUT, type=Path, metavar="DIR", help="output folder (default: %(default)s)"
    )
    parser.add_argument(
        "--profile",
        default=DEFAULT_PROFILE,
        metavar="NAME|FILE",
        help=f"acceptance profile: {CHOICE_HELP}; none checks NaN and Inf only (default: %(default)s)",
    )
    parser.add_argument(
        "--device-was",
        default=None,
        choices=("real", "simulated"),
        help="what wrote the results, for the record; files do not say it (default: unknown, recorded as simulated)",
    )
    add_common_group(parser)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run the command; returns the exit code."""
    args = build_parser().parse_args(argv)
    set_up_logging(args)
    simulated = None if args.device_was is None else args.device_was == "simulated"
    settings = FileSettings(args.golden, args.results, args.out, args.profile, simulated)

    def body() -> int:
        compared = compare_files(settings)
        sys.stdout.write("\n".join(describe(result) for result in compared) + "\n")
        failed = [result for result in compared if result.verdict == VERDICT_FAILED]
        if failed:
            raise PrecisionError(
                f"{args.out / COMPARED_FILES_NAME}: {len(failed)} of {len(compared)} results are outside profile "
                f"{args.profile}, expected none; look for another precision mode, other weights or another order of "
                "inputs"
            )
        return EXIT_OK

    return run_main(body, PROG)


def compare_files(settings: FileSettings) -> List[SubjectComparison]:
    """Compare every execution and write the report.

    Raises
    ------
    ArtifactError, ContractError, FormatError
        If golden files or results are missing, damaged or of another model.
    """
    profile = load_profile(settings.profile)
    index = GoldenIndex.load(settings.golden)
    meanings = {end.meaning for end in index.inputs + index.outputs}
    if not {"moving", "fixed", "moved", "flow"} <= meanings:
        raise ContractError(f"{settings.golden}: has {', '.join(sorted(meanings))}, expected a registration's tensors")
    found = find_results(settings.results, index)
    check_output_folder(settings.out)
    standard = Standard(None, DEFAULT_LABEL_SET, (), index.spacing_mm, profile)
    compared: List[SubjectComparison] = []
    for stem in index.stems:
        golden = golden_arrays(settings.golden, index, stem)
        results = {end.meaning: read_result(found[stem, end.index], end) for end in index.outputs}
        compared += _execution(settings, stem, golden, results, standard, index.subjects)
    _write(settings, index, compared, profile.name)
    return compared


def _execution(
    settings: FileSettings,
    stem: str,
    golden: Dict[str, np.ndarray],
    results: Dict[str, np.ndarray],
    standard: Standard,
    subjects: int,
) -> List[SubjectComparison]:
    compared = []
    for place in range(subjects):
        name = stem if subjects == 1 else f"{stem}-{place}"
        with CompareStore(settings.out, None) as store:
            store.put_fixed(golden["fixed"][place, ..., 0])
            store.put(name, golden["moving"][place, ..., 0], None, results[MOVED][place, ..., 0], results[FLOW][place])
            for what, array in ((REFERENCE_MOVED, golden[MOVED][place, ..., 0]), (REFERENCE_FLOW, golden[FLOW][place])):
                store.keep(name, what, array)
            compared.append(compare_subject(store, name, standard, 0.0))
    return compared


def _write(settings: FileSettings, index: GoldenIndex, compared: List[SubjectComparison], profile: str) -> None:
    kind = {None: "unknown", True: "simulator", False: "cann"}[settings.simulated]
    report: Dict[str, Any] = {
        **report_head("compared files", {"kind": kind}, settings.simulated is not False, len(compared)),
        "profile": profile,
        "frozen_pb_sha256": index.frozen_pb,
        "summary": summary(compared),
        "results": [result.to_dict() for result in compared],
    }
    write_report_json(settings.out / COMPARED_FILES_NAME, report)
