"""The comparison with Stable-Baselines3: equal settings for both, episodes judged to their end."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.second_opinion import LEARNERS, TASKS, Judged, mean_return, table


def test_an_episode_counts_until_it_ends_and_no_further():
    """Always pushing the cart to the right, the pole falls after 8 to 11 steps; others run on longer."""
    pushed = mean_return(
        "CartPole-v1", lambda observations: np.ones(len(observations), dtype=np.int64), episodes=20
    )
    assert 8 <= pushed <= 11


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_settings_that_both_learners_can_use(name):
    task = TASKS[name]
    assert task.config.problems() == []
    # Stable-Baselines3 would leave a minibatch smaller where the size did not divide a rollout.
    assert task.lanes * task.config.rollout_steps % task.config.batch_size == 0


def test_the_table_shows_mean_and_range_over_seeds():
    found = [
        Judged(learner=learner, task="cartpole", seed=seed, mean_return=value, cpu_seconds=3.0)
        for learner in LEARNERS
        for seed, value in ((0, 500.0), (1, 400.0))
    ]
    lines = table(found).splitlines()[2:]
    assert lines[0] == "| CartPole-v1 | 100,000 | this project | 450.0 | 400.0 | 500.0 | 2 | 3 |"
    assert len(lines) == 2
