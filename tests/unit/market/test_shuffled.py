"""Bars in random order: the same moves, the same ends, and no order."""

from __future__ import annotations

import numpy as np
import pytest

from rl.market.bars import Bars
from rl.market.shuffled import with_moves_shuffled
from tests.builders import bars_from_closes

WINDOW = (20, 180)


def some_bars(*, drop: float = 0.0) -> Bars:
    rng = np.random.default_rng(0)
    closes = 100.0 + np.cumsum(rng.normal(0.0, 0.5, 200)) - drop
    opens = closes - rng.normal(0.0, 0.3, 200)
    return bars_from_closes(
        closes,
        opens=opens,
        highs=np.maximum(opens, closes) + rng.random(200),
        lows=np.minimum(opens, closes) - rng.random(200),
        volume=rng.random(200),
        extra={"x_own": rng.normal(size=200)},
    )


def shuffled(bars: Bars, seed: int = 1) -> Bars:
    return with_moves_shuffled(bars, WINDOW, np.random.default_rng(seed))


def moves(bars: Bars) -> np.ndarray:
    """Return every bar of the window by its prices over the close before. (n, 4), sorted by the close"""
    start, stop = WINDOW
    before = bars.close[start - 1 : stop - 1]
    columns = [getattr(bars, name)[start:stop] / before for name in ("open", "high", "low", "close")]
    found = np.column_stack(columns)
    return found[np.argsort(found[:, 3])]


def test_the_moves_are_the_same_in_another_order():
    bars = some_bars()
    changed = shuffled(bars)
    np.testing.assert_allclose(moves(changed), moves(bars), rtol=1e-12)
    assert (changed.close[slice(*WINDOW)] != bars.close[slice(*WINDOW)]).mean() > 0.9
    assert not np.array_equal(shuffled(bars, seed=2).close, changed.close)


def test_the_window_ends_where_it_ended_and_nothing_else_moves():
    bars = some_bars()
    changed = shuffled(bars)
    start, stop = WINDOW
    assert changed.close[stop - 1] == pytest.approx(bars.close[stop - 1], rel=1e-12)
    for name in ("open", "high", "low", "close", "volume"):
        for part in (slice(0, start), slice(stop, None)):
            np.testing.assert_array_equal(getattr(changed, name)[part], getattr(bars, name)[part])
    np.testing.assert_array_equal(changed.close_time, bars.close_time)
    np.testing.assert_array_equal(changed.extra["x_own"], bars.extra["x_own"])


def test_volume_goes_with_its_bar():
    bars = some_bars()
    changed = shuffled(bars)
    rows = np.arange(*WINDOW)

    def by_volume(of: Bars) -> np.ndarray:
        return (of.close[rows] / of.close[rows - 1])[np.argsort(of.volume[rows])]

    np.testing.assert_allclose(by_volume(changed), by_volume(bars), rtol=1e-12)


def test_what_a_move_was_followed_by_is_forgotten():
    """Here every rise follows a fall: a correlation of -1, which chance alone keeps within 0.3 of 160 bars."""
    closes = 100.0 * np.cumprod(1.0 + 0.01 * (-1.0) ** np.arange(200))
    bars = bars_from_closes(closes)

    def correlation(of: Bars) -> float:
        change = np.diff(np.log(of.close[slice(*WINDOW)]))
        return float(np.corrcoef(change[1:], change[:-1])[0, 1])

    assert correlation(bars) < -0.99
    assert abs(correlation(shuffled(bars))) < 0.3


def test_bars_stay_whole():
    for bars in (some_bars(), some_bars(drop=100.0)):
        changed = shuffled(bars)
        assert (changed.high >= np.maximum(changed.open, changed.close)).all()
        assert (changed.low <= np.minimum(changed.open, changed.close)).all()


def test_a_price_that_goes_below_zero_is_moved_by_sums():
    """A ratio of prices means nothing there: oil was sold at -37.63 on 2020-04-20."""
    bars = some_bars(drop=100.0)
    start, stop = WINDOW
    assert (bars.low[start:stop] < 0.0).any()
    changed = shuffled(bars)
    rows = np.arange(start, stop)
    for name in ("open", "high", "low", "close"):
        one, two = (np.sort(getattr(of, name)[rows] - of.close[rows - 1]) for of in (bars, changed))
        np.testing.assert_allclose(one, two, atol=1e-9)
    assert changed.close[stop - 1] == pytest.approx(bars.close[stop - 1], abs=1e-9)


@pytest.mark.parametrize("window", [(0, 10), (150, 201), (10, 9)])
def test_a_window_without_a_close_before_it_or_beyond_the_bars_is_refused(window):
    with pytest.raises(ValueError, match="have to lie within 1 to 200"):
        with_moves_shuffled(some_bars(), window, np.random.default_rng(0))
