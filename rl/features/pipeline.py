"""From bars to the table of features: which columns a market has, where they are usable, and what they are.

A window may not cross a hole in the data longer than the instrument allows: the moves of a week nobody saw
are not one bar's move. The bars are therefore cut into stretches at such holes, every stretch is computed as
if nothing came before it, and its first bars, in which some window is not full yet, are marked unusable.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from rl.common.errors import DataError
from rl.features.indicators import FEATURES, Feature, MarketClock, Stretch
from rl.market.bars import Bars
from rl.market.calendars import Calendar, calendar
from rl.market.instruments import Instrument

VALUE_LIMIT = 1000.0
"""Features are held within ± this. Only a market that wakes up after standing still comes near it."""

LARGEST_NUMBER = 1e100
"""Prices and volumes beyond this are refused: their squares would overflow."""

REGIME_PREFIX = "x_regime"

DAY_NANOSECONDS = 86_400 * 10**9
MONDAY_OFFSET_DAYS = 3
"""1970-01-01, day 0 of the clock, was a Thursday: three days after a Monday."""


@dataclass(frozen=True)
class FeatureTable:
    """Features of every bar, known at its close. T bars, F features."""

    values: np.ndarray
    """Unit-free, not scaled yet; 0 where not usable. (T, F) float32, contiguous by row"""

    names: tuple[str, ...]
    """Name of each column. (F,)"""

    usable: np.ndarray
    """True where every column is defined, so that a decision can be made. (T,) bool"""

    atr: np.ndarray
    """Average true range of 14 bars in price units; above 0 where usable, else 0. (T,) float64"""

    regime_names: tuple[str, ...]
    """The columns that describe the market's slow state, which a mixture's gate may see; in column order."""

    def __len__(self) -> int:
        return len(self.values)


def longest_lookback_bars() -> int:
    """Return how many bars, the current one included, the longest-remembering feature is computed from."""
    return max(feature.lookback_bars for feature in FEATURES)


def chosen_features(bars: Bars, instrument: Instrument) -> tuple[Feature, ...]:
    """Return the features this market has: some need intraday bars, a volume, or a market that closes."""
    hours = calendar(instrument.calendar)
    return tuple(
        feature
        for feature in FEATURES
        if not (feature.is_intraday_only and bars.is_daily)
        and not (feature.needs_volume and bars.volume is None)
        and not (feature.needs_closing_hours and hours.round_the_clock)
        and not (feature.needs_calendar_hours and hours.open is None)
    )


def compute_features(bars: Bars, instrument: Instrument) -> FeatureTable:
    """Compute every feature the market has; row t depends on bars up to t only.

    Columns are those of the closed table that apply, then the user's own x_ columns, unchanged.

    Args:
        bars: One symbol, oldest first. T may be 0.
        instrument: Says the calendar, the longest hole, and whether prices may be negative.

    Raises:
        DataError: A price or volume is not finite or beyond 1e100, a price is not positive where the
        instrument
            does not allow that, or an x_ column holds something that is no float32 number.
    """
    _refuse_unusable_numbers(bars, instrument)
    features = chosen_features(bars, instrument)
    names = (*(feature.name for feature in features), *bars.extra)
    values = np.zeros((len(bars), len(names)), dtype=np.float32)
    usable = np.zeros(len(bars), dtype=np.bool_)
    atr = np.zeros(len(bars))
    hours = calendar(instrument.calendar)
    for start, stop in unbroken_stretches(bars, instrument.max_hole_days):
        part = bars.slice(start, stop)
        stretch = Stretch(part, market_clock(part, hours), instrument.price_may_be_negative)
        first = start + _rows_to_warm_up(stretch, features)
        if first >= stop:
            continue
        usable[first:stop] = True
        atr[first:stop] = stretch.atr[first - start :]
        for column, feature in enumerate(features):
            values[first:stop, column] = _usable_rows(feature, stretch, first - start)
        for column, own in enumerate(part.extra.values(), start=len(features)):
            values[first:stop, column] = own[first - start :]
    return FeatureTable(values, names, usable, atr, _regime_names(features, bars))


def unbroken_stretches(bars: Bars, max_hole_days: float) -> list[tuple[int, int]]:
    """Return (first row, row after the last) of each run of bars without a hole beyond `max_hole_days`."""
    if not len(bars):
        return []
    holes = np.flatnonzero(np.diff(bars.close_time) > max_hole_days * DAY_NANOSECONDS) + 1
    edges = [0, *holes.tolist(), len(bars)]
    return list(pairwise(edges))


def market_clock(bars: Bars, hours: Calendar) -> MarketClock:
    """Return what the market's own clock shows at each bar's close, summer time included."""
    instants = pd.DatetimeIndex(bars.close_time.astype("datetime64[ns]")).tz_localize("UTC")
    wall = instants.tz_convert(hours.timezone).tz_localize(None).as_unit("ns").asi8
    opens_after = 0 if hours.open is None else round(hours.open.total_seconds()) * 10**9
    # The trading day of a session that opens the evening before is the day after that evening, and a bar that
    # closes at midnight belongs to the day it ends.
    date = (wall - 1 - min(opens_after, 0)) // DAY_NANOSECONDS
    progress = None
    if hours.open is not None and hours.close is not None:
        length = (hours.close - hours.open).total_seconds() * 1e9
        # Bars outside regular hours, where they are kept, stand at the session's edge.
        progress = np.clip((wall - date * DAY_NANOSECONDS - opens_after) / length, 0.0, 1.0)
    return MarketClock(
        day_share=(wall % DAY_NANOSECONDS) / DAY_NANOSECONDS,
        weekday=(date + MONDAY_OFFSET_DAYS) % 7,
        session_progress=progress,
    )


def _rows_to_warm_up(stretch: Stretch, features: tuple[Feature, ...]) -> int:
    """Return the first row in which every feature has its whole look-back; the length if none has."""
    row = max(feature.lookback_bars for feature in features) - 1
    if any(feature.reaches_last_session for feature in features):
        starts = np.flatnonzero(stretch.is_session_start)
        row = max(row, int(starts[0]) if len(starts) else len(stretch.bars))
    return row


def _usable_rows(feature: Feature, stretch: Stretch, first: int) -> np.ndarray:
    """Return the feature from row `first` of the stretch on, held within the limit. (T - first,)"""
    # A floored denominator can be small enough to overflow; the limit takes that in.
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        column = np.clip(feature.compute(stretch)[first:], -VALUE_LIMIT, VALUE_LIMIT)
    missing = np.flatnonzero(np.isnan(column))
    if len(missing):
        row = first + int(missing[0])
        raise AssertionError(
            f"{stretch.bars.symbol}: feature {feature.name} is not a number at bar "
            f"{stretch.bars.label[row]}, {row} bars into its stretch; check its look-back"
        )
    return column


def _regime_names(features: tuple[Feature, ...], bars: Bars) -> tuple[str, ...]:
    own = tuple(name for name in bars.extra if name.startswith(REGIME_PREFIX))
    return (*(feature.name for feature in features if feature.is_regime), *own)


def _refuse_unusable_numbers(bars: Bars, instrument: Instrument) -> None:
    """Raise on the first number that would make a feature meaningless, naming bar and column."""
    prices = {"open": bars.open, "high": bars.high, "low": bars.low, "close": bars.close}
    for name, column in prices.items():
        smallest = -LARGEST_NUMBER if instrument.price_may_be_negative else np.finfo(np.float64).tiny
        allowed = "positive and at most" if smallest > 0 else "within ±"
        _refuse_outside(bars, name, column, smallest, LARGEST_NUMBER, f"{allowed} {LARGEST_NUMBER:g}")
    if bars.volume is not None:
        _refuse_outside(bars, "volume", bars.volume, 0.0, LARGEST_NUMBER, f"from 0 to {LARGEST_NUMBER:g}")
    largest = float(np.finfo(np.float32).max)
    for name, column in bars.extra.items():
        _refuse_outside(bars, name, column, -largest, largest, "a finite number of the size of a float32")


def _refuse_outside(
    bars: Bars, name: str, column: np.ndarray, smallest: float, largest: float, allowed: str
) -> None:
    # Written so that nan, which compares as False, is refused too.
    wrong = np.flatnonzero(~((column >= smallest) & (column <= largest)))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{bars.symbol}, bar {row + 1} of {len(bars)} ({bars.label[row]}): {name} is {column[row]}.\n"
            f"  It has to be {allowed} ({len(wrong)} bars are not). Correct or remove those rows."
        )
