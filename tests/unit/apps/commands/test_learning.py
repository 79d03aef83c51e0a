"""`doctor --full`: what it prints and writes, what it keeps, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rl.__main__
from rl.apps.commands import learning
from rl.common.errors import OK, UNEXPECTED, USAGE
from rl.stages.known_answer import KnownMarket
from rl.stages.known_answer_table import ROWS, Row, at_least
from tests.unit.stages.small_symbol import small_plan


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(learning, "Plan", small_plan)


def with_a_row(monkeypatch, least: float) -> None:
    row = Row(
        name="tiny",
        known=KnownMarket(kind="planted", cost_bp=0.5),
        steps={"ppo": 64, "moe": 64, "maml": 1},
        sessions=40,
        unseen_sessions=10,
        marks=(at_least("ppo", least),),
    )
    monkeypatch.setitem(ROWS, "tiny", row)


def run(out: Path, *more: str) -> int:
    return rl.__main__.main(
        ["doctor", "--full", "--markets", "tiny", "--seeds", "2", "--out", str(out), *more]
    )


def test_the_table_is_printed_and_written_and_the_cells_are_used_again(monkeypatch, capsys, tmp_path):
    with_a_row(monkeypatch, least=-9.0)
    out = tmp_path / "learning.json"
    assert run(out) == OK
    printed = capsys.readouterr().out
    assert printed.count("s of processor time)") == 6
    assert "| `tiny` | 0.50 |" in printed
    assert "Mean over 2 seeds" in printed
    assert "every mark is met" in printed
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["passed"] is True
    assert [(cell["stage"], cell["seed"]) for cell in found["cells"]] == [
        (stage, seed) for stage in ("maml", "moe", "ppo") for seed in (0, 1)
    ]
    assert [stage["stage"] for stage in found["rows"][0]["stages"]] == ["ppo", "moe", "maml"]
    mean = sum(c["earned"] / c["oracle"] for c in found["cells"] if c["stage"] == "ppo") / 2
    assert found["rows"][0]["stages"][0]["mean"] == pytest.approx(mean)

    assert run(out) == OK
    assert capsys.readouterr().out.count("(reused)") == 6
    assert json.loads(out.read_text(encoding="utf-8")) == found


def test_rows_without_the_stages_asked_for_are_left_out_and_not_called_met(monkeypatch, capsys, tmp_path):
    """The task family has stage 3 alone; with --stages ppo its table could not be made, after all was measured."""
    with_a_row(monkeypatch, least=-9.0)
    out = tmp_path / "learning.json"
    words = ["doctor", "--full", "--markets", "tiny", "family_187", "--stages", "ppo", "--seeds", "1"]
    assert rl.__main__.main([*words, "--out", str(out)]) == OK
    assert "family_187" not in capsys.readouterr().out
    assert [row["row"] for row in json.loads(out.read_text(encoding="utf-8"))["rows"]] == ["tiny"]


def test_a_mark_that_is_missed_is_named_and_ends_with_exit_code_1(monkeypatch, capsys, tmp_path):
    with_a_row(monkeypatch, least=9.0)
    assert run(tmp_path / "learning.json", "--stages", "ppo") == UNEXPECTED
    printed = capsys.readouterr()
    assert "**no**: PPO ≥ 9.00" in printed.out
    assert printed.err == "MISSED: tiny: PPO ≥ 9.00\n"
    assert json.loads((tmp_path / "learning.json").read_text(encoding="utf-8"))["passed"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "2"], "--seeds belongs to the learning table; add --full"),
        (["--full", "--skip-learning"], "--full measures learning and nothing else"),
        (["--full", "--markets", "arl"], "no row 'arl'. Did you mean: ar1"),
        (["--full", "--stages", "pppo"], "'pppo' is not a stage"),
        (
            ["--full", "--markets", "family_47", "--stages", "ppo"],
            "nothing is left to measure (family_47 has maml)",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_trained(words, message, capsys):
    assert rl.__main__.main(["doctor", *words]) == USAGE
    assert message in capsys.readouterr().err
