"""The sequence of one symbol: train, judge, go on or fall back; then find the champion and have it judged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rl.backtest.engine import Replay
from rl.backtest.result import figures_of
from rl.checkpoints.checkpoint import Checkpoint, load_checkpoint, stage_file
from rl.common.errors import CheckpointError, ConfigError, DataError, UsageError
from rl.stages.adaptation_proof import Baselines, CrossSymbol
from rl.stages.evaluation import returns_by_session
from rl.stages.evidence import EvidenceLedger
from rl.stages.gates import ChampionDecision, Verdict, champion_keeps
from rl.stages.judgement import SymbolRun, judge_adaptation, judge_progress, look, validation_replay
from rl.stages.maml_stage import MetaTraining, maml_config
from rl.stages.mixture_control import mixture_control
from rl.stages.model_files import (
    checkpoint_of,
    differences,
    forget_unjudged,
    keep_dated_copy,
    model_from,
    verdict_of,
    write_model,
    write_unjudged,
)
from rl.stages.moe_stage import moe_training
from rl.stages.outcomes import Listener, StageOutcome, SymbolOutcome
from rl.stages.plan import STAGES, Plan
from rl.stages.policy_training import PolicyTraining, ppo_config
from rl.stages.ppo_stage import ppo_training
from rl.stages.promotion import judge_promotion
from rl.stages.specialisation import collapses_on, specialisation
from rl.stages.stage_model import STAGE_TITLES, StageModel
from rl.stages.symbol_data import SymbolData

EXTENSION_ROUNDS = 2
"""The extension is trained in two parts, with a gate after each, so that a pass half-way saves the rest."""


@dataclass(frozen=True, kw_only=True)
class _Contender:
    """A judged model that may be champion: one of this run's stages, or an earlier stage's from disk."""

    model: StageModel
    verdict: Verdict
    returns: np.ndarray
    """Session returns on validation. (S,)"""
    lineage: tuple[str, ...]
    """Fingerprints of the models it grew out of, oldest first."""
    adaptation: dict[str, Any] | None = None
    """How a stage-3 model is adapted before use."""

    @property
    def stage(self) -> str:
        return self.model.stage


def check_learners(plan: Plan, stages: Sequence[str]) -> None:
    """Refuse settings that a later stage's learner would refuse, before anything is trained.

    Raises:
        ConfigError: Every problem, with its block.
    """
    problems = [f"training_params.ppo.{line}" for line in ppo_config(plan).problems()]
    if "maml" in stages:
        problems += [f"training_params.maml.{line}" for line in maml_config(plan).problems()]
        for changes in _candidates(plan, "maml"):
            searched = maml_config(plan.with_maml(**changes)).problems()
            problems += [f"progression_rules.fallback_strategies.search: {line}" for line in searched]
    if problems:
        raise ConfigError("\n".join(problems))


def run_sequence(
    data: SymbolData,
    plan: Plan,
    *,
    others: Sequence[SymbolData] = (),
    held_out: SymbolData | None = None,
    stages: Sequence[str] = STAGES,
    models_dir: Path,
    ledger: EvidenceLedger,
    listener: Listener,
    run_name: str,
) -> SymbolOutcome:
    """Train one symbol through the stages asked for, and judge its champion on the promotion window.

    What becomes of that verdict is decided with those of the run's other symbols: `settle_promotions` writes the
    final model.

    Args:
        data: The symbol, split and scaled.
        plan: The plan with the symbol's own overrides applied.
        others: Other symbols whose training windows serve as meta-learning tasks.
        held_out: A symbol kept out of meta-training, to measure adaptation across symbols on.
        stages: Which stages; a later one starts from the earlier one's file if that is not trained now.
        models_dir: Where model files go.
        ledger: Where looks at validation and promotion windows are counted.
        listener: Who is told.
        run_name: Name of the run, stored in every file it writes.
    """
    started = time.perf_counter()
    run = SymbolRun(data, plan, others, held_out, models_dir, ledger, listener, run_name)
    done: list[StageOutcome] = []
    stopped, impossible = None, None
    parent, champion = _earlier_stages(run, stages)
    for position, stage in enumerate(stages):
        try:
            outcome, contender = _train_stage(run, stage, parent, champion)
        except DataError as error:
            # Too little history for meta-learning leaves the stages before it as good as they were.
            if not done:
                raise
            impossible = f"{STAGE_TITLES[stage]} is not possible: {error}"
            listener.said(data.symbol, impossible)
            break
        done.append(outcome)
        parent = contender
        champion = _champion_of(champion, contender, outcome.champion)
        if position + 1 == len(stages):
            break
        stopped = _reason_to_stop(plan, outcome)
        if stopped:
            break
        if not plan.progression_rules.auto_progression:
            listener.said(
                data.symbol,
                f"auto_progression is false: {STAGE_TITLES[stages[position + 1]]} was not started; "
                f"go on with --stages {stages[position + 1]}",
            )
            break
    promotion = judge_promotion(run, _checkpoint(run, champion)) if champion else None
    return SymbolOutcome(
        symbol=data.symbol,
        stages=tuple(done),
        champion=champion.stage if champion else None,
        champion_file=models_dir / stage_file(data.symbol, champion.stage) if champion else None,
        promotion=promotion,
        final_file=None,
        stopped=stopped,
        impossible=impossible,
        notes=data.notes,
        windows={
            name: (*data.dates(name), data.sessions_in(name))
            for name in ("train", "validation", "promotion", "test")
        },
        bars=len(data.bars),
        features=len(data.feature_names),
        seconds=time.perf_counter() - started,
    )


def _reason_to_stop(plan: Plan, outcome: StageOutcome) -> str | None:
    verdict = outcome.verdict
    if verdict.outcome == "FAIL":
        return f"gate after {STAGE_TITLES[outcome.stage]}: FAIL ({' '.join(verdict.reasons)})"
    if verdict.outcome == "INCONCLUSIVE" and plan.progression_rules.on_inconclusive == "stop":
        return f"gate after {STAGE_TITLES[outcome.stage]}: INCONCLUSIVE, and on_inconclusive is stop"
    return None


def _earlier_stages(run: SymbolRun, stages: Sequence[str]) -> tuple[_Contender | None, _Contender | None]:
    """Return what the first stage asked for starts from, and the champion among the stages before it.

    Raises:
        UsageError: The stage before has no model.
        CheckpointError: It was trained under other windows, data, features or actions.
    """
    first = stages[0]
    before = STAGES[: STAGES.index(first)]
    champion: _Contender | None = None
    parent: _Contender | None = None
    for stage in before:
        path = run.models_dir / stage_file(run.data.symbol, stage)
        is_parent = stage == before[-1]
        if not path.exists():
            if is_parent and (stage in run.plan.prerequisite_stages(first) or first == STAGES[-1]):
                raise UsageError(
                    f"--stages {first}: {run.data.symbol} has no model of {STAGE_TITLES[stage]} to start from ({path} "
                    f"does not exist).\n  Train it with: python run_training.py --symbols {run.data.symbol} --stages "
                    f"{stage} {first}"
                )
            continue
        checkpoint = load_checkpoint(path)
        differs = differences(checkpoint, run.data, run.plan)
        if differs and is_parent:
            raise CheckpointError(
                f"{path} was trained under other {', '.join(differs)} than this run's; going on from it would judge it "
                "on bars it has seen, or cannot work.\n"
                f"  Train it again: python run_training.py --symbols {run.data.symbol} --stages {stage} {first}"
            )
        if is_parent and not checkpoint.verdict:
            raise CheckpointError(
                f"{path} has not been judged; train that stage again: python run_training.py --symbols "
                f"{run.data.symbol} --stages {stage} {first}"
            )
        if differs or not checkpoint.verdict:
            continue
        contender = _contender_from(run, path, checkpoint)
        decision = _compared(run, contender, champion)
        champion = _champion_of(champion, contender, decision)
        if is_parent:
            parent = contender
    return parent, champion


def _contender_from(run: SymbolRun, path: Path, checkpoint: Checkpoint) -> _Contender:
    model = model_from(checkpoint)
    return _Contender(
        model=model,
        verdict=verdict_of(path, checkpoint),
        returns=returns_by_session(run.data, validation_replay(run, model), "validation"),
        lineage=tuple(checkpoint.lineage),
        adaptation=checkpoint.trading.get("adaptation"),
    )


def _champion_of(
    champion: _Contender | None, contender: _Contender, decision: ChampionDecision | None
) -> _Contender | None:
    """Return the champion after a contest; a model that failed its gate cannot be one."""
    if contender.verdict.outcome == "FAIL":
        return champion
    return contender if decision is None or decision.replaces else champion


def _compared(run: SymbolRun, later: _Contender, champion: _Contender | None) -> ChampionDecision | None:
    if champion is None:
        return None
    return champion_keeps(
        later.returns,
        champion.returns,
        run.plan.evidence.alpha,
        later_name=STAGE_TITLES[later.stage],
        earlier_name=STAGE_TITLES[champion.stage],
    )


def _train_stage(
    run: SymbolRun, stage: str, parent: _Contender | None, champion: _Contender | None
) -> tuple[StageOutcome, _Contender]:
    wall, cpu = time.perf_counter(), time.process_time()
    if stage == "maml" and parent is None:
        raise UsageError("stage 3 needs the model of a stage before it; add ppo or moe to --stages")
    kept, attempts = _train_with_fallbacks(run, stage, parent.model if parent else None)
    model = kept.model
    lineage = (*parent.lineage, parent.model.fingerprint()) if parent and kept.is_grown else ()
    replay = validation_replay(run, model)
    contender = _Contender(
        model=model,
        verdict=kept.verdict,
        returns=returns_by_session(run.data, replay, "validation"),
        lineage=lineage,
        adaptation=kept.adaptation,
    )
    decision = _compared(run, contender, champion)
    checkpoint = _checkpoint(run, contender)
    file = write_model(run.models_dir, checkpoint)
    if contender.verdict.passed and run.plan.model_management.keep_best_models:
        keep_dated_copy(run.models_dir, checkpoint, run.plan)
    outcome = StageOutcome(
        stage=stage,
        model=model,
        verdict=contender.verdict,
        attempts=tuple(attempts),
        file=file,
        wall_seconds=time.perf_counter() - wall,
        cpu_seconds=time.process_time() - cpu,
        validation=_validation_figures(run, model, contender.returns, replay),
        champion=decision,
    )
    run.listener.judged(run.data.symbol, stage, contender.verdict, outcome.wall_seconds, outcome.cpu_seconds)
    if decision is not None:
        run.listener.said(run.data.symbol, f"champion: {decision.text}")
    return _with_control(run, outcome, contender, parent), contender


def _with_control(
    run: SymbolRun, outcome: StageOutcome, contender: _Contender, parent: _Contender | None
) -> StageOutcome:
    """Return stage 2's outcome with what one network of as many parameters earns, which decides nothing."""
    if outcome.stage != "moe" or not run.plan.training_params.moe.dense_control:
        return outcome
    symbol, episodes = run.data.symbol, contender.model.episodes
    why = "one network of as many parameters, to compare with"
    run.listener.stage_started(symbol, "moe", episodes, "episodes", why)
    control = mixture_control(
        run.data,
        run.plan,
        contender.model,
        parent.model if parent else None,
        returns=contender.returns,
        parent_returns=parent.returns if parent else None,
        attempts=len(outcome.attempts),
        report=lambda figures: run.listener.progressed(
            symbol, "moe", {**figures, "episodes_this_call": figures["episodes"]}
        ),
    )
    run.listener.said(symbol, f"control: {control.verdict()}")
    return replace(outcome, control=control)


