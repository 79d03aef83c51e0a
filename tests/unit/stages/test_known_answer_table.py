"""Marks are judged on the mean over seeds, and what is too good is no better than what is too bad."""

from __future__ import annotations

from typing import Any

import pytest

from rl.common.errors import UsageError
from rl.stages.known_answer import KnownMarket
from rl.stages.known_answer_table import (
    ROWS,
    Cell,
    JudgedRow,
    Row,
    above,
    above_random_start,
    at_least,
    chosen_rows,
    judged,
    learns_nothing,
    loses_at_most,
    not_below_momentum,
    shares_information,
    unadapted_at_most,
)


def a_cell(stage: str = "ppo", seed: int = 0, **changes: Any) -> Cell:
    figures: dict[str, Any] = {
        "earned": 0.9,
        "oracle": 1.0,
        "error": 0.01,
        "earned_error": 0.02,
        "momentum": 0.5,
        "trades_per_session": 3.0,
        "cpu_seconds": 5.0,
    }
    return Cell(row="here", stage=stage, seed=seed, steps=1000, **(figures | changes))


def row_with(*marks, measure="share") -> Row:
    return Row(name="here", known=KnownMarket(kind="planted", cost_bp=0.5), measure=measure, marks=marks)


def found(row: Row, **cells: list[Cell]) -> JudgedRow:
    return judged(row, cells)


def met(row: Row, text: str, **cells: list[Cell]) -> bool:
    judged_row = found(row, **cells)
    (answer,) = [stage.marks[text] for stage in judged_row.stages if text in stage.marks]
    return answer


def earning(*amounts: float, stage: str = "ppo", **changes: Any) -> list[Cell]:
    return [a_cell(stage, seed, earned=amount, **changes) for seed, amount in enumerate(amounts)]


def test_a_share_is_asked_of_the_mean_not_of_every_seed():
    row = row_with(at_least("ppo", 0.90))
    assert met(row, "≥ 0.90", ppo=earning(0.86, 0.96))
    assert not met(row, "≥ 0.90", ppo=earning(0.86, 0.93))
    stage = found(row, ppo=earning(0.86, 0.96)).stages[0]
    assert (stage.mean, stage.lowest, stage.highest) == (pytest.approx(0.91), 0.86, 0.96)


def test_the_share_of_each_seed_is_that_of_its_own_path():
    stage = found(
        row_with(), ppo=[a_cell(seed=0, earned=1.0, oracle=2.0), a_cell(seed=1, earned=1.0)]
    ).stages[0]
    assert (stage.mean, stage.oracle) == (0.75, 1.5)


def test_a_mark_that_is_missed_fails_the_row():
    row = row_with(at_least("ppo", 0.90), at_least("moe", 0.90))
    assert found(row, ppo=earning(0.95), moe=earning(0.95, stage="moe")).passed
    assert not found(row, ppo=earning(0.95), moe=earning(0.85, stage="moe")).passed


def test_a_stage_that_was_not_measured_is_not_judged():
    row = row_with(at_least("ppo", 0.90), at_least("moe", 0.90))
    assert found(row, ppo=earning(0.95)).passed


def test_more_than_the_best_policy_by_more_than_chance_is_a_fault():
    """Two seeds of error 0.01 have a mean of error 0.0071; four of those are 0.028."""
    assert found(row_with(), ppo=earning(1.027, 1.027)).passed
    assert not found(row_with(), ppo=earning(1.030, 1.030)).passed


def test_on_noise_losses_are_limited_and_gains_beyond_chance_refused():
    row = row_with(loses_at_most("ppo", 0.05), measure="excess")
    text = "≥ −0.05 bp"
    assert met(row, text, ppo=earning(-0.09, -0.01, oracle=0.0))
    assert not met(row, text, ppo=earning(-0.09, -0.02, oracle=0.0))
    assert found(row, ppo=earning(0.02, oracle=0.0)).passed
    assert not found(row, ppo=earning(0.05, oracle=0.0)).passed


