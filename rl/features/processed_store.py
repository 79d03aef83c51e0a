"""Processed files: a symbol's bars and features as one Parquet file, with a readable account of it beside.

`<symbol>.parquet` holds the bars (prices in float64), the features (float32) and where they are usable.
`<symbol>.json` says which raw file they came from, what was found in it, and how they were made. The two
belong together by the hash of the first in the second, and the account holds a hash of itself; anything else
counts as not there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import rl
from rl.common.atomic_files import sha256_of, write_json, writing
from rl.common.errors import DataError
from rl.common.interpreter import interpreter
from rl.common.paths import checked_symbol
from rl.common.plain_files import UnfitFileError, read_plain_file
from rl.features.pipeline import FeatureTable, compute_features, longest_lookback_bars
from rl.market.bars import Bars
from rl.market.ingest import IngestResult, read_raw
from rl.market.instruments import Instrument

PROCESSED_VERSION = 2
"""Goes up with every change to the numbers or the layout; older files are made again."""

LARGEST_ACCOUNT_BYTES = 16 << 20
"""Accounts above this are taken for something else, unread."""

MOST_BARS = 1 << 26
"""Bars of one symbol: a century of minutes, twice over. A small file can claim more than any memory holds."""

_OWN_HASH = "sha256_of_account"
"""Key of an account that holds the SHA-256 of the rest of it."""

FEATURE_PREFIX = "feature."
"""Sets a feature's column apart from the raw column of the same name (the user's own x_ columns are both)."""

TRADING_KEYS = frozenset(
    {
        "currency",
        "kind",
        "lot_size",
        "commission",
        "slippage",
        "tax_on_sale_rate",
        "allow_short",
        "margin_rate",
        "square_off",
    }
)
"""Keys of an instrument that say how it is traded. Any other key may change what a raw file becomes."""

_BAR_COLUMNS = ("close_time", "session", "session_end", "open", "high", "low", "close")


@dataclass(frozen=True, kw_only=True)
class ProcessOutcome:
    """What became of one symbol's raw file."""

    symbol: str
    action: str
    """`processed`, `unchanged`, or `reprocessed: ` and the reason."""
    bars: int
    """Bars in the processed file."""
    seconds: float
    """Wall time."""
    notes: tuple[str, ...]
    """What was noticed in the raw file, as sentences; those of the earlier run where nothing changed."""


@dataclass(frozen=True)
class Processed:
    """A processed file in memory."""

    bars: Bars
    features: FeatureTable
    meta: dict[str, Any]
    """What `<symbol>.json` says; `data_hash` is the SHA-256 of the raw file."""


@dataclass(frozen=True)
class _Staleness:
    """What stands against using a processed file as it is."""

    reason: str | None
    """Why it has to be made again; None if it need not be."""
    meta: dict[str, Any] | None
    """Its account, where that can be read."""
    has_moved: bool = False
    """True where the raw file has the same bytes but another name or time than noted."""


def process(
    symbol: str, raw_path: Path, instrument: Instrument, processed_dir: Path, *, force: bool = False
) -> ProcessOutcome:
    """Read a raw file, compute its features and store both, unless that was done already.

    Nothing is done where the raw file has the size and modification time noted at the last run, or, failing
    that, the same SHA-256, and instrument and program would make the same of it. A tool that changes a file
    without changing size or time is not noticed; `force` makes the file again whatever is noted.

    Args:
        symbol: Name of the symbol.
        raw_path: Its raw file.
        instrument: What is known about it.
        processed_dir: Folder of the processed files; made if needed.
        force: Process even if nothing changed.

    Raises:
        DataError: The raw file is missing, changed while it was read, or did not pass its checks. Files of an
            earlier run stay as they were.
    """
    begun = time.perf_counter()
    parquet, sidecar = _paths(symbol, processed_dir)
    before = _stat(raw_path)
    stale = _staleness(symbol, raw_path, processed_dir, instrument)
    reason = stale.reason or ("asked for" if force else None)
    if reason is None and stale.meta is not None:
        if stale.has_moved:
            # Noting the new time makes the next question cheap again.
            moved = {"raw": _raw_entry(raw_path, before, stale.meta["data_hash"])}
            write_json(sidecar, _sealed(stale.meta | moved))
        return _outcome(symbol, "unchanged", stale.meta, begun)
    is_first = not parquet.exists() and not sidecar.exists()
    data_hash = sha256_of(raw_path)
    read = read_raw(raw_path, symbol, instrument)
    if _stat(raw_path) != before:
        raise DataError(
            f"{raw_path} changed while it was being read. Process it again when nothing writes to it."
        )
    features = compute_features(read.bars, instrument)
    with writing(parquet) as temporary:
        _write_parquet(temporary, read.bars, features)
        parquet_entry = {
            "file": parquet.name,
            "bytes": temporary.stat().st_size,
            "sha256": sha256_of(temporary),
        }
    meta = _account(symbol, read, features, instrument) | {
        "data_hash": data_hash,
        "raw": _raw_entry(raw_path, before, data_hash),
        "parquet": parquet_entry,
    }
    write_json(sidecar, _sealed(meta))
    return _outcome(symbol, "processed" if is_first else f"reprocessed: {reason}", meta, begun)


