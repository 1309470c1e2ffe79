# SPDX-License-Identifier: Apache-2.0
"""The installed toolchain: CANN or the simulator, chips, versions; the only place that chooses between them."""
