"""Instruments: which entry a symbol gets, and what a mistyped file is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from rl.common.errors import ConfigError
from rl.market.checks import CHECKS
from rl.market.instruments import DEFAULT_FILE, Instrument, load_instruments, split_symbol

SHIPPED = ("Nifty", "Bank_Nifty", "Finnifty", "Sensex")


@pytest.fixture(scope="module")
def book():
    return load_instruments()


def a_file(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("Nifty_15", ("Nifty", 15)),
        ("Bank_Nifty_5", ("Bank_Nifty", 5)),
        ("SPY", ("SPY", None)),
        ("GOLD_1440", ("GOLD", 1440)),
        ("BankNifty_2018_to_2023", ("BankNifty_2018_to_2023", None)),
        ("Nifty_2022", ("Nifty_2022", None)),
        ("Nifty_0", ("Nifty_0", None)),
        ("CL=F", ("CL=F", None)),
    ],
)
def test_a_symbol_ends_with_its_bar_length_in_minutes(symbol, expected):
    assert split_symbol(symbol) == expected


@pytest.mark.parametrize(
    ("symbol", "folder", "matched", "asset_class", "hours", "currency"),
    [
        ("Nifty_15", "intraday", "Nifty (instrument)", "index", "NSE", "INR"),
        ("Bank_Nifty_1", None, "Bank_Nifty (instrument)", "index", "NSE", "INR"),
        ("BHP.AX", None, "stock (defaults of its class, by suffix .AX)", "stock", "ASX", "AUD"),
        ("STW.AX", "etfs", "etf (defaults of its class, by folder etfs)", "etf", "ASX", "AUD"),
        ("BTC-USD", None, "crypto (defaults of its class, by suffix -USD)", "crypto", "CRYPTO", "USD"),
        ("EURUSD=X", None, "forex (defaults of its class, by suffix =X)", "forex", "FX", "USD"),
        ("GC=F", None, "commodity (defaults of its class, by suffix =F)", "commodity", "CME", "USD"),
        ("AUDUSD_60", "forex", "forex (defaults of its class, by folder forex)", "forex", "FX", "USD"),
        (
            "SYN_wide_2",
            "stocks",
            "synthetic (defaults of its class, by prefix SYN_)",
            "synthetic",
            "NONE",
            "UNIT",
        ),
        ("^GSPC", None, "index (defaults of its class, by prefix ^)", "index", "NYSE", "USD"),
        (
            "FOO_5",
            "intraday",
            "stock (defaults of its class, as neither an entry, its folder nor its name says more)",
            "stock",
            "NYSE",
            "USD",
        ),
    ],
)
def test_a_symbol_is_found_by_entry_then_prefix_then_folder_then_suffix(
    book, symbol, folder, matched, asset_class, hours, currency
):
    found = book.find(symbol, folder)
    assert found.matched == matched
    assert found.instrument.asset_class == asset_class
    assert found.instrument.calendar == hours
    assert found.instrument.currency == currency


def test_the_name_of_an_instrument_has_no_bar_length(book):
    assert book.find("RELIANCE_5").instrument.name == "RELIANCE"


def test_made_markets_cost_half_a_basis_point_and_nothing_else(book):
    made = book.find("SYN_planted_2").instrument
    assert made.commission.rate == 0.5e-4
    assert (made.slippage.rate, made.slippage.ticks, made.tax_on_sale_rate, made.lot_size) == (0, 0, 0, 0)
    assert made.allow_short
    assert made.margin_rate == 0.2


def test_oil_may_be_negative_and_gold_may_not(book):
    assert book.find("CL=F", "commodities").instrument.price_may_be_negative
    assert not book.find("GC=F", "commodities").instrument.price_may_be_negative


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_indices_are_squared_off_in_fractions_with_every_cost(book, name):
    instrument = book.find(f"{name}_5").instrument
    assert (instrument.calendar, instrument.square_off, instrument.lot_size) == ("NSE", True, 0)
    assert instrument.tick_size == 0.05
    assert instrument.commission.rate > 0
    assert instrument.slippage.rate > 0
    assert instrument.tax_on_sale_rate > 0


def test_the_commission_of_nifty_is_the_sum_written_beside_it(book):
    text = DEFAULT_FILE.read_text(encoding="utf-8")
    begin = text.index("commission.rate, Nifty")
    listed = text[begin : text.index("slippage.rate  ", begin)]
    *parts, total = [float(number) for number in re.findall(r"[Ny+=] +([0-9.]+) bp(?=  |\n)", listed)]
    assert len(parts) == 5
    assert sum(parts) == pytest.approx(total)
    assert book.find("Nifty_1").instrument.commission.rate == pytest.approx(total * 1e-4)
    nifty = book.find("Nifty_1").instrument
    round_trip = 2 * nifty.commission.rate + 2 * nifty.slippage.rate + nifty.tax_on_sale_rate
    assert f"{round_trip * 1e4:.2f} bp" in text


def test_every_key_of_an_instrument_is_explained_at_the_top_of_the_shipped_file():
    header = DEFAULT_FILE.read_text(encoding="utf-8").split("\ninstruments:")[0]
    keys = set(Instrument.model_fields) - {"name"}
    assert {key for key in keys if not re.search(rf"^#   {key} ", header, re.MULTILINE)} == set()


def test_a_whole_symbol_wins_over_its_instrument_and_keeps_the_rest(tmp_path):
    book = load_instruments(a_file(tmp_path, "instruments:\n  Nifty_2: {lot_size: 75}\n"))
    found = book.find("Nifty_2")
    assert found.matched == "Nifty_2 (symbol) over Nifty (instrument)"
    assert found.instrument.lot_size == 75
    assert found.instrument.calendar == "NSE"
    assert book.find("Nifty_5").instrument.lot_size == 0


def test_a_later_file_overrides_single_keys_and_adds_checks_one_by_one(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("instruments:\n  Nifty: {checks: {ohlc: drop, hole: error}, tick_size: 0.1}\n")
    second.write_text(
        "instruments:\n  Nifty: {checks: {jump: error, hole: warn}, commission: {per_order_entry: 20}}\n"
    )
    nifty = load_instruments(first, second).find("Nifty_5").instrument
    assert nifty.checks == {"ohlc": "drop", "jump": "error", "hole": "warn"}
    assert nifty.tick_size == 0.1
    # A commission is one thing: the rate of the shipped entry is gone.
    assert (nifty.commission.per_order_entry, nifty.commission.rate) == (20, 0)


def test_checks_may_be_set_for_a_symbol_whose_class_its_name_tells(tmp_path):
    book = load_instruments(a_file(tmp_path, "instruments:\n  EURUSD=X: {checks: {ohlc: drop}}\n"))
    found = book.find("EURUSD=X", "forex")
    assert found.instrument.checks == {"ohlc": "drop"}
    assert found.instrument.asset_class == "forex"
    assert found.matched == "EURUSD=X (instrument) over forex (defaults of its class, by folder forex)"


def test_the_short_list_form_is_read_and_an_option_becomes_its_index(tmp_path):
    text = (
        "instruments:\n"
        "  - {symbol: Bank_Nifty, type: OPTION, lot_size: 25, tick_size: 0.05}\n"
        "  - {symbol: RELIANCE, type: STOCK, lot_size: 1, tick_size: 0.05}\n"
    )
    book = load_instruments(a_file(tmp_path, text))
    found = book.find("Bank_Nifty_5")
    assert (found.instrument.asset_class, found.instrument.kind, found.instrument.lot_size) == (
        "index",
        "linear",
        25,
    )
    assert found.matched == "Bank_Nifty (instrument, type OPTION read as the index itself, kind linear)"
    assert book.find("RELIANCE_1").instrument.asset_class == "stock"


def test_every_mistake_of_a_file_is_reported_at_once_with_its_place(tmp_path):
    text = (
        "instruments:\n"
        "  Gold:\n"
        "    asset_clas: commodity\n"
        "    lot_size: -1\n"
        "    calendar: NSEE\n"
        "    checks: {ohcl: drop, backward_time: warn}\n"
        "    label_timezone: Asia/Bombay_City\n"
    )
    path = a_file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_instruments(path)
    message = str(caught.value)
    assert "mine.yaml:3:5: instruments.Gold.asset_clas: unknown key; did you mean asset_class?" in message
    assert "instruments.Gold.lot_size: must be at least 0 (got -1)" in message
    assert "mine.yaml:5:5" in message
    assert "did you mean NSE?" in message
    assert "instruments.Gold.checks.ohcl: is not a check; did you mean ohlc?" in message
    assert "checks.backward_time: must be error or drop for this check (got 'warn')" in message
    assert "must be a time zone such as Asia/Kolkata or UTC (got 'Asia/Bombay_City')" in message


def test_an_unknown_block_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="instrument: unknown key; did you mean instruments"):
        load_instruments(a_file(tmp_path, "instrument:\n  Gold: {}\n"))


def test_an_instrument_made_in_code_is_checked_like_one_from_a_file():
    keys = {"name": "A", "asset_class": "stock", "currency": "USD", "calendar": "NYSE"}
    assert Instrument(**keys).checks == {}
    with pytest.raises(ValidationError, match=r"checks\.ohlc must be error or drop"):
        Instrument(**keys, checks={"ohlc": "warn"})
    with pytest.raises(ValidationError, match="margin_rate"):
        Instrument(**keys, margin_rate=0)


def test_an_instrument_survives_being_stored_as_json(book):
    instrument = book.find("Nifty_5").instrument
    assert Instrument.model_validate(instrument.model_dump(mode="json")) == instrument


def test_every_default_policy_is_one_that_the_check_allows():
    assert {name for name, check in CHECKS.items() if check.default not in check.allowed} == set()
