# SPDX-License-Identifier: Apache-2.0
"""The header of a NIfTI, MGH, NRRD, MetaImage or Analyze file: shape, dtype, scale of the values, and space. Voxels are read on demand.

nibabel interprets headers that `vxm_convert.scans.raw_header` has checked; its exceptions for damaged ones are listed
here once.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, Optional, Tuple, Type, Union
from xml.parsers.expat import ExpatError

import numpy as np

from vxm_convert.errors import VolumeError
from vxm_convert.lazy import LazyModule
from vxm_convert.scans.analyze import is_analyze, read_analyze
from vxm_convert.scans.header_space import Space, space_of, space_of_text
from vxm_convert.scans.kinds import UNREAD, unread_images
from vxm_convert.scans.raw_header import (
    MAX_RATIO,
    NIFTI_1,
    PAIR_SUFFIX,
    RawHeader,
    judge,
    read_part,
    read_voxels,
    require_file,
)
from vxm_convert.scans.textual.metaimage import read_metaimage
from vxm_convert.scans.textual.nrrd import read_nrrd
from vxm_convert.scans.textual.stored import Stored
from vxm_convert.text import read_reason

if TYPE_CHECKING:
    import nibabel

nib = LazyModule("nibabel")

FREESURFER_SUFFIXES = (".mgz", ".mgh")
#: headers of text → their readers
_TEXTUAL = {".nrrd": read_nrrd, ".nhdr": read_nrrd, ".mha": read_metaimage, ".mhd": read_metaimage}
VOLUME_SUFFIXES = (".nii.gz", ".npz", ".nii", PAIR_SUFFIX, *FREESURFER_SUFFIXES, *_TEXTUAL)
#: of headers whose voxels may be in a file beside them
DETACHED_SUFFIXES = (PAIR_SUFFIX, ".nhdr", ".mhd")
#: for messages and help
KINDS_READ = ", ".join(VOLUME_SUFFIXES)
#: part of nibabel's text in lower case → what it means
_HEADER_REASONS = (
    ("data code", "it names a kind of voxels that the format does not have"),
    ("data type", "it names a kind of voxels that the format does not have"),
    ("dtype", "it names a kind of voxels that the format does not have"),
    ("pixdim", "its voxel sizes cannot be"),
    ("zooms", "its voxel sizes cannot be"),
    ("offset", "it puts the voxels where they cannot be"),
    ("magic", "it is not marked as a NIfTI"),
    ("sizeof_hdr", "its own size is wrong"),
    ("extension", "an extension of the header is damaged"),
    ("extended header", "an extension of the header is damaged"),
    ("dim", "its sides cannot be"),
    ("xml", "an extension of the header is damaged"),
)
#: of a series
_MAX_FRAMES = 10000
#: what to do with more than three axes, and with the files that `om_runner.inputs.series` takes
_FRAME = "extract a single frame first"
_FRAME_OR_SERIES = f"{_FRAME}, or let om_runner register every frame of a scan with --series mean"
#: 512³ voxels of float64: far above any brain grid, far below memory limits
MAX_VOLUME_BYTES = 512**3 * 8


@dataclass(frozen=True)
class Header:
    """A checked header.

    Parameters
    ----------
    raw : RawHeader — from the first bytes.
    dtype : dtype — of the stored voxels.
    scale : two floats — slope and intercept of the stored voxels.
    space : Space — shape without trailing ones, position, and doubts about them.
    frames, frame : int — number of images in a series, and the one that this header is of; 1 and 0 for a scan.
    """

    raw: RawHeader
    dtype: np.dtype
    scale: Tuple[float, float]
    space: Space
    frames: int = 1
    frame: int = 0

    def voxels(self) -> np.ndarray:
        """The voxels, slope and intercept applied; raises VolumeError for damaged data and sizes that disagree."""
        stored = read_voxels(self.raw) if self.frames == 1 else read_part(self.raw, self.frame, self.frames)
        return scaled(stored.view(self.dtype).reshape(self.space.grid.shape, order="F"), self.scale)


@dataclass(frozen=True)
class TextHeader:
    """A checked header of text, or of Analyze: position of the voxels, and space."""

    stored: Stored
    space: Space

    def voxels(self) -> np.ndarray:
        """All voxels; raises VolumeError for damaged data."""
        return self.stored.voxels()


def read_header(path: Path, frame: Optional[int] = None) -> Union[Header, TextHeader]:
    """The header of a file of any kind but .npz.

    Parameters
    ----------
    frame : int — of a series in a NIfTI or MGH file, or 0 of a scan; None: a series is refused.

    Raises
    ------
    VolumeError
        For damaged or hostile bytes, other than 3-D data, an invalid affine, or voxels that are not plain numbers.
    """
    if volume_suffix(path) is None:
        raise VolumeError(f"{path}: unknown kind of file, expected one of {kinds_for(path)}")
    read = _own_reader(path)
    if read is not None:
        return _read_own(path, read)
    raw = judge(path)
    try:
        header = parsed(raw)
        dtype = np.dtype(header.get_data_dtype())
    except read_errors() as exc:
        raise VolumeError(
            f"{path}: not a readable {volume_suffix(path)} ({header_reason(exc)}); export the scan again"
        ) from exc
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        what = "colour" if dtype.names else dtype.name
        raise VolumeError(
            f"{path}: {what} voxels, expected plain integers or floats; colour and complex volumes are not scans, save "
            "one channel, or the magnitude"
        )
    every = tuple(int(side) for side in header.get_data_shape())
    frames = 1 if frame is None else _frames(every, path)
    advice = _FRAME_OR_SERIES if max(every[4:], default=1) == 1 else _FRAME
    shape, scale = check_shape(every if frames == 1 else every[:3], path, advice), scale_of(header, path)
    if frames * np.prod(shape, dtype=np.int64) * dtype.itemsize != raw.voxel_bytes:
        raise VolumeError(f"{path}: bits per voxel and dtype {dtype} disagree in the header; export the scan again")
    return Header(replace(raw, head=b""), dtype, scale, space_of(header, raw, shape), frames, frame or 0)


def frames_in(path: Path) -> int:
    """Number of images in a file: 1 for a scan, and for a file of a kind that is read as a scan only.

    Raises
    ------
    VolumeError
        As `read_header`.
    """
    if volume_suffix(path) == ".npz":
        return 1
    header = read_header(path, 0)
    return header.frames if isinstance(header, Header) else 1


def _frames(every: Tuple[int, ...], path: Path) -> int:
    if len(every) < 4 or max(every[3:]) == 1:
        return 1
    if not 0 < every[3] <= _MAX_FRAMES or max(every[4:], default=1) != 1:
        sides = "x".join(str(side) for side in every)
        raise VolumeError(
            f"{path}: {len(every)}-D volume {sides}, expected a series of at most {_MAX_FRAMES} frames along the fourth "
            f"axis; {_FRAME}"
        )
    return every[3]


def _own_reader(path: Path) -> Optional[Callable[[Path], Stored]]:
    """What reads a header that nibabel is not asked about; None for NIfTI and MGH."""
    suffix = volume_suffix(path) or ""
    if suffix != PAIR_SUFFIX:
        return _TEXTUAL.get(suffix)
    with _readable(path):
        return read_analyze if is_analyze(path) else None


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    require_file(path, "a scan")
    try:
        yield
    except OSError as exc:
        raise VolumeError(f"{path}: cannot be read ({read_reason(exc)}); check its permissions and its disk") from exc


def _read_own(path: Path, read: Callable[[Path], Stored]) -> TextHeader:
    with _readable(path):
        stored = read(path)
        shape = check_shape(stored.shape, path)
        stored = replace(stored, shape=shape)
        stored.check_size(MAX_RATIO)
    return TextHeader(stored, space_of_text(path, shape, stored.affine, stored.placed))


def files_of(path: Path) -> Tuple[Path, ...]:
    """The files that make up a scan: its own, and the one beside it that its header says holds the voxels. A header that
    cannot be used stands for itself.
    """
    if volume_suffix(path) not in DETACHED_SUFFIXES:
        return (path,)
    try:
        header = read_header(path, 0)
    except VolumeError:
        return (path,)
    data = header.raw.data if isinstance(header, Header) else header.stored.data
    return (path,) if data is None else (path, data)


def parsed(raw: RawHeader) -> Any:
    """nibabel's header of a file that passed `judge`, with its extensions; may raise any of `read_errors`."""
    if raw.kind == "MGH":
        # Data after the voxels (TR, angles) say nothing about space.
        kind = nib.freesurfer.mghformat.MGHHeader
        return kind(raw.head.ljust(kind.template_dtype.itemsize, b"\0"))
    first = raw.head[:4] in (struct.pack("<i", NIFTI_1), struct.pack(">i", NIFTI_1))
    if raw.data is not None:
        return (nib.nifti1.Nifti1PairHeader if first else nib.nifti2.Nifti2PairHeader).from_fileobj(
            io.BytesIO(raw.head)
        )
    return (nib.Nifti1Header if first else nib.Nifti2Header).from_fileobj(io.BytesIO(raw.head))