def _checkpoint(run: SymbolRun, contender: _Contender) -> Checkpoint:
    return checkpoint_of(
        run.data,
        run.plan,
        contender.model,
        contender.verdict,
        lineage=list(contender.lineage),
        run_name=run.run_name,
        adaptation=contender.adaptation,
    )


def _validation_figures(
    run: SymbolRun, model: StageModel, returns: np.ndarray, replay: Replay
) -> dict[str, Any]:
    figures = figures_of(replay, run.data.market.session, run.data.sessions_per_year).as_dict()
    figures["mean_session_return"] = float(np.mean(returns))
    if model.policy_spec["encoder"] == "mixture":
        scheme, seed = run.plan.environment.action_scheme, run.plan.seed
        found = specialisation(run.data, model, "validation", replay, scheme=scheme, seed=seed)
        figures["experts"] = found.as_dict()
    return figures


# --- attempts at a stage ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """A trained model and what its gate said."""

    model: StageModel
    verdict: Verdict
    worth: float
    """Return on validation; chooses among attempts with equal verdicts."""
    adaptation: dict[str, Any] | None = None
    """How a stage-3 model is adapted before use."""
    is_grown: bool = True
    """False where it started from random weights, not from the stage before."""
    collapses: tuple[str, ...] = ()
    """Why a mixture that grew out of stage 1 is to be trained once more with experts that start afresh."""


