# SPDX-License-Identifier: Apache-2.0
"""Pictures during a run: a subject's are made as it finishes, the pages once at the end from the small records."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from om_runner.inputs.scans import LoadedScan
from om_runner.names import QC_FOLDER
from om_runner.qc.case import FIGURES, Case, by_affine_alone, onto
from om_runner.qc.cohort_page import write_pages
from om_runner.qc.pictures import Drawn, draw
from om_runner.qc.record import write_case
from om_runner.results.columns import FailureRow, MetricsRow
from om_runner.results.products import Registered
from om_runner.results.writer import Provenance
from vxm_convert.artifacts.sha256sums import files_below

LOG = logging.getLogger(__name__)


class Drawing(NamedTuple):
    """The pictures of a subject before they are written."""

    case: Case
    drawn: Drawn


def _case(loaded: LoadedScan, atlas: LoadedScan, done: Registered, label_set: str) -> Case:
    """The arrays of a finished subject on the grid of its results."""
    place, grid = loaded.placed, done.warp.fixed
    original = loaded.image * np.float32(loaded.factor) if loaded.source is None else loaded.source.image
    fixed = atlas.image if atlas.source is None else atlas.source.image
    return Case(
        subject=loaded.scan.subject,
        grid=grid,
        fixed=onto(fixed, atlas.file_grid, grid),
        moved=done.moved,
        before=by_affine_alone(original, place.moving, place.exact_affine().pull, grid),
        warp=done.warp,
        fixed_seg=done.fixed_seg,
        moved_seg=done.moved_seg,
        letters=not atlas.placed.how.get("header_doubtful"),
        label_set=label_set,
    )


class Pictures:
    """The pictures of a run, in ``out/qc``.

    Parameters
    ----------
    out : Path — output folder of the run.
    """

    def __init__(self, out: Path) -> None:
        self._out = Path(out)

    @staticmethod
    def drawing(loaded: LoadedScan, atlas: LoadedScan, done: Registered, label_set: str) -> Drawing:
        """Draw one subject, in memory alone. Several threads may do so at a time."""
        case = _case(loaded, atlas, done, label_set)
        drawn = draw(case)
        # Needed for nothing else, and as large as the moved scan.
        return Drawing(replace(case, before=None), drawn)

    def add(self, drawing: Drawing, row: MetricsRow, provenance: Provenance) -> Tuple[List[str], MetricsRow]:
        """Write what was drawn of a subject, with the figures and warnings of its row.

        Returns
        -------
        Names below `out` of what was drawn, and the row with what the pictures add to its warnings.

        Raises
        ------
        ArtifactError
            If the folder cannot be written.
        """
        figures: Dict[str, Any] = {name: value for name, value in asdict(row).items() if name in FIGURES}
        case = replace(
            drawing.case,
            figures=figures,
            simulated=bool(provenance.details.get("simulated")),
            made_from=dict(provenance.made_from),
            warnings=row.warnings,
        )
        written = write_case(self._out / QC_FOLDER, case, drawing.drawn)
        return files_below(self._out, f"{QC_FOLDER}/{row.subject}"), replace(row, warnings=written.warnings)

    def finish(self, failures: Sequence[FailureRow] = ()) -> List[str]:
        """Write the pages over all existing records; returns the names below `out` of everything in the folder."""
        write_pages(self._out / QC_FOLDER, [(failure.subject, failure.reason) for failure in failures])
        return files_below(self._out, QC_FOLDER)
