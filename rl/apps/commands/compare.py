"""`python -m rl compare`: training runs side by side."""

from __future__ import annotations

import argparse
import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rl.apps.commands.options import wants_all
from rl.apps.commands.runs import record_of
from rl.common.errors import OK, DataError, UsageError, nearest
from rl.common.printable import printable
from rl.reporting.run_comparison import ComparedRun, compared, comparison_lines
from rl.reporting.run_folders import TRAINING_REPORT, run_folders, training_report

MOST_RUNS = len(string.ascii_uppercase)
"""Each is a column."""


def compare(options: argparse.Namespace) -> int:
    """Compare the runs the options name; return the exit code."""
    folders = [_folder(text, options.reports_dir) for text in options.runs]
    if len(folders) < 2:
        raise UsageError(
            f"compare needs two runs or more (got {len(folders)}); {_there_are(options.reports_dir)}"
        )
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("compare: the same run is named twice")
    if len(folders) > MOST_RUNS:
        raise UsageError(f"compare: at most {MOST_RUNS} runs fit beside each other (got {len(folders)})")
    runs = [_run(folder, letter) for folder, letter in zip(folders, string.ascii_uppercase, strict=False)]
    found = compared(runs, _symbols(options.symbols, runs))
    if options.json:
        print(printable(json.dumps(found.to_dict(), ensure_ascii=False, indent=2)))
        return OK
    for line in comparison_lines(found, summary_only=options.quiet, all_symbols=wants_all(options.symbols)):
        print(printable(line))
    return OK


def _folder(text: str, reports_dir: Path) -> Path:
    """Return the folder of a run named by its name or its folder.

    Raises:
        UsageError: There is no such run; the nearest names are suggested.
    """
    named = reports_dir / "runs" / text
    if Path(text).is_dir():
        return Path(text)
    if Path(text).name == text and named.is_dir():
        return named
    close = nearest(text, [folder.name for folder in run_folders(reports_dir)])
    hint = f"did you mean {', '.join(close)}?" if close else _there_are(reports_dir)
    raise UsageError(f"{text}: there is no such run in {reports_dir / 'runs'}, and no such folder; {hint}")


def _there_are(reports_dir: Path) -> str:
    names = [folder.name for folder in run_folders(reports_dir) if (folder / TRAINING_REPORT).is_file()]
    if not names:
        return f"{reports_dir / 'runs'} holds no training run with a report"
    return f"the newest in {reports_dir / 'runs'}: {', '.join(names[:5])}"


def _run(folder: Path, letter: str) -> ComparedRun:
    """Read a run.

    Raises:
        DataError: It has no report, or its report cannot be read.
    """
    try:
        report = training_report(folder)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / TRAINING_REPORT} cannot be read: {error}") from error
    if report is None:
        raise DataError(
            f"{folder} has no {TRAINING_REPORT}: it is no training run, it did not end, or its plan says "
            "monitoring.generate_reports: false. Only runs with a report can be compared."
        )
    record = record_of(folder) or {}
    try:
        return ComparedRun.read(letter, folder, report, record.get("identity") or {})
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{folder / TRAINING_REPORT} is not a report of this program, or of another version of it "
            f"({type(error).__name__}: {error})"
        ) from error


def _symbols(asked: Sequence[str], runs: Sequence[ComparedRun]) -> list[str]:
    """Return the symbols to compare: those asked for, or all that any of the runs has."""
    known: Mapping[str, Any] = dict.fromkeys(symbol for run in runs for symbol in run.symbols)
    if wants_all(asked):
        return list(known)
    wrong = [name for name in asked if name not in known]
    if wrong:
        close = nearest(wrong[0], known)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are: {', '.join(list(known)[:10])}"
        raise UsageError(f"{wrong[0]}: none of these runs trained it; {hint}")
    return list(dict.fromkeys(asked))
