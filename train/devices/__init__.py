# SPDX-License-Identifier: Apache-2.0
"""What differs between CPU, GPU, Ascend 910 and several workers; nothing else in training knows its device."""
