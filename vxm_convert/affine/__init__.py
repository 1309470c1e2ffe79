# SPDX-License-Identifier: Apache-2.0
"""The affine between two brains, found from their intensities by compiled loops or by SimpleITK; reads no file."""
