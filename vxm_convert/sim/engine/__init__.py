# SPDX-License-Identifier: Apache-2.0
"""A compiled model executed on the CPU with the 910's arithmetic; it knows no calls of ACL."""
