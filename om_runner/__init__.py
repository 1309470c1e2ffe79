# SPDX-License-Identifier: Apache-2.0
"""The registration stage: drives an offline model through ACL over a cohort of scans; nothing here trains or
exports.
"""
