# SPDX-License-Identifier: Apache-2.0
"""The cohort, scan by scan: one table for ranking, and the other figures in tables narrow enough for paper."""

from __future__ import annotations

from typing import Any, List, Mapping, Sequence, Tuple

from om_runner.precision.page.quantities import Row, cell, dig, limits_of, non_finite, shown, worst_share
from vxm_convert.webpage.tables import Cell, Column, table
from vxm_convert.webpage.templates import Html, parts

_Columns = Tuple[Tuple[str, str], ...]
#: heading with unit, dotted name of the figure
_RANKING: _Columns = (
    ("moved image: largest error, 0..1", "moved.max_abs"),
    ("PSNR, dB", "moved.psnr_db"),
    ("end-point error p99.9, voxel", "epe_voxel.p999"),
    ("largest, voxel", "epe_voxel.max"),
    ("Dice, change of the mean", "dice.change"),
    ("folding, change", "folding.change"),
)
_DETAILS: Tuple[Tuple[str, str, _Columns], ...] = (
    (
        "Moved image, offline model against TensorFlow",
        "Intensities of the network, 0..1; PSNR with peak 1. Inside: where the fixed image "
        "is above zero. Warp alone: against a float64 warp by the device's own flow.",
        (
            ("largest error", "moved.max_abs"),
            ("p99.9", "moved.p999_abs"),
            ("mean", "moved.mean_abs"),
            ("RMS", "moved.rmse"),
            ("1 \u2212 cosine", "moved.one_minus_cosine"),
            ("relative Euclidean", "moved.relative_euclidean"),
            ("inside: largest", "moved.inside.max_abs"),
            ("warp alone: largest", "moved.warp_only.max_abs"),
        ),
    ),
    (
        "Flow, offline model against TensorFlow",
        "Voxels of the fixed grid and mm. Floor changes: share of sampling positions whose lower neighbour differs.",
        (
            ("largest error of a component, voxel", "flow.max_abs"),
            ("1 \u2212 cosine", "flow.one_minus_cosine"),
            ("relative Euclidean", "flow.relative_euclidean"),
            ("end-point error: mean, voxel", "epe_voxel.mean"),
            ("p99, voxel", "epe_voxel.p99"),
            ("p99.9, mm", "epe_mm.p999"),
            ("largest, mm", "epe_mm.max"),
            ("sampling position: largest, voxel", "sampling.position_max"),
            ("floor changes", "sampling.floor_flip_fraction"),
        ),
    ),
)
_REGISTRATION: Tuple[Tuple[str, str, str], ...] = (
    ("Dice before", "dice.before", ".4f"),
    ("TensorFlow", "dice.reference", ".4f"),
    ("offline", "dice.offline", ".4f"),
    ("change", "dice.change", "+.5f"),
)
_FOLDING: Tuple[Tuple[str, str, str], ...] = (
    ("|J| \u2264 0: TensorFlow", "folding.reference_fraction", ".4%"),
    ("offline", "folding.offline_fraction", ".4%"),
    ("lowest |J|: TensorFlow", "jacobian.reference.min", ".3f"),
    ("offline", "jacobian.offline.min", ".3f"),
    ("p1 of |J|: TensorFlow", "jacobian.reference.p01", ".3f"),
    ("offline", "jacobian.offline.p01", ".3f"),
    ("highest |J|: TensorFlow", "jacobian.reference.max", ".3f"),
    ("offline", "jacobian.offline.max", ".3f"),
)


def cohort_table(report: Mapping[str, Any], rows: Sequence[Row], noted: str) -> Html:
    """`rows` in display order; `noted`: the basis of the figures."""
    limits = limits_of(report)
    head = [Column("scan", "name"), Column("verdict", "text")]
    columns = head + ([Column("largest share of a limit")] if limits else []) + [Column(title) for title, _ in _RANKING]
    body = []
    for row in rows:
        share = worst_share(row, limits)
        shared = [Cell(shown(share, ".1%"), sort=share)] if limits else []
        body.append(
            [
                str(row.get("subject")),
                _verdict(row),
                *shared,
                *(cell(row, name) for _, name in _RANKING),
                non_finite(row),
            ]
        )
    order = "worst first: NaN or Inf, then failed, then " + (
        "the largest share of a limit" if limits else "the largest end-point error"
    )
    return table(f"{noted}, {order}", columns + [Column("NaN or Inf values")], body)


def details_tables(report: Mapping[str, Any], rows: Sequence[Row], noted: str) -> List[Html]:
    """The other figures, with the same order of scans."""
    tables: List[Html] = []
    for title, words, columns in _DETAILS:
        used = [
            (heading, name) for heading, name in columns if any(cell(row, name).sort is not None for row in rows)
        ] or list(columns[:3])
        body = [[str(row.get("subject")), *(cell(row, name) for _, name in used)] for row in rows]
        caption = f"{title}, {noted}. {words}"
        tables.append(table(caption, [Column("scan", "name"), *(Column(heading) for heading, _ in used)], body))
    return tables + _registration(report, rows, noted)


def _registration(report: Mapping[str, Any], rows: Sequence[Row], noted: str) -> List[Html]:
    scan = Column("scan", "name")
    columns = [
        scan,
        *(Column(heading) for heading, _, _ in _REGISTRATION),
        Column("most changed structure", "text"),
        Column("by"),
        Column("structures"),
    ]
    body = [
        [
            str(row.get("subject")),
            *(cell(row, name, form) for _, name, form in _REGISTRATION),
            shown(dig(row, "dice.worst_label")),
            cell(row, "dice.worst_change", "+.5f"),
            cell(row, "dice.n_labels", "d"),
        ]
        for row in rows
    ]
    n = sum(isinstance(row.get("dice"), Mapping) for row in rows)
    caption = (
        f"Overlap of structures, {noted}. Mean Dice over the structures of {report.get('label_set')}, warped with "
        "nearest "
        f"neighbour (n = {n} scans with labels)"
    )
    folds = [[str(row.get("subject")), *(cell(row, name, form) for _, name, form in _FOLDING)] for row in rows]
    folded = table(
        f"Folding and Jacobian determinant |J| of the warps, {noted}. Share of voxels with |J| \u2264 0, and |J|",
        [scan, *(Column(heading) for heading, _, _ in _FOLDING)],
        folds,
    )
    return [table(caption, columns, body), folded]


def _verdict(row: Row) -> Cell:
    return Cell(parts().verdict(row.get("verdict") != "failed"))
