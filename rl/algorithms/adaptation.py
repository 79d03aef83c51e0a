"""Adapt a policy to a task by a few plain gradient steps, each on a fresh rollout.

This is the inner loop of meta-learning and, with one step size for everything, plain fine-tuning. The same
step serves training (where the outer gradient may go through it) and use (where nothing is kept).

Sources
    Inner loop: MAML, Finn et al. 2017, arXiv:1703.03400. Ratio surrogate: ProMP, Rothfuss et al. 2019,
    arXiv:1810.06784. A step size for each tensor: Meta-SGD, Li et al. 2017, arXiv:1707.09835. Adapting heads
    only: ANIL, Raghu et al. 2020, arXiv:1909.09157.

Axes used throughout: T steps, N lanes, B = T * N transitions in time-major order (row t * N + n), D numbers
in an observation, A discrete actions, K inner steps.

The file in reading order: settings; rollouts and advantages; losses; a policy at given parameters; one step;
adaptation at use.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rl.algorithms.advantages import estimate_advantages
from rl.common.errors import ConfigError, TrainingDivergedError

Parameters = dict[str, Tensor]
"""Tensors by the names `policy.named_parameters()` gives them."""

ADAPT_CHOICES = ("all", "heads", "gate+heads")


# -----------------------------------------------------------------------------
# Settings


ABOVE_0 = ("has to be above 0 and finite", lambda value: 0 < value < math.inf)
FROM_0 = ("has to be 0 or more and finite", lambda value: 0 <= value < math.inf)
SHARE = ("has to lie in [0, 1]", lambda value: 0 <= value <= 1)


def outside(
    config: object, names: tuple[str, ...], rule: str, is_allowed: Callable[[Any], bool]
) -> list[str]:
    """Return one line for each named setting that breaks the rule.

    Args:
        config: The settings.
        names: Which of them the rule is about.
        rule: In words.
        is_allowed: The rule.
    """
    values = {name: getattr(config, name) for name in names}
    return [f"{name} {rule}, but is {value!r}" for name, value in values.items() if not is_allowed(value)]


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig:
    """One adaptation. The defaults are those of the main training plan, but for `adapt` and the step size.

    Not every policy has heads, and where all of the actor adapts, the plan's 3.0 blows up.
    """

    inner_loop_steps: int = 7
    """Gradient steps of an adaptation, each on a fresh support rollout."""

    inner_step_size: float = 0.1
    """Step size every tensor starts from in meta-training. Heads alone bear larger ones (3.0 in the training plan)."""

    inner_entropy_coef: float = 0.01
    """Weight of the policy's entropy in the inner loss."""

    gamma: float = 0.995
    """Discount per step."""

    gae_lambda: float = 0.95
    """Weight of longer looks ahead in the advantages.

    Large, although that is noisier: what lies beyond the look the baseline has to know, and a line in the observation
    does not know that a position is worth having while the signal lasts. At 0.5 adapting unlearns to hold one.
    """

    baseline_ridge: float = 1e-2
    """Shrinkage of the linear baseline, in squared units of an observation; observations are of order 1."""

    adapt: str = "all"
    """What adaptation may change: "all" of the actor, its "heads" (last layers), or "gate+heads"."""

    def problems(self) -> list[str]:
        """Return everything wrong with these values, worded for whoever wrote the file."""
        return [
            *outside(self, ("inner_loop_steps",), "has to be at least 1", lambda value: value >= 1),
            *outside(self, ("inner_step_size",), *ABOVE_0),
            *outside(self, ("inner_entropy_coef", "baseline_ridge"), *FROM_0),
            *outside(self, ("gamma", "gae_lambda"), *SHARE),
            *outside(
                self, ("adapt",), f"has to be one of {', '.join(ADAPT_CHOICES)}", ADAPT_CHOICES.__contains__
            ),
        ]


# -----------------------------------------------------------------------------
# Rollouts and advantages


