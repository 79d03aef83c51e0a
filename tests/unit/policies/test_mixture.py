"""A mixture begins as the policy it grew from; its measures say how far and how evenly experts work."""

from __future__ import annotations

import math

import pytest
import torch

from rl.common.errors import ConfigError
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.policies.mixture import (
    MixtureRegulariser,
    balance_loss,
    diversity,
    js_divergence,
    warm_start_mixture,
)

LN_2 = math.log(2.0)
PPO_SPEC = {"encoder": "mlp", "observations": 12, "actions": 3, "hidden": [16, 16]}
SPEC = {
    "encoder": "mixture",
    "observations": 12,
    "actions": 3,
    "experts": 4,
    "expert_hidden": [24, 20],
    "gate_hidden": 8,
    "gate_inputs": [0, 5],
    "temperature": 0.8,
    "value_hidden": [16, 16],
}


def decided_policy() -> ActorCritic:
    """Return a single network that has opinions: head two hundred times its start, biases other than 0."""
    policy = build_policy(PPO_SPEC, 2)
    source = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "bias" in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=source)
        policy.actor.layers()[-1][0].mul_(200.0)
    return policy


def observations(count: int = 400) -> torch.Tensor:
    return torch.randn((count, 12), generator=torch.Generator().manual_seed(3))


def certain(action: int, actions: int = 3) -> torch.Tensor:
    """Return logarithms of probabilities that are all on one action, -inf included."""
    log_probs = torch.full((actions,), -math.inf)
    log_probs[action] = 0.0
    return log_probs


def gradient_of(value: torch.Tensor, policy: ActorCritic) -> float:
    """Return the largest entry of the actor's gradient."""
    gradients = torch.autograd.grad(value, list(policy.actor.parameters()), allow_unused=True)
    return max(float(gradient.abs().max()) for gradient in gradients if gradient is not None)


def test_a_warm_start_acts_like_the_policy_it_grew_from():
    ppo = decided_policy()
    log_old = torch.log_softmax(ppo.logits(observations()), -1)
    entropy = -(log_old.exp() * log_old).sum(-1).mean()
    assert entropy < 0.9 * math.log(3), "a uniform policy would make this test empty"
    log_new = warm_start_mixture(ppo, SPEC, seed=1).logits(observations())
    kl = (log_old.exp() * (log_old - log_new)).sum(-1).mean()
    assert 0 < kl < 0.01


def test_a_warm_start_values_states_exactly_as_before():
    ppo = decided_policy()
    mixture = warm_start_mixture(ppo, SPEC, seed=1)
    assert torch.equal(mixture.values(observations()), ppo.values(observations()))


def test_without_noise_the_wider_experts_are_the_old_actor():
    ppo = decided_policy()
    mixture = warm_start_mixture(ppo, SPEC, noise=0.0, seed=1)
    expected = torch.log_softmax(ppo.logits(observations()), -1)
    torch.testing.assert_close(mixture.logits(observations()), expected, atol=1e-5, rtol=0)


def test_new_hidden_units_read_their_inputs_so_that_training_can_use_them():
    actor = warm_start_mixture(decided_policy(), SPEC, seed=1).actor
    (first, _), (second, _), (head, _) = actor.expert_layers()
    assert (first[:, :, 16:].abs().sum(1) > 0).all()
    assert (second[:, :, 16:].abs().sum(1) > 0).all()
    assert (second[:, 16:, :16] == 0).all()
    assert (head[:, 16:] == 0).all()


def test_equal_experts_can_never_part():
    """Why noise is needed: the gate has nothing to choose by, and difference is at its flat minimum."""
    ppo = decided_policy()
    for noise, is_dead in ((0.0, True), (0.1, False)):
        mixture = warm_start_mixture(ppo, SPEC, noise=noise, seed=1)
        parts = mixture.mixture_parts(observations())
        advantage = torch.randn(400, generator=torch.Generator().manual_seed(8))
        policy_gain = (parts.policy_log_probs()[:, 0] * advantage).mean()
        by_gate = torch.autograd.grad(policy_gain, list(mixture.actor.gate.parameters()), retain_graph=True)
        gate_gradient = max(float(gradient.abs().max()) for gradient in by_gate)
        disagreement = diversity(parts.expert_log_probs)
        js_gradient = gradient_of(disagreement, mixture)
        disagreement = disagreement.detach()
        if is_dead:
            assert float(disagreement) == 0.0
            assert js_gradient == 0.0
            assert gate_gradient == 0.0
        else:
            assert float(disagreement) > 0.0
            assert js_gradient > 1e-6
            assert gate_gradient > 1e-4


