"""Find raw files and turn each into checked bars, or refuse it and say why.

Nothing is repaired and nothing is filled in. What each check means and does by default stands in one table,
`CHECKS` in `rl/market/checks.py`; an instrument overrides it with `checks:`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rl.common.errors import DataError, UsageError
from rl.common.paths import checked_symbol
from rl.market import raw_times
from rl.market.bars import SECONDS_PER_DAY, Bars
from rl.market.calendars import (
    Calendar,
    Sessions,
    calendar,
    sessions_of_daily_bars,
    sessions_of_intraday_bars,
)
from rl.market.checks import Findings, counted
from rl.market.instruments import MINUTES_PER_DAY, Instrument, split_symbol
from rl.market.raw_table import ENDINGS, PRICES, RawTable, read_table, stem_of
from rl.market.raw_times import RawTimes

AS_FOUND = "as_found"
"""Name of folders whose files are kept as a source delivered them, and are no symbols."""

_SECOND = 10**9
_DAY_NS = SECONDS_PER_DAY * _SECOND
_DAILY_FROM_NS = 23 * 3600 * _SECOND
"""A median spacing of at least this is daily; a day is an hour shorter where summer time begins."""

_LONGEST_DAILY_SPACING_NS = 4 * _DAY_NS
"""Daily bars skip weekends, but their median spacing stays below this; weekly bars do not."""

LARGEST_SHARE_OUTSIDE = 0.03
"""More bars than this outside the session speak for a wrong time zone, not for odd prints: those before the
open and after the close of an index are below 1 %."""

LARGEST_SHARE_BACKWARD = 0.03
"""More rows than this are not dropped for going back in time: one time mistyped into the future makes all rows after
it do so."""

LEAST_SHARE_OF_SUMMER = 0.1
"""Share of the rows in which two time columns may be an hour further apart than in most: the summers of one clock."""

ROUNDING = 1e-9
"""Share of the price by which high and low may miss open and close through the rounding of adjusted prices:
far above what 64-bit arithmetic loses (1e-15), far below any price step."""

FEWEST_STEPS = 10
"""From fewer steps between bars nobody can tell a wrong bar length from a few missing bars."""

JUMP_FLOOR = 0.10
"""Absolute log return (about 10 %) below which no move is called a jump."""

JUMP_IN_DEVIATIONS = 20.0
"""A jump is also this many robust standard deviations of the series' own returns."""

STALE_RUN_BARS = 10
"""This many bars in a row with all four prices unchanged are called stale."""

LARGEST_SHARE_FLAT = 0.05
"""A larger share of bars with high = low is worth a word."""

STRAY_DAYS = 90.0
"""A silence longer than this, with no more than `STRAY_BARS` bars on its outer side, is a mistyped date."""

STRAY_BARS = 3

VOLUME_UNIT_FACTOR = 100.0
"""The typical volume changes by this factor only where the unit changes, or the contract."""

VOLUME_UNIT_SESSIONS = 10
"""Sessions (in a short file, bars) compared before and after; one wild session is no change of unit."""


@dataclass(frozen=True)
class IngestResult:
    """Bars of one raw file, and what was done to get them."""

    bars: Bars
    counts: dict[str, int]
    """`rows` in the file, `bars` kept, and per check the rows or places it caught."""
    notes: list[str]
    """What was dropped, let through or not used, as sentences."""


