# SPDX-License-Identifier: Apache-2.0
"""``python -m export golden``: inputs and TensorFlow's outputs in files that msame, ais_bench and msaccucmp take."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import numpy as np

from vxm_convert import cliargs
from vxm_convert.artifacts.files import atomic_path, check_output_folder, sha256_of, write_bytes, write_text
from vxm_convert.artifacts.golden import (
    COMMANDS_NAME,
    DUMPS_FOLDER,
    FORMS,
    GOLDEN_FOLDER,
    INDEX_NAME,
    End,
    GoldenIndex,
    commands,
    dump_name,
    input_folder,
    output_name,
)
from vxm_convert.artifacts.names import CONTRACT_NAME, FROZEN_PB_NAME, OM_NAME
from vxm_convert.errors import EXIT_OK, ChecksumError, ContractError
from vxm_convert.formats.om import read_om
from vxm_convert.formats.tf_graph import placeholders, read_graph
from vxm_convert.model.contract import GraphContract, TensorSpec
from vxm_convert.parser import Parser
from vxm_convert.synthetic.heads import PhantomSettings, make_atlas, make_subject

_PROG = "export golden"
Arrays = Dict[str, np.ndarray]


def build_parser() -> argparse.ArgumentParser:
    """Options of ``python -m export golden``."""
    parser = Parser(
        prog=f"python -m {_PROG}",
        **cliargs.help_texts(
            "Write inputs of a model and TensorFlow's outputs for them, as files that msame, ais_bench and msaccucmp "
            "take. `python -m om_runner compare-files` judges what they wrote.",
            [f"python -m {_PROG} --exported build/vxm --out build/golden"],
            writes=f"{INDEX_NAME} (orders, shapes), {COMMANDS_NAME}, and folders of .bin and .npy files.",
        ),
    )
    parser.add_argument(
        "--exported",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder with frozen.pb and contract.json that `python -m export` wrote (required)",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the files (required)")
    parser.add_argument(
        "--executions",
        default=2,
        type=_count,
        metavar="N",
        help="number of executions, each with a batch of phantoms (default: %(default)s)",
    )
    parser.add_argument("--seed", default=0, type=int, metavar="N", help="seed of the phantoms (default: %(default)s)")
    cliargs.add_common_group(parser)
    return parser


def main(argv: List[str], default_soc: str) -> int:
    """Exit code of ``python -m export golden``."""
    args = build_parser().parse_args(argv)
    cliargs.set_up_logging(args)

    def body() -> int:
        index = write_golden(args.exported, args.out, args.executions, args.seed)
        sys.stdout.write(f"{args.out / INDEX_NAME}: {len(index.stems)} executions of {index.subjects} subjects\n")
        return EXIT_OK

    return cliargs.run_main(body, _PROG)


def write_golden(exported: Path, out: Path, executions: int, seed: int) -> GoldenIndex:
    """Write the folder; the index comes last, so that a folder without one is unfinished.

    Raises
    ------
    ChecksumError, ContractError, ArtifactError
        If graph and contract do not belong together, or the folder cannot be written.
    """
    from export.parity import run_pb

    pb = exported / FROZEN_PB_NAME
    contract = GraphContract.load(exported / CONTRACT_NAME)
    found = sha256_of(pb)
    if contract.hashes.get("frozen_pb") != found:
        raise ChecksumError(f"{pb}: sha256 {found}, {CONTRACT_NAME} has another; export the model again")
    check_output_folder(out)
    stems = tuple(f"pair{number:04d}" for number in range(executions))
    index = GoldenIndex(
        stems,
        contract.model.batch,
        _inputs(exported, contract),
        tuple(_end(number, spec) for number, spec in enumerate(contract.outputs)),
        found,
        contract.grid.spacing_mm,
    )
    for stem, feeds in zip(stems, _phantoms(contract, executions, seed)):
        _write_execution(out, index, stem, feeds, run_pb(pb, contract, feeds))
    write_text(out / COMMANDS_NAME, "\n".join(commands(index)) + "\n")
    index.save(out)
    return index


def _inputs(exported: Path, contract: GraphContract) -> Tuple[End, ...]:
    """In the model's order: that of the placeholders, which the offline model confirms where there is one."""
    specs = {spec.node: spec for spec in contract.inputs}
    order = [name for name in placeholders(read_graph(exported / FROZEN_PB_NAME)) if name in specs]
    if (exported / OM_NAME).is_file():
        data = [op for op in read_om(exported / OM_NAME).graph if op.type == "Data"]
        order = [op.name for op in sorted(data, key=lambda op: int(op.attrs.get("index", 0)))]
    if sorted(order) != sorted(specs):
        raise ContractError(f"{exported}: inputs are {order}, the contract has {sorted(specs)}; export the model again")
    return tuple(_end(number, specs[name]) for number, name in enumerate(order))


def _end(number: int, spec: TensorSpec) -> End:
    return End(number, spec.meaning, spec.node, tuple(spec.shape), spec.dtype)


def _phantoms(contract: GraphContract, executions: int, seed: int) -> Iterator[Arrays]:
    """Feeds by meaning: as many different heads as the batch takes, and their atlas."""
    settings = PhantomSettings(contract.model.volume_shape, executions * contract.model.batch, seed)
    fixed = _as_input([make_atlas(settings).vol] * contract.model.batch, contract)
    for number in range(executions):
        first = number * contract.model.batch
        heads = [make_subject(settings, first + place).vol for place in range(contract.model.batch)]
        yield {"moving": _as_input(heads, contract), "fixed": fixed}


def _as_input(volumes: List[np.ndarray], contract: GraphContract) -> np.ndarray:
    return (np.stack(volumes)[..., np.newaxis] / contract.intensity.scale).astype(np.float32)


def _write_execution(out: Path, index: GoldenIndex, stem: str, feeds: Arrays, results: Arrays) -> None:
    for form in FORMS:
        for end in index.inputs:
            _write(out / input_folder(end, form) / f"{stem}.{form}", feeds[end.meaning])
        for end in index.outputs:
            _write(out / GOLDEN_FOLDER / form / output_name(stem, end, form), results[end.meaning])
    for end in index.outputs:
        _write(out / DUMPS_FOLDER / stem / dump_name(end.node), results[end.meaning])


def _write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".bin":
        write_bytes(path, np.ascontiguousarray(array).tobytes())
        return
    with atomic_path(path) as temporary, open(str(temporary), "wb") as handle:
        np.save(handle, np.ascontiguousarray(array), allow_pickle=False)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 1 to 10000")
    return int(text)
