# SPDX-License-Identifier: Apache-2.0
"""``--dynamic_batch_size``, ``--dynamic_image_size``, ``--dynamic_dims``: the rules for their profiles.

The open ATC sources name E10009, E10012, E10018 to E10020, E10031, E10035 to E10040, E10045 and E10046 for dynamic
profiles. **The assignment of codes to rules within that range is ours**, not checked against a real ATC.
"""

from __future__ import annotations

import re
from typing import Dict, List, Optional, Tuple

from vxm_convert.formats import gears as layouts
from vxm_convert.sim.compiler.compile import GearRequest
from vxm_convert.sim.refusal import AtcRefusal

FLAGS = tuple(layouts.FLAGS.values())
KINDS = {flag: kind for kind, flag in layouts.FLAGS.items()}
_ONNX = "5"
MIN_PROFILES, MAX_PROFILES = 2, layouts.MAX_GEARS
_MAX_SIDE = (1 << 31) - 1
Shapes = Dict[str, Tuple[int, ...]]


def chosen_gear(flags: Dict[str, str]) -> str:
    """Name of the dynamic flag in use, or an empty string; raises AtcRefusal E10009 if there are several."""
    given = [name for name in FLAGS if flags[name]]
    if len(given) > 1:
        raise AtcRefusal(
            "E10009", f"{' and '.join('--' + name for name in given)} exclude each other; pass one of them"
        )
    return given[0] if given else ""


def check_gears(flags: Dict[str, str], shapes: Shapes) -> Optional[GearRequest]:
    """Profiles of the dynamic flag in use (None if there is none), checked against the -1 sides of ``--input_shape``."""
    name = chosen_gear(flags)
    if not name:
        return None
    if not flags["input_shape"]:
        raise AtcRefusal("E10004", f"--input_shape is empty; --{name} needs it with -1 for each dynamic side")
    unknown = {node: [i for i, side in enumerate(shape) if side == -1] for node, shape in shapes.items()}
    if not any(unknown.values()):
        raise AtcRefusal(
            "E10040", f"--input_shape {flags['input_shape']!r} has no -1; --{name} needs one for each dynamic side"
        )
    _check_places(name, flags["input_format"], flags["framework"], shapes, unknown)
    profiles = _parse_profiles(name, flags[name])
    _check_profiles(name, profiles, sum(len(places) for places in unknown.values()))
    return GearRequest(KINDS[name], tuple(profiles))


def _check_places(name: str, layout: str, framework: str, shapes: Shapes, unknown: Dict[str, List[int]]) -> None:
    for node, places in unknown.items():
        if name == "dynamic_batch_size" and places not in ([], [0]):
            raise AtcRefusal(
                "E10018", f"--input_shape of {node} is {shapes[node]}; with --{name} only the first side may be -1"
            )
        if name == "dynamic_image_size" and places:
            wanted = {"NCHW": [2, 3], "NHWC": [1, 2]}.get(layout or ("NCHW" if framework == _ONNX else "NHWC"))
            if wanted != places or len(shapes[node]) != 4:
                raise AtcRefusal(
                    "E10019",
                    f"--input_shape of {node} is {shapes[node]}; with --{name} only height and width may be -1",
                )
    if name == "dynamic_dims" and layout not in ("", "ND"):
        raise AtcRefusal("E10001", f"--input_format is {layout!r}; --dynamic_dims needs ND")


def _parse_profiles(name: str, text: str) -> List[Tuple[int, ...]]:
    """Batch sizes are separated by commas; image sizes and dims by semicolons."""
    if not re.match(r"^[0-9,; \-]+$", text):
        raise AtcRefusal("E10003", f"--{name} is {text!r}; expected digits, commas and semicolons only")
    groups = text.split(",") if name == "dynamic_batch_size" else text.rstrip(";").split(";")
    profiles: List[Tuple[int, ...]] = []
    for group in groups:
        parts = [part.strip() for part in group.split(",")]
        if not all(re.match(r"^-?\d{1,10}$", part) for part in parts):
            raise AtcRefusal("E10014", f"--{name} holds {group!r}, expected whole numbers")
        profiles.append(tuple(int(part) for part in parts))
    return profiles


def _check_profiles(name: str, profiles: List[Tuple[int, ...]], unknown: int) -> None:
    if len(profiles) < MIN_PROFILES:
        raise AtcRefusal("E10035", f"--{name} has {len(profiles)} profile, expected at least {MIN_PROFILES}")
    if len(profiles) > MAX_PROFILES:
        raise AtcRefusal("E10036", f"--{name} has {len(profiles)} profiles, expected at most {MAX_PROFILES}")
    for profile in profiles:
        if any(not 0 < side <= _MAX_SIDE for side in profile):
            raise AtcRefusal(
                "E10037", f"--{name} has the profile {profile}; every number must be above 0 and fit 31 bits"
            )
        if name == "dynamic_image_size" and len(profile) != 2:
            raise AtcRefusal("E10020", f"--{name} has the profile {profile}, expected height,width")
        if name == "dynamic_dims" and len(profile) != unknown:
            raise AtcRefusal("E10045", f"--{name} has the profile {profile}; --input_shape has {unknown} sides of -1")
    if len(set(profiles)) != len(profiles):
        raise AtcRefusal("E10039", f"--{name} repeats a profile: {profiles}")
