"""The features a policy may see: one small pure function each, and the closed table that names them.

Every feature is causal (row t uses bars up to t), unit-free (multiplying all prices by a constant changes
nothing) and stationary (no absolute price, no running total). TA-Lib computes the classic indicators.

Denominators. Ranges and averages are divided by the ATR or a trailing volatility, which a frozen market takes
to zero; both are therefore held at RELATIVE_FLOOR of the price or above. The tick size is not used for that:
in price history adjusted for splits, today's tick is a tenth of an early price.

Prices that may be negative. Where the instrument allows them (crude oil closed at -37.63 on 2020-04-20) a log
return does not exist, so *price differences* take the place of log returns in every feature. Each of them is
divided by a trailing volatility or range measured in the same differences, so the meaning stays, no row is
lost, and the bars around the crossing are ordinary bars.

Memory. A Wilder or exponential average never forgets completely. RECURSIVE_BARS is long enough that a feature
computed from that many bars equals the one computed from all history to 1e-6 while volatility changes by no
more than a factor of about ten within it. Everything else uses its window's bars and no others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import talib

from rl.features.trailing import (
    deviation_from_mean,
    lagged,
    ratio,
    trailing_max,
    trailing_mean,
    trailing_min,
    trailing_sum,
)
from rl.market.bars import Bars

RELATIVE_FLOOR = 1e-6
"""Smallest ATR and volatility, as a share of the price: a hundredth of a currency pair's quiet minute."""

SMALLEST_PRICE_STEP = 1e-300
"""Keeps the floor above zero where a price that may be negative is exactly zero."""

PERIOD_BARS = 14
"""Wilder's own period (New Concepts in Technical Trading Systems, 1978) for RSI, ATR, ADX and DI."""

SHORT_BARS, MEDIUM_BARS, LONG_BARS = 16, 64, 240
"""The three horizons of volatility. 240 bars are about a year of days or ten days of quarter hours."""

RECURSIVE_BARS = 256
"""(13/14)**242 = 2e-8 of an average's start is left after 256 bars, and 3e-7 of the twice averaged ADX's."""

STILL_BARS = 32
"""After this many bars at one price, ratios of two decaying averages say nothing and are set to neutral."""

MACD_FAST_BARS, MACD_SLOW_BARS, MACD_SIGNAL_BARS = 12, 26, 9
BOLLINGER_BARS = 20
BREAKOUT_BARS = 20
AUTOCORRELATION_BARS = 128
LEVEL_SPREAD_FLOOR = 0.05
"""Least spread of log volatility over LONG_BARS that counts: below 5 % it is the noise of the estimate."""


@dataclass(frozen=True)
class MarketClock:
    """What clock, weekday and calendar of the market's place say at each bar's close. T bars."""

    day_share: np.ndarray
    """Time of day as a share of 24 hours. (T,) [0, 1)"""

    weekday: np.ndarray
    """Day of the week of the trading day, Monday being 0. (T,) int64"""

    session_progress: np.ndarray | None
    """Share of the session's hours that are gone; None where the calendar knows no hours. (T,) [0, 1]"""


