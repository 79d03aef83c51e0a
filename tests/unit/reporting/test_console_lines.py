"""Does every line fit its screen, and does every figure stand beside what was asked of it?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from rl.reporting.console_lines import (
    clock,
    coloured,
    criterion_text,
    gate_lines,
    joined,
    windows_table,
    wrapped,
)
from rl.stages.gates import CriterionResult, Verdict
from tests.unit.stages.small_symbol import small_plan, small_symbol

WIN_RATE = CriterionResult(
    name="win_rate", value=0.392, threshold=0.4, direction="at least", met=False, lower=0.368, upper=0.417
)
DRAWDOWN = CriterionResult(name="max_drawdown", value=0.11, threshold=0.35, direction="at most", met=True)
TRADES = CriterionResult(name="trades", value=1214, threshold=100, direction="at least", met=True)
NOTHING = CriterionResult(name="profit_factor", value=None, threshold=1.0, direction="at least", met=None)
GAIN = CriterionResult(
    name="over_stage_2", value=-0.0553, threshold=0, direction="at least", met=False, lower=-0.4, upper=0.3,
    note="bp of log growth per bar, adapted minus the stage-2 model",
)  # fmt: skip

VERDICT = Verdict(
    outcome="FAIL",
    level="progress",
    symbol="Nifty_2",
    stage="moe",
    criteria=(WIN_RATE, DRAWDOWN, TRADES, NOTHING, GAIN),
    trades=1214,
    sessions=30,
    alpha_used=0.00833,
    attempt=2,
    window={"name": "validation", "from": "a", "to": "b"},
    reasons=("win_rate is 0.392, asked at least 0.4.",),
)


@pytest.mark.parametrize(
    ("criterion", "text"),
    [
        (WIN_RATE, "win rate 39.2 % [36.8, 41.7] (need 40 %, missed)"),
        (DRAWDOWN, "max drawdown 11.0 % (at most 35 %)"),
        (TRADES, "1,214 trades (need 100)"),
        (NOTHING, "profit factor not computed (need 1, missed)"),
        (GAIN, "over stage 2 -0.0553 [-0.4, 0.3] bp/bar (need 0, missed)"),
    ],
)
def test_a_figure_stands_beside_its_interval_and_what_was_asked(criterion, text):
    assert criterion_text(criterion) == text


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("symbol", ["", "A_symbol_with_a_name_longer_than_anyone_would_wish_for_2"])
def test_a_gate_fits_any_screen_and_counts_looks_and_attempts(width, symbol):
    lines = gate_lines("moe", VERDICT, seconds=340, attempts=3, width=width, symbol=symbol)
    assert max(map(len, lines)) <= max(width, len(symbol) + 45)
    told = " ".join(line.strip() for line in lines)
    assert told.startswith(f"{symbol} moe".strip())
    assert "done in 5:40   gate FAIL" in told
    assert "3 attempts, look 2 at this window: alpha 0.00833" in told
    assert "win_rate is 0.392, asked at least 0.4." in told


def test_a_pass_that_noise_passes_too_says_so():
    passed = replace(
        VERDICT, outcome="PASS", reasons=(), context={"null_bank_caution": "Random passes it too."}
    )
    assert "Random passes it too." in gate_lines("moe", passed, seconds=1, attempts=1, width=100)[-1]


@pytest.fixture(scope="module")
def data():
    return small_symbol(small_plan(), sessions=80)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_windows_fit_any_screen_and_no_date_is_broken(data, width):
    long = replace(data, symbol="A_name_that_is_longer_than_its_column_2")
    lines = windows_table([data, long], width)
    assert max(map(len, lines)) <= width
    told = "\n".join(lines)
    for name in ("train", "validation", "promotion", "test"):
        for day in data.dates(name):
            assert told.count(day[:10]) >= 2
    assert lines[2].split()[:2] == [data.symbol, f"{len(data.bars):,}"]


def test_sentences_are_broken_at_spaces_and_paths_are_not():
    assert wrapped("  a/long/path/without/end is here", 12) == "  a/long/path/without/end\n    is here"
    assert wrapped("short", 12) == "short"
    assert joined(["aa", "bb", "cc"], 7, rest="  ") == ["aa   bb", "  cc"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(7, "0:07"), (664, "11:04"), (7259, "2:00:59"), (59.6, "1:00")]
)
def test_durations_are_clock_times(seconds, text):
    assert clock(seconds) == text


def test_only_verdicts_are_coloured():
    assert coloured("PASS") == "\x1b[32mPASS\x1b[0m"
    assert coloured("PASSAGE surpass") == "PASSAGE surpass"


def test_many_wanted_sessions_are_told_with_thousands_marked():
    waits = replace(VERDICT, reasons=("About 46371 more sessions are needed.",))
    assert (
        gate_lines("moe", waits, seconds=60.0, attempts=1, width=100)[-1].strip()
        == "About 46,371 more sessions are needed."
    )
