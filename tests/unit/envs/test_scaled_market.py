"""From features to the kernel's arrays: chosen by name, scaled, silent where undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rl.common.errors import DataError
from rl.envs.scaled_market import bar_volatility, chosen_columns, scaled_market
from rl.features.pipeline import FeatureTable
from rl.features.scaler import FeatureScaler
from tests.builders import bars_from_closes, flat_bars


def a_table(**changes) -> FeatureTable:
    content = {
        "values": np.array([[0, 0, 0], [1, 10, 100], [2, 20, 200], [3, 30, 300]], dtype=np.float32),
        "names": ("a", "b", "c"),
        "usable": np.array([False, True, True, True]),
        "atr": np.array([0.0, 1.0, 2.0, 3.0]),
        "regime_names": ("c",),
    }
    return FeatureTable(**(content | changes))


def test_columns_come_in_the_order_asked_for():
    np.testing.assert_array_equal(
        chosen_columns(a_table(), ("c", "a"), "X"), [[0, 0], [100, 1], [200, 2], [300, 3]]
    )


def test_missing_features_are_all_named():
    with pytest.raises(DataError) as refused:
        chosen_columns(a_table(), ("a", "volume_ratio", "x_own"), "Nifty_15")
    assert "Nifty_15: the features volume_ratio, x_own do not exist" in str(refused.value)


def test_features_are_scaled_by_the_scaler_given_and_zero_where_undefined():
    scaler = FeatureScaler(("b", "a"), np.array([10, 1], np.float32), np.array([5, 2], np.float32))
    bars = bars_from_closes([100, 101, 102, 103])
    arrays = scaled_market(bars, a_table(), ("b", "a"), scaler)
    np.testing.assert_array_equal(arrays.features, [[0, 0], [0, 0], [2, 0.5], [4, 1]])
    assert arrays.tradable.tolist() == [False, True, True, True]
    assert arrays.atr.tolist() == [0.0, 1.0, 2.0, 3.0]
    np.testing.assert_array_equal(arrays.ohlc[:, 3], [100, 101, 102, 103])
    assert arrays.features.dtype == np.float32
    assert arrays.ohlc.dtype == np.float64


def test_bar_volatility_is_the_deviation_of_relative_moves_inside_the_window_only():
    bars = bars_from_closes([100, 110, 99, 108.9, 1.0])
    # Moves inside rows 0 to 3: +10 %, -10 %, +10 %.
    moves = np.array([0.1, -0.1, 0.1])
    assert bar_volatility(bars, (0, 4)) == pytest.approx(math.sqrt(np.mean((moves - moves.mean()) ** 2)))


def test_a_price_that_never_moves_is_refused():
    with pytest.raises(DataError, match="the price does not move on the training window"):
        bar_volatility(flat_bars(30), (0, 30))
