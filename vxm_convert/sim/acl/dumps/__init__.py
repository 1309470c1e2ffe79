# SPDX-License-Identifier: Apache-2.0
"""The configuration files of `init` and `set_dump`, and the dump files that they request."""
