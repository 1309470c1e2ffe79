# SPDX-License-Identifier: Apache-2.0
"""Models on the simulated device: load, describe, choose a gear, execute, profile."""
