"""Stable-Baselines3 beside this project. Imported only where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from benchmarks.measuring import Work
from rl.envs.sb3_vec_env import SB3VecEnv
from rl.envs.vector_env import VectorTradingEnv


def lanes_for_sb3(lanes: VectorTradingEnv) -> VecEnv:
    """Return this project's vector environment in the form Stable-Baselines3 expects, its starts fixed."""
    env = SB3VecEnv(lanes)
    env.seed(0)
    return env


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
