# SPDX-License-Identifier: Apache-2.0
"""The rules that preflight checks nodes by, with the limits of the kernels; no rule reads files."""
