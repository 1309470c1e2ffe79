# SPDX-License-Identifier: Apache-2.0
"""Checkpoint → frozen graph → ONNX and offline model, with parity recorded at every step."""
