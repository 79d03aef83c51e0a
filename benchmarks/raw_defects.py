"""Ways in which raw files go wrong, each made on purpose, with a note of which rows it may cost."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from benchmarks.raw_originals import SECOND_NS, Original
from rl.market.raw_text import LONGEST_LINE_BYTES

PRICES = ("open", "high", "low", "close")


class DoesNotApplyError(Exception):
    """The original has no such column, or what stands in its place was damaged before."""


@dataclass
class Line:
    """One line of a file in the making."""

    cells: list[str]
    origin: int | None
    """Row of the original it is; None where it is no row of it."""
    is_damaged: bool = False
    """True where a refusal may name it."""
    raw: str | None = None
    """Its text, where that is not simply its cells."""
    has_own_time: bool = False
    """True where its time was damaged, and is not to be written anew."""

    def text(self, separator: str) -> str:
        """Return the line as the file writes it."""
        return self.raw if self.raw is not None else separator.join(self.cells)


@dataclass
class Draft:
    """A file in the making: the original, and what was done to it."""

    original: Original
    header: list[str]
    lines: list[Line]
    separator: str = ","
    newline: str = "\n"
    ends_with_newline: bool = True
    ending: str = ".csv"
    may_miss: set[int] = field(default_factory=set)
    """Rows of the original whose bars may be missing in the result, if it says so."""
    may_differ: set[int] = field(default_factory=set)
    """Rows whose bars may be others, if it says so: nothing in the file tells which are right."""
    wraps: list[Callable[[bytes], bytes]] = field(default_factory=list)
    """What is done to the bytes at the end."""
    is_whole: bool = False
    """True where the file as a whole is at fault, so that a refusal need not name a row."""

    @classmethod
    def of(cls, original: Original) -> Draft:
        """Return the file in the form in which it loads."""
        lines = [Line(list(row), number) for number, row in enumerate(original.rows)]
        return cls(original, list(original.header), lines, newline=original.newline)

    def damage(self, place: int) -> Line:
        """Mark the row at a place as damaged and return it."""
        line = self.lines[place]
        line.is_damaged = True
        if line.origin is not None:
            self.may_miss.add(line.origin)
        return line

    def column(self, role: str) -> int:
        """Return the place of a column; ticks have one price only."""
        found = self.original.column(role)
        if found is None and role in PRICES:
            found = self.original.column("ltp")
        if found is None or self.original.header[found] not in self.header:
            raise DoesNotApplyError
        return self.header.index(self.original.header[found])

    def time_columns(self) -> tuple[int, ...]:
        """Return the places of the cells that hold a row's time."""
        names = [self.original.header[place] for place in self.original.time_columns()]
        return tuple(self.header.index(name) for name in names if name in self.header)

    def cell(self, place: int, role: str, text: str) -> None:
        """Write something else into one cell of a row."""
        self.damage(place).cells[self.column(role)] = text

    def time_text(self, place: int) -> str:
        """Return the first cell of a row's time."""
        return self.lines[place].cells[self.time_columns()[0]]

    def time(self, place: int, text: str) -> None:
        """Write something else as the first cell of a row's time."""
        line = self.damage(place)
        line.cells[self.time_columns()[0]] = text
        line.has_own_time = True

    def times(self, texts: Sequence[str]) -> None:
        """Write the time of every row anew, into one column."""
        first, *others = self.time_columns()
        for line in self.lines:
            if line.origin is not None and not line.has_own_time:
                line.cells[first] = texts[line.origin]
        for column in others:
            self.remove_column(column)

    def remove_column(self, column: int) -> None:
        """Take one column out of header and rows."""
        del self.header[column]
        for line in self.lines:
            del line.cells[column]

    def damaged_rows(self) -> set[int]:
        """Return the line numbers, the header being 1, of what is damaged."""
        rows = self.original.rows
        damaged = {rows[line.origin] for line in self.lines if line.is_damaged and line.origin is not None}
        return {
            number
            for number, line in enumerate(self.lines, start=2)
            # Where a file holds a row twice, nobody can tell which of the two was damaged.
            if line.is_damaged or (line.origin is not None and rows[line.origin] in damaged)
        }

    def content(self) -> bytes:
        """Return the bytes of the file."""
        texts = [self.separator.join(self.header), *(line.text(self.separator) for line in self.lines)]
        content = (self.newline.join(texts) + (self.newline if self.ends_with_newline else "")).encode()
        for wrap in self.wraps:
            content = wrap(content)
        return content


