# SPDX-License-Identifier: Apache-2.0
"""Runtime: the interface of every executor of an exported model, and the checks common to all.

A runtime takes arrays keyed by meaning (``moving``, ``fixed``) and returns arrays keyed by meaning (``moved``,
``flow``). It never converts, pads or reorders: it refuses arrays that do not fit the contract exactly.
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
#: A run between `stage` and `fetch`; its content is private to the runtime.
InFlight = Any
FIXED = "fixed"


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Parameters
    ----------
    outputs : dict — meaning → array of the contract's shape and dtype, owned by the caller.
    device_seconds : float — wall time of the execution alone, without copies to and from the device, in seconds.
    """

    outputs: Dict[str, np.ndarray]
    device_seconds: float


class Runtime(abc.ABC):
    """Context manager for one loaded model; subclasses do the work in ``_open``, ``_run`` and ``_close``.

    `run` does everything at once. `stage`, `execute`, `collect` and `fetch` are its four parts, for callers that fill
    and empty a second set of buffers while the first one is executed; a runtime whose `reserve` returns 1 has only one
    set.

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
        """Load the model; on failure nothing stays allocated."""
        if self._is_open:
            raise RuntimeError("the runtime is open already")
        self._open()
        self._is_open = True

    def close(self) -> None:
        """Release everything; closing twice, or closing a runtime that was never opened, is not an error."""
        if self._is_open:
            self._is_open = False
            self._fixed = None
            self._close()

    def abandon(self) -> None:
        """Give up a device that does not answer: nothing is released, because releasing would wait for it as well. The
        process should end soon; its end releases everything.
        """
        self._is_open = False

    def set_fixed(self, fixed: np.ndarray) -> None:
        """Set the fixed image for runs whose feeds have none.

        Parameters
        ----------
        fixed : ndarray, shape (B, X, Y, Z, 1), float32 — in the contract's intensity range.

        Raises
        ------
        ContractError
            If it does not fit the contract.
        """
        self._check_array(self.contract.tensor(FIXED), fixed)
        self._fixed = fixed

    def run(self, feeds: Mapping[str, np.ndarray]) -> RunResult:
        """Execute the model once.

        Parameters
        ----------
        feeds : dict — meaning → ndarray, shape (B, X, Y, Z, 1), float32, C-contiguous, the contract's batch. ``fixed``
            may be omitted after `set_fixed`.

        Raises
        ------
        ContractError
            If an input is missing or unknown, or has another dtype, shape or memory order than in the contract.
        """
        return self._run(self._complete(feeds))

    def reserve(self, sets: int) -> int:
        """Allocate up to `sets` sets of buffers; returns their number, which is smaller if memory is short."""
        return sets

    def stage(self, feeds: Dict[str, np.ndarray]) -> InFlight:
        """Copy the inputs of a run to the device, into a free set of buffers. Returns the argument of `execute`."""
        return self._complete(feeds)

    def execute(self, staged: InFlight) -> InFlight:
        """Execute a staged run, one at a time, in any thread. Returns the argument of `collect`."""
        return self._run(staged)

    def collect(self, executed: InFlight) -> InFlight:
        """Copy the outputs from the device before it gets the next run, so that a device lost in the next run takes no
        finished result with it. Returns the argument of `fetch`.
        """
        return executed

    def fetch(self, collected: InFlight) -> RunResult:
        """Check the outputs and copy them out; the set of buffers is free afterwards."""
        result: RunResult = collected
        return result

    def _complete(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Checked feeds, including the fixed image set before."""
        if not self._is_open:
            raise RuntimeError("the runtime is not open: use it in a with statement")
        complete = dict(feeds)
        if self._fixed is not None:
            complete.setdefault(FIXED, self._fixed)
        wanted = {spec.meaning: spec for spec in self.contract.inputs}
        if set(complete) != set(wanted):
            raise ContractError(
                f"inputs: got {_names(complete)}, expected {_names(wanted)}; pass the model's inputs by their meaning"
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
            raise ContractError(f"input {spec.meaning!r}: dtype {array.dtype}, expected {spec.dtype}; convert it first")
        if tuple(array.shape) != tuple(spec.shape):
            raise ContractError(
                f"input {spec.meaning!r}: shape {array.shape}, the model was exported for {tuple(spec.shape)}; "
                "resample the scan to the network grid and fill the batch, or export with another shape"
            )
        if not array.flags["C_CONTIGUOUS"]:
            raise ContractError(
                f"input {spec.meaning!r}: its memory is not in C order; pass numpy.ascontiguousarray of it"
            )

    @abc.abstractmethod
    def _open(self) -> None:
        """Acquire everything; on failure release what has been acquired."""

    @abc.abstractmethod
    def _run(self, feeds: Dict[str, np.ndarray]) -> RunResult:
        """Execute with feeds that fit the contract."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Release everything; called once per successful `_open`."""


def _names(keys: Iterable[str]) -> str:
    return ", ".join(sorted(str(key) for key in keys)) or "none"
