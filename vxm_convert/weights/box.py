# SPDX-License-Identifier: Apache-2.0
"""The weights that come with the source tree, by the word ``box``. Knows where they are; reads no weights."""

from __future__ import annotations

from pathlib import Path

from vxm_convert.errors import CheckpointError

WORD = "box"
MODELS_FOLDER = "models"
_ROOT = Path(__file__).resolve().parents[2]


def checkpoint_or_box(source: Path, variant: str) -> Path:
    """`source`, or for the word ``box`` the folder ``models/<variant>``.

    Raises
    ------
    CheckpointError
        If the box has no weights of that variant, or this is an installed package without the folder.
    """
    if str(source) != WORD or source.exists():
        return source
    folder = _ROOT / MODELS_FOLDER / variant
    if not any(folder.glob("*.index")):
        have = sorted(path.parent.name for path in (_ROOT / MODELS_FOLDER).glob("*/*.index"))
        raise CheckpointError(
            f"box: no weights of {variant} in {folder}, there are {', '.join(have) or 'none'}; pass a checkpoint, or a variant "
            "that is there"
        )
    return folder
