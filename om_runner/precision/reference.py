# SPDX-License-Identifier: Apache-2.0
"""The runner's side of the TensorFlow reference process (tf_reference.py): finds its Python, exchanges messages with
it, ends it.
"""

from __future__ import annotations

import abc
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Dict, List, Optional, TypeVar, cast

from om_runner.precision.store import MOVING, REFERENCE_FLOW, REFERENCE_MOVED, CompareStore
from vxm_convert.errors import ArtifactError, ChecksumError, FormatError, ToolchainError, VxmError

LOG = logging.getLogger(__name__)
R = TypeVar("R", bound="Reference")

PYTHON_VARIABLE = "VXM_REFERENCE_PYTHON"
_SCRIPT = Path(__file__).with_name("tf_reference.py")
_PROBE = "import importlib.util, sys; sys.exit(0 if importlib.util.find_spec('tensorflow') else 3)"
_PROBE_SECONDS = 60
_LOG_TAIL_BYTES = 2000
_KINDS = {"artifact": ArtifactError, "checksum": ChecksumError, "format": FormatError}
_REMEDY = (
    f"pass a Python with TensorFlow 1.15 by --reference-python or ${PYTHON_VARIABLE}, or skip the comparison with "
    "--compare none"
)


def reference_python(choice: Optional[str]) -> str:
    """The Python for the reference: the option, the environment variable, else the runner's own."""
    return choice or os.environ.get(PYTHON_VARIABLE) or sys.executable


def check_reference_python(python: str) -> None:
    """Refuse, before the cohort starts, a Python that does not exist or has no TensorFlow; raises ToolchainError."""
    try:
        code = subprocess.run(
            [python, "-c", _PROBE],
            timeout=_PROBE_SECONDS,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ToolchainError(f"reference: cannot run {python} ({exc}); {_REMEDY}") from exc
    if code != 0:
        raise ToolchainError(
            f"reference: {python} has no TensorFlow, which the precision report compares with; {_REMEDY}"
        )


class Reference(abc.ABC):
    """Computes references; a context manager."""

    def __enter__(self: R) -> R:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    @abc.abstractmethod
    def tensorflow_version(self) -> str:
        """Version of the TensorFlow that computed them."""

    @abc.abstractmethod
    def run(self, subjects: List[str]) -> float:
        """Compute the reference of at most one batch of stored subjects; the arrays appear in the store. Returns
        seconds.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Give everything back."""


class ReferenceProcess(Reference):
    """One TensorFlow session for all compared subjects; a context manager.

    Parameters
    ----------
    python : str — interpreter.
    pb, contract : Path — frozen graph and contract.json.
    store : CompareStore — its folder is where both sides exchange arrays.
    inner : bool — for `run_tensors`: the graph is not optimised, so that every tensor in it is available.

    Raises
    ------
    ToolchainError, ArtifactError, ChecksumError, FormatError
        As reported by the process.
    """

    def __init__(self, python: str, pb: Path, contract: Path, store: CompareStore, inner: bool = False) -> None:
        self._store = store
        self._log = open(str(store.folder / "reference.log"), "w+b")
        command = [
            python,
            str(_SCRIPT),
            "--pb",
            str(Path(pb).resolve()),
            "--contract",
            str(Path(contract).resolve()),
            "--work",
            str(store.folder.resolve()),
        ] + ["--inner"] * inner
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, universal_newlines=True
            )
        except OSError as exc:
            self._log.close()
            raise ToolchainError(f"reference: cannot run {python} ({exc.strerror}); {_REMEDY}") from exc
        self._requests = cast(IO[str], self._process.stdin)
        self._answers = cast(IO[str], self._process.stdout)
        try:
            self._version = str(self._answer()["tensorflow"])
        except BaseException:
            self.close()
            raise

    @property
    def tensorflow_version(self) -> str:
        return self._version

    def close(self) -> None:
        """End the process: close its input, then kill it if it does not exit."""
        for stream in (self._requests, self._answers):
            try:
                stream.close()
            except OSError:
                LOG.debug("reference: its pipe was already closed")
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def run(self, subjects: List[str]) -> float:
        """Compute the reference of at most one batch of stored subjects; the arrays appear in the store. Returns
        seconds.
        """
        jobs = [
            {
                "moving": self._store.path(s, MOVING).name,
                "fixed": self._store.fixed_path(s).name,
                "moved": self._store.path(s, REFERENCE_MOVED).name,
                "flow": self._store.path(s, REFERENCE_FLOW).name,
            }
            for s in subjects
        ]
        return self._ask({"jobs": jobs})

    def run_tensors(self, feeds: Dict[str, str], fetches: Dict[str, str]) -> float:
        """Compute tensors ``node:index`` from others; values are file names in the store's folder. Returns seconds."""
        return self._ask({"feeds": feeds, "fetches": fetches})

    def _ask(self, request: Dict[str, Any]) -> float:
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
        except OSError:
            LOG.debug("reference: the process has ended; its last message says why")
        return float(self._answer()["seconds"])

    def _answer(self) -> Dict[str, Any]:
        line = self._answers.readline()
        if not line:
            raise ToolchainError(
                f"reference: the TensorFlow process ended (exit {self._process.wait()}) without an answer; its last "
                f"output: {self._tail()}"
            )
        message: Dict[str, Any] = json.loads(line)
        if "error" in message:
            raise self._error(message)
        return message

    def _error(self, message: Dict[str, Any]) -> VxmError:
        if message["kind"] == "tensorflow":
            return ToolchainError(f"reference: {message['error']}; {_REMEDY}")
        return _KINDS.get(message["kind"], ToolchainError)(f"reference: {message['error']}")

    def _tail(self) -> str:
        self._log.flush()
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _LOG_TAIL_BYTES))
        return self._log.read().decode("utf-8", "replace").strip() or "none (killed for lack of memory?)"
