"""The learning table: markets with a known best policy, how long each stage learns there, and what it has to reach.

Axes: rows (a market at a cost), stages, seeds. A cell is one stage of one row with one seed; marks are judged on the
mean over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from rl.common.errors import UsageError, nearest
from rl.stages.known_answer import SEEN_SESSIONS, UNSEEN_SESSIONS, KnownMarket

SEEDS = 5
"""Seeds of the table, numbered from 0. Settings are chosen on others, from 50 on."""

STEPS = 330_000
"""Steps of stage 1, and again of stage 2, where a row does not say otherwise."""

LONG_STEPS = 2_600_000
"""Steps in all of each learner of the wide market with four regimes; of the narrow one a quarter of it."""

START_STEPS = 100_000
"""Of them spent on the stage 1 that mixture and dense network grow out of. It has learned next to nothing by then: out
of one that has learned the regimes already, the mixture's experts stay copies (docs/why/mixture.md, Measured)."""

LONG_PASSES = 2
"""Passes over each rollout (`k_epochs`) where a learner trains for `LONG_STEPS`, in place of the plan's six, with which
all three learners fit the noise of their 93,500 bars long before the end."""

META_ITERATIONS = 20
"""Of stage 3. The shipped plan's 150 would take more time than all the rest; within a market nothing changes from task
to task, so there is little for the rest of them to find."""

FAMILY_ITERATIONS = 150
"""Of stage 3 on the task family, where every task differs: those of the shipped plan."""

CHANCE = 4.0
"""Standard errors by which a mean over seeds may lie above the best policy."""

COLUMNS = ("ppo", "dense", "moe", "maml")
"""What is measured of a row, in the order shown: the three stages, and beside the mixture the one network of as many
parameters."""

