# SPDX-License-Identifier: Apache-2.0
"""`Registrar`: an offline model and an atlas, opened once, that register scans one by one or as a stream."""

from __future__ import annotations

import itertools
import logging
import os
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generator, Iterable, Iterator, Optional, Type, Union

from om_runner.api import choices
from om_runner.api.items import Item, identity, pair_of, scan_in, told_apart
from om_runner.api.result import Context, Failure, Metrics, Moving, Pair, Registration
from om_runner.api.stream import Loaded, Stream
from om_runner.device.acl_runtime import open_runtime
from om_runner.device.offline_model import DEFAULT_MODEL, OfflineModel, open_model
from om_runner.inputs.fixed import LatelyUsed
from om_runner.inputs.pairs import JOINT, read_pairs
from om_runner.inputs.placement import load_anywhere, load_atlas_anywhere
from om_runner.inputs.scans import FIXED_IMAGE, LoadedScan
from om_runner.options.run import default_threads
from om_runner.qc.measures import table_warnings
from om_runner.registration.outcome import ModelOutputs, products_of
from om_runner.results.subject_log import collecting, notes_to, warnings_in
from om_runner.results.writer import provenance_of
from vxm_convert.errors import VolumeError, VxmError
from vxm_convert.images import Image, path_of, without_folder
from vxm_convert.metrics.labels import DEFAULT_LABEL_SET
from vxm_convert.metrics.labels import label_set as find_label_set
from vxm_convert.profiles.profile import DEFAULT_PROFILE, load_profile
from vxm_convert.scans.discovery import named_after, safe_name, volume_stem

LOG = logging.getLogger(__name__)

#: what `Registrar.many` does with a scan that cannot be registered
ON_ERROR = ("raise", "yield")
PathLike = Union[str, Path]


