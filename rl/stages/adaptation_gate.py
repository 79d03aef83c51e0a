"""The gate after stage 3: does adapting help, beyond the model it came from and beyond plain fine-tuning?

A policy may grow after a few steps on recent bars for reasons that have nothing to do with those bars: any training
helps a poor start. Hence the controls: adapted to another task's support it has to grow less, it may not fall off as
steps are added, and the same comparison has to find nothing where the bars come in random order. A few windows must not
make the mean: the interquartile mean has to have its sign (Agarwal et al. 2021, arXiv:2108.13264, section 4.3).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import trim_mean

from rl.stages.adaptation_proof import CURVE_STEPS, AdaptationProof, CrossSymbol
from rl.stages.evidence import ClusteredTest, alpha_for_attempt, session_clustered_t
from rl.stages.gates import CriterionResult, Outcome, TradeRecord, Verdict, progress_verdict
from rl.stages.plan import Criteria
from rl.trading.metrics import figures, sharpe_ratio

FEWEST_TASKS = 30
"""Query windows needed for a verdict: fewer detect even a large effect (half a standard deviation) in under 85 %."""

BASIS_POINTS = 1e4

TRIMMED = 0.25
"""Share of the windows left out at each end for the interquartile mean."""

SAME_SIGN = ("over_stage_2", "over_fine_tune")
"""Comparisons whose interquartile mean has to be above zero as well as their mean."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The adapted policy's growth minus another's, over query windows."""

    name: str
    note: str
    baseline: np.ndarray | None
    """The other's growth; None where it cannot be measured. (W,)"""
    test: ClusteredTest
    typical: float
    """Interquartile mean of the differences, the mean of their middle half; nan where there is none."""
    decides: bool
    """True where PASS asks for it to be shown to be above zero."""

    def figures(self) -> dict[str, Any]:
        """Return it as plain figures, in log growth per bar; None where one cannot be computed."""
        return {
            "name": self.name,
            "baseline": None if self.baseline is None else _mean(self.baseline),
            "difference": _finite(self.test.mean),
            "interquartile_mean": _finite(self.typical),
            "lower": _finite(self.test.lower),
            "upper": _finite(self.test.upper),
            "p": _finite(self.test.p_above_zero),
            "decides": self.decides,
        }