TITLES = {"ppo": "PPO", "start": "start", "dense": "dense", "moe": "mixture", "maml": "MAML"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one stage of one row learned with one seed."""

    row: str
    stage: str
    seed: int
    steps: int
    """Steps of stages 1 and 2 together; meta-iterations of stage 3."""
    earned: float
    oracle: float
    error: float
    earned_error: float
    momentum: float | None = None
    trades_per_session: float | None = None
    cpu_seconds: float = 0.0
    unadapted: float | None = None
    """Of stage 3: what its start earns on the same bars without adapting."""
    experts: dict[str, Any] | None = None
    """Of a mixture: `specialisation` on the validation window it was chosen on."""
    after_steps: dict[str, float] | None = None
    """Of the task family: what is earned after so many inner steps."""
    random_start: float | None = None
    """Of the task family: what a random start earns after all inner steps."""

    def as_dict(self) -> dict[str, Any]:
        """Return the cell as plain values."""
        return asdict(self)


Cells = Mapping[str, Sequence[Cell]]
"""The cells of one row by stage, a cell for each seed."""

Measure = Literal["share", "excess", "earned"]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What the mean over seeds of one stage has to reach."""

    stage: str
    text: str
    is_met: Callable[[Row, Cells], bool]
    needs: tuple[str, ...] = ()
    """Other stages it is compared with."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One market at one cost."""

    name: str
    known: KnownMarket
    measure: Measure = "share"
    """share of what the best policy earns; excess over it, in bp a bar, where that is nothing or what holding earns;
    or just what is earned, in bp a bar."""
    steps: Mapping[str, int] = field(
        default_factory=lambda: {"ppo": STEPS, "moe": STEPS, "maml": META_ITERATIONS}
    )
    """How long each stage trains, from where its parent stopped."""
    passes: int | None = None
    """Passes over each rollout of stages 1 and 2, `training_params.ppo.k_epochs`; None: the plan's."""
    support_bars: int | None = None
    """Of a row of the task family: bars of each market that may be adapted on. None: one market, that of `known`."""
    shuffle_features: bool = False
    sessions: int = SEEN_SESSIONS
    """Length of the draw to learn from."""
    unseen_sessions: int = UNSEEN_SESSIONS
    """Length of the draw to be judged on."""
    marks: tuple[Mark, ...] = ()

    @property
    def stages(self) -> tuple[str, ...]:
        """The columns that are measured."""
        return tuple(stage for stage in COLUMNS if stage in self.steps)

    def parent(self, stage: str) -> str | None:
        """Return the stage whose model a stage starts from; the task family trains its own."""
        if self.support_bars is not None:
            return None
        first = "start" if "start" in self.steps else "ppo"
        return {"ppo": None, "start": None, "dense": first, "moe": first, "maml": "moe"}[stage]

    def line(self, stage: str) -> tuple[tuple[str, int], ...]:
        """Return the stages a stage grows out of, itself last, and how long each trains."""
        parent = self.parent(stage)
        return (*(self.line(parent) if parent else ()), (stage, self.steps[stage]))

    def figure(self, cell: Cell) -> float:
        """Return a cell's figure in the row's measure."""
        if self.measure == "share":
            return cell.earned / cell.oracle
        return cell.earned - (cell.oracle if self.measure == "excess" else 0.0)

    def mean(self, cells: Sequence[Cell]) -> float:
        """Return the mean figure over seeds."""
        return math.fsum(self.figure(cell) for cell in cells) / len(cells)


def at_least(stage: str, least: float) -> Mark:
    """Ask for a share of the best policy's earnings."""
    return Mark(stage=stage, text=f"≥ {least:.2f}", is_met=lambda row, cells: row.mean(cells[stage]) >= least)


def loses_at_most(stage: str, bp: float) -> Mark:
    """Ask that nothing much is lost where nothing can be earned."""
    return Mark(stage=stage, text=f"≥ −{bp:.2f} bp", is_met=lambda row, cells: row.mean(cells[stage]) >= -bp)


def learns_nothing(stage: str) -> Mark:
    """Ask that nothing is earned beyond chance, two standard errors of the mean over seeds."""

    def is_met(row: Row, cells: Cells) -> bool:
        return row.mean(cells[stage]) <= 2.0 * _error_of_mean([cell.earned_error for cell in cells[stage]])

    return Mark(stage=stage, text="≤ 2 SE", is_met=is_met)


def not_below_momentum(stage: str) -> Mark:
    """Ask for what the order of two averages of the close earns."""

    def is_met(_row: Row, cells: Cells) -> bool:
        return _mean(cells[stage], "earned") >= _mean(cells[stage], "momentum")

    return Mark(stage=stage, text="≥ 5/20 averages", is_met=is_met)


def unadapted_at_most(stage: str, most: float) -> Mark:
    """Ask that the start itself earns next to nothing, so that what is earned is earned by adapting."""

    def is_met(_row: Row, cells: Cells) -> bool:
        return _mean_share(cells[stage], "unadapted") <= most

    return Mark(stage=stage, text=f"not adapted ≤ {most:.2f}", is_met=is_met)


def above_random_start(stage: str) -> Mark:
    """Ask for more than as many steps from a random start earn."""

    def is_met(row: Row, cells: Cells) -> bool:
        return row.mean(cells[stage]) > _mean_share(cells[stage], "random_start")

    return Mark(stage=stage, text="> random start", is_met=is_met)


def _mean_share(cells: Sequence[Cell], name: str) -> float:
    return math.fsum(getattr(cell, name) / cell.oracle for cell in cells) / len(cells)


def above(stage: str, other: str) -> Mark:
    """Ask for more than another stage has, in the mean over seeds."""
    return Mark(
        stage=stage,
        text=f"> {TITLES[other]}",
        is_met=lambda row, cells: row.mean(cells[stage]) > row.mean(cells[other]),
        needs=(other,),
    )


def shares_information(stage: str, nats: float, p: float) -> Mark:
    """Ask that who leads depends on the regime: so many nats in the mean, and beyond chance with every seed."""

    def is_met(_row: Row, cells: Cells) -> bool:
        found = [_information(cell) for cell in cells[stage]]
        enough = math.fsum(each["nats"] for each in found) / len(found) >= nats
        return enough and all(each["p"] < p for each in found)

    return Mark(stage=stage, text=f"information ≥ {nats:.1f} nats, p < {p:.2f}", is_met=is_met)


def _no_better_than_the_best(stage: str) -> Mark:
    """Refuse what is too good: nobody earns more than the best policy but by chance, or by seeing the future."""

    def is_met(_row: Row, cells: Cells) -> bool:
        excess = _mean(cells[stage], "earned") - _mean(cells[stage], "oracle")
        return excess <= CHANCE * _error_of_mean([cell.error for cell in cells[stage]])

    return Mark(stage=stage, text=f"≤ best + {CHANCE:.0f} SE", is_met=is_met)


def _mean(cells: Sequence[Cell], name: str) -> float:
    return math.fsum(getattr(cell, name) for cell in cells) / len(cells)


def _error_of_mean(errors: Sequence[float]) -> float:
    return math.sqrt(math.fsum(error**2 for error in errors)) / len(errors)


def _information(cell: Cell) -> dict[str, float]:
    assert cell.experts is not None, "only a mixture has experts"
    return cell.experts["information"]


# --- the rows ---------------------------------------------------------------------------------------------------------


def _learnable(
    name: str, kind: str, cost_bp: float, least: float, *more: Mark, steps: int = STEPS, **params: float
) -> Row:
    return Row(
        name=name,
        known=KnownMarket(kind=kind, cost_bp=cost_bp, params=params),
        steps={"ppo": steps, "moe": steps, "maml": META_ITERATIONS},
        marks=(at_least("ppo", least), *more),
    )


def _noise(name: str, cost_bp: float) -> Row:
    return Row(
        name=name,
        known=KnownMarket(kind=name, cost_bp=cost_bp),
        measure="excess",
        marks=tuple(loses_at_most(stage, 0.05) for stage in ("ppo", "moe", "maml")),
    )


def _with_regimes(name: str, steps: int, *marks: Mark, passes: int | None = None) -> Row:
    """Return a row on which PPO, the mixture and one network of as many parameters train equally long in all."""
    return Row(
        name=name,
        known=KnownMarket(kind=name, cost_bp=0.25),
        steps={
            "ppo": steps,
            "start": START_STEPS,
            "dense": steps - START_STEPS,
            "moe": steps - START_STEPS,
            "maml": META_ITERATIONS,
        },
        passes=passes,
        marks=marks,
    )


def _family(support_bars: int, *marks: Mark) -> Row:
    return Row(
        name=f"family_{support_bars}",
        known=KnownMarket(kind="task", cost_bp=0.25),
        steps={"maml": FAMILY_ITERATIONS},
        support_bars=support_bars,
        marks=marks,
    )


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        _learnable("ar1", "ar1", 0.5, 0.90, phi=-0.3),
        _learnable("ar1_weak", "ar1", 0.5, 0.60, phi=-0.1),
        _learnable("ou", "ou", 1.0, 0.90),
        _learnable("hamilton", "hamilton", 0.5, 0.90, not_below_momentum("ppo")),
        _learnable("planted", "planted", 0.5, 0.90, r2=0.02, rho=0.95),
        _learnable("planted_weak", "planted", 0.5, 0.60, r2=0.002, rho=0.98),
        _learnable("momrev", "momrev", 0.5, 0.90, steps=655_000),
        _learnable("task", "task", 0.25, 0.90, theta=0.7),
        _with_regimes("moe4", LONG_STEPS // 4, at_least("moe", 0.85)),
        _with_regimes(
            "moe_wide",
            LONG_STEPS,
            at_least("moe", 0.80),
            above("moe", "ppo"),
            above("moe", "dense"),
            shares_information("moe", 0.3, 0.05),
            passes=LONG_PASSES,
        ),
        _noise("noise_gauss", 0.5),
        _noise("noise_garch", 0.5),
        _noise("noise_drift", 0.5),
        _noise("bounce", 1.0),
        Row(
            name="planted_shuffled",
            known=KnownMarket(kind="planted", cost_bp=0.5, params={"r2": 0.02, "rho": 0.95}),
            measure="earned",
            # Stage 3 adapts on bars of the unseen draw, whose features are in order; it may learn from those.
            steps={"ppo": STEPS, "moe": STEPS},
            shuffle_features=True,
            marks=(learns_nothing("ppo"), learns_nothing("moe")),
        ),
        _family(187, at_least("maml", 0.50), unadapted_at_most("maml", 0.05)),
        _family(47, above_random_start("maml")),
    )
}
"""Rows by name, in the order shown."""


