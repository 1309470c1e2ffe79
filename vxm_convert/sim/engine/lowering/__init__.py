# SPDX-License-Identifier: Apache-2.0
"""Operators of the device as ONNX with the 910's rounding, one module per kind."""