@dataclass(frozen=True)
class Stretch:
    """A run of bars without a hole, with the quantities several features share. T bars."""

    bars: Bars
    """The bars; at least one."""

    clock: MarketClock
    """What the market's clock shows at each close."""

    uses_price_changes: bool
    """True where prices may be negative, so that moves are differences instead of log returns."""

    @cached_property
    def price_floor(self) -> np.ndarray:
        """Smallest price distance that counts. (T,) price units, above zero"""
        size = np.maximum(np.abs(self.bars.high), np.abs(self.bars.low))
        return np.maximum(RELATIVE_FLOOR * size, SMALLEST_PRICE_STEP)

    @cached_property
    def move_floor(self) -> np.ndarray | float:
        """Smallest volatility that counts, in the unit of `move`. (T,) or one number"""
        return self.price_floor if self.uses_price_changes else RELATIVE_FLOOR

    @cached_property
    def atr(self) -> np.ndarray:
        """Average true range, Wilder's smoothing, held above the floor; nan at first. (T,) price units"""
        average = talib.ATR(self.bars.high, self.bars.low, self.bars.close, PERIOD_BARS)
        return np.maximum(average, self.price_floor)

    @cached_property
    def scale(self) -> np.ndarray:
        """Close on the scale on which differences are moves: its log, or the price itself. (T,)"""
        return self.bars.close if self.uses_price_changes else np.log(self.bars.close)

    @cached_property
    def move(self) -> np.ndarray:
        """Move from the close before to this close. (T,), nan at bar 0"""
        return self.scale - lagged(self.scale, 1)

    @cached_property
    def short_volatility(self) -> np.ndarray:
        """Root mean square move of the last SHORT_BARS moves. (T,)"""
        return self.volatility(SHORT_BARS)

    @cached_property
    def medium_volatility(self) -> np.ndarray:
        """Root mean square move of the last MEDIUM_BARS moves. (T,)"""
        return self.volatility(MEDIUM_BARS)

    @cached_property
    def long_volatility(self) -> np.ndarray:
        """Root mean square move of the last LONG_BARS moves. (T,)"""
        return self.volatility(LONG_BARS)

    def volatility(self, window_bars: int) -> np.ndarray:
        """Return the root mean square of the last `window_bars` moves, held above the floor. (T,)

        The mean move is not taken off: over short windows it is noise, and a steady climb should count as
        movement.
        """
        return np.maximum(np.sqrt(trailing_mean(self.move**2, window_bars)), self.move_floor)

    @property
    def volume(self) -> np.ndarray:
        """Traded volume. (T,)"""
        assert self.bars.volume is not None, "features of the volume are chosen only where there is one"
        return self.bars.volume

    @cached_property
    def session_first(self) -> np.ndarray:
        """Row of the first bar of each bar's session; 0 for a session the stretch begins in. (T,) int64"""
        rows = np.arange(len(self.bars))
        return np.maximum.accumulate(np.where(self.is_session_start, rows, 0))

    @cached_property
    def is_session_start(self) -> np.ndarray:
        """True on the first bar of each session but the one the stretch begins in. (T,) bool"""
        starts = np.zeros(len(self.bars), dtype=np.bool_)
        starts[1:] = self.bars.session[1:] != self.bars.session[:-1]
        return starts

    @cached_property
    def is_still(self) -> np.ndarray:
        """True where the last STILL_BARS bars all had one single price. (T,) bool"""
        return trailing_max(self.bars.high, STILL_BARS) == trailing_min(self.bars.low, STILL_BARS)


# ---- returns and volatility --------------------------------------------------------------------------------


def scaled_return(stretch: Stretch, *, horizon_bars: int) -> np.ndarray:
    """Move over `horizon_bars` in standard deviations of such a move, by medium volatility. (T,)"""
    moved = stretch.scale - lagged(stretch.scale, horizon_bars)
    return moved / (stretch.medium_volatility * np.sqrt(horizon_bars))


def return_in_slow_volatility(stretch: Stretch) -> np.ndarray:
    """The last bar's move in units of long volatility: nearly the plain return, free of its unit. (T,)"""
    return stretch.move / stretch.long_volatility


def fast_volatility_ratio(stretch: Stretch) -> np.ndarray:
    """Log of short over medium volatility: 0 when unchanged, above 0 when the market wakes up. (T,)"""
    return np.log(stretch.short_volatility / stretch.medium_volatility)


def slow_volatility_ratio(stretch: Stretch) -> np.ndarray:
    """Log of medium over long volatility. (T,)"""
    return np.log(stretch.medium_volatility / stretch.long_volatility)


def volatility_level(stretch: Stretch) -> np.ndarray:
    """Standard score of log short volatility among its own last LONG_BARS values. (T,)"""
    level = np.log(stretch.short_volatility)
    mean = trailing_mean(level, LONG_BARS)
    variance = trailing_mean(level**2, LONG_BARS) - mean**2
    return (level - mean) / np.sqrt(np.maximum(variance, LEVEL_SPREAD_FLOOR**2))