@dataclass(frozen=True, kw_only=True)
class RolloutData:
    """What happened when a policy acted in a task. Endings need no care: each row says where it led.

    The log-probabilities have to be those of the parameters the rollout was asked for: the ratio of new to
    old probability is then exactly 1, which is what makes its second derivative the right one.
    """

    obs: Tensor
    """Observations acted in. (B, D)"""

    next_obs: Tensor
    """Observations reached; where an episode ended, the one it ended in. (B, D)"""

    actions: Tensor
    """Actions taken, int64. (B,)"""

    log_probs: Tensor
    """Log-probability of each action under the sampling parameters. (B,)"""

    rewards: np.ndarray
    """(T, N)"""

    terminated: np.ndarray
    """True where nothing can follow. (T, N)"""

    truncated: np.ndarray
    """True where the episode ended although the world would have gone on. (T, N)"""

    action_mask: Tensor | None = None
    """True where an action was allowed. (B, A)"""


SupportFunction = Callable[[Parameters, np.random.Generator], RolloutData]
"""Acts in a task with the given parameters, drawing from the generator only."""


@dataclass(frozen=True, kw_only=True)
class PolicyBatch:
    """A rollout made ready for the losses; constants to every gradient."""

    obs: Tensor
    """(B, D)"""
    actions: Tensor
    """int64 (B,)"""
    log_probs: Tensor
    """Of the sampling policy. (B,)"""
    advantages: Tensor
    """Standardised over the batch. (B,)"""
    action_mask: Tensor | None = None
    """True where an action was allowed. (B, A)"""
    value_targets: Tensor | None = None
    """What the critic should have said. Query batches only. (B,)"""
    sampling_log_policy: Tensor | None = None
    """Log-probability of every action under the sampling policy; kept if rollouts are used again. (B, A)"""
    mean_reward: float = math.nan
    """Reward per step."""


