# SPDX-License-Identifier: Apache-2.0
"""`Registrar`: an offline model and an atlas, opened once, that register scans one by one or as a stream."""

from __future__ import annotations

import itertools
import logging
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Iterable, Iterator, List, Optional, Type, Union

from om_runner.api import choices
from om_runner.api.result import Context, Failure, Metrics, Moving, Registration
from om_runner.api.stream import Stream
from om_runner.device.acl_runtime import open_runtime
from om_runner.device.offline_model import DEFAULT_MODEL, OfflineModel, open_model
from om_runner.inputs.placement import load_anywhere, load_atlas_anywhere
from om_runner.inputs.scans import LoadedScan, Scan
from om_runner.options.run import default_threads
from om_runner.qc.measures import table_warnings
from om_runner.registration.outcome import ModelOutputs, products_of
from om_runner.results.subject_log import collecting, notes_to, warnings_in
from om_runner.results.writer import Provenance
from vxm_convert.errors import VolumeError, VxmError
from vxm_convert.images import Image, on_disk, path_of
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET, label_set
from vxm_convert.profiles.profile import DEFAULT_PROFILE, load_profile
from vxm_convert.scans.discovery import find_segmentation, safe_name, volume_stem

LOG = logging.getLogger(__name__)

#: what `Registrar.many` does with a scan that cannot be registered
ON_ERROR = ("raise", "yield")
PathLike = Union[str, Path]


@dataclass
class _Item:
    """A scan on its way; `notes` are the warnings about it."""

    moving: Moving
    name: str
    notes: List[str] = field(default_factory=list)


