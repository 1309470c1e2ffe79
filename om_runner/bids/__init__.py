# SPDX-License-Identifier: Apache-2.0
"""BIDS: reading a dataset, writing a derivative, the BIDS-App call."""
