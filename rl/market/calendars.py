"""Trading hours: which session a bar belongs to, when that session closes, and what lies outside it.

The table knows regular hours only, no holidays, half days or special sessions. A day that ends early
therefore has no bar marked as its last; guessing it from the next bar's time would look into the future.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd

from rl.common.errors import ConfigError, nearest

_DAY_NS = 86_400 * 10**9
_HOUR_NS = 3_600 * 10**9
_MONDAY_TO_FRIDAY = frozenset({0, 1, 2, 3, 4})
_EVERY_DAY = frozenset(range(7))
_GAP_THAT_ENDS_A_SESSION_NS = 4 * _HOUR_NS
"""Without a calendar, a silence this long is taken for the night. No exchange pauses longer inside a day."""


@dataclass(frozen=True, kw_only=True)
class Calendar:
    """Regular hours of one market, in its own wall-clock time."""

    name: str
    """Key of the table below."""
    timezone: str
    """IANA name of the zone that `open` and `close` are written in, and of raw times without an offset."""
    open: timedelta | None
    """Start of the session, from midnight of its date; negative is the evening before. None is unknown."""
    close: timedelta | None
    """End of the session, from midnight of its date; 24 h is the midnight that ends it. None is unknown."""
    weekdays: frozenset[int]
    """Days of the week that may hold a session, Monday being 0."""
    sessions_per_year: int
    """How many daily returns make a year, for annualised figures."""
    round_the_clock: bool
    """True where one session follows the other without a pause."""

    def described(self) -> str:
        """Return the hours as a message says them: `09:15-15:30 Asia/Kolkata`."""
        if self.open is None or self.close is None:
            return "hours unknown"
        days = "" if len(self.weekdays) == 7 else ", Monday to Friday"
        evening_before = " the evening before" if self.open < timedelta(0) else ""
        return f"{_clock(self.open)}{evening_before} to {_clock(self.close)} {self.timezone}{days}"


def _hours(hours: float) -> timedelta:
    return timedelta(hours=hours)


CALENDARS: dict[str, Calendar] = {
    entry.name: entry
    for entry in (
        # National Stock Exchange of India (the BSE keeps the same hours). Special sessions fall on weekends.
        Calendar(
            name="NSE",
            timezone="Asia/Kolkata",
            open=_hours(9.25),
            close=_hours(15.5),
            weekdays=_EVERY_DAY,
            sessions_per_year=252,
            round_the_clock=False,
        ),
        # Australian Securities Exchange: the day's close comes from the auction that ends at 16:12.
        Calendar(
            name="ASX",
            timezone="Australia/Sydney",
            open=_hours(10),
            close=_hours(16.2),
            weekdays=_MONDAY_TO_FRIDAY,
            sessions_per_year=252,
            round_the_clock=False,
        ),
        # New York Stock Exchange and Nasdaq, regular hours.
        Calendar(
            name="NYSE",
            timezone="America/New_York",
            open=_hours(9.5),
            close=_hours(16),
            weekdays=_MONDAY_TO_FRIDAY,
            sessions_per_year=252,
            round_the_clock=False,
        ),
        # Chicago Mercantile Exchange, electronic session: 17:00 the evening before to 16:00.
        Calendar(
            name="CME",
            timezone="America/Chicago",
            open=_hours(-7),
            close=_hours(16),
            weekdays=_MONDAY_TO_FRIDAY,
            sessions_per_year=252,
            round_the_clock=False,
        ),
        # Foreign exchange: a day runs from 17:00 to 17:00 in New York, as the market itself counts it.
        # UTC days would make a two-hour session of every Sunday evening.
        Calendar(
            name="FX",
            timezone="America/New_York",
            open=_hours(-7),
            close=_hours(17),
            weekdays=_MONDAY_TO_FRIDAY,
            sessions_per_year=252,
            round_the_clock=True,
        ),
        # Crypto-currencies never close; their day is the UTC day.
        Calendar(
            name="CRYPTO",
            timezone="UTC",
            open=_hours(0),
            close=_hours(24),
            weekdays=_EVERY_DAY,
            sessions_per_year=365,
            round_the_clock=True,
        ),
        # Hours unknown: sessions are told apart by gaps, and no bar is known to be a session's last.
        Calendar(
            name="NONE",
            timezone="UTC",
            open=None,
            close=None,
            weekdays=_EVERY_DAY,
            sessions_per_year=252,
            round_the_clock=False,
        ),
    )
}


def calendar(name: str) -> Calendar:
    """Return the calendar called `name`.

    Raises:
        ConfigError: There is none of that name.
    """
    if name in CALENDARS:
        return CALENDARS[name]
    close = nearest(name, CALENDARS)
    guess = f" Did you mean {close[0]}?" if close else ""
    raise ConfigError(f"'{name}' is not a calendar.{guess} Known are: {', '.join(CALENDARS)}.")


@dataclass(frozen=True)
class Sessions:
    """Where each bar stands in its session. Axes: T bars."""

    number: np.ndarray
    """Session number from 0. (T,) int32"""
    close_time: np.ndarray
    """End of the bar, cut at the session's close: UTC nanoseconds. (T,) int64"""
    is_last: np.ndarray
    """True where the bar reaches the session's close. (T,) bool"""
    is_outside: np.ndarray
    """True where no part of the bar lies inside a session. (T,) bool"""

    def rows(self, keep: np.ndarray) -> Sessions:
        """Return the bars where `keep` is True, sessions counted anew from 0."""
        number = _numbers(self.number[keep])
        return Sessions(number, self.close_time[keep], self.is_last[keep], self.is_outside[keep])


