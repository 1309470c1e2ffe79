# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: which files a name means, whether they fit a network, Keras ``.h5`` files. Needs no TensorFlow.

TensorFlow checkpoints are read in `vxm_convert.network.restore`, the one entry point for weights of either kind.
"""