def nibabel_version() -> str:
    """For the record of a run."""
    return str(nib.__version__)


def read_errors() -> Tuple[Type[BaseException], ...]:
    """Exceptions of nibabel for damaged files."""
    own = (
        nib.filebasedimages.ImageFileError,
        nib.spatialimages.HeaderDataError,
        nib.freesurfer.mghformat.MGHError,
        ExpatError,
    )
    return own + (OSError, EOFError, ValueError, zlib.error, struct.error, OverflowError, KeyError, MemoryError)


def header_reason(exc: BaseException) -> str:
    """The reason why nibabel does not take a header, in words of ours."""
    text = str(exc).lower()
    return next((words for mark, words in _HEADER_REASONS if mark in text), read_reason(exc))


def volume_suffix(path: Path) -> Optional[str]:
    """The suffix of a volume file (``.nii.gz`` counts as one), or None for any other file."""
    name = Path(path).name.lower()
    return next((suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix) and len(name) > len(suffix)), None)


def kinds_for(path: Path) -> str:
    """The kinds that are read, and how a file of another kind becomes one of them."""
    header, unread = path.with_suffix(PAIR_SUFFIX), unread_images([path])
    if path.suffix.lower() == ".img" and header.is_file():
        return f"{KINDS_READ}; give its header, {header.name}"
    return f"{KINDS_READ}; convert it to .nii.gz by {UNREAD[next(iter(unread))]}" if unread else KINDS_READ


