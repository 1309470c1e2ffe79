# SPDX-License-Identifier: Apache-2.0
"""Acceptance profiles: the figures they may limit, their files, and the shipped ones."""
