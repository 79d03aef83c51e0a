"""The sequence of one symbol: train, judge, go on or fall back; then find the champion and have it judged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rl.backtest.engine import Replay
from rl.backtest.result import figures_of
from rl.checkpoints.checkpoint import Checkpoint, load_checkpoint, stage_file
from rl.common.errors import CheckpointError, ConfigError, DataError, UsageError
from rl.stages.adaptation_proof import CrossSymbol
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
    write_model,
    write_unjudged,
)
from rl.stages.moe_stage import moe_training
from rl.stages.outcomes import Listener, StageOutcome, SymbolOutcome
from rl.stages.plan import STAGES, Plan
from rl.stages.policy_training import PolicyTraining, ppo_config
from rl.stages.ppo_stage import ppo_training
from rl.stages.promotion import judge_promotion
from rl.stages.specialisation import specialisation
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
        contender = _contender_from(run, checkpoint)
        decision = _compared(run, contender, champion)
        champion = _champion_of(champion, contender, decision)
        if is_parent:
            parent = contender
    return parent, champion


def _contender_from(run: SymbolRun, checkpoint: Checkpoint) -> _Contender:
    model = model_from(checkpoint)
    return _Contender(
        model=model,
        verdict=Verdict.from_dict(checkpoint.verdict),
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
    lineage = (*parent.lineage, parent.model.fingerprint()) if parent else ()
    adaptation = None
    if stage == "maml":
        if parent is None:
            raise UsageError("stage 3 needs the model of a stage before it; add ppo or moe to --stages")
        model, verdict, adaptation = _meta_train(run, parent.model)
        attempts = [verdict]
    else:
        model, attempts = _train_with_fallbacks(run, stage, parent.model if parent else None)
    replay = validation_replay(run, model)
    contender = _Contender(
        model=model,
        verdict=attempts[-1],
        returns=returns_by_session(run.data, replay, "validation"),
        lineage=lineage,
        adaptation=adaptation,
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


# --- stages 1 and 2 ---------------------------------------------------------------------------------------------------


def _train_with_fallbacks(
    run: SymbolRun, stage: str, parent: StageModel | None
) -> tuple[StageModel, list[Verdict]]:
    """Train a stage; where its gate is not passed, extend, then search. Returns the model and every verdict."""
    sequence = run.plan.training_sequence
    episodes = {"ppo": sequence.stage_1_ppo, "moe": sequence.stage_2_moe}[stage].episodes
    fallback = run.plan.progression_rules.fallback_strategies
    training = _training_of(run, stage, run.plan, parent)
    tried: list[tuple[StageModel, Verdict]] = [
        _attempt(run, stage, training, episodes, f"{episodes} episodes")
    ]
    if fallback.extend_training and _wants_fallback(run.plan, tried[-1][1]):
        first = -(-fallback.max_extension_episodes // EXTENSION_ROUNDS)
        for part in (first, fallback.max_extension_episodes - first):
            if not part:
                break
            tried.append(_attempt(run, stage, training, part, f"extended by {part} episodes"))
            if not _wants_fallback(run.plan, tried[-1][1]):
                break
    if fallback.hyperparameter_tuning and _wants_fallback(run.plan, tried[-1][1]):
        for changes in run.plan.search_candidates():
            named = ", ".join(f"{name} {value:g}" for name, value in changes.items())
            candidate = _training_of(run, stage, run.plan.with_ppo(**changes), parent)
            tried.append(_attempt(run, stage, candidate, episodes, f"search: {named}"))
            if not _wants_fallback(run.plan, tried[-1][1]):
                break
    best = _best_attempt(tried)
    verdicts = [verdict for _, verdict in tried if verdict is not tried[best][1]]
    return tried[best][0], [*verdicts, tried[best][1]]


def _wants_fallback(plan: Plan, verdict: Verdict) -> bool:
    if verdict.outcome == "PASS":
        return False
    return verdict.outcome == "FAIL" or plan.progression_rules.on_inconclusive == "stop"


def _best_attempt(tried: list[tuple[StageModel, Verdict]]) -> int:
    """Return the attempt to keep: the best verdict, and among equal ones the highest validation return."""
    rank = {"PASS": 2, "INCONCLUSIVE": 1, "FAIL": 0}

    def worth(place: int) -> tuple[int, float]:
        model, verdict = tried[place]
        return rank[verdict.outcome], model.metrics["best_score"]

    return max(range(len(tried)), key=worth)


def _training_of(run: SymbolRun, stage: str, plan: Plan, parent: StageModel | None) -> PolicyTraining:
    if stage == "ppo":
        return ppo_training(run.data, plan, seed=plan.seed)
    return moe_training(run.data, plan, parent, seed=plan.seed)


def _attempt(
    run: SymbolRun, stage: str, training: PolicyTraining, episodes: int, why: str
) -> tuple[StageModel, Verdict]:
    symbol = run.data.symbol
    run.listener.stage_started(symbol, stage, episodes, "episodes", why)
    model = training.train(
        episodes,
        lambda figures: run.listener.progressed(symbol, stage, figures),
        lambda best: _save_unjudged(run, best),
    )
    forget_unjudged(run.models_dir, symbol, stage)
    return model, judge_progress(run, stage, model)


def _save_unjudged(run: SymbolRun, best: StageModel) -> None:
    if run.plan.monitoring.save_checkpoints:
        unjudged = checkpoint_of(run.data, run.plan, best, None, lineage=[], run_name=run.run_name)
        write_unjudged(run.models_dir, unjudged)


# --- stage 3 ----------------------------------------------------------------------------------------------------------


def _meta_train(run: SymbolRun, parent: StageModel) -> tuple[StageModel, Verdict, dict[str, Any]]:
    """Return the model, its verdict and how it is adapted before use."""
    iterations = run.plan.training_sequence.stage_3_maml.meta_iterations
    symbol = run.data.symbol
    training = MetaTraining(run.data, run.plan, parent, run.others, seed=run.plan.seed)
    run.listener.stage_started(
        symbol, "maml", iterations, "iterations", f"{iterations} iterations on {', '.join(training.symbols)}"
    )
    model = training.train(iterations, lambda figures: run.listener.progressed(symbol, "maml", figures))
    counted = look(run, "validation", "adaptation", model)
    proof = training.proof()
    verdict = judge_adaptation(run, counted, model, proof, _across_symbols(run, training))
    metrics = {**model.metrics, "adaptation": verdict.metrics}
    return replace(model, metrics=metrics), verdict, training.recipe().to_dict()


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
