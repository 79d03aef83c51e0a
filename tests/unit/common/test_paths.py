"""Which names may become file names, and where the folders are."""

from __future__ import annotations

from pathlib import Path

import pytest

from rl.common.errors import UsageError
from rl.common.paths import Folders, checked_symbol


@pytest.mark.parametrize(
    "symbol", ["Nifty_2", "Bank_Nifty_5", "SPY", "BHP.AX", "BTC-USD", "EURUSD=X", "CL=F", "^GSPC", "SYN_ou_1"]
)
def test_the_symbols_people_use_are_accepted_unchanged(symbol):
    assert checked_symbol(symbol) == symbol


@pytest.mark.parametrize(
    "text",
    [
        "",
        "../x",
        "..",
        ".",
        ".hidden",
        "/etc/passwd",
        "A/B",
        "A\\B",
        "C:x",
        "A..B",
        "A B",
        "A\n",
        "A\0",
        "~root",
        "Größe",
        "*",
        "-rf",
        "=A1",
        "A.",
        "A\r",
        "\x1b[2J",
        "NIFT\u0423",  # a Cyrillic letter that looks like Y
        "Ａ",
        "A" * 101,
    ],
)
def test_a_symbol_that_could_leave_its_folder_is_refused(text):
    with pytest.raises(UsageError):
        checked_symbol(text)


def test_the_refusal_says_what_was_found_and_what_is_allowed():
    with pytest.raises(UsageError, match="'A/B' cannot be a symbol: it contains '/'") as refused:
        checked_symbol("A/B")
    assert "letters, digits and _ . = ^ -" in str(refused.value)


def test_the_default_folders_are_those_of_the_checkout():
    assert Folders.default() == Folders(
        raw=Path("data/raw"), processed=Path("data/processed"), models=Path("models"), reports=Path("reports")
    )
    assert Folders.default(Path("elsewhere")).raw == Path("elsewhere/data/raw")


def test_a_letter_that_looks_like_another_is_named_by_its_number():
    with pytest.raises(UsageError, match=r"U\+0423"):
        checked_symbol("NIFT\u0423")


def test_a_long_name_is_not_repeated_whole():
    with pytest.raises(UsageError, match="it has 5000 characters, and at most 100") as refused:
        checked_symbol("A" * 5000)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("symbol", ["CON_2", "CONS", "X_CON", "A" * 100, "A-1", "B=X"])
def test_names_that_only_look_like_trouble_are_accepted(symbol):
    assert checked_symbol(symbol) == symbol


@pytest.mark.parametrize("symbol", ["CON", "nul", "COM1.AX", "aux.x", "CON.DE"])
def test_names_of_windows_devices_are_refused_on_windows_and_are_stocks_elsewhere(symbol, monkeypatch):
    monkeypatch.setattr("rl.common.paths.os.name", "posix")
    assert checked_symbol(symbol) == symbol
    monkeypatch.setattr("rl.common.paths.os.name", "nt")
    with pytest.raises(UsageError, match="device of Windows"):
        checked_symbol(symbol)
