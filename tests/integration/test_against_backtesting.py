"""The same decisions traded by backtesting.py, which shares no code with this program: same trades, same equity.

Both can express market orders filled at the next open, whole or fractional units, and commissions per order, per unit
and as a rate on both legs. Its spread is paid at the entry only and its stops are other ones, so those stay out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from backtesting import Backtest, Strategy
from backtesting.lib import FractionalBacktest

from rl.backtest.engine import Replay, replay_actions
from rl.trading.kernel import BUY_LONG, CLOSE_LONG, CLOSE_SHORT, HOLD, SELL_SHORT
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules
from tests.properties.random_trading import market, random_actions

CAPITAL = 100_000.0
BARS = 400
EXACT = 1e-9
FIRST_DECISION = 1
"""backtesting.py asks for the first decision at its second bar."""

DO_NOTHING = {"target": 1, "orders": HOLD}

COSTS: dict[str, dict[str, float]] = {
    "none": {},
    "rate": {"commission_rate": 0.002},
    "per order and rate": {
        "commission_per_entry": 7.5,
        "commission_per_exit": 7.5,
        "commission_rate": 0.0004,
    },
    "per unit": {"commission_per_unit": 0.013},
}


@dataclass(frozen=True)
class Sizing:
    """How much is traded: a lot, and a full position as a share of the equity."""

    lot: float
    exposure: float


SIZES = {
    # So many lots that one fits and two do not: a fixed size of 50 units.
    "fixed": Sizing(50.0, 1.5 * 50.0 * 100.0 / CAPITAL),
    "whole units of the equity": Sizing(1.0, 0.9),
    "hundredths of a unit, twice the equity": Sizing(0.01, 2.0),
}


class Follow(Strategy):
    """Do what a list of actions says, with the meaning our schemes give them, in this library's own terms."""

    actions = np.zeros(0, dtype=int)
    scheme = "target"
    sizing = SIZES["fixed"]

    def init(self) -> None:
        pass

    def units(self) -> int:
        # A fractional backtest counts fractions, and quotes their price.
        lot = max(int(self.sizing.lot), 1)
        return int(self.sizing.exposure * self.equity / self.data.Close[-1] / lot) * lot

    def turn_to(self, side: int) -> None:
        held = int(np.sign(self.position.size))
        if side == held:
            return
        if held:
            self.position.close()
        if side > 0:
            self.buy(size=self.units())
        elif side < 0:
            self.sell(size=self.units())

    def next(self) -> None:
        bar = len(self.data) - 1
        if bar >= len(self.actions):
            return  # nothing is decided at the last bar
        action = self.actions[bar]
        if self.scheme == "target":
            self.turn_to(int(action) - 1)
        elif action in (BUY_LONG, SELL_SHORT) and not self.position:
            self.turn_to(1 if action == BUY_LONG else -1)
        elif (action == CLOSE_LONG and self.position.is_long) or (
            action == CLOSE_SHORT and self.position.is_short
        ):
            self.position.close()


def their_commission(costs: dict[str, float], sizing: Sizing) -> Callable[[float, float], float]:
    """Return what one leg costs in their terms: their price is that of a lot where lots are fractions."""
    lot = min(sizing.lot, 1.0)

    def commission(lots: float, price: float) -> float:
        units = abs(lots) * lot
        notional = abs(lots) * price
        flat = costs.get("commission_per_entry", 0.0)
        return (
            flat
            + units * costs.get("commission_per_unit", 0.0)
            + notional * costs.get("commission_rate", 0.0)
        )

    return commission


def frame_of(arrays: MarketArrays) -> pd.DataFrame:
    times = pd.date_range("2024-01-01", periods=len(arrays), freq="15min")
    columns = pd.Index(["Open", "High", "Low", "Close"])
    return pd.DataFrame(arrays.ohlc, columns=columns, index=times).assign(Volume=1.0)


def theirs(
    arrays: MarketArrays, actions: np.ndarray, scheme: str, sizing: Sizing, costs: dict[str, float]
) -> pd.Series:
    frame = frame_of(arrays)
    settings = {
        "cash": CAPITAL,
        "margin": 0.1,
        "commission": their_commission(costs, sizing),
        "finalize_trades": False,
    }
    test = (
        Backtest(frame, Follow, **settings)
        if sizing.lot >= 1
        else FractionalBacktest(frame, Follow, fractional_unit=sizing.lot, **settings)
    )
    with warnings.catch_warnings():
        # It tells that a trade was left open. A cancelled order would be told too, and then the trades differ.
        warnings.simplefilter("ignore")
        return test.run(actions=actions, scheme=scheme, sizing=sizing)


