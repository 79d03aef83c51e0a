"""Adam over one vector does what torch's Adam does over many tensors."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from rl.algorithms.flat_adam import FlatAdam
from rl.common.errors import CheckpointError
from rl.policies.actor_critic import build_policy

SPEC = {"encoder": "mlp", "observations": 5, "actions": 3, "hidden": [7]}


def losses(policy, step: int) -> torch.Tensor:
    seen = torch.randn((16, 5), generator=torch.Generator().manual_seed(step))
    logits, values = policy(seen)
    return 3 * logits.square().mean() + (values - 1).square().mean()


def test_twenty_steps_are_those_of_torch_with_clipped_norms():
    ours, theirs = build_policy(SPEC, 1), build_policy(SPEC, 1)
    adam = FlatAdam(ours, epsilon=1e-5)
    oracle = torch.optim.Adam(theirs.parameters(), lr=0.01, eps=1e-5)
    for step in range(20):
        adam.zero_gradient()
        losses(ours, step).backward()
        norm = adam.gradient_norm()
        oracle.zero_grad()
        losses(theirs, step).backward()
        expected = float(torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5))
        assert norm == pytest.approx(expected, rel=1e-5)
        adam.step(0.01, 0.5, norm)
        oracle.step()
    torch.testing.assert_close(ours.flat_parameters(), theirs.flat_parameters(), atol=1e-6, rtol=0)


def test_a_first_step_by_hand():
    policy = build_policy(SPEC, 1)
    before = policy.flat_parameters()
    adam = FlatAdam(policy, epsilon=1e-8)
    adam.gradient.fill_(-0.001)
    norm = adam.gradient_norm()
    assert norm == pytest.approx(0.001 * math.sqrt(len(before)), rel=1e-6)
    adam.step(0.01, 10.0, norm)
    # The first step of Adam is the learning rate, whatever the gradient's size.
    torch.testing.assert_close(policy.flat_parameters(), before + 0.01, atol=1e-6, rtol=0)


def test_taking_hold_of_a_network_leaves_its_weights():
    policy = build_policy(SPEC, 1)
    before = policy.flat_parameters()
    adam = FlatAdam(policy, epsilon=1e-5)
    assert torch.equal(policy.flat_parameters(), before)
    policy.load_flat(before * 2)
    assert torch.equal(adam.weights, before * 2)


def test_a_copy_of_the_network_stays_behind():
    policy = build_policy(SPEC, 1)
    adam = FlatAdam(policy, epsilon=1e-5)
    kept = copy.deepcopy(policy)
    before = policy.flat_parameters()
    adam.gradient.fill_(1.0)
    adam.step(0.1, 1.0, adam.gradient_norm())
    assert torch.equal(kept.flat_parameters(), before)
    assert not torch.equal(policy.flat_parameters(), before)


def test_a_state_of_another_network_is_refused():
    other = FlatAdam(build_policy({**SPEC, "hidden": [8]}, 1), epsilon=1e-5)
    with pytest.raises(CheckpointError, match="does not fit"):
        FlatAdam(build_policy(SPEC, 1), epsilon=1e-5).load_state(other.state())
