"""Read a raw file of bars as text and numbers: which column is what, and which line each row stands on."""

from __future__ import annotations

import csv
import io
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from rl.common.errors import DataError
from rl.common.printable import is_printable
from rl.market.bars import LONGEST_COLUMN_NAME
from rl.market.checks import counted
from rl.market.raw_text import (
    LARGEST_TEXT_BYTES,
    RawText,
    fields_of,
    open_quote,
    read_text,
    refuse_irregular,
)

PRICES = ("open", "high", "low", "close")

_ALIASES: dict[str, tuple[str, ...]] = {
    "open": ("open", "o", "open_price", "price_open", "first", "open_bid", "bid_open"),
    "high": ("high", "h", "high_price", "price_high", "hi_price", "max", "high_bid", "bid_high"),
    "low": ("low", "l", "low_price", "price_low", "lo_price", "min", "low_bid", "bid_low"),
    "close": ("close", "c", "close_price", "price_close", "last", "close_bid", "bid_close"),
    "volume": ("volume", "vol", "v", "tick_volume", "tickvol", "tick_vol", "total_volume", "traded_volume"),
    "symbol": ("symbol", "ticker", "instrument", "pair"),
}

_TIME_ALIASES: tuple[tuple[str, ...], ...] = (
    (
        "datetime",
        "date_time",
        "timestamp",
        "time_stamp",
        "ts",
        "open_time",
        "start_time",
        "datetime_utc",
        "datetime_gmt",
    ),
    (
        "timestamp_utc",
        "time_utc",
        "time_gmt",
        "gmt_time",
        "utc",
        "unix",
        "unix_time",
        "unix_timestamp",
        "epoch",
    ),
)
"""Columns that hold the whole time, best first. Only after these are `date` and `time` looked at."""

_DATES = ("date", "day", "trade_date", "trading_date", "dt", "date_utc", "date_gmt")
_TIMES = ("time", "hour", "bar_time")
_ROW_NUMBERS = ("", "index", "unnamed:_0", "row", "level_0", "__index_level_0__")
_ADJUSTED = ("adj_close", "adjusted_close", "adjclose", "close_adj")
_SEPARATORS = ",;\t|"
_MISSING_WORDS = ["", "nan", "NaN", "NAN", "null", "NULL", "None", "none", "NA", "N/A", "n/a", "#N/A"]
_LINES_SEARCHED_FOR_A_HEADER = 6

LARGEST_ROW_COUNT = 20_000_000
"""A parquet file of more rows is refused: minutes that never stop need 38 years for as many."""


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """The rows of one raw file before any check. Axes: R rows, as they stand in the file."""

    line: np.ndarray
    """Line number in the file, the header of a text file being line 1. (R,) int64"""
    label: np.ndarray
    """Each row's time as the file writes it; date and time are joined by a blank. (R,) object of str"""
    numbers: dict[str, np.ndarray]
    """open, high, low, close, volume if there is one, and x_ columns; nan where none stands. (R,) each"""
    texts: dict[str, dict[int, str]]
    """Per column of `numbers`, what stands in the rows that hold something other than a number."""
    naive_is_utc: bool
    """True where the time column's own name says UTC."""
    symbols: dict[str, int]
    """Line of the first row of each value of a symbol column; empty where there is none."""
    notes: list[str] = field(default_factory=list)
    """What was not used, as sentences."""
    other_label: np.ndarray | None = None
    """The time as a second column writes it; None where there is none. (R,) object of str"""
    faults: dict[str, dict[int, str]] = field(default_factory=dict)
    """Per check, what is wrong with the lines of which rows, where a line as a whole is no row."""

    def __len__(self) -> int:
        return len(self.line)

    def rows(self, keep: np.ndarray) -> RawTable:
        """Return the rows where `keep` is True, or those it lists, in that order."""
        number = np.arange(len(self))[keep]
        has_cells = any(self.texts.values()) or any(self.faults.values())
        new_place = {int(old): new for new, old in enumerate(number)} if has_cells else {}

        def moved(found: dict[int, str]) -> dict[int, str]:
            return {new_place[row]: text for row, text in found.items() if row in new_place}

        return RawTable(
            line=self.line[number],
            label=self.label[number],
            numbers={name: values[number] for name, values in self.numbers.items()},
            texts={name: moved(found) for name, found in self.texts.items()},
            naive_is_utc=self.naive_is_utc,
            symbols=self.symbols,
            notes=self.notes,
            other_label=None if self.other_label is None else self.other_label[number],
            faults={name: moved(found) for name, found in self.faults.items()},
        )


