# SPDX-License-Identifier: Apache-2.0
"""``python -m export tune``: which decisions of a precision plan a network needs to meet an acceptance profile. One module per task."""
