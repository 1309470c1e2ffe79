# SPDX-License-Identifier: Apache-2.0
"""Workers before the first scan: waited for, compared with the client, with the model loaded; and those that are sent
away. It hands out no scans.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Dict

from om_runner.cluster import task
from om_runner.cluster.connect import workers_of
from om_runner.cluster.fleet import Fleet
from om_runner.cluster.order import RESOURCE, Order
from vxm_convert.errors import AclError, ToolchainError

LOG = logging.getLogger(__name__)

#: seconds to wait for the first worker
_FIRST_WORKER = 120.0


def muster(client: Any, order: Order, fleet: Fleet, where: str, expected: int) -> None:
    """Note the workers of a cluster that serve.

    Parameters
    ----------
    where : str — address of the scheduler.
    expected : int — workers to wait for.

    Raises
    ------
    ToolchainError
        If none comes, or one differs from this client.
    AclError
        If no device loads the model.
    """
    _wait(client, where, expected)
    found = client.run(task.check, order, workers=[address for address, _ in workers_of(client)])
    wrong = [
        f"{address} on {about['host']}: {'; '.join(about['differences'])}"
        for address, about in sorted(found.items())
        if about["differences"]
    ]
    if wrong:
        raise ToolchainError(
            f"{len(wrong)} of {len(found)} workers differ from this client: {' | '.join(wrong)}; give all of them the "
            "same software and files, or stop these"
        )
    for address, about in found.items():
        fleet.joined(address, about["token"])
    LOG.info("%d workers, all with the same versions, model and atlas", len(found))
    _prepare(client, order, fleet, {address: about["host"] for address, about in found.items()})


def _wait(client: Any, where: str, expected: int) -> None:
    end, told = time.monotonic() + _FIRST_WORKER, False
    while len(workers_of(client)) < expected:
        if not told:
            LOG.info("waiting up to %.0f s for a worker at %s", _FIRST_WORKER, where)
        told = True
        if time.monotonic() > end:
            raise ToolchainError(
                f"{where}: no worker has the resource {RESOURCE}; start some with `python -m om_runner worker --scheduler "
                f"{where} --device N`"
            )
        time.sleep(0.1)


def _prepare(client: Any, order: Order, fleet: Fleet, hosts: Dict[str, str]) -> None:
    """Load the model on all devices at the same time; those that refuse it get no scans."""
    refused = []
    for address, made in sorted(client.run(task.prepare, order, workers=list(hosts)).items()):
        for line in made.said:
            LOG.warning("device %d on %s: %s", made.device, hosts[address], line.partition(": ")[2])
        if made.refused is not None:
            refused.append((address, made))
    if len(refused) == len(hosts):
        raise AclError(refused[0][1].refused)
    for address, made in refused:
        what = f"device {made.device} on {hosts[address]} gets no scans: {made.refused}"
        send_away(client, fleet, address, what, made.refused)


def send_away(client: Any, fleet: Fleet, address: str, message: str, why: str) -> None:
    """End a worker whose device, files or disk do not serve."""
    LOG.error("%s", message)
    fleet.lost(address, why)
    client.retire_workers(workers=[address], close_workers=True)
