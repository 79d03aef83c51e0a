"""Model-agnostic meta-learning: find the policy from which a few gradient steps help the most.

A task is anything that can be acted in twice: its *support* rollouts say how to change the policy, its
*query* rollout says whether the change was good. The inner loop (`rl.algorithms.adaptation`) adapts the
policy to one task; the outer loop changes the policy the inner loop starts from, and the step sizes it uses,
so that the adapted policy does well on the query. The outer gradient goes through the inner steps (second
order).

Sources
    MAML: Finn et al. 2017, arXiv:1703.03400. Ratio surrogate, clip and KL penalty: ProMP, Rothfuss et al.
    2019, arXiv:1810.06784. Learned step sizes: Meta-SGD, Li et al. 2017, arXiv:1707.09835. First order before
    second, query losses after every step: MAML++, Antoniou et al. 2019, arXiv:1810.09502.

Axes as in `rl.algorithms.adaptation`. The file in reading order: settings; tasks; outer losses; one task's
meta-loss; the outer loop.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from rl.algorithms.adaptation import (
    ABOVE_0,
    FROM_0,
    SHARE,
    AdaptationConfig,
    FunctionalPolicy,
    Parameters,
    PolicyAt,
    PolicyBatch,
    RolloutData,
    actor_names,
    adaptable_names,
    adaptation,
    advantages_given_values,
    detached,
    entropy_of,
    inner_loss,
    log_policy,
    log_prob_of,
    outside,
    policy_batch,
    require_finite,
)
from rl.algorithms.ppo import MOST_ROLLED_BACK
from rl.common.errors import CheckpointError, ConfigError, StagegateError, TrainingDivergedError
from rl.common.seeding import generator

ENGINES = ("native", "learn2learn")

STALE_LOG_PROB = 1e-2
"""Log-probabilities of a fresh rollout may differ from ours by rounding, not by this much."""


# -----------------------------------------------------------------------------
# Settings


@dataclass(frozen=True, kw_only=True)
class MAMLConfig(AdaptationConfig):
    """One meta-training run. The defaults are those of the main training plan, save two of `AdaptationConfig`."""

    iterations: int = 150
    """Outer updates of a whole run; the schedules below are fractions of it."""

    meta_batch_size: int = 2
    """Tasks drawn at a time."""

    meta_accumulation: int = 1
    """Draws pooled in one outer update. 4 to 8 make its gradient much steadier, at 4 to 8 times the cost."""

    support_steps: int = 1024
    """Transitions of one support rollout. The task sampler reads it; the engine takes what it is given."""

    query_steps: int = 2048
    """Transitions of one query rollout. The task sampler reads it; the engine takes what it is given."""

    inner_step_size_min: float = 1e-3
    """Smallest inner step size that may be learned. The largest is ten times `inner_step_size`."""

    step_size_learning_rate: float = 2e-2
    """Adam step size of the logarithms of the inner step sizes.

    Adam moves a number by about its step size per update whatever the gradient. With the meta learning rate a
    run of 150 updates could change an inner step size by 8 % at most, with 0.02 by a factor of 20.
    """

    meta_learning_rate: float = 1e-3
    """Adam step size of the policy the adaptation starts from."""

    first_order_fraction: float = 0.10
    """Share of the run that ignores second derivatives: half the price while the policy is still far off."""

    multi_step_fraction: float = 0.30
    """Share of the run over which query-loss weights go from all steps alike to the last one only."""

    outer_epochs: int = 1
    """Outer updates on the same rollouts. Above 1 the KL penalty below starts to act."""

    clip: float = 0.2
    """How far the query ratio may leave 1 before it stops earning."""

    kl_coef: float = 5e-4
    """Starting weight of the KL divergence from the policies that sampled the support rollouts.

    Value and gradient of the divergence are zero on fresh rollouts, so it is only added from the second outer
    epoch on. The weight halves or doubles after each iteration to keep the divergence near `kl_target`.
    """

    kl_target: float = 0.01
    """Divergence wanted between an inner step's sampling policy and its policy after the outer update."""

    value_coef: float = 0.5
    """Weight of the critic's squared error on query data."""

    auxiliary_coef: float = 1.0
    """Weight of the caller's auxiliary loss, if it gave one."""

    max_grad_norm: float = 0.5
    """Largest outer gradient norm; policy, critic and step sizes are clipped apart."""

    engine: str = "native"
    """Who takes the inner steps: "native" (torch.autograd) or "learn2learn". Same gradients."""

    def problems(self) -> list[str]:
        """Return everything wrong with these values, worded for whoever wrote the file."""
        counts = ("iterations", "meta_batch_size", "meta_accumulation", "outer_epochs")
        positive = ("inner_step_size_min", "meta_learning_rate", "clip", "kl_target", "max_grad_norm")
        from_0 = ("step_size_learning_rate", "kl_coef", "value_coef", "auxiliary_coef")
        two = "has to be at least 2 (advantages are standardised)"
        found = [
            *super().problems(),
            *outside(self, counts, "has to be at least 1", lambda value: value >= 1),
            *outside(self, ("support_steps", "query_steps"), two, lambda value: value >= 2),
            *outside(self, positive, *ABOVE_0),
            *outside(self, from_0, *FROM_0),
            *outside(self, ("first_order_fraction", "multi_step_fraction"), *SHARE),
            *outside(self, ("engine",), f"has to be one of {', '.join(ENGINES)}", ENGINES.__contains__),
        ]
        if self.inner_step_size < self.inner_step_size_min:
            found.append(
                f"inner_step_size ({self.inner_step_size}) has to be at least "
                f"inner_step_size_min ({self.inner_step_size_min})"
            )
        return found

    @property
    def log_step_size_bounds(self) -> tuple[float, float]:
        """Natural logarithms of the smallest and the largest inner step size that may be learned."""
        return math.log(self.inner_step_size_min), math.log(10.0 * self.inner_step_size)


