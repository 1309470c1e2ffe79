# SPDX-License-Identifier: Apache-2.0
"""Names of files are bytes that somebody chose: text made fit for a terminal and for tables."""

from __future__ import annotations

import re
import unicodedata
import zipfile
import zlib
from typing import Dict, Optional, Tuple, Type

#: control characters, format characters such as text direction, and bytes that are no UTF-8
_UNPRINTABLE = ("Cc", "Cf", "Cs")
_WHOLE = re.compile(r"[0-9]{1,18}")

#: part of a library's text in lower case → what it means
_READ_REASONS: Tuple[Tuple[str, str], ...] = (
    ("end-of-stream marker", "the compressed data end too early"),
    ("incomplete or truncated", "the compressed data end too early"),
    ("truncated", "the file ends too early"),
    ("unexpected end", "the file ends too early"),
    ("eof", "the file ends too early"),
    ("crc", "the checksum does not fit the data"),
    ("incorrect length of data", "the checksum does not fit the data"),
    ("incorrect data check", "the checksum does not fit the data"),
    ("not a gzipped file", "data behind the compressed data are not compressed"),
    ("not a zip file", "it is no zip archive"),
    ("unable to open file", "it is no HDF5 file, or a damaged one"),
    ("file signature not found", "it is no HDF5 file"),
    ("codec can't decode", "it is no UTF-8 text"),
    ("bad magic", "an entry of the archive is damaged"),
    ("password", "it is encrypted"),
    ("compression method", "it is compressed in a way that is not read"),
)
#: reasons where the text says nothing
_UNKNOWN_REASONS: Dict[Type[BaseException], str] = {
    zlib.error: "the compressed data are damaged",
    zipfile.BadZipFile: "the zip archive is damaged",
    EOFError: "the file ends too early",
    KeyError: "an entry is missing",
    MemoryError: "it does not fit into memory",
}


def printable(text: str) -> str:
    r"""Control characters as ``\x1b`` and the like, so that no file name moves the cursor or hides text; line breaks
    and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _UNPRINTABLE else _escaped(c) for c in text)


def line_of(text: str) -> str:
    r"""`printable` as one line: a line break in a file's name is written as ``\n``."""
    return printable(text).replace("\n", "\\n")


def one_line(what: object, most: int = 200) -> str:
    """The text of a foreign error without line breaks and runs of blanks, cut at `most` characters."""
    text = " ".join(str(what).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def read_reason(exc: BaseException) -> str:
    """The reason why bytes could not be read, in words of ours: libraries speak of block types and code lengths.

    Parameters
    ----------
    exc : BaseException — of gzip, zlib, zipfile, h5py, NumPy or the operating system.
    """
    if getattr(exc, "strerror", None) and getattr(exc, "errno", None):
        return str(exc.strerror)  # type: ignore[attr-defined]
    text = str(exc).lower()
    return next(
        (words for mark, words in _READ_REASONS if mark in text),
        _UNKNOWN_REASONS.get(type(exc), "the bytes are damaged"),
    )


def whole_in(text: str) -> Optional[int]:
    """The number that a text of ASCII digits writes; None for any other text, and beyond 18 digits."""
    return int(text) if _WHOLE.fullmatch(text) else None


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
