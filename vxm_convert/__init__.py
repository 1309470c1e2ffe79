# SPDX-License-Identifier: Apache-2.0
"""What every stage must agree on: the model spec, the graph contract, file formats, metrics and the toolchain seam."""

__version__ = "0.1.0"
