"""backtesting.py following a list of positions. Imported only where it is installed."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from backtesting import Backtest, Strategy

from benchmarks.measuring import Work
from benchmarks.sample import CAPITAL, RULES
from rl.trading.market_arrays import MarketArrays


class FollowSides(Strategy):
    """Be long or short as the list says, with a stop and a target."""

    sides = np.zeros(0)

    def init(self) -> None:
        self.side = self.I(lambda: self.sides)

    def next(self) -> None:
        price = self.data.Close[-1]
        if self.side[-1] > 0 and not self.position.is_long:
            self.buy(sl=price * (1 - RULES.stop_loss), tp=price * (1 + RULES.take_profit))
        elif self.side[-1] < 0 and not self.position.is_short:
            self.sell(sl=price * (1 + RULES.stop_loss), tp=price * (1 - RULES.take_profit))


def following(market: MarketArrays, sides: np.ndarray) -> tuple[Work, int]:
    """Return the run over all bars, its statistics included, and the number of trades it makes."""
    times = pd.date_range("2015-01-01", periods=len(market), freq="2min")
    frame = pd.DataFrame(market.ohlc, columns=pd.Index(["Open", "High", "Low", "Close"]), index=times)
    test = Backtest(
        frame,
        FollowSides,
        cash=CAPITAL,
        commission=RULES.commission_rate,
        exclusive_orders=True,
        finalize_trades=True,
    )

    def run() -> float:
        with warnings.catch_warnings():
            # It warns of orders it cancels for want of cash; here they are part of the work.
            warnings.simplefilter("ignore")
            test.run(sides=sides.astype(float))
        return len(market)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trades = int(test.run(sides=sides.astype(float))["# Trades"])
    return run, trades
