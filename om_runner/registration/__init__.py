# SPDX-License-Identifier: Apache-2.0
"""A run over a cohort: its decisions, the loop around the device, threads, signals and progress."""
