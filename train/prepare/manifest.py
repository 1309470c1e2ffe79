# SPDX-License-Identifier: Apache-2.0
"""What a preparation leaves beside the scans: prepare.json, its page, failures.tsv, and a manifest that keeps the parts
of a split.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields
from typing import Dict, List, Optional, Sequence

from train.prepare.outputs import PICTURES, SCANS, Record
from train.prepare.page import build_page
from train.prepare.scan import Failure, Job
from train.prepare.settings import PrepareSettings, file_names
from train.prepare.subjects import REFERENCE, Source
from vxm_convert.artifacts.files import write_json, write_text
from vxm_convert.artifacts.names import FAILURES_NAME
from vxm_convert.artifacts.tsv import write_table

JSON_NAME, PAGE_NAME, MANIFEST_NAME = "prepare.json", "prepare.html", "scans.csv"
TABLES = (JSON_NAME, PAGE_NAME, FAILURES_NAME, MANIFEST_NAME)


def write_tables(job: Job, sources: Sequence[Source], records: Dict[str, Record], failures: List[Failure]) -> None:
    """All of them, for the scans that are prepared so far."""
    settings, out = job.settings, job.settings.out
    document = {
        "schema": 1,
        "kind": "preparation",
        "data": str(settings.data),
        "settings": settings.shaping(),
        "key": job.key,
        "tool": job.tool.describe(),
        "label_set": job.labels.name,
        "reference": {
            "name": job.reference.source.name,
            "file": file_names(REFERENCE, settings.format)[0],
            "made_from": job.reference.made_from,
            "network_grid": job.reference.network.to_dict(),
            **job.reference.details,
        },
        "scans": [records[name] for name in sorted(records)],
        "failures": [asdict(failure) for failure in failures],
        "not_reached": sorted({s.name for s in sources} - set(records) - {f.subject for f in failures}),
    }
    write_json(out / JSON_NAME, document)
    write_table(
        out / FAILURES_NAME, [f.name for f in fields(Failure)], (asdict(failure).values() for failure in failures)
    )
    parts = {source.name: source.part for source in sources if source.name in records}
    if any(parts.values()):
        write_text(out / MANIFEST_NAME, _manifest(settings, parts))
    elif (out / MANIFEST_NAME).is_file():
        # Of an earlier run, whose manifest named other parts.
        (out / MANIFEST_NAME).unlink()
    write_text(out / PAGE_NAME, build_page(document, out / PICTURES))


def _manifest(settings: PrepareSettings, parts: Dict[str, Optional[str]]) -> str:
    """A manifest for training that keeps the parts of the one that was given."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("moving", "split"))
    writer.writerows(
        (f"{SCANS}/{file_names(name, settings.format)[0]}", part or "train") for name, part in parts.items()
    )
    return text.getvalue()
