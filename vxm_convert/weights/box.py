# SPDX-License-Identifier: Apache-2.0
"""The weights that come with the source tree and with the wheel, by the word ``box``. Knows where they are; reads none."""

from __future__ import annotations

from pathlib import Path

from vxm_convert.errors import CheckpointError

WORD = "box"
MODELS_FOLDER = "models"
_PACKAGE = Path(__file__).resolve().parents[1]
#: a wheel has them beside its modules, the source tree at its top
_HOMES = (_PACKAGE, _PACKAGE.parent)


def checkpoint_or_box(source: Path, variant: str) -> Path:
    """`source`, or for the word ``box`` the folder ``models/<variant>``.

    Raises
    ------
    CheckpointError
        If the box has no weights of that variant.
    """
    if str(source) != WORD or source.exists():
        return source
    boxes = [home / MODELS_FOLDER for home in _HOMES]
    found = [box / variant for box in boxes if any((box / variant).glob("*.index"))]
    if not found:
        have = sorted({path.parent.name for box in boxes for path in box.glob("*/*.index")})
        raise CheckpointError(
            f"box: no weights of {variant} in {' or '.join(map(str, boxes))}, there are {', '.join(have) or 'none'}; pass a "
            "checkpoint, or a variant that is there"
        )
    return found[0]
