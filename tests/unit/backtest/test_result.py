"""Figures of replays worked out by hand, the deflated Sharpe ratio, and the portfolio of several symbols."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from rl.backtest.baselines import baselines
from rl.backtest.engine import replay_actions
from rl.backtest.result import (
    SymbolResult,
    baseline_figures,
    figures_of,
    portfolio_figures,
    session_series,
    sharpe_after_trials,
    symbol_result,
)
from rl.market.bars import Bars
from rl.trading.metrics import reason_not_computed
from rl.trading.rules import TradingRules
from tests.builders import bars_from_closes
from tests.unit.backtest.small_markets import DAY_NS, FLAT, FREE, LONG, SHORT, market_of_closes

CAPITAL = 1000.0
# Two bars a session; the last close of each session is 110, 99 and 132.
CLOSES = [100.0, 110.0, 121.0, 99.0, 99.0, 132.0]
SESSIONS = [0, 0, 1, 1, 2, 2]
MARKET = market_of_closes(CLOSES, session=SESSIONS)


def test_every_figure_of_a_replay_with_one_win_and_one_loss():
    rules = replace(FREE, commission_rate=0.01)
    # Long over bar 1 (100 to 110), flat, short over bar 5 (99 to 132) left open.
    replay = replay_actions(MARKET, (0, 6), rules, [LONG, FLAT, SHORT, FLAT, SHORT], capital=CAPITAL)
    trades = replay.trades
    # 10 units bought at 100 and sold at 110: 100 less 10 less 11.
    assert trades.net_pnl[0] == pytest.approx(79.0)
    # Sized at 121 on an equity of 1079: sold at 121, bought at 99.
    units = 1079.0 / 121.0
    assert trades.net_pnl[1] == pytest.approx(units * 22.0 - 0.01 * units * (121 + 99))
    equity = 1079.0 + trades.net_pnl[1]
    short = equity / 99.0
    final = equity - short * 33.0 - 0.01 * short * 99.0
    found = figures_of(replay, MARKET.session, 252).values
    assert found["final_equity"] == pytest.approx(final)
    assert found["total_return"] == pytest.approx(final / CAPITAL - 1)
    assert found["total_pnl"] == pytest.approx(final - CAPITAL)
    assert found["total_trades"] == 2
    assert found["win_rate"] == 1.0
    assert found["expectancy"] == pytest.approx(trades.net_pnl.mean())
    assert found["open_position_units"] == pytest.approx(-short)
    assert found["total_costs"] == pytest.approx(21.0 + 0.01 * units * 220 + 0.01 * short * 99)
    assert found["average_holding_bars"] == 1.0
    # Held at three of the six closes: 1, 3 and 5.
    assert found["exposure"] == pytest.approx(0.5)
    assert found["max_drawdown"] == pytest.approx(1 - final / max(equity, replay.equity.max()))
    assert (found["sessions"], found["bars"]) == (3, 6)
    assert found["was_ruined"] is False


def test_session_returns_run_from_close_to_close_of_sessions():
    replay = replay_actions(MARKET, (0, 6), FREE, [LONG] * 5, capital=CAPITAL)
    close_time = np.arange(6, dtype=np.int64) * DAY_NS
    returns, equity, closes = session_series(replay, MARKET.session, close_time)
    # 10 units throughout.
    assert equity.tolist() == pytest.approx([1100.0, 990.0, 1320.0])
    assert returns.tolist() == pytest.approx([0.1, -0.1, 1 / 3])
    assert closes.tolist() == [1 * DAY_NS, 3 * DAY_NS, 5 * DAY_NS]
    mean, deviation = np.mean(returns), np.std(returns, ddof=1)
    assert figures_of(replay, MARKET.session, 252).values["sharpe_ratio"] == pytest.approx(
        mean / deviation * math.sqrt(252)
    )


def test_a_window_that_begins_inside_a_session_counts_what_is_left_of_it():
    replay = replay_actions(MARKET, (1, 6), FREE, [LONG] * 4, capital=CAPITAL)
    returns, _, _ = session_series(replay, MARKET.session, np.arange(6))
    # The account starts at the close of bar 1, so its first session holds no move.
    assert returns.tolist() == pytest.approx([0.0, 99 / 110 - 1, 132 / 99 - 1])


def test_a_figure_that_cannot_be_computed_is_none_with_a_reason():
    replay = replay_actions(MARKET, (0, 6), FREE, [FLAT] * 5, capital=CAPITAL)
    figures = figures_of(replay, MARKET.session, 252)
    for name in ("win_rate", "profit_factor", "sharpe_ratio", "expectancy", "average_holding_bars"):
        assert figures.values[name] is None
        assert figures.not_computed[name]
    assert figures.not_computed["win_rate"] == "no trade was closed"
    assert figures.values["total_trades"] == 0
    assert figures.as_dict()["not_computed"] == figures.not_computed
    assert set(figures.not_computed) == {name for name, value in figures.values.items() if value is None}


def test_without_a_losing_trade_there_is_no_profit_factor():
    replay = replay_actions(MARKET, (0, 3), FREE, [LONG, FLAT], capital=CAPITAL)
    figures = figures_of(replay, MARKET.session, 252)
    assert figures.values["profit_factor"] is None
    assert figures.not_computed["profit_factor"] == "no trade lost money"


def test_intervals_widen_with_the_confidence_asked_for():
    replay = replay_actions(MARKET, (0, 6), FREE, [LONG, FLAT, SHORT, FLAT, SHORT], capital=CAPITAL)
    wide, narrow = (figures_of(replay, MARKET.session, 252, confidence).values for confidence in (0.99, 0.5))
    assert wide["sharpe_low"] < narrow["sharpe_low"] < narrow["sharpe_ratio"] < narrow["sharpe_high"]
    assert wide["sharpe_high"] > narrow["sharpe_high"]
    assert wide["win_rate_low"] < narrow["win_rate_low"]


# --- how much was tried ---------------------------------------------------------------------------------------------

# Two values, equally often: skewness 0 and kurtosis 1, so the spread of the ratio's estimate is 1 / root(n - 1).
UP_AND_DOWN = np.array([0.03, -0.01] * 5)
RATIO = 0.01 / (0.02 * math.sqrt(10 / 9))


def test_a_single_trial_has_a_probabilistic_sharpe_and_says_why_it_has_no_deflated_one():
    found = sharpe_after_trials(UP_AND_DOWN, 1, None)
    # The chance below 1.423 of a normal variable.
    assert found.values["probabilistic_sharpe"] == pytest.approx(NormalDist().cdf(RATIO * 3.0))
    assert found.values["probabilistic_sharpe"] == pytest.approx(0.9226, abs=1e-4)
    assert found.values["deflated_sharpe"] is None
    assert found.not_computed["deflated_sharpe"] == (
        "the evidence ledger holds one judged trial of this symbol; it takes two"
    )
    none = sharpe_after_trials(UP_AND_DOWN, 0, None)
    assert none.not_computed["deflated_sharpe"].startswith("the evidence ledger holds no judged trial")


def test_the_deflated_sharpe_is_measured_from_what_the_best_of_all_trials_shows_by_luck():
    """Bailey and Lopez de Prado (2014), eq. 1 and 2, written out for seven trials that spread by 0.2 per session."""
    quantile = NormalDist().inv_cdf
    luck = 0.2 * (
        (1 - np.euler_gamma) * quantile(1 - 1 / 7) + np.euler_gamma * quantile(1 - 1 / (7 * math.e))
    )
    found = sharpe_after_trials(UP_AND_DOWN, 7, 0.04)
    assert found.values["deflated_sharpe"] == pytest.approx(NormalDist().cdf((RATIO - luck) * 3.0))
    assert found.values["trials"] == 7
    assert found.not_computed == {}
    more = sharpe_after_trials(UP_AND_DOWN, 70, 0.04)
    assert more.values["deflated_sharpe"] < found.values["deflated_sharpe"] < 0.9226


def test_returns_that_do_not_vary_have_neither():
    found = sharpe_after_trials(np.zeros(10), 7, 0.04)
    assert found.values["deflated_sharpe"] is found.values["probabilistic_sharpe"] is None
    assert (
        found.not_computed["deflated_sharpe"]
        == found.not_computed["probabilistic_sharpe"]
        == reason_not_computed("sharpe_ratio", math.nan)
    )


# --- baselines in figures -------------------------------------------------------------------------------------------


def test_random_baselines_are_shown_as_a_mean_with_the_strategys_rank():
    replay = replay_actions(MARKET, (0, 6), FREE, [LONG, FLAT, FLAT, FLAT, LONG], capital=CAPITAL)
    each = baselines(MARKET, (0, 6), FREE, CAPITAL, replay, np.random.default_rng(0), draws=8)
    random = next(baseline for baseline in each if baseline.name == "random")
    found = baseline_figures(each, replay, MARKET.session, 252)
    finals = [float(one.equity[-1]) for one in random.replays]
    assert found["random"]["final_equity"] == pytest.approx(np.mean(finals))
    assert found["random"]["draws"] == 8
    assert found["random"]["draws_beaten"] == sum(final < replay.equity[-1] for final in finals)
    assert found["buy_and_hold"]["final_equity"] == pytest.approx(1320.0)
    assert found["buy_and_hold"]["description"] == "bought at the first open and held"


def test_intervals_of_baselines_have_the_confidence_asked_for():
    replay = replay_actions(MARKET, (0, 6), FREE, [LONG, FLAT, FLAT, FLAT, LONG], capital=CAPITAL)
    each = baselines(MARKET, (0, 6), FREE, CAPITAL, replay, np.random.default_rng(0), draws=2)
    wide, narrow = (
        baseline_figures(each, replay, MARKET.session, 252, confidence)["buy_and_hold"]
        for confidence in (0.99, 0.5)
    )
    assert wide["sharpe_low"] < narrow["sharpe_low"] < narrow["sharpe_high"] < wide["sharpe_high"]


def test_a_baseline_that_cannot_be_traded_gives_its_reason_instead_of_figures():
    rules = replace(FREE, allow_short=False)
    replay = replay_actions(MARKET, (0, 6), rules, [LONG] * 5, capital=CAPITAL)
    each = baselines(MARKET, (0, 6), rules, CAPITAL, replay, np.random.default_rng(0), draws=2)
    assert baseline_figures(each, replay, MARKET.session, 252)["always_short"] == {
        "description": "sold at the first open and held",
        "unavailable": "this instrument may not be sold short",
    }


# --- symbols together -----------------------------------------------------------------------------------------------


def result_of(
    symbol: str,
    closes: list[float],
    actions: list[int],
    *,
    first_day: int = 0,
    rules: TradingRules = FREE,
    currency: str = "INR",
) -> SymbolResult:
    """Return a backtest of daily bars, each a session, on consecutive days."""
    n = len(closes)
    bars: Bars = replace(
        bars_from_closes(closes, symbol=symbol, minutes=1440),
        close_time=(first_day + np.arange(n)) * DAY_NS + 10 * 3600 * 10**9,
    )
    market = market_of_closes(closes, session=list(range(n)))
    replay = replay_actions(market, (0, n), rules, actions, capital=CAPITAL)
    return symbol_result(
        bars=bars,
        market=market,
        window=(0, n),
        rules=rules,
        scheme="target",
        replay=replay,
        model={},
        span={},
        instrument={"currency": currency},
        sessions_per_year=252,
        generator=np.random.default_rng(0),
        random_draws=2,
        frontier_bp=[0.0],
        confidence=0.95,
        listed_trades=2,
    )


def test_the_portfolio_is_the_sum_of_its_accounts():
    one = result_of("A", [100, 110, 121], [LONG, LONG])
    two = result_of("B", [100, 90, 99], [LONG, FLAT])
    found = portfolio_figures([one, two])
    # 2000 + 0, 1100 + 900, 1210 + 900.
    assert found["initial_capital"] == 2000.0
    assert found["final_equity"] == pytest.approx(2110.0)
    assert found["total_pnl"] == pytest.approx(110.0)
    assert found["total_return"] == pytest.approx(0.055)
    assert found["total_trades"] == 1
    assert found["win_rate"] == 0.0
    assert found["days"] == 3
    assert found["max_drawdown"] == 0.0


def test_a_symbol_that_starts_later_or_ends_earlier_counts_with_the_equity_it_has():
    early = result_of("A", [100, 50, 50], [LONG, LONG])
    late = result_of("B", [100, 100, 200], [LONG, LONG], first_day=2)
    found = portfolio_figures([early, late])
    # Days 0..4: A is 1000, 500, 500, then stays 500; B is its capital until day 2, then 1000, 1000, 2000.
    assert found["days"] == 5
    assert found["final_equity"] == pytest.approx(2500.0)
    assert found["max_drawdown"] == pytest.approx(1 - 1500 / 2000)


def test_a_portfolio_of_one_has_the_figures_of_that_one():
    one = result_of("A", [100, 110, 99, 120], [LONG, SHORT, FLAT], rules=replace(FREE, commission_rate=0.001))
    found = portfolio_figures([one])
    own = one.figures.values
    for name in ("total_return", "final_equity", "win_rate", "total_trades", "total_costs", "max_drawdown"):
        assert found[name] == pytest.approx(own[name]), name


def test_a_portfolio_of_one_is_annualised_as_that_one():
    """The same account shown twice in one report with two Sharpe ratios makes both of them doubtful."""
    one = result_of("A", [100, 110, 99, 120], [LONG, SHORT, FLAT])
    found = portfolio_figures([one])
    for name in ("sharpe_ratio", "sortino_ratio", "annual_return"):
        assert found[name] == pytest.approx(one.figures.values[name]), name


def test_profit_factor_and_win_rate_of_a_portfolio_are_over_all_its_trades():
    winner = result_of("A", [100, 110, 110], [LONG, FLAT])
    loser = result_of("B", [100, 90, 90], [LONG, FLAT])
    found = portfolio_figures([winner, loser])
    assert found["win_rate"] == 0.5
    assert found["profit_factor"] == pytest.approx(1.0)


def test_a_portfolio_without_trades_says_why_figures_are_missing():
    found = portfolio_figures([result_of("A", [100, 110, 110], [FLAT, FLAT])])
    assert found["win_rate"] is None
    assert found["not_computed"]["win_rate"] == "no trade was closed"


def test_money_of_two_currencies_is_not_added_up_but_shares_of_capital_are():
    one = result_of("A", [100, 110, 121], [LONG, LONG])
    two = result_of("B", [100, 90, 99], [LONG, FLAT], currency="USD")
    found = portfolio_figures([one, two])
    assert found["currencies"] == ["INR", "USD"]
    for name in ("initial_capital", "final_equity", "total_pnl", "total_costs", "profit_factor"):
        assert found[name] is None
        assert "INR, USD" in found["not_computed"][name]
    # Half of the capital won 21 %, the other half lost 10 %.
    assert found["total_return"] == pytest.approx(0.055)
    assert found["win_rate"] == 0.0


def test_the_latest_trades_are_listed_oldest_first_with_the_labels_of_their_bars():
    closes = [100, 110, 99, 132, 132, 132]
    result = result_of("A", closes, [LONG, SHORT, FLAT, LONG, FLAT])
    labels = bars_from_closes(closes, minutes=1440).label
    # Three trades; the builder lists two. The short: 1100 / 110 units from 110 to 99.
    assert [trade["side"] for trade in result.trades] == ["short", "long"]
    first = result.trades[0]
    assert (first["entry"], first["exit"]) == (labels[2], labels[3])
    assert (first["entry_price"], first["exit_price"]) == (110.0, 99.0)
    assert first["units"] == 10.0
    assert first["net_pnl"] == pytest.approx(110.0)
    assert (first["cost"], first["reason"]) == (0.0, "order")


def test_a_symbols_result_counts_why_trades_ended():
    market = market_of_closes(CLOSES, session=SESSIONS, session_end=[False, True] * 3)
    bars = bars_from_closes(CLOSES, bars_per_session=2)
    rules = replace(FREE, square_off=True)
    replay = replay_actions(market, (0, 6), rules, [LONG, LONG, FLAT, FLAT, LONG], capital=CAPITAL)
    result = symbol_result(
        bars=bars, market=market, window=(0, 6), rules=rules, scheme="target", replay=replay, model={}, span={},
        instrument={}, sessions_per_year=252, generator=np.random.default_rng(0), random_draws=2, frontier_bp=[0.0],
        confidence=0.95, listed_trades=2,
    )  # fmt: skip
    # Opened on bar 1 and 5, closed there; opened on bar 2, closed by the order for bar 3.
    assert result.exits == {"order": 1, "session end": 2}
    assert result.session_equity.tolist() == pytest.approx(replay.equity[[1, 3, 5]].tolist())
