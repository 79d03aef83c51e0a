"""Files of a run's folder that say what it was done with, and the models it came to."""

from __future__ import annotations

import csv
import io
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rl
from rl.checkpoints.checkpoint import library_versions
from rl.common.atomic_files import write_bytes, write_json, write_text
from rl.common.compiled import source_hash
from rl.common.interpreter import command_line
from rl.common.runlog import ENVIRONMENT
from rl.common.threads import thread_settings
from rl.features.processed_store import account
from rl.market.checks import CHECKS
from rl.market.instruments import Instrument
from rl.reporting.tables import csv_text
from rl.stages.outcomes import SymbolOutcome
from rl.stages.symbol_data import SymbolData

DATA_QUALITY = "data_quality.csv"
CHECKPOINTS = "checkpoints"

_GIT_SECONDS = 10.0


def write_environment(folder: Path, data: Mapping[str, SymbolData], command: Sequence[str]) -> None:
    """Write `environment.json`: versions, source, machine and the hash of every raw file a run is done with."""
    commit, is_changed = commit_of(Path(rl.__file__).parents[1])
    write_json(
        folder / ENVIRONMENT,
        {
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command_line(command),
            "version": rl.__version__,
            "source_hash": source_hash(),
            "git_commit": commit,
            "git_has_changes": is_changed,
            "libraries": library_versions(),
            "platform": platform.platform(),
            "processor": _processor(),
            "processors": os.cpu_count(),
            "threads": thread_settings(),
            "data": {
                symbol: {"sha256": each.data_hash, "bars": len(each.bars)} for symbol, each in data.items()
            },
        },
    )


def commit_of(checkout: Path) -> tuple[str | None, bool | None]:
    """Return the commit a checkout stands at, and whether its files differ from it; None where nobody can tell."""
    told = []
    for question in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run(
                ["git", "-C", str(checkout), *question],
                capture_output=True,
                text=True,
                timeout=_GIT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None, None
        # Without a .git of its own, git would answer for a folder further up.
        if done.returncode or not (checkout / ".git").exists():
            return None, None
        told.append(done.stdout.strip())
    return told[0], bool(told[1])


def _processor() -> str | None:
    """Return the processor's name; None where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None


def write_data_quality(
    folder: Path, instruments: Mapping[str, Instrument], processed_dir: Path
) -> dict[str, dict[str, int]]:
    """Write `data_quality.csv`, a row for each symbol and check; return how often which check caught something.

    Nothing is ever repaired: what a check catches is left out (`drop`) or kept and told (`warn`). A symbol whose file
    was refused has no rows; the console says why.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["symbol", "check", "policy", "found", "dropped", "repaired", "what was found"])
    caught: dict[str, dict[str, int]] = {}
    for symbol, instrument in instruments.items():
        found = account(symbol, processed_dir) or {}
        counts, notes = found.get("counts", {}), found.get("notes", [])
        for name, check in CHECKS.items():
            policy = instrument.checks.get(name, check.default)
            count = int(counts.get(name, 0))
            dropped = count if policy == "drop" else 0
            told = "; ".join(note.partition(": ")[2] for note in notes if note.startswith(f"{name}: "))
            writer.writerow([csv_text(symbol), name, policy, count, dropped, 0, csv_text(told)])
            if count:
                caught.setdefault(symbol, {})[name] = count
    write_text(folder / DATA_QUALITY, text.getvalue())
    return caught


def keep_checkpoints(folder: Path, outcomes: Iterable[SymbolOutcome]) -> Path:
    """Copy every model a run came to, with its sidecar, into the run's folder; return where to.

    A later run replaces the files in the models folder; these stay, and `--models-dir` finds them.
    """
    kept = folder / CHECKPOINTS
    for outcome in outcomes:
        files = [stage.file for stage in outcome.stages]
        for file in [*files, *([outcome.final_file] if outcome.final_file else [])]:
            # With save_stage_models: false, only the final one is left.
            for part in (file, file.with_name(f"{file.name}.json")):
                if part.is_file():
                    write_bytes(kept / part.name, part.read_bytes())
    return kept


def words_that_see(options: Any, words: Sequence[str]) -> list[str]:
    """Return the words of a command with the folder options it needs to find what this one wrote."""
    found = list(words)
    for flag, value, usual in (
        ("--raw-data-dir", options.raw_data_dir, "data/raw"),
        ("--processed-data-dir", options.processed_data_dir, "data/processed"),
        ("--models-dir", options.models_dir, "models"),
        ("--reports-dir", options.reports_dir, "reports"),
    ):
        if value != Path(usual):
            found += [flag, str(value)]
    for file in options.instruments:
        found += ["--instruments", str(file)]
    return found
