"""What the model files of a symbol tell a backtest report of the training behind the model it used."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rl.checkpoints.checkpoint import load_checkpoint, stage_file
from rl.stages.model_files import checkpoint_of, write_model
from rl.stages.model_history import stage_history
from rl.stages.symbol_data import SymbolData
from tests.unit.stages.small_symbol import edge_model, small_plan, small_symbol

PLAN = small_plan()


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return small_symbol(PLAN, sessions=40)


def written(data, folder, stage, run="run-1", **metrics):
    made_of = "ppo" if stage == "final" else stage
    model = replace(edge_model(PLAN, stage=made_of), metrics=metrics)
    champion = "ppo" if stage == "final" else None
    made = checkpoint_of(data, PLAN, model, None, lineage=[], run_name=run, champion_of=champion)
    return load_checkpoint(write_model(folder, made))


def test_every_stage_of_the_run_is_told_in_the_order_of_training(data, tmp_path):
    curve = [{"episodes": 0, "mean_session_return": 0.1}]
    final = written(data, tmp_path, "final")
    written(data, tmp_path, "ppo", validation_curve=curve)
    written(data, tmp_path, "moe")
    found = stage_history(tmp_path, final)
    assert [each["stage"] for each in found] == ["ppo", "moe", "final"]
    assert found[0]["file"] == "EDGE_15_ppo_stage1.pth"
    assert found[0]["training"]["validation_curve"] == curve
    assert found[0]["episodes"] == 4
    assert [each["champion_of"] for each in found] == [None, None, "ppo"]


def test_what_is_long_and_not_drawn_is_left_in_the_file(data, tmp_path):
    line = {"iteration": 1, "support_reward": 0.1, "query_reward": 0.2, "policy_grad_norm": 3.0}
    used = written(data, tmp_path, "maml", meta_training=[line], adaptation={"tasks": 3})
    (found,) = stage_history(tmp_path, used)
    assert found["training"]["meta_training"] == [
        {"iteration": 1, "support_reward": 0.1, "query_reward": 0.2}
    ]
    assert "adaptation" not in found["training"]


def test_a_file_of_another_run_or_one_that_is_damaged_says_nothing_of_this_model(data, tmp_path):
    used = written(data, tmp_path, "moe")
    written(data, tmp_path, "ppo", run="run-0")
    (tmp_path / stage_file("EDGE_15", "maml")).write_bytes(b"no model")
    other, own, damaged = stage_history(tmp_path, used)
    assert other == {
        "stage": "ppo",
        "file": "EDGE_15_ppo_stage1.pth",
        "left_out": "made by another run, run-0",
    }
    assert "left_out" not in own
    assert damaged["left_out"].startswith("the file cannot be read")
    assert set(damaged) == {"stage", "file", "left_out"}
