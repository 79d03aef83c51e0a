"""What holding, shorting, guessing and following earn: each by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.backtest.baselines import (
    baselines,
    buy_and_hold,
    last_bar_sign,
    random_timing,
    shuffled_runs,
    shuffled_sessions,
)
from rl.backtest.engine import replay_actions
from rl.trading.rules import TradingRules
from tests.unit.backtest.small_markets import FLAT, FREE, LONG, SHORT, market_of_closes

CAPITAL = 1000.0
CLOSES = [100.0, 100.0, 110.0, 99.0, 120.0]


def test_a_holder_buys_at_the_first_open_and_keeps_it():
    replay = buy_and_hold(market_of_closes(CLOSES), (0, 5), replace(FREE, commission_rate=0.001), CAPITAL)
    # 10 units at 100 for a fee of 1.
    assert replay.equity.tolist() == pytest.approx([1000, 999, 1099, 989, 1199])
    assert len(replay.fill_log) == 1


def test_a_holder_neither_squares_off_nor_uses_stops_nor_needs_features():
    market = market_of_closes(
        CLOSES,
        session=[0, 0, 1, 1, 2],
        session_end=[False, True, False, True, True],
        tradable=[True, False, False, True, True],
    )
    rules = replace(FREE, square_off=True, stop_loss=0.5, take_profit=0.5, trailing_stop=0.5)
    replay = buy_and_hold(market, (0, 5), rules, CAPITAL)
    assert replay.equity.tolist() == [1000, 1000, 1100, 990, 1200]
    assert len(replay.fill_log) == 1


def test_the_short_holder_earns_the_opposite():
    replay = buy_and_hold(market_of_closes(CLOSES), (0, 5), FREE, CAPITAL, SHORT)
    assert replay.equity.tolist() == [1000, 1000, 900, 1010, 800]


def test_following_the_last_bar_is_long_after_a_rise_and_short_after_a_fall():
    replay = last_bar_sign(market_of_closes(CLOSES), (0, 5), FREE, CAPITAL)
    # Bar 0 has no bar before it, bar 1 did not move, bar 2 rose, bar 3 fell.
    assert replay.actions.tolist() == [FLAT, FLAT, LONG, SHORT]


def test_following_the_last_bar_looks_at_the_bar_before_the_window_but_not_before_the_market():
    replay = last_bar_sign(market_of_closes(CLOSES), (2, 5), FREE, CAPITAL)
    assert replay.actions.tolist() == [LONG, SHORT]


def test_following_the_last_bar_stays_flat_where_shorts_are_forbidden():
    replay = last_bar_sign(market_of_closes(CLOSES), (0, 5), replace(FREE, allow_short=False), CAPITAL)
    assert replay.actions.tolist() == [FLAT, FLAT, LONG, FLAT]


# --- random timing --------------------------------------------------------------------------------------------------


def runs_of(sides: np.ndarray) -> list[tuple[int, int]]:
    """Return (side, length) of every stretch."""
    found: list[list[int]] = []
    for side in sides:
        if found and found[-1][0] == side:
            found[-1][1] += 1
        else:
            found.append([int(side), 1])
    return [(side, length) for side, length in found]


SIDES = st.lists(st.sampled_from([-1, 0, 1]), max_size=60).map(lambda sides: np.array(sides, dtype=np.int8))


@given(sides=SIDES, seed=st.integers(0, 2**32 - 1))
def test_shuffling_keeps_the_order_of_sides_and_the_holding_times_of_each(sides, seed):
    """A random trader that trades more or less often than the strategy pays other costs and proves nothing."""
    shuffled = shuffled_runs(sides, np.random.default_rng(seed))
    before, after = runs_of(sides), runs_of(shuffled)
    assert [side for side, _ in after] == [side for side, _ in before]
    for side in (-1, 0, 1):
        assert sorted(length for s, length in after if s == side) == sorted(
            length for s, length in before if s == side
        )
        assert np.sum(shuffled == side) == np.sum(sides == side)


def test_shuffling_does_move_the_stretches():
    sides = np.repeat([1, 0, 1, -1, 1, 0], [1, 2, 3, 4, 5, 6]).astype(np.int8)
    drawn = {tuple(shuffled_runs(sides, np.random.default_rng(seed))) for seed in range(40)}
    # Three long stretches of 1, 3 and 5 in any order, two flat ones of 2 and 6: 12 arrangements.
    assert len(drawn) == 12


def test_one_seed_gives_one_shuffle():
    sides = np.repeat([1, 0, 1, -1], [5, 2, 3, 4])
    one, two = (shuffled_runs(sides, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@given(
    days=st.lists(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=12), min_size=1, max_size=8),
    seed=st.integers(0, 2**32 - 1),
)
def test_where_sessions_end_flat_the_stretches_are_dealt_out_session_by_session(days, seed):
    """A stretch moved across a session's end would be closed and opened again: more trades than the strategy made."""
    sides = np.array([side for day in days for side in day], dtype=np.int8)
    session = np.repeat(np.arange(len(days)), [len(day) for day in days])
    dealt = shuffled_sessions(sides, session, np.random.default_rng(seed))
    assert len(dealt) == len(sides)

    def kind(day: np.ndarray) -> tuple:
        runs = runs_of(day)
        by_side = tuple(tuple(sorted(n for s, n in runs if s == side)) for side in (-1, 0, 1))
        return tuple(side for side, _ in runs), by_side

    before = sorted(kind(np.array(day)) for day in days)
    after = sorted(kind(dealt[session == number]) for number in range(len(days)))
    assert after == before


