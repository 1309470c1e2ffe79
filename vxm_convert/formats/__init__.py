# SPDX-License-Identifier: Apache-2.0
"""Byte layouts as tables: the `.om` container, its ge_ir model, frozen TensorFlow graphs, fractal weight packing."""
