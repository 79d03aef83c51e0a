"""The second MAML engine: inner steps taken by learn2learn instead of our own few lines.

It exists to check the first one. learn2learn (0.2.0, MIT) is a known implementation written by others; both
engines share losses and rollouts and differ in how a step is taken and how gradients flow through it. Speed
is equal.

learn2learn's package start imports gym, torchvision, scipy and others that only its data sets need, and is no
longer maintained. Its two algorithm files need torch alone, so they are loaded past the package start.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path as FilePath
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from rl.algorithms.adaptation import FunctionalPolicy, Parameters, inner_loss, require_finite
from rl.algorithms.maml import MAMLConfig, RecordedRollouts
from rl.common.errors import MissingPackageError, StagegateError

PACKAGE = "learn2learn"
INSTALL_HINT = (
    "  pip install --no-deps --use-pep517 learn2learn==0.2.0 \\\n"
    '    --config-settings "--global-option=build_py" --config-settings "--build-option=--skip-build"\n'
    "  or set the engine to native, which gives the same gradients."
)


def load_learn2learn() -> tuple[Any, Any]:
    """Return learn2learn's classes (MAML, MetaSGD), loaded with torch alone.

    Where learn2learn was imported before, that import is used. Otherwise bare modules stand in for its
    package and for `learn2learn.algorithms`, and the rest of learn2learn stays unloaded in this process.

    Raises:
        MissingPackageError: If it is not installed, or is not the version we know.
    """
    if PACKAGE not in sys.modules:
        _add_bare_packages()
    try:
        maml = importlib.import_module(f"{PACKAGE}.algorithms.maml")
        meta_sgd = importlib.import_module(f"{PACKAGE}.algorithms.meta_sgd")
    except ImportError as error:
        for name in (PACKAGE, f"{PACKAGE}.algorithms"):
            sys.modules.pop(name, None)
        raise MissingPackageError(
            f"The installed learn2learn cannot be loaded ({error}); version 0.2.0 is needed.\n"
            f"  Install it with\n{INSTALL_HINT}"
        ) from error
    return maml.MAML, meta_sgd.MetaSGD


def _add_bare_packages() -> None:
    found = PathFinder.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise MissingPackageError(
            f"MAML's engine is set to learn2learn, which is not installed. Install it with\n{INSTALL_HINT}"
        )
    folder = FilePath(next(iter(found.submodule_search_locations)))
    for name, path in ((PACKAGE, folder), (f"{PACKAGE}.algorithms", folder / "algorithms")):
        module = ModuleType(name)
        module.__path__ = [str(path)]
        sys.modules[name] = module


@dataclass(frozen=True)
class LearnerPoint:
    """A learn2learn learner after some inner steps, as the meta-loss wants to see it."""

    learner: Any

    def logits(self, obs: Tensor) -> Tensor:
        """(B, D) -> (B, A)"""
        return self.learner.module.logits(obs)

    def values(self, obs: Tensor) -> Tensor:
        """(B, D) -> (B,)"""
        return self.learner.module.values(obs)

    def detached_parameters(self) -> Parameters:
        """Return the parameters as constants."""
        return {name: tensor.detach() for name, tensor in self.learner.module.named_parameters()}


def learn2learn_path(
    functional: FunctionalPolicy,
    parameters: Parameters,
    step_sizes: Mapping[str, Tensor],
    rollouts: RecordedRollouts,
    config: MAMLConfig,
    *,
    second_order: bool,
    label: str = "",
) -> Iterator[LearnerPoint]:
    """Yield the policy after 0, 1, …, K inner steps on one task, taken by learn2learn's MetaSGD.

    Drop-in for `native_path`, except that adaptation starts from the policy's own parameters and `parameters`
    have to be these: learn2learn clones modules.

    Raises:
        TrainingDivergedError: If an inner loss is not finite.
    """
    learner = _learner(functional.policy, parameters, step_sizes)
    steps = config.inner_loop_steps
    yield LearnerPoint(learner)
    for step in range(steps):
        # `adapt` changes the learner it is called on; the point handed out before has to stay as it was.
        learner = learner.clone()
        point = LearnerPoint(learner)
        batch = rollouts.support(step, point.detached_parameters())
        loss = inner_loss(point.logits(batch.obs), batch, config.inner_entropy_coef)
        require_finite({"the inner loss": loss}, f"{label}inner step {step + 1} of {steps}")
        # MetaSGD refuses a loss that leaves a parameter out, as ours does the critic's; their gradient is
        # zero.
        everything = torch.stack([(0.0 * tensor).sum() for tensor in learner.module.parameters()]).sum()
        with warnings.catch_warnings():
            # It keeps gradients in `.grad` of tensors that are no leaves, on purpose; torch warns at each
            # reading.
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            learner.adapt(loss + everything, first_order=not second_order)
        yield LearnerPoint(learner)


def _learner(policy: nn.Module, parameters: Parameters, step_sizes: Mapping[str, Tensor]) -> Any:
    """Return learn2learn's learner around the policy; a parameter without a step size gets step size 0."""
    own = dict(policy.named_parameters())
    if own.keys() != parameters.keys() or any(own[name] is not parameters[name] for name in own):
        raise StagegateError(
            "The learn2learn engine adapts a module: it has to start from the policy's own parameters, but "
            "was given others.\n  Use the native engine for parameters held apart from a policy."
        )
    _, meta_sgd = load_learn2learn()
    sizes = [
        step_sizes.get(name, torch.zeros((), dtype=tensor.dtype, device=tensor.device))
        for name, tensor in own.items()
    ]
    return meta_sgd(policy, lrs=sizes).clone()
