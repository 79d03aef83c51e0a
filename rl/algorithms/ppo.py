"""Proximal policy optimisation: the one learner of every policy that acts by softmax, mixtures included."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from torch import Tensor

from rl.algorithms.advantages import estimate_advantages
from rl.algorithms.flat_adam import FlatAdam
from rl.algorithms.ppo_loss import TERMS, clipped_loss
from rl.algorithms.rollout import LaneTotals, RolloutBatch, action_mask_of, collect, env_problems
from rl.algorithms.schedules import Schedule
from rl.common.errors import CheckpointError, ConfigError, TrainingDivergedError
from rl.common.seeding import generator, restored, state_of
from rl.policies.actor_critic import ActorCritic
from rl.policies.encoders import MixtureParts

Metrics = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """How PPO learns. The number of lanes is the environment's."""

    learning_rate: float = 1e-3
    """Adam's step size before the schedule."""

    schedule: str = "constant"
    """Shape of the step size over the run: constant, linear, exponential, cosine."""

    schedule_final_fraction: float = 0.05
    """Factor on the step size at the end of the run; `constant` has no use for it."""

    warm_up: float = 0.0
    """Share of the run in which the step size rises from 0."""

    rollout_steps: int = 64
    """Steps collected from each lane between two updates."""

    batch_size: int = 512
    """Most transitions per gradient step. Where it does not divide a rollout, minibatches are made smaller,
    all within one of the same size, so that no transition weighs more than another."""

    epochs: int = 6
    """Passes over each rollout."""

    gamma: float = 0.995
    """Discount per step. 0.995 looks about 1 / (1 - gamma) = 200 steps ahead."""

    gae_lambda: float = 0.95
    """Weight of longer looks ahead in the advantages."""

    clip_epsilon: float = 0.15
    """How far the probability of an action may move within one update before it stops paying."""

    value_coef: float = 0.5
    """Weight of the critic's mean squared error."""

    entropy_coef: float = 0.01
    """Reward per nat of the policy's entropy."""

    max_grad_norm: float = 0.5
    """Longest gradient used; longer ones are shortened."""

    target_kl: float | None = None
    """Ends an update once a minibatch's KL from the acting policy exceeds 1.5 times this. None: never."""

    adam_epsilon: float = 1e-5
    """Added to the root of Adam's second moment."""

    def problems(self) -> list[str]:
        """Return everything wrong with these values, worded for whoever wrote the file."""
        rules: list[tuple[str, Callable[[float], bool], str]] = [
            ("learning_rate", lambda x: 0 < x < math.inf, "be above 0"),
            ("max_grad_norm", lambda x: 0 < x < math.inf, "be above 0"),
            ("adam_epsilon", lambda x: 0 < x < math.inf, "be above 0"),
            ("value_coef", lambda x: 0 <= x < math.inf, "be 0 or more"),
            ("entropy_coef", lambda x: 0 <= x < math.inf, "be 0 or more"),
            ("gamma", lambda x: 0 <= x <= 1, "lie in [0, 1]"),
            ("gae_lambda", lambda x: 0 <= x <= 1, "lie in [0, 1]"),
            ("clip_epsilon", lambda x: 0 < x < 1, "lie in (0, 1)"),
            ("rollout_steps", lambda x: x >= 1, "be at least 1"),
            ("epochs", lambda x: x >= 1, "be at least 1"),
            ("batch_size", lambda x: x >= 2, "be at least 2 (advantages are standardised)"),
        ]
        found = [
            f"{name} has to {wanted}, but is {getattr(self, name)}"
            for name, is_right, wanted in rules
            if not is_right(getattr(self, name))
        ]
        if self.target_kl is not None and not self.target_kl > 0:
            found.append(f"target_kl has to be above 0 or left out, but is {self.target_kl}")
        return found + self.learning_rate_schedule().problems()

    def learning_rate_schedule(self) -> Schedule:
        """Return the factor on the step size over the run."""
        return Schedule(
            shape=self.schedule, final_fraction=self.schedule_final_fraction, warm_up=self.warm_up
        )


