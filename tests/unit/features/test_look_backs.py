"""Each feature's stated look-back is long enough: older bars do not move it by more than 1e-6."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rl.features.indicators import FEATURES, Feature, Stretch
from rl.features.pipeline import longest_lookback_bars, market_clock
from rl.market.calendars import calendar
from tests.builders import random_bars

TOLERANCE = 1e-6
ENDS = (900, 1011, 1337, 1499)


def stretch_of(bars):
    return Stretch(bars, market_clock(bars, calendar("NSE")), uses_price_changes=False)


def history():
    """Bars whose volatility falls to a tenth and rises again, so that an average's start does matter."""
    calm, wild = (random_bars(1500, seed=21, sigma=sigma, with_volume=True) for sigma in (1e-3, 1e-2))
    is_wild = (np.arange(1500) // 300) % 2 == 0
    move = np.where(is_wild, np.log(wild.close / wild.open), np.log(calm.close / calm.open))
    closes = 100.0 * np.exp(np.cumsum(move))
    opens = closes / np.exp(move)
    reach = np.where(is_wild, 5e-3, 5e-4)
    high, low = np.maximum(opens, closes) * (1 + reach), np.minimum(opens, closes) * (1 - reach)
    return replace(calm, open=opens, high=high, low=low, close=closes)


def check_look_back(feature: Feature, bars) -> None:
    complete = feature.compute(stretch_of(bars))
    for end in ENDS:
        row = end - 1
        start = end - feature.lookback_bars
        if feature.reaches_last_session:
            start = min(start, int(np.searchsorted(bars.session, bars.session[row])) - 1)
        alone = feature.compute(stretch_of(bars.slice(start, end)))[-1]
        assert alone == pytest.approx(complete[row], abs=TOLERANCE), f"{feature.name} at bar {row}"


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_the_last_bars_alone_give_the_value_of_all_history(feature):
    check_look_back(feature, history())


@pytest.mark.parametrize("name", ["rsi", "adx", "macd", "distance_sma_200", "return_1_slow", "volume_ratio"])
def test_the_check_above_catches_a_look_back_that_is_too_short(name):
    feature = next(feature for feature in FEATURES if feature.name == name)
    with pytest.raises(AssertionError, match=name):
        check_look_back(replace(feature, lookback_bars=feature.lookback_bars // 2), history())


def test_the_longest_look_back_is_that_of_the_recursive_averages():
    assert longest_lookback_bars() == 256


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_a_feature_is_defined_from_its_look_back_on(feature):
    bars = random_bars(400, seed=22, with_volume=True)
    first = max(feature.lookback_bars - 1, 25 if feature.reaches_last_session else 0)
    assert np.isfinite(feature.compute(stretch_of(bars))[first:]).all()


def test_names_are_unique_and_leave_the_users_prefix_alone():
    names = [feature.name for feature in FEATURES]
    assert len(set(names)) == len(names)
    assert not any(name.startswith("x_") for name in names)
