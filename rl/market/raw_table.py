"""Read a raw file of bars as text and numbers: which column is what, and which line each row stands on."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from rl.common.errors import DataError
from rl.market.checks import counted

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
    symbols: tuple[str, ...]
    """Different values of a symbol column, in order of appearance; empty where there is none."""
    notes: list[str] = field(default_factory=list)
    """What was not used, as sentences."""

    def __len__(self) -> int:
        return len(self.line)

    def rows(self, keep: np.ndarray) -> RawTable:
        """Return the rows where `keep` is True, or those it lists, in that order."""
        number = np.arange(len(self))[keep]
        new_place = {int(old): new for new, old in enumerate(number)}
        return RawTable(
            line=self.line[number],
            label=self.label[number],
            numbers={name: values[number] for name, values in self.numbers.items()},
            texts={
                name: {new_place[row]: text for row, text in found.items() if row in new_place}
                for name, found in self.texts.items()
            },
            naive_is_utc=self.naive_is_utc,
            symbols=self.symbols,
            notes=self.notes,
        )


@dataclass(frozen=True)
class _Columns:
    """Which column of a file plays which part, by position."""

    time: tuple[int, ...]
    numbers: dict[str, int]
    symbol: int | None
    notes: list[str]
    naive_is_utc: bool


def read_table(path: Path) -> RawTable:
    """Read a .csv, .csv.gz or .parquet file.

    Raises:
        DataError: The file is absent, empty, damaged, not a table, has a header only, or lacks a column;
            the message names what was found instead.
    """
    try:
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
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start + 1} ({error.object[error.start]:#04x}) is not UTF-8 text."
            " Export the file as UTF-8."
        ) from error


# --- text files ---------------------------------------------------------------------------------------------


def _from_csv(path: Path) -> RawTable:
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        content = gzip.decompress(content)
    if not content.strip(b"\xef\xbb\xbf \t\r\n"):
        raise DataError(f"{path}: the file is empty. A bar file has a header line and one line per bar.")
    first_lines = _first_lines(content)
    separator = max(_SEPARATORS, key=first_lines[0].count)
    names = next(csv.reader([first_lines[0]], delimiter=separator), [])
    columns = _assign(path, names, _header_hint(first_lines, separator))
    _refuse_longer_lines(path, content, separator, len(names))
    texts = {*columns.time, *([] if columns.symbol is None else [columns.symbol])}
    try:
        frame = pd.read_csv(
            io.BytesIO(content),
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
            encoding="utf-8-sig",
        )
    except pd.errors.ParserError as error:
        raise DataError(
            f"{path}: cannot be read as a table ({_one_line(error)})."
            f" Every line needs the header's {len(names)} fields."
        ) from error
    return _table(path, frame, columns, first_line=2)


def _refuse_longer_lines(path: Path, content: bytes, separator: str, fields: int) -> None:
    """Refuse lines with more fields than the header; pandas would leave out the last ones without a word."""
    letters = np.frombuffer(content, dtype=np.uint8)
    line_ends = np.append(np.flatnonzero(letters == ord("\n")), len(letters))
    separators = np.searchsorted(np.flatnonzero(letters == ord(separator)), line_ends)
    longer = np.flatnonzero(np.diff(separators, prepend=0) >= fields)
    for line in longer:
        begin = 0 if line == 0 else line_ends[line - 1] + 1
        text = content[begin : line_ends[line]].decode("utf-8", errors="replace").rstrip("\r")
        # A separator may stand inside quotes, and some writers end every line with one.
        extra = next(csv.reader([text], delimiter=separator), [])[fields:]
        if any(field.strip() for field in extra):
            raise DataError(
                f"{path}, row {line + 1}: has {fields + len(extra)} fields, but the header has {fields}."
                " Correct the row: a number may have been written with a comma."
            )


def _first_lines(content: bytes) -> list[str]:
    head = content[: 1 << 16].decode("utf-8-sig", errors="replace")
    return head.splitlines()[:_LINES_SEARCHED_FOR_A_HEADER]


def _header_hint(lines: Sequence[str], separator: str) -> str:
    """Return what to do about a file whose first line is no header, or nothing."""
    for number, line in enumerate(lines[1:], start=2):
        known = {_role(_plain(name)) for name in next(csv.reader([line], delimiter=separator), [])}
        if {"open", "high", "low", "close"} <= known:
            return f" Line {number} looks like the header; remove the lines above it."
    fields = lines[0].split(separator)
    if sum(_is_number(text) for text in fields) >= len(PRICES):
        return " The first line looks like a bar; put a header line above it."
    return ""


# --- parquet files ------------------------------------------------------------------------------------------


def _from_parquet(path: Path) -> RawTable:
    if not path.exists():
        raise FileNotFoundError(path)
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty. A bar file has one row per bar.")
    try:
        frame = pd.read_parquet(path)
    except ValueError as error:
        # pyarrow's ArrowInvalid, what a file that is not parquet at all raises, is a ValueError.
        raise DataError(f"{path}: is not a parquet file ({_one_line(error)}). Export it again.") from error
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index(names=frame.index.name or "datetime")
    names = [str(name) for name in frame.columns]
    columns = _assign(path, names, "")
    frame.columns = range(len(names))
    for position in {*columns.time, *([] if columns.symbol is None else [columns.symbol])}:
        frame[position] = frame[position].astype(str).where(frame[position].notna())
    return _table(path, frame, columns, first_line=1)


# --- both ---------------------------------------------------------------------------------------------------


def _table(path: Path, frame: pd.DataFrame, columns: _Columns, first_line: int) -> RawTable:
    """Turn the columns that matter into arrays, leaving out lines that are blank."""
    line = np.arange(len(frame), dtype=np.int64) + first_line
    is_blank = frame.isna().to_numpy().all(axis=1)
    if is_blank.any():
        frame, line = frame[~is_blank], line[~is_blank]
    if not len(frame):
        raise DataError(
            f"{path}: the file has a header but no bars. A bar file has a header line and one line per bar."
        )
    numbers, texts = {}, {}
    for name, position in columns.numbers.items():
        numbers[name], texts[name] = _numbers(frame[position])
    label = _joined([frame[position] for position in columns.time])
    symbols = () if columns.symbol is None else tuple(frame[columns.symbol].dropna().str.strip().unique())
    return RawTable(
        line=line,
        label=label,
        numbers=numbers,
        texts=texts,
        naive_is_utc=columns.naive_is_utc,
        symbols=symbols,
        notes=columns.notes,
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
            if role in numbers:
                both = f"'{names[numbers[role]]}' and '{names[position]}'"
                raise DataError(f"{path}: {both} both say {role}. Remove or rename one of them.")
            numbers[role] = position
    time = _time_columns(plain)
    _require(path, names, plain, numbers, time, hint)
    used = {*numbers.values(), *time, symbol}
    ignored = [names[p] for p in range(len(names)) if p not in used and plain[p] not in _ROW_NUMBERS]
    notes = [f"{counted(len(ignored), 'column')} not used: {', '.join(ignored)}"] if ignored else []
    naive_is_utc = bool(re.search(r"(^|_)(utc|gmt)($|_)", plain[time[0]]))
    return _Columns(time, numbers, symbol, notes, naive_is_utc)


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
    if "close" in missing and set(plain) & set(_ADJUSTED):
        hint += " An adjusted close is not the close: it does not fit open, high and low of the same bar."
    raise DataError(
        f"{path}: no column for {', '.join(missing)}. Found: {found}.{hint}\n"
        "  A bar file needs a time, open, high, low and close; volume and x_ columns are optional."
        " Rename the columns."
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
