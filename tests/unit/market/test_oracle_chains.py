"""Markets as chains: does each know what a policy can see, no more and no less, and move as the market does?"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest
from scipy.stats import norm

from rl.common.errors import UsageError
from rl.market.oracle_chains import CHAINS, IndependentMoves
from rl.market.oracles import LONG_SHORT, best_policy
from rl.market.synthetic import MARKETS, SyntheticMarket, generate, resolved_params

SESSIONS = 500
BARS = SESSIONS * 187
BELIEF_STEPS = 300
HALF_SPREAD = 1e-4
SIGMA = 6e-4


@cache
def drawn(name: str, **params: float) -> SyntheticMarket:
    return generate(name, SESSIONS, seed=7, **params)


SIGNALS = [
    ("bounce", {"half_spread_bp": 3.0}),
    ("ar1", {}),
    ("ou", {}),
    ("hamilton", {}),
    ("planted", {}),
    ("momrev", {}),
    ("moe4", {}),
    ("moe4", {"rho": 0.9}),
    ("moe_wide", {}),
    ("task", {}),
    ("task", {"rho": 0.9, "theta": 4.0}),
]


def slope_and_error(left: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Return the slope of right on left through the means, and its standard error."""
    left, right = left - left.mean(), right - right.mean()
    slope = (left @ right) / (left @ left)
    return slope, np.sqrt(np.mean((right - slope * left) ** 2) / (left @ left))


# ---- every market --------------------------------------------------------------------------------


def test_every_market_has_a_chain():
    assert list(CHAINS) == list(MARKETS)


@pytest.mark.parametrize("name", MARKETS)
def test_a_state_does_not_change_when_later_bars_are_not_there_yet(name):
    """An oracle that sees tomorrow sets a mark nobody can reach."""
    chain = CHAINS[name](**resolved_params(name))
    signals = generate(name, 3, seed=5).signals
    whole = chain.state_of(signals)
    for bars in (1, 2, 100, 400):
        shorter = {column: values[:bars] for column, values in signals.items()}
        np.testing.assert_array_equal(chain.state_of(shorter), whole[:bars])


@pytest.mark.parametrize(("name", "params"), SIGNALS)
def test_the_next_return_is_what_the_state_promises(name, params):
    """Regressed on the promise, next returns have slope 1; a signal misread or a bar late has another."""
    market = drawn(name, **params)
    chain = CHAINS[name](**market.params)
    promised = chain.mean_return_bp[chain.state_of(market.signals)]
    slope, error = slope_and_error(promised[:-1], market.returns[1:] * 1e4)
    assert error < 0.1
    assert slope == pytest.approx(1.0, abs=4.0 * error)
    late, error = slope_and_error(promised[:-2], market.returns[2:] * 1e4)
    if name in ("ar1", "moe4", "moe_wide", "task", "bounce") and not params.get("rho"):
        assert abs(late - 1.0) > 4.0 * error


@pytest.mark.parametrize(("name", "params"), SIGNALS)
def test_the_next_state_is_where_the_chain_expects_it(name, params):
    """Size and sign of the next promise are what the transition says in the mean over all bars, and bar by bar."""
    market = drawn(name, **params)
    chain = CHAINS[name](**market.params)
    states = chain.state_of(market.signals)
    # The sign of the promise moves on in ar1 and planted, its size in hamilton and momrev.
    for feature in (chain.mean_return_bp, np.abs(chain.mean_return_bp)):
        expected = (chain.transition @ feature)[states[:-1]]
        found = feature[states[1:]]
        spread = found.std()
        assert np.mean(found - expected) == pytest.approx(0.0, abs=0.03 * spread)
        if expected.std() > 0.2 * spread:
            slope, error = slope_and_error(expected, found)
            assert slope == pytest.approx(1.0, abs=4.0 * error + 0.005)