def test_sessions_of_one_length_change_places():
    sides = np.repeat([1, -1, 0, 1], [5, 5, 5, 3])
    session = np.repeat([0, 1, 2, 3], [5, 5, 5, 3])
    drawn = {tuple(shuffled_sessions(sides, session, np.random.default_rng(seed))) for seed in range(40)}
    assert len(drawn) == 6
    assert all(draw[-3:] == (1, 1, 1) for draw in drawn)


@pytest.mark.parametrize("square_off", [False, True])
def test_random_traders_pay_for_as_many_fills_as_the_strategy(square_off):
    generator = np.random.default_rng(4)
    closes = 100 * np.exp(np.cumsum(generator.normal(0, 0.001, 400)))
    session = np.arange(400) // 20
    market = market_of_closes(closes, session=session, session_end=np.arange(400) % 20 == 19)
    rules = replace(FREE, square_off=square_off, commission_rate=0.0001)
    actions = np.repeat(generator.integers(3, size=100), 4)[:399]
    strategy = replay_actions(market, (0, 400), rules, actions, capital=CAPITAL)
    replays = random_timing(market, (0, 400), rules, CAPITAL, strategy, np.random.default_rng(0), 10)
    for replay in replays:
        assert len(replay.fill_log) == len(strategy.fill_log)
        assert len(replay.trades) == len(strategy.trades)


def test_random_traders_trade_as_often_and_as_long_as_the_strategy():
    generator = np.random.default_rng(3)
    closes = 100 * np.exp(np.cumsum(generator.normal(0, 0.01, 200)))
    market = market_of_closes(closes)
    actions = np.repeat(generator.integers(3, size=40), 5)[:199]
    strategy = replay_actions(market, (0, 200), FREE, actions, capital=CAPITAL)
    replays = random_timing(market, (0, 200), FREE, CAPITAL, strategy, np.random.default_rng(0), 10)
    assert len(replays) == 10
    for replay in replays:
        assert len(replay.fill_log) == len(strategy.fill_log)
        assert np.sum(replay.decided > 0) == np.sum(strategy.decided > 0)
        assert np.sum(replay.decided < 0) == np.sum(strategy.decided < 0)
    assert len({float(replay.equity[-1]) for replay in replays}) > 5


def test_a_random_trader_of_a_ruined_strategy_stays_flat_after_the_ruin():
    market = market_of_closes([100, 195, 195, 195])
    strategy = replay_actions(market, (0, 4), FREE, [SHORT, SHORT, SHORT], capital=CAPITAL)
    (replay,) = random_timing(market, (0, 4), FREE, CAPITAL, strategy, np.random.default_rng(0), 1)
    assert replay.actions[: replay.decisions].tolist() == [SHORT]
    assert replay.was_ruined


# --- all of them ----------------------------------------------------------------------------------------------------


def every_baseline(rules: TradingRules) -> dict:
    market = market_of_closes(CLOSES)
    strategy = replay_actions(market, (0, 5), rules, [LONG, FLAT, LONG, FLAT], capital=CAPITAL)
    found = baselines(market, (0, 5), rules, CAPITAL, strategy, np.random.default_rng(0), draws=3)
    return {baseline.name: baseline for baseline in found}


def test_there_are_five_baselines_on_the_same_bars_and_capital():
    found = every_baseline(FREE)
    assert list(found) == ["flat", "buy_and_hold", "always_short", "random", "last_bar_sign"]
    assert [len(baseline.replays) for baseline in found.values()] == [1, 1, 1, 3, 1]
    for baseline in found.values():
        for replay in baseline.replays:
            assert (replay.start, replay.capital) == (0, CAPITAL)
    assert found["flat"].replays[0].equity.tolist() == [CAPITAL] * 5


def test_a_short_that_is_forbidden_is_no_baseline_and_says_so():
    short = every_baseline(replace(FREE, allow_short=False))["always_short"]
    assert short.replays == ()
    assert short.unavailable == "this instrument may not be sold short"


def test_the_strategys_costs_are_charged_to_every_baseline():
    found = every_baseline(replace(FREE, commission_rate=0.01))
    assert found["buy_and_hold"].replays[0].costs[0] == pytest.approx(10.0)
    assert found["always_short"].replays[0].costs[0] == pytest.approx(10.0)
    assert found["random"].replays[0].costs.sum() > 0
