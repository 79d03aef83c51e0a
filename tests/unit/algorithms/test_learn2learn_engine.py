"""Two engines, one gradient: learn2learn's inner steps against our own, on the project's networks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl.algorithms.adaptation import FunctionalPolicy, PolicyBatch, adaptable_names, log_policy
from rl.algorithms.learn2learn_engine import learn2learn_path, load_learn2learn
from rl.algorithms.maml import MAMLConfig, RecordedRollouts, native_path, task_meta_loss
from rl.common.errors import MissingPackageError, StagegateError, TrainingDivergedError
from tests.unit.algorithms.small_policies import LAYER_NORM, lively_policy

MLP = {"encoder": "mlp", "observations": 4, "actions": 3, "hidden": [8, 7]}
MIXTURE = {
    "encoder": "mixture",
    "observations": 4,
    "actions": 3,
    "experts": 3,
    "expert_hidden": [8, 7],
    "gate_hidden": 3,
    "gate_inputs": [1, 2],
    "temperature": 0.8,
    "value_hidden": [4],
}


def recorded_task(policy: nn.Module, steps: int) -> RecordedRollouts:
    rng = np.random.default_rng(1)

    def batch() -> PolicyBatch:
        obs = torch.as_tensor(rng.normal(size=(30, 4)))
        actions = torch.as_tensor(rng.integers(3, size=30))
        with torch.no_grad():
            every = log_policy(policy.logits(obs), None)
        advantages, targets = torch.as_tensor(rng.normal(size=(2, 30)))
        return PolicyBatch(
            obs=obs,
            actions=actions,
            log_probs=every[torch.arange(30), actions],
            advantages=advantages,
            value_targets=targets,
            sampling_log_policy=every,
        )

    return RecordedRollouts([batch() for _ in range(steps)], {step: batch() for step in range(1, steps + 1)})


def outcome(policy: nn.Module, path, *, second_order: bool, adapt: str = "all") -> tuple[float, Tensor]:
    """Return the meta-loss and its gradient in parameters and log step sizes, end to end."""
    names = adaptable_names(policy, adapt)
    logs = {
        name: torch.tensor(-1.0 - 0.1 * place, dtype=torch.float64, requires_grad=True)
        for place, name in enumerate(names)
    }
    found = task_meta_loss(
        FunctionalPolicy(policy),
        dict(policy.named_parameters()),
        {name: log.exp() for name, log in logs.items()},
        recorded_task(policy, 4),
        MAMLConfig(inner_loop_steps=4),
        second_order=second_order,
        weights=[0.1, 0.2, 0.3, 0.4],
        kl_coef=0.5,
        path=path,
    )
    gradients = torch.autograd.grad(found.loss, [*policy.parameters(), *logs.values()])
    return found.loss.item(), torch.cat([gradient.reshape(-1) for gradient in gradients])


@pytest.mark.parametrize("spec", [MLP, MIXTURE, LAYER_NORM], ids=["mlp", "mixture", "layer norm"])
@pytest.mark.parametrize("second_order", [True, False], ids=["second order", "first order"])
def test_both_engines_give_the_same_meta_gradient(spec, second_order):
    policy = lively_policy(spec)

    loss, ours = outcome(policy, native_path, second_order=second_order)
    loss_theirs, theirs = outcome(policy, learn2learn_path, second_order=second_order)

    assert loss == pytest.approx(loss_theirs, abs=1e-12)
    difference, size = (ours - theirs).abs().max().item(), ours.abs().max().item()
    print(f"greatest difference {difference:.1e} of gradients up to {size:.2f}")
    assert size > 0.01
    assert difference < 1e-12


def test_both_engines_adapt_the_same_part_of_a_policy():
    policy = lively_policy(MIXTURE)
    _, ours = outcome(policy, native_path, second_order=True, adapt="gate+heads")
    _, theirs = outcome(policy, learn2learn_path, second_order=True, adapt="gate+heads")
    _, everything = outcome(policy, native_path, second_order=True)

    assert (ours - theirs).abs().max() < 1e-12
    shared = len(torch.nn.utils.parameters_to_vector(policy.parameters()))
    assert (ours[:shared] - everything[:shared]).abs().max() > 1e-3


def test_the_comparison_would_notice_a_missing_second_order():
    policy = lively_policy(MIXTURE)
    _, ours = outcome(policy, native_path, second_order=False)
    _, theirs = outcome(policy, learn2learn_path, second_order=True)
    assert (ours - theirs).abs().max() > 1e-3


def test_learn2learn_leaves_the_policy_as_it_was():
    policy = lively_policy(MIXTURE)
    before = [tensor.clone() for tensor in policy.parameters()]
    outcome(policy, learn2learn_path, second_order=True)
    assert all(torch.equal(now, then) for now, then in zip(policy.parameters(), before, strict=True))
    assert all(tensor.grad is None for tensor in policy.parameters())


def test_learn2learn_cannot_start_from_parameters_held_apart_from_the_policy():
    policy = lively_policy(MLP)
    copies = {name: tensor.detach().clone() for name, tensor in policy.named_parameters()}
    path = learn2learn_path(
        FunctionalPolicy(policy), copies, {}, recorded_task(policy, 1), MAMLConfig(), second_order=True
    )
    with pytest.raises(StagegateError, match="policy's own parameters"):
        next(path)


def test_a_diverged_inner_loss_is_named_in_this_engine_too():
    policy = lively_policy(MLP)
    with torch.no_grad():
        policy.get_parameter("actor.bias_2").fill_(float("nan"))
    task = recorded_task(policy, 1)
    path = learn2learn_path(
        FunctionalPolicy(policy),
        dict(policy.named_parameters()),
        {"actor.bias_2": torch.tensor(0.1)},
        task,
        MAMLConfig(inner_loop_steps=1),
        second_order=True,
        label="iteration 9, ",
    )
    with pytest.raises(TrainingDivergedError, match="iteration 9, inner step 1 of 1: the inner loss"):
        list(path)


def test_loading_learn2learn_needs_none_of_the_packages_its_own_start_wants():
    """gym, torchvision and the like are not among our dependencies."""
    program = (
        "import sys; from rl.algorithms.learn2learn_engine import load_learn2learn;"
        "assert 'learn2learn' not in sys.modules;"
        "maml, meta_sgd = load_learn2learn();"
        "print(maml.__name__, meta_sgd.__name__);"
        "print(sorted({'gym', 'torchvision', 'qpth', 'learn2learn.data'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["MAML MetaSGD", "[]"]


def test_a_missing_learn2learn_is_reported_with_the_way_to_install_it(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "learn2learn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(MissingPackageError, match="pip install --no-deps --use-pep517 learn2learn"):
        load_learn2learn()
