# SPDX-License-Identifier: Apache-2.0
"""Which landmark of one list is which of another: by label where both lists have labels, else by row."""

from __future__ import annotations

import logging
from typing import List, Sequence, Tuple

from vxm_convert.errors import VolumeError
from vxm_convert.transforms.points import PointList

LOG = logging.getLogger(__name__)
_SHOWN = 5


def pair(fixed: PointList, moving: PointList) -> Tuple[List[int], List[int]]:
    """Rows of the landmarks that both lists have, in the order of the fixed list.

    Labels that only one list has are left out with a warning.

    Raises
    ------
    VolumeError
        When no label is in both lists, a label is there twice, or lists without labels differ in length.
    """
    ours, theirs = list(fixed.labels), list(moving.labels)
    if not (ours and theirs and all(ours) and all(theirs)):
        return _by_row(fixed, moving)
    if ours == theirs:
        return list(range(len(ours))), list(range(len(theirs)))
    for role, labels in (("fixed", ours), ("moving", theirs)):
        twice = sorted({label for label in labels if labels.count(label) > 1}) if len(set(labels)) < len(labels) else []
        if twice:
            raise VolumeError(
                f"landmarks: {_named(twice)} more than once in the {role} list, expected each label once; rename them"
            )
    where = {label: row for row, label in enumerate(theirs)}
    common = [row for row, label in enumerate(ours) if label in where]
    if not common:
        raise VolumeError(
            f"landmarks: no label in both lists (fixed: {_named(ours)}; moving: {_named(theirs)}); give both points of a "
            "pair one label, or take the labels out of both to pair them by row"
        )
    alone = [label for label in ours if label not in where] + [label for label in theirs if label not in set(ours)]
    if alone:
        LOG.warning("landmarks: %d labels are in one list only and left out: %s", len(alone), _named(alone))
    return common, [where[ours[row]] for row in common]


def _by_row(fixed: PointList, moving: PointList) -> Tuple[List[int], List[int]]:
    count, other = len(fixed.xyz), len(moving.xyz)
    if count != other:
        raise VolumeError(
            f"landmarks: {count} fixed and {other} moving landmarks without labels, expected pairs in one order"
        )
    LOG.info("landmarks: paired by row, not both lists have labels")
    return list(range(count)), list(range(count))


def _named(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(repr(label) for label in labels[:_SHOWN]) + more
