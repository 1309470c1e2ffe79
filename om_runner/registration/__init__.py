# SPDX-License-Identifier: Apache-2.0
"""A run over a cohort: what is to be done, the loop around the device, threads, signals and progress."""
