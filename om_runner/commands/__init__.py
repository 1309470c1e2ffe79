# SPDX-License-Identifier: Apache-2.0
"""The verbs of `python -m om_runner`, one module each: options and printed tables; the work is in the other folders."""
