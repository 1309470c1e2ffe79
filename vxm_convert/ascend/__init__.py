# SPDX-License-Identifier: Apache-2.0
"""Facts about Ascend chips and CANN as tables with sources: operators, codes, cores, memory; no logic of a stage."""
