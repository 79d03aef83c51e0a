"""Stage 3: a start from which a few steps on recent bars adapt the policy, and the proof that adapting helps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from rl.algorithms.adaptation import (
    AdaptationConfig,
    FunctionalPolicy,
    Parameters,
    RolloutData,
    adapt,
    fine_tune,
)
from rl.algorithms.maml import MAML, MAMLConfig, Task
from rl.backtest.engine import replay_policy
from rl.checkpoints.adaptation import AdaptationRecipe, TradingStretch, adapted_weights, flat_weights
from rl.checkpoints.predictor import adaptation_tensors
from rl.common.errors import DataError
from rl.common.seeding import generator
from rl.envs.scaled_market import bar_volatility, scaled_market
from rl.envs.tasks import TaskWindow, last_support, task_windows
from rl.policies.actor_critic import ActorCritic
from rl.policies.forward import pack_weights
from rl.stages.moe_stage import regulariser
from rl.stages.plan import Plan
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

FINE_TUNE_STEP_SIZES = (0.01, 0.1, 1.0, 3.0, 10.0)
"""Grid the plain fine-tuning baseline's step size is chosen from, on meta-validation tasks."""

MOST_TUNING_TASKS = 40
"""Meta-validation tasks that baseline is tuned on, spread evenly; more would cost minutes and move nothing."""

META_VALIDATION_SHARE = 0.15
"""Last part of the training window, kept from meta-training to tune that baseline on."""

FEWEST_SUPPORT_BARS = 128
FEWEST_QUERY_BARS = 32
"""A session of daily data is one bar; a task needs more than that to learn from and to be judged on."""


@dataclass(frozen=True, kw_only=True)
class TaskMarket:
    """One symbol as seen through the target's scaler."""

    symbol: str
    market: MarketArrays
    rules: TradingRules
    first: int
    """First row a support may use."""
    stop: int
    """Row after the last that meta-training may see."""


@dataclass(frozen=True, kw_only=True)
class TaskSizes:
    """How long a task's stretches are, in bars."""

    support_bars: int
    query_bars: int
    purge_bars: int


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
        gae_lambda=ppo.gae_lambda,
        inner_entropy_coef=ppo.entropy_coef,
    )


def task_sizes(data: SymbolData, plan: Plan) -> TaskSizes:
    """Return the stretches' lengths for a symbol: the plan's sessions, but never too few bars to learn from."""
    params = plan.training_params.maml
    per_session = data.bars_per_session()
    return TaskSizes(
        support_bars=max(FEWEST_SUPPORT_BARS, round(params.support_sessions * per_session)),
        query_bars=max(FEWEST_QUERY_BARS, round(params.query_sessions * per_session)),
        # A position may be held over a session end; one session between support and query lets none reach across.
        purge_bars=max(1, round(per_session)),
    )


def task_markets(data: SymbolData, others: Sequence[SymbolData]) -> list[TaskMarket]:
    """Return the target and every other symbol with the same features, cut at the target's end of training.

    Another symbol's later bars would carry the target's validation days into its training: markets move together.
    """
    start, stop = data.window("train")
    end_of_training = data.bars.close_time[stop - 1]
    markets = [TaskMarket(symbol=data.symbol, market=data.market, rules=data.rules, first=start, stop=stop)]
    for other in others:
        if other.symbol == data.symbol:
            continue
        other_start, other_stop = other.window("train")
        before = int(np.searchsorted(other.bars.close_time, end_of_training, side="right"))
        scaled = scaled_market(other.bars, other.table, data.feature_names, data.scaler)
        end = min(other_stop, before)
        if end - other_start < 2:
            continue
        # Its own rules scale the reward by its whole training window, which may end later than the target's.
        try:
            volatility = bar_volatility(other.bars, (other_start, end))
        except DataError:
            # Its price stands still there: no action would differ from another.
            continue
        rules = replace(other.rules, bar_volatility=volatility)
        markets.append(
            TaskMarket(symbol=other.symbol, market=scaled, rules=rules, first=other_start, stop=end)
        )
    return markets