# -----------------------------------------------------------------------------
# Tasks


class Task(Protocol):
    """One thing to adapt to. Both methods act with the given parameters and draw only from `rng`."""

    def support(self, policy_params: Parameters, rng: np.random.Generator) -> RolloutData:
        """Act where the policy may learn."""

    def query(self, policy_params: Parameters, rng: np.random.Generator) -> RolloutData:
        """Act where the policy is judged."""


class TaskSampler(Protocol):
    """Where tasks come from."""

    def sample(self, n: int, rng: np.random.Generator) -> list[Task]:
        """Return n tasks, drawn from `rng` only."""


class RecordedRollouts:
    """The batches of one task along one adaptation, as given."""

    def __init__(self, support: Sequence[PolicyBatch], query: Mapping[int, PolicyBatch]):
        """Keep one support batch for each inner step, and query batches by the number of steps taken."""
        self._support = dict(enumerate(support))
        self._query = dict(query)

    def support(self, step: int, parameters: Parameters) -> PolicyBatch:  # noqa: ARG002 a recording has them
        """Return the batch that inner step `step` (0-based) learns from."""
        return self._support[step]

    def query(self, steps_taken: int, parameters: Parameters) -> PolicyBatch:  # noqa: ARG002
        """Return the batch that judges the policy after `steps_taken` inner steps."""
        return self._query[steps_taken]