@dataclass(frozen=True)
class _Columns:
    """Which column of a file plays which part, by position."""

    time: tuple[int, ...]
    numbers: dict[str, int]
    symbol: int | None
    other_time: int | None
    """A further column that names the time; only compared with the first."""
    notes: list[str]
    naive_is_utc: bool

    def texts(self) -> set[int]:
        """Return the columns that are read as text."""
        return {*self.time} | {place for place in (self.symbol, self.other_time) if place is not None}


def read_table(path: Path) -> RawTable:
    """Read a .csv, .csv.gz or .parquet file.

    Raises:
        DataError: The file is absent, empty, damaged, not a table, has a header only, or lacks a column;
            the message names what was found instead.
    """
    try:
        refuse_irregular(path)
        if path.suffix.lower() == ".parquet":
            return _from_parquet(path)
        return _from_csv(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file.") from error
    except (OSError, EOFError, zlib.error) as error:
        # gzip reports a damaged archive as OSError or EOFError, pyarrow a damaged parquet file as OSError.
        raise DataError(
            f"{path}: cannot be read ({_one_line(error)}). Fetch or export the file again."
        ) from error


# --- text files ---------------------------------------------------------------------------------------------


def _from_csv(path: Path) -> RawTable:
    text = read_text(path)
    first_lines = [text.line(number) for number in range(1, min(len(text), _LINES_SEARCHED_FOR_A_HEADER) + 1)]
    separator = max(_SEPARATORS, key=first_lines[0].count)
    names = fields_of(first_lines[0], separator)
    while names and not names[-1].strip():
        names.pop()
    columns = _assign(path, names, _header_hint(first_lines, separator))
    faults = _line_faults(text, separator, len(names))
    texts = columns.texts()
    try:
        frame = pd.read_csv(
            io.BytesIO(_without_lines(text, faults)),
            sep=separator,
            header=0,
            names=range(len(names)),
            usecols=sorted({*texts, *columns.numbers.values()}),
            dtype=dict.fromkeys(texts, str),
            index_col=False,
            skip_blank_lines=False,  # so that row r stands on line r + 2
            keep_default_na=False,
            na_values=_MISSING_WORDS,
            low_memory=False,
            encoding="utf-8",
        )
    except pd.errors.ParserError as error:
        raise DataError(
            f"{path}: cannot be read as a table ({_one_line(error)})."
            f" Every line needs the header's {len(names)} fields."
        ) from error
    if len(frame) != len(text) - 1:
        raise open_quote(text, _first_line_with_unpaired_quotes(text, separator))
    if text.is_last_line_cut and len(text) > 1:
        faults.setdefault("unfinished_line", {})[len(text)] = "is the last line and has no line end"
    is_blank = _blank_rows(frame, text, separator, {line for found in faults.values() for line in found})
    table = _table(path, frame, columns, first_line=2, is_blank=is_blank)
    return _with_faults(table, text, separator, columns, faults)


def _line_faults(text: RawText, separator: str, fields: int) -> dict[str, dict[int, str]]:
    """Find lines that are no rows: other numbers of fields than the header has, and the header once more.

    Fewer fields are a fault as well as more: where a cell was left out, those after it stand under wrong names.

    Returns:
        Per check, what is wrong with which line.
    """
    header = text.line(1).strip()
    separators = text.places_of(separator)
    letters = np.frombuffer(text.content, dtype=np.uint8)
    # Some writers end every line with a separator.
    ends_with_one = letters[text.line_ends - 1] == ord(separator)
    has_all = (separators == fields - 1) | ((separators == fields) & ends_with_one)
    if b'"' in text.content:
        has_all &= text.places_of('"') == 0
    repeated, miscounted = {}, {}
    for place in np.flatnonzero(~has_all[1:]) + 1:
        line = int(place) + 1
        cells = fields_of(text.line(line), separator)
        while len(cells) > fields and not cells[-1].strip():
            cells.pop()
        if len(cells) != fields and any(cell.strip() for cell in cells):
            remark = "; a number may have been written with a comma" if len(cells) > fields else ""
            miscounted[line] = f"has {counted(len(cells), 'field')}, but the header has {fields}{remark}"
    begin = 0
    while (begin := text.content.find(f"\n{header}".encode(), begin + 1)) >= 0:
        line = int(np.searchsorted(text.line_ends, begin)) + 2
        if line <= len(text) and text.line(line).strip() == header:
            repeated[line] = "is the header once more"
            miscounted.pop(line, None)
    return {
        name: found for name, found in (("repeated_header", repeated), ("field_count", miscounted)) if found
    }


def _without_lines(text: RawText, faults: dict[str, dict[int, str]]) -> bytes:
    """Return the text with lines that are no rows left blank, so that they turn no column to text."""
    lines = sorted(line for found in faults.values() for line in found)
    if not lines:
        return text.content
    pieces, at = [], 0
    for line in lines:
        pieces.append(text.content[at : int(text.line_ends[line - 2]) + 1])
        at = int(text.line_ends[line - 1])
    return b"".join([*pieces, text.content[at:]])


def _first_line_with_unpaired_quotes(text: RawText, separator: str) -> int:
    for place in np.flatnonzero(text.places_of('"')):
        try:
            next(csv.reader([text.line(int(place) + 1)], delimiter=separator, strict=True))
        except csv.Error:
            return int(place) + 1
    raise AssertionError("pandas made one row of several lines, but every line's quotation marks pair")


def _blank_rows(frame: pd.DataFrame, text: RawText, separator: str, faulty: set[int]) -> np.ndarray:
    """Return True where a line holds nothing in any column, used or not. (R,) bool"""
    is_blank = np.zeros(len(frame), dtype=bool)
    is_empty = [
        column.isna() | (column.str.strip() == "") if pd.api.types.is_string_dtype(column) else column.isna()
        for _, column in frame.items()
    ]
    for row in np.flatnonzero(np.all(is_empty, axis=0)):
        line = int(row) + 2
        is_blank[row] = line not in faulty and not text.line(line).strip(f'{separator} \t"')
    return is_blank


def _with_faults(
    table: RawTable, text: RawText, separator: str, columns: _Columns, faults: dict[str, dict[int, str]]
) -> RawTable:
    """Return the table with its faulty lines noted by row, and labelled as far as they have a time."""
    row_of = {int(line): row for row, line in enumerate(table.line)} if faults else {}
    noted: dict[str, dict[int, str]] = {}
    for name, found in faults.items():
        noted[name] = {row_of[line]: says for line, says in found.items()}
        for line in found:
            cells = fields_of(text.line(line), separator)
            table.label[row_of[line]] = " ".join(cells[p].strip() for p in columns.time if p < len(cells))
    return replace(table, faults=noted)


def _header_hint(lines: Sequence[str], separator: str) -> str:
    """Return what to do about a file whose first line is no header, or nothing."""
    for number, line in enumerate(lines[1:], start=2):
        known = {_role(_plain(name)) for name in fields_of(line, separator)}
        if {"open", "high", "low", "close"} <= known:
            return f" Line {number} looks like the header; remove the lines above it."
    fields = lines[0].split(separator)
    if sum(_is_number(text) for text in fields) >= len(PRICES):
        return " The first line looks like a bar; put a header line above it."
    return ""


# --- parquet files ------------------------------------------------------------------------------------------


def _from_parquet(path: Path) -> RawTable:
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty. A bar file has one row per bar. Fetch it again.")
    try:
        _refuse_large_parquet(path)
        frame = pd.read_parquet(path)
    except ValueError as error:
        # pyarrow's ArrowInvalid, what a file that is not parquet at all raises, is a ValueError.
        raise DataError(f"{path}: is not a parquet file ({_one_line(error)}). Export it again.") from error
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index(names=frame.index.name or "datetime")
    names = [str(name) for name in frame.columns]
    columns = _assign(path, names, "")
    frame.columns = range(len(names))
    for position in columns.texts():
        frame[position] = frame[position].astype(str).where(frame[position].notna())
    is_blank = np.all([column.isna() for _, column in frame.items()], axis=0)
    return _table(path, frame, columns, first_line=1, is_blank=is_blank)


def _refuse_large_parquet(path: Path) -> None:
    """Refuse a file that would unpack to more than memory holds; the size of its parts stands at its end."""
    about = pq.read_metadata(path)
    size = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
    if about.num_rows > LARGEST_ROW_COUNT or size > LARGEST_TEXT_BYTES:
        raise DataError(
            f"{path}: holds {about.num_rows:,} rows in {size:,} bytes unpacked, but at most {LARGEST_ROW_COUNT:,} rows"
            f" in {LARGEST_TEXT_BYTES:,} bytes are read. Split the file."
        )


# --- both ---------------------------------------------------------------------------------------------------


def _table(
    path: Path, frame: pd.DataFrame, columns: _Columns, first_line: int, is_blank: np.ndarray
) -> RawTable:
    """Turn the columns that matter into arrays, leaving out the rows where `is_blank` is True."""
    line = np.arange(len(frame), dtype=np.int64) + first_line
    if is_blank.any():
        frame, line = frame[~is_blank], line[~is_blank]
    if not len(frame):
        raise DataError(
            f"{path}: the file has a header but no bars. A bar file has a header line and one line per bar."
            " Fetch it again."
        )
    numbers, texts = {}, {}
    for name, position in columns.numbers.items():
        numbers[name], texts[name] = _numbers(frame[position])
    label = _joined([frame[position] for position in columns.time])
    symbols = {} if columns.symbol is None else _first_lines(frame[columns.symbol].str.strip(), line)
    return RawTable(
        line=line,
        label=label,
        numbers=numbers,
        texts=texts,
        naive_is_utc=columns.naive_is_utc,
        symbols=symbols,
        notes=columns.notes,
        other_label=None if columns.other_time is None else _joined([frame[columns.other_time]]),
    )


def _numbers(column: pd.Series) -> tuple[np.ndarray, dict[int, str]]:
    """Return a column as float64, and the cells that hold something else.

    pandas turns a whole column to text for one cell that is no number, without a word.
    """
    if pd.api.types.is_bool_dtype(column.dtype):
        return np.full(len(column), np.nan), {row: str(value) for row, value in enumerate(column)}
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan), {}
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    is_text = np.isnan(values) & column.notna().to_numpy()
    words = column.to_numpy(dtype=object)
    found = {int(row): str(words[row]).strip() for row in np.flatnonzero(is_text)}
    return values, {row: text for row, text in found.items() if text and text not in _MISSING_WORDS}


