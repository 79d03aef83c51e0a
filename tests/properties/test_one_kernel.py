"""The kernel sees only the past and keeps the account's limits, whatever is traded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl.backtest.engine import Replay, replay_actions, replay_policy
from rl.envs.trading_env import TradingEnv
from rl.policies.forward import pack
from rl.trading.kernel import (
    LATE_SESSION_END,
    NO_FEATURES,
    ORDER,
)
from rl.trading.ledger import LOG_BAR, LOG_CHARGES, LOG_PRICE, LOG_REASON, LOG_UNITS
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules
from tests.properties.random_trading import (
    CAPITAL,
    SEEDS,
    market,
    markets,
    random_actions,
    random_policy,
    trading_rules,
)

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SCHEMES = st.sampled_from(["target", "orders"])
CALM = st.sampled_from([0.0, 0.8])

AT_OPEN = (ORDER, LATE_SESSION_END, NO_FEATURES)
"""Reasons for which something is filled at a bar's open."""

BARS = 160

# --- nothing sees the future ----------------------------------------------------------------------------------------


def with_another_future(arrays: MarketArrays, t: int, seed: int) -> MarketArrays:
    """Return the market with every array redrawn after bar t, and untouched up to it."""
    other = market(
        seed, bars=len(arrays), move=0.04, reach=0.03, gap=0.05, session_bars=7, break_off=0.5, undefined=0.3
    )
    cut = t + 1

    def joint(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return np.concatenate([before[:cut], after[cut:]])

    return MarketArrays(
        ohlc=joint(arrays.ohlc, 3.0 * other.ohlc),
        features=joint(arrays.features, other.features),
        session=joint(arrays.session, other.session + arrays.session[t]),
        session_end=joint(arrays.session_end, other.session_end),
        tradable=joint(arrays.tradable, other.tradable),
        atr=joint(arrays.atr, 5.0 * other.atr),
    )


def up_to(replay: Replay, t: int) -> dict[str, np.ndarray]:
    """Return everything a replay said about bars up to t: the decision at t counts, its fill one bar later does not."""
    n = t - replay.start
    return {
        "equity": replay.equity[: n + 1],
        "held": replay.held[: n + 1],
        "actions": replay.actions[: n + 1],
        "decided": replay.decided[:n],
        "rewards": replay.rewards[:n],
        "costs": replay.costs[:n],
        "fills": replay.fill_log[replay.fill_log[:, LOG_BAR] <= t],
    }


@FEW
@given(
    arrays=markets(BARS),
    rules=trading_rules(),
    scheme=SCHEMES,
    seed=SEEDS,
    t=st.integers(1, BARS - 2),
    is_policy=st.booleans(),
)
def test_bars_after_t_change_nothing_the_replay_did_up_to_t(arrays, rules, scheme, seed, t, is_policy):
    """A backtest that sees tomorrow is fiction; here tomorrow is another market altogether."""

    def replayed(world: MarketArrays) -> Replay:
        if is_policy:
            return replay_policy(
                world, (0, BARS), rules, pack(random_policy(scheme, seed)), scheme=scheme, capital=CAPITAL
            )
        script = random_actions(scheme, (BARS - 1,), seed, 0.5)
        return replay_actions(world, (0, BARS), rules, script, scheme=scheme, capital=CAPITAL)

    one, two = replayed(arrays), replayed(with_another_future(arrays, t, seed + 1))
    before, after = up_to(one, t), up_to(two, t)
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name], err_msg=name)


def with_the_same_next_open(arrays: MarketArrays, t: int, seed: int) -> MarketArrays:
    """Return another future in which only the open of bar t + 1, and whether it begins a session, are as they were."""
    other = with_another_future(arrays, t, seed)
    opened = arrays.ohlc[t + 1, 0]
    _, high, low, close = other.ohlc[t + 1]
    other.ohlc[t + 1] = [opened, max(opened, high), min(opened, low), close]
    other.session[t + 1 :] += arrays.session[t + 1] - other.session[t + 1]
    return other


