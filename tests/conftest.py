# SPDX-License-Identifier: Apache-2.0
"""What every test may use: the versions in the header, the shared data folder. Fixtures of one area live in that
area.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import os
import platform
import re
import signal
import sys
import uuid
from pathlib import Path
from typing import Any, Iterator, List

import pytest

# Collecting thousands of tests makes no garbage; looking for it takes a third of the time.
gc.disable()
# Pictures are drawn to files; a display is never there.
os.environ.setdefault("MPLBACKEND", "Agg")
# What is logged as information is there to be looked at. pytest's own `log_level` does the same, and undoes it, three
# times in every test.
logging.getLogger().setLevel(logging.INFO)
# A shell's background job ignores Ctrl-C, and so would every command that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Tests run side by side already; threads that wait for work take time from the others.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
_folder_numbers = itertools.count()
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


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """`make test` shows at its end what failed here: the summary of the other Python has come between."""
    failed = [report for kind in ("failed", "error") for report in terminalreporter.stats.get(kind, [])]
    if not failed:
        return
    lines = []
    for report in failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        why = (crash.message if crash else str(report.longrepr)).strip().splitlines()[:1]
        lines.append(" ".join([f"FAILED on {platform.python_version()}: {report.nodeid}", *why])[:300] + "\n")
    (ROOT / "build").mkdir(exist_ok=True)
    path = ROOT / "build" / f"failed-tests-{platform.python_version()}.txt"
    path.write_text("".join(lines), encoding="utf-8")


@pytest.hookimpl(hookwrapper=True)
def pytest_sessionstart(session: pytest.Session) -> Iterator[None]:
    """Workers are forked with everything loaded."""
    with contextlib.ExitStack() as stack:
        if sys.platform == "linux" and session.config.getoption("numprocesses", None):
            from tests.support.forked import forked_workers

            stack.enter_context(forked_workers(uuid.uuid4().hex))
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """``--dist loadfile`` begins with the files that take longest."""
    if config.getvalue("dist") != "loadfile":
        return None
    from tests.support.longest_first import LongestFirst

    return LongestFirst(config, log)


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """What takes minutes gets an hour."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(3600))


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Workers that collect all tests share the compiling of modules."""
    worker = getattr(session.config, "workerinput", None)
    whole = [Path(name).resolve() for name in session.config.args] == [ROOT / "tests"]
    if worker and whole and not sys.dont_write_bytecode:
        from tests.support.bytecode import compile_part

        # pytest's own hook comes later; without a session it rewrites modules by their names alone.
        compile_part(ROOT, int(worker["workerid"][2:]), worker["workercount"])


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is loaded by now stays to the end: the collector of cycles need not go through it again and again."""
    if not session.config.getoption("numprocesses", None):
        from tests.support import remembered

        remembered.install()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20000, 10, 10)
    gc.enable()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As pytest's own, which looks through the folders of all earlier tests for a number that is free."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    folder = tmp_path_factory.getbasetemp() / f"{name}-{next(_folder_numbers)}"
    folder.mkdir(mode=0o700)
    return folder


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
