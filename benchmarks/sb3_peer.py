"""Stable-Baselines3 beside this project. Imported only where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from benchmarks.measuring import Work
from rl.envs.vector_env import VectorTradingEnv


class LanesForSB3(VecEnv):
    """This project's vector environment in the form Stable-Baselines3 expects."""

    def __init__(self, lanes: VectorTradingEnv) -> None:
        self._lanes = lanes  # before the base class, which asks get_attr for the render mode
        super().__init__(lanes.num_envs, lanes.single_observation_space, lanes.single_action_space)
        self._actions = np.zeros(lanes.num_envs, dtype=np.int64)

    def reset(self) -> np.ndarray:
        return self._lanes.reset(seed=0)[0]

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> Any:
        obs, rewards, terminated, truncated, infos = self._lanes.step(self._actions)
        notes: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = terminated | truncated
        for lane in np.flatnonzero(ended):
            notes[lane] = {
                "terminal_observation": infos["final_obs"][lane],
                "TimeLimit.truncated": bool(truncated[lane] and not terminated[lane]),
            }
        return obs, rewards, ended, notes

    def close(self) -> None:
        self._lanes.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:  # noqa: ARG002
        return [getattr(self._lanes, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError(f"lanes share one environment; {attr_name} cannot be set")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError(f"lanes share one environment; {method_name} cannot be called")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:  # noqa: ARG002
        return [False] * self.num_envs


def learning(envs: VecEnv, *, rollout_steps: int, batch_size: int, epochs: int) -> Work:
    """Return one rollout and its update by Stable-Baselines3's PPO, other settings at its defaults."""
    learner = PPO(
        "MlpPolicy", envs, n_steps=rollout_steps, batch_size=batch_size, n_epochs=epochs, device="cpu"
    )
    steps = envs.num_envs * rollout_steps

    def one_update() -> float:
        learner.learn(steps, reset_num_timesteps=False)
        return steps

    return one_update


def several(makers: Sequence[Callable[[], gymnasium.Env]]) -> VecEnv:
    """Return ordinary environments stepped one after the other, Stable-Baselines3's default."""
    return DummyVecEnv(list(makers))


def acting_bar_by_bar(env: gymnasium.Env, bars: int) -> Work:
    """Return a greedy walk over `bars` bars with one `predict` call each."""
    learner = PPO("MlpPolicy", env, device="cpu")

    def walk() -> float:
        obs, _ = env.reset(seed=0)
        for _ in range(bars):
            action, _ = learner.predict(obs, deterministic=True)
            obs, _, terminated, truncated, _ = env.step(int(action))
            if terminated or truncated:
                obs, _ = env.reset()
        return bars

    return walk