def discover(
    raw_dir: Path,
    on_problem: Callable[[str, DataError], None] | None = None,
    on_other: Callable[[Path], None] | None = None,
) -> dict[str, Path]:
    """Return every raw file below a folder by symbol, sorted by symbol.

    Folders named `as_found` and hidden files and folders are left out; links to folders are followed.

    Args:
        raw_dir: Where to look.
        on_problem: Called with the name and what is wrong with it, where a file cannot be told apart by its name, or a
            folder cannot be read or is named like a file; the file, or both files of one symbol, are then left out.
            Without it the first such file raises.
        on_other: Called with each file whose ending is that of no price file; not with a README.

    Raises:
        DataError: The folder does not exist; or, without `on_problem`, two files have the same symbol or a name
            cannot be a symbol.
    """
    if not raw_dir.is_dir():
        raise DataError(
            f"{raw_dir}: there is no such folder. Put bar files ({', '.join(ENDINGS)}) into it, named after"
            " their symbol, such as Nifty_5.csv, or name another folder."
        )
    found: dict[str, Path] = {}
    twice: set[str] = set()

    def wrong(symbol: str, error: DataError) -> None:
        if on_problem is None:
            raise error
        on_problem(symbol, error)

    def unreadable(error: OSError) -> None:
        folder = Path(error.filename)
        wrong(
            folder.name,
            DataError(
                f"{folder}: cannot be read ({error.strerror}). Give this user the right to read the folder."
            ),
        )

    seen: set[tuple[int, int]] = set()
    for folder, subfolders, files in os.walk(raw_dir, onerror=unreadable, followlinks=True):
        where = Path(folder).stat()
        if (where.st_dev, where.st_ino) in seen:
            # A link may lead back up, or to a folder that was searched already.
            subfolders.clear()
            continue
        seen.add((where.st_dev, where.st_ino))
        subfolders[:] = sorted(name for name in subfolders if name != AS_FOUND and not name.startswith("."))
        for name in [name for name in subfolders if stem_of(Path(name)) is not None]:
            subfolders.remove(name)
            path = Path(folder) / name
            wrong(name, DataError(f"{path}: is a folder, but is named like a bar file. Rename it."))
        for name in sorted(files):
            path = Path(folder) / name
            if name.startswith("."):
                continue
            symbol = stem_of(path)
            if symbol is None:
                if on_other is not None and path.stem.upper() != "README":
                    on_other(path)
                continue
            try:
                checked_symbol(symbol)
            except UsageError as error:
                wrong(symbol, DataError(f"{path}: {error}"))
                continue
            if symbol in found:
                other = found[symbol]
                wrong(
                    symbol,
                    DataError(f"{other} and {path} are both files of symbol {symbol}. Remove or rename one."),
                )
                twice.add(symbol)
                continue
            found[symbol] = path
    return {symbol: found[symbol] for symbol in sorted(found) if symbol not in twice}


def read_raw(path: Path, symbol: str, instrument: Instrument) -> IngestResult:
    """Read one raw file, check it, and return its bars.

    Args:
        path: A .csv, .csv.gz or .parquet file.
        symbol: Its symbol; an ending such as `_15` states the bar length in minutes.
        instrument: What the symbol is; decides hours, time zone, label and check policies.

    Raises:
        DataError: The file cannot be used; every check that refused it, with the first offending rows.
    """
    return bars_of_table(read_table(path), path, symbol, instrument)


def bars_of_table(table: RawTable, path: Path, symbol: str, instrument: Instrument) -> IngestResult:
    """Check the rows of one raw file, and return their bars.

    Args:
        table: The file's rows; used up.
        path: Where they came from, for messages.
        symbol: As in `read_raw`.
        instrument: As in `read_raw`.

    Raises:
        DataError: As in `read_raw`.
    """
    findings = Findings(path, instrument.name, instrument.checks)
    rows = _Rows(table, raw_times.parse_times(table.label, naive_is_utc=table.naive_is_utc), findings)
    _check_rows(rows, instrument)
    rows.refuse_if_wrong()

    is_daily = _is_daily(path, symbol, rows.times.wall)
    start = _ordered_starts(rows, instrument, is_daily)
    rows.refuse_if_wrong()

    bar_ns = _DAY_NS if is_daily else _bar_length(path, symbol, start)
    series = _placed(rows, start, instrument, bar_ns)
    findings.raise_errors()
    _check_spacing(series, symbol, bar_ns, findings)
    findings.raise_errors()
    series = series.settled_overlaps(findings)
    findings.raise_errors()

    bars = _bars(symbol, series, bar_ns)
    _check_strays(series, findings)
    _check_holes(series, bar_ns, instrument, findings)
    _check_session_ends(bars, calendar(instrument.calendar), findings)
    _check_prices_over_time(bars, series.table.line, findings)
    _check_volume_unit(bars, series.table.line, findings)
    findings.raise_errors()
    counts = {"rows": len(table), "bars": len(bars)} | findings.counts
    return IngestResult(bars, counts, [*table.notes, *findings.notes])


