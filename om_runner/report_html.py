# SPDX-License-Identifier: Apache-2.0
"""report.html: one self-contained page. Nothing is loaded from elsewhere; every string that is not ours is escaped."""
from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from typing import Any, Mapping, Optional, Sequence, Tuple

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1180px; padding: 1rem 1.5rem 4rem; }
body { color: #1d2330; background: #fff; }
h1 { font-size: 1.5rem; margin: .4rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.badge { display: inline-block; padding: .25rem .8rem; border-radius: .3rem; font-weight: 700; letter-spacing: .05em; }
.sim { background: #b45309; color: #fff; } .real { background: #166534; color: #fff; }
.ok { color: #166534; font-weight: 600; } .failed { color: #b91c1c; font-weight: 700; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .65rem; border-bottom: 1px solid #d7dce5; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { white-space: normal; max-width: 7rem; } thead th { border-bottom: 2px solid #8a93a5; vertical-align: bottom; }
caption { text-align: left; color: #4c566a; padding: .9rem 0 .2rem; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; border: 1px solid #d7dce5; }
figcaption, .note { color: #4c566a; font-size: .9rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; }
dt { color: #4c566a; } dd { margin: 0; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Picture:
    """One subject's PNG and the end of its difference scale."""

    subject: str
    png: bytes
    scale: float


_Column = Tuple[str, Tuple[str, ...], str]
_NAMES: Tuple[_Column, ...] = (("subject", ("subject",), "s"), ("verdict", ("verdict",), "s"))
#: caption, then per column: heading, path into a row of the report, format
_TABLES: Tuple[Tuple[str, Tuple[_Column, ...]], ...] = (
    ("Moved image, network scale 0..1", (
        ("max error", ("moved", "max_abs"), ".2e"),
        ("mean", ("moved", "mean_abs"), ".2e"),
        ("p99.9", ("moved", "p999_abs"), ".2e"),
        ("PSNR, dB", ("moved", "psnr_db"), ".1f"),
        ("1 − cosine", ("moved", "one_minus_cosine"), ".1e"),
        ("relative Euclidean", ("moved", "relative_euclidean"), ".1e"),
        ("NaN or Inf", ("bad", "moved"), "d"),
    )),
    ("Flow, voxels of the fixed grid", (
        ("max error", ("flow", "max_abs"), ".4f"),
        ("1 − cosine", ("flow", "one_minus_cosine"), ".1e"),
        ("relative Euclidean", ("flow", "relative_euclidean"), ".1e"),
        ("end-point error: mean", ("epe_voxel", "mean"), ".5f"),
        ("p99.9", ("epe_voxel", "p999"), ".4f"),
        ("max", ("epe_voxel", "max"), ".4f"),
        ("max, mm", ("epe_mm", "max"), ".4f"),
        ("NaN or Inf", ("bad", "flow"), "d"),
    )),
    ("Registration: mean Dice and voxels that fold", (
        ("Dice before", ("dice", "before"), ".4f"),
        ("TensorFlow", ("dice", "reference"), ".4f"),
        ("offline", ("dice", "offline"), ".4f"),
        ("change", ("dice", "change"), "+.5f"),
        ("most changed structure", ("dice", "worst_label"), "s"),
        ("by", ("dice", "worst_change"), "+.5f"),
        ("labels", ("dice", "n_labels"), "d"),
        ("folding: TensorFlow", ("folding", "reference_fraction"), ".4%"),
        ("offline", ("folding", "offline_fraction"), ".4%"),
    )),
)


def build_page(report: Mapping[str, Any], pictures: Sequence[Picture]) -> str:
    """The page for a report as written to report.json (undefined figures are None) and its pictures."""
    simulated = bool(report["simulated"])
    badge = "SIMULATED" if simulated else "REAL"
    meaning = (
        "The offline model ran on a CPU stand-in that imitates the arithmetic of an Ascend 910. No Ascend device took part."
        if simulated else "The offline model ran on an Ascend device."
    )
    parts = [
        "<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src \'unsafe-inline\'">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{badge}: precision of the offline model</title><style>{_STYLE}</style></head><body>",
        f'<p><span class="badge {"sim" if simulated else "real"}">{badge}</span> {escape(meaning)}</p>',
        "<h1>Offline model against TensorFlow</h1>", _headline(report), _facts(report), _summary(report),
        "<h2>Per scan</h2>", _tables(report["rows"]),
        "<p class=\"note\">Moved images are compared on the network's 0..1 scale (PSNR peak 1). All figures in float64.</p>",
    ]
    parts += [_figure(picture, badge) for picture in pictures]
    basis = f"Rests on {report['n_samples']} of {report['n_run']} scans that went through the model."
    parts.append(f'<p class="note">{badge}. {basis}</p></body></html>')
    return "\n".join(parts) + "\n"


def _headline(report: Mapping[str, Any]) -> str:
    n, total, verdict = report["n_samples"], report["n_run"], str(report["verdict"])
    noun = "scan" if total == 1 else "scans"
    scans = f"{noun} that went through the model"
    shown = f'<span class="{_class_of(verdict)}">{escape(verdict)}</span>'
    return f"<p>Compared: <strong>{n} of {total}</strong> {scans} (n = {n}). Verdict: {shown} ({escape(str(report['criterion']))}).</p>"


def _facts(report: Mapping[str, Any]) -> str:
    model, reference, toolchain = report["model"], report["reference"], report["toolchain"]
    shape = "x".join(str(n) for n in model["volume_shape"])
    entries = [
        ("Toolchain", ", ".join(f"{key}: {value}" for key, value in toolchain.items() if isinstance(value, (str, int, float)))),
        ("Model", f"{model['variant']}, {shape}, batch {model['batch']}, precision {model['precision']}, {model['soc_version']}"),
        ("Offline model", f"{model['om']} sha256 {model['om_sha256']}"),
        ("Reference", f"TensorFlow {reference['tensorflow']} on the CPU, frozen graph sha256 {reference['frozen_pb_sha256']}"),
        ("Labels", f"{report['label_set']}, warped with nearest neighbour"),
    ]
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in entries) + "</dl>"


def _summary(report: Mapping[str, Any]) -> str:
    s = report["summary"]
    lines = [
        f"moved image: worst error {_text(s['moved_max_abs'], '.2e')}, lowest PSNR {_text(s['moved_psnr_db_min'], '.1f')} dB",
        f"end-point error of the flow: worst {_text(s['epe_voxel_max'], '.4f')} voxel ({_text(s['epe_mm_max'], '.4f')} mm), "
        f"highest p99.9 {_text(s['epe_voxel_p999_max'], '.4f')} voxel",
        f"mean Dice ({escape(str(report['label_set']))}, n = {s['n_with_dice']}): TensorFlow {_text(s['dice_reference_mean'], '.4f')}, "
        f"offline {_text(s['dice_offline_mean'], '.4f')}, largest change of a scan {_text(s['dice_change_worst'], '+.5f')}",
        f"folding: TensorFlow {_text(s['folding_reference_mean'], '.4%')}, offline {_text(s['folding_offline_mean'], '.4%')} of voxels",
    ]
    return f"<h2>Over the cohort (n = {s['n']})</h2><ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def _tables(rows: Sequence[Mapping[str, Any]]) -> str:
    full = [{**row, "bad": {output: row[output]["nan_count"] + row[output]["inf_count"] for output in ("moved", "flow")}} for row in rows]
    return "\n".join(_table(caption, _NAMES + columns, full) for caption, columns in _TABLES)


def _table(caption: str, columns: Sequence[_Column], rows: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title, _, _ in columns)
    body = "".join("<tr>" + "".join(_cell(_text(_dig(row, path), form), path) for _, path, form in columns) + "</tr>" for row in rows)
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(text: str, path: Sequence[str]) -> str:
    return f'<td class="{_class_of(text)}">{text}</td>' if path == ("verdict",) else f"<td>{text}</td>"


def _figure(picture: Picture, badge: str) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    name = escape(picture.subject)
    return (
        f'<h2>{name}</h2><figure><img alt="Three orthogonal slices of {name}: moving, fixed, moved by TensorFlow, '
        f'moved by the offline model, difference" src="data:image/png;base64,{data}">'
        f"<figcaption>{badge}. Difference scale ±{picture.scale:.2e} of full scale 1, set by the largest error in the whole volume. "
        "Sagittal: anterior to the right; coronal and axial: the subject's left to the right.</figcaption></figure>"
    )


def _class_of(verdict: str) -> str:
    return "failed" if verdict == "failed" else "ok"


def _dig(row: Mapping[str, Any], path: Sequence[str]) -> Optional[Any]:
    value: Any = row
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _text(value: Optional[Any], form: str) -> str:
    if value is None:
        return "n/a"
    return escape(str(value)) if form == "s" else format(value, form)
