"""The smallest policies worth differentiating: specs of the project's own, and one with LayerNorm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rl.policies.actor_critic import build_policy

MLP = {"encoder": "mlp", "observations": 4, "actions": 3, "hidden": [6, 5]}
MIXTURE = {
    "encoder": "mixture",
    "observations": 4,
    "actions": 3,
    "experts": 2,
    "expert_hidden": [6, 5],
    "gate_hidden": 3,
    "gate_inputs": [1, 2],
    "temperature": 0.8,
    "value_hidden": [4],
}
LAYER_NORM = {"encoder": "layer norm", "observations": 4, "actions": 3}
"""None of the project's encoders; its second derivatives are those that batching over tasks was seen to get wrong."""


class LayerNormPolicy(nn.Module):
    """A hidden layer under LayerNorm, and a buffer that scales observations."""

    def __init__(self, seed: int):
        super().__init__()
        self.spec = LAYER_NORM
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3))
            self.critic = nn.Linear(4, 1)
        self.register_buffer("scale", torch.tensor([1.0, 0.5, 2.0, 1.5]))

    def logits(self, obs: Tensor) -> Tensor:
        return self.actor(obs / self.scale)

    def values(self, obs: Tensor) -> Tensor:
        return self.critic(obs / self.scale).squeeze(-1)


def lively_policy(spec: dict[str, Any], seed: int = 0) -> nn.Module:
    """Return a policy far from uniform in float64: small heads hide second derivatives."""
    policy = (LayerNormPolicy(seed) if spec["encoder"] == "layer norm" else build_policy(spec, seed)).double()
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in policy.parameters():
            tensor += 0.3 * torch.randn(tensor.shape, generator=source, dtype=torch.float64)
    return policy