# --- rows one by one ----------------------------------------------------------------------------------------


class _Rows:
    """The rows of one file that have passed every check so far."""

    def __init__(self, table: RawTable, times: RawTimes, findings: Findings) -> None:
        self.table = table
        self.times = times
        self.findings = findings

    def settle(self, name: str, caught: np.ndarray, describe: Callable[[int], str]) -> np.ndarray:
        """Run one check of single rows and go on with those that pass; return where they were. (R,) bool"""
        keep = self.findings.rows(name, caught, self.table.line, self.table.label, describe)
        if not keep.all():
            self.table, self.times = self.table.rows(keep), self.times.rows(keep)
        return keep

    def reverse(self) -> None:
        backwards = np.arange(len(self.table))[::-1]
        self.table, self.times = self.table.rows(backwards), self.times.rows(backwards)

    def refuse_if_wrong(self) -> None:
        """Raise what was found; also where nothing is left after dropping."""
        self.findings.raise_errors()
        if not len(self.table):
            raise _nothing_left(self.findings)


def _nothing_left(findings: Findings) -> DataError:
    return DataError(
        f"{findings.path}: no bar is left. {'; '.join(findings.notes)}.\n  Correct the rows, or fetch the file again."
    )


def _check_rows(rows: _Rows, instrument: Instrument) -> None:
    """Check everything that one row alone shows."""
    for name in ("unfinished_line", "repeated_header", "field_count"):
        _settle_faulty_lines(rows, name)
    symbols = rows.table.symbols
    if len(symbols) > 1:
        first = [f"{symbol} (first in row {line})" for symbol, line in symbols.items()]
        shown = ", ".join(first[:5]) + (", …" if len(first) > 5 else "")
        rows.findings.series("several_symbols", len(symbols), f"holds {len(symbols)} symbols: {shown}")
    rows.settle("unparseable_time", rows.times.is_bad, lambda r: _no_time(rows.table.label[r]))
    _check_other_time(rows)
    _check_texts(rows)
    required = [name for name in rows.table.numbers if name != "volume"]
    rows.settle(
        "missing_value",
        ~np.all([np.isfinite(rows.table.numbers[name]) for name in required], axis=0),
        lambda r: _first(
            rows.table, r, required, lambda value: not np.isfinite(value), "is missing or not finite"
        ),
    )
    if not instrument.price_may_be_negative:
        rows.settle(
            "non_positive_price",
            np.any([rows.table.numbers[name] <= 0 for name in PRICES], axis=0),
            lambda r: _first(rows.table, r, PRICES, lambda value: value <= 0, "is not above zero"),
        )
    else:
        # Prices may pass through zero, but no market trades a whole bar at exactly zero: that is a bar without prices.
        rows.settle(
            "non_positive_price",
            np.all([rows.table.numbers[name] == 0 for name in PRICES], axis=0),
            lambda _: "all four prices are exactly 0",
        )
    opening, high, low, close = (rows.table.numbers[name] for name in PRICES)
    excess = np.maximum(low - np.minimum(opening, close), np.maximum(opening, close) - high)
    is_rounding = (excess > 0) & (excess <= ROUNDING * np.abs(close))
    keep = rows.settle("ohlc", (excess > 0) & ~is_rounding, lambda r: _contradiction(rows.table, r))
    rows.settle("ohlc_rounding", is_rounding[keep], lambda r: _contradiction(rows.table, r))
    _check_volume(rows)


def _no_time(label: str) -> str:
    may_be_two = re.fullmatch(r"\d{10}", label.strip()) is not None
    return f"'{label}' " + ("may be a written time or a count of seconds" if may_be_two else "is no time")


def _settle_faulty_lines(rows: _Rows, name: str) -> None:
    """Settle lines that the reader of the file found to be no rows."""
    found = rows.table.faults.get(name, {})
    if found:
        is_faulty = np.zeros(len(rows.table), dtype=bool)
        is_faulty[list(found)] = True
        rows.settle(name, is_faulty, found.__getitem__)


