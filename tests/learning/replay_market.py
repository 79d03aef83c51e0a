"""A market with a hidden regime that is replayed to whoever adapts, and what a policy is exactly worth in it.

Each task is a series of returns that follow AR(1) with coefficient +0.6 or -0.6 (standard deviation 1). Support is 32
bars, query the 32 bars after a gap of 4. Prices do not react to the trader and the only state of its own is its
position, so the expected reward of a policy on given bars is a sum over positions and needs no sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rl.algorithms.adaptation import FunctionalPolicy, Parameters, RolloutData

BARS, GAP, LANES = 32, 4, 16
COST = 0.1
PERSISTENCE = 0.6
OBSERVATIONS, ACTIONS = 5, 3
POSITIONS = np.array([-1.0, 0.0, 1.0])


class LinearPolicy(nn.Module):
    """15 numbers: three actions by five observations, each observation's weights a tensor of its own."""

    def __init__(self, seed: int = 0):
        super().__init__()
        self.spec = {"observations": OBSERVATIONS, "actions": ACTIONS}
        source = torch.Generator().manual_seed(seed)
        rows = [nn.Parameter(0.1 * torch.randn(ACTIONS, generator=source)) for _ in range(OBSERVATIONS)]
        self.weights = nn.ParameterList(rows)
        self.unused_critic = nn.Parameter(torch.zeros(OBSERVATIONS))

    def logits(self, obs: Tensor) -> Tensor:
        return obs @ torch.stack(list(self.weights))

    def values(self, obs: Tensor) -> Tensor:
        return obs @ self.unused_critic


@dataclass
class RegimeMarket:
    """One task. Action 0, 1, 2 is position -1, 0, +1 over the next bar; a change of 1 costs `COST`."""

    policy: FunctionalPolicy
    returns: np.ndarray
    """(2 * BARS + GAP + 2,)"""

    @property
    def support_returns(self) -> np.ndarray:
        """Returns the support needs: two to look back on and one for each bar. (BARS + 2,)"""
        return self.returns[: BARS + 2]

    @property
    def query_returns(self) -> np.ndarray:
        """(BARS + 2,)"""
        return self.returns[BARS + GAP :][: BARS + 2]

    def support(self, policy_params: Parameters, rng: np.random.Generator) -> RolloutData:
        return self._acted(self.support_returns, policy_params, rng)

    def query(self, policy_params: Parameters, rng: np.random.Generator) -> RolloutData:
        return self._acted(self.query_returns, policy_params, rng)

    def _log_policy(self, params: Parameters, obs: np.ndarray) -> np.ndarray:
        like = next(iter(params.values()))
        with torch.no_grad():
            logits = self.policy.at(params).logits(torch.as_tensor(obs, dtype=like.dtype))
        return torch.log_softmax(logits.double(), dim=-1).numpy()

    def _acted(self, returns: np.ndarray, params: Parameters, rng: np.random.Generator) -> RolloutData:
        # Nothing but the position depends on what was done, so every state is asked for before anybody acts.
        states = _states(returns)
        every = self._log_policy(params, states[:-1].reshape(-1, OBSERVATIONS)).reshape(BARS, 3, ACTIONS)
        obs = np.zeros((BARS + 1, LANES, OBSERVATIONS))
        actions = np.zeros((BARS, LANES), dtype=np.int64)
        log_probs, rewards = np.zeros((BARS, LANES)), np.zeros((BARS, LANES))
        held = np.full(LANES, 1)
        for t in range(BARS):
            obs[t] = states[t, held]
            now = every[t, held]
            actions[t] = (np.exp(now).cumsum(1) < rng.random((LANES, 1))).sum(1).clip(0, 2)
            log_probs[t] = now[np.arange(LANES), actions[t]]
            rewards[t] = _reward(returns[t + 2], actions[t], held)
            held = actions[t]
        obs[BARS] = states[BARS, held]
        never = np.zeros((BARS, LANES), dtype=bool)
        return RolloutData(
            obs=torch.as_tensor(obs[:-1].reshape(-1, OBSERVATIONS), dtype=torch.float32),
            next_obs=torch.as_tensor(obs[1:].reshape(-1, OBSERVATIONS), dtype=torch.float32),
            actions=torch.as_tensor(actions.reshape(-1)),
            log_probs=torch.as_tensor(log_probs.reshape(-1), dtype=torch.float32),
            rewards=rewards,
            terminated=never,
            truncated=never,
        )

    def worth(self, returns: np.ndarray, params: Parameters) -> float:
        """Return the expected reward per bar of a policy on given bars, exactly."""
        states = _states(returns)[:-1].reshape(-1, OBSERVATIONS)
        chances = np.exp(self._log_policy(params, states)).reshape(BARS, 3, ACTIONS)
        before, after = np.meshgrid(np.arange(3), np.arange(3), indexing="ij")
        held, total = np.array([0.0, 1.0, 0.0]), 0.0
        for t in range(BARS):
            moves = held[:, None] * chances[t]
            total += float((moves * _reward(returns[t + 2], after, before)).sum())
            held = moves.sum(axis=0)
        return total / BARS


