"""Is a mixture held against one network of its own size, and does the report say which of them won?"""

from __future__ import annotations

import json

import numpy as np
import pytest

from rl.stages.mixture_control import Difference, MixtureControl, mixture_control
from rl.stages.moe_stage import moe_training
from rl.stages.ppo_stage import ppo_training
from tests.unit.stages.small_symbol import small_plan, small_symbol

PLAN = small_plan()
SESSIONS = 40


def silent(_: dict) -> None:
    """Nobody listens."""


def returns(mean: float, seed: int) -> np.ndarray:
    """Return session returns with exactly this mean and a spread of 10 bp. (S,)"""
    drawn = np.random.default_rng(seed).normal(size=SESSIONS)
    return mean + 1e-3 * (drawn - drawn.mean()) / drawn.std()


def control(
    mixture: np.ndarray, network: np.ndarray, stage_1: np.ndarray | None = None, **changes
) -> MixtureControl:
    def against_stage_1(of: np.ndarray) -> Difference | None:
        return None if stage_1 is None else Difference.between(of, stage_1, 0.05)

    fields = {
        "hidden": (280, 281),
        "parameters": 101,
        "mixture_parameters": 100,
        "episodes": 4,
        "best_episodes": 2,
        "mixture_attempts": 1,
        "mean_session_return": float(network.mean()),
        "mixture_against_network": Difference.between(mixture, network, 0.05),
        "mixture_against_stage_1": against_stage_1(mixture),
        "network_against_stage_1": against_stage_1(network),
        "wall_seconds": 1.0,
        "cpu_seconds": 1.0,
    }
    return MixtureControl(**{**fields, **changes})


@pytest.mark.parametrize(
    ("mixture", "network", "said"),
    [
        (0.01, 0.0, "The mixture form earns something: the mixture beats"),
        (0.0, 0.01, "The mixture form costs something: one network of as many parameters beats the mixture"),
        (0.0001, 0.0, "The mixture form earns nothing that validation can show"),
    ],
)
def test_whoever_wins_is_named(mixture, network, said):
    found = control(returns(mixture, 1), returns(network, 2))
    assert found.verdict().startswith(said)
    assert f"{1e4 * (mixture - network):+.2f} bp a session" in found.verdict()
    assert f"over {SESSIONS} sessions" in found.verdict()


def test_one_session_is_too_few_to_say():
    found = control(np.array([0.01]), np.array([0.0]))
    assert found.verdict().startswith("Whether the mixture form earns anything cannot be said")
    assert json.dumps(found.as_dict(), allow_nan=False)


def test_a_network_that_beats_stage_1_too_says_that_training_on_pays_by_itself():
    found = control(returns(0.01, 1), returns(0.01, 2), returns(0.0, 3))
    assert "That network beats stage 1 too" in found.verdict()
    assert "That network" not in control(returns(0.01, 1), returns(0.0, 2), returns(0.0, 3)).verdict()


def test_a_mixture_that_had_more_attempts_says_so():
    assert "best of 3 attempts" in control(returns(0.0, 1), returns(0.0, 2), mixture_attempts=3).verdict()


def test_the_network_is_trained_as_the_attempt_that_was_kept():
    """By its rounds and its learning rate, from its parent, with as many looks at validation."""
    data, plan = small_symbol(PLAN, sessions=60), PLAN.with_ppo(learning_rate=0.003)
    parent = ppo_training(data, PLAN, seed=0).train(4, silent)
    training = moe_training(data, plan, parent, seed=0)
    training.train(2, silent)
    mixture = training.train(4, silent)
    rates: list[float] = []
    sessions = data.sessions_in("validation")
    found = mixture_control(
        data,
        PLAN,
        mixture,
        parent,
        returns=np.zeros(sessions),
        parent_returns=np.zeros(sessions),
        attempts=2,
        report=lambda figures: rates.append(figures["learning_rate"]),
    )
    assert found.episodes == mixture.episodes == 6
    assert max(rates) > 0.002
    assert found.parameters == pytest.approx(found.mixture_parameters, rel=0.02)
    assert found.mixture_attempts == 2
    assert found.cpu_seconds > 0
