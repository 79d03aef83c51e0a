from __future__ import annotations

import numpy as np
import pytest

from rl.features.trailing import (
    deviation_from_mean,
    lagged,
    ratio,
    trailing_max,
    trailing_mean,
    trailing_min,
    trailing_sum,
)

NAN = np.nan
ONE_TO_SIX = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])


@pytest.mark.parametrize(
    ("window_bars", "expected"),
    [
        (1, [1, 2, 3, 4, 5, 6]),
        (2, [NAN, 3, 5, 7, 9, 11]),
        (3, [NAN, NAN, 6, 9, 12, 15]),
        (5, [NAN, NAN, NAN, NAN, 15, 20]),
        (6, [NAN, NAN, NAN, NAN, NAN, 21]),
        (7, [NAN] * 6),
    ],
)
def test_a_trailing_sum_adds_the_last_rows_and_is_nan_until_there_are_enough(window_bars, expected):
    np.testing.assert_array_equal(trailing_sum(ONE_TO_SIX, window_bars), expected)


def test_a_trailing_sum_of_nothing_is_nothing():
    assert len(trailing_sum(np.zeros(0), 3)) == 0


def test_a_window_gives_the_same_bytes_wherever_the_series_begins():
    values = np.random.default_rng(3).normal(size=5000)
    alone = trailing_sum(values[-240:], 240)[-1]
    assert trailing_sum(values, 240)[-1].tobytes() == alone.tobytes()


def test_an_early_giant_leaves_no_rounding_behind_in_a_trailing_sum():
    values = np.full(50, 0.1)
    values[3] = 1e18
    running = np.cumsum(values)
    assert running[-1] - running[-11] != pytest.approx(1.0, rel=0.5), "a running sum would lose the tenths"
    assert trailing_sum(values, 10)[-1] == pytest.approx(1.0, rel=1e-15)


def test_one_nan_is_forgotten_once_it_has_left_the_window():
    values = ONE_TO_SIX.copy()
    values[1] = NAN
    np.testing.assert_array_equal(trailing_sum(values, 2), [NAN, NAN, NAN, 7, 9, 11])


def test_trailing_mean_minimum_and_maximum_of_three():
    values = np.array([3.0, 1.0, 2.0, 6.0])
    np.testing.assert_array_equal(trailing_mean(values, 3), [NAN, NAN, 2, 3])
    np.testing.assert_array_equal(trailing_min(values, 3), [NAN, NAN, 1, 1])
    np.testing.assert_array_equal(trailing_max(values, 3), [NAN, NAN, 3, 6])


def test_the_lagged_value_is_the_earlier_one():
    np.testing.assert_array_equal(lagged(ONE_TO_SIX, 2), [NAN, NAN, 1, 2, 3, 4])


def test_deviation_and_spread_of_one_two_three():
    above_mean, spread = deviation_from_mean(np.array([1.0, 2.0, 3.0]), 3)
    np.testing.assert_allclose(above_mean, [NAN, NAN, 3.0 - 2.0])
    np.testing.assert_allclose(spread, [NAN, NAN, np.sqrt((1 + 0 + 1) / 3)])


def test_spread_keeps_its_digits_on_a_high_level():
    level = 2.0**40
    above_mean, spread = deviation_from_mean(level + np.array([1.0, 2.0, 3.0]), 3)
    assert above_mean[-1] == pytest.approx(1.0, rel=1e-12)
    assert spread[-1] == pytest.approx(np.sqrt(2 / 3), rel=1e-12)


def test_deviation_of_a_series_shorter_than_the_window_is_nan():
    above_mean, spread = deviation_from_mean(ONE_TO_SIX, 20)
    assert np.isnan(above_mean).all()
    assert np.isnan(spread).all()


def test_a_ratio_with_nothing_below_is_zero():
    np.testing.assert_array_equal(
        ratio(np.array([4.0, 4.0, 0.0]), np.array([2.0, 0.0, 0.0])), [2.0, 0.0, 0.0]
    )
