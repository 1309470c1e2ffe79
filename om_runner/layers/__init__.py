# SPDX-License-Identifier: Apache-2.0
"""Layer by layer: which operator of an offline model brings in the error, against TensorFlow's tensors of the same nodes."""
