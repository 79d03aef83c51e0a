"""Vector environments small enough to know what has to come out."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode


class CountingLanes(gymnasium.vector.VectorEnv):
    """Lanes that count their steps; lane i's episode ends after `lengths[i]` steps.

    Observation: (steps since the reset, lane number, 1). Reward: 10 * lane + steps before acting. Even lanes
    terminate, odd lanes are truncated. Action 0 is forbidden in lane 0 where `masks` is set.
    """

    metadata: ClassVar = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, lengths: list[int], *, masks: bool = False, gives_final_obs: bool = True) -> None:
        self.num_envs = len(lengths)
        self.single_observation_space = gymnasium.spaces.Box(-100, 100, (3,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(3)
        self.lengths = np.array(lengths)
        self.clock = np.zeros(self.num_envs, dtype=np.int64)
        self.masks = masks
        self.gives_final_obs = gives_final_obs
        self.bad_reward_at: tuple[int, int] | None = None
        self.taken = 0

    def observe(self) -> np.ndarray:
        lanes = np.arange(self.num_envs)
        return np.stack([self.clock, lanes, np.ones(self.num_envs)], axis=1).astype(np.float32)

    def mask(self) -> dict[str, Any]:
        allowed = np.ones((self.num_envs, 3), dtype=bool)
        allowed[0, 0] = False
        return {"action_mask": allowed} if self.masks else {}

    def reset(self, *, seed=None, options=None):
        self.clock[:] = 0
        return self.observe(), self.mask()

    def step(self, actions):
        rewards = 10.0 * np.arange(self.num_envs) + self.clock
        if self.bad_reward_at is not None and self.taken == self.bad_reward_at[0]:
            rewards[self.bad_reward_at[1]] = np.nan
        self.taken += 1
        self.clock += 1
        ended = self.clock >= self.lengths
        is_even = np.arange(self.num_envs) % 2 == 0
        infos = self.mask()
        if ended.any() and self.gives_final_obs:
            infos |= {"final_obs": self.observe(), "_final_obs": ended}
        self.clock[ended] = 0
        return self.observe(), rewards, ended & is_even, ended & ~is_even, infos


class GuessingLanes(gymnasium.vector.VectorEnv):
    """Each lane shows one of three signs, drawn by its own generator; naming it pays 1.

    Episodes last 8 steps; every second one is truncated, the others terminate.
    """

    metadata: ClassVar = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, lanes: int) -> None:
        self.num_envs = lanes
        self.single_observation_space = gymnasium.spaces.Box(0, 1, (3,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(3)
        self.rng = np.random.default_rng(0)
        self.signs = np.zeros(lanes, dtype=np.int64)
        self.clock = np.zeros(lanes, dtype=np.int64)

    def observe(self) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[self.signs]

    def reset(self, *, seed=None, options=None):
        self.rng = np.random.default_rng(seed)
        self.signs = self.rng.integers(3, size=self.num_envs)
        self.clock = np.arange(self.num_envs) % 8
        return self.observe(), {}

    def step(self, actions):
        rewards = (actions == self.signs).astype(float)
        self.signs = self.rng.integers(3, size=self.num_envs)
        self.clock += 1
        ended = self.clock % 8 == 0
        is_cut = ended & (self.clock % 16 == 0)
        infos = {"final_obs": self.observe(), "_final_obs": ended} if ended.any() else {}
        self.signs[ended] = self.rng.integers(3, size=int(ended.sum()))
        return self.observe(), rewards, ended & ~is_cut, is_cut, infos

    def get_state(self) -> dict[str, Any]:
        state = self.rng.bit_generator.state
        return {"signs": self.signs.copy(), "clock": self.clock.copy(), "rng": state}

    def set_state(self, state: dict[str, Any]) -> None:
        self.signs = np.array(state["signs"])
        self.clock = np.array(state["clock"])
        self.rng.bit_generator.state = state["rng"]
