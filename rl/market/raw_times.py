"""Turn the times that raw files write into instants, without ever guessing a unit by default.

Text may be ISO (`2020-03-13 09:15:00+05:30`, `2020-03-13T09:15Z`, `20200313`), the same with dots or slashes
(`2020.03.13 09:15`), or a count of seconds, milliseconds, microseconds or nanoseconds since 1970, told apart
by their size. Dates with the day or month first are refused: 03-04-2020 is two different days to two readers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

_DAY_NS = 86_400 * 10**9
_UNKNOWN = np.iinfo(np.int64).min
"""numpy's mark for no time at all, read as an integer."""

_EPOCH_UNITS = ((1e8, 9.2e9, 10**9), (1e11, 9.2e12, 10**6), (1e14, 9.2e15, 10**3), (1e17, 9.2e18, 1))
"""From, below, nanoseconds per unit: 1973 to 2261 in each unit, so that no two overlap. A smaller number is
no time but a date (YYYYMMDD), a row number or a mistake; later times overflow 64 bits of nanoseconds."""

_FIRST_YEAR_AS_NUMBER, _LAST_YEAR_AS_NUMBER = 1900, 2100
_DAYS_AS_NUMBERS = (19_000_101, 21_001_231)
_MINUTES_AS_NUMBERS = (190_001_010_000, 210_012_312_359)
"""As milliseconds these would all lie in the year 1976, of which nobody has such data."""
_SECONDS_AS_NUMBERS = (19_000_101_000_000, 21_001_231_235_959)

_CALENDAR_NUMBERS = (
    (*_DAYS_AS_NUMBERS, "%Y%m%d"),
    (*_MINUTES_AS_NUMBERS, "%Y%m%d%H%M"),
    (*_SECONDS_AS_NUMBERS, "%Y%m%d%H%M%S"),
)
"""Numbers from, up to, and how the calendar is written in them."""

_LIKE_SECONDS = ("%Y%m%d%H", "%y%m%d%H%M")
"""Ways of writing a time in ten digits, as many as seconds since 1970 have."""

FEWEST_TO_TELL = 10
"""Where this many different counts of ten digits are all times of the calendar, too, nobody can tell which is meant:
of random ones hardly one in a hundred is."""

_LATEST = np.datetime64("2261-01-01")
_EARLIEST = np.datetime64("1700-01-01")
"""Outside these, nanoseconds since 1970 overflow, and numpy says nothing."""

_OFFSET = r"^(.*?\d)\s*([zZ]|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$"
_HALF_DAY_HOUR = r"^(0[1-9]|1[0-2])-([AP]M)$"

_LARGEST_OFFSET_MINUTES = 14 * 60
"""No clock is further from UTC (Kiribati)."""

_SHORTEST_DATE = len("2024-1-1")
"""A shorter text lacks the day or the month."""
_YEAR_FIRST = r"^(\d{4})[-./](\d{1,2})[-./](\d{1,2})(?:[ T](.*))?$"


@dataclass(frozen=True)
class RawTimes:
    """Times of the rows of one file. Axes: R rows."""

    wall: np.ndarray
    """What the file's clock shows: nanoseconds since its own 1970-01-01 00:00; UTC for counts. (R,) int64"""
    offset: np.ndarray
    """Nanoseconds that the file's clock is ahead of UTC, where the row says so. (R,) int64"""
    is_naive: np.ndarray
    """True where the row does not say what its clock is. (R,) bool"""
    is_count: np.ndarray
    """True where the row counts time units since 1970. (R,) bool"""
    is_bad: np.ndarray
    """True where the text is no time. (R,) bool"""

    def rows(self, keep: np.ndarray) -> RawTimes:
        """Return the rows where `keep` is True, or those it lists, in that order."""
        return RawTimes(
            self.wall[keep], self.offset[keep], self.is_naive[keep], self.is_count[keep], self.is_bad[keep]
        )