@FEW
@given(
    arrays=markets(BARS),
    rules=trading_rules(),
    scheme=SCHEMES,
    seed=SEEDS,
    t=st.integers(1, BARS - 2),
    is_policy=st.booleans(),
)
def test_what_is_filled_at_an_open_knows_nothing_of_the_rest_of_that_bar(
    arrays, rules, scheme, seed, t, is_policy
):
    """Size and side are fixed by the bar before; a size that knows the close it will be marked at is look-ahead."""

    def filled(world: MarketArrays) -> tuple[np.ndarray, float]:
        if is_policy:
            replay = replay_policy(
                world, (0, BARS), rules, pack(random_policy(scheme, seed)), scheme=scheme, capital=CAPITAL
            )
        else:
            script = random_actions(scheme, (BARS - 1,), seed, 0.3)
            replay = replay_actions(world, (0, BARS), rules, script, scheme=scheme, capital=CAPITAL)
        log = replay.fill_log[replay.fill_log[:, LOG_BAR] == t + 1]
        return log[np.isin(log[:, LOG_REASON], AT_OPEN)], replay.decided[t]

    one, two = filled(arrays), filled(with_the_same_next_open(arrays, t, seed + 1))
    np.testing.assert_array_equal(one[0], two[0])
    assert one[1] == two[1]


@FEW
@given(arrays=markets(BARS), rules=trading_rules(), seed=SEEDS, t=st.integers(2, BARS - 2))
def test_bars_after_t_change_no_observation_up_to_t(arrays, rules, seed, t):
    def observations(world: MarketArrays) -> list[np.ndarray]:
        env = TradingEnv(world, (0, BARS), replace(rules, ruin_level=0.0), episode_bars=1000, capital=CAPITAL)
        seen = [env.reset(seed=seed)[0]]
        for action in random_actions("target", (t,), seed, 0.7):
            obs, _, terminated, _, _ = env.step(int(action))
            seen.append(obs)
            if terminated:
                break
        return seen

    one, two = observations(arrays), observations(with_another_future(arrays, t, seed + 1))
    np.testing.assert_array_equal(one, two)


def test_the_look_ahead_check_catches_features_that_come_one_bar_early():
    """The check above has to fail where a policy is shown each bar's features one bar before they are known."""
    arrays, rules = market(3, bars=BARS), TradingRules(margin_rate=0.5)

    def early(world: MarketArrays) -> Replay:
        told = replace(world, features=np.roll(world.features, -1, axis=0))
        return replay_policy(told, (0, BARS), rules, pack(random_policy("target", 5)), capital=CAPITAL)

    caught = 0
    for t in range(40, 120):
        one, two = up_to(early(arrays), t), up_to(early(with_another_future(arrays, t, t)), t)
        caught += any(not np.array_equal(one[name], two[name]) for name in one)
    # Not at every bar: the greedy action is often the same whatever tomorrow's features are.
    assert caught > 10


# --- what an account may and may not do -----------------------------------------------------------------------------


@FEW
@given(
    arrays=markets(BARS, undefined=0.0),
    rules=trading_rules(
        lot_size=0.0,
        allow_short=True,
        ruin_level=0.0,
        stop_loss=0.0,
        take_profit=0.0,
        trailing_stop=0.0,
        # Costs that ask neither for the side nor for the number of orders.
        tax_on_sale_rate=0.0,
        slippage_rate=0.0,
        slippage_price=0.0,
        commission_per_entry=0.0,
        commission_per_exit=0.0,
        margin_rate=0.1,
        exposure=1.0,
    ),
    seed=SEEDS,
    calm=CALM,
)
def test_mirrored_actions_earn_the_opposite_before_costs_and_pay_the_same(arrays, rules, seed, calm):
    """Per unit, since the two accounts grow apart and are sized by their own equity."""
    actions = random_actions("target", (BARS - 1,), seed, calm)
    one = replay_actions(arrays, (0, BARS), rules, actions, capital=CAPITAL).trades
    two = replay_actions(arrays, (0, BARS), rules, 2 - actions, capital=CAPITAL).trades
    n = min(len(one), len(two))  # the losing side may be wiped out before the other
    np.testing.assert_array_equal(one.entry_bar[:n], two.entry_bar[:n])
    np.testing.assert_array_equal(one.exit_bar[:n], two.exit_bar[:n])
    np.testing.assert_array_equal(one.side[:n], -two.side[:n])
    scale = 1e-9 * one.entry_price[:n]
    np.testing.assert_array_less(
        np.abs((one.gross_pnl / one.units)[:n] + (two.gross_pnl / two.units)[:n]), scale
    )
    np.testing.assert_array_less(np.abs((one.cost / one.units)[:n] - (two.cost / two.units)[:n]), scale)
    if n:
        # The first trade of both starts from the same capital, so here it holds in money.
        assert one.gross_pnl[0] == pytest.approx(-two.gross_pnl[0], rel=1e-9, abs=1e-9)
        assert one.cost[0] == pytest.approx(two.cost[0], rel=1e-9, abs=1e-9)


