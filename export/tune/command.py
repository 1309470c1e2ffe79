# SPDX-License-Identifier: Apache-2.0
"""``python -m export tune``: searches for the cheapest set of precision decisions that meets a profile on real scans."""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from export.contracts import build_contract
from export.preflight.rules.resolution import find_positions
from export.preflight.view.dtypes import float_dtypes
from export.preflight.view.graph import GraphView, read_view
from export.preflight.view.shapes import tensorflow_shapes
from export.tune import results as outcome
from export.tune.cost import SPLIT, GraphCost
from export.tune.groups import scope_groups, split_group
from export.tune.journal import JOURNAL_NAME, Journal
from export.tune.oracle import FileOracle, Setup
from export.tune.page import build_page
from export.tune.progress import Progress
from export.tune.search import EXACT_GROUPS, Group, SearchResult, search_levels
from export.tune.sources import rank, read_layers, seeds
from export.tune.trials import Atoms, Trials, Verdict
from vxm_convert import cliargs
from vxm_convert.artifacts.files import check_output_folder, sha256_of, write_text
from vxm_convert.artifacts.names import KEEP_DTYPE_NAME
from vxm_convert.artifacts.reports import finite, report_head, write_report_json
from vxm_convert.artifacts.targets import check_apart
from vxm_convert.ascend.chips import family_of
from vxm_convert.errors import EXIT_OK, PrecisionError, SpecError, VolumeError
from vxm_convert.model.contract import GraphContract
from vxm_convert.model.precision import PLANS
from vxm_convert.model.spec import ModelSpec, parse_shape
from vxm_convert.parser import Parser
from vxm_convert.profiles.profile import CHOICE_HELP, DEFAULT_PROFILE, load_profile, profile_path, shipped_profiles
from vxm_convert.scans.discovery import scans_of
from vxm_convert.scans.scan_file import scan_sha256
from vxm_convert.text import whole_in
from vxm_convert.toolchain.find import find_toolchain
from vxm_convert.weights.box import checkpoint_or_box
from vxm_convert.weights.files import CheckpointFiles, find_checkpoint
from vxm_convert.weights.keras_h5 import INDEXINGS

_LOG = logging.getLogger(__name__)
_PROG = "export tune"
_DEFAULT_TRIALS = 120
_WORK = "work"
_STARTS = ("fast", "balanced")


def build_parser(default_soc: str) -> argparse.ArgumentParser:
    """Options of ``python -m export tune``."""
    parser = Parser(
        prog="python -m export tune",
        **cliargs.help_texts(
            "Find the fewest nodes that must stay in fp32, and the weights that must be split, for the offline model "
            "to meet an acceptance profile.",
            [
                "python -m export tune --checkpoint build/train --input scans --atlas atlas.npz --out build/tuned",
                "python -m export --checkpoint build/train --plan build/tuned/plan.json --out build/vxm",
            ],
            {0: "found", 3: "no candidate meets the profile"},
            writes="plan.json (for export --plan), keep_dtype.cfg, atc_flags.txt, tune.json, tune.html and the journal "
            "trials.jsonl.",
        ),
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--checkpoint",
        required=True,
        type=Path,
        metavar="CKPT",
        help="weights: TensorFlow checkpoint prefix, folder of checkpoints, Keras .h5 file, or box (required)",
    )
    files.add_argument(
        "--input", required=True, type=Path, metavar="DIR", help="folder of scans to register and compare (required)"
    )
    files.add_argument(
        "--atlas", required=True, type=Path, metavar="FILE", help="fixed image, on the network grid (required)"
    )
    files.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results (required)")
    files.add_argument(
        "--layers",
        type=Path,
        default=None,
        metavar="FILE",
        help="layers.json of `python -m om_runner layers`, where the search begins (default: none, cheapest "
        "candidates first)",
    )
    files.add_argument(
        "--h5-indexing",
        default="ij",
        choices=INDEXINGS,
        help="axis convention in the training of a .h5 network (default: %(default)s)",
    )
    cliargs.add_model_group(parser)
    how = parser.add_argument_group("search")
    how.add_argument(
        "--profile",
        default=DEFAULT_PROFILE,
        metavar="NAME|FILE",
        help=f"acceptance profile to meet: {CHOICE_HELP} (default: %(default)s)",
    )
    how.add_argument(
        "--start",
        default="fast",
        choices=_STARTS,
        help="plan whose mode the search starts from: fast uses fp16 wherever a kernel exists, balanced only in "
        "convolutions (default: %(default)s)",
    )
    how.add_argument(
        "--max-trials",
        default=_DEFAULT_TRIALS,
        type=_positive,
        metavar="N",
        help="largest number of candidates (default: %(default)s)",
    )
    how.add_argument(
        "--resume",
        action="store_true",
        help="continue from the journal in --out, which must have the same inputs (default: start again)",
    )
    device = parser.add_argument_group("device")
    device.add_argument("--batch", default=1, type=_positive, metavar="N", help="pairs per run (default: %(default)s)")
    device.add_argument(
        "--soc-version", default=default_soc, metavar="SOC", help="chip, as ATC names it (default: %(default)s)"
    )
    device.add_argument("--device", default=0, type=int, metavar="ID", help="device number (default: %(default)s)")
    device.add_argument(
        "--reference-python",
        default=None,
        metavar="PATH",
        help="Python with TensorFlow 1.15 (default: $VXM_REFERENCE_PYTHON, else this Python)",
    )
    cliargs.add_toolchain_group(parser)
    cliargs.add_common_group(parser)
    return parser