def sessions_of_intraday_bars(hours: Calendar, start: np.ndarray, bar_seconds: int) -> Sessions:
    """Place intraday bars in the sessions of a calendar.

    Args:
        hours: The market's calendar.
        start: When each bar begins: UTC nanoseconds, increasing. (T,) int64
        bar_seconds: Length of a bar.
    """
    bar = bar_seconds * 10**9
    end = start + bar
    if hours.open is None or hours.close is None:
        nothing = np.zeros(len(start), dtype=bool)
        return Sessions(_numbers_by_gap(start, bar), end, nothing, nothing)
    open_after, close_after = _nanoseconds(hours.open), _nanoseconds(hours.close)
    wall = _wall_clock(start, hours.timezone)
    # A session that opens the evening before claims that evening; else a bar belongs to the date it starts.
    date = (wall - min(open_after, 0)) // _DAY_NS
    dates, position = np.unique(date, return_inverse=True)
    opens = _instants(dates * _DAY_NS + open_after, hours.timezone)[position]
    closes = _instants(dates * _DAY_NS + close_after, hours.timezone)[position]
    is_trading_day = np.isin(_weekday(dates), list(hours.weekdays))[position]
    is_outside = (end <= opens) | (start >= closes) | ~is_trading_day
    is_last = ~is_outside & (end >= closes)
    return Sessions(_numbers(date), np.where(is_last, closes, end), is_last, is_outside)


def sessions_of_daily_bars(hours: Calendar, date: np.ndarray) -> Sessions:
    """Give each daily bar a session of its own, closing when the calendar says that its date closes.

    Args:
        hours: The market's calendar.
        date: Session dates in days since 1970-01-01, increasing. (T,) int64
    """
    close_after = _nanoseconds(timedelta(days=1) if hours.close is None else hours.close)
    close_time = _instants(date * _DAY_NS + close_after, hours.timezone)
    is_outside = ~np.isin(_weekday(date), list(hours.weekdays))
    return Sessions(_numbers(date), close_time, np.ones(len(date), dtype=bool), is_outside)


def _wall_clock(instants: np.ndarray, timezone: str) -> np.ndarray:
    """Return what a clock in `timezone` shows, as nanoseconds since its own 1970-01-01 00:00. (T,) int64"""
    there = pd.DatetimeIndex(instants.astype("datetime64[ns]")).tz_localize("UTC").tz_convert(timezone)
    return there.tz_localize(None).as_unit("ns").asi8


def _instants(wall: np.ndarray, timezone: str) -> np.ndarray:
    """Return the UTC nanoseconds at which a clock in `timezone` shows `wall`. (T,) int64

    No calendar of the table opens or closes in an hour that summer time skips or repeats; should one do so,
    the skipped hour moves forward and the repeated one means its second pass.
    """
    shown = pd.DatetimeIndex(wall.astype("datetime64[ns]"))
    standard_time = np.zeros(len(shown), dtype=bool)
    local = shown.tz_localize(timezone, ambiguous=standard_time, nonexistent="shift_forward")
    return local.as_unit("ns").asi8


def _weekday(date: np.ndarray) -> np.ndarray:
    """Return the day of the week, Monday being 0, of days since 1970-01-01 (a Thursday)."""
    return (date + 3) % 7


def _numbers(date: np.ndarray) -> np.ndarray:
    """Count sessions from 0, one for each change of date. (T,) int32"""
    return np.concatenate([np.zeros(min(1, len(date))), np.cumsum(np.diff(date) != 0)]).astype(np.int32)


def _numbers_by_gap(start: np.ndarray, bar: int) -> np.ndarray:
    """Count sessions from 0; a new one begins after a long silence, and every 24 hours where there is none.

    Both rules look backwards only, so a bar's session does not depend on what follows. (T,) int32
    """
    if not len(start):
        return np.zeros(0, dtype=np.int32)
    silence = np.diff(start) - bar
    run = np.concatenate([[0], np.cumsum(silence >= _GAP_THAT_ENDS_A_SESSION_NS)])
    first_of_run = np.searchsorted(run, run, side="left")
    day_of_run = (start - start[first_of_run]) // _DAY_NS
    is_new = (np.diff(run) != 0) | (np.diff(day_of_run) != 0)
    return np.concatenate([[0], np.cumsum(is_new)]).astype(np.int32)


def _clock(after_midnight: timedelta) -> str:
    minutes = round(after_midnight.total_seconds()) // 60 % 1440 or (1440 if after_midnight else 0)
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _nanoseconds(span: timedelta) -> int:
    return round(span.total_seconds()) * 10**9
