# SPDX-License-Identifier: Apache-2.0
"""The training stage: scans and an atlas become a checkpoint; nothing here exports or registers cohorts."""
