"""The gate after stage 3: does adapting help, beyond the model it came from and beyond plain fine-tuning?"""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import numpy as np

from rl.stages.evidence import ClusteredTest, alpha_for_attempt, session_clustered_t
from rl.stages.gates import CriterionResult, Outcome, TradeRecord, Verdict, progress_verdict
from rl.stages.maml_stage import AdaptationProof, CrossSymbol
from rl.stages.plan import Criteria
from rl.trading.metrics import figures, sharpe_ratio

FEWEST_TASKS = 30
"""Query windows needed for a verdict: fewer detect even a large effect (half a standard deviation) in under 85 %."""

BASIS_POINTS = 1e4


def adaptation_verdict(
    proof: AdaptationProof,
    criteria: Criteria,
    cross_symbol: CrossSymbol,
    *,
    symbol: str,
    window: dict[str, Any],
    evaluation_steps: int,
    attempt: int,
    alpha: float,
    context: dict[str, Any] | None = None,
) -> Verdict:
    """Decide whether adaptation does what the stage is for.

    PASS needs the mean query growth after K steps to be above the stage-2 model's, above its tuned fine-tuning and
    above the meta-policy's own at 0 steps, each with a one-sided lower bound above zero over at least 30 query windows,
    and the two numbers of the plan: `min_adaptation_speed` and, where it can be measured,
    `min_cross_symbol_performance`. FAIL: a mean of zero or less, or a number missed. INCONCLUSIVE: positive but not
    shown, or too few windows.
    """
    spent = alpha_for_attempt(attempt, alpha)
    after = proof.adapted[:, proof.steps]
    compared = {
        "over_stage_2": _compared(after, proof.parent, spent),
        "over_fine_tune": _compared(after, proof.fine_tuned, spent),
        "over_unadapted": _compared(after, proof.adapted[:, 0], spent),
    }
    notes = {
        "over_stage_2": "bp of log growth per bar, adapted minus the stage-2 model",
        "over_fine_tune": f"minus stage 2 fine-tuned (step size {proof.fine_tune_step_size:g})",
        "over_unadapted": "minus the meta-policy without adaptation",
    }
    results = [_tasks(proof)]
    results += [_difference(name, test, notes[name]) for name, test in compared.items()]
    if criteria.min_adaptation_speed is not None:
        results.append(_speed(proof, criteria.min_adaptation_speed, evaluation_steps))
    if criteria.min_cross_symbol_performance is not None and cross_symbol.ratio is not None:
        results.append(_cross(cross_symbol, criteria.min_cross_symbol_performance))
    outcome, reasons = _outcome(results, compared, spent)
    if criteria.min_cross_symbol_performance is not None and cross_symbol.ratio is None:
        reasons.append(f"min_cross_symbol_performance is not measurable: {cross_symbol.note}.")
    return Verdict(
        outcome=outcome,
        level="adaptation",
        symbol=symbol,
        stage="maml",
        criteria=tuple(results),
        trades=0,
        sessions=len(after),
        alpha_used=spent,
        attempt=attempt,
        window=window,
        reasons=tuple(reasons),
        metrics={
            "adaptation_curve": [float(mean) for mean in proof.adapted.mean(axis=0)] if len(after) else [],
            "stage_2": _mean(proof.parent),
            "fine_tuned": _mean(proof.fine_tuned),
            "fine_tune_step_size": proof.fine_tune_step_size,
            "tasks": len(after),
            "not_computed": {},
        },
        context=dict(context or {}),
    )


def with_own_criteria(verdict: Verdict, record: TradeRecord, criteria: Criteria, alpha: float) -> Verdict:
    """Return the adaptation verdict, lowered where the plan asks stage 3 for more and that is missed.

    Args:
        verdict: Of `adaptation_verdict`.
        record: What the model did on all of the validation window.
        criteria: What the plan asks of stage 3.
        alpha: What all looks at this window may spend together.
    """
    sharpe, missing = figures(sharpe_per_session=sharpe_ratio(record.session_returns, 1.0))
    missing = {**verdict.metrics["not_computed"], **missing}
    verdict = replace(verdict, metrics={**verdict.metrics, **sharpe, "not_computed": missing})
    if criteria.min_win_rate is None and criteria.min_profit_factor is None and criteria.max_drawdown is None:
        return verdict
    own = progress_verdict(
        record,
        dataclasses.replace(criteria, min_episodes=None),
        symbol=verdict.symbol,
        stage=verdict.stage,
        window=verdict.window,
        attempt=verdict.attempt,
        alpha=alpha,
    )
    order = ("PASS", "INCONCLUSIVE", "FAIL")
    return replace(
        verdict,
        outcome=max(verdict.outcome, own.outcome, key=order.index),
        criteria=(*verdict.criteria, *own.criteria),
        reasons=(*verdict.reasons, *own.reasons),
        trades=own.trades,
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _compared(later: np.ndarray, earlier: np.ndarray, alpha: float) -> ClusteredTest:
    # A query window is the unit: its bars share a market.
    return session_clustered_t(later - earlier, np.arange(len(later)), confidence=1.0 - 2.0 * alpha)


def _tasks(proof: AdaptationProof) -> CriterionResult:
    count = len(proof.adapted)
    return CriterionResult(
        name="query_windows",
        value=count,
        threshold=FEWEST_TASKS,
        direction="at least",
        met=count >= FEWEST_TASKS,
    )


def _difference(name: str, test: ClusteredTest, note: str) -> CriterionResult:
    known = bool(np.isfinite(test.mean))
    return CriterionResult(
        name=name,
        value=BASIS_POINTS * float(test.mean) if known else None,
        threshold=0.0,
        direction="at least",
        met=test.mean > 0.0 if known else None,
        lower=BASIS_POINTS * float(test.lower) if np.isfinite(test.lower) else None,
        upper=BASIS_POINTS * float(test.upper) if np.isfinite(test.upper) else None,
        p_below=float(test.p_below_zero) if np.isfinite(test.p_below_zero) else None,
        note=note,
    )


def _speed(proof: AdaptationProof, threshold: int, tried: int) -> CriterionResult:
    speed = proof.speed(tried) if len(proof.adapted) else None
    return CriterionResult(
        name="adaptation_speed",
        value=speed,
        threshold=threshold,
        direction="at most",
        met=speed is not None and speed <= threshold,
        note="adaptation episodes"
        if speed is not None
        else f"not above the unadapted policy within {tried} episodes",
    )


def _cross(cross: CrossSymbol, threshold: float) -> CriterionResult:
    assert cross.ratio is not None
    return CriterionResult(
        name="cross_symbol",
        value=cross.ratio,
        threshold=threshold,
        direction="at least",
        met=cross.ratio >= threshold,
        note=cross.note,
    )


def _outcome(
    results: list[CriterionResult], compared: dict[str, ClusteredTest], alpha: float
) -> tuple[Outcome, list[str]]:
    windows = results[0]
    if not windows.met:
        return "INCONCLUSIVE", [
            f"Too little data: {windows.value} query windows, needed {FEWEST_TASKS}; a longer validation window or "
            "fewer query_sessions gives more."
        ]
    missed = [result for result in results[1:] if result.met is not True]
    if missed:
        return "FAIL", [f"{result.name} is missed ({result.note})." for result in missed]
    unsure = [name for name, test in compared.items() if not test.lower > 0.0]
    if unsure:
        return "INCONCLUSIVE", [
            f"{name} is positive, but not shown to be (p {compared[name].p_above_zero:.3g}, needed {alpha:.3g})."
            for name in unsure
        ]
    return "PASS", []
