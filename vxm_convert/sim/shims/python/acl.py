# SPDX-License-Identifier: Apache-2.0
"""The simulated pyACL under the real one's name, for programs that say ``import acl``."""

import sys

import vxm_convert.sim.acl.module as simulated

sys.modules[__name__] = simulated
