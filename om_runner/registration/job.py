# SPDX-License-Identifier: Apache-2.0
"""The request of a run and its inputs: model, atlas and scans, read and checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Optional, Tuple

from om_runner.bids.options import BidsRequest
from om_runner.device.offline_model import OfflineModel
from om_runner.inputs.fixed import FixedImages
from om_runner.inputs.placement import BY_HEADERS, PlacingOptions
from om_runner.inputs.scans import LoadedScan, Scan
from om_runner.options.run import BatchOptions
from om_runner.results.columns import FailureRow
from om_runner.results.layout import Layout
from om_runner.results.products import OutputOptions
from om_runner.results.resume import Keys
from vxm_convert.model.contract import GraphContract
from vxm_convert.profiles.profile import DEFAULT_PROFILE, Profile


@dataclass(frozen=True)
class Settings:
    """A parsed command line; `compare` is the number of subjects to compare, None for all; `atlas` None: `input` is a table
    of pairs.
    """

    input: Path
    atlas: Optional[Path]
    model: Path
    contract: Optional[Path]
    out: Path
    compare: Optional[int]
    label_set: str
    toolchain: Optional[str]
    device: int
    reference_python: Optional[str]
    limit: Optional[int]
    command: List[str]
    reference_cache: Optional[Path] = None
    #: name or file of the acceptance profile
    profile: str = DEFAULT_PROFILE
    placing: PlacingOptions = BY_HEADERS
    outputs: OutputOptions = OutputOptions()
    batch: BatchOptions = BatchOptions()
    #: BIDS dataset in, derivative out
    bids: BidsRequest = BidsRequest()
    #: further scans or folders, after `input`
    more_inputs: Tuple[Path, ...] = ()
    #: record and write the time of every operator
    profile_ops: bool = False


@dataclass(frozen=True)
class Job:
    """The inputs of a run, read and checked; the same for every subject.

    Parameters
    ----------
    python : str — interpreter of the reference.
    atlas : LoadedScan or None — the fixed image of all scans, network intensities; None if each has its own.
    layout : Layout — determines the paths of a subject's files.
    scans, looked_at : list of Scan — all of the input, and those that this run considers.
    old_failures : rows of failures.tsv of the previous run.
    keys : Keys — everything that determines results, for the records of finished scans.
    """

    model: OfflineModel
    settings: Settings
    profile: Profile
    python: str
    atlas: Optional[LoadedScan]
    layout: Layout
    scans: List[Scan]
    looked_at: List[Scan]
    old_failures: List[FailureRow]
    keys: Keys = field(init=False)
    fixed: FixedImages = field(init=False)

    def __post_init__(self) -> None:
        settings = self.settings
        fixed = FixedImages(self.model, settings.placing, settings.label_set, self.atlas)
        object.__setattr__(self, "fixed", fixed)
        parts = (settings.label_set, settings.placing, settings.outputs, self.layout.style, self.profile.plausible)
        keys = Keys(self.model, self.atlas, *parts)
        object.__setattr__(self, "keys", keys)

    @property
    def contract(self) -> GraphContract:
        return self.model.contract

    @property
    def compared(self) -> bool:
        """Whether a precision report is requested."""
        return self.settings.compare is None or self.settings.compare > 0

    @property
    def badge(self) -> str:
        """``simulated`` or ``real``, a column of the table."""
        return "simulated" if self.model.simulated else "real"
