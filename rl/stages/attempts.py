"""Attempts at one stage: as planned, then longer, then anew with other settings, each judged, none made twice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from rl.checkpoints.checkpoint import load_checkpoint, stage_file
from rl.common.errors import CheckpointError
from rl.stages.adaptation_proof import Baselines, CrossSymbol
from rl.stages.gates import Verdict
from rl.stages.judgement import SymbolRun, judge_adaptation, judge_progress, look
from rl.stages.maml_stage import MetaTraining
from rl.stages.model_files import checkpoint_of, differences, forget_unjudged, model_from, write_unjudged
from rl.stages.moe_stage import moe_training
from rl.stages.plan import Plan
from rl.stages.policy_training import PolicyTraining
from rl.stages.ppo_stage import ppo_training
from rl.stages.run_state_records import baselines_of_plain, model_of_plain, plain_baselines, plain_model
from rl.stages.specialisation import collapses_on
from rl.stages.stage_model import StageModel

EXTENSION_ROUNDS = 2
"""The extension is trained in two parts, with a gate after each, so that a pass half-way saves the rest."""

PLANNED = "planned"
"""The training of the first attempt, which extensions go on with."""

BASELINES = "baselines-maml"
"""Journal entry of what stage 3 is compared with."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A trained model and what its gate said."""

    model: StageModel
    verdict: Verdict
    worth: float
    """Return on validation; chooses among attempts with equal verdicts."""
    judged_at: datetime
    """UTC; names dated copies of the model, so that a resumed run writes no second one."""
    adaptation: dict[str, Any] | None = None
    """How a stage-3 model is adapted before use."""
    is_grown: bool = True
    """False where it started from random weights, not from the stage before."""
    collapses: tuple[str, ...] = ()
    """Why the planned mixture, which grew out of stage 1, is to be trained once more with experts that start afresh."""

    def to_plain(self) -> dict[str, Any]:
        """Return the attempt for the journal."""
        return {
            "model": plain_model(self.model),
            "verdict": self.verdict.to_dict(),
            "worth": self.worth,
            "judged_at": self.judged_at.isoformat(),
            "adaptation": self.adaptation,
            "is_grown": self.is_grown,
            "collapses": list(self.collapses),
        }

    @classmethod
    def of_plain(cls, plain: dict[str, Any]) -> Attempt:
        """Return the attempt `to_plain` wrote down."""
        return cls(
            model=model_of_plain(plain["model"]),
            verdict=Verdict.from_dict(plain["verdict"]),
            worth=float(plain["worth"]),
            judged_at=datetime.fromisoformat(plain["judged_at"]),
            adaptation=plain["adaptation"],
            is_grown=plain["is_grown"],
            collapses=tuple(plain["collapses"]),
        )


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One attempt as it is to be made."""

    number: int
    """From 0."""
    plan: Plan
    amount: int
    """Episodes, or iterations in stage 3."""
    why: str
    extends: int | None = None
    """The attempt whose training it goes on with."""
    is_second_start: bool = False
    """Only made where the first attempt has collapsed."""

    @property
    def training(self) -> str:
        """Which training it belongs to; the planned one and its extensions are one."""
        return PLANNED if self.number == 0 or self.extends is not None else str(self.number)


def train_with_fallbacks(
    run: SymbolRun, stage: str, parent: StageModel | None
) -> tuple[Attempt, list[Verdict]]:
    """Train a stage; where its gate is not passed, extend, then search. Returns the best attempt and every verdict.

    A mixture whose experts have not parted is trained once more from random weights, whatever its gate said.
    """
    tried: list[Attempt] = []
    for attempt in _attempts(run, stage, parent):
        # An extension that found nothing better comes back with the attempt it extends.
        if not any(attempt is each for each in tried):
            tried.append(attempt)
        if not attempt.collapses and not _wants_fallback(run.plan, _best_attempt(tried).verdict):
            break
    best = _best_attempt(tried)
    verdicts = [attempt.verdict for attempt in tried if attempt is not best]
    return best, [*verdicts, best.verdict]


def _attempts(run: SymbolRun, stage: str, parent: StageModel | None) -> Iterator[Attempt]:
    """Yield the stage trained as planned, then longer, then anew with each listed combination of settings.

    Copies of a network that has fitted everything have nothing to divide: a mixture that has collapsed so comes second
    with experts that start afresh.

    Each is trained when it is asked for, so that a gate that was passed saves the rest. What the journal holds is
    not done again.
    """
    if stage == "maml":
        assert parent is not None, "stage 3 always grows out of another"
        learner: _MetaLearner | _PolicyLearner = _MetaLearner(run, parent=parent)
    else:
        learner = _PolicyLearner(run, stage=stage, parent=parent)
    trainings: dict[str, PolicyTraining | MetaTraining] = {}
    before: tuple[_Step, Attempt] | None = None
    for step in _steps(run.plan, stage):
        if step.is_second_start and not learner.judged[0].collapses:
            continue
        kept = run.journal.attempt(stage, step.number)
        if kept is not None:
            yield learner.recalled(step.number, kept)
            continue
        is_trained = False
        if before is not None:
            _tell(run, *before)
        if step.training not in trainings:
            trainings[step.training] = learner.begin(step.plan)
            is_trained = _brought_up_to_date(run, stage, step, trainings[step.training])
        attempt = learner.attempt(trainings[step.training], step, is_trained=is_trained)  # ty: ignore[invalid-argument-type]
        first = next(number for number, each in learner.judged.items() if each is attempt)
        run.journal.keep_attempt(
            stage, step.number, {"same_as": first} if first != step.number else attempt.to_plain()
        )
        if step.training != PLANNED:
            # Nothing goes on with it, and a meta-training holds many tasks.
            del trainings[step.training]
        before = (step, attempt)
        yield attempt


def _tell(run: SymbolRun, step: _Step, attempt: Attempt) -> None:
    """Say what an attempt came to that is not the last one; the last one's verdict is shown in full."""
    verdict = attempt.verdict
    reasons = " ".join(verdict.readable_reasons())
    run.listener.said(
        run.data.symbol,
        # Without its number: steps that were not needed have one, too.
        f"{attempt.model.stage} attempt ({step.why}): {verdict.outcome}, look {verdict.attempt} at the window"
        f"{'; ' if reasons else ''}{reasons}",
    )


