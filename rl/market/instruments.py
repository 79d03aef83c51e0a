"""Instruments: what is traded, on which hours, at which cost, and what to forgive in its files.

`config/instruments.yaml` is always read first; further files add to it or override single keys. What a symbol
gets is laid together from general to particular: class, then ending or beginning of the name, then the
instrument (`Nifty`), then the whole symbol (`Nifty_2`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from zoneinfo import available_timezones

from pydantic import Field, ValidationError, model_validator

from rl.common.errors import ConfigError
from rl.common.strict_config import Finding, LoadedYaml, StrictModel, dotted, load_yaml, validate
from rl.market.checks import policy_problems

DEFAULT_FILE = Path(__file__).resolve().parents[2] / "config" / "instruments.yaml"
"""The instruments every run knows."""

FALLBACK_CLASS = "stock"
"""Class of a symbol that neither an entry, nor its folder, nor its name says anything about."""

MINUTES_PER_DAY = 1440

AssetClass = Literal["index", "stock", "etf", "forex", "crypto", "commodity", "synthetic"]
CalendarName = Literal["NSE", "ASX", "NYSE", "CME", "FX", "CRYPTO", "NONE"]
Policy = Literal["error", "drop", "warn"]

_SYMBOL_WITH_MINUTES = re.compile(r"(.+)_(\d{1,4})")


def split_symbol(symbol: str) -> tuple[str, int | None]:
    """Return instrument and bar length in minutes: ("Nifty", 15) for `Nifty_15`, ("SPY", None) for `SPY`.

    A trailing number that is no bar length (0, or more minutes than a day has) belongs to the name.
    """
    found = _SYMBOL_WITH_MINUTES.fullmatch(symbol)
    if found and 1 <= int(found[2]) <= MINUTES_PER_DAY:
        return found[1], int(found[2])
    return symbol, None


class Commission(StrictModel):
    """What broker and exchange take for one order. Money is in the instrument's currency."""

    per_order_entry: float = Field(default=0.0, ge=0)
    """Flat money for an order that opens or adds to a position."""
    per_order_exit: float = Field(default=0.0, ge=0)
    """Flat money for an order that closes or reduces a position."""
    per_unit: float = Field(default=0.0, ge=0)
    """Money per unit traded, either way."""
    rate: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of the traded notional, either way. 0.0001 is 1 bp."""


class Slippage(StrictModel):
    """How far a market order fills on the wrong side of the bar's price. Both parts add up."""

    ticks: float = Field(default=0.0, ge=0)
    """Adverse move in ticks."""
    rate: float = Field(default=0.0, ge=0, lt=1)
    """Adverse move as a fraction of the price."""


class InstrumentKeys(StrictModel):
    """Keys of an instrument as a file writes them; what is not written is decided by a more general entry."""

    asset_class: AssetClass = FALLBACK_CLASS
    """Decides the defaults, and the group a symbol is compared in."""
    kind: Literal["linear", "option"] = "linear"
    """linear: profit is price change times units."""
    currency: str = Field(default="", min_length=1)
    """Currency of prices and flat costs."""
    lot_size: float = Field(default=0.0, ge=0)
    """Orders are whole multiples of this many units; 0 allows fractions."""
    tick_size: float = Field(default=0.0, ge=0)
    """Smallest price step."""
    commission: Commission = Commission()
    slippage: Slippage = Slippage()
    tax_on_sale_rate: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of the notional of every sale; opening a short is a sale."""
    allow_short: bool = True
    """Whether positions may be negative."""
    margin_rate: float = Field(default=1.0, gt=0, le=1)
    """Equity that has to stand behind each unit of notional; 1 is a cash account."""
    calendar: CalendarName = "NONE"
    """Trading hours: a name from the table in `rl/market/calendars.py`."""
    label: Literal["start", "end"] = "start"
    """Whether a raw intraday file writes the time at which a bar starts or ends."""
    label_timezone: str | None = None
    """Zone of intraday times written without an offset; the calendar's where this is null."""
    square_off: bool = False
    """Whether positions are closed with each session's last bar."""
    price_may_be_negative: bool = False
    """Whether zero and negative prices are real (oil was, on 2020-04-20)."""
    max_hole_days: float = Field(default=7.0, gt=0)
    """A silence between two bars longer than this is a hole that no feature may look across."""
    checks: dict[str, Policy] = Field(default={})
    """Policy per check of raw files, where it differs from the check's default."""

    def problems(self) -> Iterable[Finding]:
        """Return what the types of the keys cannot see."""
        if self.label_timezone is not None and self.label_timezone not in available_timezones():
            says = f"must be a time zone such as Asia/Kolkata or UTC (got '{self.label_timezone}')"
            yield Finding(("label_timezone",), says)
        for name, says in policy_problems(self.checks):
            yield Finding(("checks", name), says)