def _first_lines(values: pd.Series, line: np.ndarray) -> dict[str, int]:
    """Return the line of the first row that holds each value, those that hold none left out."""
    is_first = values.notna().to_numpy() & ~values.duplicated().to_numpy()
    return dict(zip(values[is_first], line[is_first].tolist(), strict=True))


def _joined(columns: Sequence[pd.Series]) -> np.ndarray:
    """Return the time columns as one text per row, empty where a part is missing. (R,) object of str"""
    parts = [column.to_numpy(dtype=object, na_value="") for column in columns]
    if len(parts) == 1:
        return parts[0]
    return np.array([" ".join(row) if all(row) else "" for row in zip(*parts, strict=True)], dtype=object)


def _assign(path: Path, names: Sequence[str], hint: str) -> _Columns:
    """Decide which column is what.

    Raises:
        DataError: A needed column is missing, or two columns claim the same part.
    """
    plain = [_plain(name) for name in names]
    numbers: dict[str, int] = {}
    symbol = None
    for position, name in enumerate(plain):
        role = _role(name)
        if role == "symbol":
            symbol = position if symbol is None else symbol
        elif role is not None:
            _require_name(path, names[position], role)
            if role in numbers:
                both = f"'{names[numbers[role]]}' and '{names[position]}'"
                raise DataError(f"{path}: {both} both say {role}. Remove or rename one of them.")
            numbers[role] = position
    time = _time_columns(plain)
    _require(path, names, plain, numbers, time, hint)
    other_time = _other_time_column(plain, time)
    used = {*numbers.values(), *time, symbol, other_time}
    ignored = [names[p] for p in range(len(names)) if p not in used and plain[p] not in _ROW_NUMBERS]
    notes = [f"{counted(len(ignored), 'column')} not used: {', '.join(ignored)}"] if ignored else []
    naive_is_utc = bool(re.search(r"(^|_)(utc|gmt)($|_)", plain[time[0]]))
    return _Columns(time, numbers, symbol, other_time, notes, naive_is_utc)


