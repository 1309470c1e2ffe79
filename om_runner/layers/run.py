# SPDX-License-Identifier: Apache-2.0
"""From a command line to OUT/precision/layers.csv and layers.json: scans, model, reference process, device,
analysis.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from om_runner.device.acl_runtime import acl_started
from om_runner.device.offline_model import OfflineModel, open_model
from om_runner.inputs.placement import BY_HEADERS, load_anywhere, load_atlas
from om_runner.inputs.scans import discover
from om_runner.layers.analysis import Analysis, AnalysisOptions
from om_runner.layers.device import Device
from om_runner.layers.golden import GoldenStore
from om_runner.layers.judge import LayerResult, Limits, mark_sources
from om_runner.layers.layer_table import LAYERS_SCHEMA, csv_text, json_rows, terminal_table
from om_runner.layers.matching import GoldenGraph, held_tensors, layers_of
from om_runner.names import LAYERS_CSV, LAYERS_JSON, LAYERS_NAMES, PRECISION_FOLDER
from om_runner.precision.reference import ReferenceProcess, check_reference_python, reference_python
from om_runner.precision.store import CompareStore
from vxm_convert.artifacts.files import check_output_folder, remove_earlier, write_text
from vxm_convert.artifacts.reports import report_head, write_report_json
from vxm_convert.artifacts.sha256sums import refresh_manifest
from vxm_convert.artifacts.targets import check_apart
from vxm_convert.errors import ArtifactError
from vxm_convert.formats.om import read_om
from vxm_convert.formats.tf_graph import read_graph

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerSettings:
    """A parsed command line; `limit_bytes` is the memory that may be used."""

    input: Path
    atlas: Path
    model: Path
    contract: Optional[Path]
    out: Path
    dump: Optional[Path]
    single: bool
    effect: bool
    limit_bytes: int
    limits: Limits
    toolchain: Optional[str]
    device: int
    reference_python: Optional[str]


def run_layers(settings: LayerSettings) -> str:
    """Compare every layer and write the two files; returns the table for the terminal.

    Raises
    ------
    VxmError
        If the comparison must stop: an unusable scan, model or dump, or a failing device, compiler or reference.
    """
    started = time.time()
    check_apart(settings.out, settings.input, "--input")
    model = open_model(settings.model, settings.contract, settings.toolchain)
    python = reference_python(settings.reference_python)
    check_reference_python(python)
    if settings.dump is not None and not settings.dump.is_dir():
        raise ArtifactError(
            f"{settings.dump}: no such folder of dump files; pass the folder that the device wrote with --dump"
        )
    om = read_om(model.om_path)
    graph = GoldenGraph(read_graph(model.pb_path))
    layers = layers_of(om.graph, om.attrs, model.contract, graph)
    feeds, subjects = _feeds(settings, model)
    check_output_folder(settings.out)
    _clear(settings.out)
    with CompareStore(settings.out, 0) as store, ExitStack() as stack:
        reference = stack.enter_context(ReferenceProcess(python, model.pb_path, model.contract_path, store, inner=True))
        golden = GoldenStore(store.folder, reference, graph)
        for spec in model.contract.inputs:
            golden.put(spec.tensor_name, feeds[spec.meaning])
        device = None
        if settings.dump is None or settings.single:
            acl = model.toolchain.load_acl()
            stack.enter_context(acl_started(acl, str(model.om_path)))
            device = Device(acl, model, om.name, settings.device, feeds, store.folder)
        options = AnalysisOptions(store.folder, settings.limit_bytes, settings.single, settings.effect, settings.dump)
        held = held_tensors(om.graph, layers)
        results = Analysis(model, layers, held, graph, golden, device, options).run()
        version = reference.tensorflow_version
    sources = mark_sources(results, settings.limits)
    _write(settings, model, subjects, results, sources, version, time.time() - started)
    badge = "SIMULATED device" if model.simulated else "device"
    return f"{badge}, {', '.join(subjects)} to {settings.atlas.name}: {terminal_table(results, sources)}"


def _clear(out: Path) -> None:
    """Remove the results of an earlier comparison, which do not belong to this one."""
    remove_earlier(Path(out) / PRECISION_FOLDER, LAYERS_NAMES, "result of an earlier run")


def _feeds(settings: LayerSettings, model: OfflineModel) -> Any:
    """Inputs of one execution by meaning, and its subjects; unused positions repeat the last scan."""
    batch = model.contract.model.batch
    scans = discover(settings.input, settings.atlas, batch)
    atlas = load_atlas(settings.atlas, model)
    images = [load_anywhere(scan, model.contract, atlas, BY_HEADERS).image for scan in scans]
    moving = np.stack([images[min(position, len(images) - 1)] for position in range(batch)])[..., np.newaxis]
    fixed = np.repeat(atlas.image[np.newaxis, ..., np.newaxis], batch, axis=0)
    feeds = {"moving": np.ascontiguousarray(moving, np.float32), "fixed": np.ascontiguousarray(fixed, np.float32)}
    return feeds, [scan.subject for scan in scans]


def _write(
    settings: LayerSettings,
    model: OfflineModel,
    subjects: Sequence[str],
    results: Sequence[LayerResult],
    sources: List[LayerResult],
    tensorflow: str,
    seconds: float,
) -> None:
    folder = Path(settings.out) / PRECISION_FOLDER
    write_text(folder / LAYERS_CSV, csv_text(results))
    report: Dict[str, Any] = {
        **report_head("layers", model.toolchain.describe(), model.simulated, len(subjects)),
        "layers_schema": LAYERS_SCHEMA,
        "subjects": list(subjects),
        "fixed": settings.atlas.name,
        "single": settings.single,
        "effect": settings.single and settings.effect,
        "dump": "given" if settings.dump is not None else "made",
        "limits": {"layer": settings.limits.layer, "output": settings.limits.output},
        "model": {
            "precision": model.contract.precision.to_dict(),
            "soc_version": model.contract.soc_version,
            "om_sha256": model.contract.hashes.get("om"),
            "frozen_pb_sha256": model.contract.hashes.get("frozen_pb"),
            "batch": model.contract.model.batch,
            "volume_shape": list(model.contract.model.volume_shape),
        },
        "reference": {"tensorflow": tensorflow},
        "seconds": seconds,
        "sources": [
            {"name": r.layer.op, "output": r.layer.output, "share": r.share, "advice": r.advice} for r in sources
        ],
        "layers": json_rows(results),
    }
    write_report_json(folder / LAYERS_JSON, report)
    refresh_manifest(settings.out, [f"{PRECISION_FOLDER}/{name}" for name in LAYERS_NAMES])
    LOG.info("%d layers in %.0f s: %s and %s", len(results), seconds, folder / LAYERS_CSV, LAYERS_JSON)
