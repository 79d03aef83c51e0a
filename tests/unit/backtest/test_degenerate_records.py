"""Every figure of records too small, too lucky, too still or too bad to compute it from: a number or a reason."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pytest

from rl.backtest.engine import replay_actions
from rl.backtest.result import Figures, figures_of
from rl.trading.rules import TradingRules
from tests.unit.backtest.small_markets import FLAT, FREE, LONG, SHORT, market_of_closes

CAPITAL = 1000.0
YEAR = 252.0
Z = NormalDist().inv_cdf(0.975)

# Reasons, as a report says them.
NO_TRADE = "no trade was closed"
NO_SPREAD = "fewer than two sessions, or their returns did not vary"
NO_MOVE = "no session, or the equity did not move"
NO_LOSING_SESSION = "no session lost money"
NO_FALL = "the equity never fell below its peak"
NOT_BOTH = "there were not both won and lost trades"
NO_MONEY = "no trade was closed, or none won or lost anything"
NO_LOSS = "no trade lost money"
NO_WIN = "no trade was won"
NO_COST = "no trade was closed, or none cost or earned anything"
NO_EQUITY = "no session, or the average equity was not above zero"

WITHOUT_TRADES = {
    "win_rate": NO_TRADE,
    "win_rate_low": NO_TRADE,
    "win_rate_high": NO_TRADE,
    "break_even_win_rate": NOT_BOTH,
    "profit_factor": NO_MONEY,
    "payoff_ratio": NO_WIN,
    "expectancy": NO_TRADE,
    "average_holding_bars": NO_TRADE,
    "cost_share": NO_COST,
}


def annual(share: float, sessions: int) -> float:
    return share ** (YEAR / sessions) - 1


def two_sessions(first: float) -> dict[str, float]:
    """Return the ratios of two session returns, the second of them zero.

    Mean r/2, deviation |r|/sqrt(2). Of two numbers the skewness is 0 and the kurtosis 1, so the spread of the ratio
    is 1 over the root of one.
    """
    ratio = math.copysign(1.0, first) / math.sqrt(2)
    return {
        "sharpe_ratio": ratio * math.sqrt(YEAR),
        "sharpe_low": (ratio - Z) * math.sqrt(YEAR),
        "sharpe_high": (ratio + Z) * math.sqrt(YEAR),
    }


@dataclass(frozen=True)
class Case:
    """A few bars, what was done, and every figure of it: a number, or the reason why there is none."""

    closes: list[float]
    session: list[int]
    actions: list[int]
    expected: dict[str, float | str | None]
    rules: TradingRules = FREE

    def figures(self) -> Figures:
        market = market_of_closes(self.closes, session=self.session)
        replay = replay_actions(
            market, (0, len(self.closes)), self.rules, np.array(self.actions), capital=CAPITAL
        )
        return figures_of(replay, market.session, YEAR)


CASES = {
    "no trades": Case(
        [100.0, 110.0, 121.0, 99.0, 99.0, 132.0],
        [0, 0, 1, 1, 2, 2],
        [FLAT] * 5,
        WITHOUT_TRADES
        | {
            "total_return": 0.0,
            "final_equity": 1000.0,
            "total_pnl": 0.0,
            "annual_return": 0.0,
            "sharpe_ratio": NO_SPREAD,
            "sharpe_low": NO_SPREAD,
            "sharpe_high": NO_SPREAD,
            "sortino_ratio": NO_MOVE,
            "max_drawdown": 0.0,
            "calmar_ratio": NO_MOVE,
            "exposure": 0.0,
            "turnover_per_year": 0.0,
            "total_costs": 0.0,
        },
    ),
    "one trade, won": Case(
        # 10 units bought at 100 and sold at 110, all in the first of two sessions.
        [100.0, 110.0, 110.0, 110.0],
        [0, 0, 1, 1],
        [LONG, FLAT, FLAT],
        {
            "total_return": 0.1,
            "final_equity": 1100.0,
            "total_pnl": 100.0,
            "annual_return": annual(1.1, 2),
            **two_sessions(0.1),
            "sortino_ratio": NO_LOSING_SESSION,
            "max_drawdown": 0.0,
            "calmar_ratio": NO_FALL,
            "win_rate": 1.0,
            "win_rate_low": 1 / (1 + Z * Z),
            "win_rate_high": 1.0,
            "break_even_win_rate": NOT_BOTH,
            "profit_factor": NO_LOSS,
            "payoff_ratio": NO_LOSS,
            "expectancy": 100.0,
            "average_holding_bars": 1.0,
            "exposure": 1 / 4,
            "turnover_per_year": (1000 + 1100) / 1075 * YEAR / 2,
            "total_costs": 0.0,
            "cost_share": 0.0,
        },
    ),
    "one trade, lost": Case(
        [100.0, 90.0, 90.0, 90.0],
        [0, 0, 1, 1],
        [LONG, FLAT, FLAT],
        {
            "total_return": -0.1,
            "final_equity": 900.0,
            "total_pnl": -100.0,
            "annual_return": annual(0.9, 2),
            **two_sessions(-0.1),
            # Mean -0.05 over sqrt(0.01 / 2).
            "sortino_ratio": -0.05 / math.sqrt(0.005) * math.sqrt(YEAR),
            "max_drawdown": 0.1,
            "calmar_ratio": annual(0.9, 2) / 0.1,
            "win_rate": 0.0,
            "win_rate_low": 0.0,
            "win_rate_high": Z * Z / (1 + Z * Z),
            "break_even_win_rate": NOT_BOTH,
            "profit_factor": 0.0,
            "payoff_ratio": NO_WIN,
            "expectancy": -100.0,
            "average_holding_bars": 1.0,
            "exposure": 1 / 4,
            "turnover_per_year": (1000 + 900) / 925 * YEAR / 2,
            "total_costs": 0.0,
            "cost_share": NO_COST,
        },
    ),
    "one trade, lost to its costs": Case(
        # 10 units bought and sold at 100, one per mille of 1000 on each leg.
        [100.0, 100.0, 100.0, 100.0],
        [0, 0, 1, 1],
        [LONG, FLAT, FLAT],
        {
            "total_return": -0.002,
            "final_equity": 998.0,
            "total_pnl": -2.0,
            "annual_return": annual(0.998, 2),
            # -1 of 1000 by the first session's end, -1 of 999 in the second.
            "sharpe_ratio": (-(1 / 1000 + 1 / 999) / 2)
            / (abs(1 / 1000 - 1 / 999) / math.sqrt(2))
            * math.sqrt(YEAR),
            "sharpe_low": None,
            "sharpe_high": None,
            "sortino_ratio": -(1 / 1000 + 1 / 999)
            / 2
            / math.sqrt((1 / 1000**2 + 1 / 999**2) / 2)
            * math.sqrt(YEAR),
            "max_drawdown": 0.002,
            "calmar_ratio": annual(0.998, 2) / 0.002,
            "win_rate": 0.0,
            "win_rate_low": 0.0,
            "win_rate_high": Z * Z / (1 + Z * Z),
            "break_even_win_rate": NOT_BOTH,
            "profit_factor": 0.0,
            "payoff_ratio": NO_WIN,
            "expectancy": -2.0,
            "average_holding_bars": 1.0,
            "exposure": 1 / 4,
            "turnover_per_year": 2000 / ((1000 + 999 + 998 + 998) / 4) * YEAR / 2,
            "total_costs": 2.0,
            "cost_share": "no trade won anything before its costs",
        },
        replace(FREE, commission_rate=0.001),
    ),
    "no losses": Case(
        # 10 units from 100 to 110, and 10 units of 1100 from 110 to 121.
        [100.0, 110.0, 110.0, 121.0, 121.0],
        [0, 0, 1, 1, 1],
        [LONG, FLAT, LONG, FLAT],
        {
            "total_return": 0.21,
            "final_equity": 1210.0,
            "total_pnl": 210.0,
            "annual_return": annual(1.21, 2),
            # Both sessions earn a tenth: nothing varies.
            "sharpe_ratio": NO_SPREAD,
            "sharpe_low": NO_SPREAD,
            "sharpe_high": NO_SPREAD,
            "sortino_ratio": NO_LOSING_SESSION,
            "max_drawdown": 0.0,
            "calmar_ratio": NO_FALL,
            "win_rate": 1.0,
            "win_rate_low": 2 / (2 + Z * Z),
            "win_rate_high": 1.0,
            "break_even_win_rate": NOT_BOTH,
            "profit_factor": NO_LOSS,
            "payoff_ratio": NO_LOSS,
            "expectancy": 105.0,
            "average_holding_bars": 1.0,
            "exposure": 2 / 5,
            "turnover_per_year": (1000 + 1100 + 1100 + 1210) / ((1000 + 1100 * 2 + 1210 * 2) / 5) * YEAR / 2,
            "total_costs": 0.0,
            "cost_share": 0.0,
        },
    ),
    "one session": Case(
        # Long 10 from 100 to 110, then short 10 from 110 to 121.
        [100.0, 110.0, 121.0, 121.0],
        [0, 0, 0, 0],
        [LONG, SHORT, FLAT],
        {
            "total_return": -0.01,
            "final_equity": 990.0,
            "total_pnl": -10.0,
            "annual_return": annual(0.99, 1),
            "sharpe_ratio": NO_SPREAD,
            "sharpe_low": NO_SPREAD,
            "sharpe_high": NO_SPREAD,
            "sortino_ratio": -math.sqrt(YEAR),
            "max_drawdown": 0.1,
            "calmar_ratio": annual(0.99, 1) / 0.1,
            "win_rate": 0.5,
            # Centre (0.5 + z^2/4) / (1 + z^2/2) = 0.5; half width z sqrt(1/8 + z^2/16) / (1 + z^2/2).
            "win_rate_low": 0.5 - Z * math.sqrt(1 / 8 + Z * Z / 16) / (1 + Z * Z / 2),
            "win_rate_high": 0.5 + Z * math.sqrt(1 / 8 + Z * Z / 16) / (1 + Z * Z / 2),
            "break_even_win_rate": 110 / 210,
            "profit_factor": 100 / 110,
            "payoff_ratio": 100 / 110,
            "expectancy": -5.0,
            "average_holding_bars": 1.0,
            "exposure": 2 / 4,
            "turnover_per_year": (1000 + 1100 + 1100 + 1210) / 1020 * YEAR,
            "total_costs": 0.0,
            "cost_share": 0.0,
        },
    ),
    "zero variance": Case(
        # A trade at no cost and no move wins nothing and loses nothing.
        [100.0] * 4,
        [0, 0, 1, 1],
        [LONG, FLAT, FLAT],
        {
            "total_return": 0.0,
            "final_equity": 1000.0,
            "total_pnl": 0.0,
            "annual_return": 0.0,
            "sharpe_ratio": NO_SPREAD,
            "sharpe_low": NO_SPREAD,
            "sharpe_high": NO_SPREAD,
            "sortino_ratio": NO_MOVE,
            "max_drawdown": 0.0,
            "calmar_ratio": NO_MOVE,
            "win_rate": 0.0,
            "win_rate_low": 0.0,
            "win_rate_high": Z * Z / (1 + Z * Z),
            "break_even_win_rate": NOT_BOTH,
            "profit_factor": NO_MONEY,
            "payoff_ratio": NO_WIN,
            "expectancy": 0.0,
            "average_holding_bars": 1.0,
            "exposure": 1 / 4,
            "turnover_per_year": 2 * YEAR / 2,
            "total_costs": 0.0,
            "cost_share": NO_COST,
        },
    ),
    "ruin": Case(
        # Short 10 from 100; at 195 the account is worth 50, below a tenth of its capital.
        [100.0, 195.0, 195.0, 100.0],
        [0, 0, 1, 1],
        [SHORT] * 3,
        WITHOUT_TRADES
        | {
            "total_return": -0.95,
            "final_equity": 50.0,
            "total_pnl": -950.0,
            "annual_return": annual(0.05, 2),
            **two_sessions(-0.95),
            "sortino_ratio": -0.475 / math.sqrt(0.95**2 / 2) * math.sqrt(YEAR),
            "max_drawdown": 0.95,
            "calmar_ratio": annual(0.05, 2) / 0.95,
            "exposure": 1 / 4,
            "turnover_per_year": 1000 / (1150 / 4) * YEAR / 2,
            "total_costs": 0.0,
        },
    ),
    "ruin below zero": Case(
        [100.0, 250.0, 250.0, 100.0],
        [0, 0, 1, 1],
        [SHORT] * 3,
        WITHOUT_TRADES
        | {
            "total_return": -1.5,
            "final_equity": -500.0,
            "total_pnl": -1500.0,
            "annual_return": -1.0,
            **two_sessions(-1.5),
            "sortino_ratio": -0.75 / math.sqrt(1.5**2 / 2) * math.sqrt(YEAR),
            "max_drawdown": 1.5,
            "calmar_ratio": -1 / 1.5,
            "exposure": 1 / 4,
            "turnover_per_year": NO_EQUITY,
            "total_costs": 0.0,
        },
    ),
}


def rows() -> list[tuple[str, str]]:
    return [(case, name) for case, each in CASES.items() for name in each.expected]


@pytest.mark.parametrize(("case", "name"), rows(), ids=[f"{case}: {name}" for case, name in rows()])
def test_a_figure_of_a_degenerate_record_is_its_number_or_null_with_the_reason(case, name):
    expected = CASES[case].expected[name]
    figures = CASES[case].figures()
    if isinstance(expected, str):
        assert figures.values[name] is None
        assert figures.not_computed[name] == expected
    elif expected is None:  # an interval too wide to work out by hand; it is there and it is finite
        assert math.isfinite(figures.values[name])
    else:
        assert figures.values[name] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert name not in figures.not_computed


@pytest.mark.parametrize("case", CASES)
def test_the_table_above_leaves_no_figure_out(case):
    figures = CASES[case].figures()
    counts = {
        "total_trades",
        "sessions",
        "bars",
        "refused_orders",
        "bars_touching_stop_and_target",
        "open_position_units",
        "was_ruined",
    }
    assert set(CASES[case].expected) | counts == set(figures.values)
    assert json.loads(json.dumps(figures.as_dict(), allow_nan=False))["bars"] == len(CASES[case].closes)


def test_every_figure_is_null_in_one_of_the_records_or_always_a_number():
    """A figure that can never be missing needs no reason; all others show theirs above."""
    always = {
        "total_return",
        "final_equity",
        "total_pnl",
        "annual_return",
        "max_drawdown",
        "exposure",
        "total_costs",
    }
    missing = {name for case, name in rows() if isinstance(CASES[case].expected[name], str)}
    assert missing | always == set(CASES["no trades"].expected)
    assert not missing & always