def _positive(text: str) -> int:
    number = whole_in(text)
    if number is None or number < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return number


def main(argv: List[str], default_soc: str) -> int:
    """Exit code of ``python -m export tune``."""
    args = build_parser(default_soc).parse_args(argv)
    cliargs.set_up_logging(args)
    with contextlib.nullcontext() if args.verbose else _quiet_compiler():
        return cliargs.run_main(lambda: _run(args), _PROG)


@contextlib.contextmanager
def _quiet_compiler() -> Iterator[None]:
    """Each candidate runs the whole compiler; its words are of interest where it fails, and then they are in the
    verdict.
    """
    logger = logging.getLogger("export.atc")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _run(args: argparse.Namespace) -> int:
    scans = _scans(args)
    layers = read_layers(args.layers) if args.layers else {}
    setup, inputs = _prepare(args, scans)
    out = args.out
    try:
        view = read_view(setup.pb, [t.tensor_name for t in setup.contract.outputs], tensorflow_shapes(setup.pb))
        family = family_of(args.soc_version)
        cost = GraphCost(view, setup.contract.precision.mode, family is not None and family.single_conv)
        groups = scope_groups(view, cost)
        with Journal(out / JOURNAL_NAME, inputs, args.resume) as journal:
            outcome.clear_old(out)
            trials = Trials(_recorded(FileOracle(setup), journal, args.max_trials), cost, args.max_trials)
            suspects = _suspects(view, setup.contract)
            start = [SPLIT + name for name in PLANS[args.start].split_weights]
            _LOG.info(
                "%d groups of decisions, %d scans, at most %d candidates", len(groups), len(scans), args.max_trials
            )
            result = search_levels(
                groups,
                trials,
                split_group,
                rank(groups, layers, suspects, cost),
                seeds(groups, layers, start),
                EXACT_GROUPS,
            )
    finally:
        shutil.rmtree(str(setup.work / "candidate"), ignore_errors=True)
        setup.pb.unlink()
    return _conclude(args, setup, inputs, _final_groups(groups, result), result, trials)


def _scans(args: argparse.Namespace) -> List[Path]:
    """The scans, before anything takes time."""
    if not args.atlas.is_file():
        raise VolumeError(f"{args.atlas}: no such atlas; pass the fixed image with --atlas")
    check_apart(args.out, args.input, "--input")
    return scans_of(args.input, args.atlas)


def _prepare(args: argparse.Namespace, scans: List[Path]) -> Tuple[Setup, Dict[str, Any]]:
    """Check what is cheap, then freeze the network once; what all candidates share, and what their verdicts rest on."""
    if not args.soc_version.replace("_", "").replace("-", "").isalnum():
        raise SpecError(
            f"soc version: got {args.soc_version!r}, expected a chip name such as Ascend910A; `npu-smi info` shows it"
        )
    spec = ModelSpec(args.variant, parse_shape(args.shape), args.batch)
    profile, profile_sha256 = _profile(args.profile)
    files = find_checkpoint(checkpoint_or_box(args.checkpoint, args.variant))
    toolchain = find_toolchain(args.toolchain)
    mode = PLANS[args.start].mode
    contract = build_contract(spec, type(PLANS[args.start])("tuned", mode), args.soc_version, files)
    work = check_output_folder(args.out / _WORK)
    pb = work / "original.pb"
    _freeze(contract, files, args.h5_indexing, pb)
    setup = Setup(
        contract,
        pb,
        toolchain,
        args.input.resolve(),
        args.atlas.resolve(),
        profile,
        len(scans),
        work.resolve(),
        args.device,
        args.reference_python,
    )
    described = toolchain.describe()
    return setup, {
        "frozen_pb": sha256_of(pb),
        "mode": mode,
        "soc_version": args.soc_version,
        "batch": args.batch,
        "profile": args.profile,
        "profile_sha256": profile_sha256,
        "atlas": scan_sha256(args.atlas),
        "scans": {path.name: scan_sha256(path) for path in scans},
        "toolchain": f"{described['kind']} {described['version']}",
    }


