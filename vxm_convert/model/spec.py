# SPDX-License-Identifier: Apache-2.0
"""ModelSpec: the network. The only place with filter counts and variants."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Dict, Sequence, Tuple

from vxm_convert.errors import SpecError
from vxm_convert.text import whole_in

Shape3 = Tuple[int, int, int]

#: The U-Net halves its input four times, so every side must divide by this.
SIDE_MULTIPLE = 16
LEAKY_SLOPE = 0.2

# Decoder and encoder filters of the published variants (voxelmorph legacy, `src/networks.py` and `train.py`:
# vm1 and vm2 differ in the decoder only, vm2double doubles every count of vm2). miccai2018 is the diffeomorphic network
# (`train_miccai2018.py`, Dalca et al., MICCAI 2018): it ends at half resolution with a velocity.
_ENCODER = (16, 32, 32, 32)
VARIANTS: Dict[str, Tuple[Tuple[int, ...], Tuple[int, ...]]] = {
    "vm1": (_ENCODER, (32, 32, 32, 32, 8, 8)),
    "vm2": (_ENCODER, (32, 32, 32, 32, 32, 16, 16)),
    "vm2double": (tuple(2 * n for n in _ENCODER), (64, 64, 64, 64, 64, 32, 32)),
    "miccai2018": (_ENCODER, (32, 32, 32, 32, 16)),
}
#: variants whose flow layer outputs a velocity at half resolution, which is integrated
DIFFEOMORPHIC_VARIANTS = ("miccai2018",)
#: scaling-and-squaring steps of the published diffeomorphic network
INTEGRATION_STEPS = 7
_MAX_INTEGRATION_STEPS = 20


@dataclass(frozen=True)
class ModelSpec:
    """A VoxelMorph network with static shapes.

    Parameters
    ----------
    variant : str — one of `VARIANTS`.
    volume_shape : (int, int, int) — voxels of the network grid, in array axis order; each divisible by 16.
    batch : int — static batch of the exported graph, ≥ 1.
    integration_steps : int — scaling-and-squaring steps of a diffeomorphic variant; 0 for the others, whose output is
        the
        displacement. None, or 0 for a diffeomorphic variant, means the published number.

    Raises
    ------
    SpecError
        For an unknown variant, a side that 16 does not divide, or a batch below 1.
    """

    variant: str
    volume_shape: Shape3
    batch: int = 1
    integration_steps: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.variant, str) or self.variant not in VARIANTS:
            raise SpecError(
                f"variant: got {self.variant!r}, expected one of {', '.join(VARIANTS)}; pass --variant accordingly"
            )
        shape = tuple(self.volume_shape)
        if len(shape) != 3 or any(
            not isinstance(n, int) or isinstance(n, bool) or n < SIDE_MULTIPLE or n % SIDE_MULTIPLE for n in shape
        ):
            text = "x".join(str(n) for n in shape)
            raise SpecError(
                f"volume shape: got {text}, expected three sides, each a multiple of {SIDE_MULTIPLE} "
                f"(the network halves four times); pad or crop the scans, for example to {_nearest_legal(shape)}"
            )
        if not isinstance(self.batch, int) or self.batch < 1:
            raise SpecError(f"batch: got {self.batch!r}, expected a whole number of at least 1; pass --batch 1")
        object.__setattr__(self, "integration_steps", self._checked_steps())
        object.__setattr__(self, "volume_shape", shape)

    def _checked_steps(self) -> int:
        steps = self.integration_steps or 0
        if not self.diffeomorphic:
            if steps != 0:
                raise SpecError(
                    f"integration steps: got {steps}, expected 0: {self.variant} has no velocity field to integrate"
                )
            return 0
        steps = steps or INTEGRATION_STEPS
        if not isinstance(steps, int) or not 1 <= steps <= _MAX_INTEGRATION_STEPS:
            raise SpecError(
                f"integration steps: got {steps!r}, expected a whole number from 1 to {_MAX_INTEGRATION_STEPS}"
            )
        return steps

    @property
    def diffeomorphic(self) -> bool:
        """Whether the flow layer outputs a velocity at half resolution."""
        return self.variant in DIFFEOMORPHIC_VARIANTS

    @property
    def encoder_filters(self) -> Tuple[int, ...]:
        return VARIANTS[self.variant][0]

    @property
    def decoder_filters(self) -> Tuple[int, ...]:
        return VARIANTS[self.variant][1]

    @property
    def image_shape(self) -> Tuple[int, ...]:
        """(B, X, Y, Z, 1), NDHWC."""
        return (self.batch,) + self.volume_shape + (1,)

    @property
    def flow_shape(self) -> Tuple[int, ...]:
        """(B, X, Y, Z, 3), NDHWC."""
        return (self.batch,) + self.volume_shape + (3,)

    @property
    def velocity_shape(self) -> Tuple[int, ...]:
        """(B, X/2, Y/2, Z/2, 3), NDHWC; of diffeomorphic variants."""
        return (self.batch,) + tuple(n // 2 for n in self.volume_shape) + (3,)

    def to_dict(self) -> Dict[str, Any]:
        """For ``spec.json`` and the contract."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> ModelSpec:
        """The inverse of `to_dict`; raises SpecError for missing, unknown or ill-typed entries."""
        if not isinstance(data, dict):
            raise SpecError(f"model spec: got {type(data).__name__}, expected a JSON object")
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(data) - known)
        missing = sorted({"variant", "volume_shape"} - set(data))
        if unknown or missing:
            raise SpecError(
                f"model spec: unknown entries {unknown}, missing entries {missing}; expected {sorted(known)}"
            )
        if not isinstance(data["volume_shape"], (list, tuple)):
            raise SpecError(f"model spec: volume_shape is {data['volume_shape']!r}, expected three whole numbers")
        return cls(**{**data, "volume_shape": tuple(data["volume_shape"])})


def parse_shape(text: str) -> Shape3:
    """Three comma-separated whole numbers, e.g. ``160,192,224``; raises SpecError otherwise."""
    sides = [whole_in(part.strip()) for part in text.split(",")]
    known = [side for side in sides if side is not None]
    if len(sides) != 3 or len(known) != 3:
        raise SpecError(f"shape: got {text!r}, expected three whole numbers such as 160,192,224")
    return known[0], known[1], known[2]


def _nearest_legal(shape: Sequence[object]) -> str:
    sides = [n if isinstance(n, int) else SIDE_MULTIPLE for n in shape][:3]
    return ",".join(str(max(SIDE_MULTIPLE, SIDE_MULTIPLE * round(n / SIDE_MULTIPLE))) for n in sides)
