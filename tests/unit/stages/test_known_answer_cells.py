"""A measured cell is used again exactly where measuring it anew would give the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rl.stages import known_answer_cells, task_family
from rl.stages.known_answer import KnownMarket
from rl.stages.known_answer_cells import CellStore, measure_row, modules_behind
from rl.stages.known_answer_stages import _with_meta_iterations
from rl.stages.known_answer_table import COLUMNS, Row
from rl.stages.stage_model import StageModel
from tests.unit.stages.small_symbol import small_plan
from tests.unit.stages.test_known_answer_table import a_cell

STEPS = {"ppo": 64, "moe": 64, "maml": 1}
ROW = Row(
    name="here",
    known=KnownMarket(kind="planted", cost_bp=0.5),
    steps=STEPS,
    sessions=40,
    unseen_sessions=10,
)


def a_model(stage: str = "ppo") -> StageModel:
    weights = np.arange(4, dtype=np.float32)
    return StageModel(stage=stage, policy_spec={"encoder": "mlp"}, weights=weights)


@pytest.fixture
def store(tmp_path) -> CellStore:
    found = CellStore(tmp_path, small_plan())
    found.keep(ROW, a_cell(), a_model())
    return found


def test_a_cell_comes_back_as_it_was_kept_and_so_does_its_model(store):
    assert store.find(ROW, "ppo", 0) == a_cell()
    model = store.model(ROW, "ppo", 0)
    assert (model.stage, model.policy_spec) == ("ppo", {"encoder": "mlp"})
    np.testing.assert_array_equal(model.weights, [0, 1, 2, 3])


@pytest.mark.parametrize(
    "row",
    [
        replace(ROW, known=KnownMarket(kind="planted", cost_bp=1.0)),
        replace(ROW, known=KnownMarket(kind="planted", cost_bp=0.5, params={"r2": 0.03})),
        replace(ROW, known=KnownMarket(kind="ou", cost_bp=0.5)),
        replace(ROW, steps={**STEPS, "ppo": 128}),
        replace(ROW, shuffle_features=True),
        replace(ROW, sessions=41),
        replace(ROW, unseen_sessions=11),
        replace(ROW, passes=5),
    ],
    ids=["cost", "parameter", "market", "steps", "shuffled", "longer", "judged longer", "passes"],
)
def test_a_cell_of_another_row_definition_is_measured_anew(store, row):
    assert store.find(row, "ppo", 0) is None


def test_a_row_trains_with_passes_of_its_own_or_with_the_plans():
    plan = small_plan()
    assert known_answer_cells.plan_for(ROW, plan) == plan
    assert known_answer_cells.plan_for(replace(ROW, passes=5), plan).training_params.ppo.k_epochs == 5


def test_another_seed_or_stage_is_another_cell(store):
    assert store.find(ROW, "ppo", 1) is None
    assert store.find(ROW, "moe", 0) is None


def test_a_cell_of_another_plan_or_code_is_measured_anew(store, tmp_path, monkeypatch):
    assert CellStore(tmp_path, small_plan("training_params.ppo.gamma=0.9")).find(ROW, "ppo", 0) is None
    # The seed of a cell is its own, whatever the plan says.
    assert CellStore(tmp_path, small_plan("seed=3")).find(ROW, "ppo", 0) is not None
    monkeypatch.setattr(known_answer_cells, "code_that_learns", lambda _: "other code")
    assert CellStore(tmp_path, small_plan()).find(ROW, "ppo", 0) is None


def test_settings_of_meta_learning_concern_the_third_stage_alone(store, tmp_path):
    store.keep(ROW, a_cell("maml"), None)
    other = CellStore(tmp_path, small_plan("training_params.maml.meta_learning_rate=0.5"))
    assert other.find(ROW, "ppo", 0) is not None
    assert other.find(ROW, "maml", 0) is None


def test_a_longer_later_stage_leaves_the_earlier_ones_cells_in_use_and_not_the_other_way_round(store):
    store.keep(ROW, a_cell("moe"), a_model("moe"))
    longer_later = replace(ROW, steps={**STEPS, "moe": 128})
    assert store.find(longer_later, "ppo", 0) is not None
    assert store.find(longer_later, "moe", 0) is None
    assert store.find(replace(ROW, steps={**STEPS, "ppo": 128}), "moe", 0) is None


def test_other_marks_leave_every_cell_in_use(store):
    assert store.find(replace(ROW, marks=(), measure="excess"), "ppo", 0) is not None


def test_a_cell_whose_weights_are_gone_is_not_there(store, tmp_path):
    (weights,) = tmp_path.glob("*.npy")
    weights.unlink()
    assert store.find(ROW, "ppo", 0) is None


def test_the_code_that_learns_is_what_training_and_judging_import_and_nothing_else():
    found = modules_behind(known_answer_cells.LEARNERS)
    assert {
        "rl.stages.known_answer_stages",
        "rl.stages.known_answer",
        "rl.stages.moe_stage",
        "rl.algorithms.ppo",
        "rl.algorithms.maml",
        "rl.policies.mixture",
        "rl.trading.kernel",
        "rl.features.indicators",
        "rl.market.synthetic_formulas",
        "rl.common.seeding",
    } <= found.keys()
    assert not [name for name in found if name.startswith(("rl.apps", "rl.reporting"))]
    assert "rl.stages.known_answer_table" not in found
    assert all(path.is_file() for path in found.values())


def test_the_code_of_meta_learning_is_not_behind_the_stages_before_it():
    found = modules_behind(known_answer_cells.LEARNERS, known_answer_cells.META_LEARNING)
    assert {"rl.stages.moe_stage", "rl.algorithms.ppo", "rl.checkpoints.adaptation"} <= found.keys()
    assert not {"rl.stages.maml_stage", "rl.stages.trading_tasks", "rl.algorithms.maml"} & found.keys()
    assert known_answer_cells.code_that_learns("moe") != known_answer_cells.code_that_learns("maml")


def test_another_support_is_another_cell_of_the_family(store):
    family = replace(ROW, support_bars=187, steps={"maml": 1})
    store.keep(family, a_cell("maml"), None)
    assert store.find(family, "maml", 0) == a_cell("maml")
    assert store.find(replace(family, support_bars=47), "maml", 0) is None


# --- measuring --------------------------------------------------------------------------------------------------------


def test_an_interrupted_measurement_goes_on_where_it_stopped_and_ends_with_the_same_cells(tmp_path):
    """The second run has the earlier model from the disk only; what grows out of it has to be the same to the bit."""
    plan = small_plan()

    def measured(folder, on_cell):
        return measure_row(ROW, COLUMNS, 0, plan=plan, store=CellStore(folder, plan), on_cell=on_cell)

    whole = measured(tmp_path / "whole", lambda cell, again: None)
    assert [cell.stage for cell in whole] == ["ppo", "moe", "maml"]
    assert [cell.steps for cell in whole] == [64, 128, 1]

    def stop(cell, again):
        if cell.stage == "moe":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path / "parts", stop)
    told = []
    parts = measured(tmp_path / "parts", lambda cell, again: told.append((cell.stage, again)))
    assert told == [("ppo", True), ("moe", True), ("maml", False)]
    for one, other in zip(whole, parts, strict=True):
        assert replace(one, cpu_seconds=0, experts=None) == replace(other, cpu_seconds=0, experts=None)
    # Only the stage asked for comes back; those it grows out of are measured all the same.
    assert [
        cell.stage
        for cell in measure_row(
            ROW, ("maml",), 0, plan=plan, store=CellStore(tmp_path / "parts", plan), on_cell=lambda *_: None
        )
    ] == ["maml"]


def test_a_row_of_the_task_family_is_measured_on_markets_of_other_directions(tmp_path, monkeypatch):
    monkeypatch.setattr(task_family, "TRAINING_MARKETS", 3)
    monkeypatch.setattr(task_family, "TUNING_MARKETS", 2)
    monkeypatch.setattr(
        task_family.adapt_to_family, "__kwdefaults__", {"start": "ppo", "test_markets": 3, "report": None}
    )
    monkeypatch.setattr(task_family, "PARENT_STEPS", {"ppo": 64, "moe": 64})
    row = replace(ROW, support_bars=47, steps={"maml": 1})
    plan = small_plan()
    (cell,) = measure_row(
        row, COLUMNS, 0, plan=plan, store=CellStore(tmp_path, plan), on_cell=lambda cell, again: None
    )
    found = task_family.adapt_to_family(0, _with_meta_iterations(plan, 1), 47)
    assert list(cell.after_steps) == [str(steps) for steps in found.steps]
    assert cell.earned == cell.after_steps[str(found.steps[-1])] == found.after(found.steps[-1]).mean()
    assert cell.unadapted == cell.after_steps["0"] == found.after(0).mean()
    assert (cell.oracle, cell.random_start) == (found.oracle.mean(), found.random_start.mean())
    assert cell.error == pytest.approx((found.after(found.steps[-1]) - found.oracle).std() / 3**0.5)