class TradingTask:
    """One stretch of support bars and the query bars after it, as the meta-learner sees them."""

    def __init__(self, market: TaskMarket, window: TaskWindow, spec: dict[str, Any], plan: Plan) -> None:
        self.window = window
        self._spec = spec
        self._steps = plan.training_params.maml.support_steps, plan.training_params.maml.query_steps
        self._support = _stretch(market, window.support, plan)
        self._query = _stretch(market, window.query, plan)

    def support(self, policy_params: Parameters, rng: np.random.Generator) -> RolloutData:
        """Act on the support bars."""
        return self._support.rollout(self._spec, policy_params, self._steps[0], rng)

    def query(self, policy_params: Parameters, rng: np.random.Generator) -> RolloutData:
        """Act on the query bars."""
        return self._query.rollout(self._spec, policy_params, self._steps[1], rng)

    def query_growth(self, weights: np.ndarray, spec: dict[str, Any] | None = None) -> float:
        """Return the greedy policy's net log growth per query bar; `spec` where the weights are another network's."""
        stretch = self._query
        replay = replay_policy(
            stretch.market,
            stretch.window,
            stretch.rules,
            pack_weights(spec or self._spec, weights),
            scheme=stretch.scheme,
            capital=stretch.capital,
        )
        return math.log(max(replay.equity[-1] / replay.capital, 1e-12)) / (len(replay.equity) - 1)


def _stretch(market: TaskMarket, window: tuple[int, int], plan: Plan) -> TradingStretch:
    return TradingStretch(
        market=market.market,
        rules=market.rules,
        window=window,
        scheme=plan.environment.action_scheme,
        capital=plan.environment.initial_capital,
    )


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


@dataclass(frozen=True, kw_only=True)
class AdaptationProof:
    """Query growth of every meta-test task, per bar, for each number of inner steps. Axes: W tasks, K + 1 steps."""

    adapted: np.ndarray
    """Of the meta-learned policy after 0, 1, …, K steps. (W, K + 1)"""
    parent: np.ndarray
    """Of the stage before, as it is. (W,)"""
    fine_tuned: np.ndarray
    """Of the stage before after K plain steps of the step size tuned on meta-validation. (W,)"""
    fine_tune_step_size: float
    steps: int
    """K, the plan's `inner_loop_steps`."""

    def speed(self, tried: int) -> int | None:
        """Return after how many steps the mean query growth is first above the unadapted one's, or None."""
        mean = self.adapted.mean(axis=0)
        for step in range(1, min(tried, self.adapted.shape[1] - 1) + 1):
            if mean[step] > mean[0]:
                return step
        return None


