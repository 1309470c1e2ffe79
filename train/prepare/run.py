# SPDX-License-Identifier: Apache-2.0
"""A whole preparation: reference, what is left to do, the scans, and the tables and the page, which are written however
the run ends.
"""

from __future__ import annotations

import logging
import shutil
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from train.prepare.manifest import MANIFEST_NAME, PAGE_NAME, TABLES, write_tables
from train.prepare.outputs import PICTURES, SCANS, TRANSFORMS, Record, finished, others, read_record
from train.prepare.reference import Reference, find_reference, load_reference, write_reference
from train.prepare.scan import AFTER, TEMPORARY, Failure, Job, Outcome, judge_scan, made_from_of
from train.prepare.settings import PrepareSettings, file_names, key_of
from train.prepare.subjects import REFERENCE, Source, find_sources
from train.prepare.tools import Tool, choose_tool
from train.prepare.work import cpu_count, prepare_all
from vxm_convert.artifacts.files import check_output_folder
from vxm_convert.artifacts.names import FAILURES_NAME
from vxm_convert.artifacts.sha256sums import begin_manifest, files_below, finish_manifest
from vxm_convert.artifacts.shares import Lock, take_lock
from vxm_convert.artifacts.targets import check_apart
from vxm_convert.errors import EXIT_OK, EXIT_USER, ArtifactError, TrainingError, VxmError
from vxm_convert.metrics.labels import load_label_set
from vxm_convert.text import line_of

LOG = logging.getLogger(__name__)

_LOCK_NAME = ".prepare.lock"


