# SPDX-License-Identifier: Apache-2.0
"""A scan, atlas or segmentation on disk: the only object through which stages open one.

A `ScanFile` knows its path. Header, grid, trust, hash and voxels are read on request; header and hash are read once and
kept as long as the file does not change.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence, Tuple, TypeVar, Union

import numpy as np

from vxm_convert.artifacts.files import sha256_of
from vxm_convert.errors import VolumeError
from vxm_convert.geometry.grids import Grid
from vxm_convert.scans.header import (
    MAX_VOLUME_BYTES,
    Header,
    TextHeader,
    check_shape,
    files_of,
    read_header,
    volume_suffix,
)
from vxm_convert.scans.header_space import Trust
from vxm_convert.scans.network_grid import network_affine
from vxm_convert.scans.npz import NPZ_IMAGE_NAMES, NPZ_LABEL_NAMES, NpzReader
from vxm_convert.scans.raw_header import require_file
from vxm_convert.scans.values import Volume, as_integers, warn_of_rounding

T = TypeVar("T")
Shape = Tuple[int, int, int]

_NO_HEADER_NOTE = "no header: assumed to be on the network grid, axes LIA, 1 mm"


class ScanFile:
    """One file of an image, a segmentation, or (.npz) both. Creating it costs nothing; it can be pickled.

    Parameters
    ----------
    path : Path — of one of `vxm_convert.scans.header.VOLUME_SUFFIXES`; of a header with its voxels beside it, the header.
    frame : int — of a series of images in the file, from 0; None: the file is one image.
    """

    def __init__(self, path: Path, frame: Optional[int] = None) -> None:
        self.path, self.frame = Path(path), frame
        self._kept: Dict[str, Tuple[Any, Any]] = {}

    def __repr__(self) -> str:
        return f"ScanFile({str(self.path)!r})"

    @property
    def has_header(self) -> bool:
        """Whether files of this kind give the position of their array; by the name alone."""
        return volume_suffix(self.path) != ".npz"

    @property
    def sha256(self) -> str:
        """As `scan_sha256`."""
        return self._once("sha256", lambda: scan_sha256(self.path))

    @property
    def grid(self) -> Grid:
        """Shape and position by the header; an .npz is on the network grid (LIA, 1 mm).

        Raises
        ------
        VolumeError
            If the file is missing, unreadable, not 3-D, or has an invalid affine.
        """
        return self._header().space.grid if self.has_header else self._once("grid", self._grid_without_header)

    @property
    def trust(self) -> Trust:
        """Whether the file gives the position of its array; raises as `grid`."""
        return self._header().space.trust if self.has_header else Trust.NO_HEADER

    @property
    def notes(self) -> Sequence[str]:
        """Doubts about the header, one line each: no orientation stored, qform and sform apart, sheared axes, an
        identity affine; raises as `grid`.
        """
        return self._header().space.notes if self.has_header else (_NO_HEADER_NOTE,)

    def image(self, expected: Optional[Shape] = None) -> Volume:
        """The voxels as float32 in the file's own intensities.

        Raises
        ------
        VolumeError
            For an unreadable or hostile file, one that is not 3-D (trailing sides of 1 are dropped), or other than
            `expected` voxels.
        """
        self._require()
        if not self.has_header:
            with NpzReader(self.path) as archive:
                name = _named(archive, NPZ_IMAGE_NAMES, f"an array named {' or '.join(NPZ_IMAGE_NAMES)}")
                data = self._member(archive, name, expected)
            return Volume(data.astype(np.float32), None, self.path, data.dtype.name)
        raw = self._voxels(expected)
        with np.errstate(over="ignore"):
            data = np.ascontiguousarray(raw, dtype=np.float32)
        warn_of_rounding(raw, self.path)
        return Volume(data, np.array(self.grid.affine), self.path, raw.dtype.name)

    def labels(self, expected: Optional[Shape] = None) -> Optional[Volume]:
        """The voxels as label ids with their integer dtype (whole-numbered floats become int32); None for an .npz
        without labels.

        Raises
        ------
        VolumeError
            As `image`, or for values that are not whole numbers.
        """
        self._require()
        if self.has_header:
            raw = self._voxels(expected)
            return Volume(as_integers(raw, self.path), np.array(self.grid.affine), self.path, raw.dtype.name)
        with NpzReader(self.path) as archive:
            name = archive.first_of(NPZ_LABEL_NAMES)
            if name is None:
                return None
            raw = self._member(archive, name, expected)
        return Volume(as_integers(raw, self.path), None, self.path, raw.dtype.name)

    def _require(self) -> None:
        require_file(self.path, "a scan, atlas or segmentation")

    def _header(self) -> Union[Header, TextHeader]:
        def read() -> Union[Header, TextHeader]:
            self._require()
            return read_header(self.path, self.frame)

        return self._once("header", read)

    def _voxels(self, expected: Optional[Shape]) -> np.ndarray:
        header = self._header()
        self._check_expected(header.space.grid.shape, expected)
        return header.voxels()

    def _member(self, archive: NpzReader, name: str, expected: Optional[Shape]) -> np.ndarray:
        shape = check_shape(archive.header(name).shape, self.path)
        self._check_expected(shape, expected)
        return archive.read(name, MAX_VOLUME_BYTES).reshape(shape)

    def _check_expected(self, shape: Shape, expected: Optional[Shape]) -> None:
        if expected is not None and shape != tuple(expected):
            got, want = ("x".join(str(n) for n in sides) for sides in (shape, expected))
            raise VolumeError(
                f"{self.path}: shape {got}, the network needs {want}; scans and atlas must be on the network grid "
                "(resample or crop them to it)"
            )

    def _grid_without_header(self) -> Grid:
        self._require()
        with NpzReader(self.path) as archive:
            names = NPZ_IMAGE_NAMES + NPZ_LABEL_NAMES
            name = _named(archive, names, f"one of {', '.join(names)}")
            header = archive.header(name)
            shape = check_shape(header.shape, self.path)
            archive.check_size(name, header)
        return Grid(shape, network_affine(shape))

    def _once(self, name: str, read: Callable[[], T]) -> T:
        """The result of `read`, kept as long as size, time and inode of the files stay the same."""
        state = self._state()
        if name not in self._kept or state is None or self._kept[name][0] != state:
            self._kept[name] = (state, read())
        kept: T = self._kept[name][1]
        return kept

    def _state(self) -> Any:
        try:
            found = [os.stat(str(path)) for path in files_of(self.path)]
        except (OSError, ValueError):
            # Reading it will report the reason.
            return None
        return [(one.st_size, one.st_mtime_ns, one.st_ino, one.st_dev) for one in found]


def scan_sha256(path: Path) -> str:
    """sha256 of a scan's bytes; of a header with its voxels beside it, of both files, one behind the other.

    Raises
    ------
    ArtifactError
        If they cannot be read.
    """
    return sha256_of(*files_of(path))


def _named(archive: NpzReader, names: Sequence[str], expected: str) -> str:
    name = archive.first_of(names)
    if name is None:
        raise VolumeError(f"{archive.path}: contains {archive.names}, expected {expected}")
    return name
