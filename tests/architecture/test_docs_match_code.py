"""Do the tables of the documentation list exactly the settings, checks, features and figures that exist?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from rl.backtest.config import BacktestConfig
from rl.backtest.lookahead import PIECES
from rl.backtest.lookahead_own_columns import HORIZON_LIMIT, NEXT_BAR_LIMIT, OWN_SESSION_LIMIT
from rl.backtest.planted_leaks import LEAKS
from rl.features.indicators import FEATURES
from rl.market.calendars import CALENDARS
from rl.market.checks import CHECKS
from rl.market.instruments import Instrument, InstrumentKeys, InstrumentsFile
from rl.market.oracles import LONG_ONLY, LONG_SHORT, solve, solve_sessions
from rl.market.synthetic import MARKETS
from rl.stages import specialisation
from rl.stages.known_answer_table import ROWS, TITLES
from rl.stages.plan import Plan

DOCS = Path(__file__).resolve().parents[2] / "docs"
NO_SUCH_KEY = "–"
TEXT_OF_THE_FILE = "…"
REQUIRED = "required"


@dataclass(frozen=True)
class Table:
    """One table of a page, its cells as written."""

    section: str
    """The second-level heading it stands under."""
    heading: str
    """The nearest heading of any level."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, name: str) -> list[str]:
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def tables(text: str) -> list[Table]:
    """Return every table of a page outside its fenced blocks."""
    found, section, heading, block = [], "", "", []
    for line in [*re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL).splitlines(), ""]:
        if line.startswith("|"):
            block.append(tuple(cell.strip() for cell in line.strip().strip("|").split("|")))
            continue
        if block:
            assert all(len(row) == len(block[0]) for row in block), f"a table under '{heading}' is ragged"
            found.append(Table(section, heading, block[0], tuple(block[2:])))
            block = []
        if line.startswith("#"):
            heading = line.lstrip("#").strip()
            section = heading if line.startswith("## ") else section
    return found


def page(name: str) -> list[Table]:
    return tables((DOCS / name).read_text(encoding="utf-8"))


def the_table(name: str, first_column: str) -> Table:
    (table,) = (table for table in page(name) if table.columns[0] == first_column)
    return table


def plain(cell: str) -> str:
    return cell.strip("`")


def settings(name: str, section: str) -> dict[str, str]:
    """Return key and default of every setting under a second-level heading.

    Keys are relative to the name in the heading, if it begins with one in backticks. A table has one column
    `Default`, or one column for each block of keys, named in backticks.
    """
    found: dict[str, str] = {}
    for table in page(name):
        if section not in table.section or table.columns[0] != "Key":
            continue
        named = re.match(r"`([a-z_.]+)`", table.heading) if table.heading != table.section else None
        prefix = f"{named[1]}." if named else ""
        blocks = {column: f"{plain(column)}." for column in table.columns if column.startswith("`")}
        for column, block in (blocks or {"Default": ""}).items():
            for row in table.rows:
                cell = row[table.columns.index(column)]
                key = f"{prefix}{block}{plain(row[0])}"
                assert key not in found, f"{key} is listed twice"
                if cell != NO_SUCH_KEY:
                    found[key] = cell
    assert found, f"{name} has no settings under '{section}'"
    return found


def leaves(data: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict) and data:
        for name, inner in data.items():
            yield from leaves(inner, (*path, name))
    else:
        yield ".".join(path), data


def differences(written: dict[str, str], existing: dict[str, Any]) -> list[str]:
    """Return what a page says about settings that is not so."""
    found = [f"{key} does not exist" for key in written if key not in existing]
    found += [f"{key} is not documented" for key in existing if key not in written]
    for key in written.keys() & existing.keys():
        cell, value = plain(written[key]), existing[key]
        if cell == TEXT_OF_THE_FILE or cell == value == REQUIRED:
            continue
        if cell != value and (isinstance(value, str) or yaml.safe_load(cell) != value):
            found.append(f"{key}: the page says {cell}, but the default is {value}")
    return found


def test_configuration_lists_every_key_of_the_plan_with_its_default():
    written = settings("reference/configuration.md", "config/training_sequence.yaml")
    assert differences(written, dict(leaves(Plan().as_dict()))) == []


def test_configuration_lists_every_key_of_a_backtest_with_its_default():
    written = settings("reference/configuration.md", "config/backtest.yaml")
    assert differences(written, dict(leaves(json.loads(BacktestConfig().model_dump_json())))) == []


def test_configuration_lists_every_key_of_an_instrument_with_its_default():
    existing = dict(leaves(json.loads(InstrumentKeys().model_dump_json())))
    # A symbol without any entry is a stock, so nobody has to write asset_class.
    for name, known in Instrument.model_fields.items():
        if known.is_required() and name in existing and name != "asset_class":
            existing[name] = REQUIRED
    assert differences(settings("reference/configuration.md", "config/instruments.yaml"), existing) == []


def test_configuration_lists_every_block_of_an_instruments_file():
    assert [plain(cell) for cell in the_table("reference/configuration.md", "Block").column("Block")] == list(
        InstrumentsFile.model_fields
    )


