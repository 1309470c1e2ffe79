# SPDX-License-Identifier: Apache-2.0
"""``python -m train prepare``: from scans as they left FreeSurfer, or any scanner, to scans on the network grid. No TensorFlow."""
