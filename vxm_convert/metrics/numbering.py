# SPDX-License-Identifier: Apache-2.0
"""Whether a segmentation's ids are those that a label set names: FreeSurfer's, or the numbers of another tool.

An id of another numbering that a set happens to have is scored under a wrong name (17 of OASIS' 35 structures under
`paper30`), so such a segmentation is refused for the sets by name; a file of ids and names is believed.
"""

from __future__ import annotations

from typing import Iterable, List, Optional, Set

import numpy as np

from vxm_convert.metrics.chunked import cut
from vxm_convert.metrics.labels import LABEL_SETS, OTHER_SETS, LabelSet

#: FreeSurfer's table names these, but its segmentations do not hold them; other tools number their structures from 1
_NOT_IN_SEGMENTATIONS = {1, 6, 19, 20, 21, 22, 23, 25, 27, 29} | set(range(32, 41))
_BELOW = 41
_FOREIGN_SHARE, _FOREIGN_LEAST = 0.25, 3
_FITS_SHARE = 0.85
#: ids below this are counted, which is faster than sorting all voxels
_COUNTED = 1 << 16
_AT_A_TIME = 1 << 20


def wrong_numbering(ids: Iterable[int], chosen: LabelSet) -> Optional[str]:
    """Why ids are not those that a named set means, and what to do; None where they are, or the set is from a file."""
    found = _structures(ids)
    foreign = are_foreign(found)
    if chosen.name in LABEL_SETS and foreign:
        wrong = len(found & set(chosen.ids) - {0})
        return (
            f"ids {_listed(found)} are not FreeSurfer's, {wrong} of {len(found)} would be scored under the names of other "
            f"structures in {chosen.name}; {_advice(found)}"
        )
    if chosen.name in OTHER_SETS and not foreign and found - set(chosen.ids):
        return f"ids {_listed(found)} are not those of {chosen.name}; {_advice(found)}"
    return None


def are_foreign(ids: Iterable[int]) -> bool:
    """Whether ids are the numbers of another tool than FreeSurfer."""
    low = {label for label in _structures(ids) if label < _BELOW}
    odd = low & _NOT_IN_SEGMENTATIONS
    return bool(low) and len(odd) >= _FOREIGN_SHARE * len(low) and (len(odd) >= _FOREIGN_LEAST or 1 in odd)


def ids_in(seg: np.ndarray) -> List[int]:
    """The ids that a segmentation, an integer array of any shape, holds, ascending."""
    low, high = (int(seg.min()), int(seg.max())) if seg.size else (0, -1)
    if 0 <= low and high < _COUNTED:
        # A part at a time: every id becomes one of 64 bits.
        counts = np.zeros(high + 1, dtype=np.int64)
        for start in range(0, seg.size, _AT_A_TIME):
            counts += np.bincount(cut(seg, start, start + _AT_A_TIME, np.int64), minlength=high + 1)
        return [int(label) for label in np.flatnonzero(counts)]
    return [int(label) for label in np.unique(seg)]


def unknown_ids(ids: Iterable[int], chosen: LabelSet) -> List[int]:
    """Ids that a set does not have, ascending, without the background."""
    return sorted(_structures(ids) - set(chosen.ids))


def fitting_set(ids: Iterable[int]) -> Optional[str]:
    """The named set that has the most of these ids, if it fits them; None where none does."""
    found = _structures(ids)
    for name, names in OTHER_SETS.items():
        if found <= set(names) and len(found) >= _FITS_SHARE * len(names):
            return name
    if found & _NOT_IN_SEGMENTATIONS:
        return None
    best = max(sorted(LABEL_SETS), key=lambda name: len(found & set(LABEL_SETS[name])))
    return best if found & set(LABEL_SETS[best]) else None


def _structures(ids: Iterable[int]) -> Set[int]:
    return {int(label) for label in ids} - {0}


def _advice(found: Set[int]) -> str:
    fits = fitting_set(found)
    return f"--labels {fits} would fit" if fits else "name a file with their ids and names with --labels"


def _listed(found: Set[int]) -> str:
    some = sorted(found)
    if some == list(range(some[0], some[-1] + 1)) and len(some) > 2:
        return f"{some[0]} to {some[-1]}"
    return ", ".join(str(label) for label in some[:6]) + (f" and {len(some) - 6} more" if len(some) > 6 else "")
