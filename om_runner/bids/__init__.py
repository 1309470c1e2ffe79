# SPDX-License-Identifier: Apache-2.0
"""BIDS datasets in, BIDS derivatives out; no other folder uses BIDS names."""
