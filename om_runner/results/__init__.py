# SPDX-License-Identifier: Apache-2.0
"""Files of a registration: volumes, warps, tables, records, and their reuse by later runs."""
