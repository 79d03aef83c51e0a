from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from rl.common.errors import DataError
from rl.features.pipeline import compute_features, unbroken_stretches
from tests.builders import (
    an_instrument,
    bars_from_closes,
    flat_bars,
    random_bars,
    rising_bars,
    with_a_hole,
    with_later_bars_changed,
)

INDEX = an_instrument()
CRYPTO = an_instrument(asset_class="crypto", calendar="CRYPTO")
UNKNOWN_HOURS = an_instrument(asset_class="synthetic", calendar="NONE")

WARM_UP_BARS = 256
INTRADAY_ONLY = {"session_return", "session_start", "session_progress", "time_of_day_sin", "time_of_day_cos"}
OF_CLOSING_HOURS = {"session_gap", "session_return", "session_start", "session_progress"}
OF_VOLUME = {"volume_ratio", "volume_trend"}


# ---- which features a market has -------------------------------------------------------------------


def names_of(bars, instrument):
    return set(compute_features(bars, instrument).names)


def test_daily_bars_have_no_intraday_features():
    intraday = names_of(random_bars(5, 1), INDEX)
    daily = names_of(random_bars(5, 1, minutes=1440), INDEX)
    assert intraday - daily == INTRADAY_ONLY
    assert "session_gap" in daily


def test_volume_features_exist_only_where_there_is_volume():
    with_volume = names_of(random_bars(5, 1, with_volume=True), INDEX)
    assert with_volume - names_of(random_bars(5, 1), INDEX) == OF_VOLUME


def test_a_market_that_never_closes_has_no_session_features():
    bars = random_bars(5, 1)
    assert names_of(bars, INDEX) - names_of(bars, CRYPTO) == OF_CLOSING_HOURS


def test_unknown_hours_leave_out_only_the_share_of_the_session():
    bars = random_bars(5, 1)
    assert names_of(bars, INDEX) - names_of(bars, UNKNOWN_HOURS) == {"session_progress"}


def test_there_are_about_forty_features():
    assert len(names_of(random_bars(5, 1), INDEX)) == 39
    assert len(names_of(random_bars(5, 1, minutes=1440), CRYPTO)) == 33


def test_regime_features_are_slow_descriptions_of_volatility_trend_and_time():
    table = compute_features(random_bars(5, 1, extra_names=("x_f1", "x_regime", "x_regime_2")), INDEX)
    assert table.regime_names == (
        "volatility_ratio_slow",
        "volatility_level",
        "return_autocorrelation",
        "adx",
        "efficiency",
        "session_progress",
        "time_of_day_sin",
        "time_of_day_cos",
        "x_regime",
        "x_regime_2",
    )
    assert set(table.regime_names) <= set(table.names)


# ---- the user's own columns ------------------------------------------------------------------------


def test_own_columns_follow_unchanged_and_in_their_order():
    bars = random_bars(300, 2, minutes=1440, extra_names=("x_b", "x_a"))
    table = compute_features(bars, INDEX)
    assert table.names[-2:] == ("x_b", "x_a")
    np.testing.assert_array_equal(table.values[255:, -2], bars.extra["x_b"][255:].astype(np.float32))
    np.testing.assert_array_equal(table.values[255:, -1], bars.extra["x_a"][255:].astype(np.float32))


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e39])
def test_an_own_column_that_is_no_float32_number_is_refused_with_its_bar(number):
    bars = rising_bars(30, extra={"x_f1": np.where(np.arange(30) == 17, number, 0.0)})
    with pytest.raises(DataError, match=re.escape(f"bar 18 of 30 ({bars.label[17]}): x_f1 is {number}")):
        compute_features(bars, INDEX)


# ---- prices that cannot be used --------------------------------------------------------------------


@pytest.mark.parametrize("price", [0.0, -1.0, np.nan, np.inf, 1e101])
def test_a_price_without_a_logarithm_is_refused_with_its_bar(price):
    closes = 100.0 + np.arange(30.0)
    closes[4] = price
    with pytest.raises(DataError, match=r"TEST, bar 5 of 30 .*: (high|low|close) is"):
        compute_features(bars_from_closes(closes, opens=100.0 + np.arange(30.0)), INDEX)


def test_a_negative_price_is_accepted_where_the_instrument_says_so():
    compute_features(rising_bars(30, start=-15.0), an_instrument(price_may_be_negative=True))
    with pytest.raises(DataError, match="positive"):
        compute_features(rising_bars(30, start=-15.0), INDEX)


def test_a_negative_volume_is_refused():
    with pytest.raises(DataError, match="volume is -1"):
        compute_features(rising_bars(3, volume=[1.0, -1.0, 1.0]), INDEX)


# ---- warm-up and holes -----------------------------------------------------------------------------


def test_the_first_256_bars_less_one_are_warm_up_and_zero():
    table = compute_features(random_bars(400, 3, minutes=1440), INDEX)
    assert table.usable.tolist() == [False] * (WARM_UP_BARS - 1) + [True] * (400 - WARM_UP_BARS + 1)
    assert not table.values[: WARM_UP_BARS - 1].any()
    assert not table.atr[: WARM_UP_BARS - 1].any()
    assert (table.atr[WARM_UP_BARS - 1 :] > 0.0).all()


