"""Acting in a vector environment and keeping what a policy gradient needs of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from rl.common.errors import ConfigError, TrainingDivergedError
from rl.policies.forward import HasFlatParameters, forward_batch, pack, sample_actions, values_batch


@dataclass(frozen=True, kw_only=True)
class RolloutBatch:
    """What T steps of N lanes brought. Axes: T steps, N lanes, D numbers in an observation, A actions."""

    observations: np.ndarray
    """What was seen before acting, float32. (T, N, D)"""

    actions: np.ndarray
    """What was done, int64. (T, N)"""

    log_probs: np.ndarray
    """Logarithm of the acting policy's probability of that, float32. (T, N)"""

    rewards: np.ndarray
    """float64. (T, N)"""

    values: np.ndarray
    """Critic's value of the state acted in, float32. (T, N)"""

    next_values: np.ndarray
    """Critic's value of the state reached: where an episode was truncated that of its last observation, not
    of the first one after the reset; 0 where it terminated. float32 (T, N)"""

    terminated: np.ndarray
    """True where the episode came to its own end: nothing can follow. (T, N)"""

    truncated: np.ndarray
    """True where the episode was cut off. (T, N)"""

    action_masks: np.ndarray | None
    """True where an action was allowed, or None where all always are. (T, N, A)"""

    next_observations: np.ndarray
    """Where to go on from, float32. (N, D)"""

    next_action_mask: np.ndarray | None
    """What is allowed there. (N, A)"""

    episode_returns: np.ndarray
    """Sum of rewards of each episode that ended in this batch, in the order of ending. (number ended,)"""

    episode_lengths: np.ndarray
    """Steps of each of them. (number ended,)"""


@dataclass
class LaneTotals:
    """Reward and steps of the episode each lane is in; carried from one batch to the next."""

    returns: np.ndarray
    """float64 (N,)"""

    lengths: np.ndarray
    """int64 (N,)"""

    finished_returns: list[float] = field(default_factory=list)
    finished_lengths: list[int] = field(default_factory=list)

    @classmethod
    def empty(cls, lanes: int) -> LaneTotals:
        """Return totals of lanes that have just been reset."""
        return cls(np.zeros(lanes), np.zeros(lanes, dtype=np.int64))

    def add(self, rewards: np.ndarray, ended: np.ndarray) -> None:
        """Count one step of every lane, and close the episodes that ended with it."""
        self.returns += rewards
        self.lengths += 1
        for lane in np.flatnonzero(ended):
            self.finished_returns.append(float(self.returns[lane]))
            self.finished_lengths.append(int(self.lengths[lane]))
            self.returns[lane] = 0.0
            self.lengths[lane] = 0

    def take_finished(self) -> tuple[np.ndarray, np.ndarray]:
        """Return returns and lengths of the episodes that ended since the last call, and forget them."""
        finished = np.array(self.finished_returns), np.array(self.finished_lengths, dtype=np.int64)
        self.finished_returns, self.finished_lengths = [], []
        return finished


def env_problems(envs: gymnasium.vector.VectorEnv, observations: int, actions: int) -> list[str]:
    """Return why a policy of these sizes cannot act in a vector environment; empty where it can."""
    found = []
    seen, done = envs.single_observation_space, envs.single_action_space
    if not isinstance(seen, gymnasium.spaces.Box) or seen.shape != (observations,):
        found.append(f"observations have to be a flat Box of {observations} numbers, but are {seen}")
    if not isinstance(done, gymnasium.spaces.Discrete) or done.n != actions or done.start != 0:
        found.append(f"actions have to be Discrete({actions}), but are {done}")
    mode = (envs.metadata or {}).get("autoreset_mode", AutoresetMode.SAME_STEP)
    if mode != AutoresetMode.SAME_STEP:
        found.append(
            f"autoreset_mode has to be SAME_STEP, but is {mode}; with make_vec pass "
            "vector_kwargs={'autoreset_mode': gymnasium.vector.AutoresetMode.SAME_STEP}"
        )
    return found


def final_observations(infos: dict[str, Any], lanes: np.ndarray) -> np.ndarray:
    """Return the observation in which the episode of each given lane ended.

    Args:
        infos: Of the step; `final_obs` is (N, D), or (N,) of objects as Gymnasium's own vectors make it.
        lanes: Lanes whose episode ended with this step. (L,)

    Returns:
        float32 (L, D)

    Raises:
        ConfigError: If the environment does not give them.
    """
    given = infos.get("final_obs")
    present = infos.get("_final_obs")
    if given is None or (present is not None and not np.all(np.asarray(present)[lanes])):
        raise ConfigError(
            "An episode was cut off, but the environment gave no infos['final_obs'] for it. The value of the "
            "state it was cut off in is needed; the observation after the reset belongs to another episode."
        )
    return np.stack([np.asarray(given[lane], dtype=np.float32) for lane in lanes])


