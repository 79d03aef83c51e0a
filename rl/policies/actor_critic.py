"""A policy and its critic, built from a plain spec, with all parameters readable as one flat vector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rl.common.errors import CheckpointError, ConfigError
from rl.common.seeding import generator as named_generator
from rl.policies.encoders import POLICY_GAIN, MixtureOfExperts, MixtureParts, Mlp
from rl.policies.spec import checked_spec, value_hidden


class ActorCritic(nn.Module):
    """Chooses actions (`actor`) and values states (`critic`); the two share no parameter.

    Axes: B observations, D numbers in each, A actions, E experts.
    `actor` and `critic` are modules of their own; `torch.func.functional_call` can call each apart.
    """

    def __init__(self, spec: dict[str, Any], actor: nn.Module, critic: Mlp) -> None:
        """Join the two; `build_policy` is the usual way to one."""
        super().__init__()
        self.spec = spec
        self.actor = actor
        self.critic = critic

    def logits(self, observations: Tensor) -> Tensor:
        """Return unnormalised log-probabilities of the actions. (B, D) -> (B, A)

        Of a mixture these are log π(a|s) itself; softmax of either gives π.
        """
        return self.actor(observations)

    def values(self, observations: Tensor) -> Tensor:
        """Return the critic's value of each state. (B, D) -> (B,)"""
        return self.critic(observations).squeeze(-1)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, A) and values (B,)."""
        return self.logits(observations), self.values(observations)

    @property
    def is_mixture(self) -> bool:
        """True where the actor is a mixture of experts."""
        return isinstance(self.actor, MixtureOfExperts)

    def mixture_parts(self, observations: Tensor) -> MixtureParts:
        """Return the gate's weights and each expert's action probabilities.

        Raises:
            ConfigError: If the policy is no mixture.
        """
        if not isinstance(self.actor, MixtureOfExperts):
            raise ConfigError(
                f"Only a policy with encoder 'mixture' has experts; this one is '{self.spec['encoder']}'."
            )
        return self.actor.parts(observations)

    def flat_parameters(self) -> Tensor:
        """Return a copy of every parameter, laid end to end in the order of `spec.parameter_shapes`. (P,)"""
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters()])

    def load_flat(self, vector: Tensor) -> None:
        """Set every parameter from a vector made by `flat_parameters`.

        Args:
            vector: (P,)

        Raises:
            CheckpointError: If its length is not this policy's.
        """
        parameters = list(self.parameters())
        count = sum(parameter.numel() for parameter in parameters)
        if vector.shape != (count,):
            raise CheckpointError(
                f"A flat vector of shape {tuple(vector.shape)} does not fit this policy, which has {count} "
                f"parameters. Policy: {self.spec}. Was it saved from a policy with other layers?"
            )
        with torch.no_grad():
            pieces = vector.split([parameter.numel() for parameter in parameters])
            for parameter, piece in zip(parameters, pieces, strict=True):
                parameter.copy_(piece.view_as(parameter))


def build_policy(spec: dict[str, Any], seed: int) -> ActorCritic:
    """Return a new policy; the same spec and seed give the same weights, and no global generator is moved.

    Orthogonal start with gain √2 in hidden layers, 0.01 in the policy head and 1 in the value head.

    Args:
        spec: See `rl.policies.spec`.
        seed: The run's seed, 0 or more.

    Raises:
        ConfigError: If the spec is not sound; the message lists every problem.
    """
    spec = checked_spec(spec)
    source = torch.Generator().manual_seed(int(named_generator(seed, "policy").integers(2**63)))
    inputs, actions = spec["observations"], spec["actions"]
    actor: nn.Module
    if spec["encoder"] == "mlp":
        actor = Mlp([inputs, *spec["hidden"], actions], POLICY_GAIN, source)
    else:
        actor = MixtureOfExperts(
            observations=inputs,
            actions=actions,
            experts=spec["experts"],
            expert_hidden=spec["expert_hidden"],
            gate_hidden=spec["gate_hidden"],
            gate_inputs=spec["gate_inputs"],
            temperature=spec["temperature"],
            generator=source,
        )
    return ActorCritic(spec, actor, Mlp([inputs, *value_hidden(spec), 1], 1.0, source))
