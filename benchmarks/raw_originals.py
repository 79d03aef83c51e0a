"""Raw files in the layouts that vendors deliver: small made-up twins of ten real ones, and the real ones themselves.

A twin has its original's header, order, columns and way of writing times, and made-up numbers, so that the layouts can
be tested where the real files may not be: their licences forbid passing them on.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from rl.market.instruments import Instrument, InstrumentBook, load_instruments

SECOND_NS = 10**9
MINUTE_NS = 60 * SECOND_NS
DAY_NS = 86_400 * SECOND_NS


@dataclass(frozen=True)
class Original:
    """A raw file as its rows of cells, in the order they stand in."""

    name: str
    symbol: str
    """Stem of its name; with the folder it decides the instrument."""
    folder: str
    """Sub-folder of the raw folder, which may name the asset class."""
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    starts: np.ndarray
    """The instant each row's time names, read by other means than the program's: UTC nanoseconds. (R,) int64"""
    keys: dict[str, object] = field(default_factory=dict)
    """Keys of the instrument that this file needs to load at all."""
    newline: str = "\n"
    has_header: bool = True
    """False where the file was found without one, so that it loads only with the header above."""
    is_newest_first: bool = False

    def instrument(self, checks: dict[str, str] | None = None) -> Instrument:
        """Return the instrument of the file, with these policies over its own."""
        found = _book().find(self.symbol, self.folder).instrument
        own = self.keys | {"checks": {**found.checks, **self.keys.get("checks", {}), **(checks or {})}}  # ty: ignore[invalid-argument-type]
        return Instrument.model_validate(found.model_dump() | own)

    def column(self, role: str) -> int | None:
        """Return the place of open, high, low, close, volume or symbol, or None."""
        names = {"volume": ("volume", "vol", "tick_volume"), "symbol": ("symbol", "instrument")}
        plain = [name.lower().split(". ")[-1] for name in self.header]
        return next((plain.index(name) for name in names.get(role, (role,)) if name in plain), None)

    def time_columns(self) -> tuple[int, ...]:
        """Return the places of the cells that hold the row's time."""
        plain = [name.lower() for name in self.header]
        for name in ("datetime", "timestamp", "unix"):
            if name in plain:
                return (plain.index(name),)
        return tuple(plain.index(name) for name in ("date", "time") if name in plain)

    @property
    def counts_time(self) -> bool:
        """True where times are counts since 1970."""
        first = self.rows[0][self.time_columns()[0]]
        return first.replace(".", "", 1).isdigit() and len(first) >= len("1514778300")


@cache
def _book() -> InstrumentBook:
    return load_instruments()


# --- twins ----------------------------------------------------------------------------------------------------------


def twins() -> dict[str, Original]:
    """Return a small made-up file in each layout, by name."""
    made = [*_index_minutes(), _epoch_quarters(), _ticks(), _forex_hours(), *_coins(), *_days()]
    return {original.name: original for original in made}


def _bars(count: int, seed: int, price: float, decimals: int = 2) -> list[tuple[str, ...]]:
    """Return open, high, low, close and volume of bars that move a little, as text."""
    rng = np.random.default_rng(seed)
    closes = price * np.exp(np.cumsum(0.001 * rng.standard_normal(count)))
    opens = np.concatenate([[price], closes[:-1]]) * np.exp(0.0002 * rng.standard_normal(count))
    reach = 1 + np.abs(0.0005 * rng.standard_normal((2, count))) + 2 * 10.0**-decimals / price
    highs, lows = np.maximum(opens, closes) * reach[0], np.minimum(opens, closes) / reach[1]
    volumes = rng.integers(500, 5000, count)
    columns = [[f"{value:.{decimals}f}" for value in column] for column in (opens, highs, lows, closes)]
    return [(*(column[t] for column in columns), str(volumes[t])) for t in range(count)]


def _session_starts(days: Iterable[str], first: str, count: int, minutes: int) -> np.ndarray:
    """Return the starts of bars on these days, as shown by the market's clock. (R,) int64"""
    return np.concatenate(
        [
            np.datetime64(f"{day}T{first}", "ns").astype(np.int64) + np.arange(count) * minutes * MINUTE_NS
            for day in days
        ]
    )


def _in_utc(wall: np.ndarray, zone: str) -> np.ndarray:
    shown = pd.DatetimeIndex(wall.astype("datetime64[ns]")).tz_localize(zone)
    return shown.tz_convert("UTC").tz_localize(None).as_unit("ns").asi8


def _written(instants: np.ndarray, pattern: str) -> list[str]:
    return pd.DatetimeIndex(instants.astype("datetime64[ns]")).strftime(pattern).tolist()


