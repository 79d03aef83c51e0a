"""vectorbt following a list of positions. Imported only where it is installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.measuring import Work
from benchmarks.sample import CAPITAL, RULES
from rl.trading.market_arrays import MarketArrays


def following(market: MarketArrays, sides: np.ndarray) -> tuple[Work, int]:
    """Return the run over all bars and the number of trades it makes."""
    vectorbt = import_module("vectorbt")
    opens, highs, lows, closes = (np.ascontiguousarray(column) for column in market.ohlc.T)
    # Its orders fill in the bar of their signal; a decision at the close belongs to the next bar's open.
    decided = np.concatenate([[0], sides[:-1]])

    def simulate() -> Any:
        return vectorbt.Portfolio.from_signals(
            closes,
            entries=decided > 0,
            short_entries=decided < 0,
            open=opens,
            high=highs,
            low=lows,
            price=opens,
            fees=RULES.commission_rate,
            sl_stop=RULES.stop_loss,
            tp_stop=RULES.take_profit,
            init_cash=CAPITAL,
            freq="2min",
        )

    def run() -> float:
        simulate().value()
        return len(market)

    return run, int(simulate().trades.count())
