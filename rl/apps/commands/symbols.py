"""Which symbols a command is about, and bringing their processed files up to date."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rl.apps.commands.options import wants_all
from rl.common.atomic_files import sweep_stray_files
from rl.common.errors import DataError, StagegateError, UsageError, nearest
from rl.common.paths import checked_symbol
from rl.features.processed_store import ProcessOutcome, process
from rl.market.ingest import discover
from rl.market.instruments import FoundInstrument, InstrumentBook
from rl.market.raw_table import ENDINGS

_NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class KnownSymbols:
    """Every symbol with a raw file or a processed one."""

    raw: dict[str, Path]
    processed: frozenset[str]
    unusable: dict[str, StagegateError]
    """Names of files that cannot be told apart or cannot be symbols, and why."""
    not_looked_at: tuple[Path, ...] = ()
    """Files of the raw folder that are no price files by their ending."""

    def names(self) -> list[str]:
        """Return all of them, sorted."""
        return sorted({*self.raw, *self.processed})

    def notes(self) -> list[str]:
        """Return what `all` leaves out without saying it is wrong, in a line; nothing where that is nothing."""
        if not self.not_looked_at:
            return []
        shown = [path.name for path in self.not_looked_at[:_NAMES_SHOWN]]
        more = len(self.not_looked_at) - len(shown)
        names = ", ".join([*shown, *([f"{more} more"] if more else [])])
        endings = ", ".join(sorted({path.suffix or "no ending" for path in self.not_looked_at}))
        return [f"not looked at: {names} ({endings}; price files are {', '.join(ENDINGS)})"]


def known_symbols(raw_dir: Path, processed_dir: Path, *, raw_dir_was_given: bool) -> KnownSymbols:
    """Return what there is in both folders.

    Raises:
        DataError: The raw folder was asked for and does not exist.
    """
    if not raw_dir.is_dir() and raw_dir_was_given:
        raise DataError(
            f"the folder {raw_dir} does not exist; --raw-data-dir has to name the folder with your price files"
        )
    unusable: dict[str, StagegateError] = {}
    others: list[Path] = []
    raw = discover(raw_dir, unusable.__setitem__, others.append) if raw_dir.is_dir() else {}
    processed = _processed_in(processed_dir, unusable)
    return KnownSymbols(
        raw=raw,
        processed=frozenset(processed - set(unusable)),
        unusable=unusable,
        not_looked_at=tuple(others),
    )


def _processed_in(folder: Path, unusable: dict[str, StagegateError]) -> set[str]:
    """Return the symbols of all processed files; one whose name is none goes into `unusable`, as a raw one does."""
    found = set()
    for path in sorted(folder.glob("*.parquet")):
        if path.name.startswith("."):
            continue
        try:
            found.add(checked_symbol(path.stem))
        except UsageError as error:
            unusable.setdefault(path.stem, DataError(f"{path}: {error}"))
    return found


def symbols_of(options: argparse.Namespace) -> KnownSymbols:
    """Return what there is in the folders a command was given; the usual raw folder need not exist.

    Raises:
        DataError: A raw folder of the user's own was named and does not exist.
    """
    return known_symbols(
        options.raw_data_dir,
        getattr(options, "processed_data_dir", Path("data/processed")),
        raw_dir_was_given=options.raw_data_dir != Path("data/raw"),
    )


def chosen_symbols(asked: Sequence[str], known: KnownSymbols, raw_dir: Path) -> list[str]:
    """Return the symbols asked for, `all` meaning every known one.

    Raises:
        UsageError: A name cannot be a symbol, or is not known; the nearest names are suggested.
        DataError: There is no symbol at all.
    """
    names = known.names()
    if wants_all(asked) and "all" not in names:
        if len(asked) > 1:
            raise UsageError(f"--symbols: give `all` or names, not both (got {' '.join(asked)})")
        if not names and known.unusable:
            raise DataError("\n".join(str(error) for error in known.unusable.values()))
        if not names:
            raise DataError(
                f"there is no price file in {raw_dir}. Put <symbol>.csv, .csv.gz or .parquet files there (columns "
                "datetime, open, high, low, close; volume optional), or name another folder with --raw-data-dir."
                + "".join(f"\n  {note}" for note in known.notes())
            )
        return names
    found = list(dict.fromkeys(checked_symbol(text) for text in asked))
    for name in found:
        if name in known.unusable:
            raise known.unusable[name]
    unknown = [name for name in found if name not in names]
    if unknown:
        # With files to choose from it is the name that is wrong, without any it is the folder.
        kind = UsageError if names else DataError
        raise kind("\n".join(_unknown(name, names, raw_dir) for name in unknown))
    return found


def _unknown(name: str, names: list[str], raw_dir: Path) -> str:
    close = nearest(name, names)
    if close:
        return f"{name}: no such symbol in {raw_dir}; did you mean {', '.join(close)}?"
    if not names:
        return f"{name}: no such symbol; {raw_dir} holds no price file"
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"{name}: no such symbol in {raw_dir}; there are: {shown}"


def instrument_of(symbol: str, book: InstrumentBook, raw: dict[str, Path]) -> FoundInstrument:
    """Return the instrument of a symbol; its raw file's folder may name the class."""
    folder = raw[symbol].parent.name if symbol in raw else None
    return book.find(symbol, folder)


def bring_up_to_date(
    symbols: Sequence[str],
    known: KnownSymbols,
    book: InstrumentBook,
    processed_dir: Path,
    *,
    force: bool = False,
    on_outcome: Callable[[ProcessOutcome], None],
    on_problem: Callable[[str, StagegateError], None],
) -> list[str]:
    """Process every raw file that is new or changed; return the symbols that are ready.

    A symbol whose raw file is bad is reported and left out; the others go on.
    """
    # A folder that cannot be written to is refused only where something has to be: its files may all be current.
    sweep_stray_files(processed_dir)
    ready = []
    for symbol in symbols:
        if symbol not in known.raw:
            ready.append(symbol)
            continue
        try:
            found = instrument_of(symbol, book, known.raw)
            on_outcome(process(symbol, known.raw[symbol], found.instrument, processed_dir, force=force))
        except StagegateError as error:
            on_problem(symbol, error)
            continue
        ready.append(symbol)
    return ready