def _index_minutes() -> list[Original]:
    """Return index minutes labelled by their end: no header, CRLF, and in one of them every row twice."""
    wall = _session_starts(("2020-02-03", "2020-02-04"), "09:16", 60, 1)
    wall = np.insert(wall, 0, wall[0] - 8 * MINUTE_NS)  # a print before the open
    times = list(zip(_written(wall, "%Y%m%d"), _written(wall, "%H:%M"), strict=True))
    bars = _bars(len(wall), 1, 11_900.0)
    starts = _in_utc(wall, "Asia/Kolkata")
    nine = Original(
        name="index minutes, no header",
        symbol="Nifty_1",
        folder="intraday",
        header=("symbol", "date", "time", "open", "high", "low", "close", "vol", "oi"),
        rows=tuple(("NIFTY", *time, *bar, "0") for time, bar in zip(times, bars, strict=True)),
        starts=starts,
        keys={"label": "end"},
        newline="\r\n",
        has_header=False,
    )
    seven = replace(
        nine,
        name="index minutes, no volume",
        symbol="Bank_Nifty_1",
        header=nine.header[:7],
        rows=tuple(("BANKNIFTY", *row[1:7]) for row in nine.rows),
    )
    doubled = replace(
        nine, name="index minutes, all twice", rows=nine.rows * 2, starts=np.concatenate([starts, starts])
    )
    named = replace(
        seven,
        name="index minutes, date and time",
        symbol="Nifty_1",
        header=("Instrument", "Date", "Time", "Open", "High", "Low", "Close"),
        newline="\n",
        has_header=True,
    )
    return [nine, seven, doubled, named]


