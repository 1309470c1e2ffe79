# SPDX-License-Identifier: Apache-2.0
"""TensorFlow nodes as the device's operators, one module per kind, with folding and control flow."""
