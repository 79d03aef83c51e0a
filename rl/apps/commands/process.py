"""`python -m rl process`: check raw files and compute their features."""

from __future__ import annotations

import argparse

from rl.apps.commands.folders import prepare_folders
from rl.apps.commands.options import wants_all
from rl.apps.commands.symbols import bring_up_to_date, chosen_symbols, symbols_of
from rl.common.errors import OK, DataError, StagegateError
from rl.common.printable import printable
from rl.features.processed_store import ProcessOutcome
from rl.market.instruments import load_instruments


def process_files(options: argparse.Namespace) -> int:
    """Process what the options ask for; return the exit code."""
    book = load_instruments(*options.instruments)
    known = symbols_of(options)
    symbols = chosen_symbols(options.symbols, known, options.raw_data_dir)
    without_raw = [symbol for symbol in symbols if symbol not in known.raw]
    if without_raw and not wants_all(options.symbols):
        raise DataError(f"{', '.join(without_raw)}: there is no raw file in {options.raw_data_dir}")
    prepare_folders(options, "processed_data_dir")
    failed: list[StagegateError] = []

    def told(outcome: ProcessOutcome) -> None:
        print(f"{outcome.symbol}: {outcome.action}, {outcome.bars:,} bars, {outcome.seconds:.1f} s")
        if not options.quiet:
            for note in outcome.notes:
                print(printable(f"  note: {note}"))

    def refused(symbol: str, error: StagegateError) -> None:
        failed.append(error)
        print(printable(f"{symbol}: refused: {error}"))

    if wants_all(options.symbols):
        for name, error in known.unusable.items():
            refused(name, error)
        if not options.quiet:
            for note in known.notes():
                print(printable(note))
    bring_up_to_date(
        [symbol for symbol in symbols if symbol in known.raw],
        known,
        book,
        options.processed_data_dir,
        force=options.force,
        on_outcome=told,
        on_problem=refused,
    )
    return max((error.exit_code for error in failed), default=OK)
