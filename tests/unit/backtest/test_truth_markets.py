"""Does the account reach the best policy's figure where it is known? Fills, prices and costs leave no other way."""

from __future__ import annotations

import numpy as np
import pytest

from rl.backtest.engine import Replay, replay_actions
from rl.market.oracles import evaluate_positions, oracle_of, session_oracle_of
from rl.market.synthetic import MARKETS, SyntheticMarket, generate, to_bars
from rl.trading.ledger import LOG_BAR
from rl.trading.market_arrays import market_arrays
from rl.trading.rules import TradingRules

SESSIONS = 100
COST_BP = 0.5


def traded(market: SyntheticMarket, positions: np.ndarray) -> Replay:
    """Replay positions, decided at each close, as target actions of an account that pays 0.5 bp a side."""
    bars = to_bars(market, f"SYN_{market.name}_2")
    arrays = market_arrays(
        bars, np.zeros((len(market), 1)), np.ones(len(market), dtype=bool), np.ones(len(market))
    )
    rules = TradingRules(commission_rate=COST_BP * 1e-4, margin_rate=0.2)
    return replay_actions(arrays, (0, len(market)), rules, positions[:-1] + 1)


def gain_per_notional(replay: Replay, closes: np.ndarray) -> float:
    """Return profit less charges per bar, each as a share of its own notional, in bp.

    An account holds units, the formulas a constant notional; dividing each bar's profit by the notional held and
    each fill's charge by the notional filled makes the two the same sum.
    """
    notional = np.abs(replay.decided) * closes[:-1]
    profit = np.diff(replay.equity) + replay.costs
    earned = np.divide(profit, notional, out=np.zeros_like(profit), where=notional > 0.0)
    filled = np.abs(replay.fill_log[:, LOG_BAR + 1] * replay.fill_log[:, LOG_BAR + 2])
    charged = replay.fill_log[:, LOG_BAR + 3] / filled
    return 1e4 * float(earned.sum() - charged.sum()) / len(profit)


@pytest.mark.parametrize("kind", ["endless", "flat at the close"])
@pytest.mark.parametrize("name", MARKETS)
def test_an_account_that_follows_the_best_policy_earns_exactly_its_figure(name, kind):
    market = generate(name, SESSIONS, seed=7)
    oracle = (oracle_of if kind == "endless" else session_oracle_of)(market, cost_bp=COST_BP)
    positions = oracle.positions(market.signals)
    expected = evaluate_positions(positions, market.returns, COST_BP)
    replay = traded(market, positions)
    assert not replay.was_ruined
    np.testing.assert_array_equal(np.sign(replay.decided), positions[:-1])
    assert gain_per_notional(replay, market.closes) == pytest.approx(expected, abs=1e-7)
    # What the account itself grows by differs in the second order only: half the variance, units left as they are.
    growth = 1e4 * np.log(replay.equity[-1] / replay.capital) / (len(market) - 1)
    assert growth == pytest.approx(expected, abs=0.01)


def test_an_account_one_bar_late_does_not_reach_the_figure():
    market = generate("task", SESSIONS, seed=7)
    positions = oracle_of(market, cost_bp=COST_BP).positions(market.signals)
    expected = evaluate_positions(positions, market.returns, COST_BP)
    late = np.concatenate([[0], positions[:-1]]).astype(np.int8)
    assert gain_per_notional(traded(market, late), market.closes) < expected - 0.5
