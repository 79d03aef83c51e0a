"""A policy acting in many accounts for many bars, in one compiled call.

The same steps as a loop over `VectorTradingEnv.step`, bit for bit, without the interpreter between two bars. It serves
adaptation, whose rollouts are short and many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rl.common.compiled import njit
from rl.envs.lanes import BAR, step_lanes
from rl.policies.forward import policy_logits_from_prefix, sample_actions


@dataclass(frozen=True, kw_only=True)
class Acted:
    """What happened. Axes: T bars, N accounts, D numbers in an observation, A actions."""

    observations: np.ndarray
    """What was seen before acting, float32. (T, N, D)"""
    reached: np.ndarray
    """What was seen after; where an episode ended, what it ended in. float32 (T, N, D)"""
    actions: np.ndarray
    """int64. (T, N)"""
    log_probs: np.ndarray
    """Logarithm of the policy's probability of each, float32. (T, N)"""
    rewards: np.ndarray
    """float64. (T, N)"""
    terminated: np.ndarray
    """(T, N)"""
    truncated: np.ndarray
    """(T, N)"""
    action_masks: np.ndarray
    """True where an action was allowed. (T, N, A)"""


def room_for(steps: int, lanes: int, width: int, actions: int) -> Acted:
    """Return arrays to be filled by `act_lanes`."""
    return Acted(
        observations=np.empty((steps, lanes, width), dtype=np.float32),
        reached=np.empty((steps, lanes, width), dtype=np.float32),
        actions=np.empty((steps, lanes), dtype=np.int64),
        log_probs=np.empty((steps, lanes), dtype=np.float32),
        rewards=np.empty((steps, lanes), dtype=np.float64),
        terminated=np.empty((steps, lanes), dtype=np.bool_),
        truncated=np.empty((steps, lanes), dtype=np.bool_),
        action_masks=np.empty((steps, lanes, actions), dtype=np.bool_),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def act_lanes(
    ohlc, features, session, session_end, tradable, atr,
    rules, windows, window_rules, episode_bars, capital, scheme,
    shape, net, scratch, prefix, prefix_first, prefix_count, uniforms,
    lanes, accounts, masks, episode_return, final_return, final_length, final_accounts, parts, fills, out,
    obs, final_obs, seen, reached, actions, log_probs, rewards, terminated, truncated, allowed,
):  # fmt: skip
    """Let a policy act until the uniforms are used up; return the number of bars done.

    Fewer than asked for means that no action could be drawn at that bar: a logit was not finite.

    Args not known from `step_lanes`:
        shape, net, scratch: The packed policy.
        prefix: First layer of the bars from row `prefix_first` on, as `first_layer` begins it; with `prefix_count` 0
            one row, the biases. (bars, E · H)
        prefix_count: Leading inputs it holds.
        uniforms: A number in [0, 1) for each action. (T, N)
        obs: What is seen now; what is seen at the end. (N, D)
        seen, reached, actions, log_probs, rewards, terminated, truncated, allowed: The arrays of `Acted`.
    """
    count, lane_count = uniforms.shape
    logits = np.empty((lane_count, allowed.shape[2]), dtype=np.float32)
    for t in range(count):
        seen[t] = obs
        allowed[t] = masks
        for i in range(lane_count):
            row = lanes[i, BAR] - prefix_first if prefix_count > 0 else 0
            policy_logits_from_prefix(shape, net, prefix[row], prefix_count, obs[i], logits[i], scratch)
        chosen, chances = sample_actions(logits, uniforms[t], masks)
        if chosen.min() < 0:
            return t
        actions[t] = chosen
        log_probs[t] = chances
        step_lanes(
            ohlc, features, session, session_end, tradable, atr,
            rules, windows, window_rules, episode_bars, capital, scheme,
            chosen, lanes, accounts, obs, rewards[t], terminated[t], truncated[t], final_obs, masks,
            episode_return, final_return, final_length, final_accounts, parts, fills, out,
        )  # fmt: skip
        for i in range(lane_count):
            reached[t, i] = final_obs[i] if (terminated[t, i] or truncated[t, i]) else obs[i]
    return count
