"""What adapting earns on bars it has not seen, beside everything it has to be compared with.

Every number is the net log growth per bar of a greedy policy on the query bars of one task; the tasks are those whose
queries lie in the validation window. The gate after stage 3 decides by these numbers alone (`adaptation_gate.py`).

Baselines: the stage before as it is; it, and a random start, after the same number of plain steps on the same support
bars, tuned on other tasks in the size of the steps and in what they change; holding. Controls: the policy adapted to
another task's support, and the same comparison where the order of the bars says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from rl.algorithms.adaptation import AdaptationConfig, Parameters, adapt, fine_tune
from rl.checkpoints.adaptation import flat_weights
from rl.common.seeding import generator
from rl.envs.tasks import TaskWindow
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.stages.stage_model import StageModel
from rl.stages.trading_tasks import TradingTask

CURVE_STEPS = (0, 1, 2, 3, 5, 7, 14)
"""Inner steps after which query growth is shown, as far as twice the plan's number."""


@dataclass(frozen=True, kw_only=True)
class PlainSteps:
    """How a policy is fine-tuned plainly."""

    size: float
    """Step size of every tensor that changes."""
    adapt: str
    """What changes: `all` of the actor or its `heads`, whatever the meta-learned policy may change."""

    def __str__(self) -> str:
        return f"{self.adapt}, step size {self.size:g}"


PLAIN_STEPS = (
    *(PlainSteps(size=size, adapt="all") for size in (0.01, 0.1, 1.0, 3.0)),
    *(PlainSteps(size=size, adapt="heads") for size in (0.1, 1.0, 3.0, 10.0)),
)
"""Grid that plain fine-tuning is chosen from, on meta-validation tasks. Moving every layer takes smaller steps."""

UNTUNED = PlainSteps(size=1.0, adapt="all")
"""Where there is no task to choose on."""

MOST_TUNING_TASKS = 30
"""Meta-validation tasks it is tuned on, spread evenly; more would cost minutes and move nothing."""

FIRST_TUNING_TASKS = 6
"""Most tasks that the whole grid is tried on; only the best `STEPS_KEPT` of it go on to the others."""

STEPS_KEPT = 2


@dataclass(frozen=True, kw_only=True)
class Placebo:
    """The same query windows where the bars come in random order. Axes: W tasks."""

    adapted: np.ndarray
    """Of the meta-learned policy, adapted to the support before the query, shuffled too. (W,)"""
    unadapted: np.ndarray
    """Of it as it is. (W,)"""
    parent: np.ndarray
    """Of the stage before. (W,)"""
    other_support: np.ndarray
    """Of the meta-learned policy, adapted to another task's support. (W,)"""


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """What a meta-learned policy is compared with and that does not depend on it: the same for every attempt at one.

    Axes: W tasks. Fields as in `AdaptationProof`.
    """

    parent: np.ndarray
    fine_tuned: np.ndarray
    fine_tune: PlainSteps
    random_start: np.ndarray
    random_start_steps: PlainSteps
    buy_and_hold: np.ndarray
    placebo_parent: np.ndarray
    """Of the stage before, on shuffled bars. (W,)"""


@dataclass(frozen=True, kw_only=True)
class AdaptationProof:
    """Query growth of every meta-test task, per bar. Axes: W tasks, C measured numbers of inner steps."""

    steps: int
    """K, the plan's `inner_loop_steps`."""
    curve_steps: tuple[int, ...]
    """Numbers of steps measured, rising; 0, 1 and K are among them. (C,)"""
    adapted: np.ndarray
    """Of the meta-learned policy after so many steps. (W, C)"""
    parent: np.ndarray
    """Of the stage before, as it is. (W,)"""
    fine_tuned: np.ndarray
    """Of the stage before after K plain steps, tuned in size and in what they change. (W,)"""
    fine_tune: PlainSteps
    random_start: np.ndarray
    """Of the same network started at random, another one for each task, after K plain steps. (W,)"""
    random_start_steps: PlainSteps
    """Tuned in the same way on the same tasks."""
    buy_and_hold: np.ndarray
    """Of holding. (W,)"""
    other_support: np.ndarray | None
    """Of the meta-learned policy after K steps on another task's support; None where supports are too long for one that
    shares no bar with the task. (W,)"""
    placebo: Placebo | None
    """None where `other_support` is."""

    def after(self, steps: int) -> np.ndarray:
        """Return the growth after a measured number of steps. (W,)"""
        return self.adapted[:, self.curve_steps.index(steps)]

    def speed(self, tried: int) -> int | None:
        """Return after how many steps the mean query growth is first above the unadapted one's, or None."""
        unadapted = self.after(0).mean()
        for steps in self.curve_steps:
            if 0 < steps <= tried and self.after(steps).mean() > unadapted:
                return steps
        return None


