"""The gate after stage 3: three comparisons, two numbers, three verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from rl.stages.adaptation_gate import FEWEST_TASKS, adaptation_verdict
from rl.stages.gates import Verdict
from rl.stages.maml_stage import AdaptationProof, CrossSymbol
from rl.stages.plan import Criteria

BP = 1e-4
NOT_MEASURED = CrossSymbol(ratio=None, symbol=None, note="there is one symbol only")
CRITERIA = Criteria(
    min_win_rate=None,
    min_profit_factor=None,
    max_drawdown=None,
    min_trades=100,
    min_sessions=20,
    min_episodes=0,
    min_adaptation_speed=2,
    min_cross_symbol_performance=0.85,
)


def noise(tasks: int, spread: float, seed: int) -> np.ndarray:
    """Return numbers with exactly mean 0 and this standard deviation."""
    values = np.random.default_rng(seed).normal(size=tasks)
    values -= values.mean()
    return spread * values / values.std(ddof=1)


def a_proof(
    tasks: int = 40,
    *,
    curve: tuple[float, ...] = (0.0, 0.5, 1.0),
    parent: float = 0.0,
    fine_tuned: float = 0.0,
    spread: float = 1.0,
) -> AdaptationProof:
    """Return a proof whose means are these, in bp per bar; differences between the columns vary by `spread`."""
    adapted = np.column_stack([mean + noise(tasks, spread, step) for step, mean in enumerate(curve)])
    return AdaptationProof(
        adapted=BP * adapted,
        parent=BP * (parent + noise(tasks, spread, 11)),
        fine_tuned=BP * (fine_tuned + noise(tasks, spread, 12)),
        fine_tune_step_size=0.1,
        steps=len(curve) - 1,
    )


def judged(
    proof: AdaptationProof, *, cross: CrossSymbol = NOT_MEASURED, attempt: int = 1, **criteria
) -> Verdict:
    asked = {**vars(CRITERIA), **criteria}
    return adaptation_verdict(
        proof,
        Criteria(**asked),
        cross,
        symbol="Nifty_15",
        window={"name": "validation", "from": "a", "to": "b", "data_hash": "c"},
        evaluation_steps=2,
        attempt=attempt,
        alpha=0.05,
    )


def test_adaptation_that_beats_all_three_comparisons_passes():
    verdict = judged(a_proof())
    assert (verdict.outcome, verdict.level, verdict.stage) == ("PASS", "adaptation", "maml")
    for name in ("over_stage_2", "over_fine_tune", "over_unadapted"):
        # In basis points: 1.0 bp per bar above each.
        assert verdict.criterion(name).value == pytest.approx(1.0)
        assert verdict.criterion(name).lower > 0
    assert verdict.criterion("adaptation_speed").value == 1
    assert verdict.sessions == 40


def test_the_lower_bound_is_that_of_a_paired_t_test_over_query_windows():
    verdict = judged(a_proof())
    proof = a_proof()
    difference = (proof.adapted[:, 2] - proof.parent) / BP
    # One-sided at alpha / 2 for the first look: the 97.5 % point of t with 39 degrees of freedom is 2.0227.
    bound = difference.mean() - 2.0227 * difference.std(ddof=1) / np.sqrt(40)
    assert verdict.criterion("over_stage_2").lower == pytest.approx(bound, abs=1e-3)
    assert verdict.alpha_used == 0.025


def test_too_few_query_windows_are_no_verdict_however_good_they_look():
    verdict = judged(a_proof(FEWEST_TASKS - 1, spread=1e-3))
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.reasons[0].startswith("Too little data: 29 query windows, needed 30")
    assert judged(a_proof(FEWEST_TASKS, spread=1e-3)).outcome == "PASS"


def test_no_query_window_at_all_is_no_verdict_and_no_error():
    empty = AdaptationProof(
        adapted=np.empty((0, 3)), parent=np.empty(0), fine_tuned=np.empty(0), fine_tune_step_size=0.1, steps=2
    )
    verdict = judged(empty)
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.metrics["adaptation_curve"] == []
    assert verdict.criterion("over_stage_2").value is None
    assert verdict.lines()


@pytest.mark.parametrize(
    ("proof", "missed"),
    [
        (a_proof(parent=1.5), "over_stage_2"),
        (a_proof(fine_tuned=1.5), "over_fine_tune"),
        # It was better before it adapted.
        (a_proof(curve=(1.5, 1.6, 1.0)), "over_unadapted"),
    ],
)
def test_falling_behind_any_one_of_the_three_fails(proof, missed):
    """Adaptation that loses to plain fine-tuning has not earned its place, whatever else it beats."""
    verdict = judged(proof)
    assert verdict.outcome == "FAIL"
    assert [reason.split()[0] for reason in verdict.reasons if "is missed" in reason] == [missed]
    assert verdict.criterion(missed).value == pytest.approx(-0.5)


def test_a_lead_within_the_noise_is_inconclusive_and_says_how_far_it_is():
    # Mean 1 bp, deviation of a difference about 14 bp, 40 windows: t is below one.
    verdict = judged(a_proof(spread=10.0))
    assert verdict.outcome == "INCONCLUSIVE"
    assert any("is positive, but not shown to be" in reason for reason in verdict.reasons)
    assert any("needed 0.025" in reason for reason in verdict.reasons)


def test_every_further_look_asks_for_more():
    # t is about 2.2 for each comparison: enough for alpha 0.05 / 2, not for 0.05 / 30.
    proof = a_proof(spread=1.9)
    assert judged(proof, attempt=1).outcome == "PASS"
    fifth = judged(proof, attempt=5)
    assert fifth.outcome == "INCONCLUSIVE"
    assert fifth.alpha_used == pytest.approx(0.05 / 30)
    assert fifth.attempt == 5


def test_adapting_too_slowly_fails():
    verdict = judged(a_proof(curve=(0.0, -0.5, 1.0)), min_adaptation_speed=1)
    assert verdict.outcome == "FAIL"
    assert verdict.criterion("adaptation_speed").value == 2
    assert verdict.reasons[0].startswith("adaptation_speed is missed")
    assert judged(a_proof(curve=(0.0, -0.5, 1.0)), min_adaptation_speed=2).outcome == "PASS"


def test_never_rising_above_the_unadapted_policy_fails_without_a_number():
    verdict = judged(a_proof(curve=(1.0, 0.5, 0.6)))
    assert verdict.outcome == "FAIL"
    speed = verdict.criterion("adaptation_speed")
    assert (speed.value, speed.met) == (None, False)
    assert "not above the unadapted policy within 2 episodes" in speed.note


def test_a_speed_that_is_not_asked_for_is_not_judged():
    verdict = judged(a_proof(curve=(0.0, -0.5, 1.0)), min_adaptation_speed=None)
    assert verdict.outcome == "PASS"
    with pytest.raises(KeyError):
        verdict.criterion("adaptation_speed")


def test_another_symbols_performance_counts_where_it_can_be_measured():
    good = CrossSymbol(ratio=0.9, symbol="B", note="adapted growth on B")
    poor = CrossSymbol(ratio=0.8, symbol="B", note="adapted growth on B")
    assert judged(a_proof(), cross=good).outcome == "PASS"
    verdict = judged(a_proof(), cross=poor)
    assert verdict.outcome == "FAIL"
    assert verdict.criterion("cross_symbol").value == 0.8
    assert judged(a_proof(), cross=poor, min_cross_symbol_performance=None).outcome == "PASS"


def test_what_cannot_be_measured_is_said_and_does_not_fail():
    verdict = judged(a_proof())
    assert verdict.outcome == "PASS"
    assert verdict.reasons == ("min_cross_symbol_performance is not measurable: there is one symbol only.",)


def test_the_curve_of_mean_growth_is_kept_for_the_report():
    metrics = judged(a_proof()).metrics
    assert metrics["adaptation_curve"] == pytest.approx([0.0, 0.5 * BP, 1.0 * BP], abs=1e-15)
    assert metrics["tasks"] == 40
    assert metrics["fine_tune_step_size"] == 0.1
    assert metrics["stage_2"] == pytest.approx(0.0, abs=1e-15)


def test_the_verdict_survives_being_written_down():
    verdict = judged(a_proof(spread=10.0), cross=CrossSymbol(ratio=0.9, symbol="B", note="n"))
    assert Verdict.from_dict(verdict.to_dict()) == verdict