def _epoch_quarters() -> Original:
    wall = _session_starts([f"2018-01-0{day}" for day in range(1, 6)], "09:15", 25, 15)
    starts = _in_utc(wall, "Asia/Kolkata")
    bars = _bars(len(wall), 2, 25_500.0)
    return Original(
        name="index quarters, epoch seconds",
        symbol="Bank_Nifty_15",
        folder="intraday",
        header=("Time", "Open", "High", "Low", "Close"),
        rows=tuple((str(start // SECOND_NS), *bar[:4]) for start, bar in zip(starts, bars, strict=True)),
        starts=starts,
    )


def _ticks() -> Original:
    wall = _session_starts(["2021-04-26"], "09:15", 100, 1)
    rows = [
        (label, bar[3], "0")
        for label, bar in zip(_written(wall, "%Y-%m-%d %H:%M:%S"), _bars(100, 3, 14_447.0), strict=True)
    ]
    return Original(
        name="ticks",
        symbol="Nifty_1",
        folder="intraday",
        header=("timestamp", "ltp", "volume"),
        rows=tuple(rows),
        starts=_in_utc(wall, "Asia/Kolkata"),
    )


def _forex_hours() -> Original:
    starts = np.datetime64("2012-11-19T00:00", "ns").astype(np.int64) + np.arange(115) * 60 * MINUTE_NS
    bars = _bars(115, 4, 103_428.0, decimals=4)
    return Original(
        name="currency hours, in points",
        symbol="AUDUSD_60",
        folder="forex",
        header=("Date", "open", "high", "low", "close", "tick_volume"),
        rows=tuple(
            (label, *bar) for label, bar in zip(_written(starts, "%Y-%m-%d %H:%M:%S"), bars, strict=True)
        ),
        starts=starts,
    )


def _coins() -> list[Original]:
    starts = np.datetime64("2021-03-01T00:00", "ns").astype(np.int64) + np.arange(120) * 60 * MINUTE_NS
    bars = _bars(120, 5, 43_200.0)
    texts = _written(starts, "%Y-%m-%d %H:%M:%S")
    newest_first = tuple(
        (str(start // SECOND_NS), text, "BTC/USD", *bar, str(43_000 * int(bar[4])))
        for start, text, bar in zip(starts[::-1], texts[::-1], bars[::-1], strict=True)
    )
    hourly = Original(
        name="coin hours, newest first",
        symbol="BTC_USD-Hourly",
        folder="crypto",
        header=("unix", "date", "symbol", "open", "high", "low", "close", "volume", "Volume USD"),
        rows=newest_first,
        starts=starts[::-1],
        is_newest_first=True,
    )
    mixed: list[tuple[str, ...]] = []
    for place, row in enumerate(newest_first):
        seconds = int(row[0])
        stamp = str(seconds * 1000) if place < 60 else f"{seconds}.0"
        mixed.append((stamp, *row[1:9], "NULL" if place >= 60 else "17"))
    milliseconds = replace(
        hourly,
        name="coin hours, seconds and milliseconds",
        symbol="Binance_BTCUSDT_1h",
        header=(*hourly.header[:7], "Volume BTC", "Volume USDT", "tradecount"),
        rows=tuple(mixed),
    )
    minutes = np.datetime64("2022-01-03T00:00", "ns").astype(np.int64) + np.arange(120) * MINUTE_NS
    perpetual = Original(
        name="coin minutes, microseconds",
        symbol="btc-perp_1m",
        folder="crypto",
        header=("timestamp", "open", "high", "low", "close", "volume"),
        rows=tuple(
            (text, *bar)
            for text, bar in zip(
                _written(minutes, "%Y-%m-%d %H:%M:%S.%f"), _bars(120, 6, 46_300.0), strict=True
            )
        ),
        starts=minutes,
    )
    return [hourly, milliseconds, perpetual]


def _days() -> list[Original]:
    """Return days of a currency, whose offset flips with summer time, and of an unadjusted fund."""
    days = pd.bdate_range("2024-01-15", periods=110)
    bars = _bars(110, 7, 152.0, decimals=5)
    shown = [f"{day:%Y-%m-%d} 00:00:00+0{int(pd.Timestamp('2024-03-31') <= day)}:00" for day in days]
    currency = Original(
        name="currency days, summer time",
        symbol="EURJPY=X",
        folder="forex",
        header=("Date", "Open", "High", "Low", "Close", "Volume", "Dividends", "Stock Splits"),
        rows=tuple((text, *bar[:4], "0", "0.0", "0.0") for text, bar in zip(shown, bars, strict=True)),
        starts=days.as_unit("ns").asi8,
    )
    fund = replace(
        currency,
        name="fund days",
        symbol="SPY",
        folder="etfs",
        header=("date", "1. open", "2. high", "3. low", "4. close", "5. volume"),
        rows=tuple((f"{day:%Y-%m-%d}", *bar) for day, bar in zip(days, bars, strict=True)),
    )
    return [currency, fund]


# --- the real ones --------------------------------------------------------------------------------------------------

_INDEX_COLUMNS = ("symbol", "date", "time", "open", "high", "low", "close", "vol", "oi")
"""What the columns of the index files without a header are."""


@dataclass(frozen=True)
class _Found:
    """A real file, and what it needs to load."""

    path: str
    """Below the folder of real files."""
    symbol: str
    keys: dict[str, object] = field(default_factory=dict)
    header: tuple[str, ...] = ()
    """Its header, where it has none."""


_REAL = (
    _Found("intraday/as_found/2020 FEB BIFTY.txt", "Nifty_1", {"label": "end"}, _INDEX_COLUMNS),
    _Found("intraday/as_found/2015 MAR BNF.txt", "Bank_Nifty_1", {"label": "end"}, _INDEX_COLUMNS[:7]),
    _Found("intraday/as_found/2016 JULY NIFTY.txt", "Nifty_1", {"label": "end"}, _INDEX_COLUMNS),
    _Found("intraday/as_found/NIFTY_2009.csv.gz", "Nifty_1", {"label": "end"}),
    _Found("intraday/as_found/BankNifty_2018_to_2023.csv.gz", "Bank_Nifty_15", {"checks": {"ohlc": "drop"}}),
    _Found("intraday/as_found/Nifty_26_April_ticks.csv.gz", "Nifty_1"),
    _Found("forex/as_found/AUDUSDh1.csv.gz", "AUDUSD_60"),
    _Found("crypto/BTC_USD-Hourly.csv.gz", "BTC_USD-Hourly"),
    _Found(
        "crypto/Binance_BTCUSDT_1h.csv.gz",
        "Binance_BTCUSDT_1h",
        {"checks": {"duplicate_time": "drop", "time_columns": "drop"}},
    ),
    _Found("crypto/btc-perp_1m_2022-01.csv.gz", "btc-perp_1m"),
)
"""The files that the manifest of the real data marks as found, by the layouts of `twins`."""


def real_originals(folder: Path, last_rows: int | None = None) -> dict[str, Original]:
    """Return the real files below a folder, by name; those that are not there are left out.

    Args:
        folder: Where they lie, in the sub-folders of `_REAL`.
        last_rows: Read only so many rows of the middle of each; None reads all.
    """
    return {found.path: _real(folder, found, last_rows) for found in _REAL if (folder / found.path).exists()}


def _real(folder: Path, found: _Found, count: int | None) -> Original:
    content = (folder / found.path).read_bytes()
    if found.path.endswith(".gz"):
        content = gzip.decompress(content)
    text = content.decode("utf-8")
    lines = list(csv.reader(text.splitlines()))
    rows = lines if found.header else lines[1:]
    if count is not None and len(rows) > count:
        middle = (len(rows) - count) // 2
        rows = rows[middle : middle + count]
    original = Original(
        name=found.path,
        symbol=found.symbol,
        folder=found.path.split("/")[0],
        header=found.header or tuple(lines[0]),
        rows=tuple(tuple(row) for row in rows),
        starts=np.zeros(len(rows), dtype=np.int64),
        keys=found.keys,
        newline="\r\n" if "\r\n" in text else "\n",
        has_header=not found.header,
    )
    starts = _instants_of(original)
    return replace(original, starts=starts, is_newest_first=bool(starts[0] > starts[-1]))


def _instants_of(original: Original) -> np.ndarray:
    """Read the times of a file in the plainest way: a count by its length, a text by its first letters."""
    texts = [" ".join(row[place] for place in original.time_columns()) for row in original.rows]
    if original.counts_time:
        return np.array(
            [int(t.split(".")[0]) * (10**6 if len(t) == len("1623283200000") else 10**9) for t in texts]
        )
    wall = (
        pd.to_datetime(pd.Series(texts), format="mixed").to_numpy().astype("datetime64[ns]").astype(np.int64)
    )
    return wall if original.folder in ("forex", "crypto") else _in_utc(wall, "Asia/Kolkata")
