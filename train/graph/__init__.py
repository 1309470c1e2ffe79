# SPDX-License-Identifier: Apache-2.0
"""The TensorFlow graph of a training step: network, losses, first weights; it runs nothing."""