def test_where_holding_is_best_what_counts_is_the_excess_over_it():
    row = row_with(loses_at_most("ppo", 0.05), measure="excess")
    assert met(row, "≥ −0.05 bp", ppo=earning(0.0, oracle=0.03))
    assert not met(row, "≥ −0.05 bp", ppo=earning(-0.03, oracle=0.03))


def test_shuffled_features_may_teach_nothing_beyond_two_standard_errors():
    """Four seeds of error 0.02 have a mean of error 0.01."""
    row = row_with(learns_nothing("ppo"), measure="earned")
    assert met(row, "≤ 2 SE", ppo=earning(0.019, 0.019, 0.019, 0.019))
    assert not met(row, "≤ 2 SE", ppo=earning(0.021, 0.021, 0.021, 0.021))
    assert met(row, "≤ 2 SE", ppo=earning(-0.3))


def test_the_order_of_two_averages_is_a_rival():
    row = row_with(not_below_momentum("ppo"))
    assert met(row, "≥ 5/20 averages", ppo=earning(0.7, 0.9, momentum=0.8))
    assert not met(row, "≥ 5/20 averages", ppo=earning(0.7, 0.9, momentum=0.81))


def test_one_stage_is_compared_with_another_where_both_were_measured():
    row = row_with(above("moe", "ppo"))
    assert met(row, "> PPO", ppo=earning(0.80), moe=earning(0.81, stage="moe"))
    assert not met(row, "> PPO", ppo=earning(0.81), moe=earning(0.81, stage="moe"))
    assert "> PPO" not in found(row, moe=earning(0.81, stage="moe")).stages[0].marks


def mixtures(*information: tuple[float, float]) -> list[Cell]:
    return [
        a_cell("moe", seed, experts={"information": {"nats": nats, "p": p}})
        for seed, (nats, p) in enumerate(information)
    ]


def test_experts_share_information_in_the_mean_and_beyond_chance_with_every_seed():
    row = row_with(shares_information("moe", 0.3, 0.05))
    text = "information ≥ 0.3 nats, p < 0.05"
    assert met(row, text, moe=mixtures((0.2, 0.01), (0.4, 0.04)))
    assert not met(row, text, moe=mixtures((0.2, 0.01), (0.39, 0.04)))
    assert not met(row, text, moe=mixtures((0.5, 0.01), (0.5, 0.05)))
    stage = found(row, moe=mixtures((0.2, 0.01), (0.4, 0.04))).stages[0]
    assert (stage.nats, stage.largest_p) == (pytest.approx(0.3), 0.04)


def test_what_stage_3_does_without_adapting_stands_in_the_rows_measure():
    cells = [a_cell("maml", seed, unadapted=amount, oracle=2.0) for seed, amount in enumerate((0.5, 1.5))]
    assert found(row_with(), maml=cells).stages[0].unadapted == 0.5


def on_the_family(**changes: Any) -> Cell:
    figures = {"earned": 0.6, "oracle": 0.8, "unadapted": 0.01, "random_start": 0.5}
    curve = {"0": 0.01, "1": 0.2, "7": 0.6}
    return a_cell("maml", after_steps=curve, **(figures | changes))


def test_adaptation_has_to_earn_what_the_start_does_not():
    row = row_with(at_least("maml", 0.50), unadapted_at_most("maml", 0.05))
    assert found(row, maml=[on_the_family()]).passed
    # Half of what the best policy earns is nothing if the start earns it without adapting.
    assert not found(row, maml=[on_the_family(unadapted=0.05)]).passed
    stage = found(row, maml=[on_the_family(), on_the_family(oracle=0.4)]).stages[0]
    assert stage.after_steps == pytest.approx({"0": 0.01875, "1": 0.375, "7": 1.125})
    assert stage.random_start == pytest.approx(0.9375)


