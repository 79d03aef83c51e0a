"""Which bars a fold trains on and trades, and that the stitched account pays for every seam."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rl.backtest.engine import replay_actions
from rl.backtest.walk_forward import Fold, folds_of, only_in, parse_walk_forward, stitched
from rl.common.errors import DataError, UsageError
from rl.trading.rules import TradingRules
from tests.builders import random_bars
from tests.unit.envs.test_trading_env import random_market

SHORT, FLAT, LONG = 0, 1, 2
RULES = TradingRules(commission_rate=0.001, margin_rate=0.5, ruin_level=0.1)


def rows(bars, asked: str, usable=None) -> list[tuple[int, int, int]]:
    known = np.ones(len(bars), dtype=bool) if usable is None else usable
    return [
        (fold.begin, fold.start, fold.stop) for fold in folds_of(bars, known, parse_walk_forward(asked))[0]
    ]


@pytest.mark.parametrize("text", ["250s/60s", "2y/3m", "1y/10d", "50%/10%", "6M/2W"])
def test_lengths_are_read_and_written_back(text):
    assert str(parse_walk_forward(text)) == text.lower()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("250", "WINDOW/STEP such as 2y/3m"),
        ("250s", "WINDOW/STEP"),
        ("250s/", "WINDOW/STEP"),
        ("-5s/5s", "WINDOW/STEP"),
        ("2.5y/3m", "WINDOW/STEP"),
        ("5q/5q", "'q' is no unit"),
        ("0s/5s", "above 0"),
        ("5s/0s", "above 0"),
        ("2y/20s", "counted alike"),
        ("50%/20s", "counted alike"),
        ("95%/10%", "more than all there is"),
    ],
)
def test_nonsense_is_refused_with_what_to_write(text, says):
    with pytest.raises(UsageError, match=says):
        parse_walk_forward(text)


def test_folds_counted_in_sessions_follow_one_another_without_a_gap():
    bars = random_bars(200, seed=0, bars_per_session=10)
    assert rows(bars, "8s/5s") == [(0, 80, 130), (50, 130, 180), (100, 180, 200)]


def test_a_share_is_one_of_the_sessions_with_features():
    bars, usable = random_bars(220, seed=0, bars_per_session=10), np.ones(220, dtype=bool)
    usable[:15] = False
    # The first session with features throughout is the third: 20 are left.
    assert rows(bars, "40%/25%", usable) == [(20, 100, 150), (70, 150, 200), (120, 200, 220)]


def test_calendar_folds_begin_with_the_first_session_of_their_day():
    # Daily bars from Monday 2024-01-01 on, five a week: January has 23 of them, February 21, March 21, April 22.
    bars = random_bars(100, seed=0, minutes=1440)
    assert rows(bars, "1m/1m") == [(0, 23, 44), (23, 44, 65), (44, 65, 87)]
    assert rows(bars, "1m/4w")[:2] == [(0, 23, 43), (20, 43, 63)]


def test_a_rest_too_short_to_judge_is_left_out_and_told():
    bars = random_bars(190, seed=0, bars_per_session=10)
    found, note = folds_of(bars, np.ones(190, dtype=bool), parse_walk_forward("8s/5s"))
    assert [(fold.start, fold.stop) for fold in found] == [(80, 130), (130, 180)]
    assert note == "the last 10 bars are left out: too few for a stretch"


def test_a_window_longer_than_the_data_is_refused_with_one_that_fits():
    bars = random_bars(200, seed=0, bars_per_session=10)
    with pytest.raises(DataError, match=r"20 sessions.*\n.*10s/2s"):
        folds_of(bars, np.ones(200, dtype=bool), parse_walk_forward("30s/5s"))
    with pytest.raises(DataError, match="0 sessions"):
        folds_of(bars, np.zeros(200, dtype=bool), parse_walk_forward("5s/5s"))


# --- one account ----------------------------------------------------------------------------------------------------

FOLDS = [
    Fold(number=1, begin=0, start=100, stop=150),
    Fold(number=2, begin=50, start=150, stop=200),
    Fold(number=3, begin=100, start=200, stop=250),
]


def always(side: int):
    """Return a model of every fold that holds one side, and what it was asked for."""
    asked = []

    def act(fold, window, capital, rules):
        asked.append((fold.number, window, capital))
        actions = np.full(window[1] - window[0] - 1, side, dtype=np.int8)
        return replay_actions(random_market(), window, rules, actions, capital=capital)

    return act, asked


def test_a_position_is_closed_at_every_seam_and_its_cost_is_paid():
    market = random_market()
    act, asked = always(LONG)
    found = stitched(market, RULES, FOLDS, act, scheme="target", capital=1e5)
    replay = found.replay
    assert (replay.start, replay.stop) == (100, 250)
    assert [(number, window) for number, window, _ in asked] == [
        (1, (100, 151)),
        (2, (150, 201)),
        (3, (200, 250)),
    ]
    # Decided at a stretch's last close, filled at the next open: flat at the close of the next stretch's first bar.
    assert replay.held[[49, 50, 51]].astype(bool).tolist() == [True, False, True]
    assert replay.held[[99, 100, 101]].astype(bool).tolist() == [True, False, True]
    assert replay.held[-1] > 0.0
    assert replay.trades.exit_bar.tolist() == [150, 200]
    assert found.held_at_seams == 2
    for seam, bar in zip(found.seams, (150, 200), strict=True):
        units = replay.held[bar - 100 - 1]
        assert seam == pytest.approx(0.001 * units * market.ohlc[bar, 0], rel=1e-12)
    # Without a seam the same decisions pay neither for closing nor for opening anew.
    unbroken = replay_actions(market, (100, 250), RULES, np.full(149, LONG, dtype=np.int8), capital=1e5)
    assert unbroken.costs.sum() < replay.costs.sum()


def test_the_money_goes_from_stretch_to_stretch():
    act, asked = always(SHORT)
    found = stitched(random_market(), RULES, FOLDS, act, scheme="target", capital=1e5)
    assert [capital for _, _, capital in asked] == [1e5, found.replay.equity[50], found.replay.equity[100]]


def test_the_account_is_what_the_models_met_bit_for_bit():
    """One kernel: each model's own replay of its stretch is a part of the account."""
    market, met = random_market(), []

    def act(fold, window, capital, rules):
        actions = np.random.default_rng(fold.number).integers(0, 3, window[1] - window[0] - 1).astype(np.int8)
        met.append(replay_actions(market, window, rules, actions, capital=capital))
        return met[-1]

    whole = stitched(market, RULES, FOLDS, act, scheme="target", capital=1e5).replay
    for replay in met:
        # Up to the close at which the stretch's last decision is made.
        first, count = replay.start - 100, 50
        np.testing.assert_array_equal(whole.equity[first : first + count], replay.equity[:count])
        np.testing.assert_array_equal(whole.held[first : first + count], replay.held[:count])


