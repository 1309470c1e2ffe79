# SPDX-License-Identifier: Apache-2.0
"""What is installed here: CANN or the simulator, chips, versions; the only place that chooses between them."""
