# SPDX-License-Identifier: Apache-2.0
"""The search for the cheapest set of nodes to keep in fp32 that meets a profile; it exports and registers through other
processes.
"""
