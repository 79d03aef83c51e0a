"""Which raw price files load, and why the others are refused: the part of `doctor` about the user's data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rl.apps.commands.symbols import KnownSymbols, instrument_of
from rl.common.errors import StagegateError
from rl.market.bars import readable_label
from rl.market.checks import counted
from rl.market.ingest import read_raw
from rl.market.instruments import InstrumentBook


@dataclass(frozen=True, kw_only=True)
class RawFileState:
    """Whether one raw file can be used."""

    symbol: str
    is_well: bool
    figure: str
    """Bars, dates and instrument; of a refused file the whole reason."""


def raw_file_states(known: KnownSymbols, book: InstrumentBook) -> Iterator[RawFileState]:
    """Read every raw file and yield what became of it; nothing is written."""
    for symbol, error in known.unusable.items():
        yield RawFileState(symbol=symbol, is_well=False, figure=str(error))
    for symbol, path in known.raw.items():
        yield _state(symbol, path, known, book)


def _state(symbol: str, path: Path, known: KnownSymbols, book: InstrumentBook) -> RawFileState:
    try:
        found = instrument_of(symbol, book, known.raw)
        read = read_raw(path, symbol, found.instrument)
    except StagegateError as error:
        return RawFileState(symbol=symbol, is_well=False, figure=str(error))
    bars = read.bars
    first, last = readable_label(bars, 0)[:10], readable_label(bars, len(bars) - 1)[:10]
    notes = f"; {counted(len(read.notes), 'note')}, see `process`" if read.notes else ""
    figure = f"{len(bars):,} bars, {first} .. {last}, {found.matched}{notes}"
    return RawFileState(symbol=symbol, is_well=True, figure=figure)