def action_mask_of(infos: dict[str, Any]) -> np.ndarray | None:
    """Return which actions are allowed next, or None where the environment allows all. (N, A)"""
    mask = infos.get("action_mask")
    return None if mask is None else np.ascontiguousarray(mask, dtype=np.bool_)


def _require_finite(name: str, values: np.ndarray, step: int) -> None:
    """Raise TrainingDivergedError with step and lane if a number of one step's (N, …) array is not finite."""
    if np.isfinite(values).all():
        return
    lane = int(np.argwhere(~np.isfinite(values))[0][0])
    raise TrainingDivergedError(
        f"Environment step {step}, lane {lane}: {name} holds {values[lane]}, which is not finite.\n"
        "  It did not reach the weights. Check the environment and its data at this step."
    )


def _require_action(actions: np.ndarray, logits: np.ndarray, mask: np.ndarray | None, step: int) -> None:
    if actions.min() >= 0:
        return
    lane = int(np.argmin(actions))
    _require_finite("logits", logits, step)
    raise ConfigError(f"Environment step {step}, lane {lane}: infos['action_mask'] allows no action: {mask}")


def collect(
    envs: gymnasium.vector.VectorEnv,
    policy: HasFlatParameters,
    observations: np.ndarray,
    steps: int,
    rng: np.random.Generator,
    *,
    action_mask: np.ndarray | None = None,
    totals: LaneTotals | None = None,
    first_step: int = 0,
) -> RolloutBatch:
    """Let a policy act for `steps` steps in every lane.

    Actions are drawn by the compiled forward pass from `rng`, one uniform number per lane and step, so that
    environment state, `observations`, `action_mask`, `totals` and the generator's state are all that is
    needed to repeat or continue a rollout exactly.

    Args:
        envs: N lanes that reset themselves in the step an episode ends in (see `env_problems`).
        policy: Who acts; its weights are read once.
        observations: What the lanes show now. (N, D)
        steps: T.
        rng: Source of the draws.
        action_mask: What is allowed now, from the infos of the last reset or step. (N, A)
        totals: Running reward and length of each lane's episode, changed in place; None starts at zero.
        first_step: Number of the first step of this rollout, for messages.

    Raises:
        TrainingDivergedError: If an observation, logit or reward is not finite; names step and lane.
        ConfigError: If a lane allows no action, or an episode was cut off without its last observation.
    """
    packed = pack(policy)
    lanes = len(observations)
    totals = LaneTotals.empty(lanes) if totals is None else totals
    shape = (steps, lanes)
    seen = np.empty((*shape, packed.observations), dtype=np.float32)
    masks = None if action_mask is None else np.empty((*shape, packed.actions), dtype=np.bool_)
    actions = np.empty(shape, dtype=np.int64)
    log_probs = np.empty(shape, dtype=np.float32)
    rewards = np.empty(shape)
    values = np.empty(shape, dtype=np.float32)
    terminated = np.empty(shape, dtype=np.bool_)
    truncated = np.empty(shape, dtype=np.bool_)
    cut_values: list[tuple[int, np.ndarray, np.ndarray]] = []
    for t in range(steps):
        seen[t] = observations
        _require_finite("observations", seen[t], first_step + t)
        logits, values[t] = forward_batch(packed, seen[t])
        actions[t], log_probs[t] = sample_actions(logits, rng.random(lanes), action_mask)
        _require_action(actions[t], logits, action_mask, first_step + t)
        if masks is not None:
            masks[t] = action_mask
        observations, rewards[t], terminated[t], truncated[t], infos = envs.step(actions[t])
        _require_finite("rewards", rewards[t], first_step + t)
        # Both at once: the account is ruined whatever the calendar says, so it has no future.
        cut = np.flatnonzero(truncated[t] & ~terminated[t])
        if cut.size:
            cut_values.append((t, cut, values_batch(packed, final_observations(infos, cut))))
        totals.add(rewards[t], terminated[t] | truncated[t])
        if masks is not None:
            action_mask = action_mask_of(infos)
    next_values = np.empty_like(values)
    next_values[:-1] = values[1:]
    next_values[-1] = values_batch(packed, observations)
    next_values[terminated] = 0.0
    for t, cut, final_values in cut_values:
        next_values[t, cut] = final_values
    episode_returns, episode_lengths = totals.take_finished()
    return RolloutBatch(
        observations=seen,
        actions=actions,
        log_probs=log_probs,
        rewards=rewards,
        values=values,
        next_values=next_values,
        terminated=terminated,
        truncated=truncated,
        action_masks=masks,
        next_observations=np.array(observations, dtype=np.float32),
        next_action_mask=action_mask,
        episode_returns=episode_returns,
        episode_lengths=episode_lengths,
    )