@dataclass(frozen=True, kw_only=True)
class CrossSymbol:
    """Adapted performance on a symbol held out of meta-training, relative to the stage-2 model trained on it."""

    ratio: float | None
    symbol: str | None
    note: str
    adapted: tuple[float, ...] = ()
    """Adapted growth on each query window of the held-out symbol, per bar; empty where nothing was measured."""
    own_model: tuple[float, ...] = ()
    """Growth of that symbol's own stage-2 model on the same windows."""


def measured_across(symbol: str, adapted: Sequence[float], own_model: Sequence[float]) -> CrossSymbol:
    """Return what growths on the query windows of a held-out symbol say.

    A ratio has no meaning where the symbol's own model earns nothing.
    """
    reference = float(np.mean(own_model)) if len(own_model) else 0.0
    growths = {"adapted": tuple(adapted), "own_model": tuple(own_model)}
    if not reference > 0.0:
        note = f"the stage-2 model of {symbol} itself earns nothing there, so no ratio is defined"
        return CrossSymbol(ratio=None, symbol=symbol, note=note, **growths)
    return CrossSymbol(
        ratio=float(np.mean(adapted)) / reference,
        symbol=symbol,
        note=f"adapted growth on {symbol}, held out, over that of its own stage-2 model",
        **growths,
    )


def measured_steps(steps: int, tried: int) -> tuple[int, ...]:
    """Return after which numbers of inner steps growth is measured.

    Args:
        steps: The plan's `inner_loop_steps`.
        tried: Steps the adaptation speed is looked for in, the plan's `evaluation_steps`.
    """
    shown = [each for each in CURVE_STEPS if each <= 2 * steps]
    return tuple(sorted({*range(tried + 1), *shown, steps}))


