"""One bar of trading, checked against arithmetic done by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from rl.trading import kernel
from rl.trading.ledger import trades_from_fills
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

CAPITAL = 1000.0
SHORT, FLAT, LONG = 0, 1, 2
FREE = TradingRules()


def market_of(rows, *, session=None, session_end=None, tradable=None, atr=1.0) -> MarketArrays:
    """Bars given as (open, high, low, close)."""
    n = len(rows)
    return MarketArrays(
        ohlc=np.array(rows, dtype=np.float64),
        features=np.zeros((n, 2), dtype=np.float32),
        session=np.array(session if session is not None else [0] * n, dtype=np.int32),
        session_end=np.array(session_end if session_end is not None else [False] * n, dtype=np.bool_),
        tradable=np.array(tradable if tradable is not None else [True] * n, dtype=np.bool_),
        atr=np.full(n, float(atr)),
    )


class Account:
    """One account walked by hand through the compiled kernel."""

    def __init__(self, market: MarketArrays, rules: TradingRules, scheme: str = "target") -> None:
        self.market, self.rules, self.scheme = market, rules.row(), kernel.SCHEMES[scheme]
        self.account = np.zeros(kernel.ACCOUNT_SIZE)
        self.fills = np.zeros((kernel.MAX_FILLS, kernel.FILL_SIZE))
        self.out = np.zeros(kernel.OUT_SIZE)
        self.log: list[list[float]] = []
        kernel.open_account(self.account, CAPITAL)
        self.t = 0

    def act(self, action: int) -> list[np.ndarray]:
        m = self.market
        units, self.refused = kernel.decode(
            self.scheme, action, self.rules, self.account, m.ohlc[self.t, 3], m.tradable[self.t]
        )
        kernel.step_one(
            m.ohlc, m.session, m.session_end, m.tradable, m.atr, self.rules, self.account, self.t, units,
            self.fills, self.out,
        )  # fmt: skip
        self.t += 1
        done = [self.fills[k].copy() for k in range(int(self.out[kernel.FILL_COUNT]))]
        self.log += [[self.t, *fill] for fill in done]
        return done

    @property
    def units(self) -> float:
        return float(self.account[kernel.UNITS])

    @property
    def equity(self) -> float:
        return float(self.account[kernel.EQUITY])

    def trades(self):
        return trades_from_fills(np.array(self.log).reshape(-1, 6), self.market.session)


QUIET = [(100, 100, 100, 100)] * 12


def test_an_order_decided_on_one_bar_fills_at_the_next_open():
    account = Account(market_of([(100, 100, 100, 100), (104, 110, 104, 110)]), replace(FREE, margin_rate=0.5))
    (fill,) = account.act(LONG)
    assert fill[kernel.FILL_PRICE] == 104.0
    # 1000 of equity at the decision's close of 100 buys 10 units, whatever the open then is.
    assert account.units == 10.0
    assert account.equity == 1000.0 + 10.0 * (110.0 - 104.0)


def test_the_return_of_the_decision_bar_is_not_earned():
    account = Account(market_of([(50, 100, 50, 100), (100, 100, 100, 100)]), FREE)
    account.act(LONG)
    assert account.equity == CAPITAL


def test_a_round_trip_at_a_flat_price_costs_both_legs():
    rules = replace(FREE, commission_rate=0.001, margin_rate=0.5)
    account = Account(market_of(QUIET), rules)
    account.act(LONG)
    account.act(FLAT)
    assert account.equity == pytest.approx(CAPITAL - 2 * 0.001 * 1000.0, abs=1e-12)
    assert account.trades().net_pnl.tolist() == pytest.approx([-2.0])


def test_enter_three_flips_and_exit_cost_eight_legs():
    rules = replace(FREE, commission_rate=0.001, margin_rate=0.2)
    account = Account(market_of(QUIET), rules)
    for action in (LONG, SHORT, LONG, SHORT, FLAT):
        account.act(action)
    assert len(account.log) == 8
    equity = 1000.0
    # Each position is sized on the equity at its decision, which still lacks the cost of the leg that closes the last.
    sizes = []
    for _ in range(4):
        sizes.append(equity / 100.0)
        equity -= 0.1 * sizes[-1]  # entry leg: 0.001 * 100 per unit
        if len(sizes) > 1:
            equity -= 0.1 * sizes[-2]
    equity -= 0.1 * sizes[-1]
    assert account.equity == pytest.approx(equity, abs=1e-9)
    assert len(account.trades()) == 4


def test_slippage_moves_every_market_fill_against_the_trader():
    rules = replace(FREE, slippage_rate=0.01, slippage_price=0.5, margin_rate=0.5)
    account = Account(market_of(QUIET), rules)
    (entry,) = account.act(LONG)
    (exit_,) = account.act(FLAT)
    assert entry[kernel.FILL_PRICE] == 101.5
    assert exit_[kernel.FILL_PRICE] == 98.5
    assert account.account[kernel.COSTS] == pytest.approx(10 * 1.5 * 2)


def test_flat_fees_per_unit_fees_and_sale_tax_are_charged_where_they_belong():
    rules = replace(
        FREE,
        commission_per_entry=3,
        commission_per_exit=5,
        commission_per_unit=0.1,
        tax_on_sale_rate=0.01,
        margin_rate=0.5,
    )
    account = Account(market_of(QUIET), rules)
    (entry,) = account.act(LONG)
    (exit_,) = account.act(FLAT)
    assert entry[kernel.FILL_CHARGES] == pytest.approx(3 + 10 * 0.1)
    # At the exit 10 units of notional 1000 are sold.
    assert exit_[kernel.FILL_CHARGES] == pytest.approx(5 + 10 * 0.1 + 0.01 * 1000)


def test_a_short_earns_what_the_price_falls():
    account = Account(market_of([(100, 100, 100, 100), (100, 100, 90, 90), (90, 90, 90, 90)]), FREE)
    account.act(SHORT)
    assert account.equity == 1100.0
    account.act(FLAT)
    assert account.trades().net_pnl.tolist() == [100.0]


def test_the_side_already_held_is_kept_without_resizing():
    account = Account(market_of([(100, 100, 100, 100), (100, 120, 100, 120), (120, 120, 120, 120)]), FREE)
    account.act(LONG)
    assert account.act(LONG) == []
    assert account.units == 10.0


def test_lots_are_rounded_towards_zero():
    account = Account(market_of(QUIET), replace(FREE, lot_size=3))
    account.act(SHORT)
    assert account.units == -9.0


def test_an_account_too_small_for_one_lot_is_refused_and_stays_as_it_is():
    account = Account(market_of(QUIET), replace(FREE, lot_size=11))
    assert account.act(LONG) == []
    assert account.refused
    assert account.units == 0.0


def test_a_cash_account_never_spends_more_than_it_has_when_the_open_gaps_up():
    account = Account(
        market_of([(100, 100, 100, 100), (125, 125, 125, 125)]), replace(FREE, commission_rate=0.01)
    )
    account.act(LONG)
    assert account.units == pytest.approx(1000.0 / (125.0 * 1.01))
    assert account.account[kernel.CASH] == pytest.approx(0.0, abs=1e-9)


def test_a_forbidden_short_is_refused_and_leaves_the_long_alone():
    account = Account(market_of(QUIET), replace(FREE, allow_short=False))
    account.act(LONG)
    assert account.act(SHORT) == []
    assert account.refused
    assert account.units == 10.0


STOPPED = replace(FREE, stop_loss=5.0, take_profit=10.0, exits_in_atr=True)


def test_a_stop_inside_the_bar_fills_at_its_price():
    account = Account(market_of([(100, 100, 100, 100), (100, 101, 94, 99)]), STOPPED)
    _, exit_ = account.act(LONG)
    assert exit_[kernel.FILL_PRICE] == 95.0
    assert exit_[kernel.FILL_REASON] == kernel.STOP


def test_a_gap_through_the_stop_fills_at_the_open():
    account = Account(market_of([(100, 100, 100, 100), (100, 100, 100, 100), (90, 92, 89, 91)]), STOPPED)
    account.act(LONG)
    (exit_,) = account.act(LONG)
    assert exit_[kernel.FILL_PRICE] == 90.0


def test_a_gap_through_the_target_fills_at_the_open_without_slippage():
    rules = replace(STOPPED, slippage_rate=0.01)
    account = Account(market_of([(100, 100, 100, 100), (100, 100, 100, 100), (120, 121, 119, 120)]), rules)
    account.act(LONG)
    (exit_,) = account.act(LONG)
    assert exit_[kernel.FILL_PRICE] == 120.0
    assert exit_[kernel.FILL_REASON] == kernel.TARGET


def test_a_bar_that_touches_both_takes_the_stop():
    account = Account(market_of([(100, 100, 100, 100), (100, 111, 94, 100)]), STOPPED)
    _, exit_ = account.act(LONG)
    assert exit_[kernel.FILL_REASON] == kernel.STOP
    assert account.out[kernel.BOTH_TOUCHED] == 1.0


def test_a_short_position_has_its_stop_above_and_its_target_below():
    account = Account(market_of([(100, 100, 100, 100), (100, 106, 99, 100)]), STOPPED)
    _, exit_ = account.act(SHORT)
    assert exit_[kernel.FILL_PRICE] == 105.0
    account = Account(market_of([(100, 100, 100, 100), (100, 101, 89, 95)]), STOPPED)
    _, exit_ = account.act(SHORT)
    assert (exit_[kernel.FILL_PRICE], exit_[kernel.FILL_REASON]) == (90.0, kernel.TARGET)


# The bar after a long position was opened at 100, its stop at 95 and its target at 110: what it fills, if anything.
CRAFTED = {
    "touches both": ((100, 111, 94, 100), (95, kernel.STOP), True),
    "gaps through the stop": ((90, 92, 89, 91), (90, kernel.STOP), False),
    "gaps through the stop and runs to the target": ((90, 112, 89, 111), (90, kernel.STOP), True),
    "gaps through the target": ((120, 121, 119, 120), (120, kernel.TARGET), False),
    "gaps through the target and falls to the stop": ((120, 121, 90, 92), (120, kernel.TARGET), True),
    "touches the stop to the tick": ((100, 101, 95, 99), (95, kernel.STOP), False),
    "touches the target to the tick": ((100, 110, 99, 101), (110, kernel.TARGET), False),
    "opens at the stop": ((95, 99, 95, 98), (95, kernel.STOP), False),
    "opens at the target": ((110, 111, 108, 109), (110, kernel.TARGET), False),
    "misses both by a hair": ((100, 109.99, 95.01, 100), None, False),
}


@pytest.mark.parametrize("case", CRAFTED)
@pytest.mark.parametrize("side", [LONG, SHORT])
def test_crafted_bars_fill_stop_and_target_where_they_were_really_on_offer(case, side):
    (o, h, l, c), expected, both = CRAFTED[case]
    # A short sees the same bar upside down, mirrored at its entry of 100.
    bar = (o, h, l, c) if side == LONG else (200 - o, 200 - l, 200 - h, 200 - c)
    account = Account(market_of([(100, 100, 100, 100), (100, 100, 100, 100), bar]), STOPPED)
    account.act(side)
    fills = account.act(side)
    assert account.out[kernel.BOTH_TOUCHED] == both
    if expected is None:
        assert fills == []
        return
    (exit_,) = fills
    price, reason = expected
    assert exit_[kernel.FILL_REASON] == reason
    assert exit_[kernel.FILL_PRICE] == (price if side == LONG else 200 - price)
    assert account.units == 0.0


@pytest.mark.parametrize(
    ("bar", "price", "slippage"),
    [
        # Bought at 100.25: the stop lies at 95.25 and is a market order, the target at 110.25 and is a limit.
        ((100, 101, 95, 99), 95.25 - 0.25, 10 * 0.25),
        ((90, 92, 89, 91), 90 - 0.25, 10 * 0.25),
        ((100, 110.25, 99, 101), 110.25, 0.0),
        ((120, 121, 119, 120), 120, 0.0),
    ],
    ids=["stop", "gap through the stop", "target", "gap through the target"],
)
def test_a_stop_pays_slippage_and_a_target_does_not(bar, price, slippage):
    rules = replace(STOPPED, slippage_price=0.25, margin_rate=0.5)
    account = Account(market_of([(100, 100, 100, 100), (100, 100, 100, 100), bar]), rules)
    account.act(LONG)
    (exit_,) = account.act(LONG)
    assert (exit_[kernel.FILL_PRICE], exit_[kernel.FILL_SLIPPAGE]) == (price, slippage)


def test_a_gap_through_the_trailing_stop_fills_at_the_open():
    rows = [(100, 100, 100, 100), (100, 120, 100, 120), (110, 112, 109, 111)]
    account = Account(market_of(rows), replace(FREE, trailing_stop=3.0))
    account.act(LONG)
    (exit_,) = account.act(LONG)
    assert (exit_[kernel.FILL_PRICE], exit_[kernel.FILL_REASON]) == (110.0, kernel.TRAIL)


def test_exits_given_as_rates_are_shares_of_the_entry_price():
    rules = replace(FREE, stop_loss=0.05, take_profit=0.1, exits_in_atr=False)
    account = Account(market_of([(200, 200, 200, 200), (200, 200, 200, 200), (200, 221, 199, 220)]), rules)
    account.act(LONG)
    assert account.account[kernel.STOP_PRICE] == 190.0
    (exit_,) = account.act(LONG)
    assert exit_[kernel.FILL_PRICE] == pytest.approx(220.0)


def test_a_stop_inside_the_sessions_last_bar_leaves_nothing_to_square_off():
    market = market_of([(100, 100, 100, 100), (100, 101, 94, 99)], session_end=[False, True])
    account = Account(market, replace(STOPPED, square_off=True))
    fills = account.act(LONG)
    assert [fill[kernel.FILL_REASON] for fill in fills] == [kernel.ORDER, kernel.STOP]
    assert account.units == 0.0


def test_the_trailing_stop_moves_after_the_bar_was_tested_never_before():
    rows = [(100, 100, 100, 100), (100, 120, 100, 118), (118, 119, 114, 115)]
    account = Account(market_of(rows), replace(FREE, trailing_stop=3.0))
    # The first bar runs from 100 to 120 to 118: its own high must not lift the stop above its own low.
    assert len(account.act(LONG)) == 1
    (exit_,) = account.act(LONG)
    assert exit_[kernel.FILL_PRICE] == 118.0 - 3.0
    assert exit_[kernel.FILL_REASON] == kernel.TRAIL


def test_a_session_is_left_flat_at_its_last_close_where_the_instrument_asks_for_it():
    rules = replace(FREE, square_off=True, commission_rate=0.001, margin_rate=0.5)
    market = market_of(
        [(100, 100, 100, 100), (100, 110, 100, 110), (200, 200, 200, 200)],
        session=[0, 0, 1],
        session_end=[False, True, True],
    )
    account = Account(market, rules)
    _, exit_ = account.act(LONG)
    assert exit_[kernel.FILL_PRICE] == 110.0
    assert account.units == 0.0
    assert account.equity == pytest.approx(1000 + 100 - 0.001 * (1000 + 1100))


def test_a_session_that_breaks_off_is_closed_at_the_next_open():
    market = market_of([(100, 100, 100, 100), (100, 100, 100, 100), (80, 80, 80, 80)], session=[0, 0, 1])
    account = Account(market, replace(FREE, square_off=True))
    account.act(LONG)
    (exit_,) = account.act(LONG)
    assert exit_[kernel.FILL_REASON] == kernel.LATE_SESSION_END
    assert (exit_[kernel.FILL_PRICE], account.units) == (80.0, 0.0)


def test_nothing_is_held_on_a_bar_whose_features_are_undefined():
    account = Account(market_of(QUIET, tradable=[True, False] + [True] * 10), FREE)
    account.act(LONG)
    (exit_,) = account.act(LONG)
    assert exit_[kernel.FILL_REASON] == kernel.NO_FEATURES
    assert account.units == 0.0


def test_a_ruined_account_is_terminated():
    account = Account(
        market_of([(100, 100, 100, 100), (100, 100, 8, 8)]), replace(FREE, ruin_level=0.1, margin_rate=1.0)
    )
    account.act(LONG)
    assert account.equity == 80.0
    assert account.out[kernel.TERMINATED] == 1.0


def test_drawdown_is_marked_while_the_losing_position_is_open():
    account = Account(market_of([(100, 100, 100, 100), (100, 100, 90, 90), (90, 90, 81, 81)]), FREE)
    account.act(LONG)
    assert account.account[kernel.DRAWDOWN] == pytest.approx(0.10)
    account.act(LONG)
    assert account.account[kernel.DRAWDOWN] == pytest.approx(0.19)


def test_each_reward_component_is_zero_when_absent_and_not_when_it_should_act():
    rules = replace(
        FREE, weight_log_equity=1.0, weight_drawdown=2.0, weight_turnover=0.5, bar_volatility=0.01
    )
    account = Account(market_of([(100, 100, 100, 100), (100, 100, 90, 90), (90, 90, 90, 90)]), rules)
    account.act(LONG)
    log_equity = math.log(900.0 / 1000.0) / 0.01
    drawdown = -0.1 / 0.01
    turnover = -1.0
    assert account.out[kernel.PART_LOG_EQUITY] == pytest.approx(log_equity)
    assert account.out[kernel.PART_DRAWDOWN] == pytest.approx(drawdown)
    assert account.out[kernel.PART_TURNOVER] == pytest.approx(turnover)
    assert account.out[kernel.REWARD] == pytest.approx(log_equity + 2 * drawdown + 0.5 * turnover)
    account.act(LONG)
    assert account.out[kernel.REWARD] == 0.0


def test_different_actions_earn_different_rewards():
    rewards = []
    for action in (SHORT, FLAT, LONG):
        account = Account(market_of([(100, 100, 100, 100), (100, 101, 100, 101)]), FREE)
        account.act(action)
        rewards.append(account.out[kernel.REWARD])
    assert rewards[0] < rewards[1] == 0.0 < rewards[2]


def test_orders_open_from_flat_close_what_is_held_and_are_refused_otherwise():
    account = Account(market_of(QUIET), FREE, scheme="orders")
    account.act(kernel.CLOSE_LONG)
    assert account.refused
    account.act(kernel.BUY_LONG)
    assert account.units == 10.0
    account.act(kernel.SELL_SHORT)
    assert account.refused
    assert account.units == 10.0
    account.act(kernel.HOLD)
    assert account.units == 10.0
    account.act(kernel.CLOSE_LONG)
    assert account.units == 0.0
    account.act(kernel.SELL_SHORT)
    account.act(kernel.CLOSE_SHORT)
    assert account.units == 0.0
    assert len(account.trades()) == 2


@pytest.mark.parametrize(
    ("units", "allowed"),
    [
        (0.0, [kernel.BUY_LONG, kernel.SELL_SHORT, kernel.HOLD]),
        (1.0, [kernel.CLOSE_LONG, kernel.HOLD]),
        (-1.0, [kernel.CLOSE_SHORT, kernel.HOLD]),
    ],
)
def test_the_mask_allows_exactly_what_would_not_be_refused(units, allowed):
    mask = np.zeros(5, dtype=bool)
    kernel.mask_actions(kernel.SCHEME_ORDERS, FREE.row(), units, mask)
    assert np.flatnonzero(mask).tolist() == sorted(allowed)


def test_a_partial_exit_belongs_to_its_trade():
    log = np.array(
        [
            [1, 10, 100.0, 1.0, 0.0, kernel.ORDER],
            [2, -4, 110.0, 1.0, 0.0, kernel.ORDER],
            [3, -6, 90.0, 1.0, 2.0, kernel.STOP],
            [4, -5, 90.0, 1.0, 0.0, kernel.ORDER],
        ]
    )
    trades = trades_from_fills(log, np.zeros(5, dtype=np.int32))
    # 4 units win 10 each, 6 lose 10 each, three fees of 1; the last fill opens a short that never closes.
    assert trades.net_pnl.tolist() == [40.0 - 60.0 - 3.0]
    assert trades.gross_pnl.tolist() == [40.0 - 60.0 + 2.0]
    assert trades.holding_bars.tolist() == [2]
    assert trades.units.tolist() == [10.0]


def test_the_account_part_of_the_observation_says_what_it_claims():
    account = Account(market_of([(100, 100, 100, 100), (100, 105, 100, 105)], atr=2.5), FREE)
    account.act(LONG)
    row = np.zeros(5, dtype=np.float32)
    kernel.account_features(account.account, 105.0, 2.5, row)
    np.testing.assert_allclose(
        row, [10 * 105 / 1050, 0.2 * (105 - 100) / 2.5, 0.2 * math.log(2), 0.0, 0.0], rtol=1e-6
    )
