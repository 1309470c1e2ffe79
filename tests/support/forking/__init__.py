# SPDX-License-Identifier: Apache-2.0
"""Processes that are forked from one which has loaded the large packages: its loop, and how an interpreter asks it."""
