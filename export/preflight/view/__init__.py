# SPDX-License-Identifier: Apache-2.0
"""A frozen graph as preflight sees it: nodes, shapes, dtypes, memory and positions; it judges nothing."""
