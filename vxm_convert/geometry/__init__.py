# SPDX-License-Identifier: Apache-2.0
"""Grids, displacement fields and affines in world space: frames, file formats of other tools, composition, inversion, resampling.

Frames and units are documented in docs/geometry.md. Nothing here imports TensorFlow or a stage;
SimpleITK is imported by affine_search alone, when it is used.
"""
