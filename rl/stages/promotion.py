"""Promotion: the champion judged on a window nobody has seen, and the final models of a run.

Each symbol's champion is judged on its own, where it was trained. What becomes of it is decided once, when all
symbols of the run have been judged: among many symbols without an edge some show one by luck.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rl.checkpoints.checkpoint import Checkpoint, load_checkpoint
from rl.checkpoints.predictor import Predictor
from rl.common.errors import CheckpointError
from rl.stages.evaluation import benchmark_on, replay_on, trade_record
from rl.stages.evidence import EvidenceLedger
from rl.stages.family import judged_with
from rl.stages.gates import Verdict, across_symbols, promotion_verdict
from rl.stages.judgement import SymbolRun, circumstances, conclude, judged_window, look, write_evidence
from rl.stages.model_files import (
    model_from,
    promoted_earlier,
    remove_model,
    retire_older_files,
    withdraw_overruled,
    write_model,
)
from rl.stages.null_bank import beside_nulls
from rl.stages.outcomes import Listener, SymbolOutcome
from rl.stages.plan import Plan

Decision = Literal["promoted", "unproven", "none"]
"""What a final model is written as, if at all."""

PROMOTIONS = "promotions"
"""What a problem is called that keeps all promotions of a run from being decided."""


def judge_promotion(run: SymbolRun, champion: Checkpoint) -> Verdict:
    """Judge a champion on the promotion window, which nothing has looked at; nothing is written but the ledger."""
    model = model_from(champion)
    counted = look(run, "promotion", "promotion", model)
    environment = run.plan.environment
    # The same path as backtest and service: a stage-3 model adapts on the bars just before the window.
    prepared = Predictor(champion).policy_for(
        run.data.market,
        run.data.rules,
        span_start=run.data.window("promotion")[0],
        capital=environment.initial_capital,
    )
    replay = replay_on(
        run.data,
        prepared.packed,
        "promotion",
        scheme=environment.action_scheme,
        capital=environment.initial_capital,
    )
    benchmark = benchmark_on(run.data, replay, "promotion")
    criteria = dataclasses.replace(run.plan.criteria(model.stage), min_episodes=None)
    verdict = promotion_verdict(
        trade_record(run.data, replay, "promotion", None, benchmark),
        criteria,
        symbol=run.data.symbol,
        stage=model.stage,
        window=judged_window(run, counted),
        attempt=counted.attempt,
        alpha=run.plan.evidence.alpha,
        context=circumstances(run, model, criteria),
    )
    verdict = beside_nulls(verdict, run.data, replay, criteria, alpha=run.plan.evidence.alpha)
    conclude(run, counted, verdict, write_evidence(run, counted, replay, benchmark))
    run.listener.said(
        run.data.symbol,
        f"promotion judged on its own: {verdict.outcome} (look {verdict.attempt}); decided once all symbols are judged",
    )
    return verdict


def settle_promotions(
    outcomes: Sequence[SymbolOutcome],
    plan: Plan,
    *,
    models_dir: Path,
    ledger: EvidenceLedger,
    listener: Listener,
    run_name: str,
    first_stage: str,
    on_problem: Callable[[str, Exception], None] | None = None,
) -> list[SymbolOutcome]:
    """Decide the promotions of a run together, write the final models and retire what they make obsolete.

    The p values of all symbols judged in the run are corrected for their number (`across_symbols`), together with those
    that the ledger says were judged beside the same looks in other runs (`judged_with`). All decisions
    are in the ledger before the first file is touched; each final model is made from the champion's stage file
    and is complete or absent. A run that was interrupted before has promoted nothing.

    Args:
        outcomes: Of every symbol whose sequence ended, in any order; symbols whose promotion was not judged too.
        plan: The plan of the run.
        models_dir: Where the stage files are and final models go.
        ledger: Where the decisions are written.
        listener: Who is told.
        run_name: Name of the run.
        first_stage: The first stage trained in it; older files of that stage and later ones are retired.
        on_problem: Told of a symbol whose files could not be written; the others go on. Told of `PROMOTIONS` where the
            decisions could not be made or written down; then no file is touched, and every promotion comes back as
            unsettled: no longer a PASS, and without a family. None: raised.

    Returns:
        The outcomes in the order given, with the promotion as settled and the final file.

    Raises:
        CheckpointError: A champion's file is damaged or not the model that was judged.
        DataError: The ledger is damaged.
    """
    try:
        verdicts, decisions = _decided(outcomes, plan, models_dir, ledger, run_name)
    except Exception as error:
        # A damaged ledger or a full disk must not cost the report of what was trained.
        if on_problem is None:
            raise
        on_problem(PROMOTIONS, error)
        return [_unsettled(outcome) for outcome in outcomes]
    settled = []
    for each in outcomes:
        outcome = replace(each, promotion=verdicts.get(each.symbol))
        try:
            final = _final_model(
                outcome,
                decisions.get(each.symbol, "none"),
                plan,
                models_dir,
                run_name,
                lambda kept, symbol=each.symbol: listener.said(
                    symbol, f"the final model before this one is kept as {kept}"
                ),
            )
            outcome = replace(outcome, final_file=final)
            _told(listener, outcome)
            if outcome.promotion is not None and (text := withdraw_overruled(models_dir, outcome.promotion)):
                listener.said(each.symbol, text)
            for text in retire_older_files(models_dir, each.symbol, run_name, first_stage=first_stage):
                listener.said(each.symbol, text)
            if final is not None and not plan.model_management.save_stage_models:
                for stage in outcome.stages:
                    remove_model(stage.file)
        except Exception as error:
            # A full disk or a damaged file of one symbol must not cost the others their models.
            if on_problem is None:
                raise
            on_problem(each.symbol, error)
        settled.append(outcome)
    return settled


def _decided(
    outcomes: Sequence[SymbolOutcome], plan: Plan, models_dir: Path, ledger: EvidenceLedger, run_name: str
) -> tuple[dict[str, Verdict], dict[str, Decision]]:
    """Return the settled verdicts and what is to be written of each, by symbol; all of it is in the ledger then."""
    judged = [outcome.promotion for outcome in outcomes if outcome.promotion is not None]
    joined = judged_with(ledger.entries(), judged, run_name)
    rate = plan.evidence.false_discovery_rate
    verdicts = {verdict.symbol: verdict for verdict in across_symbols(judged, rate, joined)}
    decisions: dict[str, Decision] = {
        symbol: _decision(verdict, plan, models_dir) for symbol, verdict in verdicts.items()
    }
    for symbol, verdict in verdicts.items():
        ledger.settle(
            symbol,
            verdict.window["hash"],
            "promotion",
            verdict.attempt,
            run=run_name,
            stage=verdict.stage,
            outcome=verdict.outcome,
            decision=decisions[symbol],
            reasons=list(verdict.reasons),
            sessions_needed=verdict.sessions_needed,
            family=verdict.context["family"],
        )
    return verdicts, decisions


def _unsettled(outcome: SymbolOutcome) -> SymbolOutcome:
    verdict = outcome.promotion
    if verdict is None:
        return outcome
    reason = (
        f"Unsettled: {verdict.outcome} on its own, but what all symbols of the run make of it could not be written "
        "into the ledger. Nothing was promoted; run the same command again."
    )
    decided = "INCONCLUSIVE" if verdict.passed else verdict.outcome
    return replace(outcome, promotion=replace(verdict, outcome=decided, reasons=(*verdict.reasons, reason)))


def _decision(verdict: Verdict, plan: Plan, models_dir: Path) -> Decision:
    if verdict.passed:
        return "promoted"
    unproven = plan.model_management.promotion == "best_validation"
    return "unproven" if unproven and not promoted_earlier(models_dir, verdict.symbol) else "none"


def _final_model(
    outcome: SymbolOutcome,
    decision: Decision,
    plan: Plan,
    models_dir: Path,
    run_name: str,
    on_kept: Callable[[Path], None],
) -> Path | None:
    """Write the final model from the champion's stage file, where there is to be one; the one before it is kept."""
    if decision == "none":
        return None
    verdict, file = outcome.promotion, outcome.champion_file
    assert verdict is not None, "a decision to write follows from a verdict"
    assert file is not None, "a verdict is that of a champion with a file"
    champion = load_checkpoint(file)
    if model_from(champion).fingerprint() != verdict.context["weights"]:
        raise CheckpointError(
            f"{file} is not the model that was judged on the promotion window; another run may have written it "
            "meanwhile. No final model was written."
        )
    rule = plan.model_management.promotion
    return write_model(
        models_dir,
        replace(
            champion,
            stage="final",
            champion_of=champion.stage,
            verdict=verdict.to_dict(),
            trading={**champion.trading, "run": run_name, "promotion_rule": rule},
            sha256=None,
        ),
        on_kept,
    )


def _told(listener: Listener, outcome: SymbolOutcome) -> None:
    verdict = outcome.promotion
    if verdict is None:
        return
    final = f"final model: {outcome.final_file}" if outcome.final_file else "no final model"
    listener.said(outcome.symbol, "\n    ".join([*verdict.lines(), final]))
