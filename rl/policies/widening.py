"""A single network made wider without changing what it does: the control a mixture of as many parameters is held to."""

from __future__ import annotations

from typing import Any

import torch

from rl.common.errors import ConfigError
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.policies.encoders import Mlp
from rl.policies.spec import checked_spec, parameter_count, value_hidden

FINE_TUNING = 3
"""Units by which the first and the last hidden layer may differ from the others, to come closer to the count wanted."""


def equal_parameter_spec(mixture: dict[str, Any]) -> dict[str, Any]:
    """Return the spec of one network with as many parameters as a mixture, and a critic of the same widths.

    It has as many hidden layers as an expert, all equally wide up to `FINE_TUNING` units. Counts agree within 2 % from
    about 500 parameters on, within 0.1 % at the shipped widths; nearer is not possible with whole units.

    Args:
        mixture: A sound spec with encoder `mixture`.
    """
    wanted = parameter_count(mixture)
    layers = len(mixture["expert_hidden"])

    def with_widths(first: int, middle: int, last: int) -> dict[str, Any]:
        return {
            "encoder": "mlp",
            "observations": mixture["observations"],
            "actions": mixture["actions"],
            "hidden": [first, *[middle] * (layers - 2), last] if layers > 1 else [last],
            "value_hidden": value_hidden(mixture),
        }

    width = 1
    while parameter_count(with_widths(width + 1, width + 1, width + 1)) <= wanted:
        width += 1
    near = [units for units in range(width - FINE_TUNING, width + FINE_TUNING + 1) if units > 0]
    candidates = [with_widths(first, width, last) for first in near for last in near]
    return min(
        candidates,
        key=lambda spec: (
            abs(parameter_count(spec) - wanted),
            max(spec["hidden"]) - min(spec["hidden"]),
            spec["hidden"],
        ),
    )


def _widening_problems(narrow: dict[str, Any], wide: dict[str, Any]) -> list[str]:
    if narrow["encoder"] != "mlp" or wide["encoder"] != "mlp":
        return [f"both have to be an mlp, but are {narrow['encoder']} and {wide['encoder']}"]
    found = [
        f"{key} has to stay {narrow[key]}, but is {wide[key]}"
        for key in ("observations", "actions")
        if narrow[key] != wide[key]
    ]
    old, new = list(narrow["hidden"]), list(wide["hidden"])
    if len(new) != len(old) or any(units < least for units, least in zip(new, old, strict=True)):
        found.append(f"hidden needs {len(old)} layers, none narrower than in {old}, but is {new}")
    if value_hidden(wide) != value_hidden(narrow):
        found.append(f"value_hidden has to stay {value_hidden(narrow)}, but is {value_hidden(wide)}")
    return found


def widened(narrow: ActorCritic, spec: dict[str, Any], seed: int = 0) -> ActorCritic:
    """Return a wider network that acts exactly like a trained one, its critic copied.

    The old actor sits in the first units. Further units read random inputs and are read by none of the old units nor by
    the head, so they change nothing until training gives them a use (Net2WiderNet's aim, Chen et al. 2016,
    arXiv:1511.05641, without its copies: units that are copies get equal gradients and stay copies).

    Args:
        narrow: The trained network, encoder `mlp`.
        spec: The wider network's spec; `value_hidden` as in the narrow one.
        seed: Of the new units, 0 or more.

    Raises:
        ConfigError: If the wider network cannot hold the narrow one; the message lists every problem.
    """
    spec = checked_spec(spec)
    found = _widening_problems(narrow.spec, spec)
    if found:
        lines = "\n".join(f"  {line}" for line in found)
        raise ConfigError(f"The network cannot be widened like this:\n{lines}")
    wide = build_policy(spec, seed)
    actor, old_actor = wide.actor, narrow.actor
    assert isinstance(actor, Mlp)
    assert isinstance(old_actor, Mlp)
    with torch.no_grad():
        for (weight, bias), (old_weight, old_bias) in zip(actor.layers(), old_actor.layers(), strict=True):
            inputs, outputs = old_weight.shape
            weight[inputs:, :outputs] = 0.0
            weight[:inputs, :outputs] = old_weight
            bias[:outputs] = old_bias
    wide.critic.load_state_dict(narrow.critic.state_dict())
    return wide
