"""The learning table as Markdown, from figures worked out by hand."""

from __future__ import annotations

from typing import Any

from rl.reporting.learning_table import learning_table, missed_marks


def a_stage(
    stage: str, mean: float, *, marks: dict[str, bool] | None = None, **changes: Any
) -> dict[str, Any]:
    return {
        "stage": stage,
        "mean": mean,
        "lowest": mean - 0.02,
        "highest": mean + 0.01,
        "oracle": 0.618,
        "unadapted": None,
        "nats": None,
        "largest_p": None,
        "after_steps": {},
        "random_start": None,
        "cpu_seconds": 25.0,
        "marks": {"≤ best + 4 SE": True, **(marks or {})},
        **changes,
    }


def a_row(name: str, *stages: dict[str, Any], **changes: Any) -> dict[str, Any]:
    steps = {"ppo": 330_000, "moe": 330_000, "maml": 30}
    return {
        "row": name,
        "cost_bp": 0.5,
        "measure": "share",
        "steps": steps,
        "stages": list(stages),
        **changes,
    }


def lines_of(*rows: dict[str, Any]) -> list[str]:
    return learning_table({"rows": rows, "seeds": [0, 1, 2, 3, 4], "cpu_seconds": 7140.0})


def test_a_share_stands_with_its_range_over_seeds_and_its_marks():
    row = a_row(
        "planted",
        a_stage("ppo", 0.97, marks={"≥ 0.90": True}),
        a_stage("moe", 0.98),
        a_stage("maml", 0.96, unadapted=0.95),
    )
    assert lines_of(row)[-1] == (
        "| `planted` | 0.50 | 0.618 | 0.97 (0.95 to 0.98) | 0.98 (0.96 to 0.99) | 0.96 (0.94 to 0.97) | 0.95 "
        "| PPO ≥ 0.90 | yes |"
    )


def test_bp_a_bar_stand_with_their_unit_and_a_real_minus():
    row = a_row(
        "noise_garch",
        a_stage("ppo", -0.005, marks={"≥ −0.05 bp": True}),
        a_stage("moe", -0.07, marks={"≥ −0.05 bp": False}),
        measure="excess",
    )
    assert "−0.005 bp (−0.025 to 0.005)" in lines_of(row)[-1]
    assert lines_of(row)[-1].endswith("| – | – | PPO, mixture ≥ −0.05 bp | **no**: mixture ≥ −0.05 bp |")
    assert missed_marks(row) == ["mixture ≥ −0.05 bp"]


def test_a_loss_too_small_to_show_has_no_sign():
    row = a_row("noise_garch", a_stage("ppo", -0.0001, lowest=-0.0002, highest=0.0), measure="excess")
    assert "| 0.000 bp (0.000 to 0.000) |" in lines_of(row)[-1]


def test_what_is_too_good_is_named_though_its_mark_stands_in_no_row():
    row = a_row("ou", a_stage("ppo", 1.4, marks={"≤ best + 4 SE": False}))
    assert lines_of(row)[-1].endswith("| – | **no**: PPO ≤ best + 4 SE |")


def test_the_heading_says_how_long_was_trained_and_measured():
    long = a_row("momrev", a_stage("ppo", 0.95), steps={"ppo": 655_000, "moe": 655_000, "maml": 30})
    assert lines_of(a_row("ar1", a_stage("ppo", 0.9)), a_row("ou", a_stage("ppo", 0.9)), long)[0] == (
        "Mean over 5 seeds (lowest to highest). Steps of stage 1: 330,000 (`momrev` 655,000). "
        "Iterations of stage 3: 30. Measured in 119 minutes of processor time."
    )


def test_beside_the_mixture_stands_the_one_network_of_as_many_parameters():
    row = a_row(
        "moe_wide",
        a_stage("ppo", 0.55),
        a_stage("dense", 0.60),
        a_stage("moe", 0.82, nats=0.71, largest_p=0.001),
        steps={"ppo": 2_620_000, "dense": 2_290_000, "moe": 2_290_000},
    )
    assert lines_of(row)[-1] == (
        "| `moe_wide` | 2,620,000 | 0.55 (0.53 to 0.56) | 0.60 (0.58 to 0.61) | 0.82 (0.80 to 0.83) | 0.71 | 0.001 |"
    )


def test_the_task_family_is_shown_step_by_step_beside_a_random_start():
    curve = {"0": -0.01, "1": 0.2, "7": 0.71}
    row = a_row(
        "family_187",
        a_stage("maml", 0.71, unadapted=-0.01, after_steps=curve, random_start=0.55),
        steps={"maml": 150},
        support_bars=187,
    )
    lines = lines_of(a_row("ar1", a_stage("ppo", 0.9)), row)
    assert lines[-3] == "| Row | Support, bars | After 0 | After 1 | After 7 | Random start, after 7 |"
    assert lines[-1] == "| `family_187` | 187 | −0.01 | 0.20 | 0.71 | 0.55 |"
    assert "| – | – | 0.71 (0.69 to 0.72) | −0.01 |" in "\n".join(lines)


def test_rows_of_stage_3_alone_are_not_said_to_have_steps_of_stage_1():
    stage = a_stage("maml", 0.52, after_steps={"0": 0.01, "7": 0.52}, random_start=0.30)
    heading = lines_of(a_row("family_187", stage, steps={"maml": 150}, support_bars=187))[0]
    assert heading == (
        "Mean over 5 seeds (lowest to highest). Iterations of stage 3: 150. Measured in 119 minutes of processor time."
    )
