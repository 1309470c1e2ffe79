# SPDX-License-Identifier: Apache-2.0
"""What every HTML page shares: document, style, tables, pictures; it knows no results."""