def range_to_return_volatility(stretch: Stretch) -> np.ndarray:
    """Log of volatility seen inside bars over volatility from close to close. (T,)

    0 for a random walk; above 0 where bars swing and come back, below where closes jump. Range volatility
    after Parkinson (1980, The Extreme Value Method for Estimating the Variance of the Rate of Return, eq. 8).
    """
    bars = stretch.bars
    span = bars.high - bars.low if stretch.uses_price_changes else np.log(bars.high) - np.log(bars.low)
    inside = np.sqrt(trailing_mean(span**2, MEDIUM_BARS) / (4.0 * np.log(2.0)))
    return np.log(np.maximum(inside, stretch.move_floor) / stretch.medium_volatility)


def return_autocorrelation(stretch: Stretch) -> np.ndarray:
    """Correlation of each move with the one before, over AUTOCORRELATION_BARS pairs, means 0. (T,) [-1, 1]"""
    before = lagged(stretch.move, 1)
    volatility = stretch.volatility(AUTOCORRELATION_BARS)
    together = trailing_mean(stretch.move * before, AUTOCORRELATION_BARS)
    # One after the other: the product of two floors may be too small for a number.
    return together / volatility / lagged(volatility, 1)


# ---- the last bar's shape ----------------------------------------------------------------------------------


def candle_body(stretch: Stretch) -> np.ndarray:
    """Close minus open in units of the bar's range; 0 for a bar without one. (T,) [-1, 1]"""
    bars = stretch.bars
    return ratio(bars.close - bars.open, bars.high - bars.low)


def upper_shadow(stretch: Stretch) -> np.ndarray:
    """High minus the higher of open and close, in units of the bar's range. (T,) [0, 1]"""
    bars = stretch.bars
    return ratio(bars.high - np.maximum(bars.open, bars.close), bars.high - bars.low)


def lower_shadow(stretch: Stretch) -> np.ndarray:
    """The lower of open and close minus low, in units of the bar's range. (T,) [0, 1]"""
    bars = stretch.bars
    return ratio(np.minimum(bars.open, bars.close) - bars.low, bars.high - bars.low)


def bar_range(stretch: Stretch) -> np.ndarray:
    """High minus low in ATR. (T,) from 0"""
    return (stretch.bars.high - stretch.bars.low) / stretch.atr


# ---- where the price stands --------------------------------------------------------------------------------


def range_position(stretch: Stretch, *, window_bars: int) -> np.ndarray:
    """Place of the close between the window's lowest low (-1) and highest high (1); 0 if equal. (T,)"""
    lowest = trailing_min(stretch.bars.low, window_bars)
    span = trailing_max(stretch.bars.high, window_bars) - lowest
    return np.where(span == 0.0, 0.0, 2.0 * ratio(stretch.bars.close - lowest, span) - 1.0)


def stochastic(stretch: Stretch) -> np.ndarray:
    """Slow stochastic %K (14, 3): mean of three range positions. (T,) [-1, 1]

    TA-Lib's STOCH calls a window without any range 0 % (the bottom); here it is the middle.
    """
    return trailing_mean(range_position(stretch, window_bars=PERIOD_BARS), 3)


def distance_to_average(stretch: Stretch, *, window_bars: int) -> np.ndarray:
    """Close minus its simple moving average, in ATR. (T,)"""
    return (stretch.bars.close - trailing_mean(stretch.bars.close, window_bars)) / stretch.atr


def bollinger_z(stretch: Stretch) -> np.ndarray:
    """Close minus its 20-bar average, in standard deviations: ±2 are the Bollinger bands. (T,)"""
    above_mean, spread = deviation_from_mean(stretch.bars.close, BOLLINGER_BARS)
    return above_mean / np.maximum(spread, stretch.price_floor)


