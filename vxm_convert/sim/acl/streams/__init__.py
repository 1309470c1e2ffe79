# SPDX-License-Identifier: Apache-2.0
"""Streams with a worker thread each, events in them, and callbacks to the host."""
