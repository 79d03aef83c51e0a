"""What a stage hands on: weights that act, what else belongs to them, and how they came about."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from rl.policies.actor_critic import ActorCritic, build_policy

STAGES = ("ppo", "moe", "maml")
STAGE_TITLES = {"ppo": "stage 1 (ppo)", "moe": "stage 2 (moe)", "maml": "stage 3 (maml)"}


@dataclass(frozen=True, kw_only=True)
class StageModel:
    """One trained model."""

    stage: str
    policy_spec: dict[str, Any]
    weights: np.ndarray
    """Weights that act. (P,) float32"""
    extra: dict[str, torch.Tensor] = field(default_factory=dict)
    """Of stage 3: the meta-parameters and their step sizes."""
    episodes: int = 0
    """Episodes (meta-iterations in stage 3) trained for, extensions included."""
    metrics: dict[str, Any] = field(default_factory=dict)

    def policy(self) -> ActorCritic:
        """Return the model as a torch module."""
        policy = build_policy(self.policy_spec, seed=0)
        policy.load_flat(torch.from_numpy(self.weights))
        return policy

    def fingerprint(self) -> str:
        """Return the SHA-256 of everything that decides how the model acts."""
        digest = hashlib.sha256(repr(sorted(self.policy_spec.items())).encode())
        digest.update(np.ascontiguousarray(self.weights, dtype=np.float32).tobytes())
        for name in sorted(self.extra):
            digest.update(name.encode())
            digest.update(self.extra[name].contiguous().numpy().tobytes())
        return digest.hexdigest()


def model_of(stage: str, policy: ActorCritic, *, episodes: int, metrics: dict[str, Any]) -> StageModel:
    """Return a copy of a torch policy as a stage's model."""
    return StageModel(
        stage=stage,
        policy_spec=dict(policy.spec),
        weights=policy.flat_parameters().numpy().astype(np.float32, copy=True),
        episodes=episodes,
        metrics=metrics,
    )
