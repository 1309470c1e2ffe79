# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: what is measured, side by side, on this machine; figures come with the number of runs behind them."""
