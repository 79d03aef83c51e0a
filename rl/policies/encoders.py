"""The networks a policy is put together from: a tanh MLP and a soft mixture of MLP experts.

Weights are stored (inputs, outputs) and registered layer by layer, so that a policy's parameters, laid end
to end, are the flat vector the compiled forward pass reads.
Axes: B observations, D numbers in each, E experts, A actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

HIDDEN_GAIN = 2.0**0.5
"""Scale of the orthogonal start of hidden layers."""

POLICY_GAIN = 0.01
"""Scale of a policy head's start: the first policy is close to uniform."""


def orthogonal(shape: tuple[int, ...], gain: float, generator: torch.Generator) -> nn.Parameter:
    """Return a weight whose columns (or rows, where there are fewer) are orthogonal and of length `gain`.

    Args:
        shape: (inputs, outputs), or (experts, inputs, outputs), where each expert is drawn for itself.
        gain: Length of each column.
        generator: Source of randomness.
    """
    weight = torch.empty(shape)
    for matrix in weight if weight.dim() == 3 else [weight]:
        nn.init.orthogonal_(matrix, gain=gain, generator=generator)
    return nn.Parameter(weight)


class Mlp(nn.Module):
    """Fully connected layers with tanh between them; the last layer is linear."""

    def __init__(self, widths: Sequence[int], output_gain: float, generator: torch.Generator) -> None:
        """Create it with an orthogonal start and zero biases.

        Args:
            widths: Number of inputs, then of each layer's outputs.
            output_gain: Scale of the last layer's start.
            generator: Source of randomness.
        """
        super().__init__()
        self._names: list[tuple[str, str]] = []
        last = len(widths) - 2
        for layer, (inputs, outputs) in enumerate(pairwise(widths)):
            gain = output_gain if layer == last else HIDDEN_GAIN
            weight, bias = f"weight_{layer}", f"bias_{layer}"
            self.register_parameter(weight, orthogonal((inputs, outputs), gain, generator))
            self.register_parameter(bias, nn.Parameter(torch.zeros(outputs)))
            self._names.append((weight, bias))

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Return weight (in, out) and bias (out,) of each layer."""
        return [(getattr(self, weight), getattr(self, bias)) for weight, bias in self._names]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the last layer's output. (B, in) -> (B, out)"""
        *hidden, (weight, bias) = self.layers()
        for hidden_weight, hidden_bias in hidden:
            inputs = torch.addmm(hidden_bias, inputs, hidden_weight).tanh()
        return torch.addmm(bias, inputs, weight)


@dataclass(frozen=True)
class MixtureParts:
    """What a mixture's gate and experts said about a batch of observations, in logarithms."""

    gate_log_probs: Tensor
    """Logarithm of each expert's weight. (B, E)"""

    expert_log_probs: Tensor
    """Logarithm of each expert's action probabilities. (B, E, A)"""

    @property
    def gate_probs(self) -> Tensor:
        """Each expert's weight; rows sum to 1. (B, E)"""
        return self.gate_log_probs.exp()

    def policy_log_probs(self) -> Tensor:
        """Return log π(a|s) = log Σ_e w_e(s) π_e(a|s), a mixture of probabilities, not of logits. (B, A)

        Each expert's gradient is then weighted by the share it had in the action, so experts specialise,
        and "which expert acted" has an answer.
        """
        return torch.logsumexp(self.gate_log_probs.unsqueeze(-1) + self.expert_log_probs, dim=1)


class MixtureOfExperts(nn.Module):
    """Experts that each propose action probabilities, and a gate that weighs them by the market's regime.

    The gate sees only the observation columns `gate_inputs`: fed with everything it would split the work by
    action instead of by regime. Its last layer starts at zero, so all experts start with equal weight.
    """

    gate_columns: Tensor
    """The gate's columns of an observation, int64; fixed by the spec and no part of the weights."""

    def __init__(
        self,
        *,
        observations: int,
        actions: int,
        experts: int,
        expert_hidden: Sequence[int],
        gate_hidden: int,
        gate_inputs: Sequence[int],
        temperature: float,
        generator: torch.Generator,
    ) -> None:
        """Create gate and experts; the arguments are the keys of a mixture's spec."""
        super().__init__()
        self.temperature = float(temperature)
        self.gate = Mlp([len(gate_inputs), gate_hidden, experts], 0.0, generator)
        self._names: list[tuple[str, str]] = []
        widths = [observations, *expert_hidden, actions]
        for layer, (inputs, outputs) in enumerate(pairwise(widths)):
            gain = POLICY_GAIN if layer == len(widths) - 2 else HIDDEN_GAIN
            weight, bias = f"expert_weight_{layer}", f"expert_bias_{layer}"
            self.register_parameter(weight, orthogonal((experts, inputs, outputs), gain, generator))
            self.register_parameter(bias, nn.Parameter(torch.zeros(experts, outputs)))
            self._names.append((weight, bias))
        columns = torch.tensor(list(gate_inputs), dtype=torch.int64)
        self.register_buffer("gate_columns", columns, persistent=False)

    def expert_layers(self) -> list[tuple[Tensor, Tensor]]:
        """Return weight (E, in, out) and bias (E, out) of each layer of the experts."""
        return [(getattr(self, weight), getattr(self, bias)) for weight, bias in self._names]

    def gate_log_probs(self, observations: Tensor) -> Tensor:
        """Return the logarithm of each expert's weight. (B, D) -> (B, E)"""
        scores = self.gate(observations.index_select(1, self.gate_columns))
        return torch.log_softmax(scores / self.temperature, dim=-1)

    def parts(self, observations: Tensor) -> MixtureParts:
        """Return what gate and experts say, before they are mixed."""
        layers = self.expert_layers()
        outputs = observations.expand(layers[0][0].shape[0], -1, -1)
        for weight, bias in layers[:-1]:
            outputs = torch.baddbmm(bias.unsqueeze(1), outputs, weight).tanh()
        weight, bias = layers[-1]
        scores = torch.baddbmm(bias.unsqueeze(1), outputs, weight)
        expert_log_probs = torch.log_softmax(scores, dim=-1).transpose(0, 1)
        return MixtureParts(self.gate_log_probs(observations), expert_log_probs)

    def forward(self, observations: Tensor) -> Tensor:
        """Return log π(a|s). (B, D) -> (B, A)"""
        return self.parts(observations).policy_log_probs()