class TaskRollouts(RecordedRollouts):
    """The batches of one task along one adaptation: made when first asked for, the same ones ever after.

    Each support rollout is fresh: sampled by the parameters the steps before it led to. A second outer epoch
    walks the same rollouts with other parameters, which is what ratios, clip and KL penalty are for.
    """

    def __init__(
        self, task: Task, functional: FunctionalPolicy, config: MAMLConfig, rng: np.random.Generator
    ):
        """Prepare to act in a task; `rng` is handed to it and used by nobody else."""
        super().__init__([], {})
        self._task = task
        self._functional = functional
        self._config = config
        self._rng = rng

    def support(self, step: int, parameters: Parameters) -> PolicyBatch:
        """Return the batch that inner step `step` (0-based) learns from."""
        if step not in self._support:
            rollout = self._task.support(detached(parameters), self._rng)
            self._support[step] = self._prepared(rollout, parameters)
        return self._support[step]

    def query(self, steps_taken: int, parameters: Parameters) -> PolicyBatch:
        """Return the batch that judges the policy after `steps_taken` inner steps."""
        if steps_taken not in self._query:
            rollout = self._task.query(detached(parameters), self._rng)
            batch = self._prepared(rollout, parameters)
            critic = self._functional.at(detached(parameters)).values
            rollout = replace(rollout, obs=batch.obs, next_obs=rollout.next_obs.to(batch.obs))
            self._query[steps_taken] = replace(
                batch, value_targets=critic_targets(critic, rollout, self._config)
            )
        return self._query[steps_taken]

    def _prepared(self, rollout: RolloutData, parameters: Parameters) -> PolicyBatch:
        batch = policy_batch(rollout, self._config, next(iter(parameters.values())))
        keep = self._config.outer_epochs > 1
        # Only later epochs need the whole distribution; a few rows show whether it is the right one.
        rows = slice(None) if keep else slice(64)
        mask = None if batch.action_mask is None else batch.action_mask[rows]
        with torch.no_grad():
            every = log_policy(self._functional.at(detached(parameters)).logits(batch.obs[rows]), mask)
        _require_fresh(every, batch.actions[rows], batch.log_probs[rows])
        return replace(batch, sampling_log_policy=every) if keep else batch


def _require_fresh(every: Tensor, actions: Tensor, log_probs: Tensor) -> None:
    gap = (log_prob_of(every, actions) - log_probs).abs().max()
    # Written so that nan passes: diverged numbers have an error of their own with a better message.
    if gap > STALE_LOG_PROB:
        raise StagegateError(
            "A task returned a rollout that was not sampled by the parameters it was given: its "
            f"log-probabilities differ by up to {float(gap):.3g}, allowed is {STALE_LOG_PROB} for rounding.\n"
            "  Second derivatives would be wrong. The task has to act with policy_params and the same mask."
        )


def critic_targets(critic: Callable[[Tensor], Tensor], rollout: RolloutData, config: MAMLConfig) -> Tensor:
    """Return what the critic should have said on this rollout, its own λ-returns, as a constant. (B,)"""
    shape = rollout.rewards.shape
    with torch.no_grad():
        values, next_values = critic(rollout.obs), critic(rollout.next_obs)
    values_np = values.double().cpu().numpy().reshape(shape)
    advantages = advantages_given_values(
        rollout, values_np, next_values.double().cpu().numpy().reshape(shape), config
    )
    return torch.as_tensor((advantages + values_np).reshape(-1), dtype=values.dtype, device=values.device)


# -----------------------------------------------------------------------------
# Outer losses


