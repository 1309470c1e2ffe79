# SPDX-License-Identifier: Apache-2.0
"""Process memory as device memory: blocks, datasets, tensor descriptions, and leaks."""
