# SPDX-License-Identifier: Apache-2.0
"""The simulated ATC command: grammar and checks of the real one, around `vxm_convert.sim.compiler`."""
