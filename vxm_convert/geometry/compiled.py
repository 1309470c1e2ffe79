# SPDX-License-Identifier: Apache-2.0
"""Whether loops over voxels are compiled, and their calls: chosen by ``VXM_HOST``, loaded on first use, a slab at a time
on a bounded number of threads.

SciPy and NumPy are the reference and do the work where numba is missing, where it is switched off, and for small grids,
which they finish before numba is imported.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

import numpy as np

from vxm_convert.errors import ToolchainError
from vxm_convert.processor_time import add_others, timed

LOG = logging.getLogger(__name__)

#: environment variable that chooses the engine, and its values
VARIABLE = "VXM_HOST"
ENGINES = ("auto", "numba", "scipy")
#: voxels of a grid below which numba is not imported for it: importing takes half a second
LEAST_VOXELS = 80**3
_PLANES = 8
#: more threads would only wait for memory bandwidth
_MOST_THREADS = 4

_lock = threading.Lock()
_loaded: Dict[str, Any] = {}
_missing: Optional[str] = None
_announced = False
_when_compiling: Optional[Callable[[], None]] = None


def compiled_for(shape: Tuple[int, ...]) -> bool:
    """Whether work on a grid of this shape is done by compiled loops.

    Raises
    ------
    ToolchainError
        If the environment variable has another value than `ENGINES`, or asks for numba where it cannot be imported.
    """
    wanted = os.environ.get(VARIABLE, "") or ENGINES[0]
    if wanted not in ENGINES:
        raise ToolchainError(f"{VARIABLE}: got {wanted!r}, expected one of {', '.join(ENGINES)}")
    if wanted == "scipy" or (wanted == "auto" and int(np.prod(shape[:3])) < LEAST_VOXELS):
        return False
    reason = _reason_against()
    if reason is not None and wanted == "numba":
        raise ToolchainError(f"{VARIABLE}=numba: numba cannot be imported ({reason}); install it, or unset {VARIABLE}")
    return reason is None


def check_engine() -> None:
    """Raise ToolchainError now if the choice in the environment cannot be honoured later."""
    compiled_for((1, 1, 1))


def numba_version() -> str:
    """The version of numba, where it is."""
    import numba

    return str(numba.__version__)


def _reason_against() -> Optional[str]:
    """Why numba cannot be imported, or None; said once."""
    global _missing
    with _lock:
        if _missing is None:
            try:
                import numba

                LOG.debug("numba %s", numba.__version__)
                _missing = ""
            except ImportError as exc:
                _missing = str(exc) or "no reason given"
                LOG.warning("numba is missing (%s): resampling is done by SciPy, which takes several times longer", exc)
    return _missing or None


class Places:
    """The threads that compiled loops may use together: each caller counts as one, and takes others while they are free.

    Parameters
    ----------
    threads : int
    """

    def __init__(self, threads: int) -> None:
        self._free, self._lock = threads, threading.Lock()

    @contextmanager
    def some(self, wanted: int) -> Iterator[int]:
        """Number of threads to use, from 1 to `wanted`."""
        with self._lock:
            got = max(1, min(wanted, self._free))
            self._free -= got
        try:
            yield got
        finally:
            with self._lock:
                self._free += got


_places = Places(max(1, min(_MOST_THREADS, os.cpu_count() or 1)))


def set_threads(threads: int) -> None:
    """Bound the threads of all compiled loops of this process together (default: one per processor, at most four)."""
    global _places
    _places = Places(threads)


def by_planes(planes: int, work: Callable[[slice], None]) -> None:
    """Call `work` for slabs that cover the first axis, on as many threads as are free."""
    parts = [slice(at, min(at + _PLANES, planes)) for at in range(0, planes, _PLANES)]
    with _places.some(len(parts)) as threads:
        if threads == 1:
            for part in parts:
                work(part)
            return
        with ThreadPoolExecutor(threads) as pool:
            for _, seconds in pool.map(timed(work), parts):
                add_others(seconds)


def kernel(name: str) -> Any:
    """The compiled function of a name of `tables()`."""
    with _lock:
        if name not in _loaded:
            _loaded[name] = compile_loop(*tables()[name])
    return _loaded[name]


def mapped(field: np.ndarray, turn: np.ndarray, along: np.ndarray) -> np.ndarray:
    """turn · v + along · x for every vector v of a float32 field and its voxel x; float32.

    Parameters
    ----------
    turn : ndarray, shape (3, 3).
    along : ndarray, shape (4, 4) or (3, 4).
    """
    out, loop = np.empty(field.shape, dtype=np.float32), kernel("linear_map")
    source, turn, rows = as_field(field), np.ascontiguousarray(turn, dtype=np.float64), rows_of(along)
    by_planes(field.shape[0], lambda part: loop(source[part], turn, rows, part.start, out[part]))
    return out


def as_field(u: np.ndarray) -> np.ndarray:
    """A field as the loops take it: float32 in C order; the same array if it is already."""
    return plain(u, np.float32)


def plain(array: np.ndarray, dtype: type) -> np.ndarray:
    """An array in C order with this dtype and this machine's byte order; the same array if it is already."""
    return np.ascontiguousarray(array, dtype=dtype)