def _require_name(path: Path, written: str, plain: str) -> None:
    """Refuse a column of the user's own that no model could name, before anything is trained on it."""
    if len(plain) > LONGEST_COLUMN_NAME:
        raise DataError(
            f"{path}, row 1: the column '{written[:40]}…' has a name of {len(plain)} characters, and at most"
            f" {LONGEST_COLUMN_NAME} are read. Rename the column."
        )
    if not is_printable(plain):
        raise DataError(
            f"{path}, row 1: the name of the column '{written}' holds characters that are not seen. Rename the column."
        )


def _require(
    path: Path,
    names: Sequence[str],
    plain: Sequence[str],
    numbers: dict[str, int],
    time: tuple[int, ...],
    hint: str,
) -> None:
    missing = [name for name in PRICES if name not in numbers]
    if not time:
        missing.insert(0, "a time (datetime, timestamp, date, …)")
    if not missing:
        return
    found = ", ".join(name.strip() or "(unnamed)" for name in names)
    # A header that is wanting or hidden is the whole remedy: what was read as names are none to rename.
    remedy = "" if hint else " Rename the columns."
    if "close" in missing and set(plain) & set(_ADJUSTED):
        hint += " An adjusted close is not the close: it does not fit open, high and low of the same bar."
    raise DataError(
        f"{path}: no column for {', '.join(missing)}. Found: {found}.{hint}\n"
        "  A bar file needs a time, open, high, low and close; volume and x_ columns are optional."
        f"{remedy}"
    )


