"""Replays: what is recorded, what is refused, which action a policy takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rl.backtest.engine import replay_actions, replay_policy
from rl.common.errors import StagegateError
from rl.policies.actor_critic import build_policy
from rl.policies.forward import PackedPolicy, pack
from rl.trading import kernel
from rl.trading.ledger import LOG_BAR, LOG_PRICE, LOG_REASON, LOG_UNITS
from rl.trading.rules import TradingRules
from tests.unit.backtest.small_markets import FLAT, FREE, LONG, SHORT, market_of_closes

CAPITAL = 1000.0


def test_row_0_is_the_first_decision_with_the_starting_capital_still_in_cash():
    replay = replay_actions(market_of_closes([100, 110, 121]), (0, 3), FREE, [LONG, LONG], capital=CAPITAL)
    # 10 units from the open of bar 1 at 100.
    assert replay.equity.tolist() == [1000.0, 1100.0, 1210.0]
    assert replay.held.tolist() == [0.0, 10.0, 10.0]
    assert replay.decided.tolist() == [10.0, 10.0]
    assert replay.actions.tolist() == [LONG, LONG]
    assert (replay.start, replay.stop) == (0, 3)
    assert replay.fill_log[:, [LOG_BAR, LOG_UNITS, LOG_PRICE]].tolist() == [[1.0, 10.0, 100.0]]
    assert len(replay.trades) == 0


def test_a_window_inside_the_market_starts_with_its_own_capital():
    replay = replay_actions(
        market_of_closes([50, 60, 100, 110, 99]), (2, 5), FREE, [LONG, FLAT], capital=CAPITAL
    )
    assert replay.equity.tolist() == [1000.0, 1100.0, 1100.0]
    assert replay.trades.entry_bar.tolist() == [3]
    assert replay.trades.exit_bar.tolist() == [4]
    assert replay.trades.net_pnl.tolist() == [100.0]


def test_what_was_decided_is_noted_even_where_the_session_closed_it_in_the_same_bar():
    market = market_of_closes([100, 110, 121], session=[0, 0, 1], session_end=[False, True, True])
    replay = replay_actions(market, (0, 3), replace(FREE, square_off=True), [LONG, FLAT], capital=CAPITAL)
    assert replay.decided.tolist() == [10.0, 0.0]
    assert replay.held.tolist() == [0.0, 0.0, 0.0]
    assert replay.fill_log[:, LOG_REASON].tolist() == [kernel.ORDER, kernel.SESSION_END]


def test_a_ruined_account_stands_still_from_there_on():
    # A short of the whole equity loses 95 % in bar 1; what the price does afterwards is nobody's gain.
    replay = replay_actions(
        market_of_closes([100, 195, 100, 50]), (0, 4), FREE, [SHORT, SHORT, SHORT], capital=CAPITAL
    )
    assert replay.was_ruined
    assert replay.decisions == 1
    assert replay.stop == 4
    assert replay.equity.tolist() == pytest.approx([1000.0, 50.0, 50.0, 50.0])
    assert replay.held.tolist() == [0.0, -10.0, 0.0, 0.0]
    assert replay.decided.tolist() == [-10.0, 0.0, 0.0]
    assert replay.rewards[1:].tolist() == replay.costs[1:].tolist() == [0.0, 0.0]
    assert len(replay.fill_log) == 1


def test_an_account_that_is_not_ruined_makes_every_decision():
    replay = replay_actions(market_of_closes([100, 110, 121]), (0, 3), FREE, [LONG, LONG], capital=CAPITAL)
    assert (replay.decisions, replay.was_ruined) == (2, False)


def test_more_fills_than_the_first_log_holds_are_all_kept():
    n = 1200
    market = market_of_closes(np.full(n, 100.0))
    actions = np.where(np.arange(n - 1) % 2 == 0, LONG, SHORT)
    replay = replay_actions(market, (0, n), FREE, actions, capital=CAPITAL)
    # One opening leg, then two legs for every flip.
    assert len(replay.fill_log) == 1 + 2 * (n - 2)
    assert replay.fill_log[:, LOG_BAR].tolist() == [1.0] + [float(t) for t in range(2, n) for _ in range(2)]
    assert len(replay.trades) == n - 2


@pytest.mark.parametrize("window", [(0, 1), (-1, 3), (0, 6), (4, 5)])
def test_a_window_without_a_decision_is_refused(window):
    with pytest.raises(ValueError, match="holds no decision within 5 bars"):
        replay_actions(market_of_closes([1, 2, 3, 4, 5]), window, FREE, [LONG] * (window[1] - window[0] - 1))


def test_a_list_of_actions_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="has 2 decisions, but 3 actions"):
        replay_actions(market_of_closes([1, 2, 3]), (0, 3), FREE, [LONG] * 3)


def a_policy(actions: int, bias: list[float], *, inputs: int = 6) -> PackedPolicy:
    """Return a network that always says `bias`, whatever it sees."""
    policy = build_policy(
        {"encoder": "mlp", "hidden": [2], "observations": inputs, "actions": actions}, seed=0
    )
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
        policy.actor.bias_1[:] = torch.tensor(bias)
    return pack(policy)


def test_the_policy_takes_its_most_probable_action():
    market = market_of_closes([100, 101, 102])
    for bias, action in (([2.0, 1.0, 0.0], SHORT), ([0.0, 1.0, 0.5], FLAT), ([0.0, 1.0, 1.5], LONG)):
        replay = replay_policy(market, (0, 3), FREE, a_policy(3, bias))
        assert replay.actions.tolist() == [action, action]


def test_a_forbidden_action_is_passed_over_for_the_next_best():
    market = market_of_closes([100, 101, 102])
    no_shorts = replace(FREE, allow_short=False)
    replay = replay_policy(market, (0, 3), no_shorts, a_policy(3, [2.0, 0.0, 1.0]))
    assert replay.actions.tolist() == [LONG, LONG]
    assert replay.account[kernel.REFUSALS] == 0


def test_orders_that_do_not_fit_the_position_are_never_chosen():
    market = market_of_closes([100, 101, 102, 103])
    # Wants to buy, then to hold; once long, buying is masked.
    replay = replay_policy(market, (0, 4), FREE, a_policy(5, [3.0, 0.0, 0.0, 0.0, 1.0]), scheme="orders")
    assert replay.actions.tolist() == [kernel.BUY_LONG, kernel.HOLD, kernel.HOLD]


def test_equal_logits_take_the_first_action():
    replay = replay_policy(market_of_closes([100, 101]), (0, 2), FREE, a_policy(3, [1.0, 1.0, 1.0]))
    assert replay.actions.tolist() == [SHORT]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_network_whose_output_is_no_number_stops_with_the_bar_named(broken):
    """A comparison with nan is false, so a broken network would otherwise trade the first action for ever."""
    policy = a_policy(3, [0.0, 0.5, 0.0])
    # Finite weights can overflow too; this stands for them, since weights that are no numbers are not packed at all.
    policy.net[policy.net == np.float32(0.5)] = broken
    with pytest.raises(StagegateError, match="output at bar 1 is not a number"):
        replay_policy(market_of_closes([100, 101, 102]), (1, 3), FREE, policy)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_price_that_is_no_number_stops_a_replay_of_given_actions_with_the_bar_named(broken):
    """Equity would be no number for ever, and ruin, a comparison, would never come."""
    market = market_of_closes([100, 101, 102, 103])
    market.ohlc[2] = broken
    with pytest.raises(StagegateError, match="the account at bar 2 is not finite"):
        replay_actions(market, (0, 4), FREE, [2, 2, 2])


def test_a_policy_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="the policy takes 7 inputs and 3 actions, the market offers 6"):
        replay_policy(market_of_closes([100, 101]), (0, 2), FREE, a_policy(3, [0, 0, 0], inputs=7))
    with pytest.raises(ValueError, match="scheme 'orders' 5"):
        replay_policy(market_of_closes([100, 101]), (0, 2), FREE, a_policy(3, [0, 0, 0]), scheme="orders")


def test_costs_and_rewards_of_each_step_are_recorded():
    rules = TradingRules(margin_rate=0.2, commission_rate=0.001, bar_volatility=0.5)
    replay = replay_actions(market_of_closes([100, 100, 100]), (0, 3), rules, [LONG, FLAT], capital=CAPITAL)
    assert replay.costs.tolist() == pytest.approx([1.0, 1.0])
    assert replay.rewards.tolist() == pytest.approx([np.log(0.999) / 0.5, np.log(998 / 999) / 0.5])


def test_bars_that_touch_stop_and_target_are_counted():
    market = market_of_closes([100, 100, 100])
    market.ohlc[1] = [100, 103, 97, 100]
    rules = replace(FREE, stop_loss=2.0, take_profit=2.0)
    replay = replay_actions(market, (0, 3), rules, [LONG, FLAT], capital=CAPITAL)
    assert replay.bars_touching_both == 1
    assert replay.trades.net_pnl.tolist() == [-20.0]
