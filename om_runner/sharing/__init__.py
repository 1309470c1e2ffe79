# SPDX-License-Identifier: Apache-2.0
"""How any number of processes share one output folder: owners, claims on subjects, what dead processes left behind."""
