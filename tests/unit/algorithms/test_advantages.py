"""Generalised advantages, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from rl.algorithms.advantages import estimate_advantages

GAMMA, LAMBDA = 0.9, 0.5


def advantages(rewards, values, next_values, terminated=(), truncated=(), **settings) -> list[float]:
    """Return the advantages of one lane; endings are given as step numbers."""
    steps = len(rewards)
    column = [np.array(numbers, dtype=float).reshape(-1, 1) for numbers in (rewards, values, next_values)]
    endings = [np.isin(np.arange(steps), which).reshape(-1, 1) for which in (terminated, truncated)]
    chosen = {"gamma": GAMMA, "gae_lambda": LAMBDA} | settings
    return estimate_advantages(*column, *endings, **chosen)[:, 0].tolist()


def test_advantages_look_ahead_with_falling_weight():
    # surprises: 1 + .9*2 - 1 = 1.8;  0 + .9*3 - 2 = 0.7;  2 + .9*4 - 3 = 2.6; decay .9 * .5 = .45
    third = 2.6
    second = 0.7 + 0.45 * third
    first = 1.8 + 0.45 * second
    assert advantages([1, 0, 2], [1, 2, 3], [2, 3, 4]) == pytest.approx([first, second, third])


def test_a_ruined_account_has_no_future():
    # Step 1 ends for good: 0 - 2 = -2. Step 2 belongs to another episode and must not leak into it.
    found = advantages([1, 0, 2], [1, 2, 3], [2, 1000, 4], terminated=[1])
    assert found == pytest.approx([1.8 + 0.45 * -2.0, -2.0, 2.6])


def test_running_out_of_data_still_counts_the_value_of_the_last_state():
    # Step 1 is cut off in a state worth 5: 0 + .9*5 - 2 = 2.5; the trace is cut all the same.
    found = advantages([1, 0, 2], [1, 2, 3], [2, 5, 4], truncated=[1])
    assert found == pytest.approx([1.8 + 0.45 * 2.5, 2.5, 2.6])


def test_ruin_at_the_end_of_data_is_ruin():
    found = advantages([1, 0, 2], [1, 2, 3], [2, 5, 4], terminated=[1], truncated=[1])
    assert found[1] == pytest.approx(-2.0)


def test_a_value_after_ruin_is_not_even_read():
    assert advantages([1, 0], [1, 2], [2, np.nan], terminated=[1])[1] == -2.0


def test_without_looking_ahead_only_the_surprise_counts():
    found = advantages([1, 0, 2], [1, 2, 3], [2, 3, 4], gae_lambda=0.0)
    assert found == pytest.approx([1.8, 0.7, 2.6])


def test_looking_all_the_way_gives_the_return_less_the_value():
    # Rewards 1, 0, 2 then a state worth 4: return 1 + .9*0 + .81*2 + .729*4.
    found = advantages([1, 0, 2], [1, 2, 3], [2, 3, 4], gae_lambda=1.0)
    assert found[0] == pytest.approx(1 + 0.81 * 2 + 0.729 * 4 - 1)


def test_lanes_do_not_mix():
    rewards = np.array([[1.0, 5.0], [0.0, 5.0]])
    zeros, never = np.zeros((2, 2)), np.zeros((2, 2), dtype=bool)
    found = estimate_advantages(rewards, zeros, zeros, never, never, gamma=GAMMA, gae_lambda=LAMBDA)
    np.testing.assert_allclose(found, [[1.0, 5 + 0.45 * 5], [0.0, 5.0]])


def test_advantages_are_those_of_stable_baselines():
    """Its buffer knows no truncation; the value of the last state is added to the reward beforehand."""
    rng = np.random.default_rng(1)
    steps, lanes, gamma = 50, 4, 0.97
    rewards, values = rng.normal(size=(2, steps, lanes)).astype(np.float32)
    final_values = rng.normal(size=(steps, lanes)).astype(np.float32)
    last_values = rng.normal(size=lanes).astype(np.float32)
    ending = rng.random((steps, lanes))
    terminated, truncated = ending < 0.05, ending > 0.9
    ended = terminated | truncated
    next_values = np.concatenate([values[1:], last_values[None]])
    found = estimate_advantages(
        rewards,
        values,
        np.where(truncated, final_values, next_values),
        terminated,
        truncated,
        gamma=gamma,
        gae_lambda=0.9,
    )
    buffer = RolloutBuffer(
        steps, spaces.Box(-1, 1, (1,)), spaces.Discrete(2), "cpu", gae_lambda=0.9, gamma=gamma, n_envs=lanes
    )
    buffer.rewards = rewards + np.where(truncated, gamma * final_values, 0).astype(np.float32)
    buffer.values = values
    buffer.episode_starts = np.concatenate([np.zeros((1, lanes)), ended[:-1]]).astype(np.float32)
    buffer.compute_returns_and_advantage(torch.from_numpy(last_values), ended[-1])
    np.testing.assert_allclose(found, buffer.advantages, atol=1e-5)
