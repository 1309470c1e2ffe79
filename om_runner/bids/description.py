# SPDX-License-Identifier: Apache-2.0
"""Files that describe a derivative: dataset_description.json, README.md, CHANGES, .bidsignore, LICENSE; and the
location of its sources.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional
from urllib.parse import quote

from om_runner.bids.dataset import DESCRIPTION_NAME, GENERATOR
from om_runner.bids.names import FIGURES, PROVENANCE
from om_runner.names import (
    AUDIT_NAME,
    FAILURES_NAME,
    METRICS_NAME,
    PRECISION_FOLDER,
    QC_FOLDER,
    RUN_NAME,
    STRUCTURES_NAME,
    SUMS_NAME,
)
from vxm_convert import __version__
from vxm_convert.artifacts.files import read_bounded, write_json, write_text

BIDS_VERSION = "1.11.1"
README_NAME, CHANGES_NAME, IGNORE_NAME, LICENSE_NAME = "README.md", "CHANGES", ".bidsignore", "LICENSE"
_MAX_LICENSE = 1 << 20
#: of this project: files for which BIDS has no name. A pattern without slash holds at any depth.
IGNORED = (
    "# Transforms and Jacobian maps, for which BIDS has no names yet, and what belongs to this project: hashes, "
    "records, reports.",
    "*_xfm.*", "*_jacobian.*", "*.nii.gz.json", FIGURES, PROVENANCE, PRECISION_FOLDER, QC_FOLDER, "logs", "*.html", METRICS_NAME,
    STRUCTURES_NAME, FAILURES_NAME, RUN_NAME, AUDIT_NAME, SUMS_NAME,
)  # fmt: skip


@dataclass(frozen=True)
class Links:
    """Location of the sources of a derivative, for BIDS URIs: ``bids:raw:…`` in the source dataset, ``bids:atlas:…``
    beside the atlas.
    """

    out: Path
    raw: Path
    atlas: Path

    def uri(self, path: Path) -> str:
        """BIDS URI of a file of the source dataset, or its ``file:`` URI if it is elsewhere."""
        # By name, without following links: a dataset may be made of links to a store.
        try:
            return "bids:raw:" + quote(Path(path).relative_to(self.raw).as_posix())
        except ValueError:
            return Path(os.path.abspath(str(path))).as_uri()

    def atlas_uri(self) -> str:
        return "bids:atlas:" + quote(self.atlas.name)

    def to_dict(self) -> Dict[str, str]:
        return {"raw": self.place(self.raw), "atlas": self.place(self.atlas.parent)}

    def place(self, folder: Path) -> str:
        """A folder as a URI: relative if the derivative is inside it, so that both can be moved together."""
        out, folder = _absolute(self.out), _absolute(folder)
        if folder in out.parents:
            return Path(os.path.relpath(str(folder), str(out))).as_posix() + "/"
        return folder.as_uri()


def write_description(out: Path, links: Links, source: Dict[str, Any], toolchain: str, simulated: bool) -> List[str]:
    """Write all files; names of the files written.

    Parameters
    ----------
    source : dict — the description of the source dataset.
    toolchain : str — of the registration, in one line.
    """
    given = source.get("Name")
    name = given if isinstance(given, str) else links.raw.name
    device = (
        f"SIMULATED Ascend toolchain ({toolchain}), no Ascend device took part"
        if simulated
        else f"Ascend toolchain {toolchain}"
    )
    write_json(out / DESCRIPTION_NAME, _description(name, device, links, source))
    write_text(out / README_NAME, _readme(name, device, links))
    write_text(out / IGNORE_NAME, "\n".join(IGNORED) + "\n")
    _write_changes(out / CHANGES_NAME, f"Registered to {links.atlas.name} with {GENERATOR} {__version__}, {device}.")
    made = [DESCRIPTION_NAME, README_NAME, IGNORE_NAME, CHANGES_NAME]
    licence = links.raw / LICENSE_NAME
    if licence.is_file() and licence.stat().st_size <= _MAX_LICENSE:
        text = read_bounded(licence, _MAX_LICENSE, "the licence of the source dataset", "check its permissions")
        write_text(out / LICENSE_NAME, text.decode("utf-8", "replace"))
        made.append(LICENSE_NAME)
    return made


def _description(name: str, device: str, links: Links, source: Dict[str, Any]) -> Dict[str, Any]:
    about = {
        "Name": GENERATOR,
        "Version": __version__,
        "Description": f"om_runner: deformable registration by an offline model (VoxelMorph); {device}; run without a "
        "container.",
    }
    doi = source.get("DatasetDOI")
    entries: Dict[str, Any] = {
        "Name": f"{name}, registered to {links.atlas.name}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [about],
        "SourceDatasets": [{"URL": links.place(links.raw), **({"DOI": doi} if isinstance(doi, str) else {})}],
        "DatasetLinks": links.to_dict(),
    }
    authors = source.get("Authors")
    if isinstance(authors, list) and all(isinstance(author, str) for author in authors):
        entries["Authors"] = authors
    for key in ("License", "Acknowledgements", "HowToAcknowledge"):
        if isinstance(source.get(key), str):
            entries[key] = source[key]
    return entries


def _readme(name: str, device: str, links: Links) -> str:
    return f"""# {name}, registered to {links.atlas.name}

Scans of the dataset "{name}", resampled onto the atlas {links.atlas.name} by {GENERATOR} {__version__}. {device[0].upper() + device[1:]}.

| file | is |
|---|---|
| `*_desc-moved_T1w.nii.gz` (or another suffix) | the scan, resampled once onto the atlas |
| `*_desc-moved_dseg.nii.gz` | its labels, carried along; names and colours in `dseg.tsv` |
| `*_seg-*_dseg.nii.gz` | the atlas's labels on the scan's own grid |
| `*_mode-image_xfm.nii.gz` | displacement field `from` … `to` …; its side-car names format, unit and frame |
| `*_jacobian.nii.gz` | Jacobian determinant of the map from atlas to scan |
| `participants.tsv` | what the source dataset says of the participants, and Dice and folding |
| `metrics.tsv`, `failures.tsv` | one row per scan; which failed, and why |
| `run.json`, `precision/` | the last run; its comparison with TensorFlow |
| `{PROVENANCE}/`, `*.nii.gz.json`, `SHA256SUMS` | records and hashes; `python -m vxm_convert verify` checks them |
"""


def _write_changes(path: Path, text: str) -> None:
    """One entry per day and content, newest first, in the format of CPAN::Changes."""
    old = read_bounded(path, _MAX_LICENSE, "CHANGES", "remove it").decode("utf-8", "replace") if path.is_file() else ""
    entries = [entry for entry in old.split("\n\n") if entry.strip()]
    item = f"  - {text}"
    if not entries or item not in entries[0].splitlines():
        entries.insert(0, f"1.0.{len(entries)} {time.strftime('%Y-%m-%d', time.gmtime())}\n{item}")
    write_text(path, "\n\n".join(entry.strip("\n") for entry in entries) + "\n")


def _absolute(folder: Path) -> Path:
    return Path(folder).resolve()


def relative_to(folder: Path, root: Path) -> Optional[Path]:
    """`folder` below `root`, with links resolved; None if it is not below it."""
    inner, outer = _absolute(folder), _absolute(root)
    return inner.relative_to(outer) if outer == inner or outer in inner.parents else None
