# SPDX-License-Identifier: Apache-2.0
"""Acceptance profiles: the figures they may limit, their files, and the shipped ones (``*.yaml`` in this folder)."""

from __future__ import annotations

from vxm_convert.profiles.figures import AT_LEAST, AT_MOST, FIGURES, Figure
from vxm_convert.profiles.profile import DEFAULT_PROFILE, NO_PROFILE, Limit, Profile, load_profile, profile_from_bytes, shipped_profiles

__all__ = [
    "AT_LEAST",
    "AT_MOST",
    "DEFAULT_PROFILE",
    "FIGURES",
    "NO_PROFILE",
    "Figure",
    "Limit",
    "Profile",
    "load_profile",
    "profile_from_bytes",
    "shipped_profiles",
]
