# SPDX-License-Identifier: Apache-2.0
"""An ONNX model as nodes of a frozen TensorFlow graph, so that one importer serves both."""
