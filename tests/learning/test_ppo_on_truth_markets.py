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


def test_ppo_learns_nothing_from_features_in_random_order():
    """The control: the same bars, features shuffled in training. A learner that still earns has seen the answers."""
    assert learn("planted", cost_bp=0.5, steps=100_000, seed=0, shuffle_features=True).earned <= 0.05
