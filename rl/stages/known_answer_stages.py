"""The three stages, as a training run trains them, on a market whose best policy is known.

Everything between the draw and the trades is the product's own: features, windows, scaler, rules, the stage's training
with its choice of weights on the validation window, the checkpoint, and `Predictor`, which adapts a stage-3 model
before it trades. Only the files are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rl.backtest.engine import replay_policy
from rl.checkpoints.adaptation import AdaptationRecipe
from rl.checkpoints.predictor import META_WEIGHTS, Predictor
from rl.common.errors import DataError
from rl.common.seeding import generator
from rl.policies.actor_critic import build_policy
from rl.policies.forward import PackedPolicy, pack_weights
from rl.stages.evaluation import packed, replay_on
from rl.stages.known_answer import SEEN_SESSIONS, UNSEEN_SESSIONS, KnownMarket, Learned
from rl.stages.maml_stage import MetaTraining
from rl.stages.model_files import checkpoint_of
from rl.stages.moe_stage import equal_parameter_training, moe_training
from rl.stages.plan import Plan
from rl.stages.policy_training import PolicyTraining
from rl.stages.ppo_stage import network_spec, ppo_training
from rl.stages.specialisation import specialisation
from rl.stages.stage_model import StageModel, model_of
from rl.stages.symbol_data import SymbolData, prepared
from rl.stages.task_family import FamilyResult, adapt_to_family


def known_symbol(
    known: KnownMarket,
    plan: Plan,
    *,
    seed: int,
    sessions: int = SEEN_SESSIONS,
    shuffle_features: bool = False,
) -> SymbolData:
    """Return the draw to learn from, as `prepare` would make it from its raw file.

    Args:
        known: The market.
        plan: The plan.
        seed: Decides the draw.
        sessions: How long it is.
        shuffle_features: Put the rows of features into random order within each window. Nothing can be learned from
            them then: the bars are the same, but no row belongs to its bar.
    """
    bars, table = known.features(known.seen(seed, sessions))
    name = f"{known.kind} {dict(known.params)} of seed {seed}, {sessions} sessions"
    data = prepared(bars, table, plan, known.instrument(), data_hash=f"drawn: {name}")
    return _with_features_shuffled(data, seed) if shuffle_features else data


def _with_features_shuffled(data: SymbolData, seed: int) -> SymbolData:
    order = np.arange(len(data.market))
    for window in data.splits.windows:
        # Within a window, so that training is not handed rows of validation.
        start, stop = data.window(window.name)
        rng = generator(seed, "known answer", "shuffled features", window.name)
        order[start:stop] = start + rng.permutation(stop - start)
    return replace(data, market=replace(data.market, features=data.market.features[order]))


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A stage's model and, of stage 3, how it is adapted before use."""

    model: StageModel
    recipe: AdaptationRecipe | None = None


