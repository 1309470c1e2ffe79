# SPDX-License-Identifier: Apache-2.0
"""The convolutions of full size at the end of a network, by loops compiled for this processor instead of the engine."""