def test_orders_close_what_is_held_at_a_seam():
    def act(fold, window, capital, rules):
        actions = np.full(window[1] - window[0] - 1, 4, dtype=np.int8)
        actions[0] = fold.number % 2
        return replay_actions(random_market(), window, rules, actions, scheme="orders", capital=capital)

    replay = stitched(random_market(), RULES, FOLDS, act, scheme="orders", capital=1e5).replay
    assert np.sign(replay.held[[49, 50, 99, 100, 149]]).tolist() == [-1, 0, 1, 0, -1]


def test_a_ruined_account_trades_no_further_stretch():
    ruinous = replace(RULES, commission_rate=0.2, ruin_level=0.75)
    act, asked = always(LONG)
    found = stitched(random_market(), ruinous, FOLDS, act, scheme="target", capital=1e5)
    assert found.replay.was_ruined
    assert [number for number, _, _ in asked] == [1]


def test_only_the_stretches_of_some_folds():
    act, _ = always(LONG)
    market = random_market()
    found = stitched(market, RULES, FOLDS, act, scheme="target", capital=1e5)
    only = only_in(found, FOLDS, [2], market, RULES, "target")
    assert not only.held[:51].any()
    assert (only.held[51:100] > 0.0).all()
    assert not only.held[100:].any()
    assert only_in(found, FOLDS, [], market, RULES, "target").equity[-1] == 1e5
