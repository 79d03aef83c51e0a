"""This project's PPO beside that of Stable-Baselines3, on tasks that have nothing to do with markets.

`python -m benchmarks.second_opinion`: equal settings, equal steps, equal networks, equal starts of the judged episodes.
The settings are those RL Baselines3 Zoo lists (hyperparams/ppo.yml), with three differences, for both alike: the clip
range stays where the Zoo lets it fall, a falling step size ends at 5 % instead of 0, and observations are not
normalised. Acrobot gets a tenth of the Zoo's million steps.

Each trained policy is judged by the greedy action over 100 fresh episodes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import gymnasium
import numpy as np
import stable_baselines3
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_util import make_vec_env

from rl.algorithms.ppo import PPO, PPOConfig
from rl.common.atomic_files import write_json
from rl.common.threads import use_one_thread
from rl.policies.actor_critic import build_policy
from rl.policies.forward import greedy, logits_batch, pack

JUDGED_EPISODES = 100
FIRST_JUDGED_EPISODE = 10_000
"""Seed of the first judged episode; far from any seed of training."""

Act = Callable[[np.ndarray], np.ndarray]
"""Greedy actions for a batch of observations. (B, D) float32 -> (B,) int64"""


@dataclass(frozen=True, kw_only=True)
class Task:
    """An environment, how long to train on it, and with what."""

    env: str
    lanes: int
    steps: int
    config: PPOConfig


TASKS: dict[str, Task] = {
    "cartpole": Task(
        env="CartPole-v1",
        lanes=8,
        steps=100_000,
        config=PPOConfig(
            learning_rate=1e-3,
            schedule="linear",
            rollout_steps=32,
            batch_size=256,
            epochs=20,
            gamma=0.98,
            gae_lambda=0.8,
            clip_epsilon=0.2,
            entropy_coef=0.0,
        ),
    ),
    "acrobot": Task(
        env="Acrobot-v1",
        lanes=16,
        steps=100_000,
        config=PPOConfig(
            learning_rate=3e-4,
            schedule="constant",
            rollout_steps=256,
            batch_size=64,
            epochs=4,
            gamma=0.99,
            gae_lambda=0.94,
            clip_epsilon=0.2,
            entropy_coef=0.0,
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What one trained policy earns."""

    learner: str
    task: str
    seed: int
    mean_return: float
    cpu_seconds: float
    """Of training."""


def lanes(env: str, count: int) -> gymnasium.vector.VectorEnv:
    """Return so many environments, each reset in the step its episode ends in."""
    return gymnasium.make_vec(
        env,
        num_envs=count,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
    )


def train_ours(task: Task, seed: int) -> Act:
    """Train this project's PPO and return what it does."""
    envs = lanes(task.env, task.lanes)
    assert isinstance(envs.single_observation_space, gymnasium.spaces.Box)
    assert isinstance(envs.single_action_space, gymnasium.spaces.Discrete)
    spec = {
        "encoder": "mlp",
        "observations": envs.single_observation_space.shape[0],
        "actions": int(envs.single_action_space.n),
        "hidden": [64, 64],
    }
    policy = build_policy(spec, seed)
    PPO(policy, envs, task.config, seed).train(task.steps)
    packed = pack(policy)
    return lambda observations: np.array([greedy(row) for row in logits_batch(packed, observations)])


def train_sb3(task: Task, seed: int) -> Act:
    """Train Stable-Baselines3's PPO with the same numbers and return what it does."""
    config = task.config
    schedule = config.learning_rate_schedule()
    learner = stable_baselines3.PPO(
        "MlpPolicy",
        make_vec_env(task.env, n_envs=task.lanes, seed=seed),
        # Stable-Baselines3 counts what is left of the run.
        learning_rate=lambda left: config.learning_rate * schedule.factor(1.0 - left),
        n_steps=config.rollout_steps,
        batch_size=config.batch_size,
        n_epochs=config.epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_epsilon,
        ent_coef=config.entropy_coef,
        vf_coef=config.value_coef,
        max_grad_norm=config.max_grad_norm,
        seed=seed,
        device="cpu",
    )
    learner.learn(task.steps)
    return lambda observations: learner.predict(observations, deterministic=True)[0]


LEARNERS: dict[str, Callable[[Task, int], Act]] = {"this project": train_ours, "Stable-Baselines3": train_sb3}


def mean_return(env: str, act: Act, episodes: int = JUDGED_EPISODES) -> float:
    """Return the mean return of greedy actions over fresh episodes, the same ones for every policy."""
    envs = lanes(env, episodes)
    observations, _ = envs.reset(seed=FIRST_JUDGED_EPISODE)
    returns, is_running = np.zeros(episodes), np.ones(episodes, dtype=bool)
    while is_running.any():
        observations, rewards, terminated, truncated, _ = envs.step(
            act(np.asarray(observations, dtype=np.float32))
        )
        returns += rewards * is_running
        is_running &= ~(terminated | truncated)
    return float(returns.mean())


def judge(learner: str, task: str, seed: int) -> Judged:
    """Train one learner on one task and judge what it learned."""
    begun = time.process_time()
    act = LEARNERS[learner](TASKS[task], seed)
    seconds = time.process_time() - begun
    return Judged(
        learner=learner,
        task=task,
        seed=seed,
        mean_return=mean_return(TASKS[task].env, act),
        cpu_seconds=seconds,
    )


def table(found: Sequence[Judged]) -> str:
    """Return means with lowest and highest over the seeds, a row for each task and learner, as Markdown."""
    lines = [
        "| task | steps | learner | mean return | lowest | highest | seeds | CPU s of training |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, task in TASKS.items():
        for learner in LEARNERS:
            own = [one for one in found if (one.task, one.learner) == (name, learner)]
            if own:
                returns = [one.mean_return for one in own]
                seconds = fmean(one.cpu_seconds for one in own)
                lines.append(
                    f"| {task.env} | {task.steps:,} | {learner} | {fmean(returns):.1f} | {min(returns):.1f} | "
                    f"{max(returns):.1f} | {len(own)} | {seconds:.0f} |"
                )
    return "\n".join(lines)


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.second_opinion",
        description="This project's PPO beside that of Stable-Baselines3 with the same settings and steps.",
    )
    parser.add_argument("--tasks", nargs="+", default=tuple(TASKS), choices=TASKS, metavar="TASK")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train every learner on every task with every seed, print the table, and return 0."""
    options = parse_options(argv)
    use_one_thread()
    found = []
    for task in options.tasks:
        for seed in options.seeds:
            for learner in LEARNERS:
                found.append(judge(learner, task, seed))
                print(
                    f"{task}, seed {seed}, {learner}: {found[-1].mean_return:.1f}",
                    file=sys.stderr,
                    flush=True,
                )
    print(table(found))
    if options.json is not None:
        write_json(options.json, [asdict(one) for one in found])
    return 0


if __name__ == "__main__":
    sys.exit(main())
