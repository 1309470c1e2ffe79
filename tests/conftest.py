# SPDX-License-Identifier: Apache-2.0
"""What every test may use: the versions in the header, the shared data folder. Fixtures of one area live in that
area.
"""

from __future__ import annotations

import functools
import gc
import os
import pickle
import platform
import signal
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

# Pictures are drawn to files; a display is never there.
os.environ.setdefault("MPLBACKEND", "Agg")
# A shell's background job ignores Ctrl-C, and so would every command that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Tests run side by side already; threads that wait for work take time from the others.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
_REPORTED = ("numpy", "scipy", "nibabel", "protobuf", "onnx", "tensorflow", "tf2onnx", "openvino", "onnxruntime")


def pytest_report_header(config: pytest.Config) -> List[str]:
    """Versions that shape the results; none of these packages is imported for it."""
    from vxm_convert.toolchain.doctor import installed_version

    versions = ", ".join(f"{name} {installed_version(name) or '-'}" for name in _REPORTED)
    return [f"python {platform.python_version()}: {versions}", f"toolchain: {os.environ.get('VXM_TOOLCHAIN', 'auto')}"]


def pytest_sessionfinish() -> None:
    """The browser that tests share ends with them."""
    shared = sys.modules.get("tests.support.browser")
    if shared is not None:
        shared.close()


def pytest_collection_finish() -> None:
    """What is loaded by now stays to the end: the collector of cycles need not go through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20000, 10, 10)


@pytest.fixture(scope="session", autouse=True)
def remembered_programs() -> Iterator[None]:
    """OpenVINO compiles equal small graphs once per process; requests and their tensors are new for every load."""
    from vxm_convert.sim.engine import backends

    compile_one = backends._compiled
    remembered = functools.lru_cache(maxsize=200)(compile_one)
    backends._compiled = lambda content: (remembered if len(content) < 1 << 17 else compile_one)(content)
    yield
    backends._compiled = compile_one


@pytest.fixture(scope="session", autouse=True)
def remembered_drawings() -> Iterator[None]:
    """A drawing of a page that was made from the same values before is not made again: one takes 50 ms, a page has 30."""
    from om_runner.precision.page import charts, colourbars, layers, limits

    def remembering(draw: Callable[..., Any]) -> Callable[..., Any]:
        made: Dict[bytes, Any] = {}

        @functools.wraps(draw)
        def drawn(*values: Any) -> Any:
            key = pickle.dumps(values)
            if key not in made:
                made[key] = draw(*values)
            return made[key]

        return drawn

    with pytest.MonkeyPatch.context() as patch:
        for module, names in (
            (charts, ("_error_chart", "_jacobian_chart", "_dice_chart")),
            (colourbars, ("_signed_bar", "_magnitude_bar")),
            (layers, ("_chart",)),
            (limits, ("_axis", "_strip")),
        ):
            for name in names:
                patch.setattr(module, name, remembering(getattr(module, name)))
        yield


@pytest.fixture(scope="module")
def forked_commands() -> Iterator[None]:
    """What the tests of a module start with this interpreter is forked with all large packages loaded."""
    from tests.support.forked import forking

    with pytest.MonkeyPatch.context() as patch:
        for name, value in forking(dict(os.environ)).items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def own_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among tests with `forked_commands`: what this test starts is started as a user's command is."""
    monkeypatch.delenv("VXM_TESTS_FORK")


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder that holds Makefile and README."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real scans and weights beside the project; they are not part of it."""
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "brains").is_dir():
        pytest.skip(f"real data are not here: no folder {os.path.relpath(str(folder), str(ROOT))}")
    return folder
