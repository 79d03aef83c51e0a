"""docs/why/gates.md shows what the commands print: the same tables, by commands that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from benchmarks import gate_calibration, promotion_rates
from benchmarks.gate_calibration import TABLES, Rate, calibration

PAGE = (Path(__file__).parents[3] / "docs" / "why" / "gates.md").read_text(encoding="utf-8")
PARSERS = {
    "benchmarks.gate_calibration": gate_calibration.parse_options,
    "benchmarks.promotion_rates": promotion_rates.parse_options,
}


def commands() -> list[tuple[str, list[str]]]:
    """Return module and options of every benchmark the page shows."""
    lines = [
        shlex.split(line)
        for line in re.findall(r"^\.venv/bin/python -m (benchmarks\..*)$", PAGE, re.MULTILINE)
    ]
    return [(words[0], words[1:]) for words in lines]


def test_the_commands_of_the_page_exist_and_show_every_table():
    shown = []
    for module, words in commands():
        options = PARSERS[module](words)
        shown += getattr(options, "table", None) or []
    assert sorted(shown) == sorted(TABLES)
    assert "benchmarks.promotion_rates" in [module for module, _ in commands()]


@pytest.mark.parametrize("name", TABLES)
def test_the_page_shows_the_table_with_its_headings_and_rows(name):
    for table in calibration(name, 1):
        lines = table.markdown().splitlines()
        assert lines[2] in PAGE
        labels = {
            row[: next((n for n, cell in enumerate(row) if isinstance(cell, Rate)), len(row))]
            for row in table.rows
        }
        assert labels
        by_market = table.headings[0] == "market" and "sessions judged" in table.headings
        for row in labels:
            # Mean trades and Sharpe ratios are results, not labels; of markets one window is shown.
            if name == "power" or (by_market and row[-1] != "60 fresh"):
                continue
            assert "| " + " | ".join(row) + " |" in PAGE


def test_the_table_that_draws_nothing_stands_in_the_page_as_it_is():
    (table,) = calibration("sessions", 1)
    assert "\n".join(table.markdown().splitlines()[2:]) in PAGE
