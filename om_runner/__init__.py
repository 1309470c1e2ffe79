# SPDX-License-Identifier: Apache-2.0
"""Registers a folder of scans with an offline model through pyACL, and reports how far it is from TensorFlow."""