class Instrument(InstrumentKeys):
    """Everything a run needs to know about what it trades."""

    name: str = Field(min_length=1)
    """`Nifty` for the symbol `Nifty_15`."""
    asset_class: AssetClass
    currency: str = Field(min_length=1)
    calendar: CalendarName

    @model_validator(mode="after")
    def _refuse_what_types_cannot_see(self) -> Instrument:
        wrong = [f"{dotted(finding.at)} {finding.says}" for finding in self.problems()]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


class InstrumentsFile(StrictModel):
    """A file of instruments."""

    instruments: dict[str, InstrumentKeys] = Field(default={})
    """By instrument (`Nifty`) or whole symbol (`Nifty_2`, which wins)."""
    classes: dict[AssetClass, InstrumentKeys] = Field(default={})
    """Defaults of each asset class."""
    folders: dict[str, AssetClass] = Field(default={})
    """Asset class of the files in a sub-folder of this name."""
    prefixes: dict[str, InstrumentKeys] = Field(default={})
    """What the beginning of a symbol says about it."""
    suffixes: dict[str, InstrumentKeys] = Field(default={})
    """What the ending of a symbol says about it."""


class ListedInstrument(StrictModel):
    """An instrument in the short list form: symbol, type, lot_size, tick_size."""

    symbol: str = Field(min_length=1)
    type: Literal["OPTION", "STOCK", "INDEX"]
    lot_size: float = Field(default=0.0, ge=0)
    tick_size: float = Field(default=0.0, ge=0)


class ListedInstrumentsFile(StrictModel):
    """A file of instruments whose `instruments` is a list."""

    instruments: list[ListedInstrument]


_CLASS_OF_LISTED_TYPE: dict[str, AssetClass] = {"OPTION": "index", "INDEX": "index", "STOCK": "stock"}


@dataclass(frozen=True)
class FoundInstrument:
    """An instrument, and what it was found by."""

    instrument: Instrument
    matched: str
    """`Nifty (instrument)`, `Nifty_15 (symbol)`, `stock (defaults of its class, by suffix .AX)`."""


Keys = dict[str, Any]


