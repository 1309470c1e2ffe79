# SPDX-License-Identifier: Apache-2.0
"""Pictures that show whether a registration worked, and the pages that list a cohort, worst first."""