def cash_after_each_fill(replay: Replay) -> np.ndarray:
    """Return the cash the fills leave, worked out from the log alone. (m,)"""
    log = replay.fill_log
    return replay.capital + np.cumsum(-log[:, LOG_UNITS] * log[:, LOG_PRICE] - log[:, LOG_CHARGES])


@FEW
@given(
    arrays=markets(BARS),
    rules=trading_rules(margin_rate=1.0, allow_short=False, exposure=1.0, ruin_level=0.5),
    scheme=SCHEMES,
    seed=SEEDS,
    calm=CALM,
)
def test_a_cash_account_never_owes_money(arrays, rules, scheme, seed, calm):
    actions = random_actions(scheme, (BARS - 1,), seed, calm)
    replay = replay_actions(arrays, (0, BARS), rules, actions, scheme=scheme, capital=CAPITAL)
    cash = cash_after_each_fill(replay)
    assert (cash >= -1e-9 * CAPITAL).all(), f"cash of {cash.min()}"
    assert (replay.held >= 0.0).all()


@FEW
@given(arrays=markets(BARS), rules=trading_rules(allow_short=False), scheme=SCHEMES, seed=SEEDS, calm=CALM)
def test_where_shorts_are_forbidden_no_position_is_ever_negative(arrays, rules, scheme, seed, calm):
    actions = random_actions(scheme, (BARS - 1,), seed, calm)
    replay = replay_actions(arrays, (0, BARS), rules, actions, scheme=scheme, capital=CAPITAL)
    assert (replay.held >= 0.0).all()
    assert (replay.decided >= 0.0).all()
    assert (replay.trades.side == 1).all()


@FEW
@given(
    arrays=markets(BARS),
    rules=trading_rules(),
    lot=st.sampled_from([0.1, 0.3, 1.0, 25.0]),
    scheme=SCHEMES,
    seed=SEEDS,
    calm=CALM,
)
def test_positions_and_fills_are_whole_lots(arrays, rules, lot, scheme, seed, calm):
    actions = random_actions(scheme, (BARS - 1,), seed, calm)
    replay = replay_actions(
        arrays, (0, BARS), replace(rules, lot_size=lot), actions, scheme=scheme, capital=CAPITAL
    )
    for units in (replay.held, replay.decided, replay.fill_log[:, LOG_UNITS]):
        lots = units / lot
        # Tens of millions of lots of 0.1 are no exact binary number; the last bit of a float is.
        np.testing.assert_allclose(lots, np.round(lots), rtol=1e-15, atol=1e-9)


@FEW
@given(arrays=markets(BARS), rules=trading_rules(), scheme=SCHEMES, seed=SEEDS, calm=CALM)
def test_a_new_position_is_carried_by_the_equity_behind_it(arrays, rules, scheme, seed, calm):
    """Margin rate times notional, at the fill's own price, is never more than what the account is worth after it."""
    actions = random_actions(scheme, (BARS - 1,), seed, calm)
    replay = replay_actions(arrays, (0, BARS), rules, actions, scheme=scheme, capital=CAPITAL)
    held = np.cumsum(replay.fill_log[:, LOG_UNITS])
    price = replay.fill_log[:, LOG_PRICE]
    worth = cash_after_each_fill(replay) + held * price
    is_entry = np.abs(held) > np.abs(held - replay.fill_log[:, LOG_UNITS])
    needed = rules.margin_rate * np.abs(held) * np.abs(price)
    assert (worth[is_entry] >= needed[is_entry] * (1 - 1e-9) - 1e-6).all()


@FEW
@given(arrays=markets(BARS), rules=trading_rules(square_off=True), scheme=SCHEMES, seed=SEEDS, calm=CALM)
def test_nothing_is_held_after_a_sessions_known_end_nor_over_the_first_open_of_the_next(
    arrays, rules, scheme, seed, calm
):
    actions = random_actions(scheme, (BARS - 1,), seed, calm)
    replay = replay_actions(arrays, (0, BARS), rules, actions, scheme=scheme, capital=CAPITAL)
    n = len(replay.held)
    assert (replay.held[arrays.session_end[:n]] == 0.0).all()
    trades = replay.trades
    last_held = trades.exit_bar
    same = arrays.session[trades.entry_bar] == arrays.session[last_held]
    # The one way over a border: the session broke off, and the first open of the next closed the position.
    first_bar = arrays.session[last_held] != arrays.session[np.maximum(last_held - 1, 0)]
    assert (same | first_bar).all()


