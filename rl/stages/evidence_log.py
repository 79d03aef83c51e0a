"""What a judged model did, bar by bar, so that its verdict can be recomputed without model, bars or kernel.

An action log is a gzip csv with one row per bar of the window: closing time (UTC ns), session, equity of the account
and of buy-and-hold at that close, and the bar's fill, if there was one: units (bought above zero), price, charges,
slippage and reason. Every further fill of the same bar is a row of its own with the account's columns left empty. Row 1
is the first decision bar, at whose close the account still holds its capital. Floats are written so that reading gives
the same bits; equal logs are equal files, byte for byte.

The gate after stage 3 compares query windows rather than trades; their growths are kept beside it as JSON.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl.backtest.engine import Replay
from rl.common.atomic_files import sha256_of, write_bytes
from rl.common.errors import DataError
from rl.common.plain_files import UnfitFileError, read_plain_file
from rl.stages.adaptation_proof import AdaptationProof, CrossSymbol, Placebo, PlainSteps, measured_across
from rl.stages.gates import TradeRecord
from rl.trading.kernel import REASONS
from rl.trading.ledger import LOG_BAR, LOG_CHARGES, LOG_PRICE, LOG_REASON, LOG_SLIPPAGE, LOG_UNITS
from rl.trading.metrics import max_drawdown, session_returns

FOLDER = "evidence"
"""Beside the ledger."""

ACTIONS = ".csv.gz"
WINDOWS = ".windows.json"
"""How the files of a look end."""

_COLUMNS = (
    "close_time_ns", "session", "equity", "buy_and_hold_equity", "units", "price", "charges", "slippage", "reason",
)  # fmt: skip
_BAR = 4  # columns of the account; the rest is a fill's
_COMPRESSION = 6

LARGEST_LOG_BYTES = 256 << 20
"""Of text, unpacked: a window of two million bars. More is not read, since a small archive can unpack to any size."""


@dataclass(frozen=True)
class LogFile:
    """A file of evidence."""

    path: Path
    sha256: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ActionLog:
    """An action log as read. Axes: n bars of the window, m fills in order of time."""

    close_time: np.ndarray
    """UTC nanoseconds. (n,)"""
    session: np.ndarray
    """Session of each bar. (n,)"""
    equity: np.ndarray
    """Marked at each close, money. (n,)"""
    benchmark_equity: np.ndarray
    """Of buy-and-hold. (n,)"""
    fill_bar: np.ndarray
    """Bar of each fill, counted from the window's first. (m,)"""
    fill_units: np.ndarray
    """Bought above zero, sold below. (m,)"""
    fill_price: np.ndarray
    """Slippage included. (m,)"""
    fill_charges: np.ndarray
    """Commission and tax, money. (m,)"""

    def record(self, episodes: int | None) -> TradeRecord:
        """Return what a gate asks for, made of this log alone.

        Raises:
            DataError: If fills and equity contradict each other.
        """
        net_pnl, exit_bar = self._round_trips()
        capital = float(self.equity[0])
        return TradeRecord(
            net_pnl=net_pnl,
            trade_session=self.session[exit_bar],
            session_returns=session_returns(self.equity, self.session, capital),
            benchmark_session_returns=session_returns(
                self.benchmark_equity, self.session, float(self.benchmark_equity[0])
            ),
            max_drawdown=max_drawdown(self.equity),
            episodes=episodes,
        )

    def _round_trips(self) -> tuple[np.ndarray, np.ndarray]:
        """Return net result and exit bar of every trade from flat back to flat, checked against equity."""
        net_pnl: list[float] = []
        exit_bar: list[int] = []
        # Where the account is flat its equity is known from the fills; nan where a position is open.
        known_from, known = [0], [float(self.equity[0])]
        held = cash = realised = 0.0
        fills = zip(
            self.fill_bar.tolist(),
            self.fill_units.tolist(),
            self.fill_price.tolist(),
            self.fill_charges.tolist(),
            strict=True,
        )
        for bar, units, price, charges in fills:
            if held == 0.0:
                cash = 0.0
            held += units
            cash += -units * price - charges
            if held == 0.0:
                net_pnl.append(cash)
                exit_bar.append(bar)
                realised += cash
            known_from.append(bar)
            known.append(known[0] + realised if held == 0.0 else np.nan)
        self._check_equity(known_from, known)
        return np.array(net_pnl), np.array(exit_bar, dtype=np.int64)

    def _check_equity(self, known_from: list[int], known: list[float]) -> None:
        """Refuse a log whose equity, at a close without a position, is not capital plus realised results."""
        lengths = np.diff([*known_from, len(self.equity)])
        expected = np.repeat(known, lengths)
        apart = np.abs(self.equity - expected) > 1e-9 * np.maximum(np.abs(self.equity), known[0])
        if apart.any():
            first = int(np.argmax(apart))
            raise DataError(
                f"the log contradicts itself at bar {first} of its window: with no position open, equity is "
                f"{float(self.equity[first])!r}, but the fills leave {float(expected[first])!r}"
            )


