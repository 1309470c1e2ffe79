# SPDX-License-Identifier: Apache-2.0
"""Messages of foreign bytes: what is read to its end, and what is not."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest

from vxm_convert.errors import FormatError
from vxm_convert.formats.protobuf import build_messages, decode

NUMBERS = build_messages("test.protobuf", {"Numbers": [(1, "values", "int64*")]})["Numbers"]


def test_bytes_behind_a_message_are_damage() -> None:
    whole = NUMBERS(values=[1, 2, 3]).SerializeToString()
    assert list(decode(NUMBERS, whole, "x").values) == [1, 2, 3]
    end_of_a_group = bytes([(2 << 3) | 4])
    with pytest.raises(FormatError, match=r"x: not a Numbers message \(6 bytes\)"):
        decode(NUMBERS, whole + end_of_a_group, "x")


def test_a_warning_that_another_thread_gives_is_no_damage() -> None:
    def read(data: bytes) -> None:
        warnings.warn("a package is old", DeprecationWarning, stacklevel=1)

    kind = SimpleNamespace(ParseFromString=read)
    assert decode(lambda: kind, b"", "x") is kind  # type: ignore[arg-type]
