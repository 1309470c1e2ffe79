# SPDX-License-Identifier: Apache-2.0
"""What the verbs share: options of a transform chain, reading it, hashes for side-cars, tables as text, CSV or JSON."""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import math
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Union

from vxm_convert.artifacts.files import sha256_of, write_text
from vxm_convert.cliargs import add_common_group, help_texts, refuse_overwriting, run_main, set_up_logging
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.affines import Affine
from vxm_convert.geometry.fields import Warp
from vxm_convert.geometry.grids import Grid
from vxm_convert.given import refuse_unused
from vxm_convert.parser import Parser
from vxm_convert.transforms.affines import is_affine_file, read_affine
from vxm_convert.transforms.formats import READABLE
from vxm_convert.transforms.itk_composite import is_composite, read_composite
from vxm_convert.transforms.partners import read_with_images
from vxm_convert.transforms.warps import read_warp

LOG = logging.getLogger(__name__)

TABLE_FORMATS = ("table", "csv", "json")
INVERSE = "inverse:"


def make_parser(verb: str, description: str, *examples: str) -> argparse.ArgumentParser:
    """A parser with the common help texts; `examples` are what follows the verb on a command line."""
    prog = f"python -m om_runner {verb}"
    return Parser(prog=prog, **help_texts(description, [f"{prog} {words}" for words in examples]))


def run_verb(
    parser: argparse.ArgumentParser,
    argv: Optional[Sequence[str]],
    body: Callable[[argparse.Namespace], int],
    outputs: Sequence[str] = ("out",),
    unused: Callable[[argparse.Namespace], Dict[str, str]] = lambda args: {},
) -> int:
    """Parse, set up messages, run; user-fixable errors become one message and exit code 1.

    Parameters
    ----------
    outputs : the options that are written to.
    unused : command line → options that have no effect in it and why, as `vxm_convert.given.refuse_unused` takes them.
    """
    add_common_group(parser)
    words = sys.argv[1:] if argv is None else list(argv)
    args = parser.parse_args(words)
    refuse_unused(parser, words, unused(args))
    set_up_logging(args)

    def checked() -> int:
        refuse_overwriting(args, outputs)
        return body(args)

    return run_main(checked, parser.prog)


def add_warp_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """``--warp``, its format, and the grids that some formats do not carry."""
    group = parser.add_argument_group("warp")
    group.add_argument(
        "--warp",
        required=required,
        type=Path,
        metavar="FILE",
        help="warp file (" + ("required)" if required else "default: none)"),
    )
    group.add_argument(
        "--from",
        dest="source_format",
        default=None,
        choices=sorted(READABLE),
        help="format of the warp: itk in LPS mm, fsl in FSL mm, freesurfer in RAS mm, l2r and vxm in voxels, spm and "
        "niftyreg with positions in RAS mm (default: "
        "from header and side-car)",
    )
    add_grid_options(group)


def add_grid_options(group: argparse._ActionsContainer) -> None:
    """``--fixed`` and ``--moving``."""
    group.add_argument(
        "--fixed",
        default=None,
        type=Path,
        metavar="IMAGE",
        help="image that gives the fixed grid (default: the warp's own grid)",
    )
    group.add_argument(
        "--moving",
        default=None,
        type=Path,
        metavar="IMAGE",
        help="image that gives the moving grid (default: the one in the warp or its side-car, else the fixed grid)",
    )


def warp_from(args: argparse.Namespace, moving: Optional[Path] = None) -> Warp:
    """The warp of `add_warp_options`, with the grids of the images that go with it.

    Parameters
    ----------
    moving : Path or None — an image of the moving grid where ``--moving`` names none.
    """
    return read_with_images(args.warp, args.source_format, args.moving or moving, args.fixed)


def read_transform(
    word: str, form: Optional[str], fixed: Optional[Grid], moving: Optional[Grid]
) -> Union[Warp, Affine]:
    """One step of a chain: a warp or an affine file; ``inverse:`` before the name of an affine inverts it."""
    turned = word.startswith(INVERSE)
    path = Path(word[len(INVERSE) :] if turned else word)
    if is_composite(path) and not turned:
        return read_composite(path, moving=moving)
    if not is_affine_file(path) and not is_composite(path):
        if turned:
            raise VolumeError(
                f"{word}: a warp cannot be inverted here; invert it with 'om_runner invert' and pass that file"
            )
        return read_warp(path, form, moving=moving, fixed=None if path.suffix.lower() != ".npz" else fixed)
    affine = read_affine(path, *((moving, fixed) if turned else (fixed, moving)))
    return affine.inverse() if turned else affine


def hashes(**files: Optional[Path]) -> Dict[str, str]:
    """role → sha256 of the files that were given."""
    return {role: sha256_of(path) for role, path in files.items() if path is not None}


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """``--format`` and ``--out`` of a table."""
    group = parser.add_argument_group("table")
    group.add_argument(
        "--format", default="table", choices=TABLE_FORMATS, help="format of the figures (default: %(default)s)"
    )
    group.add_argument(
        "--out", default=None, type=Path, metavar="FILE", help="file for the figures (default: standard output)"
    )


def emit(text: str, out: Optional[Path]) -> None:
    """Write to a file, completely or not at all, or to standard output."""
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)


def render(document: Dict[str, Any], rows: List[Dict[str, Any]], how: str) -> str:
    """A table of rows under single figures.

    ``json``: `document` with the rows under ``structures``; ``csv``: the rows, or without rows the figures as
    figure,value; ``table``: both, aligned. Missing values are null, empty, and n/a.
    """
    if how == "json":
        return (
            json.dumps(_plain({**document, "structures": rows} if rows else document), indent=2, allow_nan=False) + "\n"
        )
    flat = [{"figure": key, "value": value} for key, value in _flatten(document)]
    if how == "csv":
        text = io.StringIO()
        table = rows or flat
        writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: "" if _missing(value) else value for key, value in row.items()} for row in table)
        return text.getvalue()
    return _aligned(flat, header=False) + ("\n" + _aligned(rows, header=True) if rows else "")


def _aligned(rows: List[Dict[str, Any]], header: bool) -> str:
    cells = [[_cell(value) for value in row.values()] for row in rows]
    if header:
        cells.insert(0, list(rows[0]))
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))] if cells else []
    return "".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() + "\n" for row in cells)


def _flatten(document: Dict[str, Any], prefix: str = "") -> List[Any]:
    found = []
    for key, value in document.items():
        found += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _cell(value: object) -> str:
    if _missing(value):
        return "n/a"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(value: object) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if _missing(value) else value
