"""Arithmetic over trailing windows: row t of every result uses rows t - window_bars + 1 … t and no others.

A running sum carries the rounding, and any NaN, of the whole history into every later row. The sums here are
built from the window's own rows in a fixed order, so a window gives the same bytes wherever the series
begins, and a NaN is gone as soon as it has left the window.
"""

from __future__ import annotations

import numpy as np
import talib


def trailing_sum(values: np.ndarray, window_bars: int) -> np.ndarray:
    """Return the sum of the last `window_bars` rows; nan in the first window_bars - 1 rows.

    Sums of 1, 2, 4, … rows are built from each other, and those that make up the window are added: about
    2·log2(window_bars) additions per row instead of window_bars.

    Args:
        values: Numbers. (T,) float64
        window_bars: Rows in the window, at least 1.

    Returns:
        (T,) float64
    """
    count = len(values) - window_bars + 1
    result = np.full(len(values), np.nan)
    if count < 1:
        return result
    total = np.zeros(count)
    block, block_bars, covered_bars = values, 1, 0
    while True:
        if window_bars & block_bars:
            total += block[covered_bars : covered_bars + count]
            covered_bars += block_bars
        if covered_bars == window_bars:
            break
        # block[i] becomes the sum of rows i … i + 2 * block_bars - 1.
        block = block[:-block_bars] + block[block_bars:]
        block_bars *= 2
    result[window_bars - 1 :] = total
    return result


def trailing_mean(values: np.ndarray, window_bars: int) -> np.ndarray:
    """Return the mean of the last `window_bars` rows; nan in the first window_bars - 1 rows. (T,) → (T,)"""
    return trailing_sum(values, window_bars) / window_bars


def trailing_max(values: np.ndarray, window_bars: int) -> np.ndarray:
    """Return the largest of the last `window_bars` (2 or more) rows; nan until there are that many. (T,)"""
    return talib.MAX(values, window_bars)


def trailing_min(values: np.ndarray, window_bars: int) -> np.ndarray:
    """Return the smallest of the last `window_bars` (2 or more) rows; nan until there are that many. (T,)"""
    return talib.MIN(values, window_bars)


def lagged(values: np.ndarray, bars: int) -> np.ndarray:
    """Return the value `bars` rows earlier; nan in the first `bars` rows. (T,) → (T,) float64"""
    result = np.full(len(values), np.nan)
    result[bars:] = values[: len(values) - bars]
    return result


def deviation_from_mean(values: np.ndarray, window_bars: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each value lies from its trailing mean, and the trailing standard deviation.

    Both are computed from differences to the newest value, so a level of 17,000 with movements of 0.01 loses
    no digits, as it would in the mean of squares minus the square of the mean.

    Args:
        values: Numbers. (T,) float64
        window_bars: Rows in the window, newest included, at least 2.

    Returns:
        Value minus mean, and population standard deviation, each nan in the first window_bars - 1 rows. (T,),
        (T,)
    """
    count = max(0, len(values) - window_bars + 1)
    newest = values[len(values) - count :]
    mean, mean_square = np.zeros(count), np.zeros(count)
    for lag in range(1, window_bars):
        difference = newest - values[window_bars - 1 - lag : window_bars - 1 - lag + count]
        mean += difference
        mean_square += difference * difference
    mean /= window_bars
    mean_square /= window_bars
    above_mean, spread = np.full(len(values), np.nan), np.full(len(values), np.nan)
    above_mean[len(values) - count :] = mean
    spread[len(values) - count :] = np.sqrt(np.maximum(mean_square - mean * mean, 0.0))
    return above_mean, spread


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return numerator / denominator, and 0 where the denominator is 0. (T,), (T,) → (T,) float64"""
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator != 0.0)