def comparisons(proof: AdaptationProof, alpha: float) -> list[Comparison]:
    """Return the adapted policy beside everything it is compared with, those that decide first.

    Args:
        proof: What was measured.
        alpha: Each lower bound is one-sided at this level.
    """
    after = proof.after(proof.steps)
    flat = np.zeros(len(after))
    listed: tuple[tuple[str, str, np.ndarray | None, bool], ...] = (
        ("over_stage_2", "bp of log growth per bar, adapted minus the stage-2 model", proof.parent, True),
        ("over_fine_tune", f"minus stage 2 fine-tuned ({proof.fine_tune})", proof.fine_tuned, True),
        ("over_unadapted", "minus the meta-policy without adaptation", proof.after(0), True),
        ("over_other_support", "minus the same adapted to another task's bars", proof.other_support, True),
        (
            "over_random_start",
            f"minus a random start fine-tuned ({proof.random_start_steps})",
            proof.random_start,
            False,
        ),
        ("over_flat", "minus doing nothing", flat, False),
        ("over_buy_and_hold", "minus holding", proof.buy_and_hold, False),
    )
    return [
        Comparison(
            name=name,
            note=note,
            baseline=other,
            test=_compared(after, other, alpha),
            typical=interquartile_mean(np.empty(0) if other is None else after - other),
            decides=decides,
        )
        for name, note, other, decides in listed
    ]


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

    PASS needs the mean query growth after K steps to be above the stage-2 model's, above its tuned fine-tuning, above
    the meta-policy's own at 0 steps and above its own after as many steps on another task's bars, each with a one-sided
    lower bound above zero over at least 30 query windows; the interquartile means of the first two differences to be
    above zero too; growth after K steps not more than a standard error below that after one; a placebo, the same on
    shuffled bars, that does not show the same; and the two numbers of the plan: `min_adaptation_speed` and, where it
    can be measured, `min_cross_symbol_performance`.

    FAIL: a mean difference of zero or less, a placebo that passes, or a number missed. INCONCLUSIVE: positive but not
    shown, or in the mean only; too few windows, or supports too long for the controls. The comparisons with a random
    start, with doing nothing and with holding are shown and decide nothing.
    """
    spent = alpha_for_attempt(attempt, alpha)
    compared = comparisons(proof, spent)
    deciding = [each for each in compared if each.decides]
    results = [
        _tasks(proof),
        *(_difference(each) for each in deciding),
        _steadiness(proof),
        placebo_control(proof, spent),
    ]
    if criteria.min_adaptation_speed is not None:
        results.append(_speed(proof, criteria.min_adaptation_speed, evaluation_steps))
    if criteria.min_cross_symbol_performance is not None and cross_symbol.ratio is not None:
        results.append(_cross(cross_symbol, criteria.min_cross_symbol_performance))
    # A sign is no test: one the wrong way round keeps a lead from being shown, it does not refute it.
    typical = [_typical(each) for each in deciding if each.name in SAME_SIGN]
    outcome, reasons = _outcome(results, deciding, typical, spent)
    results += typical
    if criteria.min_cross_symbol_performance is not None and cross_symbol.ratio is None:
        reasons.append(f"min_cross_symbol_performance is not measurable: {cross_symbol.note}.")
    return Verdict(
        outcome=outcome,
        level="adaptation",
        symbol=symbol,
        stage="maml",
        criteria=tuple(results),
        trades=0,
        sessions=len(proof.adapted),
        alpha_used=spent,
        attempt=attempt,
        window=window,
        reasons=tuple(reasons),
        metrics={
            "tasks": len(proof.adapted),
            "inner_loop_steps": proof.steps,
            "adaptation_curve": _curve(proof),
            "comparisons": [each.figures() for each in compared],
            "fine_tune": dataclasses.asdict(proof.fine_tune),
            "random_start_steps": dataclasses.asdict(proof.random_start_steps),
            "placebo": [
                {"name": name, "difference": _finite(test.mean), "p": _finite(test.p_above_zero)}
                for name, test in _placebo_tests(proof, spent).items()
            ],
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


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _compared(later: np.ndarray, earlier: np.ndarray | None, alpha: float) -> ClusteredTest:
    # A query window is the unit: its bars share a market.
    difference = np.empty(0) if earlier is None else later - earlier
    return session_clustered_t(difference, np.arange(len(difference)), confidence=1.0 - 2.0 * alpha)


def interquartile_mean(values: np.ndarray) -> float:
    """Return the mean of the middle half of the values; nan of none. (W,) -> ()"""
    return float(trim_mean(values, TRIMMED)) if len(values) else math.nan


def _curve(proof: AdaptationProof) -> list[dict[str, Any]]:
    """Return mean query growth per bar with its 95 % interval after each number of steps."""
    shown = [each for each in proof.curve_steps if each in (*CURVE_STEPS, proof.steps)]
    tests = {each: session_clustered_t(proof.after(each), np.arange(len(proof.adapted))) for each in shown}
    return [
        {
            "steps": each,
            "mean": _finite(test.mean),
            "lower": _finite(test.lower),
            "upper": _finite(test.upper),
        }
        for each, test in tests.items()
    ]


def _tasks(proof: AdaptationProof) -> CriterionResult:
    count = len(proof.adapted)
    return CriterionResult(
        name="query_windows",
        value=count,
        threshold=FEWEST_TASKS,
        direction="at least",
        met=count >= FEWEST_TASKS,
    )


def _difference(compared: Comparison) -> CriterionResult:
    test = compared.test
    known = bool(np.isfinite(test.mean))
    return CriterionResult(
        name=compared.name,
        value=BASIS_POINTS * float(test.mean) if known else None,
        threshold=0.0,
        direction="at least",
        met=test.mean > 0.0 if known else None,
        lower=BASIS_POINTS * float(test.lower) if np.isfinite(test.lower) else None,
        upper=BASIS_POINTS * float(test.upper) if np.isfinite(test.upper) else None,
        p_below=_finite(test.p_below_zero),
        note=compared.note,
    )


def _typical(compared: Comparison) -> CriterionResult:
    known = bool(np.isfinite(compared.typical))
    return CriterionResult(
        name=f"{compared.name}_iqm",
        value=BASIS_POINTS * compared.typical if known else None,
        threshold=0.0,
        direction="at least",
        met=compared.typical > 0.0 if known else None,
        note="mean of the middle half of the windows; above zero, so that a few do not make the mean",
    )


def _steadiness(proof: AdaptationProof) -> CriterionResult:
    """Return whether growth after all steps is not more than one standard error below that after the first."""
    after = proof.after(proof.steps) - proof.after(1)
    test = session_clustered_t(after, np.arange(len(after)))
    known = bool(np.isfinite(test.standard_error))
    return CriterionResult(
        name="steadiness",
        value=BASIS_POINTS * test.mean if known else None,
        threshold=-BASIS_POINTS * test.standard_error if known else 0.0,
        direction="at least",
        met=test.mean >= -test.standard_error if known else None,
        note=f"after {proof.steps} steps minus after 1; at most a standard error below",
    )


def _placebo_tests(proof: AdaptationProof, alpha: float) -> dict[str, ClusteredTest]:
    placebo = proof.placebo
    if placebo is None:
        return {}
    others = {
        "over_stage_2": placebo.parent,
        "over_unadapted": placebo.unadapted,
        "over_other_support": placebo.other_support,
    }
    return {name: _compared(placebo.adapted, other, alpha) for name, other in others.items()}


def placebo_control(proof: AdaptationProof, alpha: float) -> CriterionResult:
    """Return whether shuffled bars show nothing: the proof passes there where all its p values are small."""
    # Where adapting changes nothing at all there is no p, and nothing is shown either.
    each = [test.p_above_zero for test in _placebo_tests(proof, alpha).values()]
    p = float(np.nan_to_num(each, nan=1.0).max()) if each and len(proof.adapted) else None
    return CriterionResult(
        name="placebo",
        value=p,
        threshold=alpha,
        direction="at least",
        met=None if p is None else p > alpha,
        note="p of the same on shuffled bars, where nothing can be adapted to",
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
    results: list[CriterionResult],
    deciding: list[Comparison],
    typical: list[CriterionResult],
    alpha: float,
) -> tuple[Outcome, list[str]]:
    windows = results[0]
    if not windows.met:
        return "INCONCLUSIVE", [
            f"Too little data: {windows.value} query windows, needed {FEWEST_TASKS}; a longer validation window or "
            "fewer query_sessions gives more."
        ]
    missed = [result for result in results[1:] if result.met is False]
    if missed:
        return "FAIL", [f"{result.name} is missed ({result.note})." for result in missed]
    unknown = [result.name for result in results[1:] if result.met is None]
    if unknown:
        return "INCONCLUSIVE", [
            f"{' and '.join(unknown)} cannot be computed: supports are so long that no other task's shares no bar with "
            "a task; a longer validation window or fewer support_sessions lets them be."
        ]
    unsure = [
        f"{each.name} is positive, but not shown to be (p {each.test.p_above_zero:.3g}, needed {alpha:.3g})."
        for each in deciding
        if not each.test.lower > 0.0
    ]
    unsure += [
        f"{each.name} is {each.value:.3g} bp: a few windows make the mean, in the middle half there is no lead."
        for each in typical
        if not each.met
    ]
    return ("INCONCLUSIVE", unsure) if unsure else ("PASS", [])
