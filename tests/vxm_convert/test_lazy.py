# SPDX-License-Identifier: Apache-2.0
"""What is imported late, and what an import must not do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_LOADS = """
import sys, threading
from vxm_convert.sim.engine.backends import find_engine
find_engine()
import openvino
print(sys.modules["openvino_telemetry"], threading.active_count())
"""


def test_openvino_reports_nothing(project_root: Path) -> None:
    pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", _LOADS], cwd=str(project_root), stdout=subprocess.PIPE, timeout=120)
    assert done.stdout.decode().split() == ["None", "1"]