def breakout_above(stretch: Stretch) -> np.ndarray:
    """Close minus the highest high of the BREAKOUT_BARS bars before, in ATR; a breakout is above 0. (T,)"""
    ceiling = lagged(trailing_max(stretch.bars.high, BREAKOUT_BARS), 1)
    return (stretch.bars.close - ceiling) / stretch.atr


def breakout_below(stretch: Stretch) -> np.ndarray:
    """Close minus the lowest low of the BREAKOUT_BARS bars before, in ATR; a breakout is below 0. (T,)"""
    ground = lagged(trailing_min(stretch.bars.low, BREAKOUT_BARS), 1)
    return (stretch.bars.close - ground) / stretch.atr


# ---- momentum and trend ------------------------------------------------------------------------------------


def rsi(stretch: Stretch) -> np.ndarray:
    """Relative strength index (14), 50 moved to 0: (rises - falls) / (rises + falls). (T,) [-1, 1]

    TA-Lib's CMO is this very number times 100 with Wilder's averages, and calls a market that does not move
    0 where its RSI says 0 of 100, which would read as a crash.
    """
    is_neutral = trailing_max(stretch.bars.close, STILL_BARS) == trailing_min(stretch.bars.close, STILL_BARS)
    return np.where(is_neutral, 0.0, talib.CMO(stretch.bars.close, PERIOD_BARS) / 100.0)


def macd(stretch: Stretch) -> np.ndarray:
    """Exponential average of 12 closes minus that of 26, in ATR. (T,)"""
    return _macd_lines(stretch)[0] / stretch.atr


def macd_histogram(stretch: Stretch) -> np.ndarray:
    """MACD minus its own exponential average of 9 bars, in ATR. (T,)"""
    return _macd_lines(stretch)[2] / stretch.atr


