# SPDX-License-Identifier: Apache-2.0
"""The training loop: steps, checkpoints, resuming, records, and the page about a run."""
