"""Codes that clear a screen, rename a window or turn the reading direction, in real raw files through real commands."""

from __future__ import annotations

import json
import unicodedata

import pytest

from tests.integration.command_line import Finished, Workplace

SYMBOL, BAD = "SYN_planted_2", "Broken_5"
CODES = "\x1b[2J\x1b]0;owned\x07\x9b31m\x7f\u202eevil\u2066\u200b"
"""ANSI, OSC with its bell, the one-character CSI, delete, right-to-left override and isolate, a space of no width."""


def acting(text: str) -> set[str]:
    """Return the characters of a text that act instead of being seen."""
    kinds = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    return {character for character in text if unicodedata.category(character) in kinds} - set("\n\t")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    """A sound file with codes in a column nobody reads, and one with codes in times, prices and symbols."""
    workplace = Workplace(tmp_path_factory.mktemp("user"))
    path = workplace.synth(SYMBOL, sessions=30)
    header, *lines = path.read_text().splitlines()
    changed = [f"{header},memo{CODES}", *(f"{line},note{CODES}" for line in lines)]
    path.write_text("\n".join(changed) + "\n")
    rows = [
        f"datetime,open,high,low,close,ticker,other{CODES}",
        f"2024-01-02 09:15:00{CODES},1,2,1,1,A,1",
        f"2024-01-02 09:20:00,1{CODES},2,1,1,A{CODES},1",
        f"2024-01-02 09:25:00,1,2,1,1,A,1,{CODES}",
        "2024-01-02 09:30:00,1,2,1,1,A,1",
    ]
    (workplace.raw / f"{BAD}.csv").write_text("\n".join(rows) + "\n")
    (workplace.raw / "Named_5.csv").write_text(
        f"datetime,open,high,low,close,x_{CODES}\n2024-01-02,1,2,1,1,1\n"
    )
    return workplace


@pytest.fixture(scope="module")
def done(place) -> dict[str, Finished]:
    out = place.root / "out"
    reports = [word for end in ("txt", "json", "html") for word in ("--report-file", str(out / f"r.{end}"))]
    return {
        "process": place.process("--symbols", "all"),
        "as JSON": place.train("--symbols", "all", "--stages", "ppo", "--dry-run", "--json"),
        "training": place.train("--symbols", "all", "--stages", "ppo"),
        "backtest": place.backtest("--symbols", SYMBOL, *reports, "--actions-file", str(out / "a.csv")),
        "gate": place.gate("--looks", SYMBOL),
        "option": place.train("--symbols", f"a{CODES}"),
        "setting": place.train("--symbols", SYMBOL, settings=(f"evidence.{CODES}=1",)),
    }


def test_nothing_that_acts_reaches_the_terminal(done):
    for name, each in done.items():
        assert acting(each.out) == acting(each.err) == set(), name
    codes = {name: each.code for name, each in done.items()}
    assert codes == {
        "process": 4, "as JSON": 4, "training": 4, "backtest": 0, "gate": 0, "option": 2, "setting": 2,
    }  # fmt: skip
    # It was shown, as its code: else nothing of it would have got this far.
    assert r"memo\x1b[2J\x1b]0;owned\x07\u009b31m\u007f\u202eevil\u2066\u200b" in done["process"].out
    for each in ("process", "training"):
        assert r"09:15:00\x1b[2J\x1b]0;owned\x07" in done[each].err + done[each].out
    # A column that no model could name is refused before anything is trained on it.
    assert "Named_5.csv, row 1: the name of the column 'x_" in done["training"].err


def test_nothing_that_acts_reaches_a_log_an_account_or_a_report(place, done):
    endings = (".txt", ".log", ".json", ".jsonl", ".html", ".yaml", ".csv")
    written = [
        path
        for path in sorted(place.root.rglob("*"))
        if path.suffix in endings and path.is_file() and place.raw not in path.parents
    ]
    names = {path.name for path in written}
    assert names >= {
        "events.jsonl",
        "run.log",
        "run.json",
        "training_report.txt",
        "training_report.html",
        "r.html",
        "a.csv",
    }
    for path in written:
        assert acting(path.read_text(encoding="utf-8")) == set(), path
    # What was written stands there as its code, and is read back as what it was.
    account = json.loads((place.processed / f"{SYMBOL}.json").read_text())
    assert any(f"memo{CODES}" in note for note in account["notes"])