def _check_other_time(rows: _Rows) -> None:
    """Compare the times of the rows with those of a second column that names them too."""
    label = rows.table.other_label
    if label is None:
        return
    other = raw_times.parse_times(label, naive_is_utc=False)
    shows_clock = ~other.is_bad & (other.wall % _DAY_NS != 0)
    if not shows_clock.any():
        return
    apart = (rows.times.wall - rows.times.offset) - (other.wall - other.offset)
    differences, counts = np.unique(apart[~other.is_bad], return_counts=True)
    usual = differences[np.argmax(counts)]
    # One of the two clocks may be put forward and back, the other not.
    is_usual = (apart == usual) | (
        np.isin(apart, differences[counts >= LEAST_SHARE_OF_SUMMER * len(label)])
        & (np.abs(apart - usual) == 3600 * _SECOND)
    )
    rows.settle(
        "time_columns",
        ~other.is_bad & ~is_usual,
        lambda r: f"another column says '{label[r]}', {_span(abs(int(apart[r] - usual)))} off from most rows",
    )


def _check_texts(rows: _Rows) -> None:
    """Catch cells that hold something other than a number."""
    texts = rows.table.texts
    is_text = np.zeros(len(rows.table), dtype=bool)
    for found in texts.values():
        is_text[list(found)] = True
    cells: dict[int, str] = {}
    for name, found in texts.items():
        for row, text in found.items():
            cells.setdefault(row, f"{name} is the text '{text}'")
    rows.settle("text_value", is_text, lambda r: cells[r])


def _check_volume(rows: _Rows) -> None:
    """Check the volume column, where there is one; one that is all zero or all empty counts as absent."""
    volume = rows.table.numbers.get("volume")
    if volume is None:
        return
    rows.settle(
        "negative_volume", volume < 0, lambda r: f"volume is {float(rows.table.numbers['volume'][r])!r}"
    )
    volume = rows.table.numbers["volume"]
    is_missing = ~np.isfinite(volume)
    if not is_missing.all():
        rows.settle("missing_volume", is_missing, lambda _: "has no volume")
    volume = rows.table.numbers["volume"]
    if not np.isfinite(volume).all() or not volume.any():
        del rows.table.numbers["volume"]
        rows.table.notes.append("volume is not used: it is zero or missing in some or all rows")


def _first(
    table: RawTable, row: int, names: Sequence[str], is_wrong: Callable[[float], bool], says: str
) -> str:
    """Describe the first of a row's values that is wrong."""
    name = next(name for name in names if is_wrong(table.numbers[name][row]))
    return f"{name} {float(table.numbers[name][row])!r} {says}"


def _contradiction(table: RawTable, row: int) -> str:
    opening, high, low, close = (float(table.numbers[name][row]) for name in PRICES)
    for name, value in (("open", opening), ("close", close)):
        if low > value:
            return f"low {low!r} is above {name} {value!r}"
        if high < value:
            return f"high {high!r} is below {name} {value!r}"
    raise AssertionError("called for a bar without a contradiction")


# --- order --------------------------------------------------------------------------------------------------


def _is_daily(path: Path, symbol: str, wall: np.ndarray) -> bool:
    _, minutes = split_symbol(symbol)
    if minutes is not None:
        return minutes == MINUTES_PER_DAY
    spacing = raw_times.spacing_of(wall)
    if spacing is None:
        raise _one_bar(path, symbol)
    return spacing >= _DAILY_FROM_NS


def _one_bar(path: Path, symbol: str) -> DataError:
    return DataError(
        f"{path}: has one bar, so the length of its bars cannot be told. Add bars, or name the file after"
        f" the length in minutes, such as {symbol}_5."
    )


