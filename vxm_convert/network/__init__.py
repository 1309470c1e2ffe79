# SPDX-License-Identifier: Apache-2.0
"""The network and the warp as TensorFlow 1.15 graphs; nothing here trains or reads scans."""
