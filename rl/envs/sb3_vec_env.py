"""The vector environment as Stable-Baselines3's algorithms expect it: the same kernel, stepped the same way.

Importing this file needs stable-baselines3; nothing else of Stagegate does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from rl.common.errors import MissingPackageError, UsageError
from rl.envs.vector_env import VectorTradingEnv

try:
    from stable_baselines3.common.vec_env import VecEnv
except ModuleNotFoundError as missing:
    if (missing.name or "").split(".")[0] != "stable_baselines3":
        raise
    raise MissingPackageError(
        "Stable-Baselines3 is not installed; it is no part of what Stagegate needs. Install it with:\n"
        "  .venv/bin/python -m pip install -c constraints.txt stable-baselines3"
    ) from missing

SIDE_LIMIT = 1.0 / 3.0
"""A continuous action above it is long, one below its negative short, anything between flat."""


class MarketBox(gymnasium.spaces.Box):
    """Observations of one market, with what somebody who replays a model has to know of it.

    Stable-Baselines3 stores a model's spaces in its file, so the facts travel with the weights.
    """

    def __init__(self, box: gymnasium.spaces.Box, facts: Mapping[str, Any]) -> None:
        super().__init__(box.low, box.high, dtype=np.float32)
        self.facts = dict(facts)


def sides_of(actions: np.ndarray, *, continuous: bool) -> np.ndarray:
    """Return the kernel's actions for those of an algorithm.

    Args:
        actions: Whole numbers, or numbers from -1 to 1 where `continuous`. (N,) or (N, 1)
        continuous: Whether they say a side by `SIDE_LIMIT`: 0 short, 1 flat, 2 long.

    Raises:
        UsageError: A continuous action is not a number.
    """
    flat = np.asarray(actions).reshape(len(actions))
    if not continuous:
        return flat.astype(np.int64)
    if not np.isfinite(flat).all():
        # Any comparison with nan is false, so it would pass for flat.
        raise UsageError("an action is not a finite number; the algorithm's training has diverged")
    return 1 + (flat > SIDE_LIMIT).astype(np.int64) - (flat < -SIDE_LIMIT).astype(np.int64)


class SB3VecEnv(VecEnv):
    """N accounts of a `VectorTradingEnv`, whose docstring says what is observed, filled and rewarded.

    Action: as there; with `continuous`, one number from -1 to 1 for algorithms that know no other (SAC, TD3, DDPG). It
    names a side and no size: a third of the range each for short, flat and long.
    Autoreset: an account whose episode ended has begun its next one when `step` returns, as in Stable-Baselines3's own.
    Info: where an episode ended `terminal_observation` (D,), `TimeLimit.truncated` (True where it was not ruined, so
    that what follows has a value) and `episode` with its return `r`, length `l` and seconds `t`; else empty. Action
    masks are not used: what an instrument forbids is refused by the kernel and changes nothing.
    """

    def __init__(
        self, lanes: VectorTradingEnv, *, continuous: bool = False, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Adapt an environment.

        Args:
            lanes: The accounts.
            continuous: Whether actions are numbers from -1 to 1; needs the action scheme `target`.
            facts: What is to travel with the observation space.

        Raises:
            UsageError: The scheme has no sides for continuous actions.
        """
        if continuous and lanes.scheme != "target":
            raise UsageError(
                f"continuous actions name a side, which the action scheme '{lanes.scheme}' does not have; "
                "set environment.action_scheme to target"
            )
        self.lanes = lanes
        self.continuous = continuous
        self._actions = np.zeros(lanes.num_envs, dtype=np.int64)
        self._began = time.monotonic()
        space = lanes.single_observation_space
        assert isinstance(space, gymnasium.spaces.Box), "observations are flat"
        super().__init__(
            lanes.num_envs,
            MarketBox(space, facts or {}),
            gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32) if continuous else lanes.single_action_space,
        )

    def reset(self) -> np.ndarray:
        """Begin an episode in every account; seeds given to `seed` are used up by it. (N, D)"""
        # All of them or none: `seed` fills the whole list.
        obs, _ = self.lanes.reset(seed=None if None in self._seeds else list(self._seeds))
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = sides_of(actions, continuous=self.continuous)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Carry every account over one bar; return observations, rewards, who ended, and infos."""
        obs, rewards, terminated, truncated, found = self.lanes.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = terminated | truncated
        seconds = round(time.monotonic() - self._began, 6)
        for lane in np.flatnonzero(ended):
            infos[lane] = {
                "terminal_observation": found["final_obs"][lane].copy(),
                "TimeLimit.truncated": bool(truncated[lane]),
                "episode": {
                    "r": float(found["episode_return"][lane]),
                    "l": int(found["episode_length"][lane]),
                    "t": seconds,
                },
            }
        return obs, rewards, ended, infos

    def close(self) -> None:
        """Nothing is held open."""
        self.lanes.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute all accounts share, once for each."""
        return [getattr(self.lanes, attr_name)] * len(self._chosen(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:  # noqa: ARG002
        """Refuse: the accounts share one environment.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"{attr_name} cannot be set: all accounts share one environment; make another with the setting you want"
        )

    def env_method(
        self,
        method_name: str,
        *method_args: Any,  # noqa: ARG002
        indices: Any = None,  # noqa: ARG002
        **method_kwargs: Any,  # noqa: ARG002
    ) -> list[Any]:
        """Refuse: there is no single environment to call.

        Raises:
            AttributeError: Always, as where an environment lacks the method.
        """
        raise AttributeError(f"{method_name} cannot be called: all accounts share one environment")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Return False for each: an account has no wrappers. `Monitor` is not needed, for infos say each episode."""
        del wrapper_class
        return [False] * len(self._chosen(indices))

    def _chosen(self, indices: int | Sequence[int] | None) -> list[int]:
        return list(self._get_indices(indices))
