# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: the files of a checkpoint name, whether they fit a network, Keras `.h5` files; needs no TensorFlow."""
