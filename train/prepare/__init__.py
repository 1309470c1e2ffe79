# SPDX-License-Identifier: Apache-2.0
"""From scans in their own spaces to scans on the network grid: reference, affine, records, page; no TensorFlow."""
