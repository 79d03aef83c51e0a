"""What has to come out if the engine is MAML and nothing less, worked out on paper. Each proof raises if it is not so.

The proofs are functions so that two kinds of test can call them: those that hold the engine to them, and those that
break the engine in a named way and see the proof fail. They look the engine's functions up when called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl.algorithms import adaptation as inner
from rl.algorithms import maml
from rl.algorithms.adaptation import FunctionalPolicy, Parameters, PolicyBatch, RolloutData
from rl.algorithms.maml import MAML, MAMLConfig, RecordedRollouts, TaskRollouts

# --- two parabolas: task i costs a_i / 2 (x - c_i)^2, so an inner step multiplies x - c_i by 1 - alpha a_i --

CURVATURE, CENTRE, ALPHA, STEPS = (1.0, 3.0), (0.0, 1.0), 0.1, 7
CONVERGED = {"MAML": 0.0816760, "first order": 0.3406074, "Reptile": 0.6375423, "joint": 0.75}
"""Where each way to train ends: sum of weight times centre, weights as in `parabola_weights`, which sum to 1."""

PARABOLA_GRADIENT = {"MAML": 0.0521053, "first order": 0.0578085}
"""Of the mean loss after adaptation, at x = 0.5, where that loss is 0.0155697."""


def parabola_weights(way: str) -> list[float]:
    """Return each task's pull on the point where a way to train comes to rest, from the derivative set to zero."""
    shrink = [(1 - ALPHA * a) ** STEPS for a in CURVATURE]
    pull = {
        "MAML": [a * s * s for a, s in zip(CURVATURE, shrink, strict=True)],
        "first order": [a * s for a, s in zip(CURVATURE, shrink, strict=True)],
        "Reptile": [1 - s for s in shrink],
        "joint": list(CURVATURE),
    }[way]
    return [each / sum(pull) for each in pull]


def parabola_direction(x: Tensor, way: str) -> tuple[Tensor, Tensor]:
    """Return the mean loss after adaptation and the direction in which a way to train moves x, uphill."""
    losses, moved = [], []
    for a, c in zip(CURVATURE, CENTRE, strict=True):

        def loss_at(_step: int, now: Parameters, a: float = a, c: float = c) -> Tensor:
            return a / 2 * (now["x"] - c) ** 2

        steps = 0 if way == "joint" else STEPS
        *_, end = inner.adaptation({"x": x}, {"x": ALPHA}, loss_at, steps, second_order=way == "MAML")
        losses.append(loss_at(STEPS, end))
        moved.append(x - end["x"])
    loss = torch.stack(losses).mean()
    if way == "Reptile":
        return loss, torch.stack(moved).mean().detach()
    return loss, torch.autograd.grad(loss, x)[0]


def where_parabolas_end(way: str) -> float:
    """Train by going downhill until nothing moves; return x."""
    x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    for _ in range(160):
        # 0.9 is below 2 / curvature of each of the four.
        x = (x - 0.9 * parabola_direction(x, way)[1]).detach().requires_grad_()
    return x.item()


def parabolas_end_where_algebra_says() -> dict[str, float]:
    """The four ways to train end at four points, none of which can be taken for another."""
    found = {}
    for way, expected in CONVERGED.items():
        by_formula = sum(w * c for w, c in zip(parabola_weights(way), CENTRE, strict=True))
        assert by_formula == pytest.approx(expected, abs=1e-7)
        found[way] = where_parabolas_end(way)
        assert found[way] == pytest.approx(expected, abs=1e-6), way
    return found


def parabola_gradients_are_those_on_paper() -> dict[str, float]:
    """Loss and gradient at one point, second and first order."""
    found = {}
    for way, expected in PARABOLA_GRADIENT.items():
        x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        loss, gradient = parabola_direction(x, way)
        assert loss.item() == pytest.approx(0.0155697, abs=1e-7)
        assert gradient.item() == pytest.approx(expected, abs=1e-7), way
        found[way] = gradient.item()
    return found


