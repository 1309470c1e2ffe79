# SPDX-License-Identifier: Apache-2.0
"""What a training is asked to do, checked; nothing here imports TensorFlow."""
