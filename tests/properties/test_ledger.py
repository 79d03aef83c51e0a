"""Round trips put together from fills add up to what the account earned, whatever was traded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl.backtest.engine import Replay, replay_actions
from rl.trading.kernel import (
    BUY_LONG,
    CLOSE_LONG,
    CLOSE_SHORT,
    COSTS,
    HOLD,
    SELL_SHORT,
    TRADES,
    TURNOVER,
)
from rl.trading.ledger import (
    LOG_BAR,
    LOG_CHARGES,
    LOG_PRICE,
    LOG_REASON,
    LOG_SLIPPAGE,
    LOG_UNITS,
    trades_from_fills,
)
from rl.trading.rules import TradingRules
from tests.properties.random_trading import CAPITAL, SEEDS, market, markets, random_actions, trading_rules

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(FEW, max_examples=1000)
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


@MANY
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


# --- both sides of the same trades ----------------------------------------------------------------------------------

MIRRORED = {
    "target": np.array([2, 1, 0]),
    "orders": np.argsort([SELL_SHORT, BUY_LONG, CLOSE_SHORT, CLOSE_LONG, HOLD]),
}
"""The action that does on the other side what each action does on its own."""


@st.composite
def mirrored_replays(draw: st.DrawFn, **costs: float) -> tuple[Replay, Replay]:
    """Return replays of random actions and of their mirror image, of one lot each whatever the account is worth.

    Sizes in proportion to equity cannot cancel, since the two accounts grow apart; so the lot is all that fits: one
    and a half times a lot's price, which moves by less than a third. Stops and targets cannot either, since they are
    reached by one side and not by the other.
    """
    lot = draw(st.sampled_from([1.0, 25.0]))
    arrays = draw(markets(BARS, move=0.001, gap=0.002))
    rules = draw(
        trading_rules(
            lot_size=lot,
            exposure=1.5 * lot * 100.0 / CAPITAL,
            margin_rate=0.1,
            allow_short=True,
            ruin_level=0.0,
            stop_loss=0.0,
            take_profit=0.0,
            trailing_stop=0.0,
            **costs,
        )
    )
    scheme = draw(st.sampled_from(["target", "orders"]))
    actions = random_actions(scheme, (BARS - 1,), draw(SEEDS), draw(st.sampled_from([0.0, 0.8])))
    one, two = (
        replay_actions(arrays, (0, BARS), rules, chosen, scheme=scheme, capital=CAPITAL)
        for chosen in (actions, MIRRORED[scheme][actions])
    )
    assert set(np.unique(np.abs(one.held))) <= {0.0, lot}, "the sizes are not fixed"
    np.testing.assert_array_equal(one.held, -two.held)
    return one, two


@FEW
@given(mirrored_replays())
def test_mirrored_trades_of_one_size_negate_the_gross_whatever_the_costs_are(replays_):
    """Together the two accounts own nothing, at every bar; so all they can lose is what both paid."""
    one, two = replays_
    scale = 1e-9 * CAPITAL
    np.testing.assert_allclose(one.trades.gross_pnl, -two.trades.gross_pnl, rtol=0, atol=scale)
    paid = np.concatenate([[0.0], np.cumsum(one.costs + two.costs)])
    np.testing.assert_allclose(one.equity + two.equity, 2 * CAPITAL - paid, rtol=1e-9)


@pytest.mark.parametrize(
    "free",
    [
        {"tax_on_sale_rate": 0.0, "slippage_rate": 0.0, "slippage_price": 0.0},
        # With slippage a buyer pays the rate on more than a seller, so there the rate has to go.
        {"tax_on_sale_rate": 0.0, "commission_rate": 0.0},
    ],
    ids=["commissions", "slippage and flat fees"],
)
def test_where_costs_do_not_ask_for_the_side_mirrored_trades_lose_twice_the_cost(free):
    """A tax on sales asks for the side: a short sells at its entry, a long at its exit, at another price."""

    @FEW
    @given(mirrored_replays(**free))
    def lose_twice_the_cost(replays_: tuple[Replay, Replay]) -> None:
        one, two = replays_
        scale = 1e-9 * CAPITAL
        np.testing.assert_allclose(one.costs, two.costs, rtol=0, atol=scale)
        both = np.sum(one.trades.net_pnl) + np.sum(two.trades.net_pnl)
        assert both == pytest.approx(-2 * np.sum(one.trades.cost), rel=1e-9, abs=scale)
        change = one.equity[-1] + two.equity[-1] - 2 * CAPITAL
        assert change == pytest.approx(-2 * float(np.sum(one.costs)), rel=1e-9, abs=scale)

    lose_twice_the_cost()


def test_a_tax_on_sales_is_paid_differently_by_the_two_sides():
    """The condition above is needed: with the tax the costs of mirrored trades are not the same."""
    arrays = market(1, bars=BARS, move=0.002)
    rules = TradingRules(lot_size=1.0, exposure=0.0015, tax_on_sale_rate=0.01)
    actions = random_actions("target", (BARS - 1,), 2)
    one, two = (replay_actions(arrays, (0, BARS), rules, chosen) for chosen in (actions, 2 - actions))
    assert len(one.trades) > 50
    assert abs(np.sum(one.trades.cost) / np.sum(two.trades.cost) - 1) > 1e-5


# --- a price that does not move -------------------------------------------------------------------------------------

SHORT, FLAT, LONG = 0, 1, 2

LEG_COSTS = {
    # All of it binary fractions, so that sums are exact. One leg of one lot of 4 units at 100.
    "per order": ({"commission_per_entry": 8.0, "commission_per_exit": 8.0}, 8.0),
    "per unit": ({"commission_per_unit": 0.25}, 1.0),
    "rate": ({"commission_rate": 0.0078125}, 3.125),
    "slippage in price": ({"slippage_price": 0.5}, 2.0),
    "slippage as a rate": ({"slippage_rate": 0.00390625}, 1.5625),
    "all but the rate": (
        {
            "commission_per_entry": 8.0,
            "commission_per_exit": 8.0,
            "commission_per_unit": 0.25,
            "slippage_price": 0.5,
            "slippage_rate": 0.00390625,
        },
        8.0 + 1.0 + 2.0 + 1.5625,
    ),
}


def flat_market(bars: int, seed: int = 0, **breaks: float):
    """Return a market in which nothing but sessions and features changes: every price is 100."""
    arrays = market(seed, bars=bars, move=0.0, reach=0.0, gap=0.0, **breaks)
    np.testing.assert_array_equal(arrays.ohlc, 100.0)
    return arrays


def one_lot(costs: dict[str, float], **more: float) -> TradingRules:
    """Return rules under which every position is one lot of 4 units."""
    return TradingRules(**{"lot_size": 4.0, "exposure": 600.0 / CAPITAL, **costs, **more})


@pytest.mark.parametrize("kind", LEG_COSTS)
@pytest.mark.parametrize(
    ("actions", "legs"),
    [
        ([FLAT, FLAT], 0),
        ([LONG, LONG, LONG], 1),
        ([LONG, FLAT], 2),
        ([SHORT, FLAT], 2),
        ([LONG, SHORT], 3),  # the entry, and two for the flip
        ([LONG, SHORT, FLAT], 4),
        ([LONG, SHORT, LONG, SHORT, FLAT], 8),
    ],
)
def test_at_a_price_that_does_not_move_an_account_loses_exactly_the_legs_it_traded(kind, actions, legs):
    costs, leg = LEG_COSTS[kind]
    arrays = flat_market(len(actions) + 1)
    replay = replay_actions(arrays, (0, len(arrays)), one_lot(costs), np.array(actions), capital=CAPITAL)
    assert len(replay.fill_log) == legs
    # An open position bought above the price it is marked at has lost its slippage already.
    assert replay.equity[-1] == CAPITAL - legs * leg


@pytest.mark.parametrize("kind", LEG_COSTS)
def test_at_a_price_that_does_not_move_any_path_loses_exactly_its_legs_at_every_bar(kind):
    costs, leg = LEG_COSTS[kind]
    tested = []

    @settings(FEW, max_examples=30)
    @given(SEEDS, st.sampled_from(["target", "orders"]), st.booleans(), st.booleans())
    def loses_its_legs(seed: int, scheme: str, square_off: bool, has_exits: bool) -> None:
        exits = {"stop_loss": 1.0, "take_profit": 1.0, "trailing_stop": 1.0} if has_exits else {}
        rules = one_lot(costs, square_off=square_off, **exits)
        arrays = flat_market(BARS, seed, break_off=0.3, undefined=0.1)
        actions = random_actions(scheme, (BARS - 1,), seed, 0.4)
        replay = replay_actions(arrays, (0, BARS), rules, actions, scheme=scheme, capital=CAPITAL)
        legs = np.bincount(replay.fill_log[:, LOG_BAR].astype(int), minlength=BARS)
        np.testing.assert_array_equal(replay.equity, CAPITAL - leg * np.cumsum(legs))
        tested.append(len(replay.fill_log))

    loses_its_legs()
    assert sum(tested) > 1000
