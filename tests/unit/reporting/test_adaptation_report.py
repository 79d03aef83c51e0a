"""What the report says of stage 3, in tables and in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rl.reporting.adaptation_report import adaptation_figures, adaptation_text, adaptation_words
from rl.stages.adaptation_gate import adaptation_verdict
from rl.stages.adaptation_proof import AdaptationProof, CrossSymbol, Placebo, PlainSteps
from rl.stages.gates import Verdict
from rl.stages.plan import Criteria

BP = 1e-4
ASKED = Criteria(
    min_win_rate=None,
    min_profit_factor=None,
    max_drawdown=None,
    min_trades=100,
    min_sessions=20,
    min_episodes=0,
    min_adaptation_speed=3,
    min_cross_symbol_performance=None,
)


def wave(mean: float, tasks: int = 40) -> np.ndarray:
    """Return growths with this mean in bp that are by turns 1 bp above and below it."""
    return BP * (mean + np.where(np.arange(tasks) % 2 == 0, 1.0, -1.0))


def steady(mean: float, tasks: int = 40) -> np.ndarray:
    """Return growths of this mean in bp that are apart from `wave` by turns."""
    return np.full(tasks, BP * mean)


def a_proof(tasks: int = 40) -> AdaptationProof:
    """Return adapted growth of 1 bp: shown above most, by chance above the random start, behind holding."""
    return AdaptationProof(
        steps=7,
        curve_steps=(0, 1, 2, 3, 4, 5, 7, 14),
        adapted=np.column_stack([wave(each, tasks) for each in (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 1.0, 0.9)]),
        parent=steady(-0.5, tasks),
        fine_tuned=steady(0.0, tasks),
        fine_tune=PlainSteps(size=0.1, adapt="all"),
        random_start=steady(0.9, tasks),
        random_start_steps=PlainSteps(size=3.0, adapt="heads"),
        buy_and_hold=steady(1.5, tasks),
        other_support=steady(0.1, tasks),
        placebo=Placebo(
            adapted=wave(-0.2, tasks),
            unadapted=steady(-0.1, tasks),
            parent=steady(-0.1, tasks),
            other_support=steady(-0.2, tasks),
        ),
    )


def judged(proof: AdaptationProof) -> Verdict:
    return adaptation_verdict(
        proof,
        ASKED,
        CrossSymbol(ratio=None, symbol=None, note="there is one symbol only"),
        symbol="A_15",
        window={"name": "validation"},
        evaluation_steps=5,
        attempt=1,
        alpha=0.05,
    )


def test_the_words_say_beyond_what_adapting_is_shown_to_help():
    assert adaptation_words(judged(a_proof())) == [
        "Adapting is shown to earn more than the stage-2 model, plain fine-tuning of it, its own start, itself "
        "adapted to other bars and doing nothing.",
        "It earned more than a random start, fine-tuned, by no more than chance can explain.",
        "It earned no more than holding.",
    ]


def test_where_nothing_is_shown_the_words_say_so():
    same = a_proof()
    level = replace(
        same, adapted=np.column_stack([wave(-9.0)] * 8), parent=wave(-9.0), other_support=steady(-9.1)
    )
    words = adaptation_words(judged(level))
    assert words[0] == "Adapting is not shown to earn more than anything it was compared with."
    assert "It earned more than itself adapted to other bars, by no more than chance can explain." in words


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"other_support": steady(2.0)}, "other bars do as well"),
        (
            {"adapted": np.column_stack([steady(each) for each in (0, 3, 3, 3, 3, 3, 1, 1)])},
            "from 1 to 7 steps",
        ),
        (
            {
                "placebo": Placebo(
                    adapted=steady(1), unadapted=steady(0), parent=steady(0), other_support=steady(0)
                )
            },
            "The same is found on shuffled bars",
        ),
    ],
)
def test_a_control_that_fails_is_told_in_words(changed, says):
    assert says not in " ".join(adaptation_words(judged(a_proof())))
    assert says in " ".join(adaptation_words(judged(replace(a_proof(), **changed))))


def test_a_lead_that_few_windows_make_is_told_in_words():
    lead = np.where(np.arange(40) == 0, 60.0, -0.1)
    proof = a_proof()
    words = " ".join(adaptation_words(judged(replace(proof, parent=proof.after(7) - BP * lead))))
    assert "A few windows make its lead over the stage-2 model: in the middle half there is none." in words
    assert "A few windows" not in " ".join(adaptation_words(judged(proof)))


def test_without_controls_the_words_say_what_is_missing():
    words = adaptation_words(judged(replace(a_proof(), other_support=None, placebo=None)))
    assert words[-1] == "It could not be compared with itself adapted to other bars."


def test_too_few_query_windows_say_nothing_however_good_they_look():
    assert adaptation_words(judged(a_proof(tasks=29))) == [
        "Whether adapting helps here cannot be said: 29 query windows, 30 are needed."
    ]


def test_the_text_shows_curve_and_comparisons_in_basis_points():
    text = adaptation_text(judged(a_proof()))
    rows = [line.split() for line in text]
    assert [row[0] for row in rows if row and row[0].isdigit()] == ["0", "1", "2", "3", "5", "7", "14"]
    # Deviation 1.0127 bp over 40 windows, 2.0227 standard errors to each side.
    assert ["7", "1.0000", "0.6761", "1.3239"] in rows
    (fine_tune,) = (line for line in text if "plain fine-tuning of it" in line and "decides" in line)
    # Mean and interquartile mean of growths that are by turns 0 and 2 bp.
    assert fine_tune.split()[-6:-3] == ["0.0000", "1.0000", "1.0000"]
    (holding,) = (line for line in text if line.split()[:1] == ["holding"])
    assert holding.split()[1:3] == ["1.5000", "-0.5000"]
    assert holding.split()[-1] == "shown"
    assert "adaptation over 40 query windows" in text[0]
    assert " ".join(adaptation_words(judged(a_proof()))) in " ".join(line.strip() for line in text)
    assert max(map(len, text)) <= 120


def test_the_figures_hold_the_same_as_plain_values():
    verdict = judged(a_proof())
    found = adaptation_figures(verdict)
    assert found["query_windows"] == 40
    assert found["words"] == adaptation_words(verdict)
    assert [each["mean"] for each in found["curve"]] == pytest.approx(
        [BP * mean for mean in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 0.9)]
    )
    assert list(found["controls"]) == [
        "over_other_support",
        "steadiness",
        "placebo",
        "over_stage_2_iqm",
        "over_fine_tune_iqm",
    ]
    assert all(each["met"] for each in found["controls"].values())
    assert found["controls"]["over_other_support"]["value"] == pytest.approx(0.9)
    assert found["fine_tune"] == {"size": 0.1, "adapt": "all"}
    assert found["random_start_steps"] == {"size": 3.0, "adapt": "heads"}


def test_without_a_query_window_the_text_says_so():
    assert adaptation_text(judged(replace(a_proof(tasks=0), other_support=None, placebo=None))) == [
        "  adaptation: no query window fits into the validation window"
    ]