Defect = Callable[[Draft, int], None]


# --- numbers --------------------------------------------------------------------------------------------------------


def _cell(role: str, text: str) -> Defect:
    return lambda draft, place: draft.cell(place, role, text)


def _negative(draft: Draft, place: int) -> None:
    draft.cell(place, "close", "-" + draft.lines[place].cells[draft.column("close")])


def _all_zero(draft: Draft, place: int) -> None:
    for role in PRICES:
        draft.cell(place, role, "0")


def _high_below_low(draft: Draft, place: int) -> None:
    high, low = draft.column("high"), draft.column("low")
    cells = draft.damage(place).cells
    cells[high], cells[low] = str(_number(cells[low]) * 0.9), cells[high]


def _thousands(*, is_quoted: bool) -> Defect:
    def make(draft: Draft, place: int) -> None:
        line = draft.damage(place)
        number = _number(line.cells[draft.column("open")])
        text = f"{number * 10:,.2f}" if number < 1000 else f"{number:,.2f}"
        line.cells[draft.column("open")] = f'"{text}"' if is_quoted else text

    return make


def _decimal_commas(draft: Draft, place: int) -> None:  # noqa: ARG001 - one signature for all
    columns = [draft.column(role) for role in PRICES]
    draft.separator = ";"
    for number, line in enumerate(draft.lines):
        draft.damage(number)
        for column in columns:
            line.cells[column] = f"{_number(line.cells[column]):.2f}".replace(".", ",")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DoesNotApplyError from error


def _split(draft: Draft, place: int) -> None:
    later = range(place) if draft.original.is_newest_first else range(place, len(draft.lines))
    for number in later:
        line = draft.lines[number]
        line.is_damaged = True
        draft.may_differ.add(line.origin or 0)
        for role in PRICES:
            column = draft.column(role)
            line.cells[column] = repr(_number(line.cells[column]) / 2)


def _volume_in_money(draft: Draft, place: int) -> None:
    column = draft.column("volume")
    for number in range(place, len(draft.lines)):
        draft.lines[number].is_damaged = True
        draft.lines[number].cells[column] += "0000"


# --- times ----------------------------------------------------------------------------------------------------------


def _bad_date(draft: Draft, place: int) -> None:
    draft.time(place, "2024-13-45 25:61")


def _moved_years(draft: Draft, place: int, years: int) -> None:
    text = draft.time_text(place)
    if not text[:4].isdigit() or draft.lines[place].has_own_time:
        raise DoesNotApplyError
    if draft.original.counts_time:
        whole = text.split(".")[0]
        unit = 10 ** (len(whole) - 10)
        draft.time(place, str(int(whole) + years * 365 * 86_400 * unit))
    else:
        draft.time(place, f"{int(text[:4]) + years}{text[4:]}")


def _year_of(which: str) -> Defect:
    def make(draft: Draft, place: int) -> None:
        last = len(draft.lines) - 1
        oldest, newest = (last, 0) if draft.original.is_newest_first else (0, last)
        if which == "first":
            _moved_years(draft, oldest, -12)
        elif which == "last":
            _moved_years(draft, newest, 12)
        else:
            _moved_years(draft, place, 12)
            # To whoever reads on, every later row goes back in time.
            later = range(place) if draft.original.is_newest_first else range(place, last + 1)
            for number in later:
                draft.damage(number)

    return make


def _is_daily(draft: Draft) -> bool:
    steps = np.abs(np.diff(draft.original.starts))
    return bool(np.median(steps) >= 20 * 3600 * SECOND_NS)


def _offset_times(draft: Draft, zone: str) -> list[str]:
    """Return every row's time with the offset of a zone, whatever it was written in."""
    if _is_daily(draft):
        days = pd.DatetimeIndex(draft.original.starts.astype("datetime64[ns]"))
        return [f"{day:%Y-%m-%d} 00:00:00+05:30" for day in days]
    there = (
        pd.DatetimeIndex(draft.original.starts.astype("datetime64[ns]")).tz_localize("UTC").tz_convert(zone)
    )
    return [str(instant) for instant in there]


