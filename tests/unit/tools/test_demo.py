"""A demo of which nothing has changed is shown again, not run again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tools import demo


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the results of a demo."""
    for name in ("run_training.py", "run_backtest.py", "tools/demo.py", "constraints.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("rl/part.py", "config/plan.yaml"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("1\n", encoding="utf-8")
    made = ["reports/demo/runs/20260101-000000-quick-s0/training_report.txt"]
    made += [str(demo.REPORT.with_suffix(ending)) for ending in (".txt", ".json", ".html")]
    made += [f"models/demo/{symbol}_ppo_stage1.pth" for symbol in demo.MARKETS]
    for name in made:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("made\n", encoding="utf-8")
    (tmp_path / demo.STAMP).write_text(demo.hash_of_inputs(tmp_path) + "\n", encoding="utf-8")
    return tmp_path


def is_up_to_date(checkout: Path) -> bool:
    return demo.is_up_to_date(checkout, demo.hash_of_inputs(checkout))


def test_a_demo_of_the_same_code_and_settings_is_not_run_again(checkout):
    assert is_up_to_date(checkout)


@pytest.mark.parametrize("name", ["rl/part.py", "config/plan.yaml", "run_training.py", "constraints.txt"])
def test_whatever_its_results_follow_from_makes_it_run_again(checkout, name):
    (checkout / name).write_text("2\n", encoding="utf-8")
    assert not is_up_to_date(checkout)


@pytest.mark.parametrize(
    "name",
    [
        "reports/demo/backtest_report.html",
        "models/demo/SYN_noise_2_ppo_stage1.pth",
        "reports/demo/made_of.txt",
        "reports/demo/runs/20260101-000000-quick-s0/training_report.txt",
    ],
)
def test_a_result_that_is_gone_makes_it_run_again(checkout, name):
    (checkout / name).unlink()
    assert not is_up_to_date(checkout)
