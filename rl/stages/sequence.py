"""The sequence of one symbol: train, judge, go on or fall back; then find the champion and have it judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rl.backtest.engine import Replay
from rl.backtest.result import figures_of
from rl.checkpoints.checkpoint import Checkpoint, load_checkpoint, stage_file
from rl.common.atomic_files import sha256_of
from rl.common.errors import CheckpointError, ConfigError, DataError, UsageError
from rl.common.interpreter import command_line
from rl.stages.attempts import search_candidates, train_with_fallbacks
from rl.stages.evaluation import returns_by_session
from rl.stages.evidence import EvidenceLedger
from rl.stages.gates import ChampionDecision, Verdict, champion_keeps
from rl.stages.judgement import SymbolRun, validation_replay
from rl.stages.maml_stage import maml_config
from rl.stages.mixture_control import mixture_control
from rl.stages.model_files import (
    checkpoint_of,
    differences,
    keep_dated_copy,
    model_from,
    verdict_of,
    write_model,
)
from rl.stages.outcomes import Listener, StageOutcome, SymbolOutcome
from rl.stages.plan import STAGES, Plan
from rl.stages.policy_training import ppo_config
from rl.stages.promotion import judge_promotion
from rl.stages.run_state import SEQUENCE, SymbolJournal
from rl.stages.run_state_records import (
    control_of_plain,
    decision_of_plain,
    model_of_plain,
    plain_control,
    plain_decision,
    plain_model,
)
from rl.stages.specialisation import specialisation
from rl.stages.stage_model import STAGE_TITLES, StageModel
from rl.stages.symbol_data import SymbolData


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

    def to_plain(self) -> dict[str, Any]:
        """Return it for the journal."""
        return {
            "model": plain_model(self.model),
            "verdict": self.verdict.to_dict(),
            "returns": self.returns,
            "lineage": list(self.lineage),
            "adaptation": self.adaptation,
        }

    @classmethod
    def of_plain(cls, plain: dict[str, Any]) -> _Contender:
        """Return what `to_plain` wrote down."""
        return cls(
            model=model_of_plain(plain["model"]),
            verdict=Verdict.from_dict(plain["verdict"]),
            returns=np.asarray(plain["returns"]).copy(),
            lineage=tuple(plain["lineage"]),
            adaptation=plain["adaptation"],
        )


def check_learners(plan: Plan, stages: Sequence[str]) -> None:
    """Refuse settings that a later stage's learner would refuse, before anything is trained.

    Raises:
        ConfigError: Every problem, with its block.
    """
    problems = [f"training_params.ppo.{line}" for line in ppo_config(plan).problems()]
    if "maml" in stages:
        problems += [f"training_params.maml.{line}" for line in maml_config(plan).problems()]
        for changes in search_candidates(plan, "maml"):
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
    journal: SymbolJournal | None = None,
) -> SymbolOutcome:
    """Train one symbol through the stages asked for, and judge its champion on the promotion window.

    What becomes of that verdict is decided with those of the run's other symbols: `settle_promotions` writes the
    final model.

    A sequence whose process was killed goes on where its journal says, to the same models, verdicts and looks as if it
    had not been: what is finished is verified and not done again.

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
        journal: Where the sequence is kept while it goes on; None keeps nothing.

    Raises:
        CheckpointError: A finished stage's file has been replaced by another model since.
    """
    journal = journal or SymbolJournal()
    run = SymbolRun(data, plan, others, held_out, models_dir, ledger, listener, run_name, journal)
    for note in journal.notes:
        listener.said(data.symbol, note)
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
    promotion = _promotion(run, champion)
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
        seconds=journal.seconds()[0],
    )


def _promotion(run: SymbolRun, champion: _Contender | None) -> Verdict | None:
    """Return what a champion's promotion comes to on its own; once that is known, the symbol is finished."""
    finished = run.journal.read(SEQUENCE)
    if finished is None:
        verdict = judge_promotion(run, _checkpoint(run, champion)) if champion else None
        run.journal.save({SEQUENCE: {"promotion": verdict and verdict.to_dict()}})
        return verdict
    return finished["promotion"] and Verdict.from_dict(finished["promotion"])


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
                    f"does not exist).\n  Train it with: {_training_of(run, stage, first)}"
                )
            continue
        checkpoint = load_checkpoint(path)
        differs = differences(checkpoint, run.data, run.plan)
        if differs and is_parent:
            raise CheckpointError(
                f"{path} was trained under other {', '.join(differs)} than this run's; going on from it would judge it "
                "on bars it has seen, or cannot work.\n"
                f"  Train it again: {_training_of(run, stage, first)}"
            )
        if is_parent and not checkpoint.verdict:
            raise CheckpointError(
                f"{path} has not been judged; train that stage again: {_training_of(run, stage, first)}"
            )
        if differs or not checkpoint.verdict:
            continue
        contender = _contender_from(run, path, checkpoint)
        decision = _compared(run, contender, champion)
        champion = _champion_of(champion, contender, decision)
        if is_parent:
            parent = contender
    return parent, champion