def clipped_surrogate(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Return the smaller of plain and clipped ratio times advantage (Schulman et al. 2017, eq. 7). (B,)"""
    ratio = torch.exp(log_probs - old_log_probs.detach())
    advantages = advantages.detach()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def kl_divergence(old_log_policy: Tensor, new_log_policy: Tensor) -> Tensor:
    """Return KL(old ‖ new) in nats, mean over rows. (B, A), (B, A) -> ()"""
    return (old_log_policy.exp() * (old_log_policy - new_log_policy)).sum(dim=-1).mean()


def query_loss(logits: Tensor, batch: PolicyBatch, clip: float) -> Tensor:
    """Return minus the clipped surrogate of the adapted policy on its query rollout, mean over rows. ()"""
    chosen = log_prob_of(log_policy(logits, batch.action_mask), batch.actions)
    return -clipped_surrogate(chosen, batch.log_probs, batch.advantages, clip).mean()


def query_weights(progress: float, steps: int) -> list[float]:
    """Return the weight of the query loss after inner step 1, 2, …, K; they sum to 1.

    Args:
        progress: 0 gives all steps the same weight, 1 and above only the last one counts; linear between.
        steps: K.
    """
    spread = max(0.0, 1.0 - progress)
    weights = [spread / steps] * steps
    weights[-1] += 1.0 - spread
    return weights


# -----------------------------------------------------------------------------
# One task's meta-loss


class Point(Protocol):
    """The policy after some inner steps, in whichever engine's hands."""

    def logits(self, obs: Tensor) -> Tensor:
        """(B, D) -> (B, A)"""

    def values(self, obs: Tensor) -> Tensor:
        """(B, D) -> (B,)"""

    def detached_parameters(self) -> Parameters:
        """Return the parameters as constants."""


Path = Callable[..., Iterator[Point]]
"""An engine: arguments as `native_path` -> the policy after 0, 1, …, K steps."""


def native_path(
    functional: FunctionalPolicy,
    parameters: Parameters,
    step_sizes: Mapping[str, Tensor],
    rollouts: RecordedRollouts,
    config: MAMLConfig,
    *,
    second_order: bool,
    label: str = "",
) -> Iterator[PolicyAt]:
    """Yield the policy after 0, 1, …, K inner steps on one task, by torch's own autograd."""

    def loss_at(step: int, current: Parameters) -> Tensor:
        batch = rollouts.support(step, current)
        return inner_loss(functional.at(current).logits(batch.obs), batch, config.inner_entropy_coef)

    steps = config.inner_loop_steps
    for current in adaptation(parameters, step_sizes, loss_at, steps, second_order=second_order, label=label):
        yield functional.at(current)


@dataclass(frozen=True, kw_only=True)
class TaskLoss:
    """What one task adds to the outer loss."""

    loss: Tensor
    """Query loss + KL penalty + value loss; has the gradient. ()"""

    support_reward: float
    """Reward per step of the first support rollout: before adaptation."""

    query_reward: float
    """Reward per step of the last query rollout: after adaptation, on other data."""

    query_obs: Tensor
    """Observations of the last query rollout. (B, D)"""

    query_loss: float
    value_loss: float

    kl_to_sampling: float
    """Mean over inner steps of the divergence from the policies that sampled; 0 on fresh rollouts."""

    adaptation_kl: float
    """How far adaptation moved the policy, in nats on query observations."""

    entropy_before: float
    entropy_after: float


def task_meta_loss(
    functional: FunctionalPolicy,
    parameters: Parameters,
    step_sizes: Mapping[str, Tensor],
    rollouts: RecordedRollouts,
    config: MAMLConfig,
    *,
    second_order: bool,
    weights: Sequence[float] | None = None,
    kl_coef: float = 0.0,
    path: Path = native_path,
    label: str = "",
) -> TaskLoss:
    """Adapt to one task and return the loss of the adapted policy.

    It is differentiable in the parameters adaptation starts from and in the step sizes.

    Args:
        functional: The policy.
        parameters: Where adaptation starts; every parameter of the policy.
        step_sizes: Inner step size of each tensor that may change. Each ()
        rollouts: The task's data, fresh or recorded.
        config: Inner steps, clip, coefficients.
        second_order: Whether inner gradients are part of the graph.
        weights: Weight of the query loss after step 1, …, K. Default: only the last one.
        kl_coef: Weight of the KL penalty to the sampling policies; above 0 needs rollouts that keep them.
        path: The engine.
        label: Where in the run this is, for error messages.
    """
    steps = config.inner_loop_steps
    weights = query_weights(1.0, steps) if weights is None else list(weights)
    points = path(
        functional, parameters, step_sizes, rollouts, config, second_order=second_order, label=label
    )
    policy_losses, divergences = [], []
    for step, point in enumerate(points):
        now = point.detached_parameters()
        if step > 0 and (weights[step - 1] > 0 or step == steps):
            batch = rollouts.query(step, now)
            logits = point.logits(batch.obs)
            policy_losses.append(weights[step - 1] * query_loss(logits, batch, config.clip))
        if step < steps and kl_coef > 0:
            batch = rollouts.support(step, now)
            assert batch.sampling_log_policy is not None
            policy_now = log_policy(point.logits(batch.obs), batch.action_mask)
            divergences.append(kl_divergence(batch.sampling_log_policy, policy_now))

    # The loop left `point`, `now` and `logits` at the last step, which the critic and the figures are about.
    final = rollouts.query(steps, now)
    policy_loss = torch.stack(policy_losses).sum()
    kl = torch.stack(divergences).mean() if divergences else torch.zeros_like(policy_loss)
    value_loss = _value_loss(point, final)
    with torch.no_grad():
        before = log_policy(functional.at(detached(parameters)).logits(final.obs), final.action_mask)
        after = log_policy(logits, final.action_mask)
    return TaskLoss(
        loss=policy_loss + kl_coef * kl + config.value_coef * value_loss,
        support_reward=rollouts.support(0, parameters).mean_reward,
        query_reward=final.mean_reward,
        query_obs=final.obs,
        query_loss=float(policy_loss.detach()),
        value_loss=float(value_loss.detach()),
        kl_to_sampling=float(kl.detach()),
        adaptation_kl=float(kl_divergence(before, after)),
        entropy_before=float(entropy_of(before).mean()),
        entropy_after=float(entropy_of(after).mean()),
    )


def _value_loss(point: Point, batch: PolicyBatch) -> Tensor:
    if batch.value_targets is None:
        return torch.zeros((), dtype=batch.obs.dtype, device=batch.obs.device)
    return (point.values(batch.obs) - batch.value_targets).square().mean()


# -----------------------------------------------------------------------------
# The outer loop


AuxiliaryLoss = Callable[[FunctionalPolicy, Parameters, Tensor], Tensor]
"""(policy, meta-parameters, query observations of all tasks (B, D)) -> loss (). Outer loop only."""


@dataclass(frozen=True, kw_only=True)
class MAMLResult:
    """How a training run went; the meta-parameters are in the policy."""

    policy: nn.Module
    step_sizes: Parameters
    """Learned inner step size of each tensor that adapts. Each ()"""
    history: list[dict[str, float]]
    """One record per iteration, see `MAML.train`."""
    iterations: int
    """Iterations done in all, those before a resume included."""
    stopped: bool
    """True where `should_stop` ended the run early."""


class MAML:
    """Meta-trains a policy in place.

    All randomness is derived from the seed, the iteration and the task's place in it, so a run that was saved
    with `state` and continued with `load_state` equals the uninterrupted one bit for bit (on one CPU).
    """

    def __init__(
        self,
        policy: nn.Module,
        sampler: TaskSampler,
        config: MAMLConfig,
        seed: int,
        auxiliary_loss: AuxiliaryLoss | None = None,
    ):
        """Prepare a run.

        Args:
            policy: Start of the run, for example the mixture of the stage before; `train` changes it.
            sampler: Where tasks come from.
            config: Settings.
            seed: Of all randomness.
            auxiliary_loss: Added to the outer loss once per update, on the pooled query observations. A
                mixture's balance and diversity belong here and not into the inner loop: one task is one
                regime, and there balance would fight adaptation.

        Raises:
            ConfigError: If the settings are impossible, or name a part the policy does not have.
            MissingPackageError: If the engine is learn2learn and it is not installed.
        """
        if problems := config.problems():
            raise ConfigError(
                "The MAML settings are impossible:\n" + "\n".join(f"  {line}" for line in problems)
            )
        self.policy = policy
        self.sampler = sampler
        self.config = config
        self.seed = seed
        self.auxiliary_loss = auxiliary_loss
        self.iteration = 0
        self.kl_coef = config.kl_coef
        self.history: list[dict[str, float]] = []
        self.rolled_back = 0
        """Iterations rolled back so far because a number was not finite."""
        self._rolled_back_in_a_row = 0
        self._path = _path_of(config.engine)
        self._functional = FunctionalPolicy(policy)
        self._parameters: Parameters = dict(policy.named_parameters())
        actor = set(actor_names(policy))
        self._groups: dict[str, Parameters] = {
            "policy": {name: tensor for name, tensor in self._parameters.items() if name in actor},
            "critic": {name: tensor for name, tensor in self._parameters.items() if name not in actor},
        }
        like = next(iter(self._parameters.values()))
        start = torch.full((), math.log(config.inner_step_size), dtype=like.dtype, device=like.device)
        names = adaptable_names(policy, config.adapt)
        self.log_step_sizes = {name: start.clone().requires_grad_() for name in names}
        self._groups["step size"] = self.log_step_sizes
        self._optimizer = torch.optim.Adam(
            [
                {"params": list(self._parameters.values()), "lr": config.meta_learning_rate},
                {"params": list(self.log_step_sizes.values()), "lr": config.step_size_learning_rate},
            ]
        )

    def train(
        self,
        iterations: int | None = None,
        on_iteration: Callable[[dict[str, float]], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> MAMLResult:
        """Do outer updates.

        Args:
            iterations: How many more. Default: what is left of `config.iterations`, so a resumed run ends
                where the uninterrupted one does. Going on beyond is allowed; schedules stay at their end.
            on_iteration: Called after each update with its record: iteration (1-based), second_order (0 or
                1), loss, query_loss, value_loss, auxiliary_loss, support_reward (before adaptation), query_reward
                (after, on other data), adaptation_kl, kl_to_sampling, kl_coef, entropy_before, entropy_after,
                policy_grad_norm, critic_grad_norm, step_size_grad_norm (before clipping),
                step_size_min, step_size_median, step_size_max, and rolled_back: the iterations rolled back so
                far. Rewards are per step. An iteration in which a number was not finite is rolled back: everything
                learned is as before it, and its record holds the step sizes only.
            should_stop: Asked before each iteration.

        Raises:
            TrainingDivergedError: If in `MOST_ROLLED_BACK` iterations in a row a number was not finite; names
                iteration and tensor of the last. The parameters are those of before.
        """
        if iterations is None:
            iterations = max(0, self.config.iterations - self.iteration)
        stopped = False
        for _ in range(iterations):
            if should_stop is not None and should_stop():
                stopped = True
                break
            record = self._iterate()
            self.history.append(record)
            if on_iteration is not None:
                on_iteration(record)
        return MAMLResult(
            policy=self.policy,
            step_sizes=self.step_sizes(),
            history=list(self.history),
            iterations=self.iteration,
            stopped=stopped,
        )

    def step_sizes(self) -> Parameters:
        """Return the inner step size learned for each tensor. Each (), no gradient."""
        return {name: tensor.detach().exp() for name, tensor in self.log_step_sizes.items()}

    def state(self) -> dict[str, Any]:
        """Return copies of everything a continued run needs: tensors, numbers, text, lists, dicts."""
        return copy.deepcopy(
            {
                "iteration": self.iteration,
                "seed": self.seed,
                **self._learned(),
                "history": self.history,
                "rolled_back": self.rolled_back,
                "rolled_back_in_a_row": self._rolled_back_in_a_row,
            }
        )

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken: same policy shape and settings.

        Raises:
            CheckpointError: If it was taken of another policy, seed or choice of tensors that adapt.
        """
        _require_same_names("parameters", state["parameters"], self._parameters)
        _require_same_names("log_step_sizes", state["log_step_sizes"], self.log_step_sizes)
        if state["seed"] != self.seed:
            raise CheckpointError(
                f"The saved MAML state belongs to seed {state['seed']}, this run has seed {self.seed}.\n"
                "  Use the saved seed."
            )
        state = copy.deepcopy(dict(state))
        self._restore(state)
        self.iteration, self.history = state["iteration"], state["history"]
        self.rolled_back = state["rolled_back"]
        self._rolled_back_in_a_row = state["rolled_back_in_a_row"]

    def _iterate(self) -> dict[str, float]:
        """Do one outer update, or roll it back where a number is not finite."""
        before = copy.deepcopy(self._learned())
        try:
            record = self._whole_iteration()
            self._rolled_back_in_a_row = 0
        except TrainingDivergedError as error:
            self._restore(before)
            self.rolled_back += 1
            self._rolled_back_in_a_row += 1
            if self._rolled_back_in_a_row >= MOST_ROLLED_BACK:
                raise TrainingDivergedError(
                    f"{MOST_ROLLED_BACK} meta-iterations in a row were rolled back; the last one:\n{error}"
                ) from error
            # Its other figures are left out: there are none, and a model's metrics hold finite numbers only.
            record = {"iteration": self.iteration + 1, "kl_coef": self.kl_coef, **self._step_size_record()}
        # The next one draws other tasks, whose streams are named by the number of the iteration.
        self.iteration += 1
        return {**record, "rolled_back": float(self.rolled_back)}

    def _learned(self) -> dict[str, Any]:
        return {
            "kl_coef": self.kl_coef,
            "parameters": detached(self._parameters),
            "log_step_sizes": detached(self.log_step_sizes),
            "optimizer": self._optimizer.state_dict(),
        }

    def _restore(self, learned: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, tensor in self._parameters.items():
                tensor.copy_(learned["parameters"][name])
            for name, tensor in self.log_step_sizes.items():
                tensor.copy_(learned["log_step_sizes"][name])
        self._optimizer.load_state_dict(learned["optimizer"])
        self.kl_coef = learned["kl_coef"]

    def _whole_iteration(self) -> dict[str, float]:
        """Draw tasks, adapt to each, judge, move the start and the step sizes."""
        config = self.config
        # 1. Tasks. Each has a stream of its own, so what one task draws never moves another.
        tasks = self._draw_tasks()
        rollouts = [
            TaskRollouts(
                task,
                self._functional,
                config,
                generator(self.seed, "maml", "rollouts", self.iteration, place),
            )
            for place, task in enumerate(tasks)
        ]
        # 2. Where in the schedules this iteration lies.
        second_order = self.iteration >= config.first_order_fraction * config.iterations
        spread_over = config.multi_step_fraction * config.iterations
        weights = query_weights(self.iteration / spread_over if spread_over else 1.0, config.inner_loop_steps)
        # 3. Outer updates; the first acts in the tasks, later ones walk the same rollouts again.
        for epoch in range(config.outer_epochs):
            kl_coef = self.kl_coef if epoch else 0.0
            losses, auxiliary = self._backward(rollouts, weights, second_order, kl_coef)
            norms = self._step()
            if epoch == 0:
                record = self._record(losses, auxiliary, norms, second_order)
        record["kl_to_sampling"] = float(np.mean([loss.kl_to_sampling for loss in losses]))
        record |= self._step_size_record()
        # 4. Keep the outer update near the sampling policies.
        if config.outer_epochs > 1:
            self.kl_coef *= _kl_factor(record["kl_to_sampling"], config.kl_target)
        return record

    def _draw_tasks(self) -> list[Task]:
        rng = generator(self.seed, "maml", "tasks", self.iteration)
        wanted = self.config.meta_batch_size
        tasks: list[Task] = []
        for _ in range(self.config.meta_accumulation):
            drawn = self.sampler.sample(wanted, rng)
            if len(drawn) != wanted:
                raise StagegateError(
                    f"MAML, iteration {self.iteration + 1}: the task sampler returned {len(drawn)} tasks, "
                    f"asked for were {wanted}."
                )
            tasks.extend(drawn)
        return tasks

    def _backward(
        self,
        rollouts: Sequence[RecordedRollouts],
        weights: Sequence[float],
        second_order: bool,
        kl_coef: float,
    ) -> tuple[list[TaskLoss], float]:
        """Put the gradient of the mean task loss, and of the auxiliary loss, into `.grad`."""
        self._optimizer.zero_grad(set_to_none=True)
        losses = []
        for place, task_rollouts in enumerate(rollouts):
            found = task_meta_loss(
                self._functional,
                self._parameters,
                {name: tensor.exp() for name, tensor in self.log_step_sizes.items()},
                task_rollouts,
                self.config,
                second_order=second_order,
                weights=weights,
                kl_coef=kl_coef,
                path=self._path,
                label=f"iteration {self.iteration + 1}, task {place + 1} of {len(rollouts)}, ",
            )
            # One task at a time: its graph is freed before the next one's is built.
            (found.loss / len(rollouts)).backward()
            losses.append(replace(found, loss=found.loss.detach()))
        auxiliary = 0.0
        if self.auxiliary_loss is not None:
            pooled = torch.cat([found.query_obs for found in losses])
            loss = self.config.auxiliary_coef * self.auxiliary_loss(
                self._functional, self._parameters, pooled
            )
            loss.backward()
            auxiliary = float(loss.detach())
        return losses, auxiliary

    def _step(self) -> dict[str, float]:
        """Check and clip the gradients, move, and return the norms before clipping."""
        where = f"iteration {self.iteration + 1}"
        norms = {}
        for group, tensors in self._groups.items():
            gradients = {n: t.grad for n, t in tensors.items() if t.grad is not None}
            require_finite({f"the outer gradient of {group} {n}": g for n, g in gradients.items()}, where)
            # Apart, because the critic's gradient is as large as rewards are and would drown the policy's.
            norm = torch.nn.utils.clip_grad_norm_(list(tensors.values()), self.config.max_grad_norm)
            norms[f"{group.replace(' ', '_')}_grad_norm"] = float(norm)
        self._optimizer.step()
        require_finite({f"parameter {n}": t for n, t in self._parameters.items()}, where)
        low, high = self.config.log_step_size_bounds
        with torch.no_grad():
            for tensor in self.log_step_sizes.values():
                tensor.clamp_(low, high)
        return norms

    def _record(
        self, losses: Sequence[TaskLoss], auxiliary: float, norms: dict[str, float], second_order: bool
    ) -> dict[str, float]:
        names = ("query_loss", "value_loss", "support_reward", "query_reward")
        names += ("adaptation_kl", "entropy_before", "entropy_after")
        means = {name: float(np.mean([getattr(found, name) for found in losses])) for name in names}
        return {
            "iteration": self.iteration + 1,
            "second_order": float(second_order),
            "loss": float(np.mean([float(found.loss) for found in losses])) + auxiliary,
            "auxiliary_loss": auxiliary,
            **means,
            **norms,
            "kl_coef": self.kl_coef,
        }

    def _step_size_record(self) -> dict[str, float]:
        sizes = torch.stack(list(self.step_sizes().values()))
        return {
            "step_size_min": float(sizes.min()),
            "step_size_median": float(sizes.median()),
            "step_size_max": float(sizes.max()),
        }


def _path_of(engine: str) -> Path:
    if engine == "native":
        return native_path
    # Imported when chosen: learn2learn is the second engine, and half of it stays unloaded in this process.
    from rl.algorithms.learn2learn_engine import learn2learn_path, load_learn2learn

    load_learn2learn()
    return learn2learn_path


def _kl_factor(divergence: float, target: float) -> float:
    """Return what the KL weight is multiplied by (Schulman et al. 2017, section 4)."""
    if divergence < target / 1.5:
        return 0.5
    return 2.0 if divergence > target * 1.5 else 1.0


def _require_same_names(what: str, saved: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    shapes_saved = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    shapes_ours = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    if shapes_saved != shapes_ours:
        names = sorted({name for name, _ in shapes_saved.items() ^ shapes_ours.items()})
        differing = ", ".join(names)
        raise CheckpointError(
            f"The saved MAML state does not fit this policy: {what} differ in {differing}.\n"
            "  Policy and `adapt` have to be those of the saved run; else train from the start."
        )