def _offsets(zone: str) -> Defect:
    return lambda draft, place: draft.times(_offset_times(draft, zone))  # noqa: ARG005


def _one_offset(draft: Draft, place: int) -> None:
    if len(draft.time_columns()) > 1:
        draft.damage(place).cells[draft.time_columns()[1]] += "+05:30"
    else:
        draft.time(place, _offset_times(draft, "Asia/Kolkata")[draft.lines[place].origin or 0])


def _one_without_offset(draft: Draft, place: int) -> None:
    texts = _offset_times(draft, "Asia/Kolkata")
    texts[place] = texts[place][: -len("+05:30")]
    draft.times(texts)
    draft.damage(place)


def _impossible_offset(draft: Draft, place: int) -> None:
    texts = _offset_times(draft, "Asia/Kolkata")
    texts[place] = texts[place][: -len("+05:30")] + "+25:30"
    draft.times(texts)
    draft.damage(place)


def _clock(draft: Draft, pattern: str) -> list[str]:
    """Return every row's time on the clock that the file's times without an offset are read as."""
    instants = pd.DatetimeIndex(draft.original.starts.astype("datetime64[ns]"))
    if draft.original.folder == "intraday":
        instants = instants.tz_localize("UTC").tz_convert("Asia/Kolkata")
    return instants.strftime(pattern).tolist()


def _written_as(pattern: str) -> Defect:
    return lambda draft, place: draft.times(_clock(draft, pattern))  # noqa: ARG005


def _day_first(draft: Draft, place: int) -> None:
    draft.times(_clock(draft, "%d/%m/%Y %H:%M:%S"))
    del place
    for number in range(len(draft.lines)):
        draft.damage(number)


