# SPDX-License-Identifier: Apache-2.0
"""Training on an Ascend 910 through npu_bridge: what may be told to the adapter, and the one module that imports it."""
