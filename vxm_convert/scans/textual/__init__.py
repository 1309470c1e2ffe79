# SPDX-License-Identifier: Apache-2.0
"""Scans whose header is text (NRRD, MetaImage): parsed here and checked before
anything is allocated.
"""
