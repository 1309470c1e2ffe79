# SPDX-License-Identifier: Apache-2.0
"""Warps, affines and points in the files of ITK, FSL, FreeSurfer, Slicer and others; the mathematics is in
`geometry`.
"""
