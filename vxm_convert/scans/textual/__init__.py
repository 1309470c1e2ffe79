# SPDX-License-Identifier: Apache-2.0
"""Scans whose header is text (NRRD, MetaImage), and voxels behind or beside a header: parsed here and checked
before anything is allocated.
"""
