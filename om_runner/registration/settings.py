# SPDX-License-Identifier: Apache-2.0
"""What a run of the registration is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

from om_runner.bids.options import BidsRequest
from om_runner.inputs.placement import BY_HEADERS, PlacingOptions
from om_runner.options.run import BatchOptions
from om_runner.results.products import OutputOptions
from vxm_convert.profiles.profile import DEFAULT_PROFILE


@dataclass(frozen=True)
class Settings:
    """A parsed command line; `compare` is how many subjects to compare, None for all."""

    input: Path
    atlas: Path
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
