"""Policies built from specs: weights, flat vector, and what a mixture's parts mean."""

from __future__ import annotations

import math

import pytest
import torch

from rl.common.errors import CheckpointError, ConfigError
from rl.policies.actor_critic import build_policy
from rl.policies.spec import parameter_count, parameter_shapes

MLP = {"encoder": "mlp", "observations": 6, "actions": 3, "hidden": [8, 5]}
MIXTURE = {
    "encoder": "mixture",
    "observations": 6,
    "actions": 3,
    "experts": 4,
    "expert_hidden": [10, 7],
    "gate_hidden": 4,
    "gate_inputs": [1, 4],
    "temperature": 0.5,
    "value_hidden": [8, 5],
}


def observations(count: int = 20, width: int = 6) -> torch.Tensor:
    return torch.randn((count, width), generator=torch.Generator().manual_seed(3))


def scattered(spec):
    policy = build_policy(spec, 1)
    flat = policy.flat_parameters()
    policy.load_flat(flat + 0.5 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(4)))
    return policy


@pytest.mark.parametrize("spec", [MLP, MIXTURE])
def test_one_seed_gives_one_policy_and_another_seed_another(spec):
    first = build_policy(spec, 7).flat_parameters()
    assert torch.equal(first, build_policy(spec, 7).flat_parameters())
    assert not torch.equal(first, build_policy(spec, 8).flat_parameters())


def test_building_a_policy_moves_no_global_generator():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    build_policy(MIXTURE, 1)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("spec", [MLP, MIXTURE])
def test_the_flat_vector_holds_the_parameters_in_the_order_of_the_spec(spec):
    policy = build_policy(spec, 1)
    assert [tuple(parameter.shape) for parameter in policy.parameters()] == parameter_shapes(spec)
    # By hand: (6+1)*8 + (8+1)*5 + (5+1)*3 actor, the same with 1 output for the critic.
    critic = 7 * 8 + 9 * 5 + 6 * 1
    actor = {"mlp": 7 * 8 + 9 * 5 + 6 * 3, "mixture": 4 * (7 * 10 + 11 * 7 + 8 * 3) + 3 * 4 + 5 * 4}
    assert len(policy.flat_parameters()) == parameter_count(spec) == actor[spec["encoder"]] + critic


@pytest.mark.parametrize("spec", [MLP, MIXTURE])
def test_loading_a_flat_vector_restores_the_policy(spec):
    policy, other = scattered(spec), build_policy(spec, 9)
    other.load_flat(policy.flat_parameters())
    for found, expected in zip(other(observations()), policy(observations()), strict=True):
        assert torch.equal(found, expected)


def test_the_flat_vector_is_a_copy():
    policy = build_policy(MLP, 1)
    policy.flat_parameters().zero_()
    assert policy.flat_parameters().abs().sum() > 0


def test_a_flat_vector_of_another_length_is_refused():
    with pytest.raises(CheckpointError, match="parameters"):
        build_policy(MLP, 1).load_flat(torch.zeros(5))


@pytest.mark.parametrize("spec", [MLP, MIXTURE])
def test_parameters_can_be_exchanged_for_a_call(spec):
    policy, other = build_policy(spec, 1), scattered(spec)
    parameters = dict(other.named_parameters())
    logits, values = torch.func.functional_call(policy, parameters, (observations(),))
    assert torch.equal(logits, other.logits(observations()))
    assert torch.equal(values, other.values(observations()))


@pytest.mark.parametrize("spec", [MLP, MIXTURE])
def test_a_new_policy_is_close_to_uniform(spec):
    probabilities = torch.softmax(build_policy(spec, 1).logits(observations()), -1)
    assert (probabilities - 1 / 3).abs().max() < 0.02


def test_hidden_layers_start_orthogonal():
    policy = build_policy({**MLP, "observations": 8, "hidden": [8, 8]}, 1)
    weight = next(policy.parameters()).detach()
    torch.testing.assert_close(weight.T @ weight, 2.0 * torch.eye(8), atol=1e-5, rtol=0)


def test_a_mixture_mixes_probabilities_and_not_logits():
    policy = scattered(MIXTURE)
    parts = policy.mixture_parts(observations())
    assert parts.gate_probs.shape == (20, 4)
    assert parts.expert_log_probs.shape == (20, 4, 3)
    torch.testing.assert_close(parts.gate_probs.sum(-1), torch.ones(20))
    torch.testing.assert_close(parts.expert_log_probs.exp().sum(-1), torch.ones(20, 4))
    mixed = (parts.gate_probs.unsqueeze(-1) * parts.expert_log_probs.exp()).sum(1)
    torch.testing.assert_close(policy.logits(observations()).exp(), mixed)


def test_the_gate_sees_only_its_own_columns():
    policy, seen = scattered(MIXTURE), observations()
    elsewhere, within = seen.clone(), seen.clone()
    elsewhere[:, [0, 2, 3, 5]] += 1.0
    within[:, 4] += 1.0
    gate = policy.mixture_parts(seen).gate_probs
    assert torch.equal(policy.mixture_parts(elsewhere).gate_probs, gate)
    assert not torch.allclose(policy.mixture_parts(within).gate_probs, gate)


def test_the_temperature_divides_the_gates_scores():
    policy = scattered(MIXTURE)
    scores = policy.actor.gate(observations()[:, [1, 4]])
    expected = torch.softmax(scores / 0.5, -1)
    torch.testing.assert_close(policy.mixture_parts(observations()).gate_probs, expected)


def test_a_new_mixture_weighs_all_experts_alike():
    gate = build_policy(MIXTURE, 1).mixture_parts(observations()).gate_probs
    torch.testing.assert_close(gate, torch.full((20, 4), 0.25))


def test_a_mixture_stays_finite_where_an_expert_is_certain():
    policy = scattered(MIXTURE)
    policy.load_flat(policy.flat_parameters() * 300)
    logits = policy.logits(observations())
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in policy.actor.parameters())


def test_a_single_network_has_no_experts_to_show():
    with pytest.raises(ConfigError, match="mixture"):
        build_policy(MLP, 1).mixture_parts(observations())


def test_every_problem_of_a_spec_is_named_at_once():
    spec = {**MIXTURE, "temprature": 1.0, "experts": 1, "gate_inputs": [0, 6], "expert_hidden": []}
    spec.pop("temperature")
    with pytest.raises(ConfigError) as caught:
        build_policy(spec, 1)
    text = str(caught.value)
    assert "5 problems" in text
    assert "temperature is missing" in text
    assert "did you mean temperature?" in text
    assert "experts has to be a whole number of at least 2, but is 1" in text
    assert "gate_inputs has to lie in 0..5, but names column 6" in text
    assert "expert_hidden" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoder": "lstm"}, "one of mixture, mlp"),
        ({"hidden": [64, 0]}, "layer widths"),
        ({"observations": True}, "observations has to be a whole number"),
        ({"actions": 1}, "at least 2"),
    ],
)
def test_impossible_specs_are_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        build_policy({**MLP, **change}, 1)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, "0.8"])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(ConfigError, match="temperature"):
        build_policy({**MIXTURE, "temperature": temperature}, 1)


def test_a_gate_may_not_read_a_column_twice():
    with pytest.raises(ConfigError, match="twice"):
        build_policy({**MIXTURE, "gate_inputs": [1, 1]}, 1)