def other_tasks(windows: Sequence[TaskWindow]) -> list[int] | None:
    """Return for each task whose support it is adapted to as a control: half of all tasks further on, round the end.

    So every support and every query counts once, and the two are as far apart as they can be. None where the other
    support would share bars with the task's own stretches: it would know them.
    """
    count = len(windows)
    others = [(row + count // 2) % count for row in range(count)]
    for window, other in zip(windows, others, strict=True):
        start, stop = windows[other].support
        if start < window.query[1] and stop > window.support[0]:
            return None
    return others


@dataclass(frozen=True, kw_only=True)
class AdaptationTrial:
    """A meta-learned policy and what it is tried against; equal trials give equal bits."""

    policy: ActorCritic
    """The meta-parameters."""
    step_sizes: Parameters
    parent: StageModel
    """The stage before."""
    config: AdaptationConfig
    seed: int

    def proof(
        self,
        tests: Sequence[TradingTask],
        placebo_tests: Sequence[TradingTask],
        tuning: Sequence[TradingTask],
        *,
        tried: int,
        baselines: Baselines | None = None,
    ) -> AdaptationProof:
        """Adapt on the support of every task and see what it does to the query.

        Whatever adapts gets the same bars, the same stream of random numbers and, but for the curve, the same number of
        steps.

        Args:
            tests: Tasks whose queries lie in the validation window. W of them.
            placebo_tests: The same tasks on shuffled bars. W of them.
            tuning: Tasks at the end of the training window, to tune step sizes on.
            tried: The plan's `evaluation_steps`.
            baselines: What `baselines` returned for the same tasks, where it was measured before.
        """
        steps = self.config.inner_loop_steps
        curve = measured_steps(steps, tried)
        known = baselines or self.baselines(tests, placebo_tests, tuning)
        adapted, weights = self._adapted(tests, curve, "meta-test")
        others = other_tasks([task.window for task in tests])
        return AdaptationProof(
            steps=steps,
            curve_steps=curve,
            adapted=adapted,
            parent=known.parent,
            fine_tuned=known.fine_tuned,
            fine_tune=known.fine_tune,
            random_start=known.random_start,
            random_start_steps=known.random_start_steps,
            buy_and_hold=known.buy_and_hold,
            other_support=None if others is None else _on_other_support(tests, weights, others),
            placebo=None if others is None else self._placebo(placebo_tests, others, known.placebo_parent),
        )

    def baselines(
        self,
        tests: Sequence[TradingTask],
        placebo_tests: Sequence[TradingTask],
        tuning: Sequence[TradingTask],
    ) -> Baselines:
        """Measure what the meta-learned policy is compared with; arguments as those of `proof`."""
        tuning = tuning[:: max(1, -(-len(tuning) // MOST_TUNING_TASKS))]
        of_parent = tuned_steps(tuning, self._fine_tuned)
        of_random = tuned_steps(tuning, self._from_random)
        return Baselines(
            parent=_growths(task.query_growth(self.parent.weights) for task in tests),
            fine_tuned=_growths(
                self._fine_tuned(task, of_parent, "meta-test", row) for row, task in enumerate(tests)
            ),
            fine_tune=of_parent,
            random_start=_growths(
                self._from_random(task, of_random, "meta-test", row) for row, task in enumerate(tests)
            ),
            random_start_steps=of_random,
            buy_and_hold=_growths(task.buy_and_hold_growth() for task in tests),
            placebo_parent=_growths(task.query_growth(self.parent.weights) for task in placebo_tests),
        )

    def _adapted(
        self, tasks: Sequence[TradingTask], curve: tuple[int, ...], stream: str
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return growth after each number of steps, (W, C), and the weights after K of them, (P,) each."""
        steps = self.config.inner_loop_steps
        growth, weights = np.empty((len(tasks), len(curve))), []
        for row, task in enumerate(tasks):

            def note(step: int, params: Parameters, row: int = row, task: TradingTask = task) -> None:
                if step not in curve:
                    return
                reached = flat_weights(params)
                growth[row, curve.index(step)] = task.query_growth(reached)
                if step == steps:
                    weights.append(reached)

            rng = generator(self.seed, stream, row)
            adapt(self.policy, self.step_sizes, task.support, curve[-1], rng, self.config, on_step=note)
        return growth, weights

    def _placebo(self, tasks: Sequence[TradingTask], others: list[int], parent: np.ndarray) -> Placebo:
        steps = self.config.inner_loop_steps
        growth, weights = self._adapted(tasks, (0, steps), "placebo")
        return Placebo(
            adapted=growth[:, 1],
            unadapted=growth[:, 0],
            parent=parent,
            other_support=_on_other_support(tasks, weights, others),
        )

    @cached_property
    def _parent_policy(self) -> ActorCritic:
        """The parent as a module; no adaptation changes it, and making one takes as long as an inner step."""
        return self.parent.policy()

    def _fine_tuned(self, task: TradingTask, steps: PlainSteps, stream: str, row: int) -> float:
        rng = generator(self.seed, stream, row)
        return plain_growth(self._parent_policy, task, steps, rng, self.config)

    def _from_random(self, task: TradingTask, steps: PlainSteps, stream: str, row: int) -> float:
        start = int(generator(self.seed, "random start", stream, row).integers(2**31))
        policy = build_policy(self.parent.policy_spec, start)
        return plain_growth(policy, task, steps, generator(self.seed, stream, row), self.config)


def plain_growth(
    start: ActorCritic,
    task: TradingTask,
    steps: PlainSteps,
    rng: np.random.Generator,
    config: AdaptationConfig,
) -> float:
    """Return the log growth per query bar after as many plain steps as the meta-learned policy takes.

    Args:
        start: The policy to fine-tune; it stays as it is.
        task: Where.
        steps: Their size, and what they change. What `config` lets the meta-learned policy change has no say: whoever
            fine-tunes a model is free to move all of it.
        rng: Of the rollouts.
        config: Number of steps, loss and advantages.
    """
    count = config.inner_loop_steps
    config = replace(config, adapt=steps.adapt)
    return task.query_growth(flat_weights(fine_tune(start, task.support, count, steps.size, rng, config)))


def tuned_steps(
    tasks: Sequence[TradingTask], growth: Callable[[TradingTask, PlainSteps, str, int], float]
) -> PlainSteps:
    """Return the plain steps of the grid with the highest mean query growth; `UNTUNED` where there is no task.

    All are tried on some tasks and the best two on all, which costs a third of trying all on all.

    Args:
        tasks: Meta-validation tasks.
        growth: Growth of what is tuned on a task, given the steps, name of the random stream and number of the task.
    """
    if not tasks:
        return UNTUNED
    every = -(-len(tasks) // FIRST_TUNING_TASKS)
    first = [row for row in range(len(tasks)) if row % every == 0]
    rest = [row for row in range(len(tasks)) if row % every]
    left = list(PLAIN_STEPS)
    found: dict[PlainSteps, list[float]] = {steps: [] for steps in left}
    for rows, kept in ((first, STEPS_KEPT), (rest, 1)):
        for steps in left:
            found[steps] += [growth(tasks[row], steps, "meta-validation", row) for row in rows]
        left = sorted(left, key=lambda steps: -float(np.mean(found[steps])))[:kept]
    return left[0]


def _on_other_support(
    tasks: Sequence[TradingTask], weights: Sequence[np.ndarray], others: Sequence[int]
) -> np.ndarray:
    return _growths(task.query_growth(weights[other]) for task, other in zip(tasks, others, strict=True))


def _growths(each: Iterable[float]) -> np.ndarray:
    return np.array(list(each), dtype=np.float64)
