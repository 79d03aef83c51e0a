"""Stage 1: the PPO baseline, a plain network on one symbol."""

from __future__ import annotations

from typing import Any

from rl.policies.actor_critic import build_policy
from rl.stages.plan import Plan
from rl.stages.policy_training import PolicyTraining
from rl.stages.symbol_data import SymbolData
from rl.trading.kernel import ACCOUNT_FEATURES, ACTION_COUNTS


def network_spec(data: SymbolData, plan: Plan) -> dict[str, Any]:
    """Return the spec of the plan's network for one symbol."""
    params = plan.training_params.ppo
    return {
        "encoder": "mlp",
        "observations": data.market.feature_count + ACCOUNT_FEATURES,
        "actions": ACTION_COUNTS[plan.environment.action_scheme],
        "hidden": [params.hidden_dim] * params.hidden_layers,
    }


def ppo_training(data: SymbolData, plan: Plan, *, seed: int) -> PolicyTraining:
    """Return stage 1's training, not started."""
    return PolicyTraining("ppo", data, plan, build_policy(network_spec(data, plan), seed), seed=seed)