_Training = Callable[[int, str], _Attempt]
"""Trains for so many more episodes or iterations, tells why, and judges."""


def _train_with_fallbacks(
    run: SymbolRun, stage: str, parent: StageModel | None
) -> tuple[_Attempt, list[Verdict]]:
    """Train a stage; where its gate is not passed, extend, then search. Returns the best attempt and every verdict.

    A mixture whose experts have not parted is trained once more from random weights, whatever its gate said.
    """
    tried: list[_Attempt] = []
    for attempt in _attempts(run, stage, parent):
        # An extension that found nothing better comes back with the attempt it extends.
        if not any(attempt is each for each in tried):
            tried.append(attempt)
        if not attempt.collapses and not _wants_fallback(run.plan, tried[_best_attempt(tried)].verdict):
            break
    best = tried[_best_attempt(tried)]
    verdicts = [attempt.verdict for attempt in tried if attempt is not best]
    return best, [*verdicts, best.verdict]


def _attempts(run: SymbolRun, stage: str, parent: StageModel | None) -> Iterator[_Attempt]:
    """Yield the stage trained as planned, then longer, then anew with each listed combination of settings.

    Copies of a network that has fitted everything have nothing to divide: a mixture that has collapsed so comes second
    with experts that start afresh.

    Each is trained when it is asked for, so that a gate that was passed saves the rest.
    """
    fallback = run.plan.progression_rules.fallback_strategies
    if stage == "maml":
        assert parent is not None, "stage 3 always grows out of another"
        learner: _MetaLearner | _PolicyLearner = _MetaLearner(run, parent)
        planned, unit = run.plan.training_sequence.stage_3_maml.meta_iterations, "iterations"
        # The gate of stage 3 costs as much as many iterations, so it judges the whole extension at once.
        parts = [fallback.max_extension_iterations]
    else:
        learner = _PolicyLearner(run, stage, parent)
        sequence = run.plan.training_sequence
        planned, unit = {"ppo": sequence.stage_1_ppo, "moe": sequence.stage_2_moe}[stage].episodes, "episodes"
        half = -(-fallback.max_extension_episodes // EXTENSION_ROUNDS)
        parts = [half, fallback.max_extension_episodes - half]
    train = learner.begin(run.plan)
    first = train(planned, f"{planned} {unit}")
    yield first
    if first.collapses:
        yield learner.begin(run.plan.with_fresh_experts())(
            planned, f"{planned} {unit} with experts that start afresh"
        )
    for part in parts if fallback.extend_training else []:
        if part:
            yield train(part, f"extended by {part} {unit}")
    for changes in _candidates(run.plan, stage):
        named = ", ".join(f"{name} {value:g}" for name, value in changes.items())
        plan = run.plan.with_maml(**changes) if stage == "maml" else run.plan.with_ppo(**changes)
        yield learner.begin(plan)(planned, f"search: {named}")


def _candidates(plan: Plan, stage: str) -> tuple[dict[str, float], ...]:
    """Return the settings that are tried where a stage was neither passed as planned nor extended."""
    if not plan.progression_rules.fallback_strategies.hyperparameter_tuning:
        return ()
    return plan.search_candidates("maml" if stage == "maml" else "ppo")


def _wants_fallback(plan: Plan, verdict: Verdict) -> bool:
    if verdict.outcome == "PASS":
        return False
    return verdict.outcome == "FAIL" or plan.progression_rules.on_inconclusive == "stop"


def _best_attempt(tried: list[_Attempt]) -> int:
    """Return the attempt to keep: the best verdict, and among equal ones the highest validation return."""
    rank = {"PASS": 2, "INCONCLUSIVE": 1, "FAIL": 0}

    def worth(place: int) -> tuple[int, float]:
        return rank[tried[place].verdict.outcome], tried[place].worth

    return max(range(len(tried)), key=worth)


@dataclass
class _PolicyLearner:
    """Attempts at stage 1 or 2."""

    run: SymbolRun
    stage: str
    parent: StageModel | None

    def begin(self, plan: Plan) -> _Training:
        """Return a training that has not begun."""
        if self.stage == "ppo":
            training = ppo_training(self.run.data, plan, seed=plan.seed)
        else:
            training = moe_training(self.run.data, plan, self.parent, seed=plan.seed)
        is_grown = self.parent is not None and plan.model_management.transfer_learning
        return partial(self._attempt, training, is_grown)

    def _attempt(self, training: PolicyTraining, is_grown: bool, episodes: int, why: str) -> _Attempt:
        run, symbol, stage = self.run, self.run.data.symbol, self.stage
        run.listener.stage_started(symbol, stage, episodes, "episodes", why)
        model = training.train(
            episodes,
            lambda figures: run.listener.progressed(symbol, stage, figures),
            lambda best: _save_unjudged(run, best),
        )
        forget_unjudged(run.models_dir, symbol, stage)
        verdict = judge_progress(run, stage, model)
        return _Attempt(
            model=model,
            verdict=verdict,
            worth=model.metrics["best_score"],
            is_grown=is_grown,
            collapses=self._collapses(model) if is_grown else (),
        )

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


def _save_unjudged(run: SymbolRun, best: StageModel) -> None:
    if run.plan.monitoring.save_checkpoints:
        unjudged = checkpoint_of(run.data, run.plan, best, None, lineage=[], run_name=run.run_name)
        write_unjudged(run.models_dir, unjudged)


@dataclass
class _MetaLearner:
    """Attempts at stage 3."""

    run: SymbolRun
    parent: StageModel
    baselines: Baselines | None = None
    """Measured for the first attempt; meta-training changes nothing in them."""
    judged: dict[str, _Attempt] = field(default_factory=dict)
    """Attempts so far by fingerprint: the same weights are not looked at again."""

    def begin(self, plan: Plan) -> _Training:
        """Return a training that has not begun."""
        training = MetaTraining(self.run.data, plan, self.parent, self.run.others, seed=plan.seed)
        return partial(self._attempt, training)

    def _attempt(self, training: MetaTraining, iterations: int, why: str) -> _Attempt:
        run, symbol = self.run, self.run.data.symbol
        on = f"{why} on {', '.join(training.symbols)}"
        run.listener.stage_started(symbol, "maml", iterations, "iterations", on)
        model = training.train(iterations, lambda figures: run.listener.progressed(symbol, "maml", figures))
        before = self.judged.get(model.fingerprint())
        if before is not None:
            run.listener.said(symbol, f"{why}: no start was found that adapts better; its verdict stands")
            return before
        counted = look(run, "validation", "adaptation", model)
        self.baselines = self.baselines or training.baselines()
        proof = training.proof(self.baselines)
        verdict = judge_adaptation(run, counted, model, proof, _across_symbols(run, training))
        adapted = proof.after(proof.steps)
        attempt = _Attempt(
            model=replace(model, metrics={**model.metrics, "adaptation": verdict.metrics}),
            verdict=verdict,
            worth=float(adapted.mean()) if len(adapted) else -math.inf,
            adaptation=training.recipe().to_dict(),
        )
        self.judged[model.fingerprint()] = attempt
        return attempt


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
