# SPDX-License-Identifier: Apache-2.0
"""The scale of intensities: conventions of a scan, and its fit to the atlas; nothing here reads headers or resamples."""
