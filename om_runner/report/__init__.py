# SPDX-License-Identifier: Apache-2.0
"""The precision report as a page for people: one module per subject, `build_page` puts them together."""
from __future__ import annotations

from om_runner.report.gallery import Gallery
from om_runner.report.page import build_page

__all__ = ["Gallery", "build_page"]
