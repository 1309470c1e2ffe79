# SPDX-License-Identifier: Apache-2.0
"""A climb in this process, on a simulated device in the state of a new process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest

from om_runner.device_check.climb import Request
from om_runner.device_check.worker import climb_all
from tests.support.planted_chips import CompiledOnce, planted
from vxm_convert.device_check.points import DIFFERS, FAILED, Point
from vxm_convert.sim.acl import runtime


@pytest.fixture(autouse=True)
def fresh_device(monkeypatch: Any) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("VXM_SIM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VXM_TOOLCHAIN", "sim")
    runtime.restart()
    yield
    runtime.restart()


def climbed(folder: Path, rung: str, chip: Optional[str] = None, **request: Any) -> List[Point]:
    """The points of one rung of a short check."""
    points: List[Point] = []

    def take(event: Dict[str, Any]) -> None:
        if "point" in event:
            points.append(Point.from_dict(event["point"]))

    settings = {"work": str(folder), "short": True, **request}
    climb_all(Request(**settings), [rung], take, CompiledOnce if chip is None else planted(chip))
    return points


def touched(points: List[Point]) -> Dict[str, str]:
    """Assumption → what was found, of the points that are not as predicted."""
    return {point.assumption: point.found for point in points if point.state in (DIFFERS, FAILED)}