def _time_columns(plain: Sequence[str]) -> tuple[int, ...]:
    """Return the position of the time column, or of date and time, or nothing."""
    for aliases in _TIME_ALIASES:
        for alias in aliases:
            if alias in plain:
                return (plain.index(alias),)
    date = next((plain.index(name) for name in _DATES if name in plain), None)
    time = next((plain.index(name) for name in _TIMES if name in plain), None)
    return tuple(position for position in (date, time) if position is not None)


def _other_time_column(plain: Sequence[str], time: tuple[int, ...]) -> int | None:
    """Return the position of a second column that may hold the whole time, or None."""
    if len(time) != 1:
        return None
    names = [alias for aliases in (*_TIME_ALIASES, _DATES) for alias in aliases]
    return next((place for place, name in enumerate(plain) if name in names and place != time[0]), None)


def _plain(name: str) -> str:
    """Return a column name as aliases spell it: `<VOL>` is vol, `1. open` open, `Adj Close` adj_close."""
    text = name.strip().strip("<>").casefold()
    text = re.sub(r"^\d+\.\s*", "", text)
    return re.sub(r"[\s\-.]+", "_", text.strip("* "))


def _role(plain: str) -> str | None:
    if plain.startswith("x_") and len(plain) > len("x_"):
        return plain
    return next((role for role, aliases in _ALIASES.items() if plain in aliases), None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def stem_of(path: Path) -> str | None:
    """Return a raw file's name without its ending, or None if it is no raw file."""
    for ending in ENDINGS:
        if path.name.lower().endswith(ending) and len(path.name) > len(ending):
            return path.name[: -len(ending)]
    return None


ENDINGS: Iterable[str] = (".csv", ".csv.gz", ".parquet")
"""Endings of raw files."""
