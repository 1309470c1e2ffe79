# SPDX-License-Identifier: Apache-2.0
"""What a registration leaves on disk: volumes, warps, tables, records, and what a later run takes over from them."""