def test_adaptation_is_compared_with_as_many_steps_from_a_random_start():
    row = row_with(above_random_start("maml"))
    assert met(row, "> random start", maml=[on_the_family()])
    assert not met(row, "> random start", maml=[on_the_family(random_start=0.6)])


# --- the rows ---------------------------------------------------------------------------------------------------------


def test_the_table_holds_every_market_at_its_cost_with_its_marks():
    asked = {
        row.name: (
            row.known.kind,
            dict(row.known.params),
            row.known.cost_bp,
            row.steps.get("ppo"),
            [f"{mark.stage} {mark.text}" for mark in row.marks],
        )
        for row in ROWS.values()
    }
    noise = [f"{stage} ≥ −0.05 bp" for stage in ("ppo", "moe", "maml")]
    wide = asked.pop("moe_wide")
    assert wide[:4] == ("moe_wide", {}, 0.25, 2_600_000)
    assert {"moe ≥ 0.80", "moe > PPO", "moe > dense", "moe information ≥ 0.3 nats, p < 0.05"} <= set(wide[4])
    assert asked == {
        "ar1": ("ar1", {"phi": -0.3}, 0.5, 330_000, ["ppo ≥ 0.90"]),
        "ar1_weak": ("ar1", {"phi": -0.1}, 0.5, 330_000, ["ppo ≥ 0.60"]),
        "ou": ("ou", {}, 1.0, 330_000, ["ppo ≥ 0.90"]),
        "hamilton": ("hamilton", {}, 0.5, 330_000, ["ppo ≥ 0.90", "ppo ≥ 5/20 averages"]),
        "planted": ("planted", {"r2": 0.02, "rho": 0.95}, 0.5, 330_000, ["ppo ≥ 0.90"]),
        "planted_weak": ("planted", {"r2": 0.002, "rho": 0.98}, 0.5, 330_000, ["ppo ≥ 0.60"]),
        "momrev": ("momrev", {}, 0.5, 655_000, ["ppo ≥ 0.90"]),
        "task": ("task", {"theta": 0.7}, 0.25, 330_000, ["ppo ≥ 0.90"]),
        "moe4": ("moe4", {}, 0.25, 650_000, ["moe ≥ 0.85"]),
        "noise_gauss": ("noise_gauss", {}, 0.5, 330_000, noise),
        "noise_garch": ("noise_garch", {}, 0.5, 330_000, noise),
        "noise_drift": ("noise_drift", {}, 0.5, 330_000, noise),
        "bounce": ("bounce", {}, 1.0, 330_000, noise),
        "planted_shuffled": (
            "planted",
            {"r2": 0.02, "rho": 0.95},
            0.5,
            330_000,
            ["ppo ≤ 2 SE", "moe ≤ 2 SE"],
        ),
        "family_187": ("task", {}, 0.25, None, ["maml ≥ 0.50", "maml not adapted ≤ 0.05"]),
        "family_47": ("task", {}, 0.25, None, ["maml > random start"]),
    }
    assert [ROWS[name].support_bars for name in ("family_187", "family_47", "task")] == [187, 47, None]


@pytest.mark.parametrize(("name", "steps"), [("moe4", 650_000), ("moe_wide", 2_600_000)])
def test_where_regimes_are_the_point_every_learner_trains_equally_long_in_all(name, steps):
    row = ROWS[name]
    total = {stage: sum(steps for _, steps in row.line(stage)) for stage in row.stages if stage != "maml"}
    assert set(total.values()) == {steps}


def test_rows_are_chosen_by_name_and_stand_in_the_tables_order():
    assert [row.name for row in chosen_rows(["ou", "ar1"])] == ["ar1", "ou"]
    assert chosen_rows(None) == tuple(ROWS.values())
    with pytest.raises(UsageError, match=r"no row 'noise_gaus'\. Did you mean: noise_gauss"):
        chosen_rows(["noise_gaus"])
