# SPDX-License-Identifier: Apache-2.0
"""Runtime: the interface every executor of an exported model has, and the checks that are the same for all.

A runtime takes arrays keyed by meaning (``moving``, ``fixed``) and returns arrays keyed by meaning (``moved``,
``flow``). It never converts, pads or reorders: an array that does not fit the contract exactly is refused.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Dict, Iterable, Mapping, Optional, Type, TypeVar

import numpy as np

from vxm_convert.errors import ContractError
from vxm_convert.model.contract import GraphContract, TensorSpec

R = TypeVar("R", bound="Runtime")
#: A run on its way, between `stage` and `fetch`: what it is, only its runtime knows.
InFlight = Any
FIXED = "fixed"


@dataclass(frozen=True)
class RunResult:
    """What one run gave.

    Parameters
    ----------
    outputs : dict — meaning → array of the contract's shape and dtype, owned by the caller.
    device_seconds : float — wall time of the execution alone, without copies to and from the device, in seconds.
    """

    outputs: Dict[str, np.ndarray]
    device_seconds: float


class Runtime(abc.ABC):
    """Context manager around one loaded model; subclasses do the work in ``_open``, ``_run`` and ``_close``.

    `run` does everything at once. `stage`, `execute`, `collect` and `fetch` are its four parts, for callers that let a
    second set of buffers be filled and emptied while the first one is executed; a runtime whose `reserve` gives 1 has
    one set only.

    Parameters
    ----------
    contract : GraphContract — names, shapes and dtypes of the model's inputs and outputs.
    """

    def __init__(self, contract: GraphContract) -> None:
        self.contract = contract
        self._is_open = False
        self._fixed: Optional[np.ndarray] = None

    def __enter__(self: R) -> R:
        self.open()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def open(self) -> None:
        """Load the model; a runtime that fails here holds nothing."""
        if self._is_open:
            raise RuntimeError("the runtime is open already")
        self._open()
        self._is_open = True

    def close(self) -> None:
        """Give everything back; closing twice, or a runtime that never opened, is no error."""
        if self._is_open:
            self._is_open = False
            self._fixed = None
            self._close()

    def set_fixed(self, fixed: np.ndarray) -> None:
        """Name the fixed image that runs use when their feeds have none.

        Parameters
        ----------
        fixed : ndarray, shape (B, X, Y, Z, 1), float32 — in the contract's intensity range.

        Raises
        ------
        ContractError
            It does not fit the contract.
        """
        self._check_array(self.contract.tensor(FIXED), fixed)
        self._fixed = fixed

    def run(self, feeds: Mapping[str, np.ndarray]) -> RunResult:
        """Execute the model once.

        Parameters
        ----------
        feeds : dict — meaning → ndarray, shape (B, X, Y, Z, 1), float32, C-contiguous, the contract's batch.
            ``fixed`` may be left out after `set_fixed`.

        Raises
        ------
        ContractError
            An input is missing, unknown, or has another dtype, shape or memory order than the contract says.
        """
        return self._run(self._complete(feeds))

    def reserve(self, sets: int) -> int:
        """How many sets of buffers, at most `sets`, there are from now on; fewer where memory does not reach."""
        return sets

    def stage(self, feeds: Dict[str, np.ndarray]) -> InFlight:
        """Bring the inputs of a run to the device, into a free set of buffers; as `run`. Gives what `execute` takes."""
        return self._complete(feeds)

    def execute(self, staged: InFlight) -> InFlight:
        """Execute what was staged, one at a time, in any thread. Gives what `collect` takes."""
        return self._run(staged)

    def collect(self, executed: InFlight) -> InFlight:
        """Bring the outputs back from the device, before it is given the next run: a device that is lost there takes no
        result
        along that was finished here. Gives what `fetch` takes."""
        return executed

    def fetch(self, collected: InFlight) -> RunResult:
        """Check the outputs and copy them out; the set of buffers is free afterwards."""
        result: RunResult = collected
        return result

    def _complete(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Checked feeds, with the fixed image that was set."""
        if not self._is_open:
            raise RuntimeError("the runtime is not open: use it in a with statement")
        complete = dict(feeds)
        if self._fixed is not None:
            complete.setdefault(FIXED, self._fixed)
        wanted = {spec.meaning: spec for spec in self.contract.inputs}
        if set(complete) != set(wanted):
            raise ContractError(
                f"inputs: got {_names(complete)}, expected {_names(wanted)}; feed the model's inputs by their meaning"
            )
        for meaning, spec in wanted.items():
            self._check_array(spec, complete[meaning])
        return complete

    @staticmethod
    def _check_array(spec: TensorSpec, array: object) -> None:
        if not isinstance(array, np.ndarray):
            raise ContractError(
                f"input {spec.meaning!r}: got {type(array).__name__}, expected a numpy array of {spec.dtype}"
            )
        if array.dtype != np.dtype(spec.dtype):
            raise ContractError(
                f"input {spec.meaning!r}: dtype {array.dtype}, expected {spec.dtype}; convert it before feeding it"
            )
        if tuple(array.shape) != tuple(spec.shape):
            raise ContractError(
                f"input {spec.meaning!r}: shape {array.shape}, the model was exported for {tuple(spec.shape)}; "
                "resample the scan to the network grid and fill the batch, or export for another shape"
            )
        if not array.flags["C_CONTIGUOUS"]:
            raise ContractError(
                f"input {spec.meaning!r}: its memory is not in C order; pass numpy.ascontiguousarray of it"
            )

    @abc.abstractmethod
    def _open(self) -> None:
        """Acquire everything; on failure release what was acquired."""

    @abc.abstractmethod
    def _run(self, feeds: Dict[str, np.ndarray]) -> RunResult:
        """Execute with feeds that fit the contract."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Release everything; called once per successful `_open`."""


def _names(keys: Iterable[str]) -> str:
    return ", ".join(sorted(str(key) for key in keys)) or "none"
