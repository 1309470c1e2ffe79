# SPDX-License-Identifier: Apache-2.0
"""Labelled stand-ins for ATC and the ACL runtime. Product code reaches them through `vxm_convert.toolchain.find`
only.
"""

from __future__ import annotations

from vxm_convert import __version__
from vxm_convert.formats.om import SIMULATED_PREFIX

#: What every simulated artefact carries as its tool version.
SIM_VERSION = SIMULATED_PREFIX + __version__