def test_one_seed_gives_one_warm_start():
    ppo = decided_policy()
    first, again, other = (warm_start_mixture(ppo, SPEC, seed=seed).flat_parameters() for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_old_policy_is_left_as_it_was():
    ppo = decided_policy()
    before = ppo.flat_parameters()
    mixture = warm_start_mixture(ppo, SPEC, seed=1)
    mixture.load_flat(mixture.flat_parameters() * 0)
    assert torch.equal(ppo.flat_parameters(), before)


def test_a_mixture_that_cannot_hold_the_old_policy_is_refused_with_every_reason():
    spec = {**SPEC, "expert_hidden": [8, 20], "value_hidden": [16, 8], "actions": 5}
    with pytest.raises(ConfigError) as caught:
        warm_start_mixture(decided_policy(), spec)
    for words in ("actions has to stay 3, but is 5", "expert_hidden", "value_hidden"):
        assert words in str(caught.value)


def test_a_mixture_does_not_grow_out_of_a_mixture():
    with pytest.raises(ConfigError, match="out of mixture"):
        warm_start_mixture(build_policy(SPEC, 1), SPEC)


def test_divergence_of_one_distribution_from_itself_is_nothing():
    log_p = torch.log_softmax(torch.tensor([[0.3, -1.2, 2.0], [9.0, 0.0, -4.0]]), -1)
    assert torch.equal(js_divergence(log_p, log_p), torch.zeros(2))


def test_divergence_of_distributions_without_overlap_is_ln_2():
    assert float(js_divergence(certain(0), certain(2))) == pytest.approx(LN_2, abs=1e-6)


def test_divergence_by_hand():
    p, q = (0.5, 0.5), (0.9, 0.1)
    # m = (0.7, 0.3); JS = half of sum p ln(p/m) + half of sum q ln(q/m).
    expected = 0.5 * (0.5 * math.log(0.5 / 0.7) + 0.5 * math.log(0.5 / 0.3))
    expected += 0.5 * (0.9 * math.log(0.9 / 0.7) + 0.1 * math.log(0.1 / 0.3))
    found = js_divergence(torch.tensor(p).log(), torch.tensor(q).log())
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_four_experts_with_three_actions_reach_five_sixths_of_ln_2_at_most():
    experts = torch.stack([certain(0), certain(1), certain(2), certain(0)]).unsqueeze(0)
    assert float(diversity(experts)) == pytest.approx(5 / 6 * LN_2, abs=1e-6)
    assert float(diversity(experts)) == pytest.approx(0.57762, abs=1e-5)
    logits = 30 * torch.randn((2000, 4, 3), generator=torch.Generator().manual_seed(1))
    for state in torch.log_softmax(logits, -1):
        assert float(diversity(state.unsqueeze(0))) <= 5 / 6 * LN_2 + 1e-5


def test_the_order_of_experts_does_not_matter():
    log_probs = torch.log_softmax(torch.randn((50, 4, 3), generator=torch.Generator().manual_seed(1)), -1)
    usage = torch.tensor([0.1, 0.2, 0.3, 0.4])
    order = [2, 0, 3, 1]
    assert float(diversity(log_probs[:, order])) == pytest.approx(float(diversity(log_probs)), rel=1e-5)
    found = diversity(log_probs[:, order], usage[order])
    assert float(found) == pytest.approx(float(diversity(log_probs, usage)), rel=1e-5)


def test_equal_use_weighs_every_pair_alike():
    log_probs = torch.log_softmax(torch.randn((50, 4, 3), generator=torch.Generator().manual_seed(1)), -1)
    found = diversity(log_probs, torch.full((4,), 0.25))
    assert float(found) == pytest.approx(float(diversity(log_probs)), rel=1e-5)


def test_an_unused_expert_earns_nothing_by_disagreeing():
    same = torch.log_softmax(torch.tensor([1.0, 0.0, -1.0]), -1)
    log_probs = torch.stack([same, same, same, certain(2)]).unsqueeze(0)
    usage = torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0])
    assert float(diversity(log_probs, usage)) == pytest.approx(0.0, abs=1e-7)
    assert float(diversity(log_probs)) > 0.1


