"""A correct learner comes close to the best policy of a market that has one, and learns nothing from noise."""

from __future__ import annotations

import pytest

from rl.stages.known_answer import learn

STEPS = 330_000


@pytest.mark.parametrize("seed", [0, 1])
def test_ppo_reaches_the_oracle_of_a_market_that_reverts_from_bar_to_bar(seed):
    """AR(1) with coefficient -0.3 at 0.5 bp: fast signal, costs decide how much of it is worth taking."""
    assert learn("ar1", cost_bp=0.5, steps=STEPS, seed=seed, phi=-0.3).share >= 0.85


@pytest.mark.parametrize("seed", [0, 1])
def test_ppo_reaches_the_oracle_of_a_market_with_a_planted_feature(seed):
    """One of forty features explains 2 % of the next bar; the others, a decoy among them, explain nothing."""
    assert learn("planted", cost_bp=0.5, steps=STEPS, seed=seed).share >= 0.85


@pytest.mark.parametrize(
    ("kind", "cost_bp", "steps"), [("ou", 1.0, STEPS), ("hamilton", 0.5, STEPS), ("momrev", 0.5, 655_000)]
)
def test_ppo_comes_close_to_the_oracle_of_a_slow_a_hidden_and_a_changing_signal(kind, cost_bp, steps):
    """The mark for the mean over five seeds is .90 (`python -m rl doctor --full`); a single one may miss it by .05."""
    assert learn(kind, cost_bp=cost_bp, steps=steps, seed=0).share >= 0.85


@pytest.mark.parametrize(
    ("kind", "params"), [("ar1", {"phi": -0.1}), ("planted", {"r2": 0.002, "rho": 0.98})]
)
def test_ppo_earns_from_a_weak_signal_what_its_mark_asks_for_within_chance(kind, params):
    """The mark for the mean over five seeds is .60. On 250 sessions of so weak a signal the share of the very same two
    policies differs from path to path; three standard errors of that are allowed. The cost-blind rule loses."""
    learned = learn(kind, cost_bp=0.5, steps=STEPS, seed=0, **params)
    assert learned.share >= 0.60 - 3.0 * learned.error / learned.oracle
    assert learned.earned > learned.earned_error


def test_ppo_learns_a_direction_for_each_of_four_regimes_among_forty_features_that_say_nothing():
    """Of no use is a learner that hears later bars' noise in each advantage, nor one that takes regime 3 for thrice
    regime 1: with gae_lambda .95 the share is .1, with the regime as one number .5."""
    assert learn("moe_wide", cost_bp=0.25, steps=655_000, seed=0).share >= 0.70


def test_ppo_stops_trading_where_nothing_can_be_earned():
    learned = learn("noise_garch", cost_bp=0.5, steps=STEPS, seed=0)
    assert learned.earned >= -0.05
    # After 2,000 steps it is 14 trades a session that cost .09 bp a bar, after 30,000 still 5 and .06.
    assert learned.trades_per_session < 4


def test_ppo_learns_nothing_from_features_in_random_order():
    """The control: the same bars, features shuffled in training. A learner that still earns has seen the answers."""
    assert learn("planted", cost_bp=0.5, steps=100_000, seed=0, shuffle_features=True).earned <= 0.05