# --- a bandit with two arms; the policy pulls the first with probability sigmoid(theta) ---------------------


class TwoArms(nn.Module):
    """Logits (theta, 0), whatever is observed; the critic says `value`."""

    def __init__(self, theta: float):
        super().__init__()
        self.spec = {"observations": 1, "actions": 2}
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))
        self.value = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

    def logits(self, obs: Tensor) -> Tensor:
        return torch.stack([self.theta, torch.zeros_like(self.theta)]).expand(len(obs), 2)

    def values(self, obs: Tensor) -> Tensor:
        return self.value.expand(len(obs))


BANDIT = {"exact": 0.176376, "first order": 0.199321, "log-probabilities": 0.141007}
"""Meta-gradient at theta 0.5, rewards (1, 0), one step of size 2; what it becomes by each of the usual mistakes."""


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def both_arms(theta: float, baseline: float = 0.0) -> PolicyBatch:
    """Return a batch with one row for each arm, its probability (times the number of rows) put into the advantage."""
    p = sigmoid(theta)
    return PolicyBatch(
        obs=torch.zeros(2, 1, dtype=torch.float64),
        actions=torch.tensor([0, 1]),
        log_probs=torch.tensor([p, 1 - p], dtype=torch.float64).log(),
        advantages=torch.tensor([2 * p * (1 - baseline), 2 * (1 - p) * (0 - baseline)], dtype=torch.float64),
    )


def bandit_meta_gradient(
    *, second_order: bool = True, baseline: float = 0.0, path: maml.Path | None = None
) -> float:
    """Return the engine's meta-gradient where every action is enumerated, so that nothing is left to chance."""
    policy = TwoArms(0.5)
    p = sigmoid(0.5)
    adapted = 0.5 + 2.0 * p * (1 - p)
    found = maml.task_meta_loss(
        FunctionalPolicy(policy),
        dict(policy.named_parameters()),
        {"theta": torch.tensor(2.0, dtype=torch.float64)},
        RecordedRollouts([both_arms(0.5, baseline)], {1: both_arms(adapted)}),
        MAMLConfig(inner_loop_steps=1, inner_entropy_coef=0.0, value_coef=0.0),
        second_order=second_order,
        path=path or maml.native_path,
    )
    return -torch.autograd.grad(found.loss, policy.theta)[0].item()


def bandit_meta_gradient_is_exact() -> dict[str, float]:
    """J'(theta + 2 J'(theta)) (1 + 2 J''(theta)), with and without a baseline, and unlike its first-order part."""
    p = sigmoid(0.5)
    slope, curvature = p * (1 - p), p * (1 - p) * (1 - 2 * p)
    after = sigmoid(0.5 + 2.0 * slope)
    by_hand = after * (1 - after) * (1 + 2.0 * curvature)
    assert by_hand == pytest.approx(BANDIT["exact"], abs=1e-6)
    exact = bandit_meta_gradient()
    assert exact == pytest.approx(by_hand, rel=1e-9)
    assert bandit_meta_gradient(baseline=0.6) == pytest.approx(by_hand, rel=1e-9)
    first = bandit_meta_gradient(second_order=False)
    assert first == pytest.approx(BANDIT["first order"], abs=1e-6)
    return {"exact": exact, "first order": first}


# --- the same bandit acted in: rollouts, baseline, advantages, outer loop -----------------------------------

PULLS = 1000