class Registrar:
    """Registers scans with one offline model, to one atlas or in pairs; a context manager that loads the model once.

    Every argument after `atlas` has the meaning and the default of the option of ``python -m om_runner`` with its name.

    Parameters
    ----------
    model : str or Path — the .om file, with ``contract.json`` beside it.
    atlas : path, nibabel image, (array, affine), or None — the fixed image; only `pairs` needs none.
    atlas_labels : the same or None — its segmentation; for a path, None takes what belongs to it.
    contract : str, Path or None — the contract, where it is not beside the model.
    affine : str — ``none``: headers alone; ``auto``: search an affine for every scan; an affine file (``{subject}`` in its
        name is replaced by the scan's name); or the folder of a run, whose affines are taken again.
    orientation : str or None — letters of the array axes instead of those in the scans' headers, e.g. ``LIA``.
    intensity : str — ``auto`` (the rule in the contract), ``convention``, ``match``, ``percentile`` or ``contrast``.
    space : str — grid of the results: ``atlas``, ``network`` or ``native``.
    edge : str or None — values outside the scan: ``zero`` or ``clamp``; None as on the command line.
    label_interpolation : str — ``nearest`` or ``label-safe``.
    label_set : str — structures of the Dice.
    label_map : str, path or None — for segmentations of scans, and of fixed images of pairs, with another tool's labels:
        ``synthseg``, ``neuromorphometrics``, or a table with the columns from and to.
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
        label_map: Optional[PathLike] = None,
        profile: str = DEFAULT_PROFILE,
        device: int = 0,
        toolchain: Optional[str] = None,
        threads: Optional[int] = None,
    ) -> None:
        if toolchain is not None:
            choices.check_choice("toolchain", toolchain, ("auto", "cann", "sim"))
        self._model_path, self._contract_path, self._toolchain = Path(model), contract, toolchain
        self._atlas_image, self._atlas_labels = atlas, atlas_labels
        mapped = None if label_map is None else str(label_map)
        self._placing = choices.placing(str(affine), orientation, intensity, mapped)
        self._options = choices.outputs(space, edge, label_interpolation)
        self._label_set, self._labels, self._profile = label_set, find_label_set(label_set), load_profile(str(profile))
        self._device = choices.whole("device", device, 0)
        self._threads = default_threads() if threads is None else choices.whole("threads", threads, 1)
        self._opened = ExitStack()
        self._stream: Optional[Stream[Item, Registration]] = None
        self._numbers = itertools.count(1)
        self._running: Optional[Generator[Any, None, None]] = None

    # open and close -----------------------------------------------------------------------------------------
    def __enter__(self) -> Registrar:
        """Load the model and the atlas and open the device."""
        if self._stream is not None:
            raise RuntimeError("the registrar is open already")
        with ExitStack() as opened:
            contract = None if self._contract_path is None else Path(self._contract_path)
            self._model = open_model(self._model_path, contract, self._toolchain)
            LOG.info("%s", self._model.toolchain.sentence())
            self._placing = self._placing.for_model(self._model.contract)
            given = None if self._atlas_image is None else Moving(self._atlas_image, self._atlas_labels)
            self._atlas = None if given is None else self._load_fixed(given, "atlas")
            self._fixed: LatelyUsed[LoadedScan] = LatelyUsed()
            runtime = opened.enter_context(open_runtime(self._model, self._device))
            opened.enter_context(collecting())
            self._stream = Stream(runtime, self._load, self._make, self._threads)
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
        """Release the device, once what it works on is done; closing twice is no error. Results of a generator that is not
        used up are lost: asking it for the next one raises RuntimeError.
        """
        running, self._stream, self._running = self._running, None, None
        with self._opened:
            if running is not None:
                running.close()

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
        if self._open_stream() and self._atlas_image is None:
            raise VolumeError("atlas: none given, expected the fixed image; pass atlas='atlas.nii.gz', or use pairs")
        if isinstance(scans, (str, os.PathLike)):
            raise VolumeError(f"many: got the path {scans}, expected several scans; pass a list of them")
        yield from self._results(map(self._item, scans), on_error)

    def pairs(
        self, pairs: Union[PathLike, Iterable[Pair]], on_error: str = "raise"
    ) -> Iterator[Union[Registration, Failure]]:
        """Register scans, each to a fixed image of its own; a generator of their results, in their order.

        The model stays loaded. The last few fixed images are kept: put pairs with the same one together.

        Parameters
        ----------
        pairs : iterable of Pair, or the path of a table as for ``--pairs``.
        on_error : str — as in `many`.

        Raises
        ------
        VolumeError
            For a table that cannot be used.
        VxmError
            As `many`.
        """
        if isinstance(pairs, (str, os.PathLike)):
            pairs = [pair_of(scan) for scan in read_pairs(Path(pairs))]
        yield from self._results(map(self._pair_item, pairs), on_error)

    def _results(self, items: Iterable[Item], on_error: str) -> Iterator[Union[Registration, Failure]]:
        choices.check_choice("on_error", on_error, ON_ERROR)
        stream = self._open_stream()
        if self._running is not None:
            raise RuntimeError("another stream of this registrar is not finished: use it up or close it first")
        with closing(stream.run(told_apart(items))) as results:
            self._running = results
            try:
                for item, result in results:
                    if isinstance(result, VxmError):
                        if on_error == "raise":
                            raise result
                        yield Failure(item.name, result)
                    else:
                        yield result
            finally:
                if self._running is results:
                    self._running = None
        if self._stream is not stream:
            raise RuntimeError(
                "the registrar was closed before these results were used up: use them in its with statement"
            )

    def _open_stream(self) -> Stream[Item, Registration]:
        if self._stream is None:
            raise RuntimeError("the registrar is not open: use it in a with statement")
        return self._stream

    def _item(self, scan: Union[Image, Moving]) -> Item:
        moving = scan if isinstance(scan, Moving) else Moving(scan)
        return Item(moving, safe_name(moving.name or self._name(moving.image)))

    def _pair_item(self, pair: Pair) -> Item:
        if not isinstance(pair, Pair):
            raise VolumeError(f"pairs: got {type(pair).__name__}, expected om_runner.Pair(moving, fixed)")
        name = pair.name or self._name(pair.moving, pair.fixed)
        fixed = Moving(pair.fixed, pair.fixed_labels)
        return Item(Moving(pair.moving, pair.moving_labels), safe_name(name), fixed)

    def _name(self, *images: Image) -> str:
        paths = [path for path in map(path_of, images) if path is not None]
        if len(paths) < len(images):
            return f"scan{next(self._numbers)}"
        return JOINT.join(volume_stem(named_after(path)) for path in paths)

    # in threads ---------------------------------------------------------------------------------------------
    def _load(self, item: Item) -> Loaded:
        # Warnings about a fixed image belong to no single pair of its own.
        fixed = self._fixed_of(item)
        with notes_to(item.notes), ExitStack() as files:
            scan = scan_in(item.moving, item.name, files)
            loaded = load_anywhere(scan, self._model.contract, fixed, self._placing)
        return Loaded(loaded, fixed)

    def _make(self, item: Item, both: Loaded, model: ModelOutputs, device_seconds: float) -> Registration:
        loaded = both.scan
        in_memory = path_of(item.moving.image) is None
        steps = self._model.contract.model.integration_steps
        with notes_to(item.notes), without_folder(loaded.scan.path.parent) if in_memory else nullcontext():
            done, figures = products_of(loaded, both.fixed, [model], self._options, self._profile, self._labels, steps)
        scan = loaded.scan
        said = warnings_in(item.notes, item.name, (scan.path, scan.seg_path)) + tuple(table_warnings(figures))
        metrics = Metrics(label_set=self._label_set, device_seconds=device_seconds, **figures)
        context = _context(self, both.fixed)
        return Registration(item.name, metrics, said, context.simulated, loaded, done, model, context)

    def _fixed_of(self, item: Item) -> LoadedScan:
        if item.fixed is not None:
            given: Moving = item.fixed
            key = (identity(given.image), identity(given.labels))
            return self._fixed.get(key, lambda: self._load_fixed(given, FIXED_IMAGE))
        if self._atlas is None:
            raise RuntimeError(f"{item.name}: has no fixed image, and the registrar no atlas")
        return self._atlas

    def _load_fixed(self, fixed: Moving, name: str) -> LoadedScan:
        with ExitStack() as files:
            scan = scan_in(fixed, name, files)
            # An atlas has labels of its own.
            placing = self._placing if name == FIXED_IMAGE else replace(self._placing, label_map=None)
            loaded = load_atlas_anywhere(scan, self._model.contract, placing)
        return loaded


def _context(registrar: Registrar, fixed: LoadedScan) -> Context:
    model: OfflineModel = registrar._model
    provenance = provenance_of(model, fixed, fixed is not registrar._atlas)
    steps = model.contract.model.integration_steps
    return Context(fixed, registrar._options, provenance, registrar._label_set, steps, model.simulated)
