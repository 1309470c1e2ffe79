# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the TensorFlow adapter of an Ascend 910: the names that training uses, every call written to
$FAKE_NPU_LOG.
"""