@pytest.mark.parametrize("name", [name for name in MARKETS if not name.startswith("moe")])
def test_the_rows_of_a_transition_add_up_to_one(name):
    transition = CHAINS[name](**resolved_params(name)).transition
    assert isinstance(transition, np.ndarray)
    assert transition.min() >= 0.0
    np.testing.assert_allclose(transition.sum(axis=1), 1.0, atol=1e-12)


# ---- beliefs -------------------------------------------------------------------------------------


def posterior(returns: np.ndarray, likelihood, change) -> float:
    """Return the chance of hidden state 0 after the last return, by adding up every hidden path. By definition."""
    weight = [0.0, 0.0]
    for path in product((0, 1), repeat=len(returns) + 1):
        chance = 0.5
        for bar, observed in enumerate(returns):
            old, new = path[bar], path[bar + 1]
            chance *= change[old][new] * likelihood(observed, old, new)
        weight[path[-1]] += chance
    return weight[0] / sum(weight)


def test_the_hamilton_belief_is_bayes_rule_over_every_hidden_path():
    market = generate("hamilton", 1, seed=3, bars_per_session=9, mu_bp=6.0, stay=0.8)
    states = CHAINS["hamilton"](mu_bp=6.0, stay=0.8).state_of(market.signals)
    drifts = (6e-4, -6e-4)
    for bars in range(1, 10):
        expected = posterior(
            market.returns[:bars],
            lambda observed, old, new: norm.pdf(observed, drifts[old], SIGMA),
            [[0.8, 0.2], [0.2, 0.8]],
        )
        assert states[bars - 1] == pytest.approx(BELIEF_STEPS * expected, abs=0.51)
    assert np.ptp(states) > 100


def test_the_bounce_belief_is_bayes_rule_over_every_sequence_of_sides():
    """Prices are bid or ask of an unseen mid; to first order a return is the mid's move plus the change of side."""
    market = generate("bounce", 1, seed=3, bars_per_session=9, half_spread_bp=6.0)
    states = CHAINS["bounce"](half_spread_bp=6.0).state_of(market.signals)
    sides = (-6e-4, 6e-4)
    for bars in range(1, 10):
        expected = posterior(
            market.returns[:bars],
            lambda observed, old, new: norm.pdf(observed, sides[new] - sides[old], SIGMA),
            [[0.5, 0.5], [0.5, 0.5]],
        )
        assert states[bars - 1] == pytest.approx(BELIEF_STEPS * expected, abs=1.5)
    assert np.ptp(states) > 100


@pytest.mark.parametrize(("name", "params"), [("hamilton", {}), ("bounce", {"half_spread_bp": 3.0})])
def test_a_belief_of_seventy_percent_is_right_seventy_times_in_a_hundred(name, params):
    market = drawn(name, **params)
    belief = CHAINS[name](**market.params).state_of(market.signals) / BELIEF_STEPS
    assert market.regime is not None
    for low in (0.1, 0.3, 0.5, 0.7):
        inside = (belief >= low) & (belief < low + 0.2)
        assert inside.sum() > 1000
        # Beliefs of neighbouring bars are alike, so far fewer of them are independent than there are bars.
        assert np.mean(market.regime[inside] == 0) == pytest.approx(belief[inside].mean(), abs=0.03)


def test_a_return_far_out_leaves_a_belief_and_not_a_division_by_zero():
    far = {"x_return": np.array([0.0, 300.0, -300.0, 0.0])}
    for name in ("hamilton", "bounce"):
        states = CHAINS[name](**resolved_params(name)).state_of(far)
        assert states.min() >= 0
        assert states.max() <= BELIEF_STEPS


def test_a_regime_that_hardly_ever_ends_is_refused_instead_of_answered_wrongly():
    with pytest.raises(UsageError, match=r"Use a stay between 0\.0033 and 0\.9967"):
        CHAINS["hamilton"](mu_bp=1.2, stay=0.9999)


