# SPDX-License-Identifier: Apache-2.0
"""Rewrites of the frozen graph, one module each, with the order in which they run; nothing here reads or writes
files.
"""
