"""Is the meta-gradient the real one? Worlds with a known answer, and the duties of the outer loop."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl.algorithms import maml
from rl.algorithms.adaptation import (
    FunctionalPolicy,
    PolicyBatch,
    RolloutData,
    adaptable_names,
    adaptation,
    log_policy,
)
from rl.algorithms.maml import (
    MAML,
    MAMLConfig,
    RecordedRollouts,
    TaskRollouts,
    clipped_surrogate,
    critic_targets,
    kl_divergence,
    native_path,
    query_loss,
    query_weights,
    task_meta_loss,
)
from rl.common.errors import CheckpointError, ConfigError, StagegateError, TrainingDivergedError
from rl.policies.actor_critic import build_policy
from tests.unit.algorithms.small_policies import LAYER_NORM, MIXTURE, MLP, lively_policy

SMALL = MAMLConfig(
    iterations=4,
    inner_loop_steps=2,
    inner_step_size=0.5,
    first_order_fraction=0.5,
    multi_step_fraction=0.5,
    gamma=0.5,
)


# Worlds with a known answer; more of them, and the engine broken on purpose, in tests/learning/test_maml_proofs.py


def test_the_step_size_gradient_of_one_parabola_is_the_one_on_paper():
    # d/d alpha of 1/2 ((1 - alpha)^7 x)^2 = -7 (1 - alpha)^13 x^2. First order holds each inner gradient
    # (1 - alpha)^k x fixed, so there x' changes by minus their sum, k = 0 … 6.
    x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    expected = {True: -7 * 0.9**13 * 4.0, False: -(0.9**7 * 2.0) * sum(0.9**k * 2.0 for k in range(7))}
    for second_order, by_hand in expected.items():
        alpha = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
        path = adaptation({"x": x}, {"x": alpha}, lambda _, p: p["x"] ** 2 / 2, 7, second_order=second_order)
        *_, adapted = path
        gradient = torch.autograd.grad(adapted["x"] ** 2 / 2, alpha)[0].item()
        assert gradient == pytest.approx(by_hand, rel=1e-12)


class TwoArms(nn.Module):
    """Logits (theta, 0), whatever is observed; the critic says `value`."""

    def __init__(self, theta: float):
        super().__init__()
        self.spec = {"observations": 1, "actions": 2}
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))
        self.value = nn.Parameter(torch.tensor(0.25, dtype=torch.float64))

    def logits(self, obs: Tensor) -> Tensor:
        return torch.stack([self.theta, torch.zeros_like(self.theta)]).expand(len(obs), 2)

    def values(self, obs: Tensor) -> Tensor:
        return self.value.expand(len(obs))


@pytest.mark.parametrize("second_order", [True, False])
def test_the_whole_task_loss_gives_the_exact_meta_gradient_of_a_bandit(second_order):
    # Five pulls of arm 0 and three of arm 1 are exactly their probabilities 5/8 and 3/8.
    theta, alpha = math.log(5 / 3), 2.0
    slope, curvature = 15 / 64, 15 / 64 * (3 / 8 - 5 / 8)
    p_after = 1 / (1 + math.exp(-(theta + alpha * slope)))
    support = PolicyBatch(
        obs=torch.zeros(8, 1, dtype=torch.float64),
        actions=torch.tensor([0] * 5 + [1] * 3),
        log_probs=torch.tensor([5 / 8] * 5 + [3 / 8] * 3, dtype=torch.float64).log(),
        advantages=torch.tensor([1.0] * 5 + [0.0] * 3, dtype=torch.float64),
    )
    # One row for each arm, its probability (times the number of rows) put into the advantage.
    query = PolicyBatch(
        obs=torch.zeros(2, 1, dtype=torch.float64),
        actions=torch.tensor([0, 1]),
        log_probs=torch.tensor([p_after, 1 - p_after], dtype=torch.float64).log(),
        advantages=torch.tensor([2 * p_after, 0.0], dtype=torch.float64),
        value_targets=torch.tensor([1.0, 0.0], dtype=torch.float64),
    )
    policy = TwoArms(theta)
    config = MAMLConfig(inner_loop_steps=1, inner_entropy_coef=0.0, value_coef=0.5)
    log_size = torch.tensor(math.log(alpha), dtype=torch.float64, requires_grad=True)

    found = task_meta_loss(
        FunctionalPolicy(policy),
        dict(policy.named_parameters()),
        {"theta": log_size.exp()},
        RecordedRollouts([support], {1: query}),
        config,
        second_order=second_order,
    )
    gradients = torch.autograd.grad(found.loss, [policy.theta, log_size, policy.value])

    slope_after = p_after * (1 - p_after)
    through = 1 + alpha * curvature if second_order else 1.0
    assert -gradients[0].item() == pytest.approx(slope_after * through, rel=1e-9)
    # theta' = theta + exp(log size) * slope.
    assert -gradients[1].item() == pytest.approx(slope_after * alpha * slope, rel=1e-9)
    # 0.5 * mean((0.25 - 1)^2, (0.25 - 0)^2): its derivative is 0.5 * mean(2 * -0.75, 2 * 0.25).
    assert gradients[2].item() == pytest.approx(-0.25, rel=1e-9)
    assert found.query_reward != found.query_reward  # recorded without rewards: nan, not 0


# The project's own networks


def recorded_task(policy: nn.Module, seed: int, steps: int, rows: int = 40) -> RecordedRollouts:
    """Return random batches whose sampling policy is a little off, so that nothing cancels."""
    rng = np.random.default_rng(seed)

    def batch() -> PolicyBatch:
        obs = torch.as_tensor(rng.normal(size=(rows, 4)))
        actions = torch.as_tensor(rng.integers(3, size=rows))
        with torch.no_grad():
            every = log_policy(policy.logits(obs), None)
        chosen = every[torch.arange(rows), actions] + torch.as_tensor(0.02 * rng.normal(size=rows))
        advantages, targets = torch.as_tensor(rng.normal(size=(2, rows)))
        return PolicyBatch(
            obs=obs,
            actions=actions,
            log_probs=chosen,
            advantages=advantages,
            value_targets=targets,
            sampling_log_policy=every,
        )

    return RecordedRollouts([batch() for _ in range(steps)], {step: batch() for step in range(1, steps + 1)})


MIXED = (0.2, 0.3, 0.5)


def loss_and_gradients(
    policy: nn.Module,
    sizes: dict[str, Tensor],
    *,
    second_order: bool,
    kl_coef: float = 0.3,
    weights: Sequence[float] = MIXED,
):
    config = MAMLConfig(inner_loop_steps=3, inner_entropy_coef=0.01)
    found = task_meta_loss(
        FunctionalPolicy(policy),
        dict(policy.named_parameters()),
        {name: size.exp() for name, size in sizes.items()},
        recorded_task(policy_at_recording(policy), 5, 3),
        config,
        second_order=second_order,
        weights=weights,
        kl_coef=kl_coef,
    )
    leaves = [*policy.parameters(), *sizes.values()]
    return found.loss, torch.autograd.grad(found.loss, leaves)


def policy_at_recording(policy: nn.Module) -> nn.Module:
    """Recorded data must not follow the parameters that finite differences move."""
    return lively_policy(policy.spec)


def log_sizes(policy: nn.Module, size: float = 0.3) -> dict[str, Tensor]:
    names = [name for name, _ in policy.named_parameters() if name.startswith("actor.")]
    return {name: torch.tensor(math.log(size), dtype=torch.float64, requires_grad=True) for name in names}


EVERY_SPEC = pytest.mark.parametrize("spec", [MLP, MIXTURE, LAYER_NORM], ids=["mlp", "mixture", "layer norm"])


@pytest.mark.parametrize(
    "weights", [MIXED, query_weights(0.0, 3), query_weights(1.0, 3)], ids=["mixed", "all alike", "last only"]
)
@EVERY_SPEC
def test_the_meta_gradient_agrees_with_finite_differences(spec, weights):
    """In every parameter and step size, however the query losses after each step are weighed."""
    policy = lively_policy(spec)
    sizes = log_sizes(policy)
    _, gradients = loss_and_gradients(policy, sizes, second_order=True, weights=weights)
    leaves = [*policy.parameters(), *sizes.values()]
    source = torch.Generator().manual_seed(3)
    for _ in range(3):
        direction = [torch.randn(leaf.shape, generator=source, dtype=torch.float64) for leaf in leaves]
        slope = sum((d * g).sum() for d, g in zip(direction, gradients, strict=True)).item()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for leaf, d in zip(leaves, direction, strict=True):
                    leaf += sign * 1e-5 * d
            values.append(loss_and_gradients(policy, sizes, second_order=True, weights=weights)[0].item())
            with torch.no_grad():
                for leaf, d in zip(leaves, direction, strict=True):
                    leaf -= sign * 1e-5 * d
        measured = (values[0] - values[1]) / 2e-5
        print(f"relative error {abs(measured / slope - 1):.1e}")
        assert measured == pytest.approx(slope, rel=1e-6)


def test_finite_differences_would_notice_first_order_and_other_query_weights():
    policy = lively_policy(MIXTURE)
    sizes = log_sizes(policy)
    _, right = loss_and_gradients(policy, sizes, second_order=True)
    for _, wrong in (
        loss_and_gradients(policy, sizes, second_order=False),
        loss_and_gradients(policy, sizes, second_order=True, weights=query_weights(0.0, 3)),
        loss_and_gradients(policy, sizes, second_order=True, weights=query_weights(1.0, 3)),
    ):
        gap = max((a - b).abs().max().item() for a, b in zip(right, wrong, strict=True))
        assert gap > 1e-3


@EVERY_SPEC
def test_second_order_differs_from_first_order(spec):
    policy = lively_policy(spec)
    sizes = log_sizes(policy)
    loss_2, second = loss_and_gradients(policy, sizes, second_order=True)
    loss_1, first = loss_and_gradients(policy, sizes, second_order=False)

    assert loss_1.item() == loss_2.item()
    flat_1, flat_2 = (torch.cat([g.reshape(-1) for g in gradients]) for gradients in (first, second))
    difference = ((flat_2 - flat_1).norm() / flat_1.norm()).item()
    print(f"relative difference {difference:.3f}")
    assert difference > 1e-3


def test_every_step_size_receives_a_gradient_in_either_order():
    policy = lively_policy(MIXTURE)
    sizes = log_sizes(policy)
    for second_order in (True, False):
        _, gradients = loss_and_gradients(policy, sizes, second_order=second_order)
        assert all(gradient != 0 for gradient in gradients[-len(sizes) :])


@EVERY_SPEC
def test_the_meta_loss_moves_no_parameter_and_no_buffer(spec):
    policy = lively_policy(spec)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    buffers = {name: tensor.clone() for name, tensor in policy.named_buffers()}
    loss_and_gradients(policy, log_sizes(policy), second_order=True)
    for name, tensor in [*policy.state_dict().items(), *policy.named_buffers()]:
        assert torch.equal(tensor, before[name] if name in before else buffers[name])
    assert all(tensor.grad is None for tensor in policy.parameters())


def test_the_critic_learns_from_the_value_loss_only_and_does_not_adapt():
    policy = lively_policy(MLP)
    functional = FunctionalPolicy(policy)
    rollouts = recorded_task(policy, 5, 2)
    critic = [tensor for name, tensor in policy.named_parameters() if name.startswith("critic.")]
    gradients = []
    for value_coef in (0.5, 1.0, 0.0):
        found = task_meta_loss(
            functional,
            dict(policy.named_parameters()),
            {name: size.exp() for name, size in log_sizes(policy).items()},
            rollouts,
            MAMLConfig(inner_loop_steps=2, value_coef=value_coef),
            second_order=True,
        )
        gradients.append(torch.autograd.grad(found.loss, critic))
    query = rollouts.query(2, {})
    by_hand = torch.autograd.grad((policy.values(query.obs) - query.value_targets).square().mean(), critic)
    for half, whole, none, expected in zip(*gradients, by_hand, strict=True):
        torch.testing.assert_close(2 * half, expected)
        torch.testing.assert_close(whole, expected)
        assert not none.any()


# Outer losses


def test_the_clip_stops_rewarding_a_ratio_that_left_its_range():
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5])
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])

    found = clipped_surrogate(ratio.log(), torch.zeros(4), advantages, 0.2)

    torch.testing.assert_close(found, torch.tensor([1.2, -1.5, 0.5, -0.8]))


def test_the_divergence_is_that_of_the_sampling_policy_from_the_new_one():
    old, new = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert kl_divergence(old.log(), new.log()).item() == pytest.approx(by_hand, rel=1e-6)


def test_the_divergence_from_the_sampling_policies_is_paid_for_once_per_inner_step():
    policy = lively_policy(MLP)
    sizes = log_sizes(policy)
    free, _ = loss_and_gradients(policy, sizes, second_order=True, kl_coef=0.0)
    paid, _ = loss_and_gradients(policy, sizes, second_order=True, kl_coef=0.3)

    # The recorded batches were all sampled by the unadapted policy. Its first step diverges by nothing.
    rollouts, functional = recorded_task(policy, 5, 3), FunctionalPolicy(policy)
    points = native_path(
        functional,
        dict(policy.named_parameters()),
        {name: size.exp() for name, size in sizes.items()},
        rollouts,
        MAMLConfig(inner_loop_steps=3, inner_entropy_coef=0.01),
        second_order=False,
    )
    by_hand = []
    for step, point in zip(range(3), points, strict=False):
        batch = rollouts.support(step, {})
        old, new = batch.sampling_log_policy, torch.log_softmax(point.logits(batch.obs), dim=-1)
        by_hand.append((old.exp() * (old - new)).sum(1).mean().item())
    assert by_hand[0] == pytest.approx(0.0, abs=1e-12)
    assert by_hand[2] > 1e-3
    assert (paid - free).item() == pytest.approx(0.3 * sum(by_hand) / 3, rel=1e-9)


def test_query_weights_go_from_all_steps_alike_to_the_last_one_only():
    assert query_weights(0.0, 4) == [0.25] * 4
    assert query_weights(0.5, 4) == [0.125, 0.125, 0.125, 0.625]
    assert query_weights(1.0, 4) == [0.0, 0.0, 0.0, 1.0]
    assert query_weights(7.0, 4) == [0.0, 0.0, 0.0, 1.0]


def test_critic_targets_are_its_own_lambda_returns():
    # One lane, two steps, then the data ran out: gamma 0.5, lambda 1, critic says obs itself.
    rollout = RolloutData(
        obs=torch.tensor([[1.0], [2.0]]),
        next_obs=torch.tensor([[2.0], [8.0]]),
        actions=torch.zeros(2, dtype=torch.int64),
        log_probs=torch.zeros(2),
        rewards=np.array([[10.0], [20.0]]),
        terminated=np.array([[False], [False]]),
        truncated=np.array([[False], [True]]),
    )
    targets = critic_targets(lambda obs: obs[:, 0], rollout, MAMLConfig(gamma=0.5, gae_lambda=1.0))
    # Last: 20 + 0.5 * 8 = 24. First: 10 + 0.5 * 24 = 22.
    torch.testing.assert_close(targets, torch.tensor([22.0, 24.0]))


# The outer loop, in a world where the sign of one number decides which action pays


class SignTask:
    """Action 2 pays `sign` times the first observation, action 0 the opposite, action 1 nothing."""

    def __init__(self, policy: nn.Module, sign: float):
        self.functional = FunctionalPolicy(policy)
        self.sign = sign
        self.seen: list[dict[str, Tensor]] = []

    def support(self, policy_params: dict[str, Tensor], rng: np.random.Generator) -> RolloutData:
        self.seen.append(policy_params)
        obs = torch.as_tensor(rng.normal(size=(32, 4)), dtype=torch.float32)
        with torch.no_grad():
            every = log_policy(self.functional.at(policy_params).logits(obs), None)
        actions = torch.as_tensor((every.exp().numpy().cumsum(1) < rng.random((32, 1))).sum(1).clip(0, 2))
        return RolloutData(
            obs=obs,
            next_obs=obs,
            actions=actions,
            log_probs=every[torch.arange(32), actions],
            rewards=(self.sign * obs[:, 0].numpy() * (actions.numpy() - 1.0)).reshape(4, 8),
            terminated=np.ones((4, 8), dtype=bool),
            truncated=np.zeros((4, 8), dtype=bool),
        )

    query = support


class SignSampler:
    def __init__(self, policy: nn.Module):
        self.policy = policy
        self.drawn: list[SignTask] = []

    def sample(self, n: int, rng: np.random.Generator) -> list[SignTask]:
        tasks = [SignTask(self.policy, float(sign)) for sign in rng.choice([-1, 1], size=n)]
        self.drawn += tasks
        return tasks


def new_run(config: MAMLConfig = SMALL, seed: int = 3, spec: dict = MLP, **options) -> MAML:
    policy = build_policy(spec, 0)
    return MAML(policy, SignSampler(policy), config, seed, **options)


def bits_of(run: MAML) -> list[Tensor]:
    return [*(p.detach().clone() for p in run.policy.parameters()), *run.step_sizes().values()]


def same_bits(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("spec", [MLP, MIXTURE], ids=["mlp", "mixture"])
def test_training_twice_with_one_seed_gives_equal_weights_and_another_seed_does_not(spec):
    first, second, other = new_run(spec=spec), new_run(spec=spec), new_run(seed=4, spec=spec)
    for run in (first, second, other):
        run.train()
    assert same_bits(bits_of(first), bits_of(second))
    assert first.history == second.history
    assert not same_bits(bits_of(first), bits_of(other))


@pytest.mark.parametrize("spec", [MLP, MIXTURE], ids=["mlp", "mixture"])
def test_a_run_continued_from_its_saved_state_equals_the_uninterrupted_one(spec):
    """The learned step sizes are part of it."""
    config = replace(SMALL, outer_epochs=2)
    whole = new_run(config, spec=spec)
    whole.train()

    first = new_run(config, spec=spec)
    first.train(2)
    file = io.BytesIO()
    torch.save(first.state(), file)
    first.train(1)  # what happens after the save must not matter
    file.seek(0)
    second = new_run(config, spec=spec)
    second.load_state(torch.load(file, weights_only=True))
    assert len({size.item() for size in second.step_sizes().values()}) > 1
    result = second.train()

    assert result.iterations == 4
    assert same_bits(bits_of(whole), bits_of(second))
    assert result.history == whole.history


def test_a_state_of_another_policy_or_seed_is_refused():
    state = new_run(spec=MIXTURE).state()
    with pytest.raises(CheckpointError, match=r"parameters differ in actor.bias_0, actor.bias_1"):
        new_run().load_state(state)
    with pytest.raises(CheckpointError, match="seed 5, this run has seed 3"):
        new_run().load_state(new_run(seed=5).state())


def test_each_inner_step_is_sampled_by_the_parameters_reached():
    """On stale data the ratio is not 1 and the second derivative is another one."""
    run = new_run(
        replace(SMALL, iterations=1, first_order_fraction=0.0, multi_step_fraction=0.0, meta_batch_size=1)
    )
    start = {name: tensor.detach().clone() for name, tensor in run.policy.named_parameters()}
    run.train()

    seen = run.sampler.drawn[0].seen
    assert len(seen) == 3  # two support rollouts, one query rollout
    assert all(not tensor.requires_grad for parameters in seen for tensor in parameters.values())
    distances = [(p["actor.weight_2"] - start["actor.weight_2"]).norm().item() for p in seen]
    # The task's tensors of step 0 are the policy's own, which the outer update has moved since.
    assert distances[0] < 0.01 < distances[1] < distances[2]


def test_a_second_outer_epoch_acts_no_more_and_is_held_near_the_first():
    once, twice = new_run(SMALL), new_run(replace(SMALL, outer_epochs=2))
    for run in (once, twice):
        run.train(1)

    assert len(once.sampler.drawn[0].seen) == len(twice.sampler.drawn[0].seen)
    assert once.history[0]["kl_to_sampling"] == 0.0
    assert 0.0 < twice.history[0]["kl_to_sampling"] < SMALL.kl_target / 1.5
    # Far below the target the penalty is halved for the next iteration.
    assert twice.kl_coef == SMALL.kl_coef / 2
    assert not same_bits(bits_of(once), bits_of(twice))


@EVERY_SPEC
def test_the_order_of_tasks_does_not_matter(spec):
    policy = lively_policy(spec)
    recorded = [recorded_task(policy, seed, 2) for seed in (1, 2, 3)]

    def gradient(order: tuple[int, ...]) -> Tensor:
        for tensor in policy.parameters():
            tensor.grad = None
        for place in order:
            sizes = {name: size.exp() for name, size in log_sizes(policy).items()}
            parameters = dict(policy.named_parameters())
            found = task_meta_loss(
                FunctionalPolicy(policy),
                parameters,
                sizes,
                recorded[place],
                MAMLConfig(inner_loop_steps=2),
                second_order=True,
            )
            (found.loss / 3).backward()
        return torch.cat([tensor.grad.reshape(-1) for tensor in policy.parameters()])

    torch.testing.assert_close(gradient((0, 1, 2)), gradient((2, 0, 1)), rtol=1e-12, atol=1e-14)


def test_the_schedule_starts_first_order_with_all_query_losses_and_ends_second_order_with_the_last():
    # Half of 4 iterations each: iterations 1, 2 first order; the weights reach the last step at iteration 3.
    run = new_run(replace(SMALL, meta_batch_size=1))
    run.train()
    assert [record["second_order"] for record in run.history] == [0.0, 0.0, 1.0, 1.0]
    # Two support rollouts each, and two query rollouts (one for each inner step) while both count.
    assert [len(task.seen) for task in run.sampler.drawn] == [4, 4, 3, 3]


def test_query_weights_of_a_run_follow_its_schedule_to_the_iteration(monkeypatch):
    """Ten iterations, weights on the last step alone after three tenths of them, one tenth first order."""
    seen = []

    def noted(*args, second_order, weights, **rest):
        seen.append((second_order, [round(weight, 9) for weight in weights]))
        return task_meta_loss(*args, second_order=second_order, weights=weights, **rest)

    monkeypatch.setattr(maml, "task_meta_loss", noted)
    new_run(
        replace(SMALL, iterations=10, first_order_fraction=0.1, multi_step_fraction=0.3, meta_batch_size=1)
    ).train(5)
    third = 1 / 3
    # Two inner steps: the first one's weight falls from a half in three equal parts.
    expected = [0.5, 0.5 * 2 * third, 0.5 * third, 0.0, 0.0]
    assert [weights for _, weights in seen] == [[round(w, 9), round(1 - w, 9)] for w in expected]
    assert [second_order for second_order, _ in seen] == [False, True, True, True, True]


def test_each_task_of_each_update_draws_from_a_stream_of_its_own():
    """Else two tasks of an update would see the same luck, and the mean over them would be no steadier than one."""
    streams = []

    class Noting(SignTask):
        def support(self, policy_params, rng):
            streams.append(str(rng.bit_generator.state["state"]))
            return super().support(policy_params, rng)

    run = new_run(replace(SMALL, inner_loop_steps=1))
    run.sampler.sample = lambda n, rng: [Noting(run.policy, 1.0) for _ in range(n)]
    run.train(2)
    assert len(streams) == len(set(streams)) == 4


def test_accumulation_pools_draws_in_one_update():
    run = new_run(replace(SMALL, meta_batch_size=2, meta_accumulation=3))
    run.train(1)
    assert len(run.sampler.drawn) == 6
    assert run.iteration == 1


def test_the_outer_gradient_is_the_mean_over_tasks_not_their_sum():
    class Unchanging(SignTask):
        def support(self, policy_params, rng):
            return super().support(policy_params, np.random.default_rng(0))

        query = support

    norms = []
    for count in (1, 4):
        run = new_run(replace(SMALL, meta_batch_size=count))
        run.sampler.sample = lambda n, rng, run=run: [Unchanging(run.policy, 1.0) for _ in range(n)]
        run.train(1)
        names = ("policy_grad_norm", "critic_grad_norm", "step_size_grad_norm", "loss")
        norms.append([run.history[0][name] for name in names])
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_policy_critic_and_step_sizes_are_clipped_apart():
    run = new_run(replace(SMALL, max_grad_norm=1e-4))
    run.train(1)
    named = dict(run.policy.named_parameters())
    actor = [tensor for name, tensor in named.items() if name.startswith("actor.")]
    critic = [tensor for name, tensor in named.items() if name.startswith("critic.")]
    for group in (actor, critic, list(run.log_step_sizes.values())):
        norm = torch.cat([tensor.grad.reshape(-1) for tensor in group]).norm().item()
        assert norm == pytest.approx(1e-4, rel=1e-2)
    assert run.history[0]["policy_grad_norm"] > 1e-3


def test_step_sizes_are_learned_within_their_bounds():
    config = replace(SMALL, iterations=3, step_size_learning_rate=100.0)
    run = new_run(config)
    sizes = run.train().step_sizes
    assert set(sizes) == {name for name, _ in run.policy.named_parameters() if name.startswith("actor.")}
    for size in sizes.values():
        # Adam's steps of 100 in the logarithm throw each step size onto one of its bounds.
        assert min(abs(size.item() / 5.0 - 1), abs(size.item() / 1e-3 - 1)) < 1e-5


@pytest.mark.parametrize(
    ("spec", "choice"),
    [(MLP, "all"), (MLP, "heads"), (MIXTURE, "all"), (MIXTURE, "heads"), (MIXTURE, "gate+heads")],
)
def test_only_the_chosen_part_adapts_while_everything_meta_learns(spec, choice):
    config = replace(
        SMALL, adapt=choice, multi_step_fraction=0.0, first_order_fraction=0.0, meta_batch_size=1
    )
    run = new_run(config, spec=spec)
    with torch.no_grad():
        # A new policy's head and gate are close to zero, and would hide the layers below.
        for tensor in run.policy.parameters():
            tensor += 0.3 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
    before = {name: tensor.detach().clone() for name, tensor in run.policy.named_parameters()}
    run.train(1)
    seen = run.sampler.drawn[0].seen
    chosen = set(adaptable_names(run.policy, choice))
    assert {name for name in seen[1] if not torch.equal(seen[1][name], seen[2][name])} == chosen
    assert set(run.step_sizes()) == chosen
    assert all(not torch.equal(tensor, before[name]) for name, tensor in run.policy.named_parameters())


def test_the_auxiliary_loss_sees_the_queries_of_all_tasks_and_moves_the_meta_parameters():
    shapes = []

    def gate_bias(functional: FunctionalPolicy, parameters: dict[str, Tensor], obs: Tensor) -> Tensor:
        shapes.append(tuple(obs.shape))
        return 1e3 * functional.call("mixture_parts", parameters, obs).gate_probs[:, 0].mean()

    run = new_run(
        replace(SMALL, multi_step_fraction=0.0, meta_learning_rate=0.01, auxiliary_coef=2.0),
        spec=MIXTURE,
        auxiliary_loss=gate_bias,
    )
    before = run.policy.mixture_parts(torch.zeros(1, 4)).gate_probs[0, 0].item()
    run.train(3)

    assert shapes == [(2 * 32, 4)] * 3
    assert run.policy.mixture_parts(torch.zeros(1, 4)).gate_probs[0, 0].item() < before
    assert run.history[0]["auxiliary_loss"] == pytest.approx(2.0 * 1e3 * 0.5)


class Broken(SignTask):
    """A task one of whose numbers is none."""

    bad = math.nan
    name = "rewards"

    def support(self, policy_params, rng):
        rollout = super().support(policy_params, rng)
        return replace(rollout, **{self.name: getattr(rollout, self.name) * self.bad})

    query = support


def test_rewards_that_are_nan_stop_the_run_with_iteration_and_tensor_and_leave_the_policy_as_it_was():
    run = new_run()
    run.train(1)
    before = bits_of(run)
    run.sampler.sample = lambda n, rng: [Broken(run.policy, 1.0)] * n
    with pytest.raises(
        TrainingDivergedError, match="iteration 4, task 1 of 2, inner step 1 of 2: "
    ) as stopped:
        run.train(3)
    assert str(stopped.value).startswith("3 meta-iterations in a row were rolled back; the last one:")
    assert same_bits(bits_of(run), before)


def test_an_outer_gradient_that_is_nan_is_named_before_it_reaches_the_weights():
    run = new_run(auxiliary_loss=lambda _f, parameters, _obs: parameters["critic.bias_0"].sum() * math.nan)
    before = bits_of(run)
    with pytest.raises(
        TrainingDivergedError, match=r"iteration 3: the outer gradient of critic critic.bias_0"
    ):
        run.train(3)
    assert same_bits(bits_of(run), before)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["rewards", "gradient"])
def test_one_number_that_is_none_at_a_random_iteration_costs_that_iteration_and_nothing_else(name, bad):
    rng = np.random.default_rng(5)
    for _ in range(20):
        run, sick = new_run(), int(rng.integers(2))
        sample = run.sampler.sample
        if name == "gradient":
            calls = itertools.count()
            first = next(iter(run._parameters.values()))
            first.register_hook(
                lambda slope, calls=calls, sick=sick: slope * bad if next(calls) == sick else slope
            )
        else:

            def sometimes(n, tasks_rng, run=run, sick=sick, sample=sample):
                tasks = sample(n, tasks_rng)
                if run.iteration == sick:
                    tasks[0] = Broken(run.policy, 1.0)
                    tasks[0].bad = bad
                return tasks

            run.sampler.sample = sometimes
        bits = [bits_of(run)]
        run.train(3, on_iteration=lambda _, run=run, bits=bits: bits.append(bits_of(run)))
        counts = [record["rolled_back"] for record in run.history]
        assert counts[-1] == 1.0
        where = counts.index(1.0)
        assert same_bits(bits[where], bits[where + 1])
        assert not same_bits(bits[-2], bits[-1]) or where == 2
        assert all(torch.isfinite(tensor).all() for tensor in run.policy.parameters())
        assert all(math.isfinite(figure) for record in run.history for figure in record.values())


def test_the_count_of_iterations_rolled_back_travels_with_the_state():
    run = new_run()
    sample = run.sampler.sample
    run.sampler.sample = lambda n, rng: [Broken(run.policy, 1.0)] * n
    run.train(2)
    again = new_run()
    again.load_state(run.state())
    assert again.rolled_back == 2
    again.sampler.sample = run.sampler.sample
    with pytest.raises(TrainingDivergedError, match="3 meta-iterations in a row"):
        again.train(1)
    run.sampler.sample = sample
    run.train(1)
    assert run.rolled_back == 2


def test_a_task_that_acts_with_other_parameters_than_it_was_given_is_refused():
    policy = build_policy(MLP, 0)
    task = SignTask(policy, 1.0)
    sharper = {name: 50.0 * tensor.detach() for name, tensor in policy.named_parameters()}
    task.query = lambda _params, rng: task.support(sharper, rng)
    rollouts = TaskRollouts(task, FunctionalPolicy(policy), SMALL, np.random.default_rng(0))

    rollouts.support(0, dict(policy.named_parameters()))
    with pytest.raises(StagegateError, match="not sampled by the parameters it was given"):
        rollouts.query(2, dict(policy.named_parameters()))


def test_a_sampler_that_returns_too_few_tasks_is_refused():
    run = new_run()
    run.sampler.sample = lambda n, rng: []
    with pytest.raises(
        StagegateError, match="iteration 1: the task sampler returned 0 tasks, asked for were 2"
    ):
        run.train(1)


def test_a_run_stops_between_iterations_when_asked_to():
    run, records = new_run(), []
    result = run.train(on_iteration=records.append, should_stop=lambda: len(records) == 2)
    assert result.stopped
    assert result.iterations == 2
    assert [record["iteration"] for record in records] == [1, 2]
    assert not run.train().stopped
    assert run.iteration == 4


def test_a_query_loss_of_fresh_data_is_minus_the_mean_advantage():
    batch = recorded_task(lively_policy(MLP), 1, 1).query(1, {})
    logits = batch.sampling_log_policy
    fresh = replace(batch, log_probs=logits[torch.arange(40), batch.actions])
    torch.testing.assert_close(query_loss(logits, fresh, 0.2), -batch.advantages.mean())


def test_settings_that_cannot_work_are_all_named_at_once():
    config = MAMLConfig(iterations=0, gamma=1.5, clip=0.0, adapt="head", engine="torch", inner_step_size=1e-4)
    with pytest.raises(ConfigError) as error:
        new_run(config)
    for part in (
        "iterations has to be at least 1, but is 0",
        "gamma has to lie in [0, 1], but is 1.5",
        "clip has to be above 0 and finite, but is 0.0",
        "adapt has to be one of all, heads, gate+heads, but is 'head'",
        "engine has to be one of native, learn2learn, but is 'torch'",
        "inner_step_size (0.0001) has to be at least inner_step_size_min (0.001)",
    ):
        assert part in str(error.value)
    assert MAMLConfig().problems() == []
