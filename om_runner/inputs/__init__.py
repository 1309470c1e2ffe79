# SPDX-License-Identifier: Apache-2.0
"""Scans and atlas as the network takes them: found, read, checked and placed; nothing here runs a model or writes
results.
"""
