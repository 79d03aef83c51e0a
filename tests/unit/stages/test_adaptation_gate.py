"""The gate after stage 3: four comparisons, two controls, two numbers, three verdicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rl.stages.adaptation_gate import FEWEST_TASKS, adaptation_verdict, interquartile_mean
from rl.stages.adaptation_proof import AdaptationProof, CrossSymbol, Placebo, PlainSteps
from rl.stages.gates import Verdict
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
    other_support: float | None = 0.0,
    random_start: float = 0.0,
    buy_and_hold: float = 0.0,
    on_shuffled_bars: float = 0.0,
    spread: float = 1.0,
) -> AdaptationProof:
    """Return a proof whose means are these, in bp per bar; differences between the columns vary by `spread`.

    The curve begins at 0 steps and rises by one; `on_shuffled_bars` is what adapting adds there to everything.
    """

    def growth(mean: float, seed: int) -> np.ndarray:
        return BP * (mean + noise(tasks, spread, seed))

    return AdaptationProof(
        steps=len(curve) - 1,
        curve_steps=tuple(range(len(curve))),
        adapted=np.column_stack([growth(mean, step) for step, mean in enumerate(curve)]),
        parent=growth(parent, 11),
        fine_tuned=growth(fine_tuned, 12),
        fine_tune=PlainSteps(size=0.1, adapt="all"),
        random_start=growth(random_start, 13),
        random_start_steps=PlainSteps(size=3.0, adapt="heads"),
        buy_and_hold=growth(buy_and_hold, 14),
        other_support=None if other_support is None else growth(other_support, 15),
        placebo=None
        if other_support is None
        else Placebo(
            adapted=growth(on_shuffled_bars, 16),
            unadapted=growth(0.0, 17),
            parent=growth(0.0, 18),
            other_support=growth(0.0, 19),
        ),
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


DECIDING = ("over_stage_2", "over_fine_tune", "over_unadapted", "over_other_support")


def test_adaptation_that_beats_all_four_comparisons_passes():
    verdict = judged(a_proof())
    assert (verdict.outcome, verdict.level, verdict.stage) == ("PASS", "adaptation", "maml")
    for name in DECIDING:
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
    none = np.empty(0)
    empty = replace(
        a_proof(), adapted=np.empty((0, 3)), parent=none, fine_tuned=none, random_start=none, buy_and_hold=none,
        other_support=None, placebo=None,
    )  # fmt: skip
    verdict = judged(empty)
    assert verdict.outcome == "INCONCLUSIVE"
    assert [each["mean"] for each in verdict.metrics["adaptation_curve"]] == [None, None, None]
    assert verdict.criterion("over_stage_2").value is None
    assert verdict.lines()


@pytest.mark.parametrize(
    ("proof", "missed"),
    [
        (a_proof(parent=1.5), "over_stage_2"),
        (a_proof(fine_tuned=1.5), "over_fine_tune"),
        # It was better before it adapted, though the first step was worse still.
        (a_proof(curve=(1.5, 0.6, 1.0)), "over_unadapted"),
        # Any other bars would have done.
        (a_proof(other_support=1.5), "over_other_support"),
    ],
)
def test_falling_behind_any_one_of_the_four_fails(proof, missed):
    """Adaptation that loses to plain fine-tuning has not earned its place, whatever else it beats."""
    verdict = judged(proof, min_adaptation_speed=None)
    assert verdict.outcome == "FAIL"
    assert missed_by(verdict) == [missed]
    assert verdict.criterion(missed).value == pytest.approx(-0.5)


def missed_by(verdict: Verdict) -> list[str]:
    return [reason.split()[0] for reason in verdict.reasons if "is missed" in reason]


@pytest.mark.parametrize(
    ("behind", "unsure"),
    [
        ({"parent": 0.9}, "over_stage_2"),
        ({"fine_tuned": 0.9}, "over_fine_tune"),
        ({"curve": (0.9, 0.5, 1.0)}, "over_unadapted"),
        ({"other_support": 0.9}, "over_other_support"),
    ],
)
def test_each_of_the_four_has_to_be_shown(behind, unsure):
    # A lead of 0.1 bp with a deviation of about 1.4 bp over 40 windows: t is below one half.
    verdict = judged(a_proof(**behind))
    assert verdict.outcome == "INCONCLUSIVE"
    assert [reason.split()[0] for reason in verdict.reasons if "not shown to be" in reason] == [unsure]


@pytest.mark.parametrize(("behind", "name"), [("parent", "over_stage_2"), ("fine_tuned", "over_fine_tune")])
def test_a_lead_that_a_few_windows_make_is_not_shown(behind, name):
    """30 windows lost 0.1 bp each and 10 won 2 bp: the mean is shown to be above zero, yet most windows lost."""
    lead = np.where(np.arange(40) < 30, -0.1, 2.0)
    proof = a_proof()
    verdict = judged(replace(proof, **{behind: proof.after(2) - BP * lead}))
    assert verdict.criterion(name).value == pytest.approx(0.425)
    assert verdict.criterion(name).lower > 0.0
    # Ten windows are left out at each end: those that won, and ten that lost 0.1 bp as the twenty in the middle did.
    assert verdict.criterion(f"{name}_iqm").value == pytest.approx(-0.1)
    assert compared(verdict)[name]["interquartile_mean"] == pytest.approx(-0.1 * BP)
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.reasons[0].startswith(f"{name}_iqm is -0.1 bp: a few windows make the mean")


def test_the_interquartile_mean_leaves_out_a_quarter_of_the_windows_at_each_end():
    # Of 1, 2, …, 8 and 100 two are left out at each end (a quarter of nine, rounded down): 3, 4, 5, 6, 7.
    values = np.array([100.0, 4, 2, 8, 6, 1, 3, 5, 7])
    assert interquartile_mean(values) == 5.0
    assert np.isnan(interquartile_mean(np.empty(0)))


# --- controls -------------------------------------------------------------------------------------------------------


def test_growth_may_fall_off_with_steps_by_no_more_than_a_standard_error():
    """Adapting for as long as the plan says must not undo what the first step gained."""
    # The difference between steps 2 and 1 has the deviation of the two noises; its standard error over 40 windows:
    error = (noise(40, 1.0, 2) - noise(40, 1.0, 1)).std(ddof=1) / np.sqrt(40)
    within, beyond = (judged(a_proof(curve=(0.0, 1.0 + share * error, 1.0))) for share in (0.99, 1.01))
    assert within.outcome == "PASS"
    assert within.criterion("steadiness").threshold == pytest.approx(-error)
    assert within.criterion("steadiness").value == pytest.approx(-0.99 * error)
    assert beyond.outcome == "FAIL"
    assert missed_by(beyond) == ["steadiness"]


def test_one_step_cannot_fall_off():
    assert judged(a_proof(curve=(0.0, 1.0))).criterion("steadiness").met


def test_a_placebo_that_passes_fails_the_gate():
    """Where the order of bars is random nothing can be adapted to; what shows there anyway is a fault, not an edge."""
    verdict = judged(a_proof(on_shuffled_bars=1.0))
    assert verdict.outcome == "FAIL"
    assert missed_by(verdict) == ["placebo"]
    assert verdict.criterion("placebo").value < 0.025


@pytest.mark.parametrize("name", ["parent", "unadapted", "other_support"])
def test_a_placebo_passes_only_if_it_shows_all_that_is_asked(name):
    proof = a_proof(on_shuffled_bars=1.0)
    level = replace(proof.placebo, **{name: proof.placebo.adapted})
    assert judged(replace(proof, placebo=level)).outcome == "PASS"


def test_the_placebo_is_held_to_the_alpha_of_the_look():
    # p of each of its differences is between 0.05 / 30 and 0.05 / 2.
    proof = a_proof(on_shuffled_bars=0.6, spread=1.1)
    assert 0.05 / 30 < judged(proof).criterion("placebo").value < 0.05 / 2
    assert not judged(proof, attempt=1).criterion("placebo").met
    assert judged(proof, attempt=5).criterion("placebo").met


def test_without_another_tasks_support_there_is_no_verdict():
    verdict = judged(a_proof(other_support=None))
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.reasons[0].startswith(
        "over_other_support and placebo cannot be computed: supports are so long"
    )


# --- what is shown and decides nothing ------------------------------------------------------------------------------


@pytest.mark.parametrize("better", ["random_start", "buy_and_hold"])
def test_a_random_start_and_holding_are_shown_and_decide_nothing(better):
    verdict = judged(a_proof(**{better: 1.5}))
    assert verdict.outcome == "PASS"
    shown = compared(verdict)[f"over_{better}"]
    assert shown["difference"] == pytest.approx(-0.5 * BP)
    assert shown["baseline"] == pytest.approx(1.5 * BP)
    assert shown["decides"] is False


def compared(verdict: Verdict) -> dict[str, dict]:
    return {each["name"]: each for each in verdict.metrics["comparisons"]}


def test_every_comparison_is_shown_with_its_test():
    verdict = judged(a_proof())
    found = compared(verdict)
    assert [name for name, each in found.items() if each["decides"]] == list(DECIDING)
    assert list(found)[4:] == ["over_random_start", "over_flat", "over_buy_and_hold"]
    for name in DECIDING:
        assert BP * verdict.criterion(name).lower == pytest.approx(found[name]["lower"])
    # Doing nothing earns nothing: its difference is the adapted growth itself, mean 1 bp, deviation 1 bp, 40 windows.
    flat = found["over_flat"]
    assert (flat["baseline"], flat["difference"]) == (0.0, pytest.approx(BP))
    assert flat["lower"] == pytest.approx(BP * (1.0 - 2.0227 / np.sqrt(40)), abs=1e-8)
    assert 0.0 < flat["p"] < 1e-6


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


def test_the_curve_has_the_mean_and_its_interval_after_each_number_of_steps():
    metrics = judged(a_proof()).metrics
    curve = metrics["adaptation_curve"]
    assert [each["steps"] for each in curve] == [0, 1, 2]
    assert [each["mean"] for each in curve] == pytest.approx([0.0, 0.5 * BP, 1.0 * BP], abs=1e-15)
    # 40 windows of deviation 1 bp: the 97.5 % point of t with 39 degrees of freedom is 2.0227.
    half = 2.0227 * BP / np.sqrt(40)
    assert [each["upper"] - each["mean"] for each in curve] == pytest.approx([half] * 3, abs=1e-8)
    assert [each["mean"] - each["lower"] for each in curve] == pytest.approx([half] * 3, abs=1e-8)
    assert metrics["tasks"] == 40
    assert metrics["fine_tune"] == {"size": 0.1, "adapt": "all"}
    assert metrics["random_start_steps"] == {"size": 3.0, "adapt": "heads"}


def test_steps_that_only_the_speed_asks_for_are_not_in_the_curve():
    proof = replace(a_proof(curve=(0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)), steps=6)
    assert [each["steps"] for each in judged(proof).metrics["adaptation_curve"]] == [0, 1, 2, 3, 5, 6]


def test_the_verdict_survives_being_written_down():
    verdict = judged(a_proof(spread=10.0), cross=CrossSymbol(ratio=0.9, symbol="B", note="n"))
    assert Verdict.from_dict(verdict.to_dict()) == verdict
