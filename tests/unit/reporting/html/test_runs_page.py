"""The page of all runs: read from what runs leave behind, whatever state that is in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rl.reporting.html.runs_page import write_runs_page
from tests.page_reading import read_page

FIGURES = {
    "total_return": 0.12, "sharpe_ratio": None, "max_drawdown": 0.05, "total_trades": 40, "win_rate": 0.5,
    "profit_factor": 1.25, "not_computed": {"sharpe_ratio": "fewer than two sessions"},
}  # fmt: skip


def a_training(reports: Path, name: str, symbol: str = "Nifty_15", **changes: Any) -> Path:
    folder = reports / "runs" / name
    folder.mkdir(parents=True)
    found = {
        "champion": "ppo", "stages": {"ppo": {"validation": FIGURES}}, "final_model": None,
        "promotion": {"outcome": "FAIL"},
    }  # fmt: skip
    (folder / "training_report.json").write_text(json.dumps({"symbols": {symbol: found | changes}}))
    return folder


def a_backtest(reports: Path, name: str, *, files: tuple[Path, ...] = (), symbol: str = "Nifty_15") -> None:
    folder = reports / "runs" / name
    folder.mkdir(parents=True)
    events = [
        {"event": "reports_written", "files": [str(file) for file in files]},
        {
            "event": "symbol_done", "symbol": symbol, "metrics": FIGURES, "buy_and_hold": {"total_return": 0.03},
            "model": {"stage": "moe", "verdict_text": "promotion PASS", "promoted": True},
            "span": {"split": "validation", "seen_in_training_or_choosing": True},
        },
    ]  # fmt: skip
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def shown(reports: Path):
    page = read_page(write_runs_page(reports).read_text())
    return page, {each.at: each.text.replace("\N{NO-BREAK SPACE}", " ") for each in page.figures}


def test_a_backtest_of_an_earlier_version_is_read_from_its_run_jsonl(tmp_path):
    a_backtest(tmp_path, "20260102-120000-backtest")
    folder = tmp_path / "runs" / "20260102-120000-backtest"
    (folder / "events.jsonl").rename(folder / "run.jsonl")
    assert shown(tmp_path)[1]["rows/0/total_return"] == "12.0 %"


def test_runs_are_rows_newest_first_with_their_figures_and_links(tmp_path):
    folder = a_training(tmp_path, "20260101-120000-full-s0")
    (folder / "training_report.html").write_text("")
    report = tmp_path / "r.html"
    report.write_text("")
    a_backtest(tmp_path, "20260102-120000-backtest", files=(report,))
    page, figures = shown(tmp_path)
    assert page.text.index("20260102-120000-backtest") < page.text.index("20260101-120000-full-s0")
    assert figures["rows/0/total_return"] == "12.0 %"
    assert figures["rows/0/held"] == "3.0 %"
    assert figures["rows/1/held"] == "–b"
    assert figures["rows/0/sharpe_ratio"] == "–a"
    assert "fewer than two sessions" in page.text
    assert page.links == ["r.html", "runs/20260101-120000-full-s0/training_report.html"]
    assert page.text.count("IN-SAMPLE") == 2, "validation is in-sample for both"


def test_a_symbol_of_several_leads_to_its_own_page(tmp_path):
    files = [tmp_path / name for name in ("r.html", "A.html", "B.html")]
    for file in files:
        file.write_text("")
    a_backtest(tmp_path, "1-backtest", files=(files[1], files[2], files[0]), symbol="B")
    a_backtest(tmp_path, "2-backtest", files=(files[1], files[2], files[0]), symbol="C")
    assert shown(tmp_path)[0].links == ["r.html", "B.html"]


def test_a_champion_that_was_not_trained_in_the_run_has_no_figures_and_says_so(tmp_path):
    a_training(tmp_path, "1", champion="moe")
    a_training(tmp_path, "2", champion=None, promotion=None, stages={})
    page, figures = shown(tmp_path)
    assert figures["rows/0/total_return"] == "–a"
    assert figures["rows/1/total_return"] == "–c"
    assert "the champion was trained in an earlier run" in page.text
    assert "there is no champion" in page.text
    assert "no champion" in page.text


def test_what_cannot_be_read_is_named_and_costs_no_other_run(tmp_path):
    a_training(tmp_path, "1")
    (a_training(tmp_path, "2") / "training_report.json").write_text("{")
    (a_training(tmp_path, "3") / "training_report.json").write_text('{"symbols": []}')
    (tmp_path / "runs" / "4").mkdir()
    (tmp_path / "runs" / "a file").write_text("")
    page, figures = shown(tmp_path)
    assert len([place for place in figures if place.endswith("total_return")]) == 1
    assert "2: JSONDecodeError" in page.text
    assert "3: AttributeError" in page.text


def test_a_folder_without_runs_has_a_page_too(tmp_path):
    assert "No run has finished in this folder yet." in shown(tmp_path / "new")[0].text


def test_hostile_names_neither_run_nor_lead_away(tmp_path):
    evil = '<script>alert(1)</script>"'
    report = tmp_path / "javascript:alert(1).html"
    report.write_text("")
    a_backtest(tmp_path, "1-<b>", files=(report,), symbol=evil)
    page, _ = shown(tmp_path)
    assert page.tags.count("script") == 1
    assert page.text.count(evil) == 1
    assert page.links == ["javascript%3Aalert%281%29.html"]