def _freeze(contract: GraphContract, files: CheckpointFiles, h5_indexing: str, pb: Path) -> None:
    from export import freeze
    from vxm_convert.network import restore

    freeze.write_pb(freeze.freeze(contract, restore.load_weights(files, contract.model, h5_indexing)), pb)


def _profile(choice: str) -> Tuple[str, str]:
    """The profile as the runner takes it, and the sha256 of its file; refused before anything takes time."""
    path = profile_path(choice)
    if path is None:
        raise SpecError(f"profile: got {choice!r}, expected one with limits to search by")
    return choice if choice in shipped_profiles() else str(path.resolve()), load_profile(choice).sha256


def _suspects(view: GraphView, contract: GraphContract) -> List[str]:
    """Nodes that hold positions too fine for fp16, found without running anything."""
    dtypes = float_dtypes(view, contract.precision.mode, frozenset())
    return [position.node for position in find_positions(view, dtypes) if position.half]


def _recorded(oracle: FileOracle, journal: Journal, budget: int) -> Any:
    """The oracle with its journal: what is known is not run again, what is new is on disk before the search goes on."""
    progress = Progress(budget)

    def judge(atoms: Atoms) -> Verdict:
        started = time.monotonic()
        known = journal.find(atoms)
        verdict = oracle(atoms) if known is None else known
        seconds = time.monotonic() - started
        if known is None:
            journal.add(atoms, verdict, seconds=round(seconds, 3))
        progress.tell(atoms, verdict, seconds, known is not None)
        return verdict

    return judge


def _final_groups(groups: List[Group], result: SearchResult) -> List[Group]:
    """Groups as the report lists them: one of which only a part is kept counts by its parts."""
    final: List[Group] = []
    for group in groups:
        whole = set(group.atoms) <= result.atoms or not set(group.atoms) & result.atoms
        final += [group] if whole else split_group(group)
    return final


def _conclude(
    args: argparse.Namespace,
    setup: Setup,
    inputs: Dict[str, Any],
    groups: List[Group],
    result: SearchResult,
    trials: Trials,
) -> int:
    toolchain = setup.toolchain
    data = {
        **report_head("precision search", toolchain.describe(), toolchain.simulated, setup.count),
        "inputs": inputs,
        "start": args.start,
        "max_trials": args.max_trials,
        **outcome.summary(groups, result, trials),
        "atc_flags": [],
    }
    if result.kept is not None:
        data["atc_flags"] = outcome.write_plan(args.out, setup.contract, result, outcome.reasons(data))
    write_report_json(args.out / outcome.JSON_NAME, data)
    write_text(args.out / outcome.PAGE_NAME, build_page(finite(data)))
    if result.kept is None:
        best = data["best_try"]
        raise PrecisionError(
            f"{args.out}: no set of decisions that was tried meets profile {args.profile} ({result.guarantee}; "
            f"{len(trials.verdicts)} "
            f"candidates); the best: {best['reason']}; give more --max-trials, another --start, or look into "
            f"{outcome.PAGE_NAME}"
        )
    _print(args, data, result)
    return EXIT_OK


def _print(args: argparse.Namespace, data: Dict[str, Any], result: SearchResult) -> None:
    lines = [
        f"profile {args.profile} is met over n = {data['n_samples']} scans: {data['verdict']['reason']}",
        f"{result.guarantee}, {len(data['candidates'])} candidates",
    ]
    lines += [f"  keep {entry['name']}: {entry['why']}" for entry in data["kept"]] or ["  nothing has to be kept"]
    lines += ["ATC flags: " + " ".join(data["atc_flags"])]
    lines += [f"  {name:<16}{args.out / name}" for name in (outcome.PLAN_FILE, KEEP_DTYPE_NAME, outcome.PAGE_NAME)]
    if data["simulated"]:
        lines.append("  SIMULATED: the verdicts come from the simulated device, not from an Ascend 910")
    sys.stdout.write("\n".join(lines) + "\n")