class AuxiliaryLoss(Protocol):
    """A term added to the loss of a mixture; `rl.policies.mixture.MixtureRegulariser` is one."""

    def statistics(self, policy: ActorCritic, observations: Tensor) -> Tensor:
        """Return what has to be known of the whole rollout batch, without gradient; asked once an epoch."""

    def __call__(self, parts: MixtureParts, statistics: Tensor, /) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a minibatch's term, which is added to the loss as it is, and numbers to report."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What `PPO.train` did."""

    steps: int
    """Environment steps since the learner was made, over all lanes."""

    updates: int
    """Updates since the learner was made."""

    was_stopped: bool
    """True where `should_stop` ended the call before its steps were done."""

    metrics: list[Metrics]
    """Of each update of this call, as given to `on_update`."""


@dataclass(frozen=True)
class _Transitions:
    """A rollout laid flat, or some rows of it. Axes: B transitions, D numbers observed, A actions."""

    observations: Tensor
    """(B, D)"""
    actions: np.ndarray
    log_probs: np.ndarray
    advantages: np.ndarray
    targets: np.ndarray
    masks: np.ndarray
    """(B, A), or (1, A) where every action is always allowed."""

    def __len__(self) -> int:
        return len(self.actions)

    def rows(self, chosen: np.ndarray | slice) -> _Transitions:
        """Return some transitions: a copy for an index array, a view for a slice."""
        index = torch.from_numpy(chosen) if isinstance(chosen, np.ndarray) else chosen
        return _Transitions(
            self.observations[index],
            self.actions[chosen],
            self.log_probs[chosen],
            self.advantages[chosen],
            self.targets[chosen],
            self.masks if len(self.masks) == 1 else self.masks[chosen],
        )


@dataclass
class _Means:
    """Running means of the minibatches' figures."""

    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def add(self, figures: dict[str, float]) -> None:
        self.count += 1
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        return {name: total / self.count for name, total in self.sums.items()}


MOST_ROLLED_BACK = 3
"""Updates in a row that may be rolled back; one is bad luck, so many are a fault that trying again does not mend."""


