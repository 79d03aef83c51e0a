"""What lies in the folders of runs: which runs there are, and the report of a training run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TRAINING_REPORT = "training_report.json"


def run_folders(reports_dir: Path) -> list[Path]:
    """Return the folders of the runs, newest first: their names begin with their time."""
    folder = Path(reports_dir) / "runs"
    return sorted((run for run in folder.iterdir() if run.is_dir()), reverse=True) if folder.is_dir() else []


def training_report(run: Path) -> dict[str, Any] | None:
    """Return the report of a training run; None where there is none, as of a backtest or a run that did not end.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not JSON.
    """
    path = run / TRAINING_REPORT
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