def test_session_features_need_a_second_session():
    # One-minute bars: the first session is 375 bars long, and what came before it is not known.
    table = compute_features(random_bars(800, 3, minutes=1), INDEX)
    assert int(table.usable.argmax()) == 375


def test_one_session_alone_has_no_usable_bar():
    assert not compute_features(random_bars(375, 3, minutes=1), INDEX).usable.any()


@pytest.mark.parametrize("count", [0, 1, 2, 255])
def test_too_few_bars_give_a_table_without_usable_rows(count):
    table = compute_features(random_bars(count, 3, minutes=1440), INDEX)
    assert table.values.shape == (count, len(table.names))
    assert not table.usable.any()


def test_values_are_float32_contiguous_by_row():
    values = compute_features(random_bars(300, 3), INDEX).values
    assert values.dtype == np.float32
    assert values.flags.c_contiguous


def test_a_hole_longer_than_allowed_starts_the_warm_up_again():
    bars = with_a_hole(random_bars(900, 4, minutes=1440), before=400, days=8)
    table = compute_features(bars, INDEX)
    assert INDEX.max_hole_days == 7
    expected = np.zeros(900, dtype=bool)
    expected[255:400] = True
    expected[400 + 255 :] = True
    np.testing.assert_array_equal(table.usable, expected)


def test_a_hole_as_long_as_allowed_is_crossed():
    bars = random_bars(400, 4, minutes=1440)
    step_days = (bars.close_time[300] - bars.close_time[299]) / (86_400 * 10**9)
    at_limit = with_a_hole(bars, before=300, days=7 - step_days)
    assert compute_features(at_limit, INDEX).usable[255:].all()
    beyond = with_a_hole(bars, before=300, days=7 - step_days + 1e-6)
    assert not compute_features(beyond, INDEX).usable[300:].any()


def test_no_window_looks_across_a_hole():
    bars = with_a_hole(random_bars(900, 4), before=400, days=30)
    alone = compute_features(bars.slice(400, 900), INDEX)
    table = compute_features(bars, INDEX)
    assert alone.usable.sum() > 200
    assert table.values[400:].tobytes() == alone.values.tobytes()
    assert table.usable[400:].tobytes() == alone.usable.tobytes()
    assert table.atr[400:].tobytes() == alone.atr.tobytes()


def test_without_the_cut_a_window_would_look_across_the_hole():
    # The same bars with a hole that the instrument allows: now the bars before it do show.
    bars = with_a_hole(random_bars(900, 4), before=400, days=30)
    patient = an_instrument(max_hole_days=60)
    assert not np.array_equal(
        compute_features(bars, patient).values[400:], compute_features(bars.slice(400, 900), patient).values
    )


def test_stretches_are_cut_between_the_bars_on_either_side_of_a_hole():
    bars = with_a_hole(with_a_hole(rising_bars(10, minutes=1440), before=4, days=20), before=9, days=20)
    assert unbroken_stretches(bars, 7) == [(0, 4), (4, 9), (9, 10)]
    assert unbroken_stretches(rising_bars(0), 7) == []


# ---- never a number that is none -------------------------------------------------------------------


def test_wild_prices_give_finite_features():
    rng = np.random.default_rng(8)
    closes = 10.0 ** rng.uniform(-12, 12, 600)
    table = compute_features(bars_from_closes(closes, volume=10.0 ** rng.uniform(-90, 90, 600)), INDEX)
    assert table.usable.sum() > 300
    assert np.isfinite(table.values).all()
    assert np.abs(table.values).max() <= 1000.0
    assert np.isfinite(table.atr).all()


@pytest.mark.parametrize("price", [1e-90, 1e90, 0.0, -5.0])
def test_a_flat_market_at_any_price_gives_finite_features(price):
    table = compute_features(flat_bars(400, price=price), an_instrument(price_may_be_negative=True))
    assert np.isfinite(table.values).all()
    assert (table.atr[table.usable] > 0.0).all()


def test_the_table_does_not_write_into_the_bars():
    bars = random_bars(400, 9, with_volume=True, extra_names=("x_f1",))
    for array in (bars.open, bars.high, bars.low, bars.close, bars.volume, bars.extra["x_f1"]):
        array.flags.writeable = False
    compute_features(bars, INDEX)


def test_the_builders_change_every_later_column_and_no_earlier_one():
    bars = random_bars(50, 1, with_volume=True, extra_names=("x_f1",))
    altered = with_later_bars_changed(bars, 30, seed=2)
    for name in ("close_time", "open", "high", "low", "close", "volume", "label"):
        before, after = getattr(bars, name), getattr(altered, name)
        assert (before[:30] == after[:30]).all(), name
        assert (before[30:] != after[30:]).all(), name
    assert (altered.low <= np.minimum(altered.open, altered.close)).all()
    assert replace(bars).close is bars.close