def write_action_log(
    path: Path, replay: Replay, benchmark: Replay, close_time: np.ndarray, session: np.ndarray
) -> LogFile:
    """Write what a replay did, whole or not at all.

    Args:
        path: Where to.
        replay: The judged account.
        benchmark: Buy-and-hold on the same window.
        close_time: Of every bar of the symbol, UTC ns. (T,)
        session: Of every bar of the symbol. (T,)

    Returns:
        Where it lies and its hash.
    """
    text = io.StringIO()
    text.write(",".join(_COLUMNS) + "\n")
    text.writelines(_rows(replay, benchmark, close_time, session))
    packed = io.BytesIO()
    # No time and no name inside: the same log gives the same bytes.
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, compresslevel=_COMPRESSION, mtime=0) as file:
        file.write(text.getvalue().encode())
    return _kept(path, packed.getvalue())


def _kept(path: Path, data: bytes) -> LogFile:
    """Write evidence without ever replacing other evidence; return where it lies.

    The same look of the same model by the same code gives the same bytes. Other bytes under that name come from
    changed code, or from a ledger that was begun anew: those are still the evidence of their own verdicts.
    """
    digest = hashlib.sha256(data).hexdigest()
    if path.is_file() and sha256_of(path) != digest:
        ending = next(ending for ending in (ACTIONS, WINDOWS) if path.name.endswith(ending))
        path = path.with_name(f"{path.name.removesuffix(ending)}-{digest[:8]}{ending}")
    write_bytes(path, data)
    return LogFile(path, digest)


def _rows(replay: Replay, benchmark: Replay, close_time: np.ndarray, session: np.ndarray) -> Iterator[str]:
    columns = (LOG_UNITS, LOG_PRICE, LOG_CHARGES, LOG_SLIPPAGE)
    fills: dict[int, list[str]] = {}
    for fill in replay.fill_log.tolist():
        numbers = ",".join(repr(fill[column]) for column in columns)
        fills.setdefault(int(fill[LOG_BAR]), []).append(f"{numbers},{REASONS[int(fill[LOG_REASON])]}")
    window = slice(replay.start, replay.stop)
    bars = zip(
        range(replay.start, replay.stop),
        close_time[window].tolist(),
        session[window].tolist(),
        replay.equity.tolist(),
        benchmark.equity.tolist(),
        strict=True,
    )
    for bar, closed, day, equity, held in bars:
        first, *more = fills.get(bar, [",,,,"])
        yield f"{closed},{day},{equity!r},{held!r},{first}\n"
        for fill in more:
            yield f",,,,{fill}\n"


def read_action_log(path: Path) -> ActionLog:
    """Read what `write_action_log` wrote.

    Raises:
        DataError: If it is missing, damaged or no action log.
    """
    try:
        header, *rows = csv.reader(_unpacked(path).decode("utf-8").splitlines())
        if tuple(header) != _COLUMNS:
            raise ValueError(f"its columns are {', '.join(header)}")
        return _parsed(rows)
    except (UnfitFileError, OSError, EOFError, ValueError, IndexError, csv.Error, zlib.error) as error:
        raise DataError(f"{path} cannot be read as an action log: {error}") from error


def _unpacked(path: Path) -> bytes:
    packed = read_plain_file(path, LARGEST_LOG_BYTES)
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        data = file.read(LARGEST_LOG_BYTES + 1)
    if len(data) > LARGEST_LOG_BYTES:
        raise UnfitFileError(f"is too large: it unpacks to more than {LARGEST_LOG_BYTES} bytes")
    return data


