"""Stage 2: four experts mixed by a gate that sees the market's slow state, grown out of the stage-1 policy."""

from __future__ import annotations

from typing import Any

from rl.policies.actor_critic import build_policy
from rl.policies.mixture import MixtureRegulariser, warm_start_mixture
from rl.policies.widening import equal_parameter_spec, widened
from rl.stages.plan import Plan
from rl.stages.policy_training import PolicyTraining
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData
from rl.trading.kernel import ACCOUNT_FEATURES, ACTION_COUNTS


def mixture_spec(data: SymbolData, plan: Plan, value_hidden: list[int]) -> dict[str, Any]:
    """Return the spec of the plan's mixture for one symbol."""
    params = plan.training_params.moe
    return {
        "encoder": "mixture",
        "observations": data.market.feature_count + ACCOUNT_FEATURES,
        "actions": ACTION_COUNTS[plan.environment.action_scheme],
        "experts": params.num_experts,
        "expert_hidden": [params.expert_hidden_dim] * len(value_hidden),
        "gate_hidden": params.gating_hidden_dim,
        "gate_inputs": list(data.gate_columns),
        "temperature": params.gating_temperature,
        "value_hidden": value_hidden,
    }


def regulariser(plan: Plan) -> MixtureRegulariser:
    """Return the terms that keep the experts apart and in use."""
    params = plan.training_params.moe
    return MixtureRegulariser(
        diversity_weight=params.diversity_loss_weight,
        diversity_cap=params.diversity_cap,
        balance_weight=params.balance_weight,
    )


def moe_training(data: SymbolData, plan: Plan, parent: StageModel | None, *, seed: int) -> PolicyTraining:
    """Return stage 2's training, not started.

    With a parent (and `model_management.transfer_learning`) the experts are noisy copies of its actor, so that at step
    0 the mixture acts as the parent did; without one every expert starts at random.
    """
    spec = mixture_spec(data, plan, _critic_widths(plan, parent))
    if parent is not None and plan.model_management.transfer_learning:
        noise = plan.training_params.moe.expert_init_noise
        policy = warm_start_mixture(parent.policy(), spec, noise=noise, seed=seed)
    else:
        policy = build_policy(spec, seed)
    return PolicyTraining("moe", data, plan, policy, seed=seed, auxiliary_loss=regulariser(plan))


def equal_parameter_training(
    data: SymbolData, plan: Plan, parent: StageModel | None, *, seed: int
) -> PolicyTraining:
    """Return the training of one network with as many parameters as the plan's mixture, not started.

    It starts as stage 2 does: with a parent (and `model_management.transfer_learning`) it acts exactly as the parent
    did, without one it starts at random. Data, PPO settings, seed and choice by validation are those of stage 2 too, so
    that what the mixture earns beyond it comes from the mixture form, not from more weights or more training.
    """
    spec = equal_parameter_spec(mixture_spec(data, plan, _critic_widths(plan, parent)))
    if parent is not None and plan.model_management.transfer_learning:
        policy = widened(parent.policy(), spec, seed)
    else:
        policy = build_policy(spec, seed)
    return PolicyTraining("dense", data, plan, policy, seed=seed)


def _critic_widths(plan: Plan, parent: StageModel | None) -> list[int]:
    """Return the critic's hidden layers: the parent's, whose critic is copied, or else those of the plan."""
    ppo = plan.training_params.ppo
    if parent is not None and plan.model_management.transfer_learning:
        return list(parent.policy_spec["hidden"])
    return [ppo.hidden_dim] * ppo.hidden_layers