def _ordered_starts(rows: _Rows, instrument: Instrument, is_daily: bool) -> np.ndarray:
    """Return when each row's bar begins, oldest first, after settling duplicate and backward times.

    Returns:
        UTC nanoseconds; for daily bars the midnight of the session date, as if in UTC. (R,) int64
    """
    zone = instrument.label_timezone or calendar(instrument.calendar).timezone
    if is_daily:
        start = raw_times.dates(rows.times, zone) * _DAY_NS
    else:
        _settle_mixed_clocks(rows, zone)
        start, is_unclear = raw_times.instants(rows.times, zone)
        keep = rows.settle(
            "unparseable_time",
            is_unclear,
            lambda _: f"the clock in {zone} is put forward or back at this time",
        )
        start = start[keep]
    steps = np.diff(start)
    if np.sum(steps < 0) > np.sum(steps > 0):
        rows.reverse()
        start = start[::-1]
        rows.table.notes.append("rows were newest first; the whole file was reversed")
    if len(start) > 1 and np.diff(start).min() <= 0:
        start = _settle_duplicates(rows, start)
        latest = np.maximum.accumulate(start)
        is_backward = np.concatenate([[False], start[1:] < latest[:-1]])
        _refuse_one_row_to_cost_many(rows, start, is_backward)
        keep = rows.settle(
            "backward_time",
            is_backward,
            # The row that stands too high up or too late, which may be the one at fault.
            lambda r: f"is earlier than a row before, {_row(rows, int(np.argmax(start[:r])))}",
        )
        start = start[keep]
    return start


def _refuse_one_row_to_cost_many(rows: _Rows, start: np.ndarray, is_backward: np.ndarray) -> None:
    """Refuse to drop a large part of a file because one mistyped time lies after all of it."""
    count = int(is_backward.sum())
    if rows.findings.policy("backward_time") != "drop" or count <= FEWEST_STEPS:
        return
    if count <= LARGEST_SHARE_BACKWARD * len(start):
        return
    first = int(np.flatnonzero(is_backward)[0])
    raise DataError(
        f"{rows.findings.path}, {_row(rows, int(np.argmax(start[:first])))}: rows after it are earlier, and"
        f" {count:,} of {len(start):,} rows would be dropped for the like.\n  Correct the row."
    )


def _settle_mixed_clocks(rows: _Rows, zone: str) -> None:
    """Settle times that say which clock they are of, or do not, unlike most of the file."""
    is_naive = rows.times.is_naive
    is_odd = is_naive if 2 * is_naive.sum() <= len(is_naive) else ~is_naive
    if is_odd.all():
        return
    says = (
        "says no offset from UTC, unlike most rows"
        if is_naive[is_odd].all()
        else f"says its offset from UTC, unlike most rows, which would be read as {zone}"
    )
    rows.settle("unparseable_time", is_odd, lambda _: says)


def _settle_duplicates(rows: _Rows, start: np.ndarray) -> np.ndarray:
    """Settle rows whose time occurred before; return the starts of those left."""
    for name in ("identical_duplicate", "duplicate_time"):
        _, first_row, group = np.unique(start, return_index=True, return_inverse=True)
        original = first_row[group]
        is_repeat = original != np.arange(len(start))
        is_same = np.all([values == values[original] for values in rows.table.numbers.values()], axis=0)
        caught = is_repeat & is_same if name == "identical_duplicate" else is_repeat
        keep = rows.settle(name, caught, lambda r, first=original: _repetition(rows, r, int(first[r])))
        start = start[keep]
    return start


def _repetition(rows: _Rows, row: int, first: int) -> str:
    differing = [
        (name, values) for name, values in rows.table.numbers.items() if values[row] != values[first]
    ]
    but = "".join(
        f" with {name} {float(v[row])!r} instead of {float(v[first])!r}" for name, v in differing[:1]
    )
    return f"repeats the time of {_row(rows, first)}{but}"


def _row(rows: _Rows, row: int) -> str:
    return f"row {rows.table.line[row]} ({rows.table.label[row]})"


def _bar_length(path: Path, symbol: str, start: np.ndarray) -> int:
    """Return the length of intraday bars in nanoseconds: as the name says, else the most frequent spacing."""
    _, minutes = split_symbol(symbol)
    if minutes is not None:
        return minutes * 60 * _SECOND
    if len(start) < 2:
        raise _one_bar(path, symbol)
    length = _most_frequent(np.diff(start))
    if length % _SECOND:
        raise DataError(
            f"{path}: most rows are {length / _SECOND:g} s apart, so these are ticks."
            " A bar lasts whole seconds."
        )
    return length


