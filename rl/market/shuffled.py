"""A market with its own moves in random order: it drifts and spreads as before, and nothing is left to foretell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rl.market.bars import Bars


def with_moves_shuffled(bars: Bars, window: tuple[int, int], generator: np.random.Generator) -> Bars:
    """Return the bars with the moves of a window in random order; times, sessions and x_ columns stay.

    A move is a whole bar (open, high, low, close, volume) seen from the close before it. Prices are multiplied, so the
    window ends where it ended; where an instrument's price is not above zero throughout, they are added. What came
    before a bar then says nothing about it, while the window keeps its drift and its spread.

    Args:
        bars: One symbol.
        window: First row, from 1 (a move needs a close before it), and row after the last.
        generator: Source of the order.

    Raises:
        ValueError: If the window begins before row 1 or reaches past the bars.
    """
    start, stop = window
    if not 1 <= start <= stop <= len(bars):
        raise ValueError(
            f"{bars.symbol}: rows {start} to {stop} have to lie within 1 to {len(bars)}; a move needs a close before it"
        )
    order = generator.permutation(np.arange(start, stop))
    before = bars.close[order - 1]
    if (bars.low[start - 1 : stop] > 0.0).all():
        level = bars.close[start - 1] * np.cumprod(np.concatenate([[1.0], bars.close[order] / before]))

        def moved(prices: np.ndarray) -> np.ndarray:
            return level[:-1] * (prices[order] / before)
    else:
        level = bars.close[start - 1] + np.cumsum(np.concatenate([[0.0], bars.close[order] - before]))

        def moved(prices: np.ndarray) -> np.ndarray:
            return level[:-1] + (prices[order] - before)

    def filled(own: np.ndarray, values: np.ndarray) -> np.ndarray:
        column = own.copy()
        column[start:stop] = values
        return column

    opened, closed = moved(bars.open), level[1:]
    return replace(
        bars,
        open=filled(bars.open, opened),
        # Rounding may put a close a hair above the high it equals.
        high=filled(bars.high, np.maximum(moved(bars.high), np.maximum(opened, closed))),
        low=filled(bars.low, np.minimum(moved(bars.low), np.minimum(opened, closed))),
        close=filled(bars.close, closed),
        volume=None if bars.volume is None else filled(bars.volume, bars.volume[order]),
    )
