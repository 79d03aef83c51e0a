"""A learner that is right solves the pole on the cart."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from rl.algorithms.ppo import PPO, PPOConfig
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.policies.forward import greedy, logits_batch, pack

STEPS = 65_536


def poles(count: int) -> gymnasium.vector.VectorEnv:
    """Return so many poles, each set up again in the step it falls in."""
    return gymnasium.make_vec(
        "CartPole-v1",
        num_envs=count,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
    )


def mean_return(policy: ActorCritic, episodes: int = 20) -> float:
    """Return the mean return of the greedy policy over fresh episodes."""
    packed = pack(policy)
    envs = poles(episodes)
    observations, _ = envs.reset(seed=1234)
    returns, is_running = np.zeros(episodes), np.ones(episodes, dtype=bool)
    while is_running.any():
        actions = np.array([greedy(row) for row in logits_batch(packed, observations)])
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        returns += rewards * is_running
        is_running &= ~(terminated | truncated)
    return float(returns.mean())


@pytest.mark.parametrize("seed", [1, 2])
def test_ppo_balances_the_pole(seed):
    """500 is the most an episode can bring; an untrained policy falls after about 20 steps."""
    envs = poles(16)
    policy = build_policy({"encoder": "mlp", "observations": 4, "actions": 2, "hidden": [64, 64]}, seed)
    config = PPOConfig(
        learning_rate=2.5e-3,
        schedule="linear",
        rollout_steps=64,
        batch_size=128,
        epochs=10,
        gamma=0.98,
        gae_lambda=0.9,
        clip_epsilon=0.2,
        entropy_coef=0.0,
    )
    before = mean_return(policy)
    PPO(policy, envs, config, seed).train(STEPS)
    assert before < 150
    assert mean_return(policy) >= 450
