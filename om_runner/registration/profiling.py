# SPDX-License-Identifier: Apache-2.0
"""``--profile-ops``: a run whose executions acl.prof records, and the table of operators after it."""

from __future__ import annotations

import logging
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator

from om_runner.device.offline_model import OfflineModel
from om_runner.device.profiled import open_profiled, operator_summaries
from om_runner.device.runtime import Runtime
from om_runner.layers.op_times import OP_TIMES_NAME, estimates_beside, join, lines_of, read_summaries, write_op_times
from om_runner.names import PRECISION_FOLDER, STATE_FOLDER
from vxm_convert.artifacts.sha256sums import refresh_manifest
from vxm_convert.errors import VxmError
from vxm_convert.formats.om import read_om

LOG = logging.getLogger(__name__)

_FOLDER = "profile"


@contextmanager
def operators_profiled(out: Path, model: OfflineModel) -> Iterator[Callable[[OfflineModel, int], Runtime]]:
    """Yields the factory of profiled runtimes; afterwards, also after a failed run, the table is written and logged.

    A profile that cannot be read does not fail the registrations: it is a warning.
    """
    folder = Path(out) / STATE_FOLDER / _FOLDER
    shutil.rmtree(str(folder), ignore_errors=True)
    try:
        yield lambda opened, device: open_profiled(opened, device, folder)
    finally:
        if folder.is_dir():
            _finish(Path(out), folder, model)
        else:
            LOG.warning("--profile-ops: no scan was executed, so there are no times; --force executes them again")


def _finish(out: Path, folder: Path, model: OfflineModel) -> None:
    try:
        times = read_summaries(operator_summaries(folder, model.toolchain))
        joined = join(times, read_om(model.om_path), estimates_beside(model.om_path))
        path = write_op_times(out / PRECISION_FOLDER, joined, model.simulated)
        refresh_manifest(out, [f"{PRECISION_FOLDER}/{OP_TIMES_NAME}"])
    except VxmError as exc:
        LOG.warning("--profile-ops: %s; the PROF_ folder stays in %s", exc, folder)
        return
    for line in lines_of(joined, model.simulated):
        LOG.info("%s", line)
    LOG.info("times of operators: %s", path)
