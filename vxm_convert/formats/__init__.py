# SPDX-License-Identifier: Apache-2.0
"""Byte layouts as tables: read, write and diagnose model, graph and dump files; no meaning beyond the bytes."""
