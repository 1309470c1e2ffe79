# SPDX-License-Identifier: Apache-2.0
"""TensorFlow's tensors of inner nodes, computed one after the other from existing ones and kept on disk while they are
needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, Sequence, Set

import numpy as np

from om_runner.layers.matching import GoldenGraph, Layer
from om_runner.precision.reference import ReferenceProcess
from om_runner.precision.store import load_mapped
from vxm_convert.artifacts.shares import cannot_map, write_problem
from vxm_convert.ascend.limits import HALF_MAX
from vxm_convert.errors import ArtifactError

_CHUNK = 1 << 20


def held_as(array: np.ndarray, dtype: str) -> np.ndarray:
    """A golden tensor in the device's form: fp16 saturates, everything else stays."""
    if dtype != "float16":
        return np.ascontiguousarray(array)
    return np.clip(array, -HALF_MAX, HALF_MAX).astype(np.float16)


class GoldenStore:
    """Golden tensors as .npy files in the folder that the TensorFlow process shares.

    Parameters
    ----------
    folder : Path — the shared folder.
    reference : ReferenceProcess — opened with ``inner=True``.
    graph : GoldenGraph
    """

    def __init__(self, folder: Path, reference: ReferenceProcess, graph: GoldenGraph) -> None:
        self._folder = Path(folder)
        self._reference = reference
        self._graph = graph
        self._files: Dict[str, str] = {}
        self._count = 0

    def put(self, tensor: str, array: np.ndarray) -> None:
        """Keep a given tensor: an input of the model."""
        self._files[tensor] = self.save(array)

    def save(self, array: np.ndarray) -> str:
        """Write an array for the TensorFlow process; returns the file's name."""
        name = self._new_name()
        try:
            np.save(str(self._folder / name), array, allow_pickle=False)
        except OSError as exc:
            raise ArtifactError(f"{self._folder / name}: writing failed: {write_problem(exc)}") from exc
        return name

    def compute(self, tensor: str) -> None:
        """Compute a tensor from the nearest kept ones."""
        if tensor in self._files:
            return
        feeds, _ = self._graph.behind(tensor, frozenset(self._files))
        name = self._new_name()
        self._reference.run_tensors({feed: self._files[feed] for feed in feeds}, {tensor: name})
        self._files[tensor] = name

    def variants(self, tensors: Sequence[str], replaced: Dict[str, str], known: FrozenSet[str]) -> List[np.ndarray]:
        """TensorFlow's tensors from `known` ones, some of which are replaced; memory-mapped, not kept.

        Parameters
        ----------
        replaced : dict — tensor → file of this folder with its replacement; the files are consumed.
        """
        results = {tensor: self._new_name() for tensor in tensors}
        feeds: Set[str] = set()
        for tensor in tensors:
            feeds.update(self._graph.behind(tensor, known | frozenset(replaced))[0])
        try:
            self._reference.run_tensors({feed: replaced.get(feed) or self._files[feed] for feed in feeds}, results)
            # A mapped file stays readable after it is deleted.
            return [self._load(results[tensor]) for tensor in tensors]
        finally:
            for name in list(replaced.values()) + list(results.values()):
                self._unlink(name)

    def save_held(self, tensor: str, dtype: str) -> str:
        """A kept tensor, rounded to the device's dtype and stored in the graph's own dtype; returns the file's name."""
        return self.save_made(self.get(tensor), lambda part: held_as(part, dtype).astype(part.dtype))

    def save_made(self, like: np.ndarray, make: Callable[..., np.ndarray], *others: np.ndarray) -> str:
        """``make(part of like, parts of others…)`` piece by piece, as a file of `like`'s shape and dtype; returns its
        name.
        """
        name = self._new_name()
        try:
            made = np.lib.format.open_memmap(str(self._folder / name), mode="w+", dtype=like.dtype, shape=like.shape)
        except OSError as exc:
            if cannot_map(exc):
                return self.save(make(like, *others))
            raise ArtifactError(f"{self._folder / name}: writing failed: {write_problem(exc)}") from exc
        flat = [array.reshape(-1) for array in (like,) + others]
        target = made.reshape(-1)
        for start in range(0, target.size, _CHUNK):
            target[start : start + _CHUNK] = make(*(part[start : start + _CHUNK] for part in flat))
        made.flush()
        return name

    def get(self, tensor: str) -> np.ndarray:
        """A kept tensor, memory-mapped."""
        return self._load(self._files[tensor])

    def drop(self, tensor: str) -> None:
        """Delete the file of a tensor that is no longer needed."""
        name = self._files.pop(tensor, None)
        if name is not None:
            self._unlink(name)

    @property
    def kept(self) -> FrozenSet[str]:
        return frozenset(self._files)

    def _new_name(self) -> str:
        self._count += 1
        return f"t{self._count:06d}.npy"

    def _load(self, name: str) -> Any:
        try:
            return load_mapped(self._folder / name)
        except (OSError, ValueError) as exc:
            raise ArtifactError(f"{self._folder / name}: damaged intermediate file: {write_problem(exc)}") from exc

    def _unlink(self, name: str) -> None:
        path = self._folder / name
        if path.exists():
            path.unlink()


def last_uses(layers: Sequence[Layer], graph: GoldenGraph, given: Iterable[str]) -> Dict[str, int]:
    """Golden tensor → position of the last layer that uses it or is compared with it."""
    last: Dict[str, int] = {}
    known = frozenset(given)
    for position, layer in enumerate(layers):
        if layer.golden is None:
            continue
        needed = set(layer.inputs) | {layer.golden}
        if layer.golden not in known:
            needed.update(graph.behind(layer.golden, known)[0])
        known |= {layer.golden}
        last.update((tensor, position) for tensor in needed)
    return last
