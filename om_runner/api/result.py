# SPDX-License-Identifier: Apache-2.0
"""What a registration returns to a Python program: images in memory, the warp, figures; files on request."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple, Union

import numpy as np

from om_runner.inputs.scans import LoadedScan
from om_runner.registration.outcome import ModelOutputs
from om_runner.results.products import OUTPUTS, OutputOptions, Registered, inverse_of
from om_runner.results.writer import Provenance, Writer, check_replaceable, whole_folder
from vxm_convert.artifacts.files import check_output_folder
from vxm_convert.errors import VolumeError, VxmError
from vxm_convert.geometry.velocity import inverse_flow
from vxm_convert.images import Image
from vxm_convert.scans.nifti import nifti_image
from vxm_convert.transforms.formats import FORMATS
from vxm_convert.warps import Warp


@dataclass(frozen=True)
class Moving:
    """A scan to register, with what a bare image does not say.

    Parameters
    ----------
    image : path, nibabel image, or (array, affine)
    labels : path, nibabel image, (array, affine) or None — segmentation on the grid of the image; for a path, None takes
        what belongs to it (``seg`` in an .npz, ``<scan>_seg.nii.gz`` beside it).
    name : str — for messages and results; default: the name of the file or of the FreeSurfer subject, or ``scan1``,
        ``scan2``, …
    """

    image: Image
    labels: Optional[Image] = None
    name: str = ""


@dataclass(frozen=True)
class Pair:
    """A scan to register to an image of its own.

    Parameters
    ----------
    moving, fixed : path, nibabel image, or (array, affine)
    moving_labels, fixed_labels : as `Moving.labels`, of either.
    name : str — for messages and results; default: both files' names, ``<moving>__<fixed>``, or ``scan1``, ``scan2``, …
    """

    moving: Image
    fixed: Image
    moving_labels: Optional[Image] = None
    fixed_labels: Optional[Image] = None
    name: str = ""


@dataclass(frozen=True)
class Metrics:
    """Figures of a registration, named as the columns of metrics.tsv.

    Parameters
    ----------
    dice_before, dice_after : float or None — mean Dice over `n_labels` structures of `label_set`; None if a
        segmentation is missing.
    folding_fraction, jacobian_min : float — share of voxels whose Jacobian determinant is at most 0; smallest one.
    flow_max_voxel : float — longest displacement on the network grid, voxels.
    ncc_before, ncc_after : float or None — correlation with the fixed image inside it, before and after the network.
    affine_overlap : float or None — Dice of the brains after ``affine="auto"``.
    structures : dict — structure's id as text → [Dice before, Dice after], None where a segmentation lacks it.
    device_seconds : float — execution time of the batch, divided by its scans.
    """

    dice_before: Optional[float]
    dice_after: Optional[float]
    n_labels: Optional[int]
    label_set: str
    folding_fraction: float
    jacobian_min: float
    flow_max_voxel: float
    device_seconds: float
    ncc_before: Optional[float] = None
    ncc_after: Optional[float] = None
    affine_overlap: Optional[float] = None
    structures: Dict[str, List[Optional[float]]] = field(default_factory=dict)

    def to_dict(self) -> Dict[str, Any]:
        """Column → value."""
        return asdict(self)


@dataclass(frozen=True)
class Context:
    """What all results of a `Registrar` with the same fixed image share."""

    atlas: LoadedScan
    options: OutputOptions
    provenance: Provenance
    label_set: str
    integration_steps: int
    simulated: bool


@dataclass(frozen=True)
class Failure:
    """A scan that could not be registered: its name and the error."""

    name: str
    error: VxmError
    ok: bool = field(default=False, init=False)


@dataclass(frozen=True)
class Registration:
    """A registered scan. It holds the scan, the moved image and the warp in memory: let go of it when it is used.

    Parameters
    ----------
    name : str — of the scan.
    metrics : Metrics
    warnings : tuple of str — what was doubtful about the scan or its registration.
    simulated : bool — a simulated device made it.
    """

    name: str
    metrics: Metrics
    warnings: Tuple[str, ...]
    simulated: bool
    _loaded: LoadedScan = field(repr=False, compare=False)
    _done: Registered = field(repr=False, compare=False)
    _model: ModelOutputs = field(repr=False, compare=False)
    _context: Context = field(repr=False, compare=False)
    ok: bool = field(default=True, init=False)

    @property
    def moved(self) -> Any:
        """The scan on the output grid: nibabel.Nifti1Image, shape (X, Y, Z), its own intensities and dtype."""
        return nifti_image(self._done.moved, self._done.warp.fixed.affine)

    @property
    def labels(self) -> Optional[Any]:
        """The scan's segmentation on the output grid: nibabel.Nifti1Image, or None if the scan has none."""
        return self._labels(self._done.moved_seg, self._loaded)

    @property
    def atlas_labels(self) -> Optional[Any]:
        """The fixed image's segmentation on the output grid: nibabel.Nifti1Image, or None if it has none."""
        return self._labels(self._done.fixed_seg, self._context.atlas)

    def _labels(self, seg: Optional[np.ndarray], whose: LoadedScan) -> Optional[Any]:
        dtype = whose.seg_dtype
        return None if seg is None else nifti_image(seg.astype(dtype, copy=False), self._done.warp.fixed.affine)

    @property
    def warp(self) -> Warp:
        """From the output grid to voxels of the scan's file: the affine, if there was one, is part of it."""
        return Warp.of(self._done.warp)

    @property
    def flow(self) -> np.ndarray:
        """The network's own output: shape (X, Y, Z, 3), float32, voxels of the network grid."""
        return self._model.flow

    def save(
        self,
        folder: Union[str, Path],
        outputs: Union[str, Iterable[str]] = ("moved", "warp", "seg"),
        warp_format: str = "itk",
    ) -> Path:
        """Write the files of one subject as ``python -m om_runner`` does, with their side-cars.

        Parameters
        ----------
        folder : str or Path — appears complete or not at all; one with earlier results is replaced as a whole.
        outputs : one or several of ``moved``, ``warp``, ``inverse``, ``seg`` and ``jacobian``.
        warp_format : str — ``itk``, ``fsl``, ``freesurfer``, ``l2r`` or ``vxm``.

        Returns
        -------
        Path — of the folder.

        Raises
        ------
        VolumeError
            For an unknown output or format, or a warp that the format cannot hold.
        ArtifactError
            If the folder cannot be written, or would replace a file or a folder without results.
        """
        wanted, context = tuple([outputs] if isinstance(outputs, str) else outputs), self._context
        wrong = [word for word in wanted if word not in OUTPUTS or word == "qc"]
        if wrong or warp_format not in FORMATS:
            raise VolumeError(
                f"save: got {', '.join(wrong) or warp_format!r}, expected outputs from "
                f"{', '.join(word for word in OUTPUTS if word != 'qc')} and a format from {', '.join(sorted(FORMATS))}"
            )
        options = replace(context.options, outputs=wanted, warp_format=warp_format)
        agrees = bool(np.allclose(self._loaded.affine, context.atlas.affine, atol=1e-3))
        made_from = {"moving": self._loaded.sha256}
        provenance = context.provenance.of(made_from, subject=self.name, moving_header_agrees=agrees)
        target = Path(folder)
        check_replaceable(target, "choose another folder")
        check_output_folder(target.parent)
        model, inverse = self._model, []
        if "inverse" in wanted:
            backward = None if model.velocity is None else inverse_flow(model.velocity, context.integration_steps)
            inverse.append(inverse_of(self._loaded.placed, context.atlas.file_grid, model.flow, backward))
        writer = Writer(options, context.atlas, context.label_set)
        writer.write(whole_folder(target), self._loaded, self._done, provenance, inverse)
        return target
