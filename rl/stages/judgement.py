"""Judging one symbol's models: count the look, look, decide, write down what was seen and decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rl import __version__
from rl.backtest.engine import Replay
from rl.common.compiled import source_hash
from rl.stages.adaptation_gate import adaptation_verdict
from rl.stages.evaluation import described_window, named_window, packed, replay_on, trade_record
from rl.stages.evidence import EvidenceLedger
from rl.stages.gates import TradeRecord, Verdict, progress_verdict
from rl.stages.maml_stage import AdaptationProof, CrossSymbol
from rl.stages.outcomes import Listener
from rl.stages.plan import Plan
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData
from rl.trading.metrics import figures, sharpe_ratio


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
    capital = run.plan.environment.initial_capital
    attempt = run.ledger.record(
        run.data.symbol,
        window_hash,
        purpose,
        # The same weights under other costs, or with another capital in whole lots, are another thing looked at.
        subject=f"{model.fingerprint()} {run.data.rules.fingerprint()} {capital!r}",
        span=span,
        stage=model.stage,
        run=run.run_name,
    )
    return Look(window=window, purpose=purpose, attempt=attempt, window_hash=window_hash)


def circumstances(run: SymbolRun, model: StageModel) -> dict[str, Any]:
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
    }


def judged_window(run: SymbolRun, counted: Look) -> dict[str, Any]:
    """Return what a verdict says about the window it judged, its name in the ledger included."""
    return {**described_window(run.data, counted.window), "hash": counted.window_hash}


def conclude(run: SymbolRun, counted: Look, verdict: Verdict) -> None:
    """Write the verdict of a look into the ledger."""
    run.ledger.conclude(
        run.data.symbol,
        counted.window_hash,
        counted.purpose,
        counted.attempt,
        outcome=verdict.outcome,
        verdict=verdict.to_dict(),
    )


def judge_progress(run: SymbolRun, stage: str, model: StageModel) -> Verdict:
    """Judge a model of stage 1 or 2 on the validation window."""
    counted = look(run, "validation", "progress", model)
    replay = validation_replay(run, model)
    verdict = progress_verdict(
        trade_record(run.data, replay, "validation", model.episodes),
        run.plan.criteria(stage),
        symbol=run.data.symbol,
        stage=stage,
        window=judged_window(run, counted),
        attempt=counted.attempt,
        alpha=run.plan.evidence.alpha,
        context=circumstances(run, model),
    )
    conclude(run, counted, verdict)
    return verdict


def judge_adaptation(
    run: SymbolRun, counted: Look, model: StageModel, proof: AdaptationProof, across: CrossSymbol
) -> Verdict:
    """Judge stage 3: what adapting does to its query windows, and the plan's other criteria on all of validation."""
    verdict = adaptation_verdict(
        proof,
        run.plan.criteria("maml"),
        across,
        symbol=run.data.symbol,
        window=judged_window(run, counted),
        evaluation_steps=run.plan.training_params.maml.evaluation_steps,
        attempt=counted.attempt,
        alpha=run.plan.evidence.alpha,
        context=circumstances(run, model),
    )
    record = trade_record(run.data, validation_replay(run, model), "validation", None)
    verdict = with_own_criteria(run, verdict, record)
    conclude(run, counted, verdict)
    return verdict


def with_own_criteria(run: SymbolRun, verdict: Verdict, record: TradeRecord) -> Verdict:
    """Return the adaptation verdict, lowered where the plan asks stage 3 for more and that is missed."""
    sharpe, missing = figures(sharpe_per_session=sharpe_ratio(record.session_returns, 1.0))
    missing = {**verdict.metrics["not_computed"], **missing}
    verdict = replace(verdict, metrics={**verdict.metrics, **sharpe, "not_computed": missing})
    criteria = run.plan.criteria("maml")
    if criteria.min_win_rate is None and criteria.min_profit_factor is None and criteria.max_drawdown is None:
        return verdict
    own = progress_verdict(
        record,
        dataclasses.replace(criteria, min_episodes=None),
        symbol=run.data.symbol,
        stage="maml",
        window=verdict.window,
        attempt=verdict.attempt,
        alpha=run.plan.evidence.alpha,
    )
    order = ("PASS", "INCONCLUSIVE", "FAIL")
    return replace(
        verdict,
        outcome=max(verdict.outcome, own.outcome, key=order.index),
        criteria=(*verdict.criteria, *own.criteria),
        reasons=(*verdict.reasons, *own.reasons),
        trades=own.trades,
    )
