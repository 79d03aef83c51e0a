"""What a policy spec may say, and where each parameter of that policy lies in its flat vector.

A spec is a plain dict, so that it can travel in a checkpoint:

    {"encoder": "mlp", "observations": D, "actions": A, "hidden": [64, 64]}
    {"encoder": "mlp", …, "hidden": [280, 280], "value_hidden": [64, 64]}  (a critic of other widths than the actor)
    {"encoder": "mixture", "observations": D, "actions": A, "experts": E, "expert_hidden": [128, 128],
     "gate_hidden": 64, "gate_inputs": [0, 3], "temperature": 0.8, "value_hidden": [64, 64]}

The flat vector is read by torch and by the compiled forward pass, so its order is fixed here. Weights are
stored (inputs, outputs): the compiled pass adds one input's row of weights at a time.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from rl.common.errors import ConfigError, nearest

KEYS = {
    "mlp": ("encoder", "observations", "actions", "hidden"),
    "mixture": (
        "encoder",
        "observations",
        "actions",
        "experts",
        "expert_hidden",
        "gate_hidden",
        "gate_inputs",
        "temperature",
        "value_hidden",
    ),
}
"""Every key of every encoder that has to be given."""

OPTIONAL_KEYS: dict[str, tuple[str, ...]] = {"mlp": ("value_hidden",), "mixture": ()}
"""Keys that may be left out. value_hidden: the critic's widths; without it they are the actor's."""


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_width_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(_is_count(width) for width in value)


def _value_problems(spec: dict[str, Any]) -> list[str]:
    found = []
    least = {"observations": 1, "actions": 2, "experts": 2, "gate_hidden": 1}
    for key, smallest in least.items():
        if key in spec and not _is_count(spec[key], smallest):
            found.append(f"{key} has to be a whole number of at least {smallest}, but is {spec[key]!r}")
    found += [
        f"{key} has to list one or more layer widths such as [64, 64], but is {spec[key]!r}"
        for key in ("hidden", "expert_hidden", "value_hidden")
        if key in spec and not _is_width_list(spec[key])
    ]
    if "temperature" in spec:
        value = spec["temperature"]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value <= 0:
            found.append(f"temperature has to be a number above 0, but is {value!r}")
    return found + _gate_problems(spec)


def _gate_problems(spec: dict[str, Any]) -> list[str]:
    if "gate_inputs" not in spec:
        return []
    columns = spec["gate_inputs"]
    if not isinstance(columns, list | tuple) or not columns or not all(_is_count(c, 0) for c in columns):
        return [f"gate_inputs has to list one or more observation columns such as [0, 3], but is {columns!r}"]
    found = []
    if len(set(columns)) < len(columns):
        found.append(f"gate_inputs names a column twice: {list(columns)}")
    width = spec.get("observations", 0)
    if _is_count(width) and max(columns) >= width:
        found.append(f"gate_inputs has to lie in 0..{width - 1}, but names column {max(columns)}")
    return found


def spec_problems(spec: dict[str, Any]) -> list[str]:
    """Return everything wrong with a policy spec, worded for whoever wrote it; empty when it is sound."""
    encoder = spec.get("encoder")
    if encoder not in KEYS:
        return [f"encoder has to be one of {', '.join(sorted(KEYS))}, but is {encoder!r}"]
    found = [f"{key} is missing" for key in KEYS[encoder] if key not in spec]
    known = KEYS[encoder] + OPTIONAL_KEYS[encoder]
    for key in spec:
        if key not in known:
            close = nearest(str(key), known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            found.append(f"{key} is not a key of the encoder {encoder}{hint}")
    return found + _value_problems(spec)


def checked_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """Return an own copy of a sound spec, tuples turned into lists.

    Raises:
        ConfigError: If anything in it is wrong; the message lists every problem.
    """
    found = spec_problems(spec)
    if found:
        lines = "\n".join(f"  {line}" for line in found)
        raise ConfigError(f"The policy spec has {len(found)} problem{'s' * (len(found) > 1)}:\n{lines}")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in spec.items()}


def value_hidden(spec: dict[str, Any]) -> list[int]:
    """Return the widths of the critic's hidden layers, given or those of the actor."""
    return list(spec["value_hidden"] if "value_hidden" in spec else spec["hidden"])


def mlp_shapes(widths: list[int]) -> list[tuple[int, ...]]:
    """Return weight and bias shape of each layer in turn: (in, out), (out,), …

    Args:
        widths: Number of inputs, then of each layer's outputs.
    """
    return [shape for inputs, outputs in pairwise(widths) for shape in ((inputs, outputs), (outputs,))]


def parameter_shapes(spec: dict[str, Any]) -> list[tuple[int, ...]]:
    """Return the shape of every parameter in the order of the flat vector.

    mlp: actor layers, critic layers. mixture: expert layers (each with a leading axis of experts), gate
    layers, critic layers.

    Args:
        spec: A sound spec.
    """
    inputs, actions = spec["observations"], spec["actions"]
    if spec["encoder"] == "mlp":
        return mlp_shapes([inputs, *spec["hidden"], actions]) + mlp_shapes([inputs, *value_hidden(spec), 1])
    experts = spec["experts"]
    gate = mlp_shapes([len(spec["gate_inputs"]), spec["gate_hidden"], experts])
    stacked = [(experts, *shape) for shape in mlp_shapes([inputs, *spec["expert_hidden"], actions])]
    return stacked + gate + mlp_shapes([inputs, *value_hidden(spec), 1])


def parameter_count(spec: dict[str, Any]) -> int:
    """Return the length of the flat parameter vector of a sound spec."""
    return sum(math.prod(shape) for shape in parameter_shapes(spec))