def chosen_rows(names: Sequence[str] | None) -> tuple[Row, ...]:
    """Return the rows named, in the order of the table; all of them where none is.

    Raises:
        UsageError: There is no such row.
    """
    for name in names or ():
        if name not in ROWS:
            close = nearest(name, ROWS)
            hint = f"Did you mean: {', '.join(close)}?" if close else f"They are: {', '.join(ROWS)}."
            raise UsageError(f"--markets: the learning table has no row {name!r}. {hint}")
    return tuple(row for row in ROWS.values() if names is None or row.name in names)


# --- judging ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class JudgedStage:
    """One stage of one row over all seeds, in the row's measure."""

    stage: str
    mean: float
    lowest: float
    highest: float
    oracle: float
    """Mean earnings of the best policy, in bp a bar."""
    unadapted: float | None
    """Mean figure of stage 3 without adapting."""
    nats: float | None
    """Mean mutual information of leading expert and regime."""
    largest_p: float | None
    """The largest p value of it over seeds."""
    after_steps: dict[str, float]
    """Mean figure of the task family after so many inner steps; empty for other rows."""
    random_start: float | None
    """Mean figure of a random start there."""
    cpu_seconds: float
    marks: dict[str, bool]
    """Text of each mark, and whether it is met."""


@dataclass(frozen=True, kw_only=True)
class JudgedRow:
    """One row of the finished table."""

    row: Row
    stages: tuple[JudgedStage, ...]

    @property
    def passed(self) -> bool:
        """True where every mark is met."""
        return all(met for stage in self.stages for met in stage.marks.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain values."""
        known = self.row.known
        return {
            "row": self.row.name,
            "market": known.kind,
            "params": dict(known.params),
            "cost_bp": known.cost_bp,
            "measure": self.row.measure,
            "shuffle_features": self.row.shuffle_features,
            "steps": dict(self.row.steps),
            "support_bars": self.row.support_bars,
            "passed": self.passed,
            "stages": [asdict(stage) for stage in self.stages],
        }


def judged(row: Row, cells: Cells) -> JudgedRow:
    """Judge the stages of a row that were measured; a mark that needs one that was not is left out."""
    return JudgedRow(
        row=row,
        stages=tuple(_judged_stage(row, stage, cells) for stage in row.stages if cells.get(stage)),
    )


def _judged_stage(row: Row, stage: str, cells: Cells) -> JudgedStage:
    own = cells[stage]
    figures = [row.figure(cell) for cell in own]
    marks = [
        mark for mark in row.marks if mark.stage == stage and all(cells.get(name) for name in mark.needs)
    ]
    if row.measure != "earned":
        marks.append(_no_better_than_the_best(stage))
    unadapted = [
        row.figure(replace(cell, earned=cell.unadapted)) for cell in own if cell.unadapted is not None
    ]
    found = [_information(cell) for cell in own if cell.experts is not None]
    return JudgedStage(
        stage=stage,
        mean=row.mean(own),
        lowest=min(figures),
        highest=max(figures),
        oracle=_mean(own, "oracle"),
        unadapted=math.fsum(unadapted) / len(unadapted) if unadapted else None,
        nats=math.fsum(each["nats"] for each in found) / len(found) if found else None,
        largest_p=max(each["p"] for each in found) if found else None,
        after_steps=_after_steps(own),
        random_start=None if own[0].random_start is None else _mean_share(own, "random_start"),
        cpu_seconds=math.fsum(cell.cpu_seconds for cell in own),
        marks={mark.text: mark.is_met(row, cells) for mark in marks},
    )


def _after_steps(cells: Sequence[Cell]) -> dict[str, float]:
    curves = [
        {steps: earned / cell.oracle for steps, earned in (cell.after_steps or {}).items()} for cell in cells
    ]
    return {steps: math.fsum(curve[steps] for curve in curves) / len(curves) for steps in curves[0]}
