# SPDX-License-Identifier: Apache-2.0
"""``python -m export preflight``: check an existing frozen graph; needs neither TensorFlow nor CANN."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import List, Mapping, Optional, Tuple

from export.plans import load_plan, plan_rules
from export.preflight.check import run_preflight, table, write_reports
from export.preflight.estimate.text import estimate_table
from export.preflight.view.input_shapes import parse_input_shapes
from export.preflight.view.shapes import Shapes, tensorflow_shapes
from vxm_convert import cliargs
from vxm_convert.artifacts.files import check_output_folder
from vxm_convert.artifacts.names import PREFLIGHT_CSV, PREFLIGHT_JSON
from vxm_convert.errors import EXIT_OK, EXIT_USER, ToolchainError
from vxm_convert.given import refuse_unused
from vxm_convert.model.precision import plan_for
from vxm_convert.parser import Parser
from vxm_convert.weights.foreign import refuse_foreign_graph

_LOG = logging.getLogger(__name__)
_PROG = "export preflight"


def build_parser(default_soc: str) -> argparse.ArgumentParser:
    """Options of ``python -m export preflight``."""
    parser = Parser(
        prog="python -m export preflight",
        **cliargs.help_texts(
            "Check a frozen graph before ATC does: engines, data types, limits of the kernels, loops, memory.",
            [
                "python -m export preflight --pb build/vxm/frozen.pb",
                "python -m export preflight --pb build/vxm/frozen.pb --precision fast --estimate --out build/preflight",
            ],
            {0: "no errors (there may be warnings)", 1: "errors, or the file is not a frozen graph"},
        ),
    )
    parser.add_argument(
        "--pb", required=True, type=Path, metavar="FILE", help="frozen TensorFlow graph in binary form (required)"
    )
    parser.add_argument(
        "--soc-version", default=default_soc, metavar="SOC", help="chip, as ATC names it (default: %(default)s)"
    )
    parser.add_argument(
        "--out-nodes",
        default="",
        metavar="N:I;…",
        help="outputs in the form of ATC's --out_nodes (default: all leaves)",
    )
    parser.add_argument(
        "--input-shape",
        default="",
        metavar="N:D,D;…",
        help="shapes of inputs in the form of ATC's --input_shape; they replace those of the graph, which may leave sides "
        "open (default: the graph's own)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        metavar="DIR",
        help=f"folder for {PREFLIGHT_CSV} and {PREFLIGHT_JSON} (default: none, print the table only)",
    )
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="also print an ESTIMATE of the time on the chip: slowest layers in ms, totals per kind, memory in MiB "
        "for batches of 1 to 8, the recommended batch, and every assumption; a model, not a measurement "
        "(default: off; the files always contain it)",
    )
    cliargs.add_precision_group(parser)
    parser.add_argument(
        "--plan",
        default=None,
        type=Path,
        metavar="FILE",
        help="precision plan in a file that `python -m export tune` wrote, instead of --precision (default: none)",
    )
    cliargs.add_common_group(parser)
    return parser


def main(argv: List[str], default_soc: str) -> int:
    """Exit code of ``python -m export preflight``."""
    parser = build_parser(default_soc)
    args = parser.parse_args(argv)
    refuse_unused(parser, argv, plan_rules(args))
    cliargs.set_up_logging(args)
    return cliargs.run_main(lambda: _run(args), _PROG)


def _run(args: argparse.Namespace) -> int:
    if args.out is not None:
        check_output_folder(args.out)
    refuse_foreign_graph(args.pb)
    outputs = [name for name in args.out_nodes.split(";") if name]
    plan = plan_for(args.precision, args.soc_version) if args.plan is None else load_plan(args.plan)
    given = parse_input_shapes(args.input_shape)
    result = run_preflight(args.pb, args.soc_version, plan, outputs, _shapes(args.pb, given), given)
    if args.out is not None:
        write_reports(result, args.out, {"kind": "none"})
    sys.stdout.write("\n".join(table(result) + (estimate_table(result.time) if args.estimate else [])) + "\n")
    return EXIT_USER if any(finding.severity == "error" for finding in result.findings) else EXIT_OK


def _shapes(path: Path, given: Mapping[str, Tuple[int, ...]]) -> Optional[Shapes]:
    """TensorFlow's shapes where TensorFlow is there and takes the graph."""
    try:
        return tensorflow_shapes(path, given)
    except ToolchainError:
        _LOG.info("TensorFlow is not here: shapes of operators that our graphs do not have stay unknown")
    except Exception as exc:  # TensorFlow refuses a graph with errors of many kinds; the checks need not follow it
        reason = (str(exc).splitlines() or [type(exc).__name__])[0]
        _LOG.warning("TensorFlow does not take the graph (%s); shapes are inferred without it", reason)
    return None