class ActedBandit:
    """A task whose arms are pulled as often as their probabilities say: no chance, but real rollouts."""

    def __init__(self, policy: TwoArms, support_arm: int = 0, query_arm: int = 0):
        self.policy = FunctionalPolicy(policy)
        self.arms = {"support": support_arm, "query": query_arm}

    def support(self, policy_params: Parameters, rng: np.random.Generator) -> RolloutData:
        return self._pulled(policy_params, self.arms["support"])

    def query(self, policy_params: Parameters, rng: np.random.Generator) -> RolloutData:
        return self._pulled(policy_params, self.arms["query"])

    def _pulled(self, params: Parameters, paying: int) -> RolloutData:
        obs = torch.zeros(PULLS, 1, dtype=torch.float64)
        every = torch.log_softmax(self.policy.at(params).logits(obs), dim=-1).detach()
        first = math.floor(PULLS * every[0, 0].exp().item() + 0.5)
        actions = torch.cat([torch.zeros(first), torch.ones(PULLS - first)]).long()
        return RolloutData(
            obs=obs,
            next_obs=obs,
            actions=actions,
            log_probs=every[torch.arange(PULLS), actions],
            rewards=(actions.numpy() == paying).astype(float).reshape(1, PULLS),
            terminated=np.ones((1, PULLS), dtype=bool),
            truncated=np.zeros((1, PULLS), dtype=bool),
        )


def acted_steps(theta: float, alpha: float, steps: int) -> tuple[list[float], list[float], list[float]]:
    """Return theta after each step, d theta_k / d theta, and d theta_k / d log alpha, for a support that pays arm 0.

    With f the share of pulls of arm 0, advantages are ((1-f), -f) / s, s = sqrt(f (1-f)): a step adds alpha s to theta.
    The second derivative of the ratio surrogate is s (1 - 2p).
    """
    thetas, through, by_size = [theta], [1.0], [0.0]
    for _ in range(steps):
        p = sigmoid(thetas[-1])
        f = math.floor(PULLS * p + 0.5) / PULLS
        s = math.sqrt(f * (1 - f))
        factor = 1 + alpha * s * (1 - 2 * p)
        thetas.append(thetas[-1] + alpha * s)
        through.append(through[-1] * factor)
        by_size.append(by_size[-1] * factor + alpha * s)
    return thetas, through, by_size


def spread_at(theta: float) -> float:
    """Return s of `acted_steps`: the slope of a standardised bandit."""
    f = math.floor(PULLS * sigmoid(theta) + 0.5) / PULLS
    return math.sqrt(f * (1 - f))


def every_inner_step_learns_from_a_rollout_of_its_own() -> dict[str, float]:
    """Three steps and their meta-gradient, by hand; a rollout used twice gives other numbers."""
    alpha, steps = 1.0, 3
    thetas, through, by_size = acted_steps(0.5, alpha, steps)
    policy = TwoArms(0.5)
    config = MAMLConfig(inner_loop_steps=steps, inner_entropy_coef=0.0, value_coef=0.0)
    functional = FunctionalPolicy(policy)
    rollouts = TaskRollouts(ActedBandit(policy), functional, config, np.random.default_rng(0))
    log_size = torch.tensor(math.log(alpha), dtype=torch.float64, requires_grad=True)
    found = maml.task_meta_loss(
        functional,
        dict(policy.named_parameters()),
        {"theta": log_size.exp()},
        rollouts,
        config,
        second_order=True,
    )
    gradient, size_gradient = (
        -g.item() for g in torch.autograd.grad(found.loss, [policy.theta, log_size], materialize_grads=True)
    )
    assert gradient == pytest.approx(spread_at(thetas[-1]) * through[-1], rel=1e-6)
    assert size_gradient == pytest.approx(spread_at(thetas[-1]) * by_size[-1], rel=1e-6)
    reached = inner.adapt(
        policy, {"theta": alpha}, ActedBandit(policy).support, steps, np.random.default_rng(0), config
    )
    assert reached["theta"].item() == pytest.approx(thetas[-1], rel=1e-6)
    return {"theta after 3 steps": reached["theta"].item(), "meta-gradient": gradient}


class OneBandit:
    """A sampler that knows one task."""

    def __init__(self, task: ActedBandit):
        self.task = task

    def sample(self, n: int, rng: np.random.Generator) -> list[ActedBandit]:
        return [self.task] * n


ONE_UPDATE = MAMLConfig(
    iterations=1,
    inner_loop_steps=2,
    inner_step_size=1.0,
    inner_entropy_coef=0.0,
    value_coef=0.0,
    first_order_fraction=0.0,
    multi_step_fraction=0.0,
    meta_learning_rate=1e-3,
    step_size_learning_rate=2e-2,
    max_grad_norm=100.0,
)


