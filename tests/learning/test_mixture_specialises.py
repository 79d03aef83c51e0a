"""A mixture learns a market of two moods: experts part by mood, that pays, and none of them can be done without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rl.stages.evaluation import packed, replay_on, returns_by_session
from rl.stages.moe_stage import moe_training
from rl.stages.specialisation import Specialisation, specialisation
from rl.stages.symbol_data import SymbolData
from tests.unit.stages.small_symbol import BARS_PER_SESSION, edge_bars, small_plan, symbol_of

PLAN = small_plan(
    "training_params.ppo.num_envs=64",
    "training_params.ppo.rollout_steps=16",
    "training_params.ppo.batch_size=256",
    "training_params.ppo.k_epochs=4",
    "training_params.ppo.learning_rate=0.003",
    "training_params.moe.num_experts=2",
    "training_params.moe.expert_hidden_dim=16",
    "training_params.moe.gating_hidden_dim=8",
    "monitoring.checkpoint_frequency=500",
)
EPISODES = 1000


def silent(_: dict) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def data() -> SymbolData:
    """Sessions of a good mood, in which x_edge has to be followed, and of a bad one, in which it has to be opposed."""
    bars = edge_bars(sessions=240)
    mood = np.repeat(np.random.default_rng(7).choice([-1.0, 1.0], size=240), BARS_PER_SESSION)
    edge = bars.extra["x_edge"] * mood
    return symbol_of(replace(bars, extra={"x_edge": edge, "x_regime_mood": mood}), PLAN)


@pytest.fixture(scope="module")
def found(data) -> Specialisation:
    model = moe_training(data, PLAN, None, seed=1).train(EPISODES, silent)
    replay = replay_on(data, packed(model), "validation", scheme="target", capital=1e5)
    assert np.mean(returns_by_session(data, replay, "validation")) > 0.002
    return specialisation(data, model, "validation", replay, scheme="target", seed=1)


def test_the_experts_part_by_mood_and_that_pays(found):
    assert found.information.nats > 0.3
    assert found.information.p < 0.05
    assert found.assignment.pays
    assert found.specialises


def test_every_expert_in_use_is_missed(found):
    assert found.use.unused == []
    for out in found.knock_outs:
        assert out is not None
        assert out.return_change < -0.05