def check_shape(shape: Tuple[int, ...], path: Path, advice: str = _FRAME) -> Tuple[int, int, int]:
    """The three sides of `shape` without trailing ones; raises VolumeError, with advice for more, unless there are three."""
    sides = [int(n) for n in shape]
    while len(sides) > 3 and sides[-1] == 1:
        sides = sides[:-1]
    text = "x".join(str(n) for n in shape)
    if len(sides) != 3:
        raise VolumeError(f"{path}: {len(sides)}-D volume {text}, expected one 3-D scan; {advice}")
    if min(sides) < 1 or np.prod(sides, dtype=float) * 8 > MAX_VOLUME_BYTES:
        raise VolumeError(
            f"{path}: shape {text}, expected between 1 and {MAX_VOLUME_BYTES // 8} voxels; the header is damaged"
        )
    x, y, z = sides
    return x, y, z


def scale_of(header: nibabel.spatialimages.SpatialHeader, path: Path) -> Tuple[float, float]:
    """Slope and intercept of nibabel's header; a slope of 0 or NaN means no scaling (nifti1.h).

    Raises
    ------
    VolumeError
        For a slope with an intercept that is not a number.
    """
    try:
        slope, inter = header.get_slope_inter()
    except read_errors() as exc:
        raise VolumeError(
            f"{path}: scl_slope {float(header['scl_slope']):g} with scl_inter {float(header['scl_inter']):g}, expected "
            "numbers; correct the header, or export the scan again"
        ) from exc
    return 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)


def scaled(stored: np.ndarray, scale: Tuple[float, float]) -> np.ndarray:
    """Stored values with slope and intercept applied; the same array if they change nothing."""
    with np.errstate(over="ignore", invalid="ignore"):
        return nib.volumeutils.apply_read_scaling(stored, *scale)