def run(settings: PrepareSettings) -> int:
    """Exit code of a preparation.

    Raises
    ------
    VxmError
        What stops it as a whole; a single bad scan becomes a row and exit code 1.
    """
    labels = load_label_set(settings.labels)
    check_apart(settings.out, settings.data, "--data")
    sources = find_sources(settings.data, settings.out)
    tool = choose_tool(settings.tool, settings.shape)
    LOG.info("%d scans in %s, tool: %s", len(sources), settings.data, tool.describe())
    if settings.dry_run:
        return _plan_only(settings, sources, tool)
    with _alone_in(check_output_folder(settings.out)):
        reference, key = _reference(settings, sources, tool)
        rest = [s for s in sources if not _is_reference(s, reference)]
        if not rest:
            raise TrainingError(
                f"{settings.data}: its only scan is the reference; add scans, or give another --reference"
            )
        threads = max(1, cpu_count() // max(1, settings.jobs))
        job = Job(settings, reference, tool, labels, key, threads)
        kept = _check_others(settings, [s.name for s in rest], key)
        return _prepare(job, rest, kept)


def _reference(settings: PrepareSettings, sources: Sequence[Source], tool: Tool) -> Tuple[Reference, str]:
    """The reference, and the key of everything that is registered to it."""
    source, why = find_reference(settings, sources, _earlier_choice(settings))
    reference = load_reference(settings, source, why)
    return reference, _key(settings, tool, reference)


def _is_reference(source: Source, reference: Reference) -> bool:
    """By its path, or by its bytes where the reference was given as a copy from elsewhere."""
    path, other = source.path, reference.source.path
    return path.samefile(other) or (
        path.stat().st_size == other.stat().st_size and source.file.sha256 == reference.sha256
    )


def _key(settings: PrepareSettings, tool: Tool, reference: Reference) -> str:
    return key_of(
        settings, tool=tool.name, reference=reference.sha256, reference_seg=reference.made_from.get("seg", "")
    )


def _earlier_choice(settings: PrepareSettings) -> Any:
    record = read_record(settings.out / file_names(REFERENCE, settings.format)[0]) or {}
    return record.get("name") if record.get("shaping") == settings.shaping() and record.get("chosen") else None


def _check_others(settings: PrepareSettings, names: List[str], key: str) -> List[Record]:
    """Records of scans that earlier runs with the same settings prepared from other data; they stay.

    Raises
    ------
    ArtifactError
        For scans prepared otherwise (``--force`` removes them), and for files that no run of ours has finished.
    """
    records, unknown = others(settings.out, names)
    if unknown:
        raise ArtifactError(
            f"{settings.out / SCANS}: holds {len(unknown)} files that belong to no finished scan, such as "
            f"{unknown[0]}; "
            "training would read them: remove them or choose another --out"
        )
    other = {name: record for name, record in records.items() if record.get("key") != key}
    if other and not settings.force:
        raise ArtifactError(
            f"{settings.out / SCANS}: holds {len(other)} scans prepared with other settings or another reference, "
            "such as "
            f"{sorted(other)[0]}; choose another --out, or remove them with --force"
        )
    for record in other.values():
        for name in record["files"]:
            for path in (settings.out / name, settings.out / f"{name}.json"):
                if path.is_file() and settings.out.resolve() in path.resolve().parents:
                    path.unlink()
    return [record for name, record in records.items() if name not in other]


def _prepare(job: Job, sources: Sequence[Source], kept: List[Record]) -> int:
    settings, out = job.settings, job.settings.out
    earlier = begin_manifest(out)
    write_reference(settings, job.reference, job.key)
    records = {str(record["name"]): record for record in kept}
    failures: List[Failure] = []
    todo = []
    for source in sources:
        record = None if settings.force else _finished(job, source)
        if record is None:
            todo.append(source)
        else:
            records[source.name] = record
    LOG.info(
        "%d scans to prepare, %d done before; reference: %s",
        len(todo),
        len(sources) - len(todo),
        job.reference.source.path.name,
    )
    try:
        with logging_redirect_tqdm(), tqdm(total=len(todo), unit="scan", disable=None) as bar, closing(
            prepare_all(job, todo)
        ) as outcomes:
            for source, outcome in outcomes:
                _take(source, outcome, records, failures)
                bar.update()
    finally:
        _clear_temporary(out)
        write_tables(job, sources, records, failures)
        made = files_below(out, SCANS, TRANSFORMS, PICTURES) + [
            path.name for path in out.iterdir() if path.name.startswith(REFERENCE)
        ]
        finish_manifest(out, made + list(TABLES), earlier)
    LOG.info("%d prepared, %d failed; look at %s", len(records), len(failures), out / PAGE_NAME)
    return _conclude(job, failures)


def _finished(job: Job, source: Source) -> Any:
    try:
        seg = source.seg_file.sha256 if source.seg_file is not None else None
        made_from = made_from_of(source.file.sha256, seg, job.reference)
    except VxmError:
        # It cannot be read: preparing it says so in its row.
        return None
    return finished(job.settings.out, source.name, job.settings, job.key, made_from)


def _take(source: Source, outcome: Outcome, records: Dict[str, Record], failures: List[Failure]) -> None:
    if isinstance(outcome, Failure):
        LOG.error("%s: %s failed: %s", source.name, outcome.stage, outcome.reason)
        failures.append(outcome)
        return
    for warning in outcome["warnings"]:
        LOG.warning("%s: %s", source.name, warning)
    LOG.info("%s: brains overlap by %.3f (Dice), %.0f s", source.name, outcome[AFTER]["overlap"], outcome["seconds"])
    records[source.name] = outcome


def _conclude(job: Job, failures: List[Failure]) -> int:
    settings = job.settings
    manifest = settings.out / MANIFEST_NAME
    data = manifest if manifest.is_file() else settings.out / SCANS
    atlas = settings.out / file_names(REFERENCE, settings.format)[0]
    sys.stdout.write(f"page: {settings.out / PAGE_NAME}\nnext: python -m train --data {data} --atlas {atlas}\n")
    if failures:
        LOG.error("%d scans failed, reasons in %s", len(failures), settings.out / FAILURES_NAME)
        return EXIT_USER
    return EXIT_OK


def _plan_only(settings: PrepareSettings, sources: Sequence[Source], tool: Tool) -> int:
    """Say what a run would do, and which scans it would refuse when it reads them; search and write nothing."""
    reference, key = _reference(settings, sources, tool)
    job = Job(settings, reference, tool, load_label_set(settings.labels), key, 1)
    lines = [
        f"reference: {reference.source.path} ({reference.why}), network grid {reference.network.describe()}",
        f"tool: {tool.describe()}, {settings.transform}",
    ]
    refused = 0
    for source in sources:
        if _is_reference(source, reference):
            state = "is the reference"
        else:
            state = "done" if not settings.force and _finished(job, source) is not None else "to do"
        why = judge_scan(job, source) if state == "to do" else None
        if why is not None:
            refused += 1
            lines.append(f"{'refuse':<16}  {source.path}  {line_of(why)}")
            continue
        labels = f", labels {source.seg.name}" if source.seg else ""
        target = "" if state == "is the reference" else f" -> {SCANS}/{file_names(source.name, settings.format)[0]}"
        lines.append(f"{state:<16}  {source.path}{labels}{target}")
    sys.stdout.write("\n".join(lines) + "\n")
    return EXIT_USER if refused else EXIT_OK


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """The folder for one run at a time; what a killed one left unfinished is cleared away. The lock ends with the
    process.

    Raises
    ------
    ArtifactError
        When another run works there.
    """
    with open(str(out / _LOCK_NAME), "w") as handle:
        if take_lock(handle.fileno(), out) is Lock.BUSY:
            raise ArtifactError(f"{out}: another preparation works there; wait for it or choose another --out")
        _clear_temporary(out)
        yield


def _clear_temporary(out: Path) -> None:
    for folder in (out, out / SCANS, out / TRANSFORMS, out / PICTURES):
        for path in folder.glob(TEMPORARY + "*"):
            if path.is_dir():
                shutil.rmtree(str(path), ignore_errors=True)
            else:
                path.unlink()
