# SPDX-License-Identifier: Apache-2.0
"""Scans and atlas as inputs of the network: found, read, checked and placed; nothing here runs a model or writes
results.
"""
