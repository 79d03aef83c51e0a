"""Stage 2: grown out of stage 1, split by the market's slow state, as the plan says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rl.features.pipeline import compute_features
from rl.stages.moe_stage import equal_parameter_training, mixture_spec, moe_training, regulariser
from rl.stages.ppo_stage import ppo_training
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData
from rl.trading.kernel import ACCOUNT_FEATURES
from tests.builders import an_instrument, random_bars
from tests.unit.stages.small_symbol import edge_bars, small_plan, symbol_of

PLAN = small_plan()


def silent(_: dict) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return symbol_of(edge_bars(sessions=80), PLAN)


@pytest.fixture(scope="module")
def parent(data) -> StageModel:
    """A policy that has learned something: what an untrained one does, any other untrained one does too."""
    plan = small_plan("training_params.ppo.learning_rate=0.01", "monitoring.checkpoint_frequency=50")
    return ppo_training(data, plan, seed=1).train(100, silent)


def observations_of(data: SymbolData) -> torch.Tensor:
    """Return what a flat account sees on the training window. (B, D)"""
    start, stop = data.window("train")
    account = np.zeros((stop - start, ACCOUNT_FEATURES), dtype=np.float32)
    account[:, -1] = 1.0
    return torch.from_numpy(np.hstack([data.market.features[start:stop], account]))


def probabilities(policy, observations: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.softmax(policy.logits(observations), -1)


def test_the_parent_of_these_tests_is_not_uniform(data, parent):
    chances = probabilities(parent.policy(), observations_of(data))
    assert float((chances - 1 / 3).abs().mean()) > 0.1


def divergence(before: torch.Tensor, after: torch.Tensor) -> float:
    return float((before * (before / after).log()).sum(-1).mean())


def test_at_the_start_the_mixture_acts_as_its_parent_did(data, parent):
    """Otherwise the gate after stage 2 judges a model that forgot stage 1."""
    seen = observations_of(data)
    policy = moe_training(data, PLAN, parent, seed=1)._policy
    assert divergence(probabilities(parent.policy(), seen), probabilities(policy, seen)) < 0.01


def test_the_experts_start_apart_so_that_they_can_part_further(data, parent):
    policy = moe_training(data, PLAN, parent, seed=1)._policy
    with torch.no_grad():
        parts = policy.mixture_parts(observations_of(data))
    for one in range(4):
        for two in range(one):
            assert (parts.expert_log_probs[:, one] != parts.expert_log_probs[:, two]).any()


@pytest.mark.parametrize("case", ["no parent", "transfer_learning: false"])
def test_without_a_parent_to_learn_from_the_mixture_starts_from_scratch(data, parent, case):
    plan = PLAN if case == "no parent" else small_plan("model_management.transfer_learning=false")
    policy = moe_training(data, plan, None if case == "no parent" else parent, seed=1)._policy
    seen = observations_of(data)
    # Untrained heads are close to uniform, and nothing like the parent.
    torch.testing.assert_close(
        probabilities(policy, seen), torch.full((len(seen), 3), 1 / 3), atol=0.02, rtol=0
    )
    assert divergence(probabilities(parent.policy(), seen), probabilities(policy, seen)) > 0.05


def test_the_gate_sees_the_slow_state_and_neither_signal_nor_position(data, parent):
    """Shown everything, it would split the work by action (one expert always long) instead of by regime."""
    training = moe_training(data, PLAN, parent, seed=1)
    training.train(4, silent)
    seen = observations_of(data)
    others = seen.clone()
    # Column 1 is x_regime_mood; the signal and the account change.
    others[:, 0] += 1.0
    others[:, 2:] += 0.5
    with torch.no_grad():
        gate, same = (training._policy.mixture_parts(each).gate_probs for each in (seen, others))
        others[:, 1] += 1.0
        moved = training._policy.mixture_parts(others).gate_probs
    torch.testing.assert_close(same, gate, atol=0, rtol=0)
    assert (moved != gate).any()


def test_the_mixture_is_the_one_the_plan_asks_for(data):
    plan = small_plan(
        "training_params.moe.num_experts=3",
        "training_params.moe.expert_hidden_dim=12",
        "training_params.moe.gating_hidden_dim=6",
        "training_params.moe.gating_temperature=0.5",
    )
    assert mixture_spec(data, plan, [8, 8]) == {
        "encoder": "mixture",
        "observations": 7,
        "actions": 3,
        "experts": 3,
        "expert_hidden": [12, 12],
        "gate_hidden": 6,
        "gate_inputs": [1],
        "temperature": 0.5,
        "value_hidden": [8, 8],
    }


def test_the_terms_that_keep_experts_apart_have_the_plans_weights():
    plan = small_plan(
        "training_params.moe.diversity_loss_weight=0.5",
        "training_params.moe.diversity_cap=0.2",
        "training_params.moe.balance_weight=0.25",
    )
    terms = regulariser(plan)
    assert (terms.diversity_weight, terms.diversity_cap, terms.balance_weight) == (0.5, 0.2, 0.25)


def test_a_trained_mixture_is_a_stage_2_model(data, parent):
    model = moe_training(data, PLAN, parent, seed=1).train(4, silent)
    assert model.stage == "moe"
    assert model.policy_spec["encoder"] == "mixture"
    assert model.policy().is_mixture


REGIME_FEATURES = {
    "volatility_ratio_slow",
    "volatility_level",
    "return_autocorrelation",
    "adx",
    "efficiency",
    "session_progress",
    "time_of_day_sin",
    "time_of_day_cos",
    "x_regime_own",
}


def columns_that_move_the_gate(data: SymbolData) -> set[int]:
    """Return the columns of an observation that change a gate's weights, each changed by itself."""
    policy = moe_training(data, PLAN, None, seed=1)._policy
    seen = torch.randn((20, policy.spec["observations"]), generator=torch.Generator().manual_seed(2))
    moved = set()
    with torch.no_grad():
        # A gate just made is uniform whatever it sees.
        policy.actor.gate.layers()[-1][0].normal_(generator=torch.Generator().manual_seed(1))
        weights = policy.mixture_parts(seen).gate_probs
        for column in range(seen.shape[1]):
            others = seen.clone()
            others[:, column] += 1.0
            if not torch.equal(policy.mixture_parts(others).gate_probs, weights):
                moved.add(column)
    return moved