def test_data_lists_every_check_as_it_runs():
    written = [(plain(name), *rest) for name, *rest in the_table("reference/data.md", "Check").rows]
    assert written == [
        (name, check.default, ", ".join(check.allowed), check.rule) for name, check in CHECKS.items()
    ]


def test_data_lists_every_calendar():
    written = [(plain(name), *rest) for name, *rest in the_table("reference/data.md", "Calendar").rows]
    assert written == [
        (
            name,
            hours.timezone,
            hours.described().replace(f" {hours.timezone}", ""),
            str(hours.sessions_per_year),
        )
        for name, hours in CALENDARS.items()
    ]


def test_data_lists_every_feature_with_look_back_regime_and_needs():
    needs = {
        "intraday": "is_intraday_only",
        "volume": "needs_volume",
        "closes": "needs_closing_hours",
        "hours": "needs_calendar_hours",
    }
    table = the_table("reference/data.md", "Feature")
    columns = ("Feature", "Look-back", "Regime", "Only where")
    written = list(zip(*(table.column(name) for name in columns), strict=True))
    assert written == [
        (
            f"`{feature.name}`",
            str(feature.lookback_bars),
            "yes" if feature.is_regime else "",
            ", ".join(word for word, flag in needs.items() if getattr(feature, flag)),
        )
        for feature in FEATURES
    ]
    assert all(table.column("What it is"))


def test_markets_lists_every_market_and_what_its_best_policy_earns():
    name = "why/markets-with-known-answers.md"
    described, earned = (table for table in page(name) if table.columns[0] == "Market")
    assert [plain(cell) for cell in described.column("Market")] == list(MARKETS)
    assert [plain(cell) for cell in earned.column("Market")] == list(MARKETS)
    costs = [float(column.removesuffix(" bp")) for column in earned.columns[1:]]
    for market, *cells in earned.rows:
        found = [solve(plain(market), cost_bp=cost).gain_bp for cost in costs]
        assert [float(cell) for cell in cells] == pytest.approx(found, abs=1e-3)


def test_markets_lists_what_traders_earn_who_end_the_day_flat_or_may_not_short():
    earned = the_table("why/markets-with-known-answers.md", "At 0.5 bp")
    assert [plain(cell) for cell in earned.column("At 0.5 bp")] == list(MARKETS)
    for market, *cells in earned.rows:
        found = [
            find(plain(market), cost_bp=0.5, allowed=allowed).gain_bp
            for allowed in (LONG_SHORT, LONG_ONLY)
            for find in (solve, solve_sessions)
        ]
        assert [float(cell) for cell in cells] == pytest.approx(found, abs=1e-3)


def test_look_ahead_lists_every_step_every_planted_leak_and_the_limits():
    name = "why/checking-for-look-ahead.md"
    assert [plain(cell) for cell in the_table(name, "Step").column("Step")] == list(PIECES)
    written = [(leak, plain(step), mistake) for leak, step, mistake in the_table(name, "Planted leak").rows]
    assert written == [(leak, planted.piece, planted.mistake) for leak, planted in LEAKS.items()]
    limits = the_table(name, "Compared with").column("Suspicious above")
    assert [float(cell) for cell in limits] == [NEXT_BAR_LIMIT, HORIZON_LIMIT, OWN_SESSION_LIMIT]


def test_mixture_lists_the_limit_of_every_collapse():
    written = the_table("why/mixture.md", "Collapse")
    limits = dict(zip(written.column("Collapse"), map(float, written.column("Limit")), strict=True))
    assert limits == {
        "one-hot gate": specialisation.MONOPOLY,
        "unused experts": specialisation.LEAST_USAGE,
        "lopsided gate": specialisation.LEAST_EFFECTIVE_SHARE,
        "clones": specialisation.LEAST_DIVERGENCE,
        "uniform gate": specialisation.MOST_ENTROPY_SHARE,
        "constant gate": specialisation.LEAST_GATE_INFORMATION,
    }


def test_learning_lists_every_row_of_the_learning_table_with_its_marks():
    # The task family has a table that begins with a column of this name too.
    (written,) = (table for table in page("why/learning.md") if {"Row", "Marks"} <= set(table.columns))
    assert [plain(cell) for cell in written.column("Row")] == list(ROWS)
    for row, market, cost, steps, marks in written.rows:
        asked = ROWS[plain(row)]
        params = {
            plain(name): float(value.replace("−", "-"))
            for name, value in re.findall(r"(\w+) (−?[\d.]+)", market)
        }
        assert (plain(market.split(",")[0]), params) == (asked.known.kind, dict(asked.known.params))
        trained = None if steps == NO_SUCH_KEY else int(steps.replace(",", ""))
        assert (float(cost), trained) == (asked.known.cost_bp, asked.steps.get("ppo"))
        by_text: dict[str, list[str]] = {}
        for mark in asked.marks:
            by_text.setdefault(mark.text, []).append(TITLES[mark.stage])
        assert marks == ", ".join(f"{', '.join(stages)} {text}" for text, stages in by_text.items())


def test_a_setting_that_is_missing_unknown_or_has_another_default_is_noticed():
    assert differences({"a": "`1`", "b": "`true`"}, {"a": 2, "c": None}) == [
        "b does not exist",
        "c is not documented",
        "a: the page says 1, but the default is 2",
    ]
