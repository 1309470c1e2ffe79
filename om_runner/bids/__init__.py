# SPDX-License-Identifier: Apache-2.0
"""BIDS datasets in, BIDS derivatives out; nothing outside this folder knows BIDS names."""
