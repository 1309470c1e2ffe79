# SPDX-License-Identifier: Apache-2.0
"""Fixtures of this folder's tests."""

from __future__ import annotations

from tests.support.scripted_reference import scripted  # noqa: F401
