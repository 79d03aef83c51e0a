"""Records of a sequence as the plain values its journal holds, and back, to the last bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from rl.stages.adaptation_proof import Baselines, PlainSteps
from rl.stages.gates import ChampionDecision
from rl.stages.mixture_control import Difference, MixtureControl
from rl.stages.stage_model import StageModel

_STEPS = ("fine_tune", "random_start_steps")
"""Fields of `Baselines` that are records of their own."""


def plain_model(model: StageModel) -> dict[str, Any]:
    """Return a model as plain values and tensors."""
    return {
        "stage": model.stage,
        "policy_spec": dict(model.policy_spec),
        "weights": model.weights,
        "extra": dict(model.extra),
        "episodes": model.episodes,
        "metrics": dict(model.metrics),
    }


def model_of_plain(plain: Mapping[str, Any]) -> StageModel:
    """Return the model that `plain_model` wrote down."""
    fields: dict[str, Any] = {**plain, "weights": _array(plain["weights"])}
    return StageModel(**fields)


def plain_decision(decision: ChampionDecision | None) -> dict[str, Any] | None:
    """Return how a stage compared with the champion before it as plain values."""
    return None if decision is None else asdict(decision)


def decision_of_plain(plain: Mapping[str, Any] | None) -> ChampionDecision | None:
    """Return what `plain_decision` wrote down."""
    return None if plain is None else ChampionDecision(**plain)


def plain_control(control: MixtureControl | None) -> dict[str, Any] | None:
    """Return stage 2's comparison with one network as plain values."""
    return None if control is None else asdict(control)


def control_of_plain(plain: Mapping[str, Any] | None) -> MixtureControl | None:
    """Return what `plain_control` wrote down."""
    if plain is None:
        return None
    names = ("mixture_against_network", "mixture_against_stage_1", "network_against_stage_1")
    fields: dict[str, Any] = dict(plain)
    fields |= {name: None if plain[name] is None else Difference(**plain[name]) for name in names}
    return MixtureControl(**fields)


def plain_baselines(baselines: Baselines) -> dict[str, Any]:
    """Return what stage 3 is compared with as plain values and tensors."""
    return asdict(baselines)


def baselines_of_plain(plain: Mapping[str, Any]) -> Baselines:
    """Return what `plain_baselines` wrote down."""
    fields: dict[str, Any] = {name: _array(value) for name, value in plain.items() if name not in _STEPS}
    return Baselines(**fields, **{name: PlainSteps(**plain[name]) for name in _STEPS})


def _array(kept: Any) -> np.ndarray:
    """Return a copy of an array, or of the tensor it was kept as."""
    return np.asarray(kept).copy()