def parse_times(label: np.ndarray, *, naive_is_utc: bool) -> RawTimes:
    """Read times from text.

    Args:
        label: Times as written. (R,) object of str
        naive_is_utc: Whether times without an offset are UTC, because their column's name says so.
    """
    text = pd.Series(label, dtype="str").str.strip()
    wall, is_count = _counted(text)
    offset = np.zeros(len(text), dtype=np.int64)
    is_naive = ~is_count
    rest = np.flatnonzero(wall == _UNKNOWN)
    if len(rest):
        wall[rest], offset[rest], has_offset = _from_text(text.iloc[rest])
        is_naive[rest[has_offset]] = False
    if naive_is_utc:
        is_naive[:] = False
    return RawTimes(wall, offset, is_naive, is_count, wall == _UNKNOWN)


def spacing_of(wall: np.ndarray) -> int | None:
    """Return the median time between rows with different times, forwards or backwards, in nanoseconds."""
    steps = np.abs(np.diff(wall))
    steps = steps[steps > 0]
    return int(np.median(steps)) if len(steps) else None


def instants(times: RawTimes, timezone: str) -> tuple[np.ndarray, np.ndarray]:
    """Return UTC nanoseconds, reading times without an offset as clock time in `timezone`.

    Returns:
        Instants. (R,) int64
        True where a clock in that zone never shows the time, or shows it twice (summer time). (R,) bool
    """
    found = times.wall - times.offset
    is_unclear = np.zeros(len(found), dtype=bool)
    naive = np.flatnonzero(times.is_naive & ~times.is_bad)
    if len(naive) and timezone != "UTC":
        shown = pd.DatetimeIndex(times.wall[naive].astype("datetime64[ns]"))
        there = shown.tz_localize(timezone, ambiguous="NaT", nonexistent="NaT")
        is_unclear[naive] = there.isna()
        found[naive] = there.as_unit("ns").asi8
    return found, is_unclear


def dates(times: RawTimes, timezone: str) -> np.ndarray:
    """Return the session date of daily rows as written, in days since 1970-01-01. (R,) int64

    A count since 1970 writes no date. Where all counts are whole UTC days they mean that day; else they are
    the midnight, open or close of a day in `timezone`.
    """
    wall = times.wall.copy()
    counts = np.flatnonzero(times.is_count & ~times.is_bad)
    if len(counts) and np.any(wall[counts] % _DAY_NS):
        there = (
            pd.DatetimeIndex(wall[counts].astype("datetime64[ns]")).tz_localize("UTC").tz_convert(timezone)
        )
        wall[counts] = there.tz_localize(None).as_unit("ns").asi8
    return wall // _DAY_NS