@FEW
@given(arrays=markets(BARS, undefined=0.3), rules=trading_rules(), scheme=SCHEMES, seed=SEEDS)
def test_no_position_is_decided_on_where_features_are_undefined(arrays, rules, scheme, seed):
    actions = random_actions(scheme, (BARS - 1,), seed)
    replay = replay_actions(arrays, (0, BARS), rules, actions, scheme=scheme, capital=CAPITAL)
    blind = ~arrays.tradable[: BARS - 1]
    assert (replay.decided[blind] == 0.0).all()


@FEW
@given(arrays=markets(BARS), rules=trading_rules(), scheme=SCHEMES, seed=SEEDS, calm=CALM)
def test_the_weights_of_the_reward_change_nothing_but_the_reward(arrays, rules, scheme, seed, calm):
    """A gate judges money; whoever pays a bonus for something else must not be able to pass it by that."""
    actions = random_actions(scheme, (BARS - 1,), seed, calm)
    other = replace(
        rules, weight_log_equity=0.3, weight_drawdown=2.0, weight_turnover=1.0, bar_volatility=0.5
    )
    one, two = (
        replay_actions(arrays, (0, BARS), each, actions, scheme=scheme, capital=CAPITAL)
        for each in (rules, other)
    )
    np.testing.assert_array_equal(one.equity, two.equity)
    np.testing.assert_array_equal(one.fill_log, two.fill_log)
    np.testing.assert_array_equal(one.account, two.account)
    assert len(one.fill_log) == 0 or not np.array_equal(one.rewards, two.rewards)


COSTS = (
    "commission_per_entry",
    "commission_per_exit",
    "commission_per_unit",
    "commission_rate",
    "tax_on_sale_rate",
)


@FEW
@given(
    arrays=markets(BARS),
    rules=trading_rules(
        # Exits follow the fill price, lots and the margin's limit round: there a cost can keep an account out of a
        # loss by accident. Without them less money can never become more.
        stop_loss=0.0,
        take_profit=0.0,
        trailing_stop=0.0,
        lot_size=0.0,
        margin_rate=0.1,
        exposure=1.0,
        ruin_level=0.0,
        weight_drawdown=0.0,
        weight_turnover=0.0,
    ),
    seed=SEEDS,
    calm=CALM,
)
def test_costs_never_help(arrays, rules, seed, calm):
    actions = random_actions("target", (BARS - 1,), seed, calm)
    paid = replay_actions(arrays, (0, BARS), rules, actions, capital=CAPITAL)
    free = replay_actions(arrays, (0, BARS), rules.without_costs(), actions, capital=CAPITAL)
    n = min(len(paid.equity), len(free.equity))
    assert (paid.equity[:n] <= free.equity[:n] * (1 + 1e-9)).all()


@FEW
@given(arrays=markets(BARS), rules=trading_rules(), seed=SEEDS, name=st.sampled_from(COSTS))
def test_every_cost_of_the_rules_is_charged_on_every_fill_it_applies_to(arrays, rules, seed, name):
    """With all other costs at zero, the log's charges are this one's, leg by leg."""
    amount = 7.0 if name.startswith("commission_per_e") else 0.003
    only = replace(rules.without_costs(), **{name: amount})
    replay = replay_actions(
        arrays, (0, BARS), only, random_actions("target", (BARS - 1,), seed, 0.5), capital=CAPITAL
    )
    units, price = replay.fill_log[:, LOG_UNITS], replay.fill_log[:, LOG_PRICE]
    held = np.cumsum(units)
    is_entry = np.abs(held) > np.abs(held - units)
    expected = {
        "commission_per_entry": amount * is_entry,
        "commission_per_exit": amount * ~is_entry,
        "commission_per_unit": amount * np.abs(units),
        "commission_rate": amount * np.abs(units) * price,
        "tax_on_sale_rate": amount * np.abs(units) * price * (units < 0),
    }[name]
    np.testing.assert_allclose(replay.fill_log[:, LOG_CHARGES], expected, rtol=1e-12)
