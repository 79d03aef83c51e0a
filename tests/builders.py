"""Small, literal inputs for tests. Nothing here calls the code under test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rl.market.bars import Bars
from rl.market.instruments import Instrument

MINUTE_NS = 60 * 10**9
DAY_NS = 86_400 * 10**9
DAILY_MINUTES = 1440

FIRST_DAY = "2024-01-01"
"""A Monday."""

SESSION_OPENS_AT_MINUTE = 225
"""03:45 UTC is 09:15 in Kolkata, where the NSE opens; its session lasts 375 minutes."""

SESSION_MINUTES = 375


def an_instrument(**changes: Any) -> Instrument:
    """Return an NSE index at no cost; `changes` are keys of an instrument."""
    keys: dict[str, Any] = {"name": "TEST", "asset_class": "index", "currency": "INR", "calendar": "NSE"}
    return Instrument(**(keys | changes))


def bars_from_closes(
    closes: Sequence[float] | np.ndarray,
    *,
    opens: Sequence[float] | np.ndarray | None = None,
    highs: Sequence[float] | np.ndarray | None = None,
    lows: Sequence[float] | np.ndarray | None = None,
    volume: Sequence[float] | np.ndarray | None = None,
    extra: Mapping[str, Sequence[float] | np.ndarray] | None = None,
    minutes: int = 15,
    bars_per_session: int | None = None,
    first_day: str = FIRST_DAY,
    symbol: str = "TEST",
) -> Bars:
    """Return bars with these closes, in sessions on consecutive weekdays that open at 09:15 in Kolkata.

    Without opens each bar opens at the close before (the first at its own close); without highs and lows the
    bar's range is that of its open and close.

    Args:
        closes: Closing prices. (T,)
        opens: First prices. (T,)
        highs: Highest prices. (T,)
        lows: Lowest prices. (T,)
        volume: Traded volume; None for a file without. (T,)
        extra: The user's x_ columns. (T,) each
        minutes: Bar length; 1440 gives daily bars, each a session that closes at 15:30 in Kolkata.
        bars_per_session: Bars of a day; as many as fit into 375 minutes if not given.
        first_day: Date of the first session.
        symbol: Name of the bars.
    """
    close = np.array(closes, dtype=np.float64)
    count = len(close)
    open_ = np.concatenate([close[:1], close[:-1]]) if opens is None else np.array(opens, dtype=np.float64)
    high = np.maximum(open_, close) if highs is None else np.array(highs, dtype=np.float64)
    low = np.minimum(open_, close) if lows is None else np.array(lows, dtype=np.float64)
    is_daily = minutes >= DAILY_MINUTES
    per_session = 1 if is_daily else bars_per_session or SESSION_MINUTES // minutes
    session, position = np.divmod(np.arange(count), per_session)
    minutes_of_day = SESSION_OPENS_AT_MINUTE + (SESSION_MINUTES if is_daily else (position + 1) * minutes)
    days = np.busday_offset(first_day, session, roll="forward").astype("datetime64[D]").astype(np.int64)
    close_time = days * DAY_NS + minutes_of_day * MINUTE_NS
    return Bars(
        symbol=symbol,
        bar_seconds=60 * minutes,
        close_time=close_time,
        session=session.astype(np.int32),
        session_end=position == per_session - 1,
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=None if volume is None else np.array(volume, dtype=np.float64),
        extra={name: np.array(column, dtype=np.float64) for name, column in (extra or {}).items()},
        label=_labels(close_time),
    )


def rising_bars(count: int, *, start: float = 100.0, step: float = 1.0, **options: Any) -> Bars:
    """Return bars whose closes rise by `step`: 100, 101, 102, … Options are those of `bars_from_closes`."""
    return bars_from_closes(start + step * np.arange(count), **options)


def flat_bars(count: int, price: float = 100.0, **options: Any) -> Bars:
    """Return bars at one single price. Options are those of `bars_from_closes`."""
    return bars_from_closes(np.full(count, price), **options)


def random_bars(
    count: int,
    seed: int,
    *,
    minutes: int = 15,
    sigma: float = 1e-3,
    with_volume: bool = False,
    extra_names: Sequence[str] = (),
    **options: Any,
) -> Bars:
    """Return a random walk of log prices with gaps between bars and ranges beyond open and close.

    Args:
        count: Bars.
        seed: The same seed gives the same bytes, and more bars begin with the fewer.
        minutes: Bar length; 1440 gives daily bars.
        sigma: Standard deviation of a bar's log return.
        with_volume: Whether the bars have a volume.
        extra_names: Names of x_ columns, filled with standard normal numbers.
        options: Those of `bars_from_closes`.
    """
    # One row of draws per bar: a longer series then begins with a shorter one.
    draws = np.random.default_rng(seed).standard_normal((count, 5 + len(extra_names)))
    log_close = np.cumsum(sigma * draws[:, 0])
    log_open = np.concatenate([np.zeros(min(1, count)), log_close[:-1]]) + 0.2 * sigma * draws[:, 1]
    top, bottom = np.maximum(log_open, log_close), np.minimum(log_open, log_close)
    return bars_from_closes(
        100.0 * np.exp(log_close),
        opens=100.0 * np.exp(log_open),
        highs=100.0 * np.exp(top + 0.5 * sigma * np.abs(draws[:, 2])),
        lows=100.0 * np.exp(bottom - 0.5 * sigma * np.abs(draws[:, 3])),
        volume=1000.0 * np.exp(draws[:, 4]) if with_volume else None,
        extra={name: draws[:, 5 + place] for place, name in enumerate(extra_names)},
        minutes=minutes,
        **options,
    )


def with_later_bars_changed(bars: Bars, start: int, seed: int) -> Bars:
    """Return bars of which every column is another from bar `start` on, and untouched before.

    Prices jump and follow another walk, volumes and x_ columns are drawn anew, sessions break elsewhere, and
    the times move on by some days. A causal number at bars before `start` cannot tell the difference.
    """
    rng = np.random.default_rng(seed)
    later = len(bars) - start
    walk = np.exp(np.cumsum(0.03 * rng.standard_normal(later)) + rng.normal())
    reach = np.exp(0.02 * np.abs(rng.standard_normal((2, later))))
    opens = bars.open[start:] * walk
    closes = opens * np.exp(0.02 * rng.standard_normal(later))
    close_time = bars.close_time[start:] + rng.integers(1, 30) * DAY_NS
    session = np.cumsum(rng.integers(0, 2, later)) + (bars.session[start - 1] if start else 0)
    return replace(
        bars,
        close_time=_joined(bars.close_time, start, close_time),
        session=_joined(bars.session, start, session),
        session_end=_joined(bars.session_end, start, rng.integers(0, 2, later)),
        open=_joined(bars.open, start, opens),
        high=_joined(bars.high, start, np.maximum(opens, closes) * reach[0]),
        low=_joined(bars.low, start, np.minimum(opens, closes) / reach[1]),
        close=_joined(bars.close, start, closes),
        volume=None
        if bars.volume is None
        else _joined(bars.volume, start, 1e4 * np.exp(rng.standard_normal(later))),
        extra={name: _joined(own, start, rng.normal(size=later)) for name, own in bars.extra.items()},
        label=_joined(bars.label, start, _labels(close_time)),
    )


def with_later_bars_shuffled(bars: Bars, start: int, seed: int) -> Bars:
    """Return the same bars with prices, volumes and x_ columns in another order from bar `start` on."""
    order = np.arange(len(bars))
    np.random.default_rng(seed).shuffle(order[start:])
    return replace(
        bars,
        open=bars.open[order],
        high=bars.high[order],
        low=bars.low[order],
        close=bars.close[order],
        volume=None if bars.volume is None else bars.volume[order],
        extra={name: own[order] for name, own in bars.extra.items()},
    )


def with_a_hole(bars: Bars, before: int, days: float) -> Bars:
    """Return the same bars with bar `before` and all later ones moved `days` days into the future."""
    close_time = bars.close_time.copy()
    close_time[before:] += round(days * DAY_NS)
    return replace(bars, close_time=close_time, label=_labels(close_time))


def _joined(column: np.ndarray, start: int, later: np.ndarray) -> np.ndarray:
    return np.concatenate([column[:start], later.astype(column.dtype)])


def _labels(close_time: np.ndarray) -> np.ndarray:
    """Return times as a raw file might write them. (T,) object of str"""
    return np.datetime_as_string(close_time.astype("datetime64[ns]"), unit="s").astype(object)
