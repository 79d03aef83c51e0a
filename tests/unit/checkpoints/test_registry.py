"""Which model of a symbol is used, and what is said where none passed its gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from rl.checkpoints.checkpoint import Checkpoint, save_checkpoint, sidecar_of, stage_file
from rl.checkpoints.registry import ORDER, RETIRED, best_available, require_compatible
from rl.common.errors import CheckpointError, UsageError
from tests.unit.checkpoints.sound_model import sound_content, verdict


def keep(folder: Path, stage: str, outcome: str | None = "PASS", symbol: str = "Nifty_2", **changes) -> Path:
    content = sound_content() | {
        "stage": stage,
        "symbol": symbol,
        "verdict": verdict(outcome) if outcome else {},
    }
    content |= {
        "feature_names": ["return_1", "rsi"],
        "scaler": content["scaler"] | {"names": ["return_1", "rsi"]},
    }
    path = folder / stage_file(symbol, stage)
    save_checkpoint(path, Checkpoint(**{**content, **changes}))
    return path


def test_the_furthest_stage_that_passed_is_best(tmp_path):
    for stage in reversed(ORDER):
        path = keep(tmp_path, stage)
        found = best_available(tmp_path, "Nifty_2")
        assert (found.path, found.checkpoint.stage, found.headline) == (path, stage, "")


def test_best_checkpoint_falls_back_to_the_maml_stage_when_no_final_model_exists(tmp_path):
    keep(tmp_path, "ppo")
    keep(tmp_path, "maml")
    assert best_available(tmp_path, "Nifty_2").checkpoint.stage == "maml"


def test_an_earlier_stage_that_passed_comes_before_a_later_one_that_did_not(tmp_path):
    keep(tmp_path, "final", "INCONCLUSIVE")
    keep(tmp_path, "maml", "FAIL")
    keep(tmp_path, "moe", "PASS")
    keep(tmp_path, "ppo", "PASS")
    found = best_available(tmp_path, "Nifty_2")
    assert found.checkpoint.stage == "moe"
    assert found.headline == ""


def test_where_no_gate_was_passed_the_first_model_is_used_and_the_headline_says_so(tmp_path):
    keep(tmp_path, "moe", "FAIL")
    keep(tmp_path, "ppo", "INCONCLUSIVE")
    found = best_available(tmp_path, "Nifty_2")
    assert found.checkpoint.stage == "moe"
    assert found.headline == "NO GATE WAS PASSED: this is the moe model of Nifty_2, and its verdict is FAIL."


def test_a_model_that_was_never_judged_has_not_passed(tmp_path):
    keep(tmp_path, "ppo", None)
    assert best_available(tmp_path, "Nifty_2").headline.endswith("it has not been judged.")


def test_a_stage_asked_for_by_name_is_used_whatever_its_verdict(tmp_path):
    keep(tmp_path, "moe", "PASS")
    keep(tmp_path, "ppo", "FAIL")
    found = best_available(tmp_path, "Nifty_2", "ppo")
    assert found.checkpoint.stage == "ppo"
    assert found.headline.startswith("THIS MODEL PASSED NO GATE")
    assert best_available(tmp_path, "Nifty_2", "moe").headline == ""


def test_no_checkpoint_names_what_was_looked_for_and_how_to_train_it(tmp_path):
    with pytest.raises(CheckpointError) as refusal:
        best_available(tmp_path, "Bank_Nifty_5")
    text = str(refusal.value)
    names = [
        "Bank_Nifty_5_final_model.pth",
        "Bank_Nifty_5_maml_stage3_final.pth",
        "Bank_Nifty_5_moe_stage2.pth",
        "Bank_Nifty_5_ppo_stage1.pth",
    ]
    assert ", ".join(names) in text
    assert text.endswith("python run_training.py --symbols Bank_Nifty_5")


def test_a_misspelt_symbol_is_told_which_models_there_are(tmp_path):
    keep(tmp_path, "ppo", symbol="Bank_Nifty_5")
    with pytest.raises(CheckpointError, match="There are models for Bank_Nifty_5"):
        best_available(tmp_path, "bank_nifty_5")


def test_a_folder_that_does_not_exist_holds_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="No checkpoint for Nifty_2"):
        best_available(tmp_path / "absent", "Nifty_2")


def test_a_damaged_better_model_is_refused_instead_of_replaced_by_a_worse_one(tmp_path):
    keep(tmp_path, "ppo")
    path = keep(tmp_path, "maml")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"maml_stage3_final\.pth is refused: it is truncated"):
        best_available(tmp_path, "Nifty_2")
    assert best_available(tmp_path, "Nifty_2", "ppo").checkpoint.stage == "ppo"


def test_a_dangling_link_is_refused_by_name(tmp_path):
    keep(tmp_path, "ppo")
    (tmp_path / stage_file("Nifty_2", "final")).symlink_to(tmp_path / "absent")
    with pytest.raises(CheckpointError, match=r"final_model\.pth is refused: it is a symbolic link"):
        best_available(tmp_path, "Nifty_2")


@pytest.mark.parametrize(("name", "reason"), [("moe", "stage moe, but it holds stage ppo")])
def test_a_renamed_stage_is_refused(tmp_path, name, reason):
    path = keep(tmp_path, "ppo")
    renamed = tmp_path / stage_file("Nifty_2", name)
    sidecar_of(path).rename(sidecar_of(renamed))
    path.rename(renamed)
    with pytest.raises(CheckpointError, match=reason):
        best_available(tmp_path, "Nifty_2")


def test_the_model_of_another_symbol_under_this_name_is_refused(tmp_path):
    path = keep(tmp_path, "ppo", symbol="Nifty_5")
    renamed = tmp_path / stage_file("Nifty_2", "ppo")
    sidecar_of(path).rename(sidecar_of(renamed))
    path.rename(renamed)
    with pytest.raises(CheckpointError, match="symbol Nifty_2, but it holds symbol Nifty_5"):
        best_available(tmp_path, "Nifty_2")


def test_an_unknown_stage_or_a_path_as_symbol_is_refused(tmp_path):
    with pytest.raises(UsageError, match="choose best, ppo, moe, maml, final"):
        best_available(tmp_path, "Nifty_2", "dqn")
    with pytest.raises(UsageError):
        best_available(tmp_path, "../Nifty_2")


@pytest.mark.parametrize(
    ("features", "schemes", "differences"),
    [
        (["return_1"], ["target"], "it needs the features rsi, which are not computed here"),
        (
            ["return_1", "rsi", "adx"],
            ["target"],
            "the features adx are computed here, but it does not know them",
        ),
        (["rsi", "return_1"], ["target"], "another order; feature 0 is return_1, here rsi"),
        (
            ["return_1", "rsi"],
            ["orders", "continuous"],
            "the scheme 'target', here there are orders, continuous",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_what_differs(tmp_path, features, schemes, differences):
    keep(tmp_path, "ppo")
    found = best_available(tmp_path, "Nifty_2")
    require_compatible(
        found.path, found.checkpoint, feature_names=["return_1", "rsi"], action_schemes=["target"]
    )
    with pytest.raises(CheckpointError, match=differences):
        require_compatible(found.path, found.checkpoint, feature_names=features, action_schemes=schemes)


# --- a model that cannot be used ------------------------------------------------------------------------------------


def altered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_caller_who_tells_the_user_gets_the_model_before_a_damaged_one_and_a_headline(tmp_path):
    keep(tmp_path, "moe")
    keep(tmp_path, "maml", "FAIL")
    altered(keep(tmp_path, "final"))
    told: list[CheckpointError] = []
    found = best_available(tmp_path, "Nifty_2", on_refused=told.append)
    assert found.checkpoint.stage == "moe"
    assert found.headline == (
        "Nifty_2_final_model.pth CANNOT BE USED, Nifty_2_moe_stage2.pth IS USED INSTEAD."
    )
    (error,) = told
    assert "Nifty_2_final_model.pth is refused: it was altered: its SHA-256 is" in str(error)
    assert str(error).endswith("Nifty_2_moe_stage2.pth is used instead.")
    assert error.exit_code == 4


def test_a_damaged_model_and_none_that_passed_are_both_in_the_headline(tmp_path):
    keep(tmp_path, "ppo", "FAIL")
    altered(keep(tmp_path, "final"))
    found = best_available(tmp_path, "Nifty_2", on_refused=lambda _: None)
    assert found.headline.startswith("Nifty_2_final_model.pth CANNOT BE USED")
    assert found.headline.endswith(
        "NO GATE WAS PASSED: this is the ppo model of Nifty_2, and its verdict is FAIL."
    )


def test_the_model_that_was_replaced_is_named_as_a_way_back_where_it_is_whole(tmp_path):
    keep(tmp_path, "ppo")
    for name in ("20250101T000000Z", "20260101T000000Z"):
        keep(tmp_path / RETIRED / name, "final")
    altered(tmp_path / RETIRED / "20260101T000000Z" / "Nifty_2_final_model.pth")
    altered(keep(tmp_path, "final"))
    told: list[CheckpointError] = []
    best_available(tmp_path, "Nifty_2", on_refused=told.append)
    assert f"kept as {tmp_path / RETIRED / '20250101T000000Z' / 'Nifty_2_final_model.pth'};" in str(told[0])


def test_where_no_model_can_be_used_the_best_one_is_refused_and_nothing_is_said_to_be_used(tmp_path):
    altered(keep(tmp_path, "ppo"))
    altered(keep(tmp_path, "final"))
    told: list[CheckpointError] = []
    with pytest.raises(CheckpointError, match=r"final_model\.pth is refused"):
        best_available(tmp_path, "Nifty_2", on_refused=told.append)
    assert told == []


def test_a_stage_asked_for_by_name_is_never_replaced_by_another(tmp_path):
    keep(tmp_path, "ppo")
    altered(keep(tmp_path, "moe"))
    with pytest.raises(CheckpointError, match=r"moe_stage2\.pth is refused"):
        best_available(tmp_path, "Nifty_2", "moe", on_refused=lambda _: None)