class PPO:
    """Policy optimisation with a clipped ratio (Schulman et al. 2017, arXiv:1707.06347, algorithm 1).

    One update: collect `rollout_steps` steps of every lane, estimate advantages, then several passes in
    minibatches of random order. Actions are drawn by the compiled forward pass, gradients are torch's. One
    seed and one environment give one result, bit for bit, also across `state` and `load_state`.
    """

    def __init__(
        self,
        policy: ActorCritic,
        envs: gymnasium.vector.VectorEnv,
        config: PPOConfig,
        seed: int,
        *,
        auxiliary_loss: AuxiliaryLoss | None = None,
    ) -> None:
        """Prepare to train a policy in place.

        Args:
            policy: Whose weights are changed. They become views of one vector.
            envs: N lanes with flat observations, discrete actions and autoreset in the same step.
            config: How to learn.
            seed: Fixes draws of actions, order of minibatches and the environments' first reset.
            auxiliary_loss: Further term for a mixture.

        Raises:
            ConfigError: If the settings are wrong or policy and environment do not fit; lists every problem.
        """
        problems = config.problems()
        problems += env_problems(envs, policy.spec["observations"], policy.spec["actions"])
        if auxiliary_loss is not None and not policy.is_mixture:
            problems.append("auxiliary_loss needs a policy with encoder 'mixture'")
        if envs.num_envs * config.rollout_steps < 2:
            problems.append(
                "one rollout has to hold at least 2 transitions: more lanes or more rollout_steps"
            )
        if problems:
            raise ConfigError("PPO cannot start:\n" + "\n".join(f"  {line}" for line in problems))
        self.policy = policy
        self.envs = envs
        self.config = config
        self.steps = 0
        self.updates = 0
        self.episodes = 0
        self.rolled_back = 0
        """Updates rolled back so far because a number was not finite."""
        self._rolled_back_in_a_row = 0
        self._seed = seed
        self._auxiliary_loss = auxiliary_loss
        self._schedule = config.learning_rate_schedule()
        self._adam = FlatAdam(policy, epsilon=config.adam_epsilon)
        self._action_rng = generator(seed, "ppo", "actions")
        self._order_rng = generator(seed, "ppo", "order")
        self._totals = LaneTotals.empty(envs.num_envs)
        self._observations: np.ndarray | None = None
        self._action_mask: np.ndarray | None = None

    def train(
        self,
        total_steps: int,
        on_update: Callable[[Metrics], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> TrainResult:
        """Learn until `total_steps` environment steps were taken since this learner was made.

        Whole rollouts are collected, so a few more may be taken. A learner that `load_state` set to step k
        goes on from there to the same total; schedules refer to the total.

        Args:
            total_steps: Steps over all lanes.
            on_update: Called after every update with its figures: `update`, `steps`; means over minibatches
                of `policy_loss`, `value_loss`, `entropy`, `approx_kl`, `clip_fraction`, `gradient_norm`
                (before clipping) and what an auxiliary loss reports; `explained_variance` of the critic
                before the update; `learning_rate`; `epochs_done`; `episode_return` and `episode_length`,
                means over the episodes that ended in this rollout, nan if none did; `episodes_ended`, their
                number; `episodes`, ended so far; `steps_per_second` of wall time; `rolled_back`, the updates
                rolled back so far. An update in which a number was not finite is rolled back: weights and
                optimiser are as before it, all lanes begin new episodes, and its other figures are nan.
            should_stop: Asked after every update; True ends the call. `state` may then be saved.

        Raises:
            TrainingDivergedError: If in `MOST_ROLLED_BACK` updates in a row an observation, reward, loss, gradient
                or weight was not finite; names step and tensor of the last. The weights are those of before.
        """
        history: list[Metrics] = []
        was_stopped = False
        while self.steps < total_steps and not was_stopped:
            metrics = self._update(total_steps)
            history.append(metrics)
            if on_update is not None:
                on_update(metrics)
            was_stopped = should_stop is not None and should_stop()
        return TrainResult(steps=self.steps, updates=self.updates, was_stopped=was_stopped, metrics=history)

    def _update(self, total_steps: int) -> Metrics:
        """Do one update, or roll it back where a number is not finite."""
        began = time.perf_counter()
        before, done = self._adam.state(), self.steps
        try:
            metrics = self._whole_update(total_steps)
            self._rolled_back_in_a_row = 0
        except TrainingDivergedError as error:
            metrics = self._roll_back(before, done, error)
        self.updates += 1
        taken = self.steps - done
        return {
            "update": self.updates,
            "steps": self.steps,
            **metrics,
            "episodes": self.episodes,
            "rolled_back": self.rolled_back,
            "steps_per_second": taken / max(time.perf_counter() - began, 1e-9),
        }

    def _roll_back(self, before: dict[str, Tensor | int], done: int, error: TrainingDivergedError) -> Metrics:
        """Put back what an update changed; return its figures, or stop after too many in a row."""
        self._adam.load_state(before)
        # The steps are spent, so that training ends where it would have. Draws go on: the same ones would end alike.
        self.steps = done + self.config.rollout_steps * self.envs.num_envs
        # What made the number may be in a lane, and would still be there.
        self._observations = None
        self.rolled_back += 1
        self._rolled_back_in_a_row += 1
        if self._rolled_back_in_a_row >= MOST_ROLLED_BACK:
            raise TrainingDivergedError(
                f"{MOST_ROLLED_BACK} updates in a row were rolled back; the last one:\n{error}"
            ) from error
        names = (
            *TERMS,
            "gradient_norm",
            "explained_variance",
            "learning_rate",
            "episode_return",
            "episode_length",
        )
        return {**dict.fromkeys(names, math.nan), "epochs_done": 0, "episodes_ended": 0}

    def _whole_update(self, total_steps: int) -> Metrics:
        # 1. Act.
        batch = self._collect()
        taken = batch.actions.size
        # The rollout's middle: neither the first nor the last update is given a step size of 0.
        progress = (self.steps + taken / 2) / total_steps
        self.steps += taken
        self.episodes += len(batch.episode_returns)
        # 2. Judge.
        transitions, explained = self._judge(batch)
        # 3. Learn.
        learning_rate = self.config.learning_rate * self._schedule.factor(progress)
        figures, epochs_done = self._learn(transitions, learning_rate)
        if not bool(torch.isfinite(self._adam.weights).all()):
            raise self._diverged({name: value.detach() for name, value in self.policy.named_parameters()})
        ended = len(batch.episode_returns)
        return {
            **figures,
            "explained_variance": explained,
            "learning_rate": learning_rate,
            "epochs_done": epochs_done,
            "episode_return": float(batch.episode_returns.mean()) if ended else math.nan,
            "episode_length": float(batch.episode_lengths.mean()) if ended else math.nan,
            "episodes_ended": ended,
        }

    def _collect(self) -> RolloutBatch:
        if self._observations is None:
            self._reset()
        assert self._observations is not None
        batch = collect(
            self.envs,
            self.policy,
            self._observations,
            self.config.rollout_steps,
            self._action_rng,
            action_mask=self._action_mask,
            totals=self._totals,
            first_step=self.steps // self.envs.num_envs,
        )
        self._observations, self._action_mask = batch.next_observations, batch.next_action_mask
        return batch

    def _reset(self) -> None:
        """Begin new episodes everywhere; a learner that was resumed does not repeat the first ones."""
        seed = int(generator(self._seed, "ppo", "environments", self.updates).integers(2**31))
        observations, infos = self.envs.reset(seed=seed)
        self._observations = np.asarray(observations, dtype=np.float32)
        self._action_mask = action_mask_of(infos)
        self._totals = LaneTotals.empty(self.envs.num_envs)

    def _judge(self, batch: RolloutBatch) -> tuple[_Transitions, float]:
        """Return the rollout laid flat with advantages and targets, and the critic's explained variance."""
        advantages = estimate_advantages(
            batch.rewards,
            batch.values,
            batch.next_values,
            batch.terminated,
            batch.truncated,
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
        )
        targets = advantages + batch.values
        masks = batch.action_masks
        width = self.policy.spec["actions"]
        transitions = _Transitions(
            torch.from_numpy(batch.observations.reshape(-1, batch.observations.shape[-1])),
            batch.actions.reshape(-1),
            batch.log_probs.reshape(-1),
            advantages.reshape(-1),
            targets.reshape(-1),
            np.ones((1, width), dtype=np.bool_) if masks is None else masks.reshape(-1, width),
        )
        return transitions, explained_variance(batch.values, targets)

    def _learn(self, transitions: _Transitions, learning_rate: float) -> tuple[dict[str, float], int]:
        """Pass over a rollout; return mean figures of its minibatches and the passes done."""
        count = len(transitions)
        pieces = min(-(-count // self.config.batch_size), count // 2)
        bounds = np.linspace(0, count, pieces + 1).astype(int)
        limit = math.inf if self.config.target_kl is None else 1.5 * self.config.target_kl
        means = _Means()
        for epoch in range(self.config.epochs):
            statistics = None
            if self._auxiliary_loss is not None:
                statistics = self._auxiliary_loss.statistics(self.policy, transitions.observations)
            shuffled = transitions.rows(self._order_rng.permutation(count))
            for start, stop in pairwise(bounds):
                figures = self._gradient(shuffled.rows(slice(start, stop)), statistics)
                means.add(figures)
                if figures["approx_kl"] > limit:
                    return means.means(), epoch
                self._adam.step(learning_rate, self.config.max_grad_norm, figures["gradient_norm"])
        return means.means(), self.config.epochs

    def _gradient(self, batch: _Transitions, statistics: Tensor | None) -> dict[str, float]:
        """Leave the loss's gradient in the optimiser; return the minibatch's figures."""
        config = self.config
        parts = self.policy.mixture_parts(batch.observations) if self.policy.is_mixture else None
        logits = parts.policy_log_probs() if parts is not None else self.policy.logits(batch.observations)
        values = self.policy.values(batch.observations)
        by_logits = np.empty(logits.shape, dtype=np.float32)
        by_values = np.empty(values.shape, dtype=np.float32)
        terms = clipped_loss(
            logits.detach().numpy(),
            values.detach().numpy(),
            batch.actions,
            batch.log_probs,
            batch.advantages,
            batch.targets,
            batch.masks,
            config.clip_epsilon,
            config.value_coef,
            config.entropy_coef,
            by_logits,
            by_values,
        )
        figures = dict(zip(TERMS, terms, strict=True))
        outputs, slopes = [logits, values], [torch.from_numpy(by_logits), torch.from_numpy(by_values)]
        if self._auxiliary_loss is not None:
            assert parts is not None
            assert statistics is not None
            extra, measures = self._auxiliary_loss(parts, statistics)
            outputs.append(extra)
            slopes.append(torch.ones_like(extra))
            figures["auxiliary_loss"] = float(extra.detach())
            figures |= {name: float(measure) for name, measure in measures.items()}
        if not all(map(math.isfinite, figures.values())):
            named = {"logits": logits.detach(), "values": values.detach()}
            named |= {"advantages": torch.from_numpy(batch.advantages)}
            raise self._diverged(named | {name: torch.tensor(value) for name, value in figures.items()})
        self._adam.zero_gradient()
        torch.autograd.backward(outputs, slopes)
        figures["gradient_norm"] = self._adam.gradient_norm()
        if not math.isfinite(figures["gradient_norm"]):
            raise self._diverged(
                {f"gradient of {name}": value.grad for name, value in self.policy.named_parameters()}
            )
        return figures

    def _diverged(self, tensors: dict[str, Tensor | None]) -> TrainingDivergedError:
        """Return the error that names the first of these tensors, in their order, that is not finite."""
        sick = [
            name for name, value in tensors.items() if value is not None and not torch.isfinite(value).all()
        ]
        return TrainingDivergedError(
            f"Update {self.updates + 1}, at environment step {self.steps}: {sick[0] if sick else 'a sum'} is "
            "not finite.\n"
            f"  Not finite: {', '.join(sick) or 'only the norm over all tensors'}. The weights are those of before "
            "this update.\n"
            "  Usual causes: learning_rate or max_grad_norm too high, rewards of very different sizes."
        )

    def state(self) -> dict[str, Any]:
        """Return everything the next update depends on: plain tensors, numbers and text.

        Includes the environment's own state where it has `get_state`. Without it, `load_state` begins new
        episodes, and the run goes on but is not the uninterrupted one.
        """
        get_state = getattr(self.envs, "get_state", None)
        mask = self._action_mask
        has_begun = self._observations is not None
        return {
            "adam": self._adam.state(),
            "steps": self.steps,
            "updates": self.updates,
            "episodes": self.episodes,
            "rolled_back": self.rolled_back,
            "rolled_back_in_a_row": self._rolled_back_in_a_row,
            "action_rng": state_of(self._action_rng),
            "order_rng": state_of(self._order_rng),
            "observations": torch.tensor(self._observations) if has_begun else None,
            "action_mask": None if mask is None else torch.tensor(mask),
            "lane_returns": torch.tensor(self._totals.returns),
            "lane_lengths": torch.tensor(self._totals.lengths),
            "environment": _plain(get_state()) if get_state is not None and has_begun else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state` was taken, with the same settings and the same kind of environment.

        Raises:
            CheckpointError: If the state belongs to another network or another number of lanes.
        """
        lanes = len(state["lane_returns"])
        if lanes != self.envs.num_envs:
            raise CheckpointError(
                f"The saved training state has {lanes} lanes, this environment {self.envs.num_envs}. "
                f"Train with num_envs {lanes}."
            )
        self._adam.load_state(state["adam"])
        self.steps = int(state["steps"])
        self.updates = int(state["updates"])
        self.episodes = int(state["episodes"])
        self.rolled_back = int(state["rolled_back"])
        self._rolled_back_in_a_row = int(state["rolled_back_in_a_row"])
        self._action_rng = restored(state["action_rng"])
        self._order_rng = restored(state["order_rng"])
        self._observations = None
        self._action_mask = None
        set_state = getattr(self.envs, "set_state", None)
        if state["environment"] is None or set_state is None:
            return
        set_state(_arrays(state["environment"]))
        self._observations = state["observations"].numpy().copy()
        mask = state["action_mask"]
        self._action_mask = None if mask is None else mask.numpy().copy()
        self._totals = LaneTotals(state["lane_returns"].numpy().copy(), state["lane_lengths"].numpy().copy())


def explained_variance(values: np.ndarray, targets: np.ndarray) -> float:
    """Return the share of the targets' variance that the values account for.

    1 is a perfect critic, 0 one that knows no more than the mean, below 0 a worse one. nan where all targets
    are alike, for there is nothing to explain.
    """
    variance = float(np.var(targets))
    return math.nan if variance == 0 else 1.0 - float(np.var(targets - values)) / variance


def _plain(value: Any) -> Any:
    """Return a nested state with arrays as tensors, so that it can be saved and read back without code."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return torch.tensor(value)
    return value.item() if isinstance(value, np.generic) else value


def _arrays(value: Any) -> Any:
    """Return a nested state with tensors as arrays again."""
    if isinstance(value, dict):
        return {key: _arrays(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_arrays(inner) for inner in value]
    return value.numpy().copy() if isinstance(value, Tensor) else value
