"""The inner loop by numbers worked out by hand: advantages, losses, a step, what it must leave alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl.algorithms.adaptation import (
    AdaptationConfig,
    FunctionalPolicy,
    PolicyBatch,
    RolloutData,
    actor_names,
    adapt,
    adaptable_names,
    adaptation,
    entropy_of,
    fine_tune,
    inner_loss,
    inner_update,
    linear_baseline,
    log_policy,
    policy_batch,
    ratio_surrogate,
    standardised,
)
from rl.common.errors import ConfigError, TrainingDivergedError
from rl.policies.actor_critic import build_policy
from tests.unit.algorithms.small_policies import MIXTURE, MLP

CONFIG = AdaptationConfig(gamma=0.5)


def rewards_one_action(policy: nn.Module, action: int = 2):
    """Return a support function: random observations, one step each, reward 1 for one action."""
    functional = FunctionalPolicy(policy)

    def support(parameters: dict[str, Tensor], rng: np.random.Generator) -> RolloutData:
        obs = torch.as_tensor(rng.normal(size=(64, 4)), dtype=torch.float32)
        with torch.no_grad():
            every = log_policy(functional.at(parameters).logits(obs), None)
        actions = torch.as_tensor(rng.integers(3, size=64))
        return RolloutData(
            obs=obs,
            next_obs=obs,
            actions=actions,
            log_probs=every[torch.arange(64), actions],
            rewards=(actions.numpy() == action).astype(float).reshape(1, 64),
            terminated=np.ones((1, 64), dtype=bool),
            truncated=np.zeros((1, 64), dtype=bool),
        )

    return support


# Advantages


def test_the_baseline_is_exact_where_returns_lie_on_a_line():
    obs = np.array([[0.0], [1.0], [2.0], [3.0]])
    rewards = 3.0 + 2.0 * obs.reshape(4, 1)

    values, next_values = linear_baseline(
        obs, obs + 1.0, rewards, np.zeros((4, 1), dtype=bool), gamma=0.0, ridge=0.0
    )

    np.testing.assert_allclose(values, rewards, atol=1e-8)
    np.testing.assert_allclose(next_values, rewards + 2.0, atol=1e-8)


def test_the_baseline_follows_returns_and_stops_at_an_ending():
    # One column of zeros: the value of every state is the mean return.
    # Rewards 1, 2, 4, an ending after the second, gamma 0.5: returns 1 + 0.5 * 2 = 2, then 2, then 4.
    obs = np.zeros((3, 1))
    rewards = np.array([[1.0], [2.0], [4.0]])
    ended = np.array([[False], [True], [False]])

    values, _ = linear_baseline(obs, obs, rewards, ended, gamma=0.5, ridge=0.01)

    np.testing.assert_allclose(values, np.full((3, 1), (2.0 + 2.0 + 4.0) / 3.0))


def test_the_baseline_survives_constant_and_repeated_columns():
    rng = np.random.default_rng(0)
    column = rng.normal(size=(50, 1))
    obs = np.hstack([column, column, np.ones((50, 1))])

    values, _ = linear_baseline(
        obs, obs, rng.normal(size=(50, 1)), np.zeros((50, 1), dtype=bool), gamma=0.9, ridge=0.0
    )

    assert np.isfinite(values).all()


def test_advantages_that_are_all_alike_become_zero_instead_of_noise():
    assert torch.equal(standardised(torch.full((5,), 3.0)), torch.zeros(5))
    # Mean 2, deviations (-1, 0, 1), their mean square 2/3.
    expected = torch.tensor([-1.0, 0.0, 1.0]) / math.sqrt(2.0 / 3.0)
    torch.testing.assert_close(standardised(torch.tensor([1.0, 2.0, 3.0])), expected)


def test_rows_of_a_batch_follow_time_then_lane():
    """The flat rows and the (T, N) rewards have to speak about the same transitions."""
    obs = torch.zeros(4, 1)
    rollout = RolloutData(
        obs=obs,
        next_obs=obs,
        actions=torch.tensor([0, 1, 0, 1]),
        log_probs=torch.zeros(4),
        rewards=np.array([[0.0, 1.0], [0.0, 5.0]]),
        terminated=np.ones((2, 2), dtype=bool),
        truncated=np.zeros((2, 2), dtype=bool),
    )

    batch = policy_batch(rollout, CONFIG, torch.zeros(()))

    # Every step is an episode of its own: advantage = reward - mean reward 1.5, in the order 0, 1, 0, 5.
    raw = torch.tensor([-1.5, -0.5, -1.5, 3.5])
    torch.testing.assert_close(batch.advantages, raw / raw.square().mean().sqrt())
    assert batch.mean_reward == 1.5


# Losses


def test_a_forbidden_action_has_probability_zero_and_leaves_the_entropy_finite():
    logits = torch.tensor([[1.0, 5.0, 1.0]], requires_grad=True)

    every = log_policy(logits, torch.tensor([[True, False, True]]))

    torch.testing.assert_close(every.exp(), torch.tensor([[0.5, 0.0, 0.5]]))
    entropy = entropy_of(every).sum()
    torch.testing.assert_close(entropy, torch.tensor(math.log(2.0)))
    assert torch.isfinite(torch.autograd.grad(entropy, logits)[0]).all()


def test_the_inner_loss_is_minus_the_weighted_ratio_minus_the_entropy():
    # Uniform over two actions; the sampler gave action 0 probability 1/4 and action 1 probability 1/2.
    batch = PolicyBatch(
        obs=torch.zeros(2, 1),
        actions=torch.tensor([0, 1]),
        log_probs=torch.tensor([0.25, 0.5]).log(),
        advantages=torch.tensor([3.0, -1.0]),
    )

    loss = inner_loss(torch.zeros(2, 2), batch, entropy_coef=0.1)

    # Ratios 2 and 1: mean of (2 * 3, 1 * -1) = 2.5.
    torch.testing.assert_close(loss, torch.tensor(-2.5 - 0.1 * math.log(2.0)))


def test_advantages_and_old_log_probabilities_are_constants_to_the_gradient():
    log_probs = torch.tensor([-1.0], requires_grad=True)
    old = torch.tensor([-1.0], requires_grad=True)
    advantages = torch.tensor([2.0], requires_grad=True)

    gradients = torch.autograd.grad(
        ratio_surrogate(log_probs, old, advantages).sum(), [log_probs, old, advantages], allow_unused=True
    )

    assert gradients[0] == 2.0
    assert gradients[1] is None
    assert gradients[2] is None


# One step


def test_a_step_leaves_the_given_parameters_and_those_without_a_step_size_alone():
    x, y = torch.tensor(3.0, requires_grad=True), torch.tensor(5.0, requires_grad=True)

    moved = inner_update(x**2 + y, {"x": x, "y": y}, {"x": 0.1}, second_order=False)

    assert moved["x"].item() == pytest.approx(3.0 - 0.1 * 6.0)
    assert moved["y"] is y
    assert x.item() == 3.0


def test_diverged_adaptation_names_the_step_and_the_tensor():
    x = torch.tensor(1.0, requires_grad=True)

    def loss_at(step: int, current: dict[str, Tensor]) -> Tensor:
        # In its second step the gradient of sqrt at 0 is infinite, while the loss itself is fine.
        return current["x"] if step == 0 else current["x"].clamp_min(0.0).sqrt()

    with pytest.raises(TrainingDivergedError, match="iteration 4, inner step 2 of 3: parameter x is not"):
        list(adaptation({"x": x}, {"x": 1.0}, loss_at, 3, second_order=False, label="iteration 4, "))


def test_a_loss_that_is_nan_stops_before_it_reaches_the_parameters():
    x = torch.tensor(1.0, requires_grad=True)
    with pytest.raises(TrainingDivergedError, match="inner step 1 of 1: the inner loss is not finite"):
        list(adaptation({"x": x}, {"x": 1.0}, lambda _, p: p["x"] * math.nan, 1, second_order=False))


# Which parameters adapt


def test_the_critic_is_told_from_the_actor_by_what_action_probabilities_depend_on():
    for spec in (MLP, MIXTURE):
        policy = build_policy(spec, 0)
        names = [name for name, _ in policy.named_parameters()]
        assert actor_names(policy) == [name for name in names if not name.startswith("critic.")]


def test_heads_are_the_last_layer_of_each_expert_and_the_gate_may_join_them():
    mlp, mixture = build_policy(MLP, 0), build_policy(MIXTURE, 0)

    assert adaptable_names(mlp, "heads") == ["actor.weight_2", "actor.bias_2"]
    assert adaptable_names(mixture, "heads") == ["actor.expert_weight_2", "actor.expert_bias_2"]
    gate = [f"actor.gate.{part}_{layer}" for layer in (0, 1) for part in ("weight", "bias")]
    expected = {*gate, "actor.expert_weight_2", "actor.expert_bias_2"}
    assert set(adaptable_names(mixture, "gate+heads")) == expected


def test_a_gate_cannot_be_adapted_where_there_is_none():
    with pytest.raises(ConfigError, match="needs a mixture"):
        adaptable_names(build_policy(MLP, 0), "gate+heads")


# Adaptation at use


@pytest.mark.parametrize("spec", [MLP, MIXTURE], ids=["mlp", "mixture"])
def test_adapting_leaves_the_policy_bit_identical_and_repeats_itself(spec):
    policy = build_policy(spec, 0)
    before = {name: tensor.clone() for name, tensor in policy.named_parameters()}
    buffers = {name: tensor.clone() for name, tensor in policy.named_buffers()}
    sizes = dict.fromkeys(adaptable_names(policy), 1.0)

    support = rewards_one_action(policy)
    adapted = adapt(policy, sizes, support, 3, np.random.default_rng(1), CONFIG)
    again = adapt(policy, sizes, support, 3, np.random.default_rng(1), CONFIG)
    other = adapt(policy, sizes, support, 3, np.random.default_rng(2), CONFIG)

    for name, tensor in policy.named_parameters():
        assert torch.equal(tensor, before[name])
        assert tensor.grad is None
        assert torch.equal(adapted[name], again[name])
        assert not adapted[name].requires_grad
        assert name.startswith("critic.") == torch.equal(adapted[name], before[name])
    for name, tensor in policy.named_buffers():
        assert torch.equal(tensor, buffers[name])
    assert any(not torch.equal(adapted[name], other[name]) for name in adapted)


def test_running_statistics_of_a_layer_do_not_leak_out_of_an_adaptation():
    class Normalising(nn.Module):
        def __init__(self):
            super().__init__()
            self.spec = {"observations": 4, "actions": 3}
            self.norm = nn.BatchNorm1d(4)
            self.head = nn.Linear(4, 3)

        def logits(self, obs: Tensor) -> Tensor:
            return self.head(self.norm(obs))

        def values(self, obs: Tensor) -> Tensor:
            return obs[:, 0]

    torch.manual_seed(0)
    policy = Normalising()
    before = {name: tensor.clone() for name, tensor in policy.named_buffers()}

    adapt(policy, {"head.weight": 0.1}, rewards_one_action(policy), 2, np.random.default_rng(0), CONFIG)

    for name, tensor in policy.named_buffers():
        assert torch.equal(tensor, before[name])
    # The layer does write into its buffers when it is called without that care.
    policy.logits(torch.randn(8, 4))
    assert not torch.equal(policy.norm.running_mean, before["norm.running_mean"])


def test_adapting_raises_the_probability_of_the_rewarded_action():
    policy = build_policy(MLP, 0)
    sizes = dict.fromkeys(adaptable_names(policy), 1.0)
    curve = []

    def note(_step: int, parameters: dict[str, Tensor]) -> None:
        every = log_policy(FunctionalPolicy(policy).at(parameters).logits(torch.zeros(1, 4)), None)
        curve.append(every.exp()[0, 2].item())

    adapt(policy, sizes, rewards_one_action(policy), 7, np.random.default_rng(1), CONFIG, note)

    assert len(curve) == 8
    assert curve[0] == pytest.approx(1 / 3, abs=0.01)
    assert curve[-1] > 0.9


def test_fine_tuning_is_adaptation_with_one_step_size():
    policy = build_policy(MIXTURE, 0)
    config = AdaptationConfig(gamma=0.5, adapt="heads")
    support = rewards_one_action(policy)

    tuned = fine_tune(policy, support, 2, 0.3, np.random.default_rng(1), config)
    sizes = {"actor.expert_weight_2": 0.3, "actor.expert_bias_2": 0.3}
    adapted = adapt(policy, sizes, support, 2, np.random.default_rng(1), config)

    assert all(torch.equal(tuned[name], adapted[name]) for name in tuned)
    assert torch.equal(tuned["actor.expert_weight_0"], policy.get_parameter("actor.expert_weight_0"))
    assert not torch.equal(tuned["actor.expert_weight_2"], policy.get_parameter("actor.expert_weight_2"))
