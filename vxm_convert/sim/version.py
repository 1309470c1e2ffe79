# SPDX-License-Identifier: Apache-2.0
"""Labelled replacements for ATC and the ACL runtime. Product code reaches them only through
`vxm_convert.toolchain.find`.
"""

from __future__ import annotations

from vxm_convert import __version__
from vxm_convert.formats.om import SIMULATED_PREFIX

#: Tool version of every simulated artefact.
SIM_VERSION = SIMULATED_PREFIX + __version__
