"""Meta-learning in a market with a hidden regime: only adaptation can win here, and it has to be the real one.

Each task is a price series whose returns follow AR(1) with coefficient +0.6 or -0.6 (standard deviation 1). Support
is 32 bars, query the 32 bars after a gap of 4. A policy that knows the regime earns about 0.39 per bar after
costs, a policy that does not know it cannot earn anything on both regimes: what wins in one loses in the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl.algorithms.adaptation import Parameters, RolloutData, adapt, fine_tune
from rl.algorithms.maml import MAML, MAMLConfig, MAMLResult

BARS, GAP, LANES = 32, 4, 16
COST = 0.1
TASKS = 60
CONFIG = MAMLConfig(
    iterations=120,
    inner_step_size=3.0,
    meta_learning_rate=0.05,
    step_size_learning_rate=0.1,
    gamma=0.9,
    gae_lambda=0.9,
    inner_entropy_coef=0.0,
    value_coef=0.0,
)


class LinearPolicy(nn.Module):
    """15 numbers: three actions by five observations, each observation's weights a tensor of its own."""

    def __init__(self):
        super().__init__()
        self.spec = {"observations": 5, "actions": 3}
        source = torch.Generator().manual_seed(0)
        rows = [nn.Parameter(0.1 * torch.randn(3, generator=source)) for _ in range(5)]
        self.weights = nn.ParameterList(rows)
        self.unused_critic = nn.Parameter(torch.zeros(5))

    def logits(self, obs: Tensor) -> Tensor:
        return obs @ torch.stack(list(self.weights))

    def values(self, obs: Tensor) -> Tensor:
        return obs @ self.unused_critic


@dataclass
class RegimeMarket:
    """One task. Action 0, 1, 2 is position -1, 0, +1 over the next bar; a change of 1 costs `COST`."""

    returns: np.ndarray
    """(2 * BARS + GAP + 2,)"""

    def support(self, policy_params: Parameters, rng: np.random.Generator) -> RolloutData:
        return self._replayed(self.returns[: BARS + 2], policy_params, rng)

    def query(self, policy_params: Parameters, rng: np.random.Generator) -> RolloutData:
        return self._replayed(self.returns[BARS + GAP :], policy_params, rng)

    def _replayed(self, returns: np.ndarray, params: Parameters, rng: np.random.Generator) -> RolloutData:
        weights = torch.stack([params[f"weights.{row}"] for row in range(5)]).double().numpy()
        obs = np.zeros((BARS + 1, LANES, 5))
        actions = np.zeros((BARS, LANES), dtype=np.int64)
        log_probs, rewards = np.zeros((BARS, LANES)), np.zeros((BARS, LANES))
        position = np.zeros(LANES)
        for t in range(BARS):
            obs[t] = self._observed(returns, t, position)
            scores = obs[t] @ weights
            every = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
            actions[t] = (np.exp(every).cumsum(1) < rng.random((LANES, 1))).sum(1).clip(0, 2)
            log_probs[t] = every[np.arange(LANES), actions[t]]
            rewards[t] = (actions[t] - 1) * returns[t + 2] - COST * np.abs(actions[t] - 1 - position)
            position = actions[t] - 1.0
        obs[BARS] = self._observed(returns, BARS, position)
        never = np.zeros((BARS, LANES), dtype=bool)
        return RolloutData(
            obs=torch.as_tensor(obs[:-1].reshape(-1, 5), dtype=torch.float32),
            next_obs=torch.as_tensor(obs[1:].reshape(-1, 5), dtype=torch.float32),
            actions=torch.as_tensor(actions.reshape(-1)),
            log_probs=torch.as_tensor(log_probs.reshape(-1), dtype=torch.float32),
            rewards=rewards,
            terminated=never,
            truncated=never,
        )

    @staticmethod
    def _observed(returns: np.ndarray, t: int, position: np.ndarray) -> np.ndarray:
        last, before = np.full(LANES, returns[t + 1]), np.full(LANES, returns[t])
        return np.stack([last, before, position, np.abs(position), np.ones(LANES)], axis=1)


