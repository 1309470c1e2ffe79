# SPDX-License-Identifier: Apache-2.0
"""``python -m om_runner audit``: does an offline model give the same bits whatever surrounds a scan? One module per task."""