def _most_frequent(steps: np.ndarray, preferred: int = 0) -> int:
    """Return the most frequent value; among equally frequent ones `preferred`, else the smallest."""
    values, counts = np.unique(steps, return_counts=True)
    most = values[counts == counts.max()]
    return preferred if preferred in most else int(most[0])


# --- bars in their sessions ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Series:
    """Rows with their place in time. Axes: T bars."""

    table: RawTable
    start: np.ndarray
    sessions: Sessions

    def rows(self, keep: np.ndarray) -> _Series:
        return (
            self if keep.all() else _Series(self.table.rows(keep), self.start[keep], self.sessions.rows(keep))
        )

    def settled_overlaps(self, findings: Findings) -> _Series:
        """Return the bars without those that begin before the one kept before them has ended."""
        ends = self.sessions.close_time
        if len(self.start) < 2 or np.all(self.start[1:] >= ends[:-1]):
            return self
        overlaps = np.zeros(len(self.start), dtype=bool)
        last_end = ends[0]
        for t in range(1, len(self.start)):
            overlaps[t] = self.start[t] < last_end
            if not overlaps[t]:
                last_end = ends[t]
        says = "begins before the bar before it has ended"
        return self.rows(
            findings.rows("overlap", overlaps, self.table.line, self.table.label, lambda _: says)
        )


