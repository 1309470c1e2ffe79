# SPDX-License-Identifier: Apache-2.0
"""The one exception tree and the one exit-code table.

VxmError                     something the user can fix: one message, no traceback
├── SpecError                a model spec that no network can have
├── ContractError            contract.json disagrees with itself, the pb or the om
├── CheckpointError          weights that do not fit the network
├── ArtifactError            a file of the chain is missing, unreadable or unwritable
│   ├── FormatError          bytes that are not the format they claim to be
│   └── ChecksumError        bytes that are not those the side-car names
├── VolumeError              a scan or an atlas that cannot be registered as it is
│   └── ImplausibleError     outputs of a model that no registration of this scan has
├── TrainingError            training cannot start or go on (no scans, a loss that is no number)
├── ToolchainError           CANN or its stand-in cannot do what was asked
│   ├── AtcError             the compiler refused
│   └── AclError             the device runtime returned an error code
└── PrecisionError           it ran, but outside tolerance (exit 3)

Bugs of ours stay plain Python exceptions and keep their traceback.
"""

from __future__ import annotations

from typing import Optional

EXIT_OK = 0
EXIT_USER = 1
EXIT_USAGE = 2
EXIT_TOLERANCE = 3


class VxmError(Exception):
    """Something the user can fix; ``str()`` says what, where, got, expected, do this."""

    exit_code = EXIT_USER


class SpecError(VxmError):
    """The model spec names a network that cannot exist (unknown variant, sides not divisible by 16)."""


class ContractError(VxmError):
    """The contract and the file it describes disagree."""


class CheckpointError(VxmError):
    """The weights do not fit the requested network."""


class ArtifactError(VxmError):
    """A file of the chain is missing, unreadable or cannot be written."""


class FormatError(ArtifactError):
    """The bytes of a file break the rules of its format."""


class ChecksumError(ArtifactError):
    """The bytes of a file are not those that its side-car recorded."""


class VolumeError(VxmError):
    """A scan, atlas or segmentation cannot be used as it is."""


class ImplausibleError(VolumeError):
    """What the model returned for a scan cannot be its registration."""


class TrainingError(VxmError):
    """Training cannot start or cannot go on."""


class ToolchainError(VxmError):
    """The Ascend toolchain (real or simulated) is missing or refuses."""


class AtcError(ToolchainError):
    """ATC failed; ``code`` is its E-code (or None) and ``log`` what it printed."""

    def __init__(self, message: str, code: Optional[str] = None, log: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.log = log


class AclError(ToolchainError):
    """A pyACL call failed; ``ret`` is its return code and ``call`` the function's name."""

    def __init__(self, message: str, call: str = "", ret: int = 0) -> None:
        super().__init__(message)
        self.call = call
        self.ret = ret


class PrecisionError(VxmError):
    """The offline model ran but is outside tolerance."""

    exit_code = EXIT_TOLERANCE
