"""What the same actions earn at other costs, and the cost at which they earn nothing: by hand and in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from rl.backtest.cost_frontier import BreakEvenCost, break_even_cost, cost_frontier
from rl.backtest.engine import Replay, replay_actions
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules
from tests.unit.backtest.small_markets import FLAT, FREE, LONG, SHORT, market_of_closes

CAPITAL = 1000.0
CLOSES = [100.0, 110.0, 121.0, 99.0, 99.0, 132.0]
SESSIONS = [0, 0, 1, 1, 2, 2]
MARKET = market_of_closes(CLOSES, session=SESSIONS)


def frontier(rules: TradingRules, actions: list[int], points: list[float], window: tuple[int, int] = (0, 6)):
    replay = replay_actions(MARKET, window, rules, actions, capital=CAPITAL)
    return cost_frontier(MARKET, window, rules, replay, scheme="target", basis_points=points), replay


def test_the_frontier_pays_the_same_actions_at_other_all_in_rates():
    rules = replace(FREE, commission_rate=0.01, slippage_rate=0.02, commission_per_entry=3.0)
    found, _ = frontier(rules, [LONG, FLAT, FLAT, FLAT, FLAT], [0.0, 100.0])
    # One round trip of 10 units from 100 to 110: gross 100, at 1 % a side less 10 and 11.
    assert found[0] == {
        "cost_bp_per_side": 0.0,
        "total_pnl": pytest.approx(100.0),
        "total_return": pytest.approx(0.1),
    }
    assert found[1]["total_pnl"] == pytest.approx(79.0)


def test_at_the_rate_really_paid_the_frontier_meets_the_backtest():
    rules = replace(FREE, commission_rate=0.001)
    found, replay = frontier(rules, [LONG, SHORT, FLAT, SHORT, LONG], [10.0])
    assert found[0]["total_pnl"] == replay.equity[-1] - CAPITAL


def test_more_cost_never_earns_more_along_the_frontier():
    found, _ = frontier(FREE, [LONG, SHORT, FLAT, SHORT, LONG], [0.0, 5.0, 10.0, 20.0, 50.0])
    earned = [line["total_pnl"] for line in found]
    assert earned == sorted(earned, reverse=True)
    assert earned[0] > earned[-1]


def test_after_a_ruin_the_frontier_stays_out_of_the_market():
    market = market_of_closes([100, 195, 195, 100])
    replay = replay_actions(market, (0, 4), FREE, [SHORT, SHORT, SHORT], capital=CAPITAL)
    assert replay.was_ruined
    (line,) = cost_frontier(market, (0, 4), FREE, replay, scheme="target", basis_points=[0.0])
    assert line["total_pnl"] == pytest.approx(-950.0)


# --- the cost at which nothing is left ------------------------------------------------------------------------------


def break_even(
    actions: list[int] | np.ndarray,
    *,
    market: MarketArrays = MARKET,
    rules: TradingRules = FREE,
    capital: float = CAPITAL,
) -> tuple[BreakEvenCost, Replay]:
    window = (0, len(market))
    replay = replay_actions(market, window, rules, actions, capital=capital)
    return break_even_cost(market, window, rules, replay, scheme="target"), replay


def test_one_round_trip_breaks_even_where_its_two_legs_cost_what_it_won():
    found, _ = break_even([LONG, FLAT, FLAT, FLAT, FLAT])
    # 10 units from 100 to 110 win 100; both legs together trade 1000 + 1100.
    assert found.cost_bp_per_side == pytest.approx(1e4 * 100 / 2100, rel=1e-9)
    assert found.reason is None


def test_the_costs_really_paid_do_not_move_the_break_even_cost_but_are_shown_beside_it():
    rules = replace(FREE, commission_rate=0.001, slippage_rate=0.002)
    found, _ = break_even([LONG, FLAT, FLAT, FLAT, FLAT], rules=rules)
    assert found.cost_bp_per_side == pytest.approx(1e4 * 100 / 2100, rel=1e-9)
    # Bought at 100.2, sold at 109.78: slippage 2 + 2.2, commission 1.002 + 1.0978.
    assert found.paid_bp_per_side == pytest.approx(1e4 * (2 + 2.2 + 1.002 + 1.0978) / (1002 + 1097.8))


def test_an_open_position_counts_at_its_last_mark():
    found, _ = break_even([LONG] * 5)
    # Bought for 1000, worth 1320; only one leg was paid.
    assert found.cost_bp_per_side is None
    assert found.reason == "it still earns money at 1000 bp per side"
    found, _ = break_even([LONG, LONG, LONG], market=market_of_closes([100, 105, 103, 104]))
    assert found.cost_bp_per_side == pytest.approx(400.0, rel=1e-9)


def test_compounding_counts_as_it_does_in_the_backtest():
    """Gross profit over turnover would miss: what the first trip costs is not there to win in the second."""
    # From 100 to 104, then from 104 to 106.08: (1.04 - 2.04 r) (1.02 - 2.02 r) = 1.
    market = market_of_closes([100.0, 104.0, 104.0, 106.08, 106.08])
    found, _ = break_even([LONG, FLAT, LONG, FLAT], market=market)
    a, b, c = 2.04 * 2.02, -(1.04 * 2.02 + 1.02 * 2.04), 1.04 * 1.02 - 1
    root = (-b - math.sqrt(b * b - 4 * a * c)) / (2 * a)
    assert found.cost_bp_per_side == pytest.approx(1e4 * root, rel=1e-9)
    scaled = 1e4 * (0.04 + 1.04 * 0.02) / (2.04 + 1.04 * 2.02)
    assert found.cost_bp_per_side != pytest.approx(scaled, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_a_fixed_size_breaks_even_at_gross_profit_over_notional_traded(seed):
    """One unit, whatever the equity: then nothing compounds, and the cost has a closed form."""
    rng = np.random.default_rng(seed)
    closes = 100 + np.cumsum(rng.uniform(-0.1, 0.1, 200))
    # Knows the sign of most moves, so that it earns money; the fill of a decision at t moves to the close of t + 1.
    knows = rng.random(199) < 0.9
    actions = np.where((np.diff(closes) > 0) == knows, LONG, SHORT)
    rules = replace(FREE, lot_size=1.0)
    # Enough for one whole unit and not for two, at any cost tried.
    found, replay = break_even(actions, market=market_of_closes(closes), rules=rules, capital=150.0)
    assert set(np.abs(replay.held[1:])) == {1.0}
    position = np.where(actions == LONG, 1.0, -1.0)
    fills = np.diff(position, prepend=0.0)
    gross = float(position @ np.diff(closes))
    traded = float(np.abs(fills) @ closes[:-1])
    assert gross > 0
    assert found.cost_bp_per_side == pytest.approx(1e4 * gross / traded, rel=1e-9)


def test_at_the_break_even_cost_the_same_actions_earn_nothing():
    rng = np.random.default_rng(3)
    closes = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 300)))
    actions = np.where(np.diff(closes) * np.where(rng.random(299) < 0.8, 1, -1) > 0, LONG, SHORT)
    market = market_of_closes(closes)
    found, _ = break_even(actions, market=market)
    at_that_cost = replace(FREE, commission_rate=found.cost_bp_per_side * 1e-4)
    replay = replay_actions(market, (0, 300), at_that_cost, actions, capital=CAPITAL)
    assert replay.equity[-1] == pytest.approx(CAPITAL, abs=1e-6)


def test_where_whole_lots_jump_over_zero_the_cost_is_that_of_the_jump():
    # Ten units from 100 to 100 cost 2000 r; the second trip, from 100 to 110, takes ten more for at least 1000.
    market = market_of_closes([100.0, 100.0, 100.0, 110.0, 110.0])
    rules = replace(FREE, lot_size=10.0)
    found, _ = break_even([LONG, FLAT, LONG, FLAT], market=market, rules=rules, capital=1010.0)
    # Up to 10 / 2000 the second trip is made and the account wins at least 79.5; beyond, only costs are left.
    assert found.cost_bp_per_side == pytest.approx(50.0, abs=1e-6)


@pytest.mark.parametrize(
    ("actions", "reason"),
    [
        ([SHORT, FLAT, FLAT, FLAT, FLAT], "it loses money even at no cost"),
        ([FLAT] * 5, "nothing was traded, so no cost changes the result"),
    ],
)
def test_what_has_no_break_even_cost_says_why(actions, reason):
    found, _ = break_even(actions)
    assert found.cost_bp_per_side is None
    assert found.reason == reason
    assert found.as_dict()["not_computed"]["cost_bp_per_side"] == reason


def test_what_wins_nothing_before_costs_breaks_even_at_zero():
    found, _ = break_even([LONG, FLAT], market=market_of_closes([100.0, 100.0, 100.0]))
    assert found.cost_bp_per_side == 0.0


def test_without_a_trade_nothing_was_paid():
    found, _ = break_even([FLAT] * 5)
    assert found.as_dict()["paid_bp_per_side"] is None
    assert found.as_dict()["not_computed"]["paid_bp_per_side"] == "nothing was traded"
