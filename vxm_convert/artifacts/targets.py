# SPDX-License-Identifier: Apache-2.0
"""Results are never written over an input or among the inputs: paths of a command compared before its work starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterable, Tuple

from vxm_convert.errors import ArtifactError


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies in it, links followed."""
    inner, outer = os.path.realpath(str(path)), os.path.realpath(str(folder))
    return inner == outer or inner.startswith(os.path.join(outer, ""))


def check_apart(out: Path, source: Path, option: str) -> None:
    """Refuse an output folder that is a folder of inputs or lies in it.

    Parameters
    ----------
    out : Path — where results go.
    source : Path — what `option` names; a file is no folder of inputs.
    option : str — for the message: ``--input``.

    Raises
    ------
    ArtifactError
        If results would lie among the inputs.
    """
    if os.path.isdir(str(source)) and is_inside(out, source):
        what = "is" if is_inside(source, out) else "lies in"
        raise ArtifactError(
            f"{out}: {what} the folder of {option} ({source}), where results and scans would mix; choose an output "
            "folder outside it"
        )


def check_not_replaced(out: Path, others: Iterable[Tuple[str, Path]]) -> None:
    """Refuse an output file that is an input or another output.

    Parameters
    ----------
    out : Path — the file that is written.
    others : (option, path) — what the command reads and writes besides.

    Raises
    ------
    ArtifactError
        If the result would replace one of them.
    """
    for option, path in others:
        if not os.path.isdir(str(path)) and os.path.realpath(str(path)) == os.path.realpath(str(out)):
            raise ArtifactError(f"{out}: is also given as {option}, which it would replace; choose another name")


def check_subject_folders(out: Path, subjects: Iterable[str], inputs: Iterable[Path]) -> None:
    """Refuse an output folder in which the folder of a subject's results is one that holds inputs of the run.

    Raises
    ------
    ArtifactError
        If writing that subject would remove an input.
    """
    names = {name.lower() for name in subjects}
    root = os.path.realpath(str(out))
    for path in inputs:
        below = os.path.relpath(os.path.realpath(str(path)), root).split(os.sep)
        if below[0].lower() in names:
            raise ArtifactError(
                f"{out}: results would replace the folder {Path(out) / below[0]}, which holds {path}; choose another "
                "output folder"
            )