def linear_baseline(
    obs: np.ndarray,
    next_obs: np.ndarray,
    rewards: np.ndarray,
    ended: np.ndarray,
    *,
    gamma: float,
    ridge: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Guess the value of each state by a line through the returns that followed.

    Ridge regression of the discounted return on the observation, the intercept unshrunk (the linear baseline
    of Duan et al. 2016, arXiv:1604.06778, without its time features). It is fitted to the very rollout it
    serves, so a task needs no critic of its own and no gradient flows through values. Returns are cut where
    the rollout ends, which makes all values too small by about the same amount; standardised advantages do
    not notice.

    Args:
        obs, next_obs: Observations acted in and reached. (B, D)
        rewards: (T, N)
        ended: True where the next row belongs to another episode. (T, N)
        gamma: Discount per step.
        ridge: Shrinkage in squared units of an observation: a column of this variance counts half.

    Returns:
        Values of the states acted in and of the states reached, each (T, N), float64.
    """
    returns = np.zeros(rewards.shape)
    following = np.zeros(rewards.shape[1])
    for t in reversed(range(len(rewards))):
        following = rewards[t] + gamma * np.where(ended[t], 0.0, following)
        returns[t] = following

    x = np.asarray(obs, dtype=np.float64)
    centre, mean_return = x.mean(axis=0), returns.mean()
    centred = x - centre
    # The tiny part keeps the system solvable when ridge is 0 and columns are constant or repeated.
    shrinkage = len(x) * (ridge + 1e-10)
    normal = centred.T @ centred + shrinkage * np.eye(x.shape[1])
    slope = np.linalg.solve(normal, centred.T @ (returns.reshape(-1) - mean_return))
    values = mean_return + centred @ slope
    next_values = mean_return + (np.asarray(next_obs, dtype=np.float64) - centre) @ slope
    return values.reshape(rewards.shape), next_values.reshape(rewards.shape)


def baseline_advantages(rollout: RolloutData, config: AdaptationConfig) -> np.ndarray:
    """Estimate advantages with a baseline fitted to this rollout alone. (T, N), not standardised."""
    rewards = np.asarray(rollout.rewards, dtype=np.float64)
    values, next_values = linear_baseline(
        rollout.obs.detach().cpu().numpy(),
        rollout.next_obs.detach().cpu().numpy(),
        rewards,
        rollout.terminated | rollout.truncated,
        gamma=config.gamma,
        ridge=config.baseline_ridge,
    )
    return advantages_given_values(rollout, values, next_values, config)


def advantages_given_values(
    rollout: RolloutData, values: np.ndarray, next_values: np.ndarray, config: AdaptationConfig
) -> np.ndarray:
    """Estimate advantages with values of the states acted in and reached, each (T, N). (T, N)"""
    return estimate_advantages(
        np.asarray(rollout.rewards, dtype=np.float64),
        values,
        next_values,
        rollout.terminated,
        rollout.truncated,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
    )


def standardised(values: Tensor) -> Tensor:
    """Return `values` with mean 0 and standard deviation 1; zeros where they are all alike."""
    centred = values - values.mean()
    return centred / (centred.square().mean().sqrt() + 1e-8)


def policy_batch(rollout: RolloutData, config: AdaptationConfig, like: Tensor) -> PolicyBatch:
    """Turn a rollout into constants for the losses.

    Args:
        rollout: What the task handed over.
        config: For discount and baseline.
        like: A parameter of the policy; gives dtype and device.
    """
    advantages = torch.as_tensor(baseline_advantages(rollout, config).reshape(-1), dtype=like.dtype)
    return PolicyBatch(
        obs=rollout.obs.detach().to(like),
        actions=rollout.actions.to(like.device, torch.int64),
        log_probs=rollout.log_probs.detach().to(like),
        advantages=standardised(advantages).to(like.device),
        action_mask=None if rollout.action_mask is None else rollout.action_mask.to(like.device),
        mean_reward=float(np.mean(rollout.rewards)),
    )


# -----------------------------------------------------------------------------
# Losses


def log_policy(logits: Tensor, action_mask: Tensor | None) -> Tensor:
    """Return the log-probability of every action. (B, A) -> (B, A)

    A forbidden action gets about -1e8, that is probability 0.
    """
    if action_mask is not None:
        # Minus infinity would turn the entropy into 0 * inf = nan.
        logits = logits.masked_fill(~action_mask, -1e8)
    return torch.log_softmax(logits, dim=-1)


def log_prob_of(log_probabilities: Tensor, actions: Tensor) -> Tensor:
    """Return the log-probability of the action taken. (B, A), (B,) -> (B,)"""
    return log_probabilities.gather(1, actions.unsqueeze(1)).squeeze(1)


def ratio_surrogate(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor) -> Tensor:
    """Return probability ratio times advantage, one number per row.

    Value and gradient equal those of the log-probability times advantage on fresh data; the second derivative
    is the low-variance-curvature one (Rothfuss et al. 2019, eq. 9), which log-probabilities get wrong.
    """
    return torch.exp(log_probs - old_log_probs.detach()) * advantages.detach()


def entropy_of(log_probabilities: Tensor) -> Tensor:
    """Return the entropy in nats of each row of log-probabilities. (B, A) -> (B,)"""
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1)


def inner_loss(logits: Tensor, batch: PolicyBatch, entropy_coef: float) -> Tensor:
    """Return what one inner step lowers: minus (ratio surrogate + entropy), mean over rows. ()"""
    every = log_policy(logits, batch.action_mask)
    chosen = log_prob_of(every, batch.actions)
    gain = ratio_surrogate(chosen, batch.log_probs, batch.advantages).mean()
    return -gain - entropy_coef * entropy_of(every).mean()


# -----------------------------------------------------------------------------
# A policy at given parameters


class _Method(nn.Module):
    """One method of a policy as the forward pass of a module, the only thing functional_call can call."""

    def __init__(self, policy: nn.Module, method: str):
        super().__init__()
        self.policy = policy
        self.method = method

    def forward(self, *args: Tensor) -> Any:
        """Call the method."""
        return getattr(self.policy, self.method)(*args)


class FunctionalPolicy:
    """Evaluates a policy at parameters given as a dict, without touching the module's own.

    Buffers are handed over as copies, so that a layer which keeps running statistics cannot carry them from a
    task into the policy or into another task.

    Args:
        policy: A module with `logits(obs) -> (B, A)` and `values(obs) -> (B,)`.
    """

    def __init__(self, policy: nn.Module):
        self.policy = policy
        self._methods: dict[str, _Method] = {}

    def call(self, method: str, parameters: Mapping[str, Tensor], *args: Tensor) -> Any:
        """Return `policy.method(*args)` as it would be with these parameters."""
        if method not in self._methods:
            self._methods[method] = _Method(self.policy, method)
        state = {f"policy.{name}": buffer.clone() for name, buffer in self.policy.named_buffers()}
        state |= {f"policy.{name}": tensor for name, tensor in parameters.items()}
        return torch.func.functional_call(self._methods[method], state, args)

    def at(self, parameters: Parameters) -> PolicyAt:
        """Return the policy with these parameters filled in."""
        return PolicyAt(self, parameters)


@dataclass(frozen=True)
class PolicyAt:
    """A policy with its parameters filled in: one point on an adaptation path."""

    functional: FunctionalPolicy
    parameters: Parameters

    def logits(self, obs: Tensor) -> Tensor:
        """(B, D) -> (B, A)"""
        return self.functional.call("logits", self.parameters, obs)

    def values(self, obs: Tensor) -> Tensor:
        """(B, D) -> (B,)"""
        return self.functional.call("values", self.parameters, obs)

    def detached_parameters(self) -> Parameters:
        """Return the parameters as constants."""
        return detached(self.parameters)


def detached(parameters: Mapping[str, Tensor]) -> Parameters:
    """Return the same tensors as constants."""
    return {name: tensor.detach() for name, tensor in parameters.items()}


def actor_names(policy: nn.Module) -> list[str]:
    """Return the names of the parameters that action probabilities depend on; the rest is the critic's."""
    named = dict(policy.named_parameters())
    first = next(iter(named.values()))
    actor_critic: Any = policy
    obs = torch.zeros(1, actor_critic.spec["observations"], dtype=first.dtype, device=first.device)
    with torch.enable_grad():
        logits = actor_critic.logits(obs)
        gradients = torch.autograd.grad(logits.sum(), list(named.values()), allow_unused=True)
    return [name for name, gradient in zip(named, gradients, strict=True) if gradient is not None]


_ACTOR_LAYER = re.compile(r"actor\.(?:expert_)?(?:weight|bias)_(\d+)")


def adaptable_names(policy: nn.Module, adapt: str = "all") -> list[str]:
    """Return the names of the parameters an inner loop may change.

    Args:
        policy: The policy to adapt.
        adapt: "all" of what action probabilities depend on; "heads": the actor's last layer (of each expert);
            "gate+heads": the gate of a mixture as well.

    Raises:
        ConfigError: If the policy has no such part.
    """
    names = actor_names(policy)
    if adapt == "all":
        return names
    layer_of = {name: int(match[1]) for name in names if (match := _ACTOR_LAYER.fullmatch(name))}
    last = max(layer_of.values(), default=-1)
    heads = [name for name, layer in layer_of.items() if layer == last]
    gate = [name for name in names if name.startswith("actor.gate.")]
    wanted = {"heads": [heads], "gate+heads": [gate, heads]}.get(adapt)
    if wanted is None or not all(wanted):
        raise ConfigError(
            f"adapt is {adapt!r}, but this policy has no such part: {policy.spec}.\n"
            f"  Allowed are {', '.join(ADAPT_CHOICES)}; 'gate+heads' needs a mixture."
        )
    return [name for name in names if any(name in part for part in wanted)]


# -----------------------------------------------------------------------------
# One step


def inner_update(
    loss: Tensor,
    parameters: Mapping[str, Tensor],
    step_sizes: Mapping[str, Tensor | float],
    *,
    second_order: bool,
) -> Parameters:
    """Return new parameters one gradient step down from the given ones, which stay as they are.

    Args:
        loss: Computed from `parameters`. ()
        parameters: Tensors that carry a gradient history or are leaves that require one.
        step_sizes: Step size of each tensor that may change; the others are passed on.
        second_order: Keep the step's own gradient in the graph. Without it the step counts as a constant
            shift, while step sizes still receive a gradient.
    """
    gradients = torch.autograd.grad(
        loss, [parameters[name] for name in step_sizes], create_graph=second_order
    )
    moved = {
        name: parameters[name] - step_sizes[name] * gradient
        for name, gradient in zip(step_sizes, gradients, strict=True)
    }
    return {**parameters, **moved}


def adaptation(
    parameters: Mapping[str, Tensor],
    step_sizes: Mapping[str, Tensor | float],
    loss_at: Callable[[int, Parameters], Tensor],
    steps: int,
    *,
    second_order: bool,
    label: str = "",
) -> Iterator[Parameters]:
    """Yield the parameters after 0, 1, …, `steps` inner steps. Every adaptation takes this path.

    Args:
        parameters: Where to start.
        step_sizes: See `inner_update`.
        loss_at: Loss of inner step k (0-based) at the parameters reached; may act in the task to compute it.
        steps: How many steps.
        second_order: See `inner_update`.
        label: Where in the run this is, for the error message.

    Raises:
        TrainingDivergedError: If a loss or a parameter is not finite; names the step and the tensor.
    """
    current = dict(parameters)
    yield current
    for step in range(steps):
        loss = loss_at(step, current)
        require_finite({"the inner loss": loss}, f"{label}inner step {step + 1} of {steps}")
        current = inner_update(loss, current, step_sizes, second_order=second_order)
        changed = {f"parameter {name}": current[name] for name in step_sizes}
        require_finite(changed, f"{label}inner step {step + 1} of {steps}")
        yield current


def require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Stop if a number is nan or infinite.

    Args:
        tensors: By the name the message shall use.
        where: Place in the run, such as "iteration 3".

    Raises:
        TrainingDivergedError: Names place, tensor, and how many of its numbers are bad.
    """
    for name, tensor in tensors.items():
        bad = ~torch.isfinite(tensor.detach())
        if bool(bad.any()):
            first = float(tensor.detach()[bad][0])
            raise TrainingDivergedError(
                f"MAML, {where}: {name} is not finite ({int(bad.sum())} of {tensor.numel()} numbers, "
                f"the first is {first}).\n"
                "  Lower inner_step_size or meta_learning_rate, or look for extreme rewards or observations."
            )


# -----------------------------------------------------------------------------
# Adaptation at use


def adapt(
    policy: nn.Module,
    step_sizes: Mapping[str, Tensor | float],
    support: SupportFunction,
    steps: int,
    rng: np.random.Generator,
    config: AdaptationConfig,
    on_step: Callable[[int, Parameters], None] | None = None,
) -> Parameters:
    """Return the parameters that `steps` inner steps on fresh support rollouts lead to.

    The policy itself stays as it is.
    The same inner loss and update as in meta-training, without a graph. The same policy, step sizes, support
    and generator state give the same bits.

    Args:
        policy: Where adaptation starts.
        step_sizes: As learned (`MAMLResult.step_sizes`); parameters without one do not change.
        support: Acts with the parameters it is given and returns what happened.
        steps: How many.
        rng: Handed to `support`, and used by nobody else.
        config: For the inner loss; its number of steps is not read.
        on_step: Called with k and the parameters after k steps, k = 0 … `steps`, for adaptation curves.

    Returns:
        Every parameter of the policy by name, without history.

    Raises:
        TrainingDivergedError: If a number is not finite; names the inner step and the tensor.
    """
    functional = FunctionalPolicy(policy)

    def loss_at(_step: int, current: Parameters) -> Tensor:
        batch = policy_batch(support(detached(current), rng), config, next(iter(current.values())))
        return inner_loss(functional.at(current).logits(batch.obs), batch, config.inner_entropy_coef)

    start = {name: tensor.detach().clone() for name, tensor in policy.named_parameters()}
    for name in step_sizes:
        start[name].requires_grad_()
    sizes = {name: size.detach() if isinstance(size, Tensor) else size for name, size in step_sizes.items()}
    with torch.enable_grad():
        for step, current in enumerate(adaptation(start, sizes, loss_at, steps, second_order=False)):
            if on_step is not None:
                on_step(step, {name: tensor.detach().clone() for name, tensor in current.items()})
    return detached(current)


def fine_tune(
    policy: nn.Module,
    support: SupportFunction,
    steps: int,
    learning_rate: float,
    rng: np.random.Generator,
    config: AdaptationConfig,
    on_step: Callable[[int, Parameters], None] | None = None,
) -> Parameters:
    """Adapt by plain gradient steps of one size for all tensors: the baseline that meta-learning has to beat.

    Only fair if `learning_rate` was tuned, on other tasks than those it is judged on. Arguments and result as
    `adapt`.
    """
    sizes = dict.fromkeys(adaptable_names(policy, config.adapt), learning_rate)
    return adapt(policy, sizes, support, steps, rng, config, on_step)
