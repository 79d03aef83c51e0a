"""How much better an action turned out than the policy's average: generalised advantage estimation."""

from __future__ import annotations

import numpy as np


def estimate_advantages(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    *,
    gamma: float,
    gae_lambda: float,
) -> np.ndarray:
    """Estimate how much better each action was than the policy's average.

    Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, eq. 16).
    Axes: T steps, N environments. Advantage plus value is the critic's target.

    Args:
        rewards: Reward of each step. (T, N)
        values: Critic's value of the state acted in. (T, N)
        next_values: Critic's value of the state reached. Where an episode ended, this is the state it ended
            in, not the first state after the reset. Not read where `terminated`. (T, N)
        terminated: True where the episode came to its own end (a ruined account): nothing can follow. (T, N)
        truncated: True where it was cut off (the data ran out); it would have gone on. (T, N)
        gamma: Discount per step, in [0, 1].
        gae_lambda: Weight of longer looks ahead, in [0, 1].

    Returns:
        Advantages, float64, not standardised. (T, N)
    """
    # Sums of hundreds of discounted steps: float64 whatever the network's type.
    rewards = np.asarray(rewards, dtype=np.float64)
    values = np.asarray(values, dtype=np.float64)
    futures = np.where(terminated, 0.0, next_values)
    surprises = rewards + gamma * futures - values
    # Either kind of ending cuts the trace: the row below belongs to another episode.
    decay = np.where(np.logical_or(terminated, truncated), 0.0, gamma * gae_lambda)
    advantages = np.empty_like(surprises)
    trace = np.zeros(surprises.shape[1:])
    for t in reversed(range(len(surprises))):
        trace = surprises[t] + decay[t] * trace
        advantages[t] = trace
    return advantages
