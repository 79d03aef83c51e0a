"""Specs of the smallest policies worth differentiating."""

from __future__ import annotations

MLP = {"encoder": "mlp", "observations": 4, "actions": 3, "hidden": [6, 5]}
MIXTURE = {
    "encoder": "mixture",
    "observations": 4,
    "actions": 3,
    "experts": 2,
    "expert_hidden": [6, 5],
    "gate_hidden": 3,
    "gate_inputs": [1, 2],
    "temperature": 0.8,
    "value_hidden": [4],
}