def _counted_in(*units: int) -> Defect:
    """Write times as counts since 1970 in one unit after the other, each so many nanoseconds."""

    def make(draft: Draft, place: int) -> None:
        starts = draft.original.starts
        draft.times([str(int(start) // units[0 if row < place else -1]) for row, start in enumerate(starts)])

    return make


# --- rows -----------------------------------------------------------------------------------------------------------


def _repeated(draft: Draft, place: int) -> None:
    line = draft.lines[place]
    draft.lines.insert(place + 1, Line(list(line.cells), None, is_damaged=True, raw=line.raw))


def _other_bar(draft: Draft, place: int) -> None:
    line = draft.damage(place)
    copy = list(line.cells)
    opening, close, high = (draft.column(role) for role in ("open", "close", "high"))
    copy[opening], copy[close] = copy[high], copy[high]
    draft.lines.insert(place + 1, Line(copy, None, is_damaged=True))
    draft.may_differ.add(line.origin or 0)


def _moved(draft: Draft, place: int) -> None:
    last = min(place + 7, len(draft.lines) - 1)
    for number in range(place, last + 1):
        draft.damage(number)
    draft.lines.insert(last, draft.lines.pop(place))


def _turned(draft: Draft, place: int) -> None:  # noqa: ARG001
    draft.lines.reverse()


def _missing_column(draft: Draft, place: int) -> None:  # noqa: ARG001
    draft.remove_column(draft.column("close"))
    draft.is_whole = True


def _missing_cell(draft: Draft, place: int) -> None:
    del draft.damage(place).cells[draft.column("open")]


def _extra_cell(draft: Draft, place: int) -> None:
    draft.damage(place).cells.insert(draft.column("open"), "7")


def _swapped_names(draft: Draft, place: int) -> None:  # noqa: ARG001
    high, low = draft.column("high"), draft.column("low")
    draft.header[high], draft.header[low] = draft.header[low], draft.header[high]
    for number in range(len(draft.lines)):
        draft.damage(number)


def _second_symbol(draft: Draft, place: int) -> None:
    draft.cell(place, "symbol", "OTHER")


def _inserted(text: str) -> Defect:
    def make(draft: Draft, place: int) -> None:
        draft.lines.insert(place, Line([], None, is_damaged=True, raw=text))

    return make


def _header_again(mark: str) -> Defect:
    return lambda draft, place: draft.lines.insert(
        place, Line([], None, is_damaged=True, raw=mark + draft.separator.join(draft.header))
    )


def _empty_rows(draft: Draft, place: int) -> None:
    for text in ("", "   ", draft.separator * (len(draft.header) - 1)):
        draft.lines.insert(place, Line([], None, raw=text))


def _trailing(draft: Draft, place: int) -> None:  # noqa: ARG001
    for line in draft.lines:
        line.raw = line.text(draft.separator) + draft.separator


def _quoted(draft: Draft, place: int) -> None:  # noqa: ARG001
    for line in draft.lines:
        if line.raw is None:
            line.raw = draft.separator.join(cell if '"' in cell else f'"{cell}"' for cell in line.cells)


def _open_quote(draft: Draft, place: int) -> None:
    line = draft.damage(place)
    line.raw = '"' + line.text(draft.separator)


def _two_stray_quotes(draft: Draft, place: int) -> None:
    last = min(place + 9, len(draft.lines) - 1)
    for number in range(place, last + 1):
        draft.damage(number)
    for number, (before, after) in ((place, ('"', "")), (last, ("", '"'))):
        line = draft.lines[number]
        *first, end = line.text(draft.separator).split(draft.separator)
        line.raw = draft.separator.join([*first, before + end + after])


def _cut(characters: int) -> Defect:
    def make(draft: Draft, place: int) -> None:  # noqa: ARG001
        line = draft.damage(len(draft.lines) - 1)
        text = line.text(draft.separator)
        line.raw = text[: len(text) - characters]
        draft.ends_with_newline = False

    return make


# --- whole files ----------------------------------------------------------------------------------------------------


def _bytes(change: Callable[[bytes], bytes], *, is_whole: bool = True, ending: str = ".csv") -> Defect:
    def make(draft: Draft, place: int) -> None:  # noqa: ARG001
        draft.wraps.append(change)
        draft.is_whole |= is_whole
        draft.ending = ending

    return make


def _line_ends(newline: str) -> Defect:
    def make(draft: Draft, place: int) -> None:  # noqa: ARG001
        draft.newline = newline

    return make


def _only(*lines: str) -> Defect:
    return _bytes(lambda _: "".join(lines).encode())


def _header_only(draft: Draft, place: int) -> None:  # noqa: ARG001
    draft.lines.clear()
    draft.is_whole = True


def _at_row(text: str) -> Defect:
    """Put bytes of one character each into a number of the row."""
    return lambda draft, place: draft.cell(
        place, "close", draft.lines[place].cells[draft.column("close")] + text
    )


def _latin(draft: Draft, place: int) -> None:
    draft.cell(place, "close", "§")
    draft.wraps.append(lambda content: content.replace("§".encode(), "§".encode("latin-1")))


def _flipped(content: bytes) -> bytes:
    damaged = bytearray(gzip.compress(content))
    damaged[len(damaged) // 2] ^= 1
    return bytes(damaged)


def _zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/workbook.xml", content)
    return file.getvalue()


def _parquet(content: bytes) -> bytes:
    file = io.BytesIO()
    pd.DataFrame({"text": [content]}).to_parquet(file)
    return file.getvalue()


SECOND, MILLISECOND, MICROSECOND, NANOSECOND = SECOND_NS, 10**6, 10**3, 1

DEFECTS: dict[str, Defect] = {
    # The fifteen kinds that every loader is asked for.
    "bad number": _cell("open", "1o4.5"),
    "bad date": _bad_date,
    "duplicate row": _repeated,
    "out of order": _moved,
    "negative price": _negative,
    "high below low": _high_below_low,
    "missing column": _missing_column,
    "byte order mark": _bytes(lambda content: b"\xef\xbb\xbf" + content, is_whole=False),
    "CRLF line ends": _line_ends("\r\n"),
    "thousands separator, quoted": _thousands(is_quoted=True),
    "thousands separator, bare": _thousands(is_quoted=False),
    "UTC offset on every row": _offsets("Asia/Kolkata"),
    "UTC offset on one row": _one_offset,
    "empty file": _only(),
    "header only": _header_only,
    "NUL bytes in a number": _at_row("\0\0"),
    "NUL bytes at the end": _bytes(lambda content: content + b"\0" * 500),
    "endless line": _at_row("1" * (LONGEST_LINE_BYTES + 1)),
    # Numbers.
    "empty cell": _cell("close", ""),
    "NaN text": _cell("low", "NaN"),
    "infinity": _cell("high", "inf"),
    "zero open": _cell("open", "0.0"),
    "all prices zero": _all_zero,
    "currency sign": _cell("high", "$100"),
    "decimal commas": _decimal_commas,
    "formula": _cell("open", "=A1+1"),
    "negative volume": _cell("volume", "-5"),
    "text in the volume": _cell("volume", "1.2M"),
    "empty volume": _cell("volume", ""),
    "infinite volume": _cell("volume", "inf"),
    "volume in another unit": _volume_in_money,
    "unadjusted split": _split,
    # Times.
    "offsets of another zone": _offsets("America/New_York"),
    "offset missing on one row": _one_without_offset,
    "impossible offset": _impossible_offset,
    "seconds since 1970": _counted_in(SECOND),
    "milliseconds since 1970": _counted_in(MILLISECOND),
    "microseconds since 1970": _counted_in(MICROSECOND),
    "nanoseconds since 1970": _counted_in(NANOSECOND),
    "seconds, then milliseconds": _counted_in(SECOND, MILLISECOND),
    "YYYYMMDDhhmm": _written_as("%Y%m%d%H%M"),
    "YYYYMMDDhhmmss": _written_as("%Y%m%d%H%M%S"),
    "dots and blanks": _written_as("%Y.%m.%d %H:%M:%S"),
    "day first": _day_first,
    "mistyped year, first bar": _year_of("first"),
    "mistyped year, last bar": _year_of("last"),
    "mistyped year, middle": _year_of("middle"),
    "newest first": _turned,
    # Rows and cells.
    "two bars of one time": _other_bar,
    "cell left out": _missing_cell,
    "cell too many": _extra_cell,
    "names of high and low swapped": _swapped_names,
    "second symbol": _second_symbol,
    "remark between rows": _inserted("# source: vendor"),
    "header again": _header_again(""),
    "header again with mark": _header_again("\ufeff"),
    "blank lines": _empty_rows,
    "separator at line ends": _trailing,
    "every cell quoted": _quoted,
    "open quotation mark": _open_quote,
    "two stray quotation marks": _two_stray_quotes,
    "cut in the last number": _cut(1),
    "cut in the last line": _cut(9),
    "no last line end": _cut(0),
    # Whole files.
    "CR line ends": _line_ends("\r"),
    "CR CR LF line ends": _line_ends("\r\r\n"),
    "blank file": _only(" \n\n"),
    "UTF-16": _bytes(lambda content: content.decode("utf-8", errors="replace").encode("utf-16")),
    "UTF-16 without mark": _bytes(
        lambda content: content.decode("utf-8", errors="replace").encode("utf-16-le")
    ),
    "Latin-1 letter": _latin,
    "gzip archive": _bytes(lambda content: gzip.compress(content, 1), is_whole=False, ending=".csv.gz"),
    "gzip cut off": _bytes(lambda content: gzip.compress(content, 1)[:-30], ending=".csv.gz"),
    "gzip with a flipped bit": _bytes(_flipped, ending=".csv.gz"),
    "gzip named .csv": _bytes(gzip.compress),
    "text named .csv.gz": _bytes(bytes, ending=".csv.gz"),
    "text named .parquet": _bytes(bytes, ending=".parquet"),
    "Excel workbook named .csv": _bytes(_zipped),
    "parquet named .csv": _bytes(_parquet),
    "web page": _only("<!DOCTYPE html><html><body>404, not found</body></html>\n"),
    "JSON message": _only('{"Note": "limit reached"}\n'),
}
"""Every defect by name, in the order they are told."""

FIFTEEN = tuple(DEFECTS)[:18]
"""The fifteen kinds; three of them occur in two forms."""