def test_divergence_and_its_gradient_stay_finite_at_certainty():
    logits = torch.tensor([[[900.0, 0.0, 0.0], [0.0, 900.0, 0.0]]], requires_grad=True)
    value = diversity(torch.log_softmax(logits, -1))
    (gradient,) = torch.autograd.grad(value, logits)
    assert float(value.detach()) == pytest.approx(LN_2, abs=1e-6)
    assert torch.isfinite(gradient).all()
    exact = torch.stack([certain(0), certain(1)]).unsqueeze(0).requires_grad_()
    (gradient,) = torch.autograd.grad(diversity(exact), exact)
    assert torch.isfinite(gradient).all()


def test_balance_is_zero_at_equal_use_and_experts_minus_one_at_a_monopoly():
    assert float(balance_loss(torch.full((4,), 0.25))) == pytest.approx(0.0, abs=1e-7)
    assert float(balance_loss(torch.tensor([0.0, 1.0, 0.0, 0.0]))) == pytest.approx(3.0)


def trained_like_mixture() -> ActorCritic:
    mixture = warm_start_mixture(decided_policy(), SPEC, seed=1)
    flat = mixture.flat_parameters()
    mixture.load_flat(flat + 0.5 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(4)))
    return mixture


def test_the_extra_loss_is_reward_for_difference_and_price_of_unequal_use():
    mixture = trained_like_mixture()
    terms = MixtureRegulariser(diversity_weight=0.02, diversity_cap=0.3, balance_weight=0.01)
    usage = terms.statistics(mixture, observations())
    parts = mixture.mixture_parts(observations())
    torch.testing.assert_close(usage, parts.gate_probs.detach().mean(0))
    loss, measures = terms(parts, usage)
    js, balance = float(diversity(parts.expert_log_probs, usage).detach()), float(balance_loss(usage))
    assert balance > 0.01
    assert float(loss.detach()) == pytest.approx(-0.02 * min(js, 0.3) + 0.01 * balance, abs=1e-6)
    assert float(measures["diversity"]) == pytest.approx(js, abs=1e-6)
    assert float(measures["balance"]) == pytest.approx(balance, abs=1e-6)


def test_difference_beyond_the_cap_earns_nothing_more():
    mixture = trained_like_mixture()
    usage = MixtureRegulariser().statistics(mixture, observations())
    parts = mixture.mixture_parts(observations())
    for cap, is_flat in ((1e-3, True), (0.69, False)):
        loss, _ = MixtureRegulariser(diversity_cap=cap, balance_weight=0.0)(parts, usage)
        gradients = torch.autograd.grad(loss, parts.expert_log_probs, retain_graph=True)
        assert (float(gradients[0].abs().max()) == 0.0) is is_flat


def test_the_balance_gradient_of_all_minibatches_is_that_of_the_whole_batch():
    """One minibatch may rightly use one expert; only the whole batch is to be balanced."""
    mixture, seen = trained_like_mixture(), observations()
    gate = list(mixture.actor.gate.parameters())
    whole = balance_loss(mixture.mixture_parts(seen).gate_probs.mean(0))
    expected = torch.autograd.grad(whole, gate)
    terms = MixtureRegulariser(diversity_weight=0.0, balance_weight=1.0)
    usage = terms.statistics(mixture, seen)
    minibatches = seen.split(50)
    losses = [terms(mixture.mixture_parts(part), usage)[0] for part in minibatches]
    found = torch.autograd.grad(sum(losses) / len(minibatches), gate)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_settings_that_make_no_sense_are_named():
    assert MixtureRegulariser().problems() == []
    assert len(MixtureRegulariser(diversity_weight=-1, balance_weight=math.nan).problems()) == 2
