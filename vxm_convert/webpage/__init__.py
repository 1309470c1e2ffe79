# SPDX-License-Identifier: Apache-2.0
"""Common parts of all HTML pages: document, style, tables, pictures; independent of results."""
