"""The control of a mixture: as many parameters, and at the start exactly the network it grew from."""

from __future__ import annotations

import pytest
import torch

from rl.common.errors import ConfigError
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.policies.forward import forward_batch, pack
from rl.policies.spec import parameter_count, spec_problems
from rl.policies.widening import equal_parameter_spec, widened

NARROW = {"encoder": "mlp", "observations": 7, "actions": 3, "hidden": [8, 8]}
WIDE = {**NARROW, "hidden": [19, 21], "value_hidden": [8, 8]}


def mixture_spec(observations: int = 50, **changes) -> dict:
    return {
        "encoder": "mixture",
        "observations": observations,
        "actions": 3,
        "experts": 4,
        "expert_hidden": [128, 128],
        "gate_hidden": 64,
        "gate_inputs": [0, 1, 2],
        "temperature": 0.8,
        "value_hidden": [64, 64],
        **changes,
    }


def learned(spec: dict, seed: int = 3) -> ActorCritic:
    """Return a policy whose weights are nowhere near their start."""
    policy = build_policy(spec, seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(seed))
    return policy


def observations(width: int = 7) -> torch.Tensor:
    return torch.randn((200, width), generator=torch.Generator().manual_seed(1))


def test_the_count_of_a_critic_of_its_own_widths_by_hand():
    # Actor 7-19-21-3, critic 7-8-8-1, each layer (inputs + 1) * outputs.
    assert parameter_count(WIDE) == (8 * 19 + 20 * 21 + 22 * 3) + (8 * 8 + 9 * 8 + 9 * 1)
    assert sum(each.numel() for each in build_policy(WIDE, 0).parameters()) == parameter_count(WIDE)


@pytest.mark.parametrize(
    ("mixture", "most"),
    [
        (mixture_spec(), 0.001),
        (mixture_spec(observations=57, experts=2), 0.002),
        (mixture_spec(experts=8, expert_hidden=[256, 256]), 0.001),
        (mixture_spec(expert_hidden=[32], value_hidden=[16]), 0.02),
        (mixture_spec(expert_hidden=[64, 64, 64]), 0.002),
        (mixture_spec(observations=7, expert_hidden=[8, 8], gate_hidden=4, value_hidden=[8, 8]), 0.02),
    ],
)
def test_the_control_has_as_many_parameters_as_the_mixture(mixture, most):
    spec = equal_parameter_spec(mixture)
    assert spec_problems(spec) == []
    assert parameter_count(spec) == pytest.approx(parameter_count(mixture), rel=most)
    assert spec["value_hidden"] == mixture["value_hidden"]
    assert len(spec["hidden"]) == len(mixture["expert_hidden"])
    assert max(spec["hidden"]) - min(spec["hidden"]) <= 6


def test_a_widened_network_acts_and_values_as_the_narrow_one_did():
    """Through torch, and bit for bit through the compiled pass that trades."""
    narrow, seen = learned(NARROW), observations()
    wide = widened(narrow, WIDE, seed=5)
    with torch.no_grad():
        before, after = (torch.log_softmax(each.logits(seen), -1) for each in (narrow, wide))
        divergence = float((before.exp() * (before - after)).sum(-1).max())
        torch.testing.assert_close(wide.values(seen), narrow.values(seen), atol=0, rtol=0)
    assert float((before.exp() - 1 / 3).abs().max()) > 0.5
    assert divergence < 1e-6
    for acted, wanted in zip(
        forward_batch(pack(wide), seen.numpy()), forward_batch(pack(narrow), seen.numpy()), strict=True
    ):
        assert acted.tobytes() == wanted.tobytes()


def test_every_new_unit_learns_at_once_or_one_layer_later():
    """Units that nobody reads must not stay unread: the weights that read them have a gradient."""
    wide = widened(learned(NARROW), WIDE, seed=5)
    logits = wide.logits(observations())
    torch.log_softmax(logits, -1)[:, 0].mean().backward()
    (_, _), (second, _), (head, _) = wide.actor.layers()
    assert (second.grad[8:, :8].abs().sum(1) > 0).all()
    assert (head.grad[8:].abs().sum(1) > 0).all()


def test_the_new_units_differ_by_seed_and_not_by_call():
    narrow = learned(NARROW)
    one, same, other = (widened(narrow, WIDE, seed=seed).flat_parameters() for seed in (5, 5, 6))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden": [19, 7]}, "none narrower than in [8, 8]"),
        ({"hidden": [30]}, "hidden needs 2 layers"),
        ({"value_hidden": [9, 8]}, "value_hidden has to stay [8, 8]"),
        ({"observations": 8}, "observations has to stay 7, but is 8"),
    ],
)
def test_a_network_that_cannot_hold_the_old_one_is_refused(changes, said):
    with pytest.raises(ConfigError) as raised:
        widened(learned(NARROW), {**WIDE, **changes})
    assert said in str(raised.value)
