"""Which state of a meta-training is the stage's model: the one that adapts best on tasks kept from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from rl.algorithms.adaptation import AdaptationConfig, Parameters, adapt
from rl.algorithms.maml import MAML, MAMLResult
from rl.checkpoints.adaptation import flat_weights
from rl.common.seeding import generator
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.stages.trading_tasks import TradingTask

LOOKS = 5
"""Looks at the meta-validation tasks in a run of the planned length; an extension is looked at as often."""

FEWEST_BETWEEN = 10
"""Meta-iterations between two looks at least: a look takes as long as about three of them."""

LOOK_TASKS = 8
"""Meta-validation tasks of a look, spread evenly; all looks together take about a tenth of the time of the stage.

Rather few looks at many tasks: the policy changes slowly, and growth on a few tasks is mostly chance.
"""


def iterations_between_looks(planned: int) -> int:
    """Return after how many meta-iterations to look again, given those of the whole run."""
    return max(FEWEST_BETWEEN, round(planned / LOOKS))


def spread_evenly(tasks: Sequence[TradingTask], most: int) -> list[TradingTask]:
    """Return at most so many tasks, from all over the sequence."""
    if len(tasks) <= most:
        return list(tasks)
    # The middle of each of `most` equal parts.
    return [tasks[(2 * part + 1) * len(tasks) // (2 * most)] for part in range(most)]


class MetaSelection:
    """Keeps the meta-parameters, and the step sizes that belong to them, from which adapting earned most.

    Every look adapts to the same tasks with the same random numbers, so that two looks differ by what was learned
    between them. Without a task to look at, the last state offered is kept.

    Args:
        start: What meta-training begins from; kept until something that was trained is offered.
        step_sizes: Inner step sizes it begins with.
        tasks: Meta-validation tasks; no bar of theirs may be one that meta-training or the gate uses as a query.
        config: How to adapt.
        seed: Of the rollouts.
    """

    def __init__(
        self,
        start: ActorCritic,
        step_sizes: Mapping[str, Tensor],
        tasks: Sequence[TradingTask],
        config: AdaptationConfig,
        seed: int,
    ) -> None:
        self.policy = build_policy(start.spec, 0)
        """The best so far."""
        self.iteration = 0
        """Meta-iterations it was trained for."""
        self.curve: list[dict[str, Any]] = []
        """One point for each look: iteration, and mean log growth per query bar adapted and unadapted."""
        self.step_sizes: Parameters = {}
        self._best = -np.inf
        self._tasks = spread_evenly(tasks, LOOK_TASKS)
        self._config = config
        self._seed = seed
        self._keep(start, step_sizes)

    def look(self, policy: ActorCritic, step_sizes: Mapping[str, Tensor], iteration: int) -> None:
        """Adapt a state of the meta-training to every task, add a point to the curve, and keep the state if it is best.

        Args:
            policy: The meta-parameters.
            step_sizes: Inner step size of each tensor that adapts. Each ()
            iteration: Meta-iterations they were trained for. The untrained start, 0, is shown but never kept.
        """
        if not self._tasks:
            self.iteration = iteration
            self._keep(policy, step_sizes)
            return
        unadapted, adapted = self._growth(policy, step_sizes)
        self.curve.append({"iteration": iteration, "adapted": adapted, "unadapted": unadapted})
        if iteration > 0 and adapted > self._best:
            self._best = adapted
            self.iteration = iteration
            self._keep(policy, step_sizes)

    def _growth(self, policy: ActorCritic, step_sizes: Mapping[str, Tensor]) -> tuple[float, float]:
        """Return the mean net log growth per query bar before and after adapting."""
        steps = self._config.inner_loop_steps
        before = flat_weights(dict(policy.named_parameters()))
        unadapted, adapted = [], []
        for row, task in enumerate(self._tasks):
            rng = generator(self._seed, "meta-validation look", row)
            reached = adapt(policy, step_sizes, task.support, steps, rng, self._config)
            unadapted.append(task.query_growth(before))
            adapted.append(task.query_growth(flat_weights(reached)))
        return float(np.mean(unadapted)), float(np.mean(adapted))

    def _keep(self, policy: ActorCritic, step_sizes: Mapping[str, Tensor]) -> None:
        self.policy.load_flat(policy.flat_parameters())
        self.step_sizes = {name: size.detach().clone() for name, size in step_sizes.items()}

    def state(self) -> dict[str, Any]:
        """Return what has been seen and kept so far: plain values and tensors."""
        return {
            "policy": self.policy.flat_parameters().clone(),
            "step_sizes": {name: size.clone() for name, size in self.step_sizes.items()},
            "iteration": self.iteration,
            "best": float(self._best),
            "curve": [dict(point) for point in self.curve],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` was taken, with the same tasks."""
        self.policy.load_flat(state["policy"])
        self.step_sizes = {name: size.clone() for name, size in state["step_sizes"].items()}
        self.iteration = int(state["iteration"])
        self._best = float(state["best"])
        self.curve = [dict(point) for point in state["curve"]]

    def figures(self) -> dict[str, Any]:
        """Return the curve, and which point of it is the model, as plain values."""
        return {
            # A copy: an extension must not rewrite what an earlier model looked like.
            "meta_validation_curve": [dict(point) for point in self.curve],
            "best_iteration": self.iteration,
            "meta_validation_tasks": len(self._tasks),
        }


def meta_trained(
    learner: MAML,
    policy: ActorCritic,
    selection: MetaSelection,
    end: int,
    on_iteration: Callable[[dict[str, float]], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> MAMLResult:
    """Meta-train up to an iteration, with a look at every fifth of the planned run and one at the end.

    Args:
        learner: The meta-learner; it goes on from its last state, whichever was best.
        policy: What it trains.
        selection: Looks, and keeps the best.
        end: Iterations done in all when it returns.
        on_iteration: Called after every iteration, after the look if there was one.
        should_stop: Asked before each iteration; True ends it early.
    """
    between = iterations_between_looks(learner.config.iterations)
    # A training that was resumed before its first iteration has looked at its start already.
    if learner.iteration == 0 and not selection.curve:
        selection.look(policy, learner.step_sizes(), 0)

    def after(figures: dict[str, float]) -> None:
        iteration = int(figures["iteration"])
        if iteration == end or iteration % between == 0:
            selection.look(policy, learner.step_sizes(), iteration)
        if on_iteration is not None:
            on_iteration(figures)

    return learner.train(end - learner.iteration, on_iteration=after, should_stop=should_stop)