def rows_of(matrix: np.ndarray) -> np.ndarray:
    """The first three rows of an affine matrix, float64, as the loops take it."""
    return plain(matrix[:3], np.float64)


def load_all() -> None:
    """Compile every loop, or load it, before times are taken."""
    for name in tables():
        kernel(name)


def tables() -> Dict[str, Tuple[Any, Tuple[Any, ...]]]:
    """Every loop: name → (function, types of its arguments)."""
    from vxm_convert.geometry import information, kernels

    return {**kernels.KERNELS, **information.KERNELS}


def compile_loop(function: Any, signature: Tuple[Any, ...]) -> Any:
    """A function compiled by numba for these types of arguments, from numba's cache where it is there."""
    import numba
    from numba.core import event

    # numba names its files by this, and asks only whether the function's own file has changed.
    function.__qualname__ = f"{function.__name__}_{_sources(os.path.dirname(function.__code__.co_filename))}"
    options = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    with event.install_listener("numba:compile", _announcer()), _uncollected():
        try:
            return numba.njit(signature, cache=True, **options)(function)
        except RuntimeError as exc:
            # Neither NUMBA_CACHE_DIR nor the folder of the source nor the user's own cache can be written.
            LOG.warning("compiled loops cannot be kept (%s); set NUMBA_CACHE_DIR to a folder that can be written", exc)
            # Who compiles beside this process could hand nothing over.
            when_compiling(None)
            return numba.njit(signature, **options)(function)


@lru_cache(maxsize=None)
def _sources(folder: str) -> str:
    """Digest of the files that loops of this folder are made of: those beside them, and those here."""
    found = hashlib.sha256()
    for source in sorted({*Path(folder).glob("*.py"), *Path(__file__).parent.glob("*.py")}):
        found.update(source.read_bytes())
    return found.hexdigest()[:12]


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's garbage collection: among the compiler's millions of objects it finds nothing and takes a tenth of
    the time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def when_compiling(act: Optional[Callable[[], None]]) -> None:
    """Call `act` once, when this process begins to compile its first loop; None: call nothing."""
    global _when_compiling
    _when_compiling = act


def _announcer() -> Any:
    """A listener to numba's compiler that says once per process what takes time; loading from the cache is silent."""
    from numba.core import event

    class Announcer(event.Listener):
        def on_start(self, event: Any) -> None:
            global _announced
            if not _announced:
                _announced = True
                LOG.info("compiling loops for this processor, once per installation; takes up to 10 s")
                if _when_compiling is not None:
                    _when_compiling()

        def on_end(self, event: Any) -> None:
            pass

    return Announcer()