def _counted(text: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Read plain numbers; the rest is left unknown.

    Returns:
        Nanoseconds since 1970. (R,) int64
        True where the row is a count of time units. (R,) bool
    """
    wall = np.full(len(text), _UNKNOWN, dtype=np.int64)
    is_count = np.zeros(len(text), dtype=bool)
    is_number = text.str.fullmatch(r"\d+(?:\.\d*)?").to_numpy(dtype=bool, na_value=False)
    rows = np.flatnonzero(is_number)
    if not len(rows):
        return wall, is_count
    digits = text.iloc[rows].str.split(".", n=1).str[0]
    size = digits.astype(np.float64).to_numpy()
    in_digits = size < 9.2e18
    whole = np.zeros(len(rows), dtype=np.int64)
    whole[in_digits] = digits[in_digits].astype(np.int64).to_numpy()
    fraction = text.iloc[rows].astype(np.float64).to_numpy() - size
    is_calendar = np.zeros(len(rows), dtype=bool)
    for first, last, pattern in _CALENDAR_NUMBERS:
        found = np.flatnonzero((size >= first) & (size <= last) & (fraction == 0))
        wall[rows[found]] = _parsed(digits.iloc[found], pattern)
        is_calendar[found] = True
    is_calendar |= _may_be_calendar(digits)
    for least, below, nanoseconds in _EPOCH_UNITS:
        fits = (size >= least) & (size < below) & ~is_calendar
        # The whole part stays an integer: a float64 keeps only 256 ns of a count in nanoseconds.
        part = np.rint(fraction[fits] * nanoseconds).astype(np.int64)
        wall[rows[fits]] = whole[fits] * nanoseconds + part
        is_count[rows[fits]] = True
    return wall, is_count


def _may_be_calendar(digits: pd.Series) -> np.ndarray:
    """Return True for numbers of ten digits, if all of them may be written times as well as seconds. (R,) bool"""
    has_ten = (digits.str.len() == len("2024010109")).to_numpy(dtype=bool)
    different = digits[has_ten].drop_duplicates()
    nothing = np.zeros(len(digits), dtype=bool)
    # The first few answer for nearly every file.
    if len(different) < FEWEST_TO_TELL or not _is_written_time(different.iloc[:FEWEST_TO_TELL]):
        return nothing
    return has_ten if _is_written_time(different) else nothing


def _is_written_time(digits: pd.Series) -> bool:
    for pattern in _LIKE_SECONDS:
        year = pd.to_datetime(digits, format=pattern, errors="coerce").dt.year.to_numpy()
        # A comparison with a time that is none is False.
        if np.all((year >= _FIRST_YEAR_AS_NUMBER) & (year <= _LAST_YEAR_AS_NUMBER)):
            return True
    return False


def _from_text(text: pd.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read ISO text.

    Returns:
        Wall time in nanoseconds, unknown where it is no time. (R,) int64
        Offset from UTC in nanoseconds. (R,) int64
        True where the text has an offset. (R,) bool
    """
    offset = np.zeros(len(text), dtype=np.int64)
    # A clock is at least `9:15` long, so a sign this near to its end is no part of a date.
    may_have_offset = text.str.slice(-6).str.contains("[-+zZCT]", regex=True) & text.str.contains(
        ":", regex=False
    )
    has_offset = may_have_offset.to_numpy(dtype=bool, na_value=False).copy()
    if has_offset.any():
        parts = text[has_offset].str.extract(_OFFSET)
        has_offset[has_offset] = parts[1].notna().to_numpy()
        parts = parts[parts[1].notna()]
    if has_offset.any():
        text = text.copy()
        text[has_offset] = parts[0]
        # A file has few different offsets, so each is read once.
        codes, written = pd.factorize(parts[1])
        offset[has_offset] = np.array([_offset(each) for each in written], dtype=np.int64)[codes]
    is_no_offset = offset == _UNKNOWN
    offset[is_no_offset] = 0
    wall = _parsed(text.where(~is_no_offset & (text.str.len() >= _SHORTEST_DATE).to_numpy()), "ISO8601")
    failed = np.flatnonzero(wall == _UNKNOWN)
    if len(failed):
        parts = text.iloc[failed].str.extract(_YEAR_FIRST)
        parts[is_no_offset[failed]] = np.nan
        rebuilt = parts[0] + "-" + parts[1].str.zfill(2) + "-" + parts[2].str.zfill(2)
        clock = _in_24_hours(parts[3].fillna("").str.strip())
        clock = clock.where(~clock.str.match(r"\d:"), "0" + clock)
        wall[failed] = _parsed(rebuilt.where(clock == "", rebuilt + " " + clock), "ISO8601")
    return wall, offset, has_offset


def _in_24_hours(clock: pd.Series) -> pd.Series:
    """Return `04-PM`, as an exchange's history writes it, as `16:00`; others as they are."""
    parts = clock.str.extract(_HALF_DAY_HOUR)
    is_one = parts[0].notna()
    if not is_one.any():
        return clock
    hour = parts[0][is_one].astype(int) % 12 + 12 * (parts[1][is_one] == "PM")
    return clock.where(~is_one, hour.astype(str).str.zfill(2).reindex(clock.index) + ":00")


def _parsed(text: pd.Series, pattern: str) -> np.ndarray:
    """Return nanoseconds since 1970 of text in one format, unknown where it does not fit. (R,) int64"""
    found = pd.to_datetime(text, format=pattern, errors="coerce").to_numpy()
    in_range = (found >= _EARLIEST) & (found < _LATEST)
    return np.where(in_range, found, np.datetime64("NaT")).astype("datetime64[ns]").astype(np.int64)


def _offset(written: str) -> int:
    """Return nanoseconds ahead of UTC, unknown where no clock is as far from it."""
    if written[0] not in "+-":
        return 0
    digits = written[1:].replace(":", "")
    minutes = int(digits[:2]) * 60 + int(digits[2:] or 0)
    if minutes > _LARGEST_OFFSET_MINUTES or int(digits[2:] or 0) >= 60:
        return _UNKNOWN
    return (-minutes if written[0] == "-" else minutes) * 60 * 10**9
