"""The best policies and some simple rules followed on 374,000 bars, as long as the known figures were taken on."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import norm

from rl.market.oracles import (
    LONG_ONLY,
    LONG_SHORT,
    evaluate_positions,
    oracle_of,
    session_oracle_of,
)
from rl.market.synthetic import SyntheticMarket, generate

SESSIONS = 2000
BARS_PER_SESSION = 187
BARS = SESSIONS * BARS_PER_SESSION
STANDARD_ERROR_BP = 6.0 / np.sqrt(BARS)
"""A position of one unit earns 6 bp of noise a bar, so a mean over this path is known to about .01 bp."""

BARS_PER_YEAR = 187 * 250


@cache
def drawn(name: str, **params: float) -> SyntheticMarket:
    return generate(name, SESSIONS, seed=7, **params)


def per_bar_bp(positions: np.ndarray, market: SyntheticMarket, cost_bp: float) -> np.ndarray:
    """Return what each bar earned after costs, written down again without the product. (T - 1,)"""
    held = positions[:-1].astype(np.float64)
    before = np.concatenate([[0.0], held[:-1]])
    return 1e4 * held * market.returns[1:] - cost_bp * np.abs(held - before)


def block_error(values: np.ndarray) -> float:
    """Return the standard error of a mean whose terms are alike within sessions, from means of ten sessions."""
    block = 10 * BARS_PER_SESSION
    means = values[: len(values) // block * block].reshape(-1, block).mean(axis=1)
    return float(means.std(ddof=1) / np.sqrt(len(means)))


def moving_averages(market: SyntheticMarket) -> np.ndarray:
    """Return the side of the exponential average over 5 bars against that over 20. (T,)"""
    moves = market.closes - market.closes[0]
    fast, slow = (lfilter([2.0 / (n + 1)], [1.0, 2.0 / (n + 1) - 1.0], moves) for n in (5, 20))
    return np.sign(fast - slow)


# ---- the best policies ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params", "cost_bp"),
    [
        ("noise_drift", {}, 0.5),
        ("bounce", {}, 0.0),
        ("bounce", {"half_spread_bp": 5.0}, 2.5),
        ("ar1", {"phi": -0.3}, 0.5),
        ("ar1", {"phi": -0.1}, 0.5),
        ("ou", {}, 1.0),
        ("hamilton", {}, 0.5),
        ("planted", {}, 0.5),
        ("planted", {"r2": 0.002, "rho": 0.98}, 0.5),
        ("planted", {"r2": 0.0005, "rho": 0.99}, 0.5),
        ("momrev", {}, 0.5),
        ("moe4", {}, 0.25),
        ("moe4", {"rho": 0.9}, 0.25),
        ("moe_wide", {}, 0.25),
        ("task", {}, 0.25),
    ],
)
def test_endless_flat_at_the_close_and_long_only_each_earn_their_own_gain(name, params, cost_bp):
    market = drawn(name, **params)
    endless = oracle_of(market, cost_bp=cost_bp)
    by_session = session_oracle_of(market, cost_bp=cost_bp)
    long_only = oracle_of(market, cost_bp=cost_bp, allowed=LONG_ONLY)
    earned = {}
    for oracle in (endless, by_session, long_only):
        positions = oracle.positions(market.signals)
        assert positions.dtype == np.int8
        assert set(np.unique(positions)) <= set(oracle.allowed)
        bars = per_bar_bp(positions, market, cost_bp)
        assert evaluate_positions(positions, market.returns, cost_bp) == pytest.approx(bars.mean(), abs=1e-9)
        error = max(STANDARD_ERROR_BP, block_error(bars))
        assert bars.mean() == pytest.approx(oracle.gain_bp, abs=3.0 * error)
        earned[id(oracle)] = bars
    flat = by_session.positions(market.signals)
    assert not flat[BARS_PER_SESSION - 1 :: BARS_PER_SESSION].any()
    # On the same bars the noise is mostly the same, so what being flat at night costs shows more sharply.
    loses = earned[id(endless)] - earned[id(by_session)]
    assert loses.mean() == pytest.approx(endless.gain_bp - by_session.gain_bp, abs=3.5 * block_error(loses))
    assert by_session.gain_bp < endless.gain_bp
    assert long_only.gain_bp < endless.gain_bp or name == "noise_drift"


@pytest.mark.parametrize("name", ["noise_gauss", "noise_garch", "bounce"])
@pytest.mark.parametrize("allowed", [LONG_SHORT, LONG_ONLY])
def test_where_nothing_can_be_earned_every_best_policy_stays_flat(name, allowed):
    market = drawn(name)
    for oracle in (
        oracle_of(market, cost_bp=1.0, allowed=allowed),
        session_oracle_of(market, cost_bp=1.0, allowed=allowed),
    ):
        assert oracle.gain_bp == pytest.approx(0.0, abs=1e-7)
        assert not oracle.positions(market.signals).any()


# ---- simple rules --------------------------------------------------------------------------------


def test_bounce_pays_last_bar_reversal_on_paper_and_ruins_it_at_the_true_spread():
    market = drawn("bounce")
    reversal = -np.sign(market.returns)
    # r[t] holds 0 or 2 bp of the side it ends on, each half of the time, in noise of 6 bp: its sign is right about
    # that side, which turns the next return by 1 bp, that much more often than wrong.
    earns = 0.5 * (2.0 * norm.cdf(2.0 / 6.0) - 1.0)
    # Neighbouring returns have correlation -1 / 38, so their signs differ in this share of bars; each turn is 2 units.
    turns = 0.5 + np.arcsin(1.0 / 38.0) / np.pi
    assert (earns, turns) == pytest.approx((0.1306, 0.5084), abs=1e-4)
    for cost_bp, sharpe in ((0.0, 4.6), (1.0, -30.7)):
        bp_per_bar = earns - 2.0 * cost_bp * turns
        bars = per_bar_bp(reversal, market, cost_bp)
        assert bars.mean() == pytest.approx(bp_per_bar, abs=3.0 * STANDARD_ERROR_BP)
        # The sampling error of a yearly Sharpe ratio over eight years is 1 / sqrt(8).
        yearly = bars.mean() / bars.std() * np.sqrt(BARS_PER_YEAR)
        assert yearly == pytest.approx(sharpe, abs=3.0 / np.sqrt(BARS / BARS_PER_YEAR))


@pytest.mark.parametrize(
    ("name", "params", "cost_bp", "bp_per_bar", "times_error"),
    [
        # Figures of another generator of the same markets, on as many bars of another draw.
        ("ar1", {"phi": -0.3}, 0.0, -0.1908, 1.0),
        ("ar1", {"phi": 0.3}, 0.5, 0.2487, 1.0),
        ("ou", {}, 0.0, -0.2946, 1.0),
        ("hamilton", {}, 0.0, 0.6598, 1.5),
        ("hamilton", {}, 1.0, 0.5725, 1.5),
        ("planted", {}, 0.0, 0.2512, 1.0),
        ("momrev", {}, 0.0, 0.0588, 1.0),
        ("momrev", {}, 0.5, -0.0043, 1.0),
        ("moe4", {}, 0.0, -0.0024, 1.0),
        ("moe_wide", {}, 0.25, -0.0435, 1.0),
        ("task", {}, 0.25, -0.0270, 1.0),
        ("bounce", {}, 1.0, -0.1358, 1.0),
        ("noise_gauss", {}, 0.5, -0.0502, 1.0),
        ("noise_drift", {}, 0.5, -0.0475, 1.0),
    ],
)
def test_two_moving_averages_earn_what_they_are_known_to_earn(name, params, cost_bp, bp_per_bar, times_error):
    market = drawn(name, **params)
    earned = evaluate_positions(moving_averages(market), market.returns, cost_bp)
    # Both figures have a sampling error; a drift that lasts a hundred bars adds to it.
    error = times_error * np.sqrt(2.0) * STANDARD_ERROR_BP
    assert earned == pytest.approx(bp_per_bar, abs=2.5 * error)


@pytest.mark.parametrize(
    ("name", "cost_bp", "bp_per_bar"),
    [("ar1", 0.5, 0.8507), ("ou", 1.0, 0.4261), ("momrev", 0.5, 0.9425), ("task", 0.25, 0.8234)],
)
def test_the_sign_of_the_signal_alone_earns_less_than_the_best_policy_once_trading_costs(
    name, cost_bp, bp_per_bar
):
    market = drawn(name)
    blind = oracle_of(market, cost_bp=0.0).positions(market.signals)
    careful = oracle_of(market, cost_bp=cost_bp).positions(market.signals)
    earned = evaluate_positions(blind, market.returns, cost_bp)
    assert earned == pytest.approx(bp_per_bar, abs=2.5 * np.sqrt(2.0) * STANDARD_ERROR_BP)
    assert earned < evaluate_positions(careful, market.returns, cost_bp)


@pytest.mark.parametrize("name", ["moe4", "moe_wide"])
def test_no_linear_rule_earns_anything_where_the_directions_add_up_to_zero(name):
    """Fitted and judged on the same bars, the best linear rule still explains nothing but chance."""
    market = drawn(name)
    assert market.regime is not None
    features = np.column_stack([values for column, values in market.signals.items() if column != "x_regime"])
    following = market.returns[1:] * 1e4
    fitted, *_ = np.linalg.lstsq(features[:-1], following, rcond=None)
    # Each of four regimes lasts 100 bars, so the shares of time in them differ by chance: a little is left over.
    assert evaluate_positions(np.sign(features @ fitted), market.returns, 0.0) < 6.0 * STANDARD_ERROR_BP
    inside = market.regime[:-1] == 0
    within, *_ = np.linalg.lstsq(features[:-1][inside], following[inside], rcond=None)
    rule = np.where(market.regime == 0, np.sign(features @ within), 0.0)
    a_quarter = 0.25 * np.sqrt(2.0 / np.pi) * np.sqrt(0.05) * 6.0
    assert evaluate_positions(rule, market.returns, 0.0) == pytest.approx(a_quarter, abs=0.03)
