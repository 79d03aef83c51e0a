"""Round trips put together from fills add up to what the account earned, whatever was traded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl.backtest.engine import Replay, replay_actions
from rl.trading.kernel import COSTS, TRADES, TURNOVER
from rl.trading.ledger import (
    LOG_BAR,
    LOG_CHARGES,
    LOG_PRICE,
    LOG_REASON,
    LOG_SLIPPAGE,
    LOG_UNITS,
    trades_from_fills,
)
from tests.properties.random_trading import CAPITAL, SEEDS, markets, random_actions, trading_rules

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
BARS = 200


@st.composite
def replays(draw: st.DrawFn) -> tuple[Replay, np.ndarray, np.ndarray]:
    """Return a replay of random actions with the closes and sessions it traded."""
    arrays, rules = draw(markets(BARS)), draw(trading_rules())
    scheme = draw(st.sampled_from(["target", "orders"]))
    actions = random_actions(scheme, (BARS - 1,), draw(SEEDS), draw(st.sampled_from([0.0, 0.8])))
    replay = replay_actions(arrays, (0, BARS), rules, actions, scheme=scheme, capital=CAPITAL)
    return replay, arrays.ohlc[:, 3], arrays.session


def open_fills(replay: Replay) -> np.ndarray:
    """Return the fills of the position still open at the end, found by counting units. (k, LOG_SIZE)"""
    held = 0.0
    begun = len(replay.fill_log)
    for row, units in enumerate(replay.fill_log[:, LOG_UNITS]):
        if held == 0.0:
            begun = row
        held += units
    return replay.fill_log[begun:] if held != 0.0 else replay.fill_log[:0]


@FEW
@given(replays())
def test_closed_trades_and_the_open_position_are_all_the_account_ever_earned(drawn):
    """The identity every figure rests on: no money comes from anywhere but trades, and none is lost on the way."""
    replay, close, _ = drawn
    still = open_fills(replay)
    paid = -np.sum(still[:, LOG_UNITS] * still[:, LOG_PRICE]) - np.sum(still[:, LOG_CHARGES])
    # A ruined account stands still at the bar of its ruin; what it held there is marked there.
    unrealised = paid + np.sum(still[:, LOG_UNITS]) * close[replay.start + replay.decisions]
    change = replay.equity[-1] - replay.capital
    turned_over = max(CAPITAL, float(replay.account[TURNOVER]))
    assert np.sum(replay.trades.net_pnl) + unrealised == pytest.approx(
        change, rel=1e-9, abs=1e-11 * turned_over
    )


@FEW
@given(replays())
def test_equity_is_cash_from_the_fills_plus_the_position_at_the_close_at_every_bar(drawn):
    replay, close, _ = drawn
    steps = replay.decisions + 1
    cash = np.full(steps, replay.capital)
    held = np.zeros(steps)
    for fill in replay.fill_log:
        bar = int(fill[LOG_BAR])
        cash[bar:] -= fill[LOG_UNITS] * fill[LOG_PRICE] + fill[LOG_CHARGES]
        held[bar:] += fill[LOG_UNITS]
    np.testing.assert_allclose(replay.held[:steps], held, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(replay.equity[:steps], cash + held * close[:steps], rtol=1e-9, atol=1e-6)
    assert (replay.equity[steps:] == replay.equity[steps - 1]).all()
    assert (replay.held[steps:] == 0.0).all()


@FEW
@given(replays())
def test_a_trade_runs_from_flat_to_flat_and_the_next_begins_no_earlier(drawn):
    replay, _, session = drawn
    trades = replay.trades
    assert (trades.entry_bar <= trades.exit_bar).all()
    assert (trades.entry_bar[1:] >= trades.exit_bar[:-1]).all()
    assert (trades.units > 0).all()
    assert set(np.unique(trades.side)) <= {-1, 1}
    np.testing.assert_array_equal(trades.session, session[trades.exit_bar])
    # As often flat after a fill as trades were closed; the account's own counter says the same.
    held = np.cumsum(replay.fill_log[:, LOG_UNITS])
    assert len(trades) == np.sum(np.abs(held) < 1e-9 * (1 + np.abs(replay.fill_log[:, LOG_UNITS])))
    assert replay.account[TRADES] == len(trades)


@FEW
@given(replays())
def test_costs_are_the_same_money_by_bar_by_fill_and_by_account(drawn):
    replay, _, _ = drawn
    by_fill = np.sum(replay.fill_log[:, LOG_CHARGES] + replay.fill_log[:, LOG_SLIPPAGE])
    assert np.sum(replay.costs) == pytest.approx(by_fill, rel=1e-9, abs=1e-9)
    assert replay.account[COSTS] == pytest.approx(by_fill, rel=1e-9, abs=1e-9)
    still = open_fills(replay)
    of_trades = by_fill - np.sum(still[:, LOG_CHARGES] + still[:, LOG_SLIPPAGE])
    assert np.sum(replay.trades.cost) == pytest.approx(of_trades, rel=1e-9, abs=1e-6)
    assert (replay.trades.cost >= 0).all()


@FEW
@given(replays())
def test_the_ledger_remembers_why_each_trade_ended(drawn):
    replay, _, _ = drawn
    held = np.cumsum(replay.fill_log[:, LOG_UNITS])
    sizes = np.abs(replay.fill_log[:, LOG_UNITS])
    closing = replay.fill_log[np.abs(held) < 1e-9 * (1 + sizes)]
    np.testing.assert_array_equal(replay.trades.reason, closing[:, LOG_REASON])
    np.testing.assert_array_equal(replay.trades.exit_price, closing[:, LOG_PRICE])


def test_the_identity_fails_for_a_ledger_that_forgets_the_entry_costs():
    """What the first property would do to a ledger that charges exits only: a round trip at cost 3 + 5."""
    log = np.array([[1, 10, 100.0, 3.0, 0.0, 0], [2, -10, 101.0, 5.0, 0.0, 0]])
    session = np.zeros(4, dtype=np.int32)
    honest = trades_from_fills(log, session).net_pnl.sum()
    forgetful = log.copy()
    forgetful[0, LOG_CHARGES] = 0.0
    assert honest == 10 * 1.0 - 3.0 - 5.0
    assert trades_from_fills(forgetful, session).net_pnl.sum() != honest
