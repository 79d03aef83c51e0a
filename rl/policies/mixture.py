"""How a mixture of experts begins (as the single network it grew from) and what keeps its experts apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rl.common.errors import ConfigError
from rl.common.seeding import generator as named_generator
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.policies.encoders import MixtureOfExperts, MixtureParts, Mlp
from rl.policies.spec import checked_spec

LEAST_LOG_PROB = -80.0
"""exp(-80) = 2e-35: nothing to a divergence, and finite where a one-hot expert's logarithm is not."""


def _warm_start_problems(ppo: dict[str, Any], spec: dict[str, Any], noise: float) -> list[str]:
    if ppo["encoder"] != "mlp" or spec["encoder"] != "mixture":
        return [f"a mixture grows out of an mlp, but {spec['encoder']} out of {ppo['encoder']} was asked for"]
    found = [
        f"{key} has to stay {ppo[key]}, but is {spec[key]}"
        for key in ("observations", "actions")
        if ppo[key] != spec[key]
    ]
    narrower = any(new < old for new, old in zip(spec["expert_hidden"], ppo["hidden"], strict=False))
    if len(spec["expert_hidden"]) != len(ppo["hidden"]) or narrower:
        found.append(
            f"expert_hidden needs the {len(ppo['hidden'])} layers of the network it grows from, none "
            f"narrower than in {ppo['hidden']}, but is {spec['expert_hidden']}"
        )
    if list(spec["value_hidden"]) != list(ppo["hidden"]):
        found.append(
            f"value_hidden has to be {ppo['hidden']}, for the critic is copied, but is {spec['value_hidden']}"
        )
    if not (math.isfinite(noise) and noise >= 0):
        found.append(f"noise has to be 0 or more, but is {noise}")
    return found


def _with_noise(source: Tensor, experts: int, noise: float, generator: torch.Generator) -> Tensor:
    """Return `experts` copies of a tensor, each with noise of `noise` times its standard deviation."""
    spread = noise * float(source.std(correction=0))
    drawn = torch.randn((experts, *source.shape), generator=generator)
    return source + spread * drawn


def warm_start_mixture(
    ppo: ActorCritic, spec: dict[str, Any], noise: float = 0.1, seed: int = 0
) -> ActorCritic:
    """Return a mixture that acts like a trained single network, its critic copied.

    Each expert is the old actor in its first units. Further hidden units read random inputs and are read by
    none of the old units nor by the head, so they change nothing until training gives them a use. The gate's
    last layer is zero: every expert has equal weight.

    The noise is necessary. With equal experts the gate and the divergence between them have gradient zero;
    they never part, while usage looks perfectly balanced. 0.1 moves the policy by a KL below 0.001.

    Args:
        ppo: The single network, encoder `mlp`.
        spec: The mixture's spec; `expert_hidden` at least as wide as the old actor, `value_hidden` equal.
        noise: Standard deviation of the noise, in standard deviations of each copied tensor.
        seed: The run's seed, 0 or more.

    Raises:
        ConfigError: If the mixture cannot hold the old actor; the message lists every problem.
    """
    spec = checked_spec(spec)
    found = _warm_start_problems(ppo.spec, spec, noise)
    if found:
        lines = "\n".join(f"  {line}" for line in found)
        raise ConfigError(f"The mixture cannot start from this policy:\n{lines}")
    mixture = build_policy(spec, seed)
    actor, old_actor = mixture.actor, ppo.actor
    assert isinstance(actor, MixtureOfExperts)
    assert isinstance(old_actor, Mlp)
    source = torch.Generator().manual_seed(int(named_generator(seed, "warm start").integers(2**63)))
    with torch.no_grad():
        pairs = zip(actor.expert_layers(), old_actor.layers(), strict=True)
        for (weight, bias), (old_weight, old_bias) in pairs:
            inputs, outputs = old_weight.shape
            weight[:, inputs:, :outputs] = 0.0
            weight[:, :inputs, :outputs] = _with_noise(old_weight, spec["experts"], noise, source)
            bias[:, :outputs] = _with_noise(old_bias, spec["experts"], noise, source)
    mixture.critic.load_state_dict(ppo.critic.state_dict())
    return mixture


