"""Judging one symbol's models: count the look, look, decide, write down what was seen and decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rl import __version__
from rl.backtest.engine import Replay
from rl.common.compiled import source_hash
from rl.stages.adaptation_gate import adaptation_verdict, with_own_criteria
from rl.stages.adaptation_proof import AdaptationProof, CrossSymbol
from rl.stages.evaluation import (
    benchmark_on,
    described_window,
    look_subject,
    named_window,
    packed,
    replay_on,
    trade_record,
)
from rl.stages.evidence import EvidenceLedger
from rl.stages.evidence_log import ACTIONS, WINDOWS, log_path, write_action_log, write_windows_log
from rl.stages.gates import Verdict, progress_verdict
from rl.stages.null_bank import beside_nulls
from rl.stages.outcomes import Listener
from rl.stages.plan import Criteria, Plan
from rl.stages.run_state import SymbolJournal
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData


@dataclass
class SymbolRun:
    """What the steps of one symbol's sequence share."""

    data: SymbolData
    plan: Plan
    others: Sequence[SymbolData]
    held_out: SymbolData | None
    models_dir: Path
    ledger: EvidenceLedger
    listener: Listener
    run_name: str
    journal: SymbolJournal = field(default_factory=SymbolJournal)
    """What of it is finished; by default nothing is kept."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One counted look at a window."""

    window: str
    """train, validation, promotion or test."""
    purpose: str
    """progress, adaptation or promotion."""
    attempt: int
    window_hash: str


def validation_replay(run: SymbolRun, model: StageModel) -> Replay:
    """Let a model trade the validation window."""
    environment = run.plan.environment
    return replay_on(
        run.data,
        packed(model),
        "validation",
        scheme=environment.action_scheme,
        capital=environment.initial_capital,
    )


def look(run: SymbolRun, window: str, purpose: str, model: StageModel) -> Look:
    """Count a look at a window in the ledger; call it **before** looking."""
    window_hash, span = named_window(run.data.bars, *run.data.window(window))
    attempt = run.ledger.record(
        run.data.symbol,
        window_hash,
        purpose,
        subject=look_subject(model, run.data.rules, run.plan.environment.initial_capital),
        span=span,
        stage=model.stage,
        run=run.run_name,
    )
    return Look(window=window, purpose=purpose, attempt=attempt, window_hash=window_hash)


def circumstances(run: SymbolRun, model: StageModel, asked: Criteria) -> dict[str, Any]:
    """Return what a verdict says about how it came about, besides its window."""
    return {
        "run": run.run_name,
        "seed": run.plan.seed,
        "code_version": __version__,
        "source_hash": source_hash(),
        "weights": model.fingerprint(),
        "rules": run.data.rules.as_dict(),
        "capital": run.plan.environment.initial_capital,
        "alpha": run.plan.evidence.alpha,
        "asked": dataclasses.asdict(asked),
    }


def judged_window(run: SymbolRun, counted: Look) -> dict[str, Any]:
    """Return what a verdict says about the window it judged, its name in the ledger included."""
    return {**described_window(run.data, counted.window), "hash": counted.window_hash}


def write_evidence(
    run: SymbolRun,
    counted: Look,
    replay: Replay,
    benchmark: Replay,
    compared: tuple[AdaptationProof, CrossSymbol] | None = None,
) -> dict[str, dict[str, str]]:
    """Write what a look saw beside the ledger; return each file's name and hash for the ledger's line."""
    folder = run.ledger.path.parent

    def at(ending: str) -> Path:
        return log_path(
            folder, run.data.symbol, counted.purpose, counted.window_hash, counted.attempt, ending
        )

    close_time, session = run.data.bars.close_time, run.data.market.session
    files = {"actions": write_action_log(at(ACTIONS), replay, benchmark, close_time, session)}
    if compared is not None:
        files["windows"] = write_windows_log(at(WINDOWS), *compared)
    return {
        kind: {"file": each.path.relative_to(folder).as_posix(), "sha256": each.sha256}
        for kind, each in files.items()
    }


def conclude(
    run: SymbolRun, counted: Look, verdict: Verdict, evidence: Mapping[str, Mapping[str, str]]
) -> None:
    """Write the verdict of a look into the ledger, with the evidence it was computed from."""
    run.ledger.conclude(
        run.data.symbol,
        counted.window_hash,
        counted.purpose,
        counted.attempt,
        outcome=verdict.outcome,
        verdict=verdict.to_dict(),
        evidence=evidence,
    )


def judge_progress(run: SymbolRun, stage: str, model: StageModel) -> Verdict:
    """Judge a model of stage 1 or 2 on the validation window."""
    counted = look(run, "validation", "progress", model)
    replay = validation_replay(run, model)
    benchmark = benchmark_on(run.data, replay, "validation")
    criteria = run.plan.criteria(stage)
    verdict = progress_verdict(
        trade_record(run.data, replay, "validation", model.episodes, benchmark),
        criteria,
        symbol=run.data.symbol,
        stage=stage,
        window=judged_window(run, counted),
        attempt=counted.attempt,
        alpha=run.plan.evidence.alpha,
        context=circumstances(run, model, criteria),
    )
    verdict = beside_nulls(verdict, run.data, replay, criteria, alpha=run.plan.evidence.alpha)
    conclude(run, counted, verdict, write_evidence(run, counted, replay, benchmark))
    return verdict


def judge_adaptation(
    run: SymbolRun, counted: Look, model: StageModel, proof: AdaptationProof, across: CrossSymbol
) -> Verdict:
    """Judge stage 3: what adapting does to its query windows, and the plan's other criteria on all of validation."""
    criteria = run.plan.criteria("maml")
    tried = run.plan.training_params.maml.evaluation_steps
    verdict = adaptation_verdict(
        proof,
        criteria,
        across,
        symbol=run.data.symbol,
        window=judged_window(run, counted),
        evaluation_steps=tried,
        attempt=counted.attempt,
        alpha=run.plan.evidence.alpha,
        context={**circumstances(run, model, criteria), "evaluation_steps": tried},
    )
    replay = validation_replay(run, model)
    benchmark = benchmark_on(run.data, replay, "validation")
    record = trade_record(run.data, replay, "validation", None, benchmark)
    verdict = with_own_criteria(verdict, record, criteria, run.plan.evidence.alpha)
    conclude(run, counted, verdict, write_evidence(run, counted, replay, benchmark, (proof, across)))
    return verdict