def market(rng: np.random.Generator, persistence: float) -> RegimeMarket:
    returns = rng.normal(size=2 * BARS + GAP + 2)
    for t in range(1, len(returns)):
        returns[t] = persistence * returns[t - 1] + np.sqrt(1 - persistence**2) * returns[t]
    return RegimeMarket(returns)


class RegimeSampler:
    def sample(self, n: int, rng: np.random.Generator) -> list[RegimeMarket]:
        return [market(rng, persistence) for persistence in rng.choice([-0.6, 0.6], size=n)]


@pytest.fixture(scope="module")
def trained() -> MAMLResult:
    return MAML(LinearPolicy(), RegimeSampler(), CONFIG, seed=0).train()


Adaptation = Callable[[RegimeMarket, np.random.Generator, Callable[[int, Parameters], None]], object]


def query_rewards(
    adaptation: Adaptation, *, support_regime: float = 1.0, persistence: float = 0.6
) -> np.ndarray:
    """Return reward per bar on the query after 0, 1, …, 7 steps, half the tasks in each regime. (TASKS, 8)

    Args:
        adaptation: Adapts to a task and reports the parameters of each step.
        support_regime: 1 takes support from the task itself, -1 from a market of the opposite regime.
        persistence: Size of the AR(1) coefficient; 0 is noise.
    """
    rewards = np.full((TASKS, 8), np.nan)
    for number in range(TASKS):
        rng = np.random.default_rng(10_000 + number)
        regime = persistence if number % 2 else -persistence
        task = market(rng, regime)
        source = task if support_regime == 1.0 else market(rng, support_regime * regime)

        def judge(step: int, parameters: Parameters, number: int = number, task: RegimeMarket = task) -> None:
            rewards[number, step] = task.query(parameters, np.random.default_rng(number)).rewards.mean()

        adaptation(source, np.random.default_rng(20_000 + number), judge)
    return rewards


def meta_learned(result: MAMLResult) -> Adaptation:
    return lambda task, rng, judge: adapt(
        result.policy, result.step_sizes, task.support, 7, rng, CONFIG, judge
    )


def test_seven_steps_reach_what_knowing_the_regime_would_earn_and_none_earn_nothing(trained):
    curve = query_rewards(meta_learned(trained)).mean(axis=0)
    assert curve[7] > 0.33
    assert curve[0] < 0.05
    # More steps do not undo what the first one found.
    assert curve[7] > curve[1] - 0.05


def test_support_from_the_opposite_regime_teaches_the_opposite(trained):
    """The gain comes from the support data, not from steps that would help anywhere."""
    curve = query_rewards(meta_learned(trained), support_regime=-1.0).mean(axis=0)
    assert curve[7] < -0.3


def test_adapting_to_noise_gains_nothing_on_later_bars(trained):
    rewards = query_rewards(meta_learned(trained), persistence=0.0)
    gain = rewards[:, 7] - rewards[:, 0]
    assert gain.mean() < 2 * gain.std() / np.sqrt(len(gain))


def test_meta_learning_beats_fine_tuning_with_the_best_step_size_found_on_the_very_same_tasks(trained):
    """A meta-learner that only matches tuned fine-tuning has learned nothing; the comparison favours the other."""
    start = LinearPolicy()

    def tuned(size: float) -> Adaptation:
        return lambda task, rng, judge: fine_tune(start, task.support, 7, size, rng, CONFIG, judge)

    curves = [query_rewards(tuned(size)) for size in (10.0, 30.0, 100.0)]
    learned = query_rewards(meta_learned(trained))
    for steps in (1, 7):
        best = max((curve[:, steps] for curve in curves), key=np.mean)
        gain = learned[:, steps] - best
        assert best.mean() > 0.25
        assert gain.mean() > (2 * gain.std() / np.sqrt(TASKS) if steps == 1 else 0.0)
