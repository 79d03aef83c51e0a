"""Oracles: are the best policies best, by closed forms, hand-made chains, and paths followed?"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from rl.common.errors import StagegateError, UsageError
from rl.market.oracles import (
    CHAINS,
    LONG_ONLY,
    LONG_SHORT,
    Oracle,
    best_policy,
    evaluate_positions,
    oracle_of,
    solve,
)
from rl.market.synthetic import MARKETS, SyntheticMarket, generate

SESSIONS = 1000
STANDARD_ERROR_BP = 6.0 / np.sqrt(SESSIONS * 187)
"""A position of one unit earns 6 bp of noise a bar, so a mean over this path is known to about .014 bp."""

MEAN_ABSOLUTE_NORMAL = np.sqrt(2.0 / np.pi)


@cache
def drawn(name: str, **params: float) -> SyntheticMarket:
    return generate(name, SESSIONS, seed=7, **params)


@cache
def oracle(name: str, cost_bp: float, allowed: tuple[int, ...] = LONG_SHORT, **params: float) -> Oracle:
    return solve(name, cost_bp=cost_bp, allowed=allowed, **params)


# ---- hand-made chains ----------------------------------------------------------------------------


def two_states(stay: float) -> np.ndarray:
    return np.array([[stay, 1.0 - stay], [1.0 - stay, stay]])


@pytest.mark.parametrize(
    ("stay", "cost_bp", "expected"),
    [
        # Following the sign earns 1 a bar and pays 2 units in the share 1 - stay of all bars; nothing else
        # is better while that is positive.
        (0.5, 0.4, 1.0 - 2 * 0.5 * 0.4),
        (0.9, 1.0, 1.0 - 2 * 0.1 * 1.0),
        (0.5, 1.2, 0.0),
        (0.9, 6.0, 0.0),
    ],
)
def test_a_sign_that_changes_now_and_then_is_followed_only_while_it_pays_its_costs(stay, cost_bp, expected):
    gain, choice = best_policy(two_states(stay), np.array([1.0, -1.0]), cost_bp, LONG_SHORT)
    assert gain == pytest.approx(expected, abs=1e-7)
    if expected > 0.0:
        assert [LONG_SHORT[column] for column in choice[0]] == [1, 1, 1]
        assert [LONG_SHORT[column] for column in choice[1]] == [-1, -1, -1]
    else:
        assert choice[:, 1].tolist() == [1, 1]  # who is flat stays flat


def test_long_only_earns_half_and_pays_for_going_in_and_out():
    # Long in half of all bars; in and out are one unit each, 2 * .5 * .1 bars of change times 1 bp.
    gain, _ = best_policy(two_states(0.9), np.array([1.0, -1.0]), 1.0, LONG_ONLY)
    assert gain == pytest.approx(0.5 - 0.1 * 1.0, abs=1e-7)


def test_a_periodic_chain_is_reported_and_not_answered():
    alternating = np.array([[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(StagegateError, match="periodic or mixes too slowly"):
        best_policy(alternating, np.array([1.0, 0.0]), 0.0, LONG_SHORT)


# ---- what positions earn -------------------------------------------------------------------------


def test_a_position_earns_the_next_return_and_every_change_costs():
    returns = np.array([0.01, 0.02, 0.03, -0.01])
    positions = np.array([1, 1, -1, 0], dtype=np.int8)
    # 200 - 5 for going long, 300 for holding, 100 - 2 * 5 for turning short; the last change is not charged.
    assert evaluate_positions(positions, returns, cost_bp=5.0) == pytest.approx((195.0 + 300.0 + 90.0) / 3.0)


def test_positions_and_returns_of_different_length_are_refused():
    with pytest.raises(UsageError, match="got 3 and 2"):
        evaluate_positions(np.zeros(3), np.zeros(2), 0.5)


# ---- closed forms and known gains ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params", "signal_bp"),
    [
        ("ar1", {"phi": 0.3}, 0.3 * 6.0),
        ("ar1", {"phi": -0.1}, 0.1 * 6.0),
        ("planted", {}, np.sqrt(0.02) * 6.0),
        ("planted", {"r2": 0.002, "rho": 0.98}, np.sqrt(0.002) * 6.0),
        ("momrev", {}, 0.3 * 6.0),
        ("ou", {}, 0.03 * 6.0 / np.sqrt(1.0 - 0.97**2)),
    ],
)
def test_without_cost_the_gain_is_the_mean_size_of_the_signal(name, params, signal_bp):
    """E|signal| = sqrt(2 / pi) times its deviation; the grid adds at most 2 in a thousand."""
    closed_form = MEAN_ABSOLUTE_NORMAL * signal_bp
    assert oracle(name, 0.0, **params).gain_bp == pytest.approx(closed_form, rel=0.002)


@pytest.mark.parametrize(
    ("name", "params", "cost_bp", "gain_bp", "long_only_bp"),
    [
        # Found once by an independent programme of the same kind, on its own grid code.
        ("ar1", {"phi": -0.3}, 0.0, 1.4361, 0.7181),
        ("ar1", {"phi": -0.3}, 0.5, 0.8997, 0.4498),
        ("ar1", {"phi": -0.3}, 1.0, 0.5012, 0.2506),
        ("ar1", {"phi": 0.3}, 0.5, 1.0836, 0.5418),
        ("ar1", {"phi": -0.1}, 0.5, 0.1165, 0.0583),
        ("planted", {}, 0.0, 0.6773, 0.3387),
        ("planted", {}, 0.5, 0.6179, 0.3090),
        ("planted", {}, 2.0, 0.5230, 0.2615),
        ("planted", {"r2": 0.002, "rho": 0.98}, 0.5, 0.1910, 0.0955),
        ("planted", {"r2": 0.0005, "rho": 0.99}, 0.5, 0.0955, 0.0477),
        ("momrev", {}, 0.0, 1.4361, 0.7181),
        ("momrev", {}, 0.5, 0.9916, 0.4958),
        # That programme took the mean of the log return; the simple return a position earns lies half the
        # variance (.0018 bp) higher, which a long-only policy collects about half of the time.
        ("ou", {}, 0.5, 0.5499, 0.2749 + 0.0009),
        ("ou", {}, 1.0, 0.5242, 0.2621 + 0.0009),
        ("ou", {}, 2.0, 0.4844, 0.2422 + 0.0009),
    ],
)
def test_gains_after_costs_are_the_known_ones(name, params, cost_bp, gain_bp, long_only_bp):
    assert oracle(name, cost_bp, **params).gain_bp == pytest.approx(gain_bp, abs=1e-4)
    assert oracle(name, cost_bp, LONG_ONLY, **params).gain_bp == pytest.approx(long_only_bp, abs=2e-4)


@pytest.mark.parametrize("cost_bp", [0.0, 0.5])
def test_the_best_policy_on_noise_is_to_stay_flat_and_earn_nothing(cost_bp):
    best = oracle("noise_garch", cost_bp)
    assert best.gain_bp == 0.0
    assert not best.positions(drawn("noise_garch").signals).any()


@pytest.mark.parametrize(
    ("name", "params", "regimes"), [("ar1", {"phi": -0.3}, 1), ("momrev", {"phi": 0.3, "stay": 0.6}, 2)]
)
def test_the_next_state_a_chain_expects_is_the_next_return_it_promises(name, params, regimes):
    """Where the return is itself the signal, transition and reward state the same thing and must agree."""
    chain = CHAINS[name](**params)
    returns_bp = 6.0 * np.tile(np.linspace(-4.5, 4.5, 241), regimes)
    inside = np.abs(returns_bp) < 18.0  # the outermost cells gather what lies beyond them
    np.testing.assert_allclose(
        (chain.transition @ returns_bp)[inside], chain.mean_return_bp[inside], atol=0.002
    )
    np.testing.assert_allclose(chain.transition.sum(axis=1), 1.0, atol=1e-12)


# ---- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cost_bp", "allowed"),
    [
        ("ar1", 0.5, LONG_SHORT),
        ("ou", 1.0, LONG_SHORT),
        ("planted", 0.5, LONG_SHORT),
        ("planted", 0.5, LONG_ONLY),
        ("momrev", 0.5, LONG_SHORT),
    ],
)
def test_the_oracle_followed_on_a_path_earns_its_gain(name, cost_bp, allowed):
    market = drawn(name)
    best = oracle_of(market, cost_bp=cost_bp, allowed=allowed)
    positions = best.positions(market.signals)
    assert positions.dtype == np.int8
    assert positions.shape == market.returns.shape
    assert set(np.unique(positions)) <= set(allowed)
    earned = evaluate_positions(positions, market.returns, cost_bp)
    assert earned == pytest.approx(best.gain_bp, abs=3.5 * STANDARD_ERROR_BP)


def test_the_oracle_followed_one_bar_late_earns_phi_times_the_gain():
    """r[t+1] depends on r[t-1] by phi squared, so being late has to show; if not, time is shifted."""
    market = drawn("ar1")
    positions = oracle("ar1", 0.0).positions(market.signals)
    late = np.concatenate([[0], positions[:-1]])
    expected = -0.3 * MEAN_ABSOLUTE_NORMAL * 0.3 * 6.0
    assert evaluate_positions(late, market.returns, 0.0) == pytest.approx(
        expected, abs=3.5 * STANDARD_ERROR_BP
    )


def test_without_cost_the_ar1_oracle_bets_against_the_last_return():
    market = drawn("ar1")
    positions = oracle("ar1", 0.0).positions(market.signals)
    outside_the_middle_cell = np.abs(market.signals["x_return"]) > 0.02
    np.testing.assert_array_equal(
        positions[outside_the_middle_cell], -np.sign(market.signals["x_return"][outside_the_middle_cell])
    )


def test_costs_make_the_oracle_trade_less_and_earn_more_than_the_cost_blind_rule():
    market = drawn("ar1", phi=-0.1)
    blind = -np.sign(market.returns)
    careful = oracle("ar1", 0.5, phi=-0.1).positions(market.signals)
    assert np.abs(np.diff(careful)).sum() < 0.5 * np.abs(np.diff(blind)).sum()
    assert (
        evaluate_positions(blind, market.returns, 0.5)
        < 0.0
        < evaluate_positions(careful, market.returns, 0.5)
    )


def test_a_signal_in_the_middle_keeps_whatever_position_is_held():
    choice = oracle("planted", 0.5).choice
    middle = len(choice) // 2
    assert choice[middle].tolist() == [0, 1, 2]


# ---- what is refused -----------------------------------------------------------------------------


def test_every_market_has_an_oracle():
    assert set(CHAINS) == set(MARKETS)


def test_a_signal_too_slow_for_the_grid_is_refused_instead_of_answered_wrongly():
    with pytest.raises(UsageError, match=r"Use a coefficient of at most 0\.997"):
        solve("planted", cost_bp=0.5, rho=0.9999)


def test_a_negative_cost_and_a_market_one_cannot_leave_are_refused():
    with pytest.raises(UsageError, match="0 or more"):
        solve("ar1", cost_bp=-0.5)
    with pytest.raises(UsageError, match="have to hold 0"):
        solve("ar1", cost_bp=0.5, allowed=(-1, 1))