def _placed(rows: _Rows, start: np.ndarray, instrument: Instrument, bar_ns: int) -> _Series:
    """Place bars in sessions and settle those outside the trading hours."""
    hours = calendar(instrument.calendar)
    if bar_ns == _DAY_NS:
        sessions = sessions_of_daily_bars(hours, start // _DAY_NS)
    else:
        start = start - bar_ns if instrument.label == "end" else start
        sessions = sessions_of_intraday_bars(hours, start, bar_ns // _SECOND)
    series = _Series(rows.table, start, sessions)
    is_outside, findings = sessions.is_outside, rows.findings
    zone = instrument.label_timezone or hours.timezone
    share = float(is_outside.mean())
    if share > LARGEST_SHARE_OUTSIDE:
        row = int(np.flatnonzero(is_outside)[0])
        let_through = findings.series(
            "mostly_outside_session",
            int(is_outside.sum()),
            f"{is_outside.sum():,} of {len(start):,} bars ({share:.1%}) lie outside the hours of"
            f" {hours.name} ({hours.described()}), for example {_row(rows, row)};"
            f" times without an offset were read as {zone}",
        )
        if not let_through:
            return series
    keep = findings.rows(
        "outside_session",
        is_outside,
        rows.table.line,
        rows.table.label,
        lambda _: f"outside {hours.described()}, times without an offset being read as {zone}",
    )
    if not keep.any():
        raise _nothing_left(findings)
    return series.rows(keep)


def _check_spacing(series: _Series, symbol: str, bar_ns: int, findings: Findings) -> None:
    """Check that bars are as far apart as they are long."""
    steps = np.diff(series.start)
    if bar_ns == _DAY_NS:
        typical = int(np.median(steps)) if len(steps) else bar_ns
        is_wrong = typical < _DAILY_FROM_NS or (
            typical > _LONGEST_DAILY_SPACING_NS and len(steps) >= FEWEST_STEPS
        )
        if is_wrong:
            findings.series("spacing", len(steps), f"bars are {_span(typical)} apart, which is not daily")
        return
    inside = steps[np.diff(series.sessions.number) == 0]
    if not len(inside) and not series.sessions.is_last.all():
        # One bar a session: right only where each reaches the close, as with bars longer than half a session.
        inside = steps
    typical = _most_frequent(inside, preferred=bar_ns) if len(inside) else bar_ns
    if typical < bar_ns or (typical > bar_ns and len(inside) >= FEWEST_STEPS):
        count = int(np.sum(inside == typical))
        says = f"most bars ({count:,} of {len(inside):,}) are {_span(typical)} apart"
        findings.series("spacing", count, f"{says}, but the name {symbol} says {_span(bar_ns)}")


def _span(nanoseconds: int) -> str:
    """Return a span as people say it: `5 min`, `1 day`."""
    seconds = nanoseconds / _SECOND
    for length, unit in ((SECONDS_PER_DAY, "day"), (3600, "h"), (60, "min")):
        if seconds >= length:
            amount = f"{seconds / length:.4g}"
            return f"{amount} {unit}{'s' if unit == 'day' and amount != '1' else ''}"
    return f"{seconds:g} s"


def _bars(symbol: str, series: _Series, bar_ns: int) -> Bars:
    numbers = series.table.numbers
    return Bars(
        symbol=symbol,
        bar_seconds=bar_ns // _SECOND,
        close_time=series.sessions.close_time,
        session=series.sessions.number,
        session_end=series.sessions.is_last,
        **{name: numbers[name] for name in PRICES},
        volume=numbers.get("volume"),
        extra={name: values for name, values in numbers.items() if name.startswith("x_")},
        label=series.table.label,
    )


# --- the series as a whole ----------------------------------------------------------------------------------


def _check_strays(series: _Series, findings: Findings) -> None:
    """Catch the few bars that stand far before or after all others, as a mistyped year puts them."""
    gaps = np.flatnonzero(np.diff(series.start) > STRAY_DAYS * _DAY_NS) + 1
    count = len(series.start)
    is_stray = np.zeros(count, dtype=bool)
    if count < STRAY_BARS + FEWEST_STEPS:
        return
    is_stray[: max(gaps[gaps <= STRAY_BARS], default=0)] = True
    is_stray[min(gaps[gaps >= count - STRAY_BARS], default=count) :] = True
    others = np.flatnonzero(~is_stray)

    def says(row: int) -> str:
        other = int(others[0] if row < others[0] else others[-1])
        away = _span(abs(int(series.start[row] - series.start[other])))
        return f"is {away} away from row {series.table.line[other]} ({series.table.label[other]})"

    findings.rows("stray_bars", is_stray, series.table.line, series.table.label, says)


def _check_holes(series: _Series, bar_ns: int, instrument: Instrument, findings: Findings) -> None:
    """Count missing bars inside sessions, and silences longer than the instrument allows."""
    ends = series.start + bar_ns if bar_ns == _DAY_NS else series.sessions.close_time
    silence = series.start[1:] - ends[:-1]
    if not len(silence):
        return
    hours = calendar(instrument.calendar)
    is_same_session = np.diff(series.sessions.number) == 0
    if hours.round_the_clock and bar_ns != _DAY_NS:
        # A missing stretch around the turn of the day is a hole like any other; a weekend is none.
        is_same_session |= silence < _DAY_NS
    found = []
    missing = np.where(is_same_session, silence // bar_ns, 0)
    if missing.any():
        longest = int(np.argmax(missing))
        places = counted(int(np.sum(missing > 0)), "place")
        found.append(
            f"{counted(int(missing.sum()), 'bar')} missing in {places} inside sessions, the most in a"
            f" row {int(missing[longest]):,} after {series.table.label[longest]}"
        )
    is_long = silence > instrument.max_hole_days * _DAY_NS
    if is_long.any():
        longest = int(np.argmax(silence))
        found.append(
            f"{counted(int(np.sum(is_long)), 'silence')} of more than {instrument.max_hole_days:g} days, the"
            f" longest {_span(int(silence[longest]))} after {series.table.label[longest]}"
        )
    if found:
        findings.series("hole", int(np.sum(missing > 0) + np.sum(is_long)), "; ".join(found))


def _check_session_ends(bars: Bars, hours: Calendar, findings: Findings) -> None:
    """Count sessions that break off before their regular close; the last one may still be running."""
    if hours.close is None:
        return
    count = int(bars.session[-1]) + 1
    has_end = np.zeros(count, dtype=bool)
    has_end[bars.session[bars.session_end]] = True
    unfinished = np.flatnonzero(~has_end[:-1])
    if len(unfinished):
        last_bar = np.searchsorted(bars.session, unfinished[0], side="right") - 1
        findings.series(
            "unfinished_session",
            len(unfinished),
            f"{len(unfinished):,} of {counted(count, 'session')} without a bar that reaches the close;"
            f" the first of them ends with {bars.label[last_bar]}",
        )


def _check_prices_over_time(bars: Bars, line: np.ndarray, findings: Findings) -> None:
    """Look for moves no market makes, and for feeds that stood still."""
    if len(bars) < 2:
        return
    before = bars.close[:-1]
    is_defined = (before > 0) & (bars.open[1:] > 0) & (bars.close[1:] > 0)
    to_open, to_close = (
        np.abs(np.log(np.divide(prices[1:], before, where=is_defined, out=np.ones(len(before)))))
        for prices in (bars.open, bars.close)
    )
    # The median absolute value of a normal variable is 0.6745 deviations; a mean would follow the jumps.
    limit = max(JUMP_FLOOR, JUMP_IN_DEVIATIONS * float(np.median(to_close)) / 0.6745)
    jumps = np.flatnonzero(np.maximum(to_open, to_close) > limit)
    if len(jumps):
        shown = "; ".join(_jump(bars, line, int(t) + 1, to_open[t] > limit) for t in jumps[:3])
        findings.series(
            "jump", len(jumps), f"{counted(len(jumps), 'move')} of more than {np.expm1(limit):.0%}: {shown}"
        )
    is_repeat = np.all(
        [np.diff(prices) == 0 for prices in (bars.open, bars.high, bars.low, bars.close)], axis=0
    )
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_repeat, [False]]).astype(np.int8)))
    first, length = edges[::2], edges[1::2] - edges[::2] + 1
    long = length >= STALE_RUN_BARS
    if long.any():
        worst = int(np.argmax(length))
        findings.series(
            "stale_run",
            int(long.sum()),
            f"{counted(int(long.sum()), 'run')} of {STALE_RUN_BARS} or more bars without any change,"
            f" the longest {length[worst]:,} from row {line[first[worst]]} ({bars.label[first[worst]]})",
        )
    is_flat = bars.high == bars.low
    if is_flat.mean() > LARGEST_SHARE_FLAT:
        says = f"{is_flat.sum():,} of {len(bars):,} bars ({is_flat.mean():.1%}) have one price only"
        findings.series("flat_bars", int(is_flat.sum()), says)


