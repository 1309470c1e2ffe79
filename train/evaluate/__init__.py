# SPDX-License-Identifier: Apache-2.0
"""Dice of a checkpoint on scans with segmentations, as a command, tables and a page."""