@dataclass(frozen=True)
class InstrumentBook:
    """All instruments of one run. Each entry holds only the keys that some file wrote."""

    instruments: dict[str, Keys] = field(default_factory=dict)
    classes: dict[str, Keys] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    prefixes: dict[str, Keys] = field(default_factory=dict)
    suffixes: dict[str, Keys] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    """What to add to `matched` for an instrument, by its name."""

    def find(self, symbol: str, folder: str | None = None) -> FoundInstrument:
        """Return what is known about a symbol.

        Args:
            symbol: Name of the raw file without its ending.
            folder: Name of the folder it lies in; `stocks`, `etfs`, `crypto` and the like name the class.

        Raises:
            ConfigError: The entries that apply do not make a complete instrument.
        """
        name, _ = split_symbol(symbol)
        entries = [key for key in dict.fromkeys((symbol, name)) if key in self.instruments]
        prefix = max((prefix for prefix in self.prefixes if name.startswith(prefix)), key=len, default="")
        suffix = max((suffix for suffix in self.suffixes if name.endswith(suffix)), key=len, default="")
        own = [self.instruments[key] for key in entries]
        by_name = [self.prefixes.get(prefix, {}), self.suffixes.get(suffix, {})]
        class_sources = [
            *((keys.get("asset_class"), "") for keys in own),
            (by_name[0].get("asset_class"), f"by prefix {prefix}"),
            (self.folders.get((folder or "").lower()), f"by folder {folder}"),
            (by_name[1].get("asset_class"), f"by suffix {suffix}"),
            (FALLBACK_CLASS, "as neither an entry, its folder nor its name says more"),
        ]
        asset_class, reason = next((found, reason) for found, reason in class_sources if found)
        # From particular to general: the first that has a key decides it.
        layers = [
            {"name": name, "asset_class": asset_class},
            *own,
            *by_name,
            self.classes.get(asset_class, {}),
        ]
        matched = [
            f"{key} ({'instrument' if key == name else 'symbol'}{self.remarks.get(key, '')})"
            for key in entries
        ]
        if reason:
            matched.append(f"{asset_class} (defaults of its class, {reason})")
        return FoundInstrument(_instrument(symbol, layers), " over ".join(matched))


def load_instruments(*files: Path) -> InstrumentBook:
    """Read the instruments that come with the program, then `files`, each overriding the ones before.

    A key replaces the same key of an earlier file; `checks` are overridden one by one, `commission` and
    `slippage` as a whole.

    Raises:
        ConfigError: Every problem of a file at once, with line and column.
    """
    book = InstrumentBook()
    for path in dict.fromkeys(path.resolve() for path in (DEFAULT_FILE, *map(Path, files))):
        _add(book, load_yaml(_shortest(path)))
    return book


def _add(book: InstrumentBook, loaded: LoadedYaml) -> None:
    """Lay one file over a book."""
    if isinstance(loaded.data.get("instruments"), list):
        for listed in validate(ListedInstrumentsFile, loaded).instruments:
            _lay_over(book.instruments, listed.symbol, _keys_of_listed(listed))
            if listed.type == "OPTION":
                book.remarks[listed.symbol] = ", type OPTION read as the index itself, kind linear"
        return
    file = validate(InstrumentsFile, loaded)
    for block in ("instruments", "classes", "prefixes", "suffixes"):
        for name, keys in getattr(file, block).items():
            _lay_over(getattr(book, block), name, keys.model_dump(exclude_unset=True))
    book.folders.update({folder.lower(): asset_class for folder, asset_class in file.folders.items()})


def _keys_of_listed(listed: ListedInstrument) -> Keys:
    keys = listed.model_dump(include={"lot_size", "tick_size"}, exclude_unset=True)
    return {"asset_class": _CLASS_OF_LISTED_TYPE[listed.type], "kind": "linear"} | keys


def _lay_over(entries: dict[str, Keys], name: str, keys: Keys) -> None:
    entries[name] = _merged([keys, entries.get(name, {})])


def _merged(layers: Iterable[Mapping[str, Any]]) -> Keys:
    """Return each key from the first layer that has it; `checks` are merged one by one."""
    merged: Keys = {}
    for layer in layers:
        checks = {**layer.get("checks", {}), **merged.get("checks", {})}
        merged = {**layer, **merged} | ({"checks": checks} if checks else {})
    return merged


def _instrument(symbol: str, layers: Iterable[Mapping[str, Any]]) -> Instrument:
    try:
        return Instrument.model_validate(_merged(layers))
    except ValidationError as error:
        wrong = "".join(f"\n  {dotted(tuple(e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise ConfigError(
            f"The entries of the instruments files do not make a complete instrument of {symbol}:{wrong}\n"
            "  Give the missing keys under instruments: or classes:."
        ) from error


def _shortest(path: Path) -> Path:
    """Return the path as a user in the checkout would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
