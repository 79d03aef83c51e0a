"""What the report says about stage 3: the adaptation curve, what it was compared with, and what that means in words."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

from rl.reporting.tables import WIDTH, number, probability, table_lines
from rl.stages.adaptation_gate import FEWEST_TASKS, SAME_SIGN
from rl.stages.gates import Verdict

BASIS_POINTS = 1e4

COMPARED_WITH = {
    "over_stage_2": "the stage-2 model",
    "over_fine_tune": "plain fine-tuning of it",
    "over_unadapted": "its own start",
    "over_other_support": "itself adapted to other bars",
    "over_random_start": "a random start, fine-tuned",
    "over_flat": "doing nothing",
    "over_buy_and_hold": "holding",
}
"""What the adapted policy is compared with, in words, by the name of the comparison."""
CONTROLS = ("over_stage_2_iqm", "over_fine_tune_iqm", "over_other_support", "steadiness", "placebo")
"""Criteria that ask why adapting helps, and how often, rather than whether it does."""


def adaptation_figures(verdict: Verdict) -> dict[str, Any]:
    """Return curve, comparisons, controls and words of an adaptation verdict as plain values.

    Growth is net log growth per bar; the criteria among the controls are in basis points, as in the verdict.
    """
    found = verdict.metrics
    return {
        "query_windows": found["tasks"],
        "inner_loop_steps": found["inner_loop_steps"],
        "curve": found["adaptation_curve"],
        "comparisons": found["comparisons"],
        "fine_tune": found["fine_tune"],
        "random_start_steps": found["random_start_steps"],
        "controls": {
            each.name: {"value": each.value, "threshold": each.threshold, "met": each.met}
            for each in verdict.criteria
            if each.name in CONTROLS
        },
        "placebo": found["placebo"],
        "words": adaptation_words(verdict),
    }


def adaptation_words(verdict: Verdict) -> list[str]:
    """Return in sentences whether adapting helps here, and beyond what."""
    found = verdict.metrics
    if found["tasks"] < FEWEST_TASKS:
        return [
            f"Whether adapting helps here cannot be said: {found['tasks']} query windows, {FEWEST_TASKS} are needed."
        ]
    shown, hoped, behind, unknown = [], [], [], []
    for each in found["comparisons"]:
        known, name = each["difference"] is not None, COMPARED_WITH[each["name"]]
        if not known:
            unknown.append(name)
        elif each["difference"] <= 0.0:
            behind.append(name)
        elif each["lower"] is not None and each["lower"] > 0.0:
            shown.append(name)
        else:
            hoped.append(name)
    sentences = [
        f"Adapting is shown to earn more than {_listed(shown)}."
        if shown
        else "Adapting is not shown to earn more than anything it was compared with."
    ]
    if hoped:
        sentences.append(f"It earned more than {_listed(hoped)}, by no more than chance can explain.")
    if behind:
        sentences.append(f"It earned no more than {_listed(behind)}.")
    if unknown:
        sentences.append(f"It could not be compared with {_listed(unknown)}.")
    return [*sentences, *_of_controls(verdict)]


def _of_controls(verdict: Verdict) -> list[str]:
    steps = verdict.metrics["inner_loop_steps"]
    says = {
        "over_other_support": "What it gains does not come from the bars it adapts to: other bars do as well.",
        "steadiness": f"It loses what it gained as it goes on from 1 to {steps} steps.",
        "placebo": "The same is found on shuffled bars, where nothing can be adapted to: do not believe the figures.",
    }
    told = [says[each.name] for each in verdict.criteria if each.name in says and each.met is False]
    rare = [
        COMPARED_WITH[each["name"]]
        for each in verdict.metrics["comparisons"]
        if each["difference"] is not None
        and each["name"] in SAME_SIGN
        and each["difference"] > 0.0 >= each["interquartile_mean"]
    ]
    if rare:
        told.append(f"A few windows make its lead over {_listed(rare)}: in the middle half there is none.")
    return told


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def adaptation_text(verdict: Verdict) -> list[str]:
    """Return the block of the text report."""
    found = verdict.metrics
    if not found["tasks"]:
        return ["  adaptation: no query window fits into the validation window"]
    curve = [
        [str(each["steps"]), *(_points(each[name]) for name in ("mean", "lower", "upper"))]
        for each in found["adaptation_curve"]
    ]
    compared = [
        [
            COMPARED_WITH[each["name"]],
            *(_points(each[name]) for name in ("baseline", "difference", "interquartile_mean", "lower")),
            probability(each["p"]),
            "decides" if each["decides"] else "shown",
        ]
        for each in found["comparisons"]
    ]
    lines = [
        f"adaptation over {found['tasks']} query windows, net log growth in bp per bar:",
        *table_lines(["steps", "mean", "95 % from", "to"], curve),
        f"adapted by {found['inner_loop_steps']} steps, compared with:",
        *table_lines(
            ["", "it earned", "difference", "middle half", "lower bound", "p", "for PASS"], compared
        ),
        *(line for sentence in adaptation_words(verdict) for line in wrap(sentence, WIDTH)),
    ]
    return [f"  {line}" for line in lines]


def _points(value: float | None) -> str:
    return number(None if value is None else BASIS_POINTS * value, 4)