def test_each_regime_feature_and_no_other_input_moves_the_gate():
    """All features of an intraday market with volume and columns of its own, then the account, one after the other."""
    bars = random_bars(600, 3, with_volume=True, extra_names=("x_own", "x_regime_own"))
    table = compute_features(bars, an_instrument())
    data = symbol_of(bars, PLAN, table=table)
    moved = columns_that_move_the_gate(data)
    assert {table.names[column] for column in moved if column < len(table.names)} == REGIME_FEATURES
    assert max(moved) < len(table.names)


def test_every_flag_of_a_regime_column_moves_the_gate_and_the_columns_after_it_stay_out():
    """One column of four regimes becomes four of an observation; counting features instead would shift the gate's."""
    bars = random_bars(600, 3, extra_names=("x_own", "x_regime", "x_zone"))
    flags = np.random.default_rng(0).integers(0, 4, size=len(bars)).astype(float)
    bars = replace(bars, extra={**bars.extra, "x_regime": flags})
    table = compute_features(bars, an_instrument())
    data = symbol_of(bars, PLAN, table=table)
    made_of = [name.split("=")[0] for name in data.scaler.columns]
    moved = columns_that_move_the_gate(data)
    assert [made_of[column] for column in sorted(moved)].count("x_regime") == 4
    assert moved == {column for column, name in enumerate(made_of) if name in table.regime_names}


# --- one network of as many parameters --------------------------------------------------------------------------------


def test_the_control_starts_as_its_parent_acts_with_as_many_parameters_as_the_mixture(data, parent):
    seen = observations_of(data)
    mixture = moe_training(data, PLAN, parent, seed=1)._policy
    control = equal_parameter_training(data, PLAN, parent, seed=1)._policy
    assert not control.is_mixture
    before, after = probabilities(parent.policy(), seen), probabilities(control, seen)
    assert divergence(before, after) < 1e-6
    counts = [sum(each.numel() for each in policy.parameters()) for policy in (mixture, control)]
    assert counts[1] == pytest.approx(counts[0], rel=0.02)


@pytest.mark.parametrize("case", ["no parent", "transfer_learning: false"])
def test_without_a_parent_to_learn_from_the_control_starts_from_scratch_too(data, parent, case):
    plan = PLAN if case == "no parent" else small_plan("model_management.transfer_learning=false")
    given = None if case == "no parent" else parent
    policy = equal_parameter_training(data, plan, given, seed=1)._policy
    seen = observations_of(data)
    assert divergence(probabilities(parent.policy(), seen), probabilities(policy, seen)) > 0.05


def test_a_model_says_by_which_rounds_and_searched_settings_it_was_trained(data):
    """So that the control can be trained as the attempt that was kept, and not as the plan's first one."""
    plan = small_plan().with_ppo(learning_rate=0.0007)
    training = ppo_training(data, plan, seed=1)
    training.train(2, silent)
    model = training.train(3, silent)
    assert model.metrics["episodes_by_round"] == [2, 3]
    assert model.metrics["searched"] == {
        "learning_rate": 0.0007,
        "entropy_coef": plan.training_params.ppo.entropy_coef,
    }
