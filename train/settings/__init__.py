# SPDX-License-Identifier: Apache-2.0
"""The settings of a training, checked; nothing here imports TensorFlow."""
