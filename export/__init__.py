# SPDX-License-Identifier: Apache-2.0
"""The export stage: a checkpoint becomes a frozen graph, an ONNX file, an offline model and a contract; nothing here
trains or registers.
"""