def _states(returns: np.ndarray) -> np.ndarray:
    """Return what is observed at each bar with each position: last two returns, position, its size, 1. (T, 3, 5)"""
    count = len(returns) - 1
    states = np.ones((count, 3, OBSERVATIONS))
    states[:, :, 0] = returns[1:, None]
    states[:, :, 1] = returns[:-1, None]
    states[:, :, 2] = POSITIONS
    states[:, :, 3] = np.abs(POSITIONS)
    return states


def _reward(next_return: float, action: np.ndarray, held: np.ndarray) -> np.ndarray:
    return POSITIONS[action] * next_return - COST * np.abs(POSITIONS[action] - POSITIONS[held])


def draw(policy: FunctionalPolicy, rng: np.random.Generator, persistence: float) -> RegimeMarket:
    """Return a task of a regime; 0 is noise."""
    returns = rng.normal(size=2 * BARS + GAP + 2)
    for t in range(1, len(returns)):
        returns[t] = persistence * returns[t - 1] + np.sqrt(1 - persistence**2) * returns[t]
    return RegimeMarket(policy, returns)


class RegimeSampler:
    """Draws tasks of both regimes."""

    def __init__(self, policy: nn.Module):
        self.policy = FunctionalPolicy(policy)

    def sample(self, n: int, rng: np.random.Generator) -> list[RegimeMarket]:
        return [
            draw(self.policy, rng, persistence) for persistence in rng.choice([-PERSISTENCE, PERSISTENCE], n)
        ]


Adaptation = Callable[[RegimeMarket, np.random.Generator, Callable[[int, Parameters], None]], object]
"""Adapts to a task's support and reports the parameters after each step."""


@dataclass(frozen=True)
class Adapted:
    """Test tasks, in turn of either regime, and the parameters each was adapted to. W tasks."""

    tasks: list[RegimeMarket]
    paths: list[list[Parameters]]
    """By task, then by number of steps taken."""

    def on_query(self, steps: int, *, of: int = 0) -> np.ndarray:
        """Return reward per query bar after so many steps. (W,)

        Args:
            steps: How many.
            of: 0 adapts to the task's own support; k > 0 to that of the task k further on, round the end. The next
                task has the other regime; half way along the list regimes match by chance only if W / 2 is odd.
        """
        count = len(self.tasks)
        return np.array(
            [
                task.worth(task.query_returns, self.paths[(row + of) % count][steps])
                for row, task in enumerate(self.tasks)
            ]
        )

    def on_own_support(self, steps: int) -> np.ndarray:
        """Return reward per bar on the very bars that were adapted to: what a gate must not look at. (W,)"""
        pairs = zip(self.tasks, self.paths, strict=True)
        return np.array([task.worth(task.support_returns, path[steps]) for task, path in pairs])


def adapted_to_tasks(
    adaptation: Adaptation, policy: nn.Module, tasks: int, *, persistence: float = PERSISTENCE
) -> Adapted:
    """Adapt to each of some tasks that no training has seen, half of them in each regime."""
    functional = FunctionalPolicy(policy)
    drawn, paths = [], []
    for number in range(tasks):
        regime = persistence if number % 2 else -persistence
        task = draw(functional, np.random.default_rng(10_000 + number), regime)
        path: list[Parameters] = []
        adaptation(
            task, np.random.default_rng(20_000 + number), lambda _step, now, path=path: path.append(now)
        )
        drawn.append(task)
        paths.append(path)
    return Adapted(drawn, paths)


def t_of(values: np.ndarray) -> float:
    """Return the mean in standard errors."""
    return float(values.mean() / (values.std(ddof=1) / np.sqrt(len(values))))