def _steps(plan: Plan, stage: str) -> Iterator[_Step]:
    """Yield every attempt the plan allows, in order."""
    fallback = plan.progression_rules.fallback_strategies
    sequence = plan.training_sequence
    if stage == "maml":
        planned, unit = sequence.stage_3_maml.meta_iterations, "iterations"
        # The gate of stage 3 costs as much as many iterations, so it judges the whole extension at once.
        parts = [fallback.max_extension_iterations]
    else:
        planned, unit = {"ppo": sequence.stage_1_ppo, "moe": sequence.stage_2_moe}[stage].episodes, "episodes"
        first = -(-fallback.max_extension_episodes // EXTENSION_ROUNDS)
        parts = [first, fallback.max_extension_episodes - first]
    yield _Step(number=0, plan=plan, amount=planned, why=f"{planned} {unit}")
    if stage == "moe":
        why = f"{planned} {unit} with experts that start afresh"
        yield _Step(number=1, plan=plan.with_fresh_experts(), amount=planned, why=why, is_second_start=True)
    before, number = 0, 1 if stage == "moe" else 0
    for part in parts if fallback.extend_training else []:
        if part:
            number += 1
            why = f"extended by {part} {unit}"
            yield _Step(number=number, plan=plan, amount=part, why=why, extends=before)
            before = number
    for changes in search_candidates(plan, stage):
        number += 1
        named = ", ".join(f"{name} {value:g}" for name, value in changes.items())
        changed = plan.with_maml(**changes) if stage == "maml" else plan.with_ppo(**changes)
        yield _Step(number=number, plan=changed, amount=planned, why=f"search: {named}")


def _brought_up_to_date(
    run: SymbolRun, stage: str, step: _Step, training: PolicyTraining | MetaTraining
) -> bool:
    """Take a new training where the journal left it; return True where this attempt only has to be judged."""
    progress = run.journal.progress(_training_of(stage, step))
    if progress is None:
        assert step.extends is None, "a training is kept until its stage is finished"
        return False
    assert progress.attempt in (step.number, step.extends), (
        f"{progress.attempt} is not {step.number}'s training"
    )
    training.load_state(progress.state)
    return progress.attempt == step.number and progress.is_trained


def _training_of(stage: str, step: _Step) -> str:
    """Return what the journal calls the training of an attempt."""
    return f"{stage}-{step.training}"


def search_candidates(plan: Plan, stage: str) -> tuple[dict[str, float], ...]:
    """Return the settings that are tried where a stage was neither passed as planned nor extended."""
    if not plan.progression_rules.fallback_strategies.hyperparameter_tuning:
        return ()
    return plan.search_candidates("maml" if stage == "maml" else "ppo")


def _wants_fallback(plan: Plan, verdict: Verdict) -> bool:
    if verdict.outcome == "PASS":
        return False
    return verdict.outcome == "FAIL" or plan.progression_rules.on_inconclusive == "stop"


def _best_attempt(tried: list[Attempt]) -> Attempt:
    """Return the attempt to keep: the best verdict, and among equal ones the highest validation return."""
    rank = {"PASS": 2, "INCONCLUSIVE": 1, "FAIL": 0}

    return max(tried, key=lambda attempt: (rank[attempt.verdict.outcome], attempt.worth))


@dataclass
class _Learner:
    """Attempts at a stage so far."""

    run: SymbolRun
    judged: dict[int, Attempt] = field(default_factory=dict)
    """By number; an attempt that came to the model of another is that other one."""

    def recalled(self, number: int, kept: dict[str, Any]) -> Attempt:
        """Return an attempt made before the run was interrupted."""
        same_as = kept.get("same_as")
        self.judged[number] = Attempt.of_plain(kept) if same_as is None else self.judged[same_as]
        return self.judged[number]


@dataclass(kw_only=True)
class _PolicyLearner(_Learner):
    """Attempts at stage 1 or 2."""

    stage: str
    parent: StageModel | None

    def begin(self, plan: Plan) -> PolicyTraining:
        """Return a training that has not begun."""
        if self.stage == "ppo":
            return ppo_training(self.run.data, plan, seed=plan.seed)
        return moe_training(self.run.data, plan, self.parent, seed=plan.seed)

    def attempt(self, training: PolicyTraining, step: _Step, *, is_trained: bool) -> Attempt:
        """Train, unless that is done, and judge."""
        model = training.model() if is_trained else self._trained(training, step)
        run = self.run
        forget_unjudged(run.models_dir, run.data.symbol, self.stage)
        verdict = judge_progress(run, self.stage, model)
        is_grown = self.parent is not None and step.plan.model_management.transfer_learning
        self.judged[step.number] = Attempt(
            model=model,
            verdict=verdict,
            worth=model.metrics["best_score"],
            judged_at=datetime.now(UTC),
            is_grown=is_grown,
            collapses=self._collapses(model) if is_grown and step.number == 0 else (),
        )
        return self.judged[step.number]

    def _collapses(self, model: StageModel) -> tuple[str, ...]:
        """Return why a mixture has to be trained with experts that start afresh; empty where it has not."""
        run = self.run
        is_mixture = model.policy_spec["encoder"] == "mixture"
        if not is_mixture or not run.plan.training_params.moe.fresh_start_if_collapsed:
            return ()
        found = tuple(collapses_on(run.data, model, "validation"))
        if found:
            run.listener.said(
                run.data.symbol,
                f"the experts have not parted since they grew out of stage 1 ({'; '.join(found)}); trained once more "
                "with experts that start afresh",
            )
        return found

    def _trained(self, training: PolicyTraining, step: _Step) -> StageModel:
        run, symbol, stage = self.run, self.run.data.symbol, self.stage
        kept_as = _training_of(stage, step)
        run.listener.stage_started(symbol, stage, step.amount, "episodes", step.why, step.number + 1)
        model = training.train(
            step.amount,
            lambda figures: run.listener.progressed(symbol, stage, figures),
            lambda best: _save_unjudged(run, best),
            lambda state: run.journal.keep_progress(kept_as, step.number, state, is_trained=False),
        )
        run.journal.keep_progress(kept_as, step.number, training.state(), is_trained=True)
        return model


def _save_unjudged(run: SymbolRun, best: StageModel) -> None:
    if run.plan.monitoring.save_checkpoints:
        unjudged = checkpoint_of(run.data, run.plan, best, None, lineage=[], run_name=run.run_name)
        write_unjudged(run.models_dir, unjudged)


@dataclass(kw_only=True)
class _MetaLearner(_Learner):
    """Attempts at stage 3."""

    parent: StageModel
    baselines: Baselines | None = None
    """Measured for the first attempt; meta-training changes nothing in them."""

    def begin(self, plan: Plan) -> MetaTraining:
        """Return a training that has not begun."""
        return MetaTraining(self.run.data, plan, self.parent, self.run.others, seed=plan.seed)

    def attempt(self, training: MetaTraining, step: _Step, *, is_trained: bool) -> Attempt:
        """Train, unless that is done, and judge; the same weights are not looked at again."""
        run = self.run
        model = training.model() if is_trained else self._trained(training, step)
        weights = model.fingerprint()
        for before in self.judged.values():
            if before.model.fingerprint() == weights:
                run.listener.said(
                    run.data.symbol,
                    f"{step.why}: no start was found that adapts better; its verdict stands",
                )
                self.judged[step.number] = before
                return before
        counted = look(run, "validation", "adaptation", model)
        proof = training.proof(self._baselines(training))
        verdict = judge_adaptation(run, counted, model, proof, _across_symbols(run, training))
        adapted = proof.after(proof.steps)
        self.judged[step.number] = Attempt(
            model=replace(model, metrics={**model.metrics, "adaptation": verdict.metrics}),
            verdict=verdict,
            worth=float(adapted.mean()) if len(adapted) else -math.inf,
            judged_at=datetime.now(UTC),
            adaptation=training.recipe().to_dict(),
        )
        return self.judged[step.number]

    def _trained(self, training: MetaTraining, step: _Step) -> StageModel:
        run, symbol = self.run, self.run.data.symbol
        on, kept_as = f"{step.why} on {', '.join(training.symbols)}", _training_of("maml", step)
        run.listener.stage_started(symbol, "maml", step.amount, "iterations", on, step.number + 1)
        model = training.train(
            step.amount,
            lambda figures: run.listener.progressed(symbol, "maml", figures),
            lambda state: run.journal.keep_progress(kept_as, step.number, state, is_trained=False),
        )
        run.journal.keep_progress(kept_as, step.number, training.state(), is_trained=True)
        return model

    def _baselines(self, training: MetaTraining) -> Baselines:
        if self.baselines is None and (kept := self.run.journal.read(BASELINES)) is not None:
            self.baselines = baselines_of_plain(kept)
        if self.baselines is None:
            self.baselines = training.baselines()
            self.run.journal.save({BASELINES: plain_baselines(self.baselines)})
        return self.baselines


def _across_symbols(run: SymbolRun, training: MetaTraining) -> CrossSymbol:
    if run.held_out is None:
        return CrossSymbol(
            ratio=None,
            symbol=None,
            note="needs three symbols with the same features in the run, one of them held out of meta-training",
        )
    held = run.held_out
    path = run.models_dir / stage_file(held.symbol, "moe")
    note = f"{held.symbol} was held out, but has no stage-2 model of this run"
    if not path.exists():
        return CrossSymbol(ratio=None, symbol=held.symbol, note=note)
    try:
        checkpoint = load_checkpoint(path)
    except CheckpointError as error:
        return CrossSymbol(ratio=None, symbol=held.symbol, note=f"its stage-2 model cannot be read: {error}")
    if checkpoint.trading.get("run") != run.run_name or differences(checkpoint, held, run.plan):
        return CrossSymbol(ratio=None, symbol=held.symbol, note=note)
    return training.across(held, model_from(checkpoint))
