# SPDX-License-Identifier: Apache-2.0
"""Stage one: scans and an atlas in, TensorFlow checkpoints with their spec.json out."""