def ours(
    arrays: MarketArrays, actions: np.ndarray, scheme: str, sizing: Sizing, costs: dict[str, float]
) -> Replay:
    rules = TradingRules(
        lot_size=sizing.lot, exposure=sizing.exposure, margin_rate=0.1, ruin_level=0.0, **costs
    )
    return replay_actions(arrays, (0, len(arrays)), rules, actions, scheme=scheme, capital=CAPITAL)


def random_script(scheme: str, seed: int, calm: float) -> np.ndarray:
    actions = random_actions(scheme, (BARS - 1,), seed, calm)
    actions[:FIRST_DECISION] = DO_NOTHING[scheme]
    return actions


def assert_same(replay: Replay, stats: pd.Series) -> None:
    """Compare equity at every close and every closed trade."""
    np.testing.assert_allclose(replay.equity, stats._equity_curve["Equity"].to_numpy(), rtol=EXACT)
    their = stats._trades.sort_values(["ExitBar", "EntryBar"])
    trades = replay.trades
    assert len(trades) == len(their) == stats["# Trades"]
    np.testing.assert_array_equal(trades.entry_bar, their["EntryBar"])
    np.testing.assert_array_equal(trades.exit_bar, their["ExitBar"])
    columns = {
        "Size": trades.side * trades.units,
        "EntryPrice": trades.entry_price,
        "ExitPrice": trades.exit_price,
    }
    for name, own in columns.items():
        np.testing.assert_allclose(own, their[name].to_numpy(dtype=float), rtol=EXACT, err_msg=name)
    # A trade's result is a small difference of large sums: exact to that share of what was traded.
    traded = EXACT * float(np.max(trades.units * trades.entry_price))
    np.testing.assert_allclose(trades.net_pnl, their["PnL"], rtol=EXACT, atol=traded)
    np.testing.assert_allclose(trades.cost, their["Commission"], rtol=EXACT, atol=traded)


@pytest.mark.parametrize("sizing", SIZES)
@pytest.mark.parametrize("charged", COSTS)
@pytest.mark.parametrize("scheme", ["target", "orders"])
def test_trades_and_equity_are_those_of_backtesting_py(scheme, charged, sizing):
    costs = COSTS[charged]
    flips = trades = 0
    for seed, calm in ((1, 0.0), (2, 0.8)):
        arrays = market(seed, bars=BARS, move=0.002, reach=0.004, gap=0.001)
        actions = random_script(scheme, seed, calm)
        replay = ours(arrays, actions, scheme, SIZES[sizing], costs)
        assert_same(replay, theirs(arrays, actions, scheme, SIZES[sizing], costs))
        sides = np.sign(replay.held)
        flips += int(np.sum(sides[1:] * sides[:-1] < 0))
        trades += len(replay.trades)
    assert trades > 50
    assert flips > 50 or scheme == "orders"


def test_the_librarys_own_rate_and_fee_mean_the_same():
    """Not through a function of ours: its plain numbers, a fixed fee and a rate, are charged on both legs too."""
    arrays = market(3, bars=BARS, move=0.002)
    actions = random_script("target", 3, 0.5)
    test = Backtest(frame_of(arrays), Follow, cash=CAPITAL, margin=0.1, commission=(7.5, 0.0004))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stats = test.run(actions=actions)
    assert_same(ours(arrays, actions, "target", SIZES["fixed"], COSTS["per order and rate"]), stats)


@pytest.mark.parametrize(
    "wrong",
    [
        {"commission_rate": 0.002 * (1 + 1e-6)},
        {"commission_rate": 0.0, "commission_per_entry": 10.0},
        {"commission_rate": 0.002, "slippage_price": 1e-6},
    ],
    ids=["another rate", "one-legged", "a hair of slippage"],
)
def test_other_costs_are_told_apart(wrong):
    """What the comparison is worth: a millionth of the cost, or a cost on one leg only, does not pass."""
    arrays = market(1, bars=BARS, move=0.002)
    actions = random_script("target", 1, 0.0)
    stats = theirs(arrays, actions, "target", SIZES["fixed"], COSTS["rate"])
    assert_same(ours(arrays, actions, "target", SIZES["fixed"], COSTS["rate"]), stats)
    with pytest.raises(AssertionError):
        assert_same(ours(arrays, actions, "target", SIZES["fixed"], wrong), stats)