def is_current(
    symbol: str, raw_path: Path, processed_dir: Path, instrument: Instrument | None = None
) -> bool:
    """Return True if the processed file may be used as it is.

    Args:
        symbol: Name of the symbol.
        raw_path: Its raw file.
        processed_dir: Folder of the processed files.
        instrument: What is known about it; None leaves out whether that has changed.

    Raises:
        DataError: The raw file is missing.
    """
    return _staleness(symbol, raw_path, processed_dir, instrument).reason is None


def load_processed(symbol: str, processed_dir: Path) -> Processed:
    """Return the bars and features that `process` stored.

    Raises:
        DataError: There is no processed file, or it is damaged or was made by another version of the program.
    """
    parquet, sidecar = _paths(symbol, processed_dir)
    meta = _read_sidecar(sidecar)
    reason = _fault(parquet, sidecar, meta)
    if reason is not None or meta is None:
        missing = not parquet.exists() and not sidecar.exists()
        found = (
            f"There is no processed file of {symbol}"
            if missing
            else f"The processed file of {symbol}: {reason}"
        )
        raise DataError(
            f"{found} in {processed_dir}.\n"
            f"  Make it with: {interpreter()} run_backtest.py --process-data --symbols {symbol}"
        )
    try:
        with pq.ParquetFile(parquet) as file:
            _check_size(file, meta)
            bars = _bars_of(file, meta)
            return Processed(bars, _features_of(file, meta), meta)
    except (pa.ArrowException, KeyError, TypeError, ValueError, OverflowError) as error:
        # Both files vouch for each other, and still do not say what ours say: somebody else made them.
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"The processed file of {symbol} in {processed_dir} cannot be used: {reason:.200}.\n"
            f"  Delete it and make it with: {interpreter()} run_backtest.py --process-data --symbols {symbol}"
        ) from error


def account(symbol: str, processed_dir: Path) -> dict[str, Any] | None:
    """Return what a processed file's `<symbol>.json` says; None where there is none that is as it was written."""
    return _read_sidecar(_paths(symbol, processed_dir)[1])


def fingerprint(instrument: Instrument) -> str:
    """Return a SHA-256 over everything about an instrument that processing may depend on."""
    return _hash_of(_processing_keys(instrument))


def _staleness(symbol: str, raw_path: Path, processed_dir: Path, instrument: Instrument | None) -> _Staleness:
    """Compare a processed file with its raw file, its instrument and this program; cheap questions first."""
    parquet, sidecar = _paths(symbol, processed_dir)
    size, modified = _stat(raw_path)
    meta = _read_sidecar(sidecar)
    reason = _fault(parquet, sidecar, meta)
    if reason is not None or meta is None:
        return _Staleness(reason, meta)
    if instrument is not None and meta["instrument"]["fingerprint"] != fingerprint(instrument):
        return _Staleness(_changed_keys(meta["instrument"]["keys"], instrument), meta)
    noted = meta["raw"]
    if (raw_path.name, size, modified) == (noted["file"], noted["bytes"], noted["mtime_ns"]):
        return _Staleness(None, meta)
    if size == noted["bytes"] and sha256_of(raw_path) == meta["data_hash"]:
        return _Staleness(None, meta, has_moved=True)
    return _Staleness(f"raw file changed ({noted['bytes']:,} → {size:,} bytes)", meta)


def _check_size(file: pq.ParquetFile, meta: dict[str, Any]) -> None:
    """Raise unless the file has the bars the account says, and no more than there can be."""
    rows = file.metadata.num_rows
    if rows != meta["bars"] or rows > MOST_BARS:
        raise ValueError(
            f"it has {rows:,} rows, its account says {meta['bars']!r:.40}, and at most {MOST_BARS:,} are read"
        )


