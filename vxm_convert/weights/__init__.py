# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: which files a name means, whether they fit a network, Keras `.h5` files; needs no TensorFlow."""
