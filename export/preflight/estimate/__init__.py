# SPDX-License-Identifier: Apache-2.0
"""An estimate of time and work per layer on a chip, with its assumptions; it measures nothing."""