class MetaTraining:
    """Stage 3 for one symbol."""

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
        self.policy: ActorCritic = parent.policy()
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
        self._learner = MAML(
            self.policy, TaskPool(training), self.config, seed, auxiliary_loss=self._expert_losses()
        )
        self._history: list[dict[str, float]] = []

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

    def _expert_losses(self) -> Callable[[FunctionalPolicy, Parameters, torch.Tensor], torch.Tensor] | None:
        """Return the mixture's terms for the outer loss; inside a task, which is one regime, they would do harm."""
        if self._parent.policy_spec["encoder"] != "mixture":
            return None
        terms = regulariser(self._plan)

        def loss(functional: FunctionalPolicy, parameters: Parameters, obs: torch.Tensor) -> torch.Tensor:
            parts = functional.call("mixture_parts", parameters, obs)
            return terms(parts, parts.gate_probs.detach().mean(0))[0]

        return loss

    def train(self, iterations: int, report: Callable[[dict[str, Any]], None]) -> StageModel:
        """Meta-train for so many more iterations and return the model, adapted to the bars before validation."""
        result = self._learner.train(iterations, on_iteration=report)
        self._history = result.history
        return self.model()

    def model(self) -> StageModel:
        """Return the meta-parameters, their step sizes, and the weights adapted just before validation."""
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
            metrics={"meta_training": self._history, "task_symbols": list(self.symbols)},
        )

    def step_sizes(self) -> Parameters:
        """Return the learned inner step sizes."""
        return {name: size.detach().exp() for name, size in self._learner.log_step_sizes.items()}

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

    def proof(self) -> AdaptationProof:
        """Adapt on the support of every meta-test task and see what it does to the query.

        The queries lie in the validation window and never overlap; supports lie just before them. The plain
        fine-tuning gets the same bars, rollouts and number of steps, with its step size tuned on tasks at the end of
        the training window.
        """
        steps = self.config.inner_loop_steps
        longest = max(steps, self._plan.training_params.maml.evaluation_steps)
        parent = self._parent.policy()
        best = self._tuned_step_size(parent, steps)
        adapted = np.empty((len(self._meta_test), longest + 1))
        before = np.empty(len(self._meta_test))
        tuned = np.empty(len(self._meta_test))
        for row, task in enumerate(self._meta_test):

            def note(step: int, params: Parameters, row: int = row, task: TradingTask = task) -> None:
                adapted[row, step] = task.query_growth(flat_weights(params))

            rng = generator(self._seed, "meta-test", row)
            adapt(self.policy, self.step_sizes(), task.support, longest, rng, self.config, on_step=note)
            before[row] = task.query_growth(self._parent.weights)
            rng = generator(self._seed, "meta-test", row)
            fine = fine_tune(parent, task.support, steps, best, rng, self.config)
            tuned[row] = task.query_growth(flat_weights(fine))
        return AdaptationProof(
            adapted=adapted, parent=before, fine_tuned=tuned, fine_tune_step_size=best, steps=steps
        )

    def across(self, held: SymbolData, base: StageModel) -> CrossSymbol:
        """Compare adaptation on a symbol that took no part in meta-training with that symbol's own stage-2 model.

        Both trade the same query stretches of the held-out symbol's validation window.
        """
        market = TaskMarket(
            symbol=held.symbol,
            market=scaled_market(held.bars, held.table, self._data.feature_names, self._data.scaler),
            rules=held.rules,
            first=held.window("train")[0],
            stop=held.window("train")[1],
        )
        own = replace(market, market=held.market)
        window = held.window("validation")
        adapted, specialised = [], []
        tasks = self._tasks(market, window, market.first)
        for row, (task, own_task) in enumerate(zip(tasks, self._tasks(own, window, own.first), strict=True)):
            rng = generator(self._seed, "held out", held.symbol, row)
            steps = self.config.inner_loop_steps
            params = adapt(self.policy, self.step_sizes(), task.support, steps, rng, self.config)
            adapted.append(task.query_growth(flat_weights(params)))
            specialised.append(own_task.query_growth(base.weights, base.policy_spec))
        return measured_across(held.symbol, adapted, specialised)

    def _tuned_step_size(self, parent: ActorCritic, steps: int) -> float:
        if not self._meta_validation:
            return FINE_TUNE_STEP_SIZES[len(FINE_TUNE_STEP_SIZES) // 2]
        growth = []
        tasks = self._meta_validation[:: -(-len(self._meta_validation) // MOST_TUNING_TASKS)]
        for size in FINE_TUNE_STEP_SIZES:
            each = []
            for row, task in enumerate(tasks):
                rng = generator(self._seed, "meta-validation", row)
                fine = fine_tune(parent, task.support, steps, size, rng, self.config)
                each.append(task.query_growth(flat_weights(fine)))
            growth.append(float(np.mean(each)))
        return FINE_TUNE_STEP_SIZES[int(np.argmax(growth))]


def _row_at(data: SymbolData, market: TaskMarket, others: Sequence[SymbolData], row: int) -> int:
    """Return the row of another symbol's arrays at the time of the target's `row`."""
    if market.symbol == data.symbol:
        return row
    other = next(each for each in others if each.symbol == market.symbol)
    return int(np.searchsorted(other.bars.close_time, data.bars.close_time[row], side="left"))
