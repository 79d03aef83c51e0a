"""Features against numbers worked out by hand, on markets simple enough for that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import talib

from rl.features.indicators import FEATURES, Stretch
from rl.features.pipeline import compute_features, market_clock
from rl.market.calendars import calendar
from tests.builders import MINUTE_NS, an_instrument, bars_from_closes, flat_bars, random_bars, rising_bars

INDEX = an_instrument()
MAY_BE_NEGATIVE = an_instrument(price_may_be_negative=True)
COUNT = 400
TABLE = {feature.name: feature for feature in FEATURES}


def stretch_of(bars, *, hours="NSE", uses_price_changes=False):
    return Stretch(bars, market_clock(bars, calendar(hours)), uses_price_changes)


def feature(name, bars, **options):
    return TABLE[name].compute(stretch_of(bars, **options))


def last(name, bars, **options):
    return feature(name, bars, **options)[-1]


@pytest.fixture(scope="module")
def one_percent_a_bar():
    """Every move is log 1.01, so every volatility is too."""
    return bars_from_closes(100.0 * 1.01 ** np.arange(COUNT))


@pytest.fixture(scope="module")
def up_and_down():
    """100, 101, 100, 101, …; every move is ± log 1.01."""
    return bars_from_closes(100.0 + np.arange(COUNT) % 2)


@pytest.fixture(scope="module")
def ramp():
    """Closes 100, 101, …; each bar opens and has its low at the close before, so every true range is 1."""
    return rising_bars(COUNT)


# ---- returns and volatility ------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [1, 2, 3, 5, 10, 20, 60])
def test_a_steady_climb_returns_the_root_of_the_horizon(one_percent_a_bar, horizon):
    # h moves of a, against a volatility of a times sqrt(h).
    assert last(f"return_{horizon}", one_percent_a_bar) == pytest.approx(np.sqrt(horizon))


def test_up_and_down_by_the_same_amount_returns_plus_and_minus_one(up_and_down):
    np.testing.assert_allclose(feature("return_1", up_and_down)[-2:], [-1.0, 1.0])
    np.testing.assert_allclose(feature("return_1_slow", up_and_down)[-2:], [-1.0, 1.0])
    assert last("return_2", up_and_down) == pytest.approx(0.0, abs=1e-12)
    assert last("return_3", up_and_down) == pytest.approx(1.0 / np.sqrt(3.0))


def test_the_slow_return_divides_by_the_volatility_of_240_moves():
    # One move of 2 % among 239 of 1 %: the mean square is (239 · 1 + 4) / 240 of the small one's.
    closes = 100.0 * np.exp(0.01 * np.cumsum([*([1.0] * 300), 2.0]))
    assert last("return_1_slow", bars_from_closes(closes)) == pytest.approx(2.0 / np.sqrt(243.0 / 240.0))


def test_volatility_ratios_compare_16_with_64_and_64_with_240_moves():
    moves = np.full(300, 0.01)
    moves[-16:] = 0.02
    bars = bars_from_closes(100.0 * np.exp(np.cumsum(moves)))
    medium = (16 * 4 + 48 * 1) / 64  # mean squares in units of 0.01²
    long = (16 * 4 + 224 * 1) / 240
    assert last("volatility_ratio_fast", bars) == pytest.approx(0.5 * np.log(4.0 / medium))
    assert last("volatility_ratio_slow", bars) == pytest.approx(0.5 * np.log(medium / long))


def test_volatility_level_is_the_standard_score_of_its_own_history():
    # Volatility is 1 % for 239 bars and doubles on the last: one value of 240 lies sqrt(239) deviations out.
    moves = np.full(300, 0.01)
    moves[-1] = 0.01 * np.sqrt(16 * 4 - 15)  # 15 small moves and this one have a mean square of 4
    bars = bars_from_closes(100.0 * np.exp(np.cumsum(moves)))
    jump = np.log(2.0)
    mean, deviation = jump / 240, jump * np.sqrt(239) / 240
    assert deviation < 0.05, "below the floor of 5 %, which therefore divides"
    assert last("volatility_level", bars) == pytest.approx((jump - mean) / 0.05)


def test_volatility_level_divides_by_the_true_spread_above_its_floor():
    moves = np.where(np.arange(600) % 240 < 120, 0.01, 0.04)
    bars = bars_from_closes(100.0 * np.exp(np.cumsum(moves)))
    score = feature("volatility_level", bars)[260:]
    # Half the history at log 0.01 and half at log 0.04: the two levels stand about one deviation either
    # side, a little further because some bars lie between them.
    assert np.percentile(score, 90) == pytest.approx(1.0, abs=0.15)
    assert np.percentile(score, 10) == pytest.approx(-1.0, abs=0.15)


def test_range_volatility_of_bars_that_swing_far_beyond_their_closes():
    closes = 100.0 * 1.01 ** np.arange(COUNT)
    bars = bars_from_closes(closes, highs=closes * 1.05, lows=closes / 1.05)
    span, move = 2.0 * np.log(1.05), np.log(1.01)
    assert last("range_to_return_volatility", bars) == pytest.approx(
        np.log(span / np.sqrt(4 * np.log(2)) / move)
    )


def test_autocorrelation_is_one_for_a_steady_climb_and_minus_one_for_up_and_down(
    one_percent_a_bar, up_and_down
):
    assert last("return_autocorrelation", one_percent_a_bar) == pytest.approx(1.0)
    assert last("return_autocorrelation", up_and_down) == pytest.approx(-1.0)


# ---- candle and place ------------------------------------------------------------------------------


def test_candle_parts_are_shares_of_the_range():
    bars = bars_from_closes([12.0], opens=[10.0], highs=[15.0], lows=[7.0])
    assert last("candle_body", bars) == 2.0 / 8.0
    assert last("upper_shadow", bars) == 3.0 / 8.0
    assert last("lower_shadow", bars) == 3.0 / 8.0


def test_a_candle_without_range_has_no_parts():
    bars = flat_bars(1, price=10.0)
    assert [last(name, bars) for name in ("candle_body", "upper_shadow", "lower_shadow")] == [0.0, 0.0, 0.0]


def test_range_position_is_minus_one_at_the_low_and_one_at_the_high():
    closes = [10.0] * 59 + [11.0]
    bars = bars_from_closes(closes, opens=closes, highs=[14.0] + [12.0] * 59, lows=[10.0] * 60)
    assert last("range_position_60", bars) == pytest.approx(2.0 * (11.0 - 10.0) / (14.0 - 10.0) - 1.0)
    # One bar later the high of 14 has left the window.
    later = bars_from_closes([*closes, 11.0], highs=[14.0] + [12.0] * 60, lows=[10.0] * 61)
    assert last("range_position_60", later) == pytest.approx(0.0)


def test_range_position_and_stochastic_of_a_ramp_are_at_the_top(ramp):
    assert last("range_position_60", ramp) == 1.0
    assert last("range_position_240", ramp) == 1.0
    assert last("stochastic", ramp) == pytest.approx(1.0)


@pytest.mark.parametrize("window_bars", [10, 200])
def test_distance_to_the_average_of_a_ramp_is_half_the_window(ramp, window_bars):
    # The average of n consecutive numbers lies (n - 1) / 2 below the last, and the ATR is 1.
    assert last(f"distance_sma_{window_bars}", ramp) == pytest.approx((window_bars - 1) / 2)


def test_bollinger_z_of_a_ramp(ramp):
    # 20 consecutive numbers: mean 9.5 below the last, variance (20² - 1) / 12.
    assert last("bollinger_z", ramp) == pytest.approx(9.5 / np.sqrt(399.0 / 12.0))


def test_breakout_distances_leave_out_the_bar_itself(ramp):
    # The 20 bars before span from the close 21 bars ago (low of the first) to the close 1 bar ago.
    assert last("breakout_above", ramp) == pytest.approx(1.0)
    assert last("breakout_below", ramp) == pytest.approx(21.0)


def test_bar_range_is_in_units_of_the_average_range(ramp):
    assert last("bar_range", ramp) == pytest.approx(1.0)
    wide = replace(ramp, high=np.concatenate([ramp.high[:-1], ramp.high[-1:] + 14.0]))
    # A last range of 15 after ranges of 1: Wilder's average is (13 · 1 + 15) / 14 = 2.
    assert last("bar_range", wide) == pytest.approx(15.0 / 2.0)


# ---- momentum and trend ----------------------------------------------------------------------------


def test_a_ramp_has_full_momentum_and_trend(ramp):
    assert last("rsi", ramp) == pytest.approx(1.0)
    assert last("adx", ramp) == pytest.approx(1.0)
    assert last("directional_difference", ramp) == pytest.approx(1.0)
    assert last("efficiency", rising_bars(COUNT, start=1e6)) == pytest.approx(1.0)


def test_a_fall_has_the_opposite_momentum_and_the_same_trend_strength():
    fall = rising_bars(COUNT, start=1000.0, step=-1.0)
    assert last("rsi", fall) == pytest.approx(-1.0)
    assert last("adx", fall) == pytest.approx(1.0)
    assert last("directional_difference", fall) == pytest.approx(-1.0)


def test_macd_of_a_ramp_is_the_difference_of_the_averages_lags(ramp):
    # An exponential average of n bars lags a ramp by (n - 1) / 2: 5.5 and 12.5. Its average has caught up.
    assert last("macd", ramp) == pytest.approx(12.5 - 5.5, rel=1e-6)
    assert last("macd_histogram", ramp) == pytest.approx(0.0, abs=1e-6)


def test_efficiency_of_a_way_walked_and_walked_back_is_zero(up_and_down):
    assert last("efficiency", up_and_down) == pytest.approx(0.0, abs=1e-12)


def test_classic_indicators_agree_with_ta_lib():
    bars = random_bars(600, seed=5)
    usable = slice(300, None)
    rsi = (talib.RSI(bars.close, 14) - 50.0) / 50.0
    slow_k = talib.STOCH(bars.high, bars.low, bars.close, 14, 3, 0, 3, 0)[0]
    upper, middle, lower = talib.BBANDS(bars.close, 20, 2.0, 2.0)
    np.testing.assert_allclose(feature("rsi", bars)[usable], rsi[usable], atol=1e-12)
    np.testing.assert_allclose(feature("stochastic", bars)[usable], (slow_k / 50.0 - 1.0)[usable], atol=1e-9)
    band = (bars.close - middle) / ((upper - lower) / 4.0)
    np.testing.assert_allclose(feature("bollinger_z", bars)[usable], band[usable], rtol=1e-6)


# ---- a market that stands still --------------------------------------------------------------------


def test_a_market_that_never_moved_is_neutral_in_every_feature():
    bars = flat_bars(COUNT, volume=np.zeros(COUNT))
    table = compute_features(bars, INDEX)
    clock = ("session_start", "session_progress", "time_of_day", "day_of_week")
    of_the_market = [column for column, name in enumerate(table.names) if not name.startswith(clock)]
    assert table.usable.any()
    assert not table.values[table.usable][:, of_the_market].any()


def test_a_market_that_stopped_is_neutral_after_32_bars():
    # TA-Lib's RSI of a market that stopped keeps its last value for hundreds of bars, and of one that never
    # moved says 0 of 100, the reading of a crash.
    bars = bars_from_closes([*np.arange(100.0, 400.0), *([399.0] * 60)])
    for name in ("rsi", "adx", "directional_difference"):
        values = feature(name, bars)
        assert values[-32] > 0.1, name
        assert values[-1] == 0.0, name


def test_a_market_that_wakes_up_stays_within_the_limit():
    closes = np.full(COUNT, 100.0)
    closes[300:] = 250.0
    values = compute_features(bars_from_closes(closes), INDEX).values
    assert np.isfinite(values).all()
    assert np.abs(values).max() <= 1000.0


# ---- prices that may be negative -------------------------------------------------------------------


def test_returns_of_prices_that_may_be_negative_are_differences():
    # 0, 1, -1, 2, -2, …: the moves are ±1, ±2, ±3 …; the last 64 of them make the volatility.
    steps = np.arange(1, COUNT)
    moves = np.where(steps % 2 == 1, steps, -steps).astype(float)
    bars = bars_from_closes([0.0, *np.cumsum(moves)])
    volatility = np.sqrt(np.mean(moves[-64:] ** 2))
    assert last("return_1", bars, uses_price_changes=True) == pytest.approx(moves[-1] / volatility)


def test_features_of_prices_below_zero_are_those_of_the_same_moves_above_it():
    above = random_bars(700, seed=11, sigma=0.01, minutes=1440)
    shift = 1.5 * above.close[300]
    below = replace(
        above,
        open=above.open - shift,
        high=above.high - shift,
        low=above.low - shift,
        close=above.close - shift,
    )
    assert below.close[256:].min() < 0.0
    table, shifted = compute_features(above, MAY_BE_NEGATIVE), compute_features(below, MAY_BE_NEGATIVE)
    assert shifted.usable.sum() == 700 - 255
    np.testing.assert_allclose(shifted.values, table.values, atol=1e-5)
    np.testing.assert_allclose(shifted.atr, table.atr, rtol=1e-9)


def test_a_constant_factor_on_all_prices_changes_no_feature():
    bars = random_bars(700, seed=12)
    dear = replace(
        bars,
        open=bars.open * 1000.0,
        high=bars.high * 1000.0,
        low=bars.low * 1000.0,
        close=bars.close * 1000.0,
    )
    table, scaled = compute_features(bars, INDEX), compute_features(dear, INDEX)
    np.testing.assert_allclose(scaled.values, table.values, atol=1e-5)
    np.testing.assert_allclose(scaled.atr, 1000.0 * table.atr, rtol=1e-9)


# ---- session and clock -----------------------------------------------------------------------------


def test_the_gap_is_known_all_session_long_and_unknown_in_the_first():
    closes = np.concatenate([np.full(25, 100.0), np.full(25, 103.0), np.full(25, 101.0)])
    bars = bars_from_closes(closes, opens=closes)
    gap = feature("session_gap", bars) * stretch_of(bars).atr
    assert np.isnan(gap[:25]).all()
    np.testing.assert_allclose(gap[25:], [3.0] * 25 + [-2.0] * 25)


def test_the_gap_of_daily_bars_is_from_close_to_open():
    bars = bars_from_closes([100.0] * 300, opens=[100.0] * 299 + [105.0], highs=[106.0] * 300, minutes=1440)
    assert last("session_gap", bars) == pytest.approx(5.0 / 6.0)


def test_the_session_return_of_a_steady_climb_is_the_root_of_the_bars_so_far(one_percent_a_bar):
    returns = feature("session_return", one_percent_a_bar)
    assert np.isnan(returns[:25]).all()
    np.testing.assert_allclose(returns[100:125], np.sqrt(np.arange(1, 26)))


def test_session_start_marks_first_bars():
    marks = feature("session_start", rising_bars(75))
    np.testing.assert_array_equal(np.flatnonzero(marks), [25, 50])


def test_session_progress_and_time_of_day_on_the_indian_exchange():
    bars = rising_bars(25)
    progress = feature("session_progress", bars)
    assert progress[0] == pytest.approx(15 / 375)
    assert progress[-1] == pytest.approx(1.0)
    # The last bar closes at 15:30.
    assert last("time_of_day_sin", bars) == pytest.approx(np.sin(2 * np.pi * 15.5 / 24))
    assert last("time_of_day_cos", bars) == pytest.approx(np.cos(2 * np.pi * 15.5 / 24))


def test_monday_is_weekday_zero_of_seven():
    bars = rising_bars(6, minutes=1440)  # Monday to Friday, and Monday
    angles = 2 * np.pi * np.array([0, 1, 2, 3, 4, 0]) / 7
    np.testing.assert_allclose(feature("day_of_week_sin", bars), np.sin(angles), atol=1e-12)
    np.testing.assert_allclose(feature("day_of_week_cos", bars), np.cos(angles), atol=1e-12)


def bars_closing_at(*utc_times):
    bars = rising_bars(len(utc_times))
    return replace(bars, close_time=np.array(utc_times, dtype="datetime64[ns]").astype(np.int64))


def test_the_clock_follows_summer_time():
    # 16:00 in New York is 21:00 UTC in January and 20:00 UTC in July.
    clock = market_clock(bars_closing_at("2024-01-10T21:00", "2024-07-10T20:00"), calendar("NYSE"))
    np.testing.assert_allclose(clock.day_share, [16 / 24, 16 / 24])
    np.testing.assert_allclose(clock.session_progress, [1.0, 1.0])


def test_an_evening_session_belongs_to_the_next_day():
    # Chicago is at UTC-6 in January: a bar closing on Sunday the 7th at 20:30 is 3.5 of 23 hours into Monday.
    clock = market_clock(bars_closing_at("2024-01-08T02:30"), calendar("CME"))
    assert clock.weekday[0] == 0
    assert clock.session_progress[0] == pytest.approx(3.5 / 23)


def test_a_bar_that_closes_at_midnight_belongs_to_the_day_it_ends():
    # 2024-01-08 is a Monday; its last bar closes when Tuesday begins.
    clock = market_clock(bars_closing_at("2024-01-08T23:00", "2024-01-09T00:00"), calendar("CRYPTO"))
    np.testing.assert_array_equal(clock.weekday, [0, 0])
    np.testing.assert_allclose(clock.session_progress, [23 / 24, 1.0])


def test_a_calendar_without_hours_has_no_session_progress():
    assert market_clock(rising_bars(3), calendar("NONE")).session_progress is None


# ---- volume ----------------------------------------------------------------------------------------


def test_volume_ratio_is_zero_at_the_mean_and_log_half_without_trade():
    steady = rising_bars(64, volume=[100.0] * 64)
    assert last("volume_ratio", steady) == 0.0
    silent = rising_bars(64, volume=[100.0] * 63 + [0.0])
    assert last("volume_ratio", silent) == pytest.approx(np.log(0.5))
    # 3 times the mean: 63 bars of v and one of x with x = 3 (63 v + x) / 64, that is x = 189 v / 61.
    busy = rising_bars(64, volume=[61.0] * 63 + [189.0])
    assert last("volume_ratio", busy) == pytest.approx(np.log(2.0))


def test_volume_trend_compares_16_bars_with_64():
    bars = rising_bars(64, volume=[100.0] * 48 + [200.0] * 16)
    usual = (48 * 100 + 16 * 200) / 64
    assert last("volume_trend", bars) == pytest.approx(np.log((1 + 200 / usual) / 2))


def test_minutes_of_the_builder_are_what_the_tests_above_assume():
    bars = rising_bars(26)
    assert bars.close_time[1] - bars.close_time[0] == 15 * MINUTE_NS
    assert bars.session[24] == 0
    assert bars.session[25] == 1
    assert bars.session_end[24]