def _training_of(run: SymbolRun, *stages: str) -> str:
    """Return the command that trains these stages of the symbol."""
    return command_line(["run_training.py", "--symbols", run.data.symbol, "--stages", *stages])


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
    kept = run.journal.stage(stage)
    if kept is None:
        kept = _trained_stage(run, stage, parent, champion)
    else:
        _verify_file(run, stage, kept)
    contender = _Contender.of_plain(kept["contender"])
    outcome = StageOutcome(
        stage=stage,
        model=contender.model,
        verdict=contender.verdict,
        # The deciding one last, and it is the contender's.
        attempts=(*(Verdict.from_dict(each) for each in kept["attempts"][:-1]), contender.verdict),
        file=run.models_dir / stage_file(run.data.symbol, stage),
        wall_seconds=kept["wall_seconds"],
        cpu_seconds=kept["cpu_seconds"],
        validation=kept["validation"],
        champion=decision_of_plain(kept["champion"]),
        control=control_of_plain(kept["control"]),
    )
    if kept["control_is_due"]:
        outcome = _with_control(run, outcome, contender, parent)
        run.journal.keep_stage(
            stage, {**kept, "control": plain_control(outcome.control), "control_is_due": False}
        )
    return outcome, contender


def _trained_stage(
    run: SymbolRun, stage: str, parent: _Contender | None, champion: _Contender | None
) -> dict[str, Any]:
    """Train and judge a stage and write its model; return it as the journal holds it then."""
    if stage == "maml" and parent is None:
        raise UsageError("stage 3 needs the model of a stage before it; add ppo or moe to --stages")
    run.journal.begin(stage)
    kept, attempts = train_with_fallbacks(run, stage, parent.model if parent else None)
    lineage = (*parent.lineage, parent.model.fingerprint()) if parent and kept.is_grown else ()
    replay = validation_replay(run, kept.model)
    contender = _Contender(
        model=kept.model,
        verdict=kept.verdict,
        returns=returns_by_session(run.data, replay, "validation"),
        lineage=lineage,
        adaptation=kept.adaptation,
    )
    decision = _compared(run, contender, champion)
    checkpoint = _checkpoint(run, contender)
    file = write_model(run.models_dir, checkpoint)
    if contender.verdict.passed and run.plan.model_management.keep_best_models:
        keep_dated_copy(run.models_dir, checkpoint, run.plan, kept.judged_at)
    validation = _validation_figures(run, kept.model, contender.returns, replay)
    wall, cpu = run.journal.since(stage)
    found = {
        "contender": contender.to_plain(),
        "attempts": [verdict.to_dict() for verdict in attempts],
        "sha256": sha256_of(file),
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "validation": validation,
        "champion": plain_decision(decision),
        "control": None,
        "control_is_due": stage == "moe" and run.plan.training_params.moe.dense_control,
    }
    run.journal.keep_stage(stage, found)
    run.listener.judged(run.data.symbol, stage, contender.verdict, wall, cpu, len(attempts))
    if decision is not None:
        run.listener.said(run.data.symbol, f"champion: {decision.text}")
    return found


def _verify_file(run: SymbolRun, stage: str, kept: dict[str, Any]) -> None:
    """Make sure that a finished stage's model is in its file; a lost or damaged one is written again from the journal.

    Raises:
        CheckpointError: The file holds another model.
    """
    path, symbol = run.models_dir / stage_file(run.data.symbol, stage), run.data.symbol
    outcome = kept["contender"]["verdict"]["outcome"]
    try:
        found = load_checkpoint(path).sha256
    except CheckpointError as error:
        checkpoint = _checkpoint(run, _Contender.of_plain(kept["contender"]))
        found = sha256_of(write_model(run.models_dir, checkpoint))
        run.listener.said(symbol, f"written again from the run's state: {str(error).splitlines()[0]}")
    if found != kept["sha256"]:
        raise CheckpointError(
            f"{path} is not the model that run {run.run_name} wrote after {STAGE_TITLES[stage]}: its SHA-256 is "
            f"{found}, and {kept['sha256']} was written. Another run has replaced it.\n"
            "  Train anew with --resume never, or put that file back."
        )
    run.listener.said(symbol, f"{STAGE_TITLES[stage]} was finished before: {outcome}; its file is verified")


def _with_control(
    run: SymbolRun, outcome: StageOutcome, contender: _Contender, parent: _Contender | None
) -> StageOutcome:
    """Return stage 2's outcome with what one network of as many parameters earns, which decides nothing."""
    symbol, episodes = run.data.symbol, contender.model.episodes
    why = "one network of as many parameters, to compare with"
    run.listener.stage_started(symbol, "moe", episodes, "episodes", why, 0)
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
        journal=run.journal,
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