def step_sizes_are_learned() -> dict[str, float]:
    """One outer update moves the logarithm of the step size up by Adam's step: bigger steps would have paid more."""
    policy = TwoArms(0.5)
    run = MAML(policy, OneBandit(ActedBandit(policy)), ONE_UPDATE, seed=0)
    record = run.train(1).history[0]
    thetas, _, by_size = acted_steps(0.5, 1.0, 2)
    # Adam's first step is its step size, whatever the size of the gradient.
    assert run.log_step_sizes["theta"].item() == pytest.approx(0.02, rel=1e-5)
    assert record["step_size_grad_norm"] == pytest.approx(spread_at(thetas[-1]) * by_size[-1], rel=1e-6)
    return {"log step size": run.log_step_sizes["theta"].item()}


def the_policy_is_judged_on_other_data_than_it_adapted_to() -> dict[str, float]:
    """Support pays arm 0, query arm 1: what was learned is wrong there, and the outer update has to find out."""
    policy = TwoArms(0.5)
    run = MAML(policy, OneBandit(ActedBandit(policy, support_arm=0, query_arm=1)), ONE_UPDATE, seed=0)
    record = run.train(1).history[0]
    thetas, through, _ = acted_steps(0.5, 1.0, 2)
    pulled = math.floor(PULLS * sigmoid(thetas[-1]) + 0.5) / PULLS
    assert record["query_reward"] == pytest.approx(1 - pulled, abs=1e-9)
    assert record["policy_grad_norm"] == pytest.approx(spread_at(thetas[-1]) * through[-1], rel=1e-6)
    # Towards arm 1, and smaller steps towards arm 0: the opposite of what the support alone would ask for.
    assert policy.theta.item() == pytest.approx(0.5 - 1e-3, rel=1e-6)
    assert run.log_step_sizes["theta"].item() == pytest.approx(-0.02, rel=1e-5)
    return {"query reward": record["query_reward"]}


# --- sinusoids (Finn et al. 2017, section 5.1) --------------------------------------------------------------

SHOTS, INNER_STEP = 10, 0.01
CURVE = (0, 1, 5, 10)


def sinusoid_start(seed: int) -> Parameters:
    """Return two hidden layers of 40 rectified units, as torch starts them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
    return {name: tensor.detach().clone().requires_grad_() for name, tensor in net.named_parameters()}


def sinusoid_errors(parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared error of each task; every tensor has the tasks in front. (W, n, 1) -> (W,)"""
    for layer in (0, 2, 4):
        weight, bias = parameters[f"{layer}.weight"], parameters[f"{layer}.bias"]
        x = torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))
        x = x.relu() if layer < 4 else x
    return (x - y).square().mean((1, 2))


def draw_sinusoids(rng: np.random.Generator, tasks: int, points: int) -> tuple[Tensor, Tensor]:
    """Return x and y, each (W, points, 1): amplitude 0.1 to 5, phase 0 to pi, x from -5 to 5."""
    amplitude, phase = rng.uniform(0.1, 5.0, (tasks, 1, 1)), rng.uniform(0.0, math.pi, (tasks, 1, 1))
    x = rng.uniform(-5.0, 5.0, (tasks, points, 1))
    y = amplitude * np.sin(x + phase)
    return torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y, dtype=torch.float32)


def sinusoid_path(
    start: Parameters, x: Tensor, y: Tensor, steps: int, *, second_order: bool
) -> Iterator[Parameters]:
    """Yield the parameters after each inner step of the engine, all tasks at once: their losses share nothing."""

    def loss_at(_step: int, now: Parameters) -> Tensor:
        return sinusoid_errors(now, x, y).sum()

    return inner.adaptation(
        start, dict.fromkeys(start, INNER_STEP), loss_at, steps, second_order=second_order
    )


