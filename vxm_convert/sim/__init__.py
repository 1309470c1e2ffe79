# SPDX-License-Identifier: Apache-2.0
"""Labelled replacements for ATC and the ACL runtime; product code reaches them only through `vxm_convert.toolchain`."""
