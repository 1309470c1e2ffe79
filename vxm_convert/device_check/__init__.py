# SPDX-License-Identifier: Apache-2.0
"""What a check of a device found: points, assumptions, page, archive, and the reading of an archive; it runs nothing."""