def train_on_sinusoids(way: str, *, iterations: int, seed: int) -> Parameters:
    """Return parameters trained with Adam 1e-3 on 25 tasks an iteration: "MAML", "first order" or "joint"."""
    start = sinusoid_start(seed)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(start.values(), 1e-3)
    for _ in range(iterations):
        x, y = draw_sinusoids(rng, 25, 2 * SHOTS)
        end = {name: tensor.expand(25, *tensor.shape) for name, tensor in start.items()}
        judged = slice(None)
        if way != "joint":
            support = x[:, :SHOTS], y[:, :SHOTS]
            *_, end = sinusoid_path(end, *support, 1, second_order=way == "MAML")
            judged = slice(SHOTS, None)
        loss = sinusoid_errors(end, x[:, judged], y[:, judged]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return start


def sinusoid_curve(start: Parameters, tasks: int = 600) -> dict[int, float]:
    """Return the error on 100 other points after 0, 1, 5 and 10 steps on 10, mean over tasks nobody trained on."""
    x, y = draw_sinusoids(np.random.default_rng(12_345), tasks, SHOTS + 100)
    every = {
        name: tensor.detach().expand(tasks, *tensor.shape).clone().requires_grad_()
        for name, tensor in start.items()
    }
    path = sinusoid_path(every, x[:, :SHOTS], y[:, :SHOTS], max(CURVE), second_order=False)
    return {
        step: sinusoid_errors(inner.detached(now), x[:, SHOTS:], y[:, SHOTS:]).mean().item()
        for step, now in enumerate(path)
        if step in CURVE
    }


def sinusoids_are_learned_in_one_step(curves: dict[str, dict[int, float]]) -> None:
    """MAML knows a sine after one step on ten points; joint training knows the mean of all, and stays near it."""
    assert curves["MAML"][1] < 1.2
    assert curves["joint"][1] > 2.0
    assert curves["MAML"][1] < curves["first order"][1] < 1.3
    # The start that first order finds is itself no compromise between the tasks.
    assert curves["first order"][0] > curves["MAML"][0] + 0.5
    assert curves["joint"][10] > 3 * curves["MAML"][10]
    assert curves["scratch"][10] > 3.0


# --- the engine broken in a named way -----------------------------------------------------------------------


def log_probability_surrogate(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor) -> Tensor:
    """Return log pi times advantage: same first derivative, wrong second one."""
    return log_probs * advantages.detach()


def break_engine(monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    """Replace one part of the engine by what is often found in its place."""
    if mistake == "log-probabilities in place of ratios":
        monkeypatch.setattr(inner, "ratio_surrogate", log_probability_surrogate)
    elif mistake == "the inner gradient detached":
        whole = inner.inner_update
        monkeypatch.setattr(
            inner, "inner_update", lambda *args, second_order: whole(*args, second_order=False)
        )
    elif mistake == "the first rollout for every inner step":
        fresh = TaskRollouts.support
        monkeypatch.setattr(TaskRollouts, "support", lambda self, _step, now: fresh(self, 0, now))
    elif mistake == "step sizes that stay":
        monkeypatch.setattr(MAML, "_step", _without_step_sizes(MAML._step))
    elif mistake == "judged on support":
        monkeypatch.setattr(TaskRollouts, "query", _judging_on_support(TaskRollouts.query))
    elif mistake == "no inner step":
        monkeypatch.setattr(inner, "inner_update", lambda _loss, now, _sizes, second_order: dict(now))
    else:
        raise ValueError(mistake)


def _without_step_sizes(step: Callable[[MAML], dict[str, float]]) -> Callable[[MAML], dict[str, float]]:
    def mutant(self: MAML) -> dict[str, float]:
        for tensor in self.log_step_sizes.values():
            tensor.grad = None
        return step(self)

    return mutant


def _judging_on_support(query: Callable[..., PolicyBatch]) -> Callable[..., PolicyBatch]:
    def mutant(self: TaskRollouts, steps_taken: int, parameters: Parameters) -> PolicyBatch:
        self._task = SimpleNamespace(support=self._task.support, query=self._task.support)
        return query(self, steps_taken, parameters)

    return mutant