def _sealed(meta: dict[str, Any]) -> dict[str, Any]:
    """Return an account with its own hash, so that a flipped bit in it is noticed too."""
    content = _sealed_part(meta)
    return {**content, _OWN_HASH: _hash_of(content)}


def _hash_of(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _fault(parquet: Path, sidecar: Path, meta: dict[str, Any] | None) -> str | None:
    """Return what is wrong with the two files themselves, None if nothing is."""
    if not parquet.exists():
        return f"{parquet.name} is missing"
    if not parquet.is_file():
        return f"{parquet.name} is not an ordinary file"
    if meta is None:
        return f"{sidecar.name} is missing, cannot be read or was altered"
    if meta.get("processed_version") != PROCESSED_VERSION:
        return f"processing changed (version {meta.get('processed_version')} → {PROCESSED_VERSION})"
    if meta.get("symbol") != parquet.name.removesuffix(".parquet"):
        return f"{sidecar.name} is the account of another symbol, {meta.get('symbol')!a:.80}"
    # The size is asked first: it is free, and tells a file that was cut off.
    stored = meta["parquet"]
    if parquet.stat().st_size != stored["bytes"] or sha256_of(parquet) != stored["sha256"]:
        return f"{parquet.name} is not the file that {sidecar.name} describes"
    return None


def _read_sidecar(sidecar: Path) -> dict[str, Any] | None:
    """Return the account, None where there is none that can be read and is as it was written."""
    try:
        text = read_plain_file(sidecar, LARGEST_ACCOUNT_BYTES)
        meta = json.loads(text)
        if not isinstance(meta, dict) or not text.endswith(b"}\n"):
            return None
        # An older version's is not judged by today's rules; it is made again because of its version.
        if meta.get("processed_version") == PROCESSED_VERSION and meta.get(_OWN_HASH) != _hash_of(
            _sealed_part(meta)
        ):
            return None
    except (FileNotFoundError, UnfitFileError, ValueError, RecursionError):
        # All count as not there: the file is made again, or its absence is reported by the caller.
        return None
    return meta if _is_complete(meta) else None


def _sealed_part(meta: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in meta.items() if name != _OWN_HASH}


def _is_complete(meta: dict[str, Any]) -> bool:
    """Return True if an account has every entry that is read from it."""
    needed: dict[str, tuple[str, ...]] = {
        "raw": ("file", "bytes", "mtime_ns"),
        "parquet": ("bytes", "sha256"),
        "instrument": ("fingerprint", "keys"),
    }
    if not {"data_hash", "bars", "notes", *needed} <= meta.keys():
        return False
    if not all(
        isinstance(meta[name], dict) and set(parts) <= meta[name].keys() for name, parts in needed.items()
    ):
        return False
    whole = (meta["bars"], meta["raw"]["bytes"], meta["raw"]["mtime_ns"], meta["parquet"]["bytes"])
    texts = (
        meta["data_hash"],
        meta["raw"]["file"],
        meta["parquet"]["sha256"],
        meta["instrument"]["fingerprint"],
    )
    notes, keys = meta["notes"], meta["instrument"]["keys"]
    return (
        all(type(value) is int for value in whole)
        and isinstance(notes, list)
        and all(isinstance(text, str) for text in (*texts, *notes))
        and isinstance(keys, dict)
    )


def _paths(symbol: str, processed_dir: Path) -> tuple[Path, Path]:
    name = checked_symbol(symbol)
    folder = Path(processed_dir)
    # Not with_suffix: a symbol such as BHP.AX ends with something that looks like one.
    return folder / f"{name}.parquet", folder / f"{name}.json"


def _stat(raw_path: Path) -> tuple[int, int]:
    """Return size in bytes and modification time in ns."""
    try:
        found = Path(raw_path).stat()
    except FileNotFoundError as error:
        raise DataError(
            f"The raw file {raw_path} does not exist. Put it there or correct the path."
        ) from error
    return found.st_size, found.st_mtime_ns


def _raw_entry(raw_path: Path, seen: tuple[int, int], data_hash: str) -> dict[str, Any]:
    # As it was before reading began: a change since then has to look like one at the next question.
    size, modified = seen
    # The name only: a whole path would say something about the machine and break when the folder moves.
    return {"file": Path(raw_path).name, "bytes": size, "mtime_ns": modified, "sha256": data_hash}


def _processing_keys(instrument: Instrument) -> dict[str, Any]:
    return instrument.model_dump(mode="json", exclude=set(TRADING_KEYS))


def _changed_keys(noted: dict[str, Any], instrument: Instrument) -> str:
    now = _processing_keys(instrument)
    keys = [key for key in dict.fromkeys([*noted, *now]) if noted.get(key) != now.get(key)]
    return "instrument changed: " + ", ".join(f"{key} {noted.get(key)} → {now.get(key)}" for key in keys)


def _account(
    symbol: str, read: IngestResult, features: FeatureTable, instrument: Instrument
) -> dict[str, Any]:
    """Return what the sidecar says apart from the files themselves."""
    bars = read.bars
    return {
        "processed_version": PROCESSED_VERSION,
        "code_version": rl.__version__,
        "library_versions": {name: version(name) for name in ("numpy", "pandas", "pyarrow", "TA-Lib")},
        "symbol": symbol,
        "bar_seconds": bars.bar_seconds,
        "bars": len(bars),
        "first_bar": str(bars.label[0]) if len(bars) else None,
        "last_bar": str(bars.label[-1]) if len(bars) else None,
        "sessions": len(np.unique(bars.session)),
        "usable_bars": int(features.usable.sum()),
        "warm_up_bars": longest_lookback_bars(),
        "features": list(features.names),
        "regime_features": list(features.regime_names),
        "own_columns": list(bars.extra),
        "has_volume": bars.volume is not None,
        "moves_are": "price differences" if instrument.price_may_be_negative else "log returns",
        "counts": {name: int(count) for name, count in read.counts.items()},
        "notes": list(read.notes),
        "instrument": {"fingerprint": fingerprint(instrument), "keys": _processing_keys(instrument)},
    }


def _outcome(symbol: str, action: str, meta: dict[str, Any], begun: float) -> ProcessOutcome:
    return ProcessOutcome(
        symbol=symbol,
        action=action,
        bars=meta["bars"],
        seconds=time.perf_counter() - begun,
        notes=tuple(meta["notes"]),
    )


def _write_parquet(path: Path, bars: Bars, features: FeatureTable) -> None:
    columns: dict[str, Any] = {"label": pa.array(bars.label, type=pa.string())}
    columns |= {name: getattr(bars, name) for name in _BAR_COLUMNS}
    if bars.volume is not None:
        columns["volume"] = bars.volume
    columns |= bars.extra
    columns |= {"usable": features.usable, "atr": features.atr}
    columns |= {
        FEATURE_PREFIX + name: features.values[:, column] for column, name in enumerate(features.names)
    }
    table = pa.table(columns)
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    # Splitting floats into streams of first, second, … bytes is what makes them compress at all.
    encodings = dict.fromkeys(floats, "BYTE_STREAM_SPLIT")
    pq.write_table(table, path, compression="lz4", use_dictionary=False, column_encoding=encodings)


def _bars_of(file: pq.ParquetFile, meta: dict[str, Any]) -> Bars:
    column = _column_reader(file)
    if meta["has_volume"] is not ("volume" in file.schema_arrow.names):
        raise ValueError(f"has_volume is {meta['has_volume']!r:.40}, which its columns do not bear out")
    return Bars(
        symbol=meta["symbol"],
        bar_seconds=meta["bar_seconds"],
        volume=column("volume") if meta["has_volume"] else None,
        extra={name: column(name) for name in meta["own_columns"]},
        label=column("label"),
        **{name: column(name) for name in _BAR_COLUMNS},
    )


def _features_of(file: pq.ParquetFile, meta: dict[str, Any]) -> FeatureTable:
    column = _column_reader(file)
    names = tuple(meta["features"])
    values = np.empty((meta["bars"], len(names)), dtype=np.float32)
    for place, name in enumerate(names):
        values[:, place] = column(FEATURE_PREFIX + name)
    return FeatureTable(values, names, column("usable"), column("atr"), tuple(meta["regime_features"]))


def _column_reader(file: pq.ParquetFile) -> Callable[[str], np.ndarray]:
    def column(name: str) -> np.ndarray:
        # One column at a time: the whole table beside the arrays made of it would need twice the memory.
        table = file.read([name], use_threads=False)
        # A copy where Arrow would lend its own memory, so that every array is contiguous and ours.
        return np.array(table.column(name).to_numpy())

    return column
