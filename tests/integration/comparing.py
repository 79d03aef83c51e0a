"""What two runs wrote, without what a clock decides, so that everything else can be asked to be equal byte for byte.

Nothing is compared loosely: a field is either named below, with the reason why it may differ, or it has to be the same
to the last digit.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.comparing_runs import without
from rl.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from rl.common.atomic_files import sha256_of
from rl.stages.evidence import LEDGER_NAME
from tests.integration.command_line import Workplace

CLOCK = {
    "time": "when a line of the ledger was written",
    "generated": "when a backtest report was written",
    "chain": "hash of a line of the ledger, its time included",
    "run": "a run is named after the second it began in; the name is in every model, verdict and ledger line",
    "seconds": "how long a symbol took",
    "wall_seconds": "how long a stage took",
    "cpu_seconds": "how long a stage's process worked",
}
"""Fields that differ between two runs of the same thing."""

OF_THE_FILE = {
    "data_hash": "of the whole raw file, so of the test window too: it names the file and decides nothing",
}
"""Fields that differ where the raw file does, whichever of its bars was changed."""

_DURATIONS = re.compile(r"[\d.]+ s \([\d.]+ s CPU\)")
_WRITTEN = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC")


def models_of(place: Workplace, *names: str) -> dict[str, str]:
    """Return a hash of every model file as it would be without these fields: weights, scaler, plan, verdict, all of it.

    The files are written again by the program's own writer without the fields, and the bytes of what that writes are
    hashed, so that a model counts as equal only where the very file would be.
    """
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(place.models.rglob("*.pth")):
            checkpoint = load_checkpoint(path)
            plain = {
                name: without(getattr(checkpoint, name), names) for name in ("trading", "verdict", "metrics")
            }
            fields = {name: "" for name in names if hasattr(checkpoint, name)}
            again = replace(checkpoint, **plain, **fields)
            found[str(path.relative_to(place.models))] = save_checkpoint(Path(folder) / path.name, again)
    assert found, f"{place.models} holds no model"
    return found


def ledger_of(place: Workplace, *names: str) -> dict[str, list[dict[str, Any]]]:
    """Return the ledger's lines of each symbol, in their order.

    Symbols trained side by side write when they are done, so only the order of each one's own lines is fixed.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for line in (place.reports / LEDGER_NAME).read_text().splitlines():
        entry = json.loads(line)
        found.setdefault(entry["symbol"], []).append(without(entry, names))
    assert found
    return dict(sorted(found.items()))


def run_folder(place: Workplace) -> Path:
    """Return the folder of the latest training run."""
    folders = sorted(
        path for path in (place.reports / "runs").iterdir() if not path.name.endswith("-backtest")
    )
    return folders[-1]


def training_report_of(place: Workplace, *names: str) -> dict[str, Any]:
    """Return the latest training report."""
    return without(json.loads((run_folder(place) / "training_report.json").read_text()), names)


def training_text_of(place: Workplace) -> str:
    """Return the latest training report as text, durations left out."""
    return _DURATIONS.sub("", (run_folder(place) / "training_report.txt").read_text())


def backtest_text_of(path: Path) -> str:
    """Return a backtest report as text without the moment it was written at, which stands in its second line."""
    first, second, rest = path.read_text().split("\n", 2)
    return "\n".join([first, _WRITTEN.sub("", second), rest])


def evidence_of(place: Workplace) -> dict[str, str]:
    """Return a hash of every file that stands behind a verdict, by its path beside the ledger."""
    found = {
        str(path.relative_to(place.reports)): sha256_of(path)
        for path in sorted((place.reports / "evidence").rglob("*"))
        if path.is_file()
    }
    assert found, f"{place.reports} holds no evidence"
    return found


def progress_of(place: Workplace, stage: str) -> list[dict[str, Any]]:
    """Return what the log says of every update of a stage, without clock and without what validation showed."""
    events = [json.loads(line) for line in (run_folder(place) / "events.jsonl").read_text().splitlines()]
    found = [event for event in events if event["event"] == "progress" and event["stage"] == stage]
    assert found
    return [without(event, {*CLOCK, "steps_per_second", "validation"}) for event in found]
