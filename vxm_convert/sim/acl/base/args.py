# SPDX-License-Identifier: Apache-2.0
"""The table of calls: how each parses its arguments, what it needs, and what it returns when it fails.

pyACL is a C extension whose functions parse positional arguments with format letters; this module reproduces its
behaviour for every call. The Python function of a call takes parsed values, returns values, and raises `AclFailure`;
the table turns that into return codes. `INTERCEPT` injects faults and watches calls.
"""

from __future__ import annotations

import copy
import operator
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Tuple, TypeVar

from vxm_convert.sim.acl.base.state import SIM, AclFailure, log
from vxm_convert.sim.faults import FAULTS

Function = Callable[..., Any]
F = TypeVar("F", bound=Function)

_MASK32 = (1 << 32) - 1
_MASK64 = (1 << 64) - 1
#: Before Python 3.10 the C letters I and i asked for __int__, so even a numpy.float32 passed; later only __index__
#: counts.
_INT_COERCION = sys.version_info < (3, 10)

# Preconditions of a call
NOTHING, INIT, CONTEXT = range(3)


def _address(value: object) -> int:
    """``K``: Python ints (bool too), wrapped to 64 bits; NumPy integers and floats are refused."""
    if not isinstance(value, int):
        raise TypeError("int expected")
    return int(value) & _MASK64


def _integer(value: Any) -> int:
    if isinstance(value, float):
        raise TypeError("integer argument expected, got float")
    if _INT_COERCION and not hasattr(value, "__index__") and hasattr(value, "__int__"):
        return int(value)
    return operator.index(value)


def _unsigned32(value: object) -> int:
    """``I``: any integer, silently wrapped to 32 bits."""
    return _integer(value) & _MASK32


def _signed32(value: object) -> int:
    """``i``: any integer that fits 32 bits; otherwise OverflowError."""
    number = _integer(value)
    if not -(1 << 31) <= number < 1 << 31:
        raise OverflowError("signed integer is out of the range of a C int")
    return number


def _instance_of(kinds: Tuple[type, ...]) -> Callable[[object], object]:
    def convert(value: object) -> object:
        if not isinstance(value, kinds):
            raise TypeError(f"expected {kinds[0].__name__}, got {type(value).__name__}")
        return value

    return convert


def _text(value: object) -> str:
    """``s``: a str without NUL."""
    if not isinstance(value, str):
        raise TypeError(f"expected str, got {type(value).__name__}")
    if "\0" in value:
        raise ValueError("embedded null character")
    return value


#: Format letter → converter. The letter of a call decides how it treats NumPy integers, and clients depend on it.
LETTERS: Dict[str, Callable[[Any], Any]] = {
    "K": _address,  # pointers, handles, sizes
    "I": _unsigned32,  # indices, enumerations, model ids
    "i": _signed32,  # device ids, timeouts, values
    "s": _text,
    "z": lambda value: None if value is None else _text(value),
    "d": _instance_of((dict,)),
    "D": _instance_of((dict, type(None))),
    "t": _instance_of((tuple, list)),
    "O": lambda value: value,
}


class Call(NamedTuple):
    """One row of the table.

    Parameters
    ----------
    name : str — dotted, without the leading ``acl.``.
    letters : str — one letter of `LETTERS` per argument; those after ``|`` are optional.
    needs : int — NOTHING, INIT or CONTEXT.
    bare : bool — True: the call returns one value and no return code.
    otherwise : tuple — values returned on failure (before the return code, or alone if `bare`).
    function : callable — does the work on parsed arguments.
    """

    name: str
    letters: str
    needs: int
    bare: bool
    otherwise: Tuple[object, ...]
    function: Function


TABLE: Dict[str, Call] = {}
#: ``(call name, parsed arguments) -> return code`` asked before every call; non-zero makes the call fail with it.
INTERCEPT: List[Callable[[str, Tuple[Any, ...]], int]] = []


def call(name: str, letters: str = "", gives: Tuple[object, ...] = (), needs: int = INIT) -> Callable[[F], F]:
    """Register a call whose last value is a return code; `gives` are its other values on failure.

    The function returns None (no other values), one value, or a tuple of as many values as `gives`.
    """

    def register(function: F) -> F:
        TABLE[name] = Call(name, letters, needs, False, gives, function)
        return function

    return register


def query(name: str, letters: str = "", otherwise: object = 0, needs: int = NOTHING) -> Callable[[F], F]:
    """Register a call that returns a bare value, and `otherwise` on failure."""

    def register(function: F) -> F:
        TABLE[name] = Call(name, letters, needs, True, (otherwise,), function)
        return function

    return register


def parse(row: Call, args: Tuple[object, ...]) -> Tuple[object, ...]:
    """Arguments as the C function would see them; TypeError for a wrong count or type. Without letters, extra arguments
    are ignored.
    """
    if not row.letters:
        return ()
    required, _, optional = row.letters.partition("|")
    letters = required + optional
    if not len(required) <= len(args) <= len(letters):
        raise TypeError(
            f"acl.{row.name} args parse failed: {len(args)} given, expected {_count_text(len(required), len(letters))}"
        )
    try:
        return tuple(LETTERS[letter](value) for letter, value in zip(letters, args))
    except TypeError as exc:
        raise TypeError(f"acl.{row.name} args parse failed: {exc}") from exc


def _count_text(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _check_needs(row: Call) -> None:
    if row.needs >= INIT and not SIM.initialised:
        raise AclFailure(100001, "acl.init has not been called")
    if row.needs >= CONTEXT:
        SIM.context()


def _ask_interceptors(row: Call, values: Tuple[object, ...]) -> None:
    for ask in list(INTERCEPT):
        code = ask(row.name, values)
        if code:
            raise AclFailure(code, "injected fault")
    context = SIM.current
    strike = FAULTS.at_call(row.name, context.device_id if context is not None else None)
    if strike is not None:
        raise AclFailure(*strike)


def bind(row: Call) -> Function:
    """The function a client calls: positional arguments in, values and return code out, never an `AclFailure`."""
    short_name = row.name.rpartition(".")[2]

    def entry(*args: object, **kwargs: object) -> object:
        if kwargs:
            raise TypeError(f"{short_name}() takes no keyword arguments")
        values = parse(row, args)
        try:
            _ask_interceptors(row, values)
            _check_needs(row)
            result = row.function(*values)
        except AclFailure as failure:
            SIM.remember_error("acl." + row.name, failure.code, failure.message)
            log.debug("acl.%s -> %d: %s", row.name, failure.code, failure.message)
            return _shape(row, row.otherwise, failure.code)
        if row.bare:
            return result
        return _shape(row, _as_values(row, result), 0)

    entry.__name__ = entry.__qualname__ = short_name
    entry.__doc__ = row.function.__doc__
    return entry


def _as_values(row: Call, result: Any) -> Tuple[Any, ...]:
    if not row.otherwise:
        return ()
    return (result,) if len(row.otherwise) == 1 else tuple(result)


def _shape(row: Call, values: Tuple[object, ...], code: int) -> object:
    if row.bare:
        return values[0]
    # Copy mutable defaults, so that no client can change the table.
    values = tuple(copy.deepcopy(value) if isinstance(value, (dict, list)) else value for value in values)
    return values + (code,) if values else code


def functions_of(prefix: str) -> Dict[str, Function]:
    """Bound calls of one sub-module (``rt``), or with ``""`` the top-level ones, by short name."""
    chosen: Dict[str, Function] = {}
    for name, row in TABLE.items():
        module, _, short_name = name.rpartition(".")
        if module == prefix:
            chosen[short_name] = bind(row)
    return chosen
