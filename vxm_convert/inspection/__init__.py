# SPDX-License-Identifier: Apache-2.0
"""What a file is, and whether a chain of files is intact; it changes nothing."""
