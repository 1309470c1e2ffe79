# SPDX-License-Identifier: Apache-2.0
"""Labelled stand-ins for ATC and the ACL runtime; product code reaches them through `vxm_convert.toolchain` only."""
