# SPDX-License-Identifier: Apache-2.0
"""Models of other frameworks as operators of the device, with static shapes."""