class Registrar:
    """Registers scans to one atlas with one offline model; a context manager that loads the model once.

    Every argument after `atlas` has the meaning and the default of the option of ``python -m om_runner`` with its name.

    Parameters
    ----------
    model : str or Path — the .om file, with ``contract.json`` beside it.
    atlas : path, nibabel image, or (array, affine) — the fixed image.
    atlas_labels : the same or None — its segmentation; for a path, None takes what belongs to it.
    contract : str, Path or None — the contract, where it is not beside the model.
    affine : str — ``none``: headers alone; ``auto``: search an affine for every scan; or an affine file (``{subject}`` in
        its name is replaced by the scan's name).
    orientation : str or None — letters of the array axes instead of those in the scans' headers, e.g. ``LIA``.
    intensity : str — ``auto`` (the rule in the contract), ``convention``, ``match``, ``percentile`` or ``contrast``.
    space : str — grid of the results: ``atlas``, ``network`` or ``native``.
    edge : str or None — values outside the scan: ``zero`` or ``clamp``; None as on the command line.
    label_interpolation : str — ``nearest`` or ``label-safe``.
    label_set : str — structures of the Dice.
    profile : str — acceptance profile, whose limits of plausibility results must meet: a name, a file, or ``none``.
    device : int — number of the device.
    toolchain : str or None — ``auto``, ``cann`` or ``sim``; None: ``$VXM_TOOLCHAIN``, else ``auto``.
    threads : int or None — scans whose results are made at the same time; None: one per processor, at most four.

    Raises
    ------
    VxmError
        For a wrong value at once; on entry for files that are missing, damaged or from different exports, an atlas
        that cannot be used, and a device that cannot be opened.

    Examples
    --------
    >>> from om_runner import Registrar                              # doctest: +SKIP
    >>> with Registrar("build/vxm/vxm.om", "atlas.mgz") as register:   # doctest: +SKIP
    ...     result = register("scan.mgz")
    ...     result.moved.to_filename("moved.nii.gz")
    ...     result.warp.save("warp.nii.gz", "fsl")
    """

    def __init__(
        self,
        model: PathLike = DEFAULT_MODEL,
        atlas: Optional[Image] = None,
        *,
        atlas_labels: Optional[Image] = None,
        contract: Optional[PathLike] = None,
        affine: str = "none",
        orientation: Optional[str] = None,
        intensity: str = "auto",
        space: str = "atlas",
        edge: Optional[str] = None,
        label_interpolation: str = "nearest",
        label_set: str = DEFAULT_LABEL_SET,
        profile: str = DEFAULT_PROFILE,
        device: int = 0,
        toolchain: Optional[str] = None,
        threads: Optional[int] = None,
    ) -> None:
        if atlas is None:
            raise VolumeError("atlas: none given, expected the fixed image; pass atlas='atlas.nii.gz'")
        if toolchain is not None:
            choices.check_choice("toolchain", toolchain, ("auto", "cann", "sim"))
        self._model_path, self._contract_path, self._toolchain = Path(model), contract, toolchain
        self._atlas_image, self._atlas_labels = atlas, atlas_labels
        self._placing = choices.placing(str(affine), orientation, intensity)
        self._options = choices.outputs(space, edge, label_interpolation)
        self._label_set, self._profile_name, self._device = label_set, str(profile), int(device)
        self._threads = default_threads() if threads is None else max(1, int(threads))
        self._opened = ExitStack()
        self._stream: Optional[Stream[_Item, Registration]] = None
        self._numbers = itertools.count(1)
        self._busy = False

    # open and close -----------------------------------------------------------------------------------------
    def __enter__(self) -> Registrar:
        """Load the model and the atlas and open the device."""
        if self._stream is not None:
            raise RuntimeError("the registrar is open already")
        with ExitStack() as opened:
            self._labels = label_set(self._label_set)
            self._profile = load_profile(self._profile_name)
            contract = None if self._contract_path is None else Path(self._contract_path)
            self._model = open_model(self._model_path, contract, self._toolchain)
            LOG.info("%s", self._model.toolchain.sentence())
            self._placing = self._placing.for_model(self._model.contract)
            self._atlas = self._load_atlas()
            self._context = _context(self)
            runtime = opened.enter_context(open_runtime(self._model, self._device))
            opened.enter_context(collecting())
            self._stream = Stream(runtime, self._atlas.image, self._load, self._make, self._threads)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]] = None,
        error: Optional[BaseException] = None,
        trace: Optional[TracebackType] = None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the device; closing twice is no error."""
        self._stream = None
        self._opened.close()

    @property
    def simulated(self) -> bool:
        """Whether the model runs on the simulated device; known once the registrar is open."""
        self._open_stream()
        return self._model.simulated

    # register -----------------------------------------------------------------------------------------------
    def __call__(self, scan: Union[Image, Moving], labels: Optional[Image] = None, name: str = "") -> Registration:
        """Register one scan.

        Parameters
        ----------
        scan : path, nibabel image, (array, affine), or Moving
        labels, name — as in `Moving`.

        Returns
        -------
        Registration

        Raises
        ------
        VolumeError
            For a scan that cannot be registered as it is.
        ImplausibleError
            If what the model returned cannot be its registration.
        ToolchainError
            If the device fails.
        """
        moving = scan if isinstance(scan, Moving) else Moving(scan, labels, name)
        for result in self.many([moving]):
            if isinstance(result, Registration):
                return result
        raise RuntimeError("the stream ended without a result")

    def many(
        self, scans: Iterable[Union[Image, Moving]], on_error: str = "raise"
    ) -> Iterator[Union[Registration, Failure]]:
        """Register scans one after the other; a generator of their results, in their order.

        While the device works on a scan, the next ones are read and the last ones are resampled. `scans` may itself be
        a generator. Results that are not kept are freed, so a cohort may be larger than memory.

        Parameters
        ----------
        scans : iterable of path, nibabel image, (array, affine), or Moving
        on_error : str — ``raise``: the first bad scan ends the generator with its error; ``yield``: it gives a
            `Failure` in its place, and the others go on.

        Raises
        ------
        VxmError
            As `__call__`; a failing device ends the generator in any case.
        """
        choices.check_choice("on_error", on_error, ON_ERROR)
        stream = self._open_stream()
        if self._busy:
            raise RuntimeError("another stream of this registrar is not finished: use it up or close it first")
        self._busy = True
        try:
            with closing(stream.run(map(self._item, scans))) as results:  # type: ignore[type-var]
                for item, result in results:
                    if isinstance(result, VxmError):
                        if on_error == "raise":
                            raise result
                        yield Failure(item.name, result)
                    else:
                        yield result
        finally:
            self._busy = False

    def _open_stream(self) -> Stream[_Item, Registration]:
        if self._stream is None:
            raise RuntimeError("the registrar is not open: use it in a with statement")
        return self._stream

    def _item(self, scan: Union[Image, Moving]) -> _Item:
        moving = scan if isinstance(scan, Moving) else Moving(scan)
        path = path_of(moving.image)
        name = moving.name or (f"scan{next(self._numbers)}" if path is None else volume_stem(path))
        return _Item(moving, safe_name(name))

    # in threads ---------------------------------------------------------------------------------------------
    def _load(self, item: _Item) -> LoadedScan:
        with notes_to(item.notes), ExitStack() as files:
            scan = _scan(item.moving, item.name, files)
            loaded = load_anywhere(scan, self._model.contract, self._atlas, self._placing)
        return loaded

    def _make(self, item: _Item, loaded: LoadedScan, model: ModelOutputs, device_seconds: float) -> Registration:
        with notes_to(item.notes):
            done, figures = products_of(loaded, self._atlas, model, self._options, self._profile, self._labels)
        scan = loaded.scan
        said = warnings_in(item.notes, item.name, (scan.path, scan.seg_path)) + tuple(table_warnings(figures))
        metrics = Metrics(label_set=self._label_set, device_seconds=device_seconds, **figures)
        context = self._context
        return Registration(item.name, metrics, said, context.simulated, loaded, done, model, context)

    def _load_atlas(self) -> LoadedScan:
        with ExitStack() as files:
            scan = _scan(Moving(self._atlas_image, self._atlas_labels), "atlas", files)
            atlas = load_atlas_anywhere(scan, self._model.contract, self._placing)
        return atlas


def _scan(moving: Moving, name: str, files: ExitStack) -> Scan:
    """The files of a scan, which are there as long as `files` is open."""
    path = files.enter_context(on_disk(moving.image, name))
    if moving.labels is not None:
        return Scan(name, path, files.enter_context(on_disk(moving.labels, name + "_seg")))
    return Scan(name, path, None if path_of(moving.image) is None else find_segmentation(path))


def _context(registrar: Registrar) -> Context:
    model: OfflineModel = registrar._model
    atlas = registrar._atlas
    details = {"simulated": model.simulated, "fixed": atlas.scan.path.name, "precision": model.contract.precision.name}
    made_from = {"om": model.contract.hashes["om"], "atlas": atlas.sha256}
    provenance = Provenance(made_from, model.toolchain.describe(), details)
    steps = model.contract.model.integration_steps
    return Context(atlas, registrar._options, provenance, registrar._label_set, steps, model.simulated)
