"""Raw files with the faults real ones have, written row by row, so that nothing here calls the code under test."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from rl.market.bars import Bars
from tests.builders import DAY_NS, random_bars, with_a_hole

BARS_PER_SESSION = 25
OPENS = timedelta(hours=9, minutes=15)
STEP = timedelta(minutes=15)
Row = dict[str, float | str]


def flawed_intraday_file(folder: Path, *, sessions: int = 70, seed: int = 1) -> Path:
    """Write quarter hours of an NSE index as a vendor might deliver them.

    Overnight gaps; a half day every ninth session; one bar in fifty missing; twelve days missing after session 30; a
    pre-open print every tenth day, which lies outside the session; a repeated row; bars without volume; two columns of
    the user's own, one per bar and one with the day before's mood.
    """
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    price, mood = 17_000.0, 0.0
    day = datetime(2023, 1, 2)  # noqa: DTZ001 - a label as the file writes it
    for session in range(sessions):
        price *= float(np.exp(0.004 * rng.standard_normal()))
        if session % 10 == 4:
            rows.append(_row(day + timedelta(hours=9), price, price, 0.0, rng, mood))
        length = 11 if session % 9 == 5 else BARS_PER_SESSION
        for place in range(length):
            close = price * float(np.exp(0.0015 * rng.standard_normal()))
            is_missing = place and rng.random() < 0.02
            volume = 0.0 if rng.random() < 0.05 else float(np.round(1000 * np.exp(rng.standard_normal())))
            row = _row(day + OPENS + place * STEP, price, close, volume, rng, mood)
            price = close
            if not is_missing:
                rows.append(row)
        mood = float(rng.standard_normal())
        day += timedelta(days=3 if day.weekday() == 4 else 1) + timedelta(days=14 if session == 30 else 0)
    rows.insert(400, rows[399])
    return _written(folder / "FLAWED_15.csv", rows)


def daily_file(folder: Path, *, count: int = 900, seed: int = 2) -> Path:
    """Write days of a stock, newest first, with a split nobody adjusted and a week that is missing."""
    bars = with_a_hole(random_bars(count, seed, minutes=1440, sigma=0.01, with_volume=True), 500, 7)
    rows = _rows_of(bars)
    for row in rows[: count // 2]:
        for name in ("open", "high", "low", "close"):
            row[name] = 4.0 * float(row[name])
    return _written(folder / "FLAWED.csv", rows[::-1])


def crypto_file(folder: Path, *, count: int = 1500, seed: int = 3) -> Path:
    """Write hours of a market that never closes, timed in seconds since 1970, some of them missing."""
    bars = random_bars(count, seed, minutes=60)
    start = np.int64(1_700_006_400) + 3600 * np.arange(count) + 5 * 3600 * (np.arange(count) // 400)
    rows = _rows_of(bars)
    for row, seconds in zip(rows, start, strict=True):
        row["datetime"] = str(int(seconds))
    return _written(folder / "FLAWEDCOIN_60.csv", rows)


def oil_file(folder: Path, *, count: int = 900, seed: int = 4) -> Path:
    """Write days of a future whose price falls below zero and comes back."""
    bars = random_bars(count, seed, minutes=1440, sigma=0.02)
    middle = float(np.median(bars.close))
    return _written(folder / "FLAWEDOIL.csv", _rows_of(bars, minus=middle))


def _row(
    label: datetime, opened: float, close: float, volume: float, rng: np.random.Generator, mood: float
) -> Row:
    reach = np.abs(rng.normal(0.0, 0.0005, 2))
    return {
        "datetime": label.isoformat(sep=" "),
        "open": opened,
        "high": max(opened, close) * float(1 + reach[0]),
        "low": min(opened, close) * float(1 - reach[1]),
        "close": close,
        "volume": volume,
        "x_news": float(rng.standard_normal()),
        "x_mood": mood,
    }


def _rows_of(bars: Bars, minus: float = 0.0) -> list[Row]:
    rows: list[Row] = []
    for t in range(len(bars)):
        row: Row = {"datetime": str(np.datetime64(int(bars.close_time[t] // DAY_NS), "D"))}
        row |= {name: float(getattr(bars, name)[t]) - minus for name in ("open", "high", "low", "close")}
        if bars.volume is not None:
            row["volume"] = float(bars.volume[t])
        rows.append(row)
    return rows


def _written(path: Path, rows: list[Row]) -> Path:
    names = list(rows[0])
    lines = [",".join(names), *(",".join(_text(row[name]) for name in names) for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else repr(value)