class KnownAnswer:
    """One trial: a symbol to learn from, and a draw of the same market to be judged on.

    Args:
        known: The market.
        plan: The plan the stages are trained under; its seed is not used.
        seed: Decides both draws and every training.
        shuffle_features: As in `known_symbol`.
        sessions: Length of the draw to learn from.
        unseen_sessions: Length of the draw to be judged on.
    """

    def __init__(
        self,
        known: KnownMarket,
        plan: Plan,
        *,
        seed: int,
        shuffle_features: bool = False,
        sessions: int = SEEN_SESSIONS,
        unseen_sessions: int = UNSEEN_SESSIONS,
    ) -> None:
        self.data = known_symbol(known, plan, seed=seed, sessions=sessions, shuffle_features=shuffle_features)
        self.unseen = known.unseen(seed, unseen_sessions)
        self._plan = plan
        self._seed = seed

    def ppo(self, steps: int) -> Trained:
        """Train stage 1 for so many steps."""
        return self._trained(ppo_training(self.data, self._plan, seed=self._seed), steps)

    def moe(self, parent: StageModel | None, steps: int) -> Trained:
        """Train stage 2 for so many steps, grown out of a model of stage 1."""
        return self._trained(moe_training(self.data, self._plan, parent, seed=self._seed), steps)

    def dense(self, parent: StageModel | None, steps: int) -> Trained:
        """Train one network of as many parameters as the mixture's, from the same start, for so many steps."""
        training = equal_parameter_training(self.data, self._plan, parent, seed=self._seed)
        return self._trained(training, steps)

    def maml(self, parent: StageModel, iterations: int) -> Trained:
        """Train stage 3 for so many iterations, grown out of a model of stage 2."""
        plan = _with_meta_iterations(self._plan, iterations)
        training = MetaTraining(self.data, plan, parent, (), seed=self._seed)
        return Trained(model=training.train(iterations, _nobody), recipe=training.recipe())

    def random_start(self) -> Trained:
        """Return an untrained network of stage 1 as stage 3 takes it, which adapts by steps of equal size."""
        policy = build_policy(network_spec(self.data, self._plan), self._seed)
        start = model_of("ppo", policy, episodes=0, metrics={})
        training = MetaTraining(self.data, self._plan, start, (), seed=self._seed)
        return Trained(model=training.model(), recipe=training.recipe())

    def _trained(self, training: PolicyTraining, steps: int) -> Trained:
        episodes = max(1, round(steps / self._plan.environment.episode_bars))
        return Trained(model=training.train(episodes, _nobody))

    def learned(self, trained: Trained) -> Learned:
        """Let a model trade the unseen draw as the backtest would.

        A model of stage 3 is adapted on the first bars of the draw, as many as its recipe says, and trades the others.

        Raises:
            DataError: The unseen draw is too short to adapt on.
        """
        predictor = self._predictor(trained)
        market = predictor.market(self.unseen.bars, self.unseen.table)
        start = self.unseen.first + (trained.recipe.support_bars if trained.recipe else 0)
        policy = predictor.policy_for(
            market, self.data.rules, span_start=start, capital=self._plan.environment.initial_capital
        )
        if trained.recipe and policy.support is None:
            raise DataError(f"{self.data.symbol}: {policy.note}; draw more unseen sessions")
        return self._traded(predictor, policy.packed, start)

    def unadapted(self, trained: Trained) -> Learned:
        """Let the start that stage 3 found trade the same bars as in `learned`, without adapting to any."""
        assert trained.recipe is not None, "only a model of stage 3 adapts"
        meta = trained.model.extra[META_WEIGHTS].numpy()
        start = self.unseen.first + trained.recipe.support_bars
        return self._traded(self._predictor(trained), pack_weights(trained.model.policy_spec, meta), start)

    def experts(self, trained: Trained) -> dict[str, Any]:
        """Return what a mixture's experts do on the validation window of the draw it learned from."""
        environment = self._plan.environment
        replay = replay_on(
            self.data,
            packed(trained.model),
            "validation",
            scheme=environment.action_scheme,
            capital=environment.initial_capital,
        )
        found = specialisation(
            self.data,
            trained.model,
            "validation",
            replay,
            scheme=environment.action_scheme,
            seed=self._seed,
        )
        return found.as_dict()

    def _predictor(self, trained: Trained) -> Predictor:
        return Predictor(
            checkpoint_of(
                self.data,
                self._plan,
                trained.model,
                None,
                lineage=[],
                run_name="known answer",
                adaptation=trained.recipe.to_dict() if trained.recipe else None,
            )
        )

    def _traded(self, predictor: Predictor, policy: PackedPolicy, start: int) -> Learned:
        market = predictor.market(self.unseen.bars, self.unseen.table)
        environment = self._plan.environment
        replay = replay_policy(
            market,
            (start, len(market)),
            self.data.rules,
            policy,
            scheme=environment.action_scheme,
            capital=environment.initial_capital,
        )
        return self.unseen.compared(replay)


def _nobody(_figures: dict[str, Any]) -> None:
    """Progress is told by the cell."""


def _with_meta_iterations(plan: Plan, iterations: int) -> Plan:
    """Return the plan with another length of stage 3, which its share of first-order iterations is measured by."""
    sequence = plan.training_sequence
    stage = sequence.stage_3_maml.model_copy(update={"meta_iterations": iterations})
    return plan.model_copy(update={"training_sequence": sequence.model_copy(update={"stage_3_maml": stage})})


def adapted_to_family(seed: int, plan: Plan, *, support_bars: int, iterations: int) -> FamilyResult:
    """Meta-train on a family of markets for so many iterations, and judge adaptation on others of it."""
    return adapt_to_family(seed, _with_meta_iterations(plan, iterations), support_bars)
