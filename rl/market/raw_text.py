"""Read the text of a raw file: bounded in memory, refused where it is no text, cut into numbered lines.

Everything that can be wrong with a text file before anyone looks at its cells is settled here: files of another kind
under the ending .csv, damaged archives, NUL bytes, other encodings, endless lines, line ends, quotation marks that
swallow the lines after them, lines that were not written to their end.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rl.common.errors import DataError

BLOCK_BYTES = 1 << 20
"""How much is read at a time."""

LONGEST_LINE_BYTES = 1 << 16
"""A longer line is no bar; without a limit one line of a damaged file could fill the memory."""

LARGEST_TEXT_BYTES = 2 << 30
"""A larger file, unpacked, is refused: a small archive can unpack to any size. Ten years of minutes that never stop
take 0.4 GB."""

_OTHER_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "an Excel workbook or another zip archive", "Export the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "Export the sheet as CSV"),
    (b"\x1f\x8b", "a gzip archive", "Let its name end with .csv.gz"),
    (b"PAR1", "a parquet file", "Let its name end with .parquet"),
    (b"BZh", "a bzip2 archive", "Unpack it"),
    (b"\xfd7zXZ", "an xz archive", "Unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive", "Unpack it"),
    (b"SQLite format 3", "an SQLite database", "Export the table as CSV"),
    (b"\x89HDF", "an HDF5 file", "Export the table as CSV"),
    (b"%PDF", "a PDF document", "Export the data as CSV"),
    (b"\xff\xfe", "UTF-16 text", "Save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "Save it as UTF-8"),
)
"""First bytes, what such a file is, and what to do about it."""

_OTHER_TEXTS: tuple[tuple[bytes, str], ...] = (
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an XML document"),
    (b"{", "JSON text"),
    (b"[", "JSON text"),
)
"""What a server sends where it has no data to send, by its first characters in lower case."""

_UTF8_MARK = codecs.BOM_UTF8


@dataclass(frozen=True)
class RawText:
    """The text of one file. Lines are numbered from 1 and end with a line feed each."""

    path: Path
    content: bytes
    """UTF-8 without a byte order mark; every line ends with one line feed."""
    line_ends: np.ndarray
    """Place of the line feed of each line. (L,) int64"""
    is_last_line_cut: bool
    """True where the last line had no line end in the file."""

    def __len__(self) -> int:
        return len(self.line_ends)

    def line(self, number: int) -> str:
        """Return a line without its end."""
        begin = 0 if number == 1 else int(self.line_ends[number - 2]) + 1
        return self.content[begin : int(self.line_ends[number - 1])].decode("utf-8")

    def places_of(self, character: str) -> np.ndarray:
        """Return how often a character stands in each line. (L,) int64"""
        letters = np.frombuffer(self.content, dtype=np.uint8)
        counts = np.zeros(len(self), dtype=np.int64)
        # In pieces: the place of every separator of a large file would take eight times the file's own memory.
        for first in range(0, len(self), 1 << 16):
            ends = self.line_ends[first : first + (1 << 16)]
            begin = 0 if first == 0 else int(self.line_ends[first - 1]) + 1
            found = np.flatnonzero(letters[begin : int(ends[-1])] == ord(character)) + begin
            counts[first : first + len(ends)] = np.diff(np.searchsorted(found, ends), prepend=0)
        return counts


def read_text(path: Path) -> RawText:
    """Read a .csv or .csv.gz file.

    Raises:
        DataError: The file is empty, no text, not UTF-8, too large, or holds a NUL byte, an endless line or a
            quotation mark that is not closed on its line.
        OSError: The file is not there or cannot be read, or its archive is damaged; EOFError and zlib.error for the
            latter too.
    """
    refuse_irregular(path)
    with _opened(path) as file:
        content = b"".join(_checked_blocks(path, file))
    content = _with_line_feeds(content)
    if not content.strip():
        raise DataError(
            f"{path}: the file is empty. A bar file has a header line and one line per bar. Fetch it again."
        )
    is_cut = not content.endswith(b"\n")
    if is_cut:
        begin = content.rfind(b"\n") + 1
        # The cut may go through a character of several bytes.
        content = content[:begin] + content[begin:].decode("utf-8", errors="ignore").encode() + b"\n"
    text = RawText(path, content, _line_feeds(content), is_cut)
    _refuse_open_quotes(text)
    return text


def refuse_irregular(path: Path) -> None:
    """Refuse what is no file: reading a pipe or a device might never end.

    Raises:
        DataError: The path is a folder, a pipe, a device, or a link that leads nowhere.
        FileNotFoundError: There is nothing of that name.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        if path.is_symlink():
            raise DataError(
                f"{path}: is a link to {path.readlink()}, which does not exist. Remove or correct the link."
            ) from error
        raise
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a device or the like"
        raise DataError(f"{path}: is {kind}, not a file. Remove or rename it.")


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _checked_blocks(path: Path, file: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    """Yield a file block by block, refusing it as soon as it cannot be a text of bars."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    size, lines, since_line_end = 0, 0, 0
    while block := file.read(BLOCK_BYTES):
        if size == 0:
            _refuse_other_kinds(path, block)
        nul = block.find(b"\0")
        if nul >= 0:
            raise DataError(
                f"{path}, row {lines + _line_count(block[:nul]) + 1}: holds a NUL byte (byte {size + nul + 1} of the"
                " file), as files do that were damaged or not written to their end. Fetch or export the file again."
            )
        longest, since_line_end = _longest_line(block, since_line_end)
        if longest is not None:
            raise DataError(
                f"{path}, row {lines + longest + 1}: is longer than {LONGEST_LINE_BYTES:,} bytes, so it is no bar."
                " Fetch or export the file again with one line per bar."
            )
        try:
            decoder.decode(block)
        except UnicodeDecodeError as error:
            # The decoder may have kept the beginning of a character from the block before.
            place = max(0, error.start - (len(error.object) - len(block)))
            raise DataError(
                f"{path}, row {lines + _line_count(block[:place]) + 1}: byte {error.object[error.start]:#04x} is not"
                " UTF-8 text. Export the file as UTF-8."
            ) from error
        lines += _line_count(block)
        size += len(block)
        if size > LARGEST_TEXT_BYTES:
            raise DataError(
                f"{path}: is larger than {LARGEST_TEXT_BYTES:,} bytes of text. Split it, or export it as parquet."
            )
        yield block


def _refuse_other_kinds(path: Path, block: bytes) -> None:
    for first, kind, remedy in _OTHER_KINDS:
        if block.startswith(first):
            raise DataError(f"{path}: is {kind}, not UTF-8 text with one bar a line. {remedy}.")
    beginning = block[:256].removeprefix(_UTF8_MARK).lstrip().lower()
    for first, kind in _OTHER_TEXTS:
        if beginning.startswith(first):
            shown = " ".join(block[:80].decode("utf-8", errors="replace").split())
            raise DataError(
                f"{path}: is {kind}, not a table of bars; it begins with '{shown}'. Fetch the file again."
            )
    if block[1:8:2] == b"\0\0\0\0" or block[:8:2] == b"\0\0\0\0":
        raise DataError(f"{path}: is UTF-16 text, not UTF-8 text with one bar a line. Save it as UTF-8.")


def _line_count(block: bytes) -> int:
    """Return how many lines end in a piece of text, whichever line ends it has."""
    return block.count(b"\n") or block.count(b"\r")


def _longest_line(block: bytes, before: int) -> tuple[int | None, int]:
    """Look for a line beyond the limit.

    Args:
        block: The next piece of the file.
        before: Bytes of its first line that stood in the pieces before.

    Returns:
        How many lines of the block end before the first that is too long; None if none is.
        Bytes of the block's last line so far.
    """
    letters = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero((letters == ord("\n")) | (letters == ord("\r")))
    lengths = np.diff(np.concatenate([[-before - 1], ends, [len(block)]])) - 1
    longer = np.flatnonzero(lengths > LONGEST_LINE_BYTES)
    first = _line_count(block[: ends[longer[0] - 1] + 1]) if len(longer) and longer[0] > 0 else 0
    return (first if len(longer) else None), int(lengths[-1])


def _with_line_feeds(content: bytes) -> bytes:
    """Return text without byte order marks, every line ending as Unix ends it."""
    if b"\r" in content:
        # Writing Windows text as text once more makes \r\r\n of its line ends.
        content = content.replace(b"\r\r\n", b"\n").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if _UTF8_MARK in content:
        # Files joined end to end keep the mark of each.
        content = content.removeprefix(_UTF8_MARK).replace(b"\n" + _UTF8_MARK, b"\n")
    return content


def _line_feeds(content: bytes) -> np.ndarray:
    letters = np.frombuffer(content, dtype=np.uint8)
    pieces = range(0, len(letters), BLOCK_BYTES)
    found = [np.flatnonzero(letters[at : at + BLOCK_BYTES] == ord("\n")) + at for at in pieces]
    return np.concatenate(found).astype(np.int64)


def _refuse_open_quotes(text: RawText) -> None:
    """Refuse a quotation mark that is not closed on its line: it would make one cell of all lines up to the next."""
    if b'"' not in text.content:
        return
    is_odd = text.places_of('"') % 2 == 1
    if is_odd.any():
        raise open_quote(text, int(np.flatnonzero(is_odd)[0]) + 1)


def open_quote(text: RawText, line: int) -> DataError:
    """Return the error for a line whose quotation marks do not pair."""
    shown = text.line(line)
    shown = shown if len(shown) <= 100 else shown[:100] + "…"
    return DataError(
        f"{text.path}, row {line}: a quotation mark is opened and not closed on its line: {shown}\n"
        "  It would swallow the rows after it. Correct the row."
    )


def fields_of(line: str, separator: str) -> list[str]:
    """Return the cells of one line, quotation marks removed."""
    return next(csv.reader([line], delimiter=separator), [])
