# SPDX-License-Identifier: Apache-2.0
"""The last two convolutions of a network, by loops compiled for this processor instead of the engine."""
