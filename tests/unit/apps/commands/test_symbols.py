"""Which symbols a command is about, and which files it brings up to date."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rl.apps.commands.symbols import (
    KnownSymbols,
    bring_up_to_date,
    chosen_symbols,
    instrument_of,
    known_symbols,
)
from rl.common.errors import DataError, UsageError
from rl.market.instruments import load_instruments

RAW = Path("data/raw")


def known(*raw: str, processed: tuple[str, ...] = (), unusable: dict | None = None) -> KnownSymbols:
    return KnownSymbols(
        raw={name: RAW / f"{name}.csv" for name in raw},
        processed=frozenset(processed),
        unusable=unusable or {},
    )


def daily(folder: Path, name: str, *, high: float = 101.0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    days = np.busday_offset("2024-01-02", np.arange(40))
    lines = [f"{day},100,{high},99,{100 + number % 2}\n" for number, day in enumerate(days)]
    path = folder / f"{name}.csv"
    path.write_text("date,open,high,low,close\n" + "".join(lines))
    return path


def test_symbols_come_from_raw_and_processed_files(tmp_path):
    daily(tmp_path / "raw", "SPY")
    daily(tmp_path / "raw" / "stocks", "BHP.AX")
    (tmp_path / "processed").mkdir()
    for name in ("OLD.parquet", "OLD.json", ".SPY.parquet.12.ab.tmp", "notes.txt"):
        (tmp_path / "processed" / name).write_text("x")
    found = known_symbols(tmp_path / "raw", tmp_path / "processed", raw_dir_was_given=True)
    assert found.names() == ["BHP.AX", "OLD", "SPY"]
    assert found.raw["BHP.AX"].parent.name == "stocks"


def test_a_raw_folder_that_was_asked_for_has_to_exist(tmp_path):
    with pytest.raises(DataError, match="--raw-data-dir has to name the folder"):
        known_symbols(tmp_path / "none", tmp_path, raw_dir_was_given=True)
    assert known_symbols(tmp_path / "none", tmp_path, raw_dir_was_given=False).names() == []


def test_one_stray_file_does_not_block_the_others(tmp_path):
    daily(tmp_path, "SPY")
    daily(tmp_path, "my file")
    found = known_symbols(tmp_path, tmp_path / "processed", raw_dir_was_given=True)
    assert found.names() == ["SPY"]
    assert list(found.unusable) == ["my file"]
    assert chosen_symbols(["all"], found, tmp_path) == ["SPY"]


def test_a_processed_file_whose_name_is_no_symbol_is_told_and_does_not_block_the_others(tmp_path):
    for name in ("SPY.parquet", "my file.parquet", "-rf.parquet", ".hidden.parquet"):
        (tmp_path / name).write_text("x")
    found = known_symbols(tmp_path / "none", tmp_path, raw_dir_was_given=False)
    assert chosen_symbols(["all"], found, tmp_path) == ["SPY"]
    assert sorted(found.unusable) == ["-rf", "my file"]
    assert "my file.parquet: 'my file' cannot be a symbol" in str(found.unusable["my file"])
    assert isinstance(found.unusable["my file"], DataError)


def test_two_files_of_one_symbol_are_no_symbol_until_one_is_removed(tmp_path):
    daily(tmp_path / "a", "SPY")
    daily(tmp_path / "b", "SPY")
    found = known_symbols(tmp_path, tmp_path / "processed", raw_dir_was_given=True)
    assert found.names() == []
    with pytest.raises(DataError, match="both files of symbol SPY"):
        chosen_symbols(["SPY"], found, tmp_path)


def test_all_means_every_known_symbol_in_any_spelling():
    for word in ("all", "ALL", "All"):
        assert chosen_symbols([word], known("B", "A", processed=("C",)), RAW) == ["A", "B", "C"]


def test_a_symbol_called_all_wins_over_the_word():
    assert chosen_symbols(["all"], known("all", "B"), RAW) == ["all"]


def test_names_are_taken_in_their_order_and_once():
    assert chosen_symbols(["B", "A", "B"], known("A", "B", "C"), RAW) == ["B", "A"]


def test_all_beside_names_is_refused():
    with pytest.raises(UsageError, match=r"give `all` or names, not both \(got all A\)"):
        chosen_symbols(["all", "A"], known("A"), RAW)


def test_every_unknown_name_is_answered():
    with pytest.raises(UsageError) as refused:
        chosen_symbols(["Nifty_51", "Q", "SPY"], known("Nifty_5", "SPY"), RAW)
    lines = str(refused.value).splitlines()
    assert lines[0] == "Nifty_51: no such symbol in data/raw; did you mean Nifty_5?"
    assert lines[1].startswith("Q: no such symbol in data/raw; there are: Nifty_5, SPY")


def test_of_many_symbols_ten_are_shown():
    with pytest.raises(UsageError) as refused:
        chosen_symbols(["Zz"], known(*(f"A{n:02}" for n in range(30))), RAW)
    assert str(refused.value).endswith("A09, …")


def test_without_any_file_the_message_says_what_belongs_there():
    with pytest.raises(DataError, match="columns datetime, open, high, low, close"):
        chosen_symbols(["all"], known(), RAW)
    with pytest.raises(DataError, match="holds no price file"):
        chosen_symbols(["A"], known(), RAW)


def test_the_folder_of_a_raw_file_names_its_class():
    book = load_instruments()
    raw = {"Q": RAW / "crypto" / "Q.csv"}
    assert instrument_of("Q", book, raw).instrument.asset_class == "crypto"
    # Without a raw file there is no folder to ask.
    assert instrument_of("Q", book, {}).instrument.asset_class == "stock"


# --- bringing files up to date --------------------------------------------------------------------------------------


def brought(
    found: KnownSymbols, processed: Path, symbols: list[str], **options
) -> tuple[list[str], dict, dict]:
    outcomes, problems = {}, {}
    ready = bring_up_to_date(
        symbols,
        found,
        load_instruments(),
        processed,
        on_outcome=lambda outcome: outcomes.__setitem__(outcome.symbol, outcome.action),
        on_problem=lambda symbol, error: problems.__setitem__(symbol, str(error)),
        **options,
    )
    return ready, outcomes, problems


def test_a_bad_file_is_told_and_left_out_and_the_others_go_on(tmp_path):
    daily(tmp_path / "raw", "GOOD")
    daily(tmp_path / "raw", "BAD", high=98.0)
    found = known_symbols(tmp_path / "raw", tmp_path / "p", raw_dir_was_given=True)
    ready, outcomes, problems = brought(found, tmp_path / "p", ["BAD", "GOOD"])
    assert ready == ["GOOD"]
    assert outcomes == {"GOOD": "processed"}
    assert "BAD.csv, row 2" in problems["BAD"]
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["GOOD.json", "GOOD.parquet"]


def test_what_is_up_to_date_is_left_alone_unless_forced(tmp_path):
    daily(tmp_path / "raw", "GOOD")
    found = known_symbols(tmp_path / "raw", tmp_path / "p", raw_dir_was_given=True)
    brought(found, tmp_path / "p", ["GOOD"])
    assert brought(found, tmp_path / "p", ["GOOD"])[1] == {"GOOD": "unchanged"}
    assert brought(found, tmp_path / "p", ["GOOD"], force=True)[1] == {"GOOD": "reprocessed: asked for"}


def test_a_symbol_without_a_raw_file_is_used_as_it_was_processed(tmp_path):
    ready, outcomes, problems = brought(known(processed=("OLD",)), tmp_path, ["OLD"])
    assert (ready, outcomes, problems) == (["OLD"], {}, {})


def test_files_that_are_no_price_files_are_named_in_a_note(tmp_path):
    daily(tmp_path, "SPY")
    for name in (".gitkeep", ".DS_Store", "README", "readme.md", "Nifty_5.txt"):
        (tmp_path / name).write_text("x")
    found = known_symbols(tmp_path, tmp_path / "processed", raw_dir_was_given=True)
    assert found.notes() == ["not looked at: Nifty_5.txt (.txt; price files are .csv, .csv.gz, .parquet)"]
    for number in range(6):
        (tmp_path / f"P{number}.xlsx").write_text("x")
    found = known_symbols(tmp_path, tmp_path / "processed", raw_dir_was_given=True)
    assert found.names() == ["SPY"]
    (note,) = found.notes()
    assert note.startswith(
        "not looked at: Nifty_5.txt, P0.xlsx, P1.xlsx, P2.xlsx, P3.xlsx, 2 more (.txt, .xlsx; "
    )


def test_without_files_of_another_kind_there_is_no_note(tmp_path):
    daily(tmp_path, "SPY")
    assert known_symbols(tmp_path, tmp_path / "processed", raw_dir_was_given=True).notes() == []


def test_a_folder_with_files_of_another_kind_only_says_which(tmp_path):
    (tmp_path / "SPY.xlsx").write_text("x")
    found = known_symbols(tmp_path, tmp_path / "processed", raw_dir_was_given=True)
    with pytest.raises(
        DataError, match=r"no price file in (.|\n)*not looked at: SPY.xlsx \(.xlsx; price files are"
    ):
        chosen_symbols(["all"], found, tmp_path)