def js_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of action distributions, in nats, within [0, ln 2].

    JS = ½ KL(p‖m) + ½ KL(q‖m), m = (p + q) / 2 (Lin 1991, IEEE Trans. Inf. Theory 37, eq. 4.1). Bounded,
    unlike KL, so that two confident experts cannot blow it up. Value and gradient are exactly zero where
    p = q, and finite at one-hot distributions.

    Args:
        log_p: Logarithms of probabilities; -inf is allowed. (…, A)
        log_q: The same of the other distribution. (…, A)

    Returns:
        (…,)
    """
    log_p = log_p.clamp_min(LEAST_LOG_PROB)
    log_q = log_q.clamp_min(LEAST_LOG_PROB)
    difference = log_q - log_p
    # log(p / m) = ln 2 - log(1 + exp(log q - log p)), which is 0 without rounding where p = q.
    to_middle = log_p.exp() * (math.log(2.0) - functional.softplus(difference))
    from_middle = log_q.exp() * (math.log(2.0) - functional.softplus(-difference))
    return 0.5 * (to_middle + from_middle).sum(-1)


def diversity(expert_log_probs: Tensor, usage: Tensor | None = None) -> Tensor:
    """Return how far the experts disagree: Jensen-Shannon divergence, mean over states and pairs of experts.

    With 4 experts and 3 actions it cannot exceed 5/6 ln 2 = 0.5776: at least one pair has to agree.

    Args:
        expert_log_probs: (B, E, A)
        usage: Mean gate weight of each expert, or None to count every pair alike. A pair's weight is the
            product of the two, scaled so that equal usage gives the plain mean; no gradient flows into it.
            Unused experts, which could disagree for free, then earn nothing. (E,)

    Returns:
        Scalar in [0, ln 2].
    """
    experts = expert_log_probs.shape[1]
    first, second = torch.triu_indices(experts, experts, offset=1, device=expert_log_probs.device)
    divergences = js_divergence(expert_log_probs[:, first], expert_log_probs[:, second]).mean(0)
    if usage is None:
        return divergences.mean()
    usage = usage.detach()
    weights = 2.0 * usage[first] * usage[second] * experts / (experts - 1)
    return (weights * divergences).sum()


def balance_loss(usage: Tensor) -> Tensor:
    """Return E Σ_e w̄_e² - 1: 0 where every expert is used alike, E - 1 where one does everything.

    Args:
        usage: Mean gate weight of each expert. (E,)
    """
    return usage.shape[0] * usage.square().sum() - 1.0


@dataclass(frozen=True, kw_only=True)
class MixtureRegulariser:
    """The two terms a mixture adds to the loss: reward for experts that differ, price of unequal use.

    loss = - diversity_weight · min(diversity, diversity_cap) + balance_weight · balance

    Balance is meant over a whole rollout batch, not over a minibatch: one minibatch may lie in one regime and
    rightly use one expert. Its gradient is 2 E Σ_e w̄_e ∇w̄_e. Here w̄ is measured over the whole batch at the
    start of each epoch and held fixed, and ∇w̄ is estimated by the minibatch's mean gate m:
    E (2 Σ_e w̄_e m_e - Σ_e w̄_e²) - 1. This equals balance itself at m = w̄, and its gradient, averaged over the
    minibatches of an epoch, is that of the whole batch.
    """

    diversity_weight: float = 0.02
    """Reward per nat of disagreement. 0.2 was seen to kill experts, for dead ones disagree for free."""

    diversity_cap: float = 0.3
    """Nats beyond which disagreement earns nothing more."""

    balance_weight: float = 0.01
    """Price of unequal use."""

    def problems(self) -> list[str]:
        """Return everything wrong with these values, worded for whoever wrote the file."""
        found = []
        for name in ("diversity_weight", "diversity_cap", "balance_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                found.append(f"{name} has to be 0 or more, but is {value}")
        return found

    def statistics(self, policy: ActorCritic, observations: Tensor) -> Tensor:
        """Return each expert's mean gate weight over a whole rollout batch. (B, D) -> (E,)"""
        actor = policy.actor
        if not isinstance(actor, MixtureOfExperts):
            raise ConfigError("Diversity and balance need a policy with encoder 'mixture'.")
        with torch.no_grad():
            return actor.gate_log_probs(observations).exp().mean(0)

    def __call__(self, parts: MixtureParts, usage: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the extra loss of a minibatch, and its two measures.

        Args:
            parts: What gate and experts said about the minibatch.
            usage: `statistics` of the whole rollout batch. (E,)
        """
        measured = diversity(parts.expert_log_probs, usage)
        experts = usage.shape[0]
        balance = balance_loss(usage) + 2.0 * experts * (usage * (parts.gate_probs.mean(0) - usage)).sum()
        loss = self.balance_weight * balance - self.diversity_weight * measured.clamp_max(self.diversity_cap)
        return loss, {"diversity": measured.detach(), "balance": balance_loss(usage)}
