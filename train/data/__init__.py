# SPDX-License-Identifier: Apache-2.0
"""The pairs that a training sees: cohort, scan lists, loading and checks; no TensorFlow graph but the input
pipeline.
"""
