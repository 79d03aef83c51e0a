"""Stage 3: a start from which a few steps on recent bars adapt the policy, and the proof that adapting helps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from rl.algorithms.adaptation import AdaptationConfig, FunctionalPolicy, Parameters, adapt
from rl.algorithms.maml import MAML, MAMLConfig, Task
from rl.checkpoints.adaptation import AdaptationRecipe, TradingStretch, adapted_weights, flat_weights
from rl.checkpoints.predictor import adaptation_tensors
from rl.common.errors import DataError
from rl.common.seeding import generator
from rl.common.stopping import finishing, is_requested
from rl.envs.scaled_market import scaled_market
from rl.envs.tasks import last_support, task_windows
from rl.policies.actor_critic import ActorCritic
from rl.stages.adaptation_proof import (
    AdaptationProof,
    AdaptationTrial,
    Baselines,
    CrossSymbol,
    measured_across,
)
from rl.stages.meta_selection import MetaSelection, meta_trained
from rl.stages.moe_stage import regulariser
from rl.stages.plan import Plan
from rl.stages.policy_training import Keep
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData
from rl.stages.trading_tasks import (
    FEWEST_QUERY_BARS,
    FEWEST_SUPPORT_BARS,
    TaskMarket,
    TradingTask,
    shuffled_tasks,
    task_markets,
    task_sizes,
)

ITERATIONS_BETWEEN_SAVES = 10
"""Of stage 3, whose iterations take as long as many episodes of the stages before."""

META_VALIDATION_SHARE = 0.15
"""Last part of the training window, kept from meta-training: to choose among its states by, and to tune the step sizes
of plain fine-tuning on."""


def maml_config(plan: Plan) -> MAMLConfig:
    """Return the meta-learner's settings under a plan."""
    params = plan.training_params.maml
    ppo = plan.training_params.ppo
    return MAMLConfig(
        iterations=plan.training_sequence.stage_3_maml.meta_iterations,
        meta_learning_rate=params.meta_learning_rate,
        inner_loop_steps=params.inner_loop_steps,
        meta_batch_size=params.meta_batch_size,
        meta_accumulation=params.meta_accumulation,
        support_steps=params.support_steps,
        query_steps=params.query_steps,
        inner_step_size=params.inner_step_size,
        first_order_fraction=params.first_order_fraction,
        adapt=params.adapt,
        engine=params.engine,
        gamma=ppo.gamma,
        gae_lambda=params.gae_lambda,
        inner_entropy_coef=ppo.entropy_coef,
    )


def expert_losses(
    spec: dict[str, Any], plan: Plan
) -> Callable[[FunctionalPolicy, Parameters, torch.Tensor], torch.Tensor] | None:
    """Return a mixture's terms for the outer loss; inside a task, which is one regime, they would do harm."""
    if spec["encoder"] != "mixture":
        return None
    terms = regulariser(plan)

    def loss(functional: FunctionalPolicy, parameters: Parameters, obs: torch.Tensor) -> torch.Tensor:
        parts = functional.call("mixture_parts", parameters, obs)
        return terms(parts, parts.gate_probs.detach().mean(0))[0]

    return loss


class TaskPool:
    """Draws meta-training tasks: first a symbol, then one of its anchors, each equally likely."""

    def __init__(self, tasks: dict[str, list[TradingTask]]) -> None:
        self._tasks = [each for each in tasks.values() if each]

    def sample(self, n: int, rng: np.random.Generator) -> list[Task]:
        """Return `n` tasks."""
        chosen: list[Task] = []
        for _ in range(n):
            symbol = self._tasks[int(rng.integers(len(self._tasks)))]
            chosen.append(symbol[int(rng.integers(len(symbol)))])
        return chosen


