"""Is every figure of an update in metrics.csv, under its name, once?"""

from __future__ import annotations

import csv
import math
import re
from datetime import UTC, datetime
from pathlib import Path

from rl.reporting.metrics_table import COLUMNS, FIGURES, NOT_SHOWN, MetricRows, MetricsTable

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CHECK = {"episodes": 0, "mean_session_return": 0.01, "win_rate": 0.5, "profit_factor": math.inf, "trades": 7}


def test_figures_have_the_names_of_stable_baselines3():
    row = MetricRows().row("A", "ppo", 2, {"steps": 64, "entropy": 0.7, "approx_kl": 0.01, "update": 3}, AT)
    assert row == {
        "time": "2026-01-02T03:04:05.000+00:00", "symbol": "A", "stage": "ppo", "attempt": 2,
        "time/total_timesteps": 64, "time/iterations": 3, "train/approx_kl": 0.01,
        # stable-baselines3 shows the loss, which falls as entropy rises.
        "train/entropy_loss": -0.7,
    }  # fmt: skip


def test_a_check_is_in_the_row_of_one_update_only_and_what_is_not_finite_is_left_empty():
    rows = MetricRows()
    first = rows.row("A", "ppo", 1, {"update": 1, "episode_return": math.nan, "validation": CHECK}, AT)
    assert first["eval/win_rate"] == 0.5
    assert "eval/profit_factor" not in first
    assert "rollout/ep_rew_mean" not in first
    assert not [
        name for name in rows.row("A", "ppo", 1, {"validation": CHECK}, AT) if name.startswith("eval/")
    ]
    later = rows.row("A", "ppo", 1, {"validation": CHECK | {"episodes": 8}}, AT)
    assert later["eval/trades"] == 7
    assert "eval/trades" in rows.row("A", "ppo", 2, {"validation": CHECK}, AT)


def test_a_figure_that_an_event_holds_as_text_is_left_out():
    """In events.jsonl an infinite number is a text."""
    assert "eval/profit_factor" not in MetricRows().row(
        "A", "ppo", 1, {"validation": CHECK | {"profit_factor": "inf"}}, AT
    )


def test_the_table_can_be_read_by_any_program_and_goes_on_after_a_restart(tmp_path):
    for steps in (64, 128):
        table = MetricsTable(tmp_path)
        table.add("^GSPC", "maml", 1, {"steps": steps, "query_reward": 0.5})
        table.close()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["time/total_timesteps"] for row in rows] == ["64", "128"]
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["symbol"] == "^GSPC"
    assert rows[0]["train/loss"] == ""


def test_no_figure_is_both_shown_and_not_shown():
    assert not NOT_SHOWN & set(FIGURES)


def test_the_page_of_the_run_folder_lists_every_column():
    page = Path(__file__).resolve().parents[3] / "docs" / "reference" / "run-folder.md"
    section = (
        page.read_text(encoding="utf-8").partition("## The columns of `metrics.csv`")[2].partition("\n## ")[0]
    )
    assert tuple(re.findall(r"^\| `([a-z_/0-9]+)` \|", section, flags=re.MULTILINE)) == COLUMNS