def _parsed(rows: list[list[str]]) -> ActionLog:
    if short := [number for number, row in enumerate(rows, start=2) if len(row) != len(_COLUMNS)]:
        raise ValueError(f"line {short[0]} has not {len(_COLUMNS)} columns")
    bars = [row for row in rows if row[0]]
    bar, fills = -1, []
    for row in rows:
        bar += bool(row[0])
        if row[_BAR]:
            fills.append((bar, row))
    if not bars or not rows[0][0]:
        raise ValueError("it does not begin with a bar")
    return ActionLog(
        close_time=np.array([int(row[0]) for row in bars], dtype=np.int64),
        session=np.array([int(row[1]) for row in bars], dtype=np.int64),
        equity=_finite([row[2] for row in bars]),
        benchmark_equity=_finite([row[3] for row in bars]),
        fill_bar=np.array([place for place, _ in fills], dtype=np.int64),
        fill_units=_finite([row[_BAR] for _, row in fills]),
        fill_price=_finite([row[_BAR + 1] for _, row in fills]),
        fill_charges=_finite([row[_BAR + 2] for _, row in fills]),
    )


def _finite(texts: list[str]) -> np.ndarray:
    numbers = np.array([float(text) for text in texts], dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"it holds {texts[int(np.argmax(~np.isfinite(numbers)))]}")
    return numbers


def write_windows_log(path: Path, proof: AdaptationProof, across: CrossSymbol) -> LogFile:
    """Write the growths that the gate after stage 3 compares, whole or not at all."""
    content = {
        **_plain(proof),
        "placebo": None if proof.placebo is None else _plain(proof.placebo),
        "across": {
            "symbol": across.symbol,
            "note": across.note,
            "adapted": list(across.adapted),
            "own_model": list(across.own_model),
        },
    }
    return _kept(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _plain(record: AdaptationProof | Placebo | PlainSteps) -> dict[str, Any]:
    """Return a record's fields by name, arrays as lists."""
    return {name: _plain_value(value) for name, value in vars(record).items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, PlainSteps):
        return _plain(value)
    return value.tolist() if isinstance(value, np.ndarray) else value


def read_windows_log(path: Path) -> tuple[AdaptationProof, CrossSymbol]:
    """Read what `write_windows_log` wrote; the ratio across symbols is computed anew.

    Raises:
        DataError: If it is missing, damaged or something else.
    """
    try:
        found: dict[str, Any] = json.loads(read_plain_file(path, LARGEST_LOG_BYTES))
        across, placebo = found["across"], found["placebo"]
        tasks, steps = len(found["adapted"]), len(found["curve_steps"])

        def per_task(values: list[float]) -> np.ndarray:
            return np.array(values, dtype=np.float64).reshape(tasks)

        proof = AdaptationProof(
            steps=int(found["steps"]),
            curve_steps=tuple(int(each) for each in found["curve_steps"]),
            adapted=np.array(found["adapted"], dtype=np.float64).reshape(tasks, steps),
            parent=per_task(found["parent"]),
            fine_tuned=per_task(found["fine_tuned"]),
            fine_tune=PlainSteps(**found["fine_tune"]),
            random_start=per_task(found["random_start"]),
            random_start_steps=PlainSteps(**found["random_start_steps"]),
            buy_and_hold=per_task(found["buy_and_hold"]),
            other_support=None if found["other_support"] is None else per_task(found["other_support"]),
            placebo=placebo and Placebo(**{name: per_task(values) for name, values in placebo.items()}),
        )
        if across["own_model"]:
            return proof, measured_across(across["symbol"], across["adapted"], across["own_model"])
        return proof, CrossSymbol(ratio=None, symbol=across["symbol"], note=across["note"])
    except (UnfitFileError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as a log of query windows: {error}") from error


def log_path(folder: Path, symbol: str, purpose: str, window_hash: str, attempt: int, ending: str) -> Path:
    """Return where the evidence of a look lies, below the folder of the ledger."""
    return folder / FOLDER / symbol / f"{purpose}-{window_hash[:12]}-{attempt}{ending}"