class MetaTraining:
    """Stage 3 for one symbol: meta-learning, of which the state that adapts best is the stage's model.

    A fifth of the planned run apart, `MetaSelection` looks how well the present state adapts to tasks at the end of the
    training window, which meta-training does not use; the validation window takes no part. A further call of `train`
    goes on from the last state, not from the best, and the best so far stays in the running.
    """

    def __init__(
        self,
        data: SymbolData,
        plan: Plan,
        parent: StageModel,
        others: Sequence[SymbolData],
        *,
        seed: int,
    ) -> None:
        self._data = data
        self._plan = plan
        self._parent = parent
        self._seed = seed
        self.config = maml_config(plan)
        self.sizes = task_sizes(data, plan)
        markets = task_markets(data, others)
        self.symbols = tuple(market.symbol for market in markets)
        target = markets[0]
        cut = target.stop - int(META_VALIDATION_SHARE * (target.stop - target.first))
        training = {
            market.symbol: self._tasks(
                market,
                (market.first, min(market.stop, _row_at(data, market, others, cut))),
                market.first,
            )
            for market in markets
        }
        if not any(training.values()):
            raise DataError(
                f"{data.symbol}: the training window is too short for meta-learning: a task takes "
                f"{self.sizes.support_bars} + {self.sizes.purge_bars} + {self.sizes.query_bars} bars (at least "
                f"{FEWEST_SUPPORT_BARS} and {FEWEST_QUERY_BARS}, whatever support_sessions and query_sessions say), "
                f"and the window holds fewer before its last {META_VALIDATION_SHARE:.0%}. Give the symbol "
                "a longer history, or leave maml out of --stages."
            )
        self._meta_validation = self._tasks(target, (cut, target.stop), target.first)
        start, stop = data.window("validation")
        self._meta_test = self._tasks(target, (start, stop), target.first)
        self._learning = parent.policy()
        self._learner = MAML(
            self._learning,
            TaskPool(training),
            self.config,
            seed,
            auxiliary_loss=expert_losses(parent.policy_spec, plan),
        )
        self._selection = MetaSelection(
            self._learning, self._learner.step_sizes(), self._meta_validation, self.config, seed
        )
        self._round: tuple[int, int] | None = None
        """First and last iteration of a call of `train` that has not come to its end."""

    @property
    def policy(self) -> ActorCritic:
        """The best meta-parameters so far; before any training, the parent."""
        return self._selection.policy

    def _tasks(self, market: TaskMarket, window: tuple[int, int], earliest: int) -> list[TradingTask]:
        windows = task_windows(
            market.symbol,
            window,
            support_bars=self.sizes.support_bars,
            query_bars=self.sizes.query_bars,
            purge_bars=self.sizes.purge_bars,
            support_may_reach_back_to=earliest,
        )
        return [TradingTask(market, each, self._parent.policy_spec, self._plan) for each in windows]

    def train(
        self, iterations: int, report: Callable[[dict[str, Any]], None], keep: Keep | None = None
    ) -> StageModel:
        """Meta-train for so many more iterations and return the best model so far, adapted to what precedes validation.

        A training that `load_state` left inside a round goes on with that round. A signal ends the call after the
        iteration at hand, and after `keep`.

        Args:
            iterations: How many more.
            report: Called after every iteration with its figures (see `MAML.train`) and the newest look.
            keep: Called with the state every `ITERATIONS_BETWEEN_SAVES`, and where a signal ends the call.
        """
        if self._round is None:
            self._round = self._learner.iteration, self._learner.iteration + iterations
        before, end = self._round

        def on_iteration(figures: dict[str, float]) -> None:
            curve = self._selection.curve
            if keep is not None and int(figures["iteration"]) % ITERATIONS_BETWEEN_SAVES == 0:
                keep(self.state())
            report(
                {
                    **figures,
                    "iterations_this_call": int(figures["iteration"]) - before,
                    "meta_validation": curve[-1] if curve else None,
                }
            )

        with finishing():
            meta_trained(
                self._learner, self._learning, self._selection, end, on_iteration, should_stop=is_requested
            )
            if is_requested() and keep is not None:
                keep(self.state())
        self._round = None
        return self.model()

    def state(self) -> dict[str, Any]:
        """Return everything that going on depends on, and everything `model` tells: plain values and tensors."""
        return {
            "learner": self._learner.state(),
            "selection": self._selection.state(),
            "round": self._round and list(self._round),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Stand exactly where `state` was taken: same symbols, plan, parent and seed.

        Raises:
            CheckpointError: If it was taken of another policy or seed.
        """
        self._learner.load_state(state["learner"])
        self._selection.load_state(state["selection"])
        self._round = state["round"] and (int(state["round"][0]), int(state["round"][1]))

    def model(self) -> StageModel:
        """Return the best meta-parameters so far, their step sizes, and the weights adapted just before validation."""
        support = self.support_before("validation")
        weights = (
            self.policy.flat_parameters().numpy().copy() if support is None else self._adapted_to(support)
        )
        return StageModel(
            stage="maml",
            policy_spec=dict(self._parent.policy_spec),
            weights=weights,
            extra=adaptation_tensors(self.policy.flat_parameters(), self.step_sizes()),
            episodes=self._learner.iteration,
            metrics={
                "meta_training": [dict(each) for each in self._learner.history],
                "task_symbols": list(self.symbols),
                "rolled_back": self._learner.rolled_back,
                **self._selection.figures(),
            },
        )

    def step_sizes(self) -> Parameters:
        """Return the inner step sizes learned together with the best meta-parameters."""
        return self._selection.step_sizes

    def support_before(self, window: str) -> tuple[int, int] | None:
        """Return the support stretch that ends just before a named window."""
        return last_support(
            self._data.window(window)[0],
            support_bars=self.sizes.support_bars,
            purge_bars=0,
            earliest=self._data.window("train")[0],
        )

    def recipe(self) -> AdaptationRecipe:
        """Return how the model is adapted wherever it is used."""
        return AdaptationRecipe(
            config=AdaptationConfig(
                inner_loop_steps=self.config.inner_loop_steps,
                inner_step_size=self.config.inner_step_size,
                inner_entropy_coef=self.config.inner_entropy_coef,
                gamma=self.config.gamma,
                gae_lambda=self.config.gae_lambda,
                baseline_ridge=self.config.baseline_ridge,
                adapt=self.config.adapt,
            ),
            support_bars=self.sizes.support_bars,
            support_steps=self.config.support_steps,
        )

    def _adapted_to(self, support: tuple[int, int]) -> np.ndarray:
        stretch = TradingStretch(
            market=self._data.market,
            rules=self._data.rules,
            window=support,
            scheme=self._plan.environment.action_scheme,
            capital=self._plan.environment.initial_capital,
        )
        return adapted_weights(self.policy, self.step_sizes(), stretch, self.recipe(), name=self._data.symbol)

    def proof(self, baselines: Baselines | None = None) -> AdaptationProof:
        """Adapt on the support of every meta-test task and see what it does to the query, beside all comparisons.

        The queries lie in the validation window and never overlap; supports lie just before them. Plain fine-tuning has
        its step sizes tuned on tasks at the end of the training window.

        Args:
            baselines: Of another attempt on the same symbol, parent and seed; measured anew where None.
        """
        return self._trial().proof(
            self._meta_test,
            self._placebo_tests(),
            self._meta_validation,
            tried=self._plan.training_params.maml.evaluation_steps,
            baselines=baselines,
        )

    def baselines(self) -> Baselines:
        """Measure what the proof compares with; meta-training, its learning rate and its step sizes change nothing."""
        return self._trial().baselines(self._meta_test, self._placebo_tests(), self._meta_validation)

    def _trial(self) -> AdaptationTrial:
        return AdaptationTrial(
            policy=self.policy,
            step_sizes=self.step_sizes(),
            parent=self._parent,
            config=self.config,
            seed=self._seed,
        )

    def _placebo_tests(self) -> list[TradingTask]:
        windows = [task.window for task in self._meta_test]
        order = generator(self._seed, "placebo", "order of bars")
        return shuffled_tasks(self._data, windows, self._parent.policy_spec, self._plan, order)

    def across(self, held: SymbolData, base: StageModel) -> CrossSymbol:
        """Compare adaptation on a symbol that took no part in meta-training with that symbol's own stage-2 model.

        Both trade the same query stretches of the held-out symbol's validation window, those after the last day that
        meta-training saw of any symbol: markets move together.
        """
        market = TaskMarket(
            symbol=held.symbol,
            market=scaled_market(held.bars, held.table, self._data.feature_names, self._data.scaler),
            rules=held.rules,
            first=held.window("train")[0],
            stop=held.window("train")[1],
        )
        as_itself = replace(market, market=held.market)
        first, stop = held.window("validation")
        seen_until = self._data.bars.close_time[self._data.window("train")[1] - 1]
        unseen = int(np.searchsorted(held.bars.close_time, seen_until, side="right"))
        window = (max(first, unseen), stop)
        tasks = self._tasks(market, window, market.first)
        if not tasks:
            own = f"no query window of {held.symbol}'s validation"
            note = f"{own} lies after the training window of {self._data.symbol}"
            return CrossSymbol(ratio=None, symbol=held.symbol, note=note)
        adapted, specialised = [], []
        own_tasks = self._tasks(as_itself, window, as_itself.first)
        for row, (task, own_task) in enumerate(zip(tasks, own_tasks, strict=True)):
            rng = generator(self._seed, "held out", held.symbol, row)
            steps = self.config.inner_loop_steps
            params = adapt(self.policy, self.step_sizes(), task.support, steps, rng, self.config)
            adapted.append(task.query_growth(flat_weights(params)))
            specialised.append(own_task.query_growth(base.weights, base.policy_spec))
        return measured_across(held.symbol, adapted, specialised)


def _row_at(data: SymbolData, market: TaskMarket, others: Sequence[SymbolData], row: int) -> int:
    """Return the row of another symbol's arrays at the time of the target's `row`."""
    if market.symbol == data.symbol:
        return row
    other = next(each for each in others if each.symbol == market.symbol)
    return int(np.searchsorted(other.bars.close_time, data.bars.close_time[row], side="left"))
