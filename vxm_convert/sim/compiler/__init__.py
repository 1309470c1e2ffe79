# SPDX-License-Identifier: Apache-2.0
"""From operators to an `.om`: fusion, dtypes, layouts, gears; it executes nothing."""
