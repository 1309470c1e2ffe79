# SPDX-License-Identifier: Apache-2.0
"""The comparison of the offline model with TensorFlow: reference, figures, verdict and report files."""
