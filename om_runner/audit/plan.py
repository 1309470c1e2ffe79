# SPDX-License-Identifier: Apache-2.0
"""The executions of the audit: for every check a list of batches, each a tuple of scans by position. Runs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence, Tuple

#: A position with the fixed image instead of a scan; its result is ignored.
FILLER = -1

Batch = Tuple[int, ...]


@dataclass(frozen=True)
class Check:
    """A question and the batches that answer it.

    Parameters
    ----------
    name, question : str
    batches : tuple of tuple of int — number of the scan at every position of the model's batch; `FILLER` for none.
    copies : bool — whether a scan that pads a batch is compared at every position, or only at its first one.
    reload : bool — the model is loaded again before the check.
    other : bool — the batches belong to the other model.
    """

    name: str
    question: str
    batches: Tuple[Batch, ...]
    copies: bool = False
    reload: bool = False
    other: bool = False


def in_batches(scans: Sequence[int], size: int) -> Tuple[Batch, ...]:
    """Scans in order, with the last batch padded by repeating its last scan, as in a registration."""
    groups = [tuple(scans[start : start + size]) for start in range(0, len(scans), size)]
    return tuple(group + (group[-1],) * (size - len(group)) for group in groups)


def checks_of(count: int, batch: int) -> List[Check]:
    """All checks of one model for `count` scans; those about positions only if a batch has more than one."""
    forward = in_batches(range(count), batch)
    found = [
        Check("repeat", "the same inputs once more", forward),
        Check("order", "the scans in reverse", in_batches(range(count)[::-1], batch)),
        Check("reload", "the model loaded again", forward, reload=True),
    ]
    if batch == 1:
        return found
    turned = [group[shift:] + group[:shift] for group in forward for shift in range(1, batch)]
    alone = [(scan,) + (FILLER,) * (batch - 1) for scan in range(count)]
    padded = [in_batches(range(filled), batch)[0] for filled in range(1, min(batch, count + 1))]
    return found + [
        Check("place", "every scan at every position of the batch", tuple(turned), copies=True),
        Check("neighbours", "every scan beside the fixed image instead of scans", tuple(alone)),
        Check("padding", "a last batch with 1, 2, … scans, padded", tuple(padded), copies=True),
    ]


def check_of_other(count: int, batch: int, own_batch: int) -> Check:
    """The same scans through a model of another batch."""
    question = f"a model of batch {batch} instead of {own_batch}"
    return Check("other model", question, in_batches(range(count), batch), other=True)