def _macd_lines(stretch: Stretch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return talib.MACD(stretch.bars.close, MACD_FAST_BARS, MACD_SLOW_BARS, MACD_SIGNAL_BARS)


def adx(stretch: Stretch) -> np.ndarray:
    """Average directional index (14): strength of the trend, whichever way it goes. (T,) [0, 1]"""
    bars = stretch.bars
    return np.where(stretch.is_still, 0.0, talib.ADX(bars.high, bars.low, bars.close, PERIOD_BARS) / 100.0)


def directional_difference(stretch: Stretch) -> np.ndarray:
    """Positive minus negative directional indicator (14): the trend's direction. (T,) [-1, 1]"""
    bars = stretch.bars
    upward = talib.PLUS_DI(bars.high, bars.low, bars.close, PERIOD_BARS)
    downward = talib.MINUS_DI(bars.high, bars.low, bars.close, PERIOD_BARS)
    return np.where(stretch.is_still, 0.0, (upward - downward) / 100.0)


def efficiency(stretch: Stretch, *, window_bars: int) -> np.ndarray:
    """Distance covered over `window_bars` moves as a share of the way walked (Kaufman). (T,) [0, 1]

    1 is a straight line; a random walk of n moves comes to about 1 / sqrt(n).
    """
    covered = np.abs(stretch.scale - lagged(stretch.scale, window_bars))
    return ratio(covered, trailing_sum(np.abs(stretch.move), window_bars))


# ---- session and clock -------------------------------------------------------------------------------------


def session_gap(stretch: Stretch) -> np.ndarray:
    """The session's first open minus the last close before it, in ATR, on every bar of the session. (T,)

    nan in the session a stretch begins in: nothing is known of what came before.
    """
    first = stretch.session_first
    gap = stretch.bars.open[first] - stretch.bars.close[np.maximum(first - 1, 0)]
    return np.where(first == 0, np.nan, gap) / stretch.atr


def session_return(stretch: Stretch) -> np.ndarray:
    """Move since the session's first open, in standard deviations of a move over that many bars. (T,)

    nan in the session a stretch begins in: its open may be missing.
    """
    first = stretch.session_first
    opened = stretch.bars.open[first]
    moved = stretch.scale - (opened if stretch.uses_price_changes else np.log(opened))
    bars_in_session = np.arange(len(stretch.bars)) - first + 1
    scaled = moved / (stretch.medium_volatility * np.sqrt(bars_in_session))
    return np.where(first == 0, np.nan, scaled)


def session_start(stretch: Stretch) -> np.ndarray:
    """1 on the first bar of a session, else 0. (T,)"""
    return stretch.is_session_start.astype(np.float64)


def session_progress(stretch: Stretch) -> np.ndarray:
    """Share of the session's hours that are gone, by the calendar. (T,) [0, 1]"""
    assert stretch.clock.session_progress is not None, "chosen only where the calendar has hours"
    return stretch.clock.session_progress


def time_of_day(stretch: Stretch, *, wave: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Sine or cosine of the close's time of day at the market's place. (T,) [-1, 1]"""
    return wave(2.0 * np.pi * stretch.clock.day_share)


def day_of_week(stretch: Stretch, *, wave: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Sine or cosine of the trading day's weekday, of seven. (T,) [-1, 1]"""
    return wave(2.0 * np.pi * stretch.clock.weekday / 7.0)


# ---- volume ------------------------------------------------------------------------------------------------


def volume_ratio(stretch: Stretch) -> np.ndarray:
    """The bar's volume over its mean of MEDIUM_BARS: log((1 + ratio) / 2), which is 0 at the mean. (T,)"""
    return _log_volume_ratio(stretch, stretch.volume)


def volume_trend(stretch: Stretch) -> np.ndarray:
    """Mean volume over SHORT_BARS against that over MEDIUM_BARS, as in `volume_ratio`. (T,)"""
    return _log_volume_ratio(stretch, trailing_mean(stretch.volume, SHORT_BARS))


def _log_volume_ratio(stretch: Stretch, volume: np.ndarray) -> np.ndarray:
    usual = trailing_mean(stretch.volume, MEDIUM_BARS)
    # Nothing traded in the whole window: neither more nor less than usual.
    compared = np.where(usual == 0.0, 1.0, ratio(volume, usual))
    return np.log((1.0 + compared) / 2.0)


# ---- the closed table --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of the features."""

    name: str
    """Column name; recorded in processed files and checkpoints, so it never changes its meaning."""

    compute: Callable[[Stretch], np.ndarray]
    """Returns the column of a stretch. (T,) float64"""

    lookback_bars: int
    """Bars the value is computed from, this one included; before that many it is not usable."""

    is_regime: bool = False
    """True for slow descriptions of the market's state, which a mixture's gate may see."""

    is_intraday_only: bool = False
    """True where it means nothing when each bar is a session."""

    needs_volume: bool = False
    """True where the file has to have a usable volume."""

    needs_closing_hours: bool = False
    """True where the market has to close in between; left out for one that trades round the clock."""

    needs_calendar_hours: bool = False
    """True where the calendar has to say when a session opens and closes."""

    reaches_last_session: bool = False
    """True where it also uses the bars back to the close of the session before, if that is further."""


_RETURN_HORIZONS_BARS = (1, 2, 3, 5, 10, 20, 60)

FEATURES: tuple[Feature, ...] = (
    *(
        Feature(
            name=f"return_{horizon}",
            compute=partial(scaled_return, horizon_bars=horizon),
            lookback_bars=MEDIUM_BARS + 1,
        )
        for horizon in _RETURN_HORIZONS_BARS
    ),
    Feature(name="return_1_slow", compute=return_in_slow_volatility, lookback_bars=LONG_BARS + 1),
    Feature(name="volatility_ratio_fast", compute=fast_volatility_ratio, lookback_bars=MEDIUM_BARS + 1),
    Feature(
        name="volatility_ratio_slow",
        compute=slow_volatility_ratio,
        lookback_bars=LONG_BARS + 1,
        is_regime=True,
    ),
    Feature(
        name="volatility_level",
        compute=volatility_level,
        lookback_bars=LONG_BARS + SHORT_BARS,
        is_regime=True,
    ),
    Feature(
        name="range_to_return_volatility", compute=range_to_return_volatility, lookback_bars=MEDIUM_BARS + 1
    ),
    Feature(
        name="return_autocorrelation",
        compute=return_autocorrelation,
        lookback_bars=AUTOCORRELATION_BARS + 2,
        is_regime=True,
    ),
    Feature(name="candle_body", compute=candle_body, lookback_bars=1),
    Feature(name="upper_shadow", compute=upper_shadow, lookback_bars=1),
    Feature(name="lower_shadow", compute=lower_shadow, lookback_bars=1),
    Feature(name="bar_range", compute=bar_range, lookback_bars=RECURSIVE_BARS),
    Feature(name="range_position_60", compute=partial(range_position, window_bars=60), lookback_bars=60),
    Feature(name="range_position_240", compute=partial(range_position, window_bars=240), lookback_bars=240),
    Feature(name="stochastic", compute=stochastic, lookback_bars=PERIOD_BARS + 2),
    Feature(
        name="distance_sma_10",
        compute=partial(distance_to_average, window_bars=10),
        lookback_bars=RECURSIVE_BARS,
    ),
    Feature(
        name="distance_sma_200",
        compute=partial(distance_to_average, window_bars=200),
        lookback_bars=RECURSIVE_BARS,
    ),
    Feature(name="bollinger_z", compute=bollinger_z, lookback_bars=BOLLINGER_BARS),
    Feature(name="breakout_above", compute=breakout_above, lookback_bars=RECURSIVE_BARS),
    Feature(name="breakout_below", compute=breakout_below, lookback_bars=RECURSIVE_BARS),
    Feature(name="rsi", compute=rsi, lookback_bars=RECURSIVE_BARS),
    Feature(name="macd", compute=macd, lookback_bars=RECURSIVE_BARS),
    Feature(name="macd_histogram", compute=macd_histogram, lookback_bars=RECURSIVE_BARS),
    Feature(name="adx", compute=adx, lookback_bars=RECURSIVE_BARS, is_regime=True),
    Feature(name="directional_difference", compute=directional_difference, lookback_bars=RECURSIVE_BARS),
    Feature(
        name="efficiency",
        compute=partial(efficiency, window_bars=MEDIUM_BARS),
        lookback_bars=MEDIUM_BARS + 1,
        is_regime=True,
    ),
    Feature(
        name="session_gap",
        compute=session_gap,
        lookback_bars=RECURSIVE_BARS,
        needs_closing_hours=True,
        reaches_last_session=True,
    ),
    Feature(
        name="session_return",
        compute=session_return,
        lookback_bars=MEDIUM_BARS + 1,
        is_intraday_only=True,
        needs_closing_hours=True,
        reaches_last_session=True,
    ),
    Feature(
        name="session_start",
        compute=session_start,
        lookback_bars=2,
        is_intraday_only=True,
        needs_closing_hours=True,
    ),
    Feature(
        name="session_progress",
        compute=session_progress,
        lookback_bars=1,
        is_regime=True,
        is_intraday_only=True,
        needs_closing_hours=True,
        needs_calendar_hours=True,
    ),
    Feature(
        name="time_of_day_sin",
        compute=partial(time_of_day, wave=np.sin),
        lookback_bars=1,
        is_regime=True,
        is_intraday_only=True,
    ),
    Feature(
        name="time_of_day_cos",
        compute=partial(time_of_day, wave=np.cos),
        lookback_bars=1,
        is_regime=True,
        is_intraday_only=True,
    ),
    Feature(name="day_of_week_sin", compute=partial(day_of_week, wave=np.sin), lookback_bars=1),
    Feature(name="day_of_week_cos", compute=partial(day_of_week, wave=np.cos), lookback_bars=1),
    Feature(name="volume_ratio", compute=volume_ratio, lookback_bars=MEDIUM_BARS, needs_volume=True),
    Feature(name="volume_trend", compute=volume_trend, lookback_bars=MEDIUM_BARS, needs_volume=True),
)
"""Every feature, in column order. The user's own x_ columns follow them unchanged."""
