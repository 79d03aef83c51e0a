"""What a model file holds, how it is named, and what becomes of the files of earlier runs."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from rl.algorithms.adaptation import AdaptationConfig
from rl.checkpoints.adaptation import AdaptationRecipe
from rl.checkpoints.checkpoint import Checkpoint, load_checkpoint, sidecar_of, stage_file
from rl.checkpoints.predictor import Predictor
from rl.checkpoints.registry import RETIRED, best_available
from rl.common.errors import CheckpointError, ConfigError
from rl.stages import model_files
from rl.stages.gates import Outcome, Verdict
from rl.stages.model_files import (
    checkpoint_of,
    differences,
    keep_dated_copy,
    model_from,
    retire_older_files,
    write_model,
)
from rl.stages.symbol_data import SymbolData
from tests.unit.stages.small_symbol import edge_model, small_plan, small_symbol

PLAN = small_plan()
TIME = datetime(2024, 3, 1, 9, 15, tzinfo=UTC)


@pytest.fixture(scope="module")
def data() -> SymbolData:
    return small_symbol(PLAN, sessions=40)


def a_verdict(outcome: Outcome = "PASS") -> Verdict:
    return Verdict(
        outcome=outcome,
        level="progress",
        symbol="EDGE_15",
        stage="ppo",
        criteria=(),
        trades=30,
        sessions=6,
        alpha_used=0.025,
        attempt=1,
        window={"name": "validation"},
        reasons=(),
    )


A_RECIPE = AdaptationRecipe(config=AdaptationConfig(), support_bars=128, support_steps=64)


def a_checkpoint(
    data: SymbolData, *, stage: str = "ppo", run: str = "run-1", outcome: Outcome = "PASS"
) -> Checkpoint:
    champion = "ppo" if stage == "final" else None
    return checkpoint_of(
        data,
        PLAN,
        edge_model(PLAN, stage="ppo" if stage == "final" else stage),
        a_verdict(outcome),
        lineage=["hash of the parent"],
        run_name=run,
        adaptation=A_RECIPE.to_dict() if stage == "maml" else None,
        champion_of=champion,
    )


def test_a_checkpoint_holds_what_is_needed_to_use_and_to_judge_the_model(data):
    checkpoint = a_checkpoint(data)
    assert (checkpoint.stage, checkpoint.symbol, checkpoint.passed) == ("ppo", "EDGE_15", True)
    assert checkpoint.feature_names == ["x_edge", "x_regime_mood"]
    assert checkpoint.scaler == data.scaler.to_dict()
    assert checkpoint.action_scheme == "target"
    assert checkpoint.trading["rules"] == data.rules.as_dict()
    assert checkpoint.trading["capital"] == 100_000.0
    assert checkpoint.trading["sessions_per_year"] == 252
    assert checkpoint.trading["run"] == "run-1"
    assert checkpoint.splits == {
        **data.splits.boundaries,
        "embargo_bars": 0,
        # 40 sessions from Monday 2024-01-01 on end on Friday 2024-02-23 at 15:30 in Kolkata.
        "data_end": "2024-02-23T10:00:00Z",
    }
    assert checkpoint.instrument["matched"] == "EDGE (instrument)"
    assert checkpoint.instrument["commission"]["rate"] == 1e-5
    assert checkpoint.data_hash == data.data_hash
    assert checkpoint.plan == PLAN.as_dict()
    assert checkpoint.lineage == ["hash of the parent"]
    assert checkpoint.metrics["episodes"] == 4
    assert "torch" in checkpoint.versions


def test_the_weights_of_a_checkpoint_are_a_copy(data):
    model = edge_model(PLAN)
    checkpoint = checkpoint_of(data, PLAN, model, a_verdict(), lineage=[], run_name="r")
    model.weights[:] = 0.0
    assert checkpoint.weights.abs().sum() > 0


def test_a_final_model_says_which_stage_it_comes_from(data):
    checkpoint = a_checkpoint(data, stage="final")
    assert (checkpoint.stage, checkpoint.champion_of) == ("final", "ppo")
    assert model_from(checkpoint).stage == "ppo"


def test_a_model_written_and_read_is_the_same_model(data, tmp_path):
    model = replace(
        edge_model(PLAN, stage="maml", episodes=7),
        extra={"meta_weights": torch.arange(3.0), "step_size.a": torch.tensor(0.5)},
    )
    path = write_model(
        tmp_path / "new folder", checkpoint_of(data, PLAN, model, a_verdict(), lineage=[], run_name="r")
    )
    assert path == tmp_path / "new folder" / "EDGE_15_maml_stage3_final.pth"
    read = model_from(load_checkpoint(path))
    assert read.fingerprint() == model.fingerprint()
    assert (read.stage, read.episodes) == ("maml", 7)
    assert {name: tensor.tolist() for name, tensor in read.extra.items()} == {
        "meta_weights": [0.0, 1.0, 2.0],
        "step_size.a": 0.5,
    }
    np.testing.assert_array_equal(read.policy().flat_parameters(), model.weights)


def test_a_reloaded_checkpoint_sees_the_market_exactly_as_the_stage_did(data, tmp_path):
    path = write_model(tmp_path, a_checkpoint(data))
    seen = Predictor(load_checkpoint(path)).market(data.bars, data.table)
    for name in ("ohlc", "features", "session", "session_end", "tradable", "atr"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(data.market, name))


def test_a_dated_copy_has_the_name_the_plan_asks_for(data, tmp_path):
    plan = small_plan("model_management.model_naming_convention='{symbol}-{algorithm}-{stage}-{timestamp}'")
    path = keep_dated_copy(tmp_path, a_checkpoint(data), plan, TIME)
    assert path.name == "EDGE_15-PPO-stage_1_ppo-20240301T091500Z.pth"
    assert load_checkpoint(path).stage == "ppo"


@pytest.mark.parametrize(
    "convention",
    [
        "{symbol}_{stage}",
        "{stage}_{algorithm}_{timestamp}",
        "{symbol}_{algorithm}_{timestamp}",
        "{symbol}+{stage}_{timestamp}",
    ],
)
def test_every_naming_convention_the_plan_accepts_can_be_used(data, tmp_path, convention):
    try:
        plan = small_plan(f"model_management.model_naming_convention='{convention}'")
    except ConfigError:
        return  # refused before anything is trained: that is as it should be
    keep_dated_copy(tmp_path, a_checkpoint(data), plan, TIME)


# --- does it fit? ---------------------------------------------------------------------------------------------------


def test_a_model_fits_the_run_that_made_it(data, tmp_path):
    stored = load_checkpoint(write_model(tmp_path, a_checkpoint(data)))
    assert differences(stored, data, PLAN) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"data_hash": "another"}, "data"),
        ({"feature_names": ["x_regime_mood", "x_edge"]}, "features"),
        ({"action_scheme": "orders"}, "actions"),
        ({"scaler": {"names": [], "center": [], "scale": []}}, "scaling"),
        ({"trading": {"rules": {}}}, "costs or limits"),
        ({"splits": {"train": {"first": "a", "last": "b"}, "embargo_bars": 0}}, "windows"),
    ],
)
def test_what_does_not_fit_is_named(data, changes, what):
    assert differences(replace(a_checkpoint(data), **changes), data, PLAN) == [what]


def test_another_embargo_is_another_set_of_windows(data):
    stored = a_checkpoint(data)
    assert differences(replace(stored, splits={**stored.splits, "embargo_bars": 7}), data, PLAN) == [
        "windows"
    ]


# --- files of earlier runs ------------------------------------------------------------------------------------------


def all_stages(data: SymbolData, folder: Path, run: str, outcome: Outcome = "PASS") -> None:
    for stage in ("ppo", "moe", "maml", "final"):
        write_model(folder, a_checkpoint(data, stage=stage, run=run, outcome=outcome))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pth"))


def test_files_of_an_earlier_run_are_moved_aside_with_their_sidecars(data, tmp_path):
    """Otherwise the backtest would go on preferring an old model to what was just trained."""
    all_stages(data, tmp_path, "old run", outcome="FAIL")
    write_model(tmp_path, a_checkpoint(data, stage="ppo", run="new run"))
    said = retire_older_files(tmp_path, "EDGE_15", "new run", first_stage="ppo")
    assert names(tmp_path) == ["EDGE_15_ppo_stage1.pth"]
    moved = sorted((tmp_path / RETIRED).rglob("*.pth"))
    assert [path.name for path in moved] == [
        "EDGE_15_final_model.pth",
        "EDGE_15_maml_stage3_final.pth",
        "EDGE_15_moe_stage2.pth",
        "EDGE_15_ppo_stage1.pth",
    ]
    # The new model of stage 1 has taken the place of the old one, which was kept then.
    assert sorted(said) == sorted(f"model of an earlier run moved to {path}" for path in moved[:3])
    assert best_available(tmp_path, "EDGE_15").checkpoint.trading["run"] == "new run"
    for path in moved:
        # Nothing is deleted, and what was moved can still be used.
        assert load_checkpoint(path).trading["run"] == "old run"
        assert sidecar_of(tmp_path / path.name).exists() is ("ppo" in path.name)


def test_a_promoted_model_stays_until_another_one_is_promoted(data, tmp_path):
    """A run that could not show an edge is no reason to stop using a model that did."""
    all_stages(data, tmp_path, "old run")
    write_model(tmp_path, a_checkpoint(data, stage="ppo", run="new run", outcome="INCONCLUSIVE"))
    said = retire_older_files(tmp_path, "EDGE_15", "new run", first_stage="ppo")
    assert names(tmp_path) == ["EDGE_15_final_model.pth", "EDGE_15_ppo_stage1.pth"]
    assert f"the model promoted by run old run stays in use: {tmp_path / 'EDGE_15_final_model.pth'}" in said


def test_stages_before_the_first_one_trained_stay(data, tmp_path):
    all_stages(data, tmp_path, "old run", outcome="FAIL")
    write_model(tmp_path, a_checkpoint(data, stage="moe", run="new run"))
    retire_older_files(tmp_path, "EDGE_15", "new run", first_stage="moe")
    assert names(tmp_path) == ["EDGE_15_moe_stage2.pth", "EDGE_15_ppo_stage1.pth"]


def test_other_symbols_and_this_run_are_left_alone(data, tmp_path):
    all_stages(data, tmp_path, "new run")
    other = replace(a_checkpoint(data, run="old run"), symbol="EDGE_5")
    write_model(tmp_path, other)
    assert retire_older_files(tmp_path, "EDGE_15", "new run", first_stage="ppo") == []
    assert len(names(tmp_path)) == 5


def test_a_damaged_file_of_an_earlier_run_is_moved_aside_too(data, tmp_path):
    all_stages(data, tmp_path, "old run")
    final = tmp_path / stage_file("EDGE_15", "final")
    final.write_bytes(final.read_bytes()[:-10])
    write_model(tmp_path, a_checkpoint(data, run="new run"))
    with pytest.raises(CheckpointError):
        best_available(tmp_path, "EDGE_15")
    retire_older_files(tmp_path, "EDGE_15", "new run", first_stage="ppo")
    assert best_available(tmp_path, "EDGE_15").checkpoint.stage == "ppo"


def test_an_empty_folder_has_nothing_to_retire(tmp_path):
    assert retire_older_files(tmp_path, "EDGE_15", "run", first_stage="ppo") == []
    assert list(tmp_path.iterdir()) == []


# --- what is replaced is kept ---------------------------------------------------------------------------------------


def kept_copies(folder: Path, name: str) -> list[Path]:
    return sorted((folder / RETIRED).rglob(name))


@pytest.mark.parametrize("stage", ["ppo", "final"])
def test_the_model_of_an_earlier_run_is_kept_when_its_file_is_written_anew(data, tmp_path, stage):
    """A trader whose new model disappoints wants the one before it back."""
    told: list[Path] = []
    for run in ("run 1", "run 2", "run 3"):
        write_model(tmp_path, a_checkpoint(data, stage=stage, run=run), told.append)
    name = stage_file("EDGE_15", stage)
    assert load_checkpoint(tmp_path / name).trading["run"] == "run 3"
    assert sorted(told) == kept_copies(tmp_path, name)
    assert sorted(load_checkpoint(path).trading["run"] for path in told) == ["run 1", "run 2"]


def test_a_kept_model_is_used_again_when_both_its_files_are_copied_back(data, tmp_path):
    old = a_checkpoint(data, stage="final", run="run 1")
    write_model(tmp_path, old)
    write_model(tmp_path, a_checkpoint(data, stage="final", run="run 2"))
    (kept,) = kept_copies(tmp_path, "EDGE_15_final_model.pth")
    for file in (kept, sidecar_of(kept)):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert best_available(tmp_path, "EDGE_15").checkpoint.trading["run"] == "run 1"


def test_a_run_that_writes_its_own_file_again_keeps_no_copy(data, tmp_path):
    for _ in range(2):
        write_model(tmp_path, a_checkpoint(data, run="run 1"))
    assert kept_copies(tmp_path, "*.pth") == []


def test_a_run_killed_between_keeping_and_replacing_keeps_one_copy(data, tmp_path, monkeypatch):
    write_model(tmp_path, a_checkpoint(data, run="run 1"))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(model_files, "save_checkpoint", killed)
        write_model(tmp_path, a_checkpoint(data, run="run 2"))
    assert load_checkpoint(tmp_path / "EDGE_15_ppo_stage1.pth").trading["run"] == "run 1"
    write_model(tmp_path, a_checkpoint(data, run="run 2"))
    assert len(kept_copies(tmp_path, "*.pth")) == 1


@pytest.mark.parametrize("steps", range(1, 7))
def test_stopped_anywhere_on_its_way_aside_a_model_is_whole_in_one_of_the_two_places(
    data, tmp_path, monkeypatch, steps
):
    """Two copies and two removals: stop before each, and after the last."""
    write_model(tmp_path, a_checkpoint(data, run="run 1", outcome="FAIL"))
    left = iter(range(steps))

    def counted(work):
        def step(*arguments, **named):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return work(*arguments, **named)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", counted(shutil.copyfile))
        patched.setattr(Path, "unlink", counted(Path.unlink))
        with contextlib.suppress(KeyboardInterrupt):
            retire_older_files(tmp_path, "EDGE_15", "run 2", first_stage="ppo")
    places = [tmp_path / "EDGE_15_ppo_stage1.pth", *kept_copies(tmp_path, "*.pth")]
    whole = [path for path in places if path.is_file() and sidecar_of(path).is_file()]
    assert whole
    assert {load_checkpoint(path).trading["run"] for path in whole} == {"run 1"}


def test_a_link_under_the_name_of_a_model_is_moved_and_not_read(data, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("keep out")
    (tmp_path / "EDGE_15_ppo_stage1.pth").symlink_to(secret)
    retire_older_files(tmp_path, "EDGE_15", "run 2", first_stage="ppo")
    (moved,) = kept_copies(tmp_path, "*.pth")
    assert moved.is_symlink()
    assert not (tmp_path / "EDGE_15_ppo_stage1.pth").is_symlink()
