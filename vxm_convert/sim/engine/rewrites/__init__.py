# SPDX-License-Identifier: Apache-2.0
"""Rewrites of a compiled graph that make the engine faster and change no result."""