# ---- bounce --------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9, 1.0, 2.0])
def test_who_sees_only_closes_never_earns_more_than_who_knows_the_side(share):
    """The informed trader is long at every bid and short at every ask: h a bar, less half a turn of two units."""
    half_spread_bp = 5.0
    cost_bp = share * half_spread_bp
    informed, _ = best_policy(
        np.full((2, 2), 0.5), np.array([half_spread_bp, -half_spread_bp]), cost_bp, LONG_SHORT
    )
    assert informed == pytest.approx(max(0.0, half_spread_bp - cost_bp), abs=1e-7)
    chain = CHAINS["bounce"](half_spread_bp=half_spread_bp)
    seen, choice = best_policy(chain.transition, chain.mean_return_bp, cost_bp, LONG_SHORT)
    assert -1e-7 <= seen <= informed + 1e-7
    if share < 0.9:
        assert 0.01 < seen < 0.9 * informed
    if share >= 1.0:
        assert seen == pytest.approx(0.0, abs=1e-7)
        assert (choice[:, 1] == 1).all()


def test_without_cost_one_return_tells_nearly_all_that_closes_tell_about_the_side():
    """E|h (2 P(bid) - 1)| where P(bid) is Bayes' rule on one return alone, integrated here without the chain."""
    half_spread, sigma = 1.0, 6.0
    returns = np.linspace(-40.0, 40.0, 20_001)
    at = {step: norm.pdf(returns, step, sigma) for step in (-2.0, 0.0, 2.0)}
    to_bid = 0.25 * (at[0.0] + at[-2.0])  # old side bid or ask, new side bid
    to_ask = 0.25 * (at[0.0] + at[2.0])
    one_return = half_spread * np.sum(np.abs(to_bid - to_ask)) * (returns[1] - returns[0])
    chain = CHAINS["bounce"](half_spread_bp=half_spread)
    gain, _ = best_policy(chain.transition, chain.mean_return_bp, 0.0, LONG_SHORT)
    assert one_return == pytest.approx(0.1306, abs=1e-4)
    assert one_return - 1e-4 < gain < 1.002 * one_return


# ---- directions in the space of features ---------------------------------------------------------


def test_moves_of_independent_parts_are_their_kronecker_product():
    rng = np.random.default_rng(0)
    parts = tuple(rng.dirichlet(np.ones(size), size) for size in (2, 3, 4))
    written_out = np.kron(np.kron(parts[0], parts[1]), parts[2])
    for values in (rng.standard_normal(24), rng.standard_normal((24, 3))):
        np.testing.assert_allclose(IndependentMoves(parts) @ values, written_out @ values, atol=1e-14)


def test_white_features_followed_one_by_one_give_the_gain_of_their_sum_alone():
    """With rho 0 the features need no grid over time; with a rho that is almost 0 they are followed all the same."""

    def gain(rho: float, cost_bp: float) -> float:
        chain = CHAINS["moe4"](r2=0.05, rho=rho, stay=0.99)
        return best_policy(chain.transition, chain.mean_return_bp, cost_bp, LONG_SHORT)[0]

    for cost_bp in (0.0, 0.25):
        assert gain(1e-9, cost_bp) == pytest.approx(gain(0.0, cost_bp), rel=0.002)


def test_the_oracle_of_a_task_knows_theta():
    market = drawn("task")
    right, wrong = (CHAINS["task"](r2=0.05, rho=0.0, theta=theta) for theta in (0.7, 0.7 + np.pi / 2))
    following = market.returns[1:] * 1e4
    promised = right.mean_return_bp[right.state_of(market.signals)][:-1]
    elsewhere = wrong.mean_return_bp[wrong.state_of(market.signals)][:-1]
    assert np.corrcoef(promised, following)[0, 1] == pytest.approx(np.sqrt(0.05), abs=4.0 / np.sqrt(BARS))
    assert np.corrcoef(elsewhere, following)[0, 1] == pytest.approx(0.0, abs=4.0 / np.sqrt(BARS))