def _jump(bars: Bars, line: np.ndarray, t: int, at_open: bool) -> str:
    price = bars.open[t] if at_open else bars.close[t]
    name = "open" if at_open else "close"
    ratio = f"x {price / bars.close[t - 1]:.3g}"
    return (
        f"row {line[t]} ({bars.label[t]}) {name} {price:.10g} after close {bars.close[t - 1]:.10g} ({ratio})"
    )


def _check_volume_unit(bars: Bars, line: np.ndarray, findings: Findings) -> None:
    """Look for the row from which on the volume counts something else: lots, shares, money."""
    if bars.volume is None:
        return
    traded = np.flatnonzero(bars.volume > 0)
    width = VOLUME_UNIT_SESSIONS
    # Where there are few sessions, bars have to do.
    group = bars.session[traded] if bars.session[-1] + 1 >= 2 * width else traded
    size = pd.Series(np.log10(bars.volume[traded])).groupby(group).median()
    if len(size) < 2 * width:
        return
    sizes, starts = size.to_numpy(), traded[np.searchsorted(group, size.index)]
    typical = np.median(np.lib.stride_tricks.sliding_window_view(sizes, width), axis=1)
    steps = typical[width:] - typical[:-width]
    largest = int(np.argmax(np.abs(steps)))
    if abs(steps[largest]) < np.log10(VOLUME_UNIT_FACTOR):
        return
    # Somewhere in these two stretches lies the place; it is where two neighbours differ most.
    near = np.diff(sizes[largest : largest + 2 * width]) * np.sign(steps[largest])
    place = largest + int(np.argmax(near)) + 1
    row = int(starts[place])
    findings.series(
        "volume_unit",
        1,
        f"the typical volume goes from {10 ** typical[largest]:.3g} to"
        f" {10 ** typical[largest + width]:.3g} near row {line[row]} ({bars.label[row]})",
    )
