"""Training runs and their folders: a run of its own, or one that did not end and is gone on with."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rl.common.atomic_files import sweep_stray_files, write_json
from rl.common.errors import StagegateError, UsageError, nearest
from rl.common.nested import flat
from rl.common.runlog import EVENTS
from rl.stages.run_state import finished_parts

RECORD = "run.json"
"""What identifies a run, and whether it has ended; written once its data is at hand."""

LOCK = "run.lock"
STATE = "state"
"""Folder of the symbols' journals, removed when the run has ended."""

FORMAT = "stagegate-run"
FORMAT_VERSION = 1

AUTO, NEVER = "auto", "never"

_DIFFERENCES_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a command asks for; a run that was asked for something else is not gone on with."""

    symbols: tuple[str, ...]
    stages: tuple[str, ...]
    models_dir: Path

    def as_dict(self) -> dict[str, Any]:
        """Return it as `run.json` holds it."""
        return {
            "symbols": sorted(self.symbols),
            "stages": list(self.stages),
            "models_dir": str(self.models_dir.resolve()),
        }


@dataclass
class TrainingRun:
    """A run held by this process: its folder, and what is known of its beginning."""

    folder: Path
    record: dict[str, Any] | None = None
    """Of a run that is gone on with; None for a new one."""
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name, which every file it writes carries."""
        return self.folder.name

    @property
    def log(self) -> Path:
        """Where its events go."""
        return self.folder / EVENTS

    def state_of(self, symbol: str) -> Path:
        """Return the folder of a symbol's journal."""
        return self.folder / STATE / symbol

    def changes(self, identity: Mapping[str, Any]) -> list[str]:
        """Return what identifies this run and is not as it was when it began; empty for a new run."""
        if self.record is None:
            return []
        then, now = flat(self.record["identity"]), flat(_as_json(identity))
        keys = [*then, *(key for key in now if key not in then)]
        return [
            f"{key}: {_shown(then, key)} -> {_shown(now, key)}"
            for key in keys
            if then.get(key, _ABSENT) != now.get(key, _ABSENT)
        ]

    def finished(self) -> dict[str, list[str]]:
        """Return what of each symbol is finished, by symbol."""
        folders = sorted((self.folder / STATE).iterdir()) if (self.folder / STATE).is_dir() else []
        found = {folder.name: finished_parts(folder) for folder in folders if folder.is_dir()}
        return {symbol: parts for symbol, parts in found.items() if parts}

    def begin(self, asked: Asked, identity: Mapping[str, Any], **facts: Any) -> None:
        """Write down what identifies the run; from then on it can be gone on with."""
        if self.record is None:
            self.record = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "run": self.name,
                "state": "running",
                "asked": asked.as_dict(),
                "identity": _as_json(identity),
                **facts,
            }
        self._write("running")

    def stopped(self) -> None:
        """Note that the run did not end; it can be gone on with."""
        if self.record is not None:
            self._write("stopped")

    def ended(self) -> None:
        """Note that the run is over, and remove what only going on with it needs."""
        self._write("finished")
        shutil.rmtree(self.folder / STATE, ignore_errors=True)

    def _write(self, state: str) -> None:
        assert self.record is not None, "a run begins before it ends"
        self.record = {
            **self.record,
            "state": state,
            "changed": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(self.folder / RECORD, self.record)


@contextmanager
def training_run(reports_dir: Path, resume: str, asked: Asked, label: str) -> Generator[TrainingRun]:
    """Give the run to go on with, or a new one, held against other processes while the block lasts.

    Args:
        reports_dir: Runs lie in its folder `runs`.
        resume: `auto`: the newest run that was asked for the same, unless it ended or still goes on; `never`; or the
            name of a run.
        asked: What this command asks for.
        label: Last part of a new run's name.

    Raises:
        UsageError: The run named is not there, has ended, goes on, or was asked for something else.
    """
    runs = reports_dir / "runs"
    if resume not in (AUTO, NEVER):
        with _held(_named(runs, resume, asked)) as run:
            if run is None:
                raise UsageError(
                    f"--resume {resume}: that run is going on in another process; wait until it ends"
                )
            yield run
        return
    if resume == AUTO and (found := _newest(runs, asked)) is not None:
        with _held(found) as run:
            # One that goes on in another process is left alone: the lock on its symbols says the rest.
            if run is not None:
                yield run
                return
    with _held(_new_folder(runs, label)) as run:
        assert run is not None, "nobody else knows a folder made a moment ago"
        yield run


@contextmanager
def _held(folder: Path) -> Generator[TrainingRun | None]:
    """Hold a run's folder; None where another process does. Its death gives it back, however it came about."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        sweep_stray_files(folder)
        yield TrainingRun(folder, record_of(folder))
    finally:
        os.close(descriptor)


def _new_folder(runs: Path, label: str) -> Path:
    first = datetime.now(UTC).strftime("%Y%m%d-%H%M%S") + f"-{label}"
    runs.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = runs / (first if number == 1 else f"{first}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            # Two runs in one second, or by two processes.
            number += 1
            continue
        return folder


def record_of(folder: Path) -> dict[str, Any] | None:
    """Return a run's record; None where there is none or it is of another program or version."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or (record.get("format"), record.get("format_version")) != (
        FORMAT,
        FORMAT_VERSION,
    ):
        return None
    return record


def _newest(runs: Path, asked: Asked) -> Path | None:
    """Return the newest run asked for the same, where it has not ended."""
    wanted = asked.as_dict()
    # Names begin with the second the run began in.
    for folder in sorted(runs.iterdir(), reverse=True) if runs.is_dir() else []:
        record = record_of(folder)
        if record is not None and record["asked"] == wanted:
            return folder if record["state"] != "finished" else None
    return None


def _named(runs: Path, name: str, asked: Asked) -> Path:
    folders = (
        sorted(folder.name for folder in runs.iterdir() if (folder / RECORD).exists())
        if runs.is_dir()
        else []
    )
    if name not in folders:
        close = nearest(name, folders)
        hint = (
            f"did you mean {', '.join(close)}?" if close else f"{runs} holds {', '.join(folders) or 'none'}"
        )
        raise UsageError(
            f"--resume {name}: there is no training run of that name that got as far as training; {hint}"
        )
    record = record_of(runs / name)
    if record is None:
        raise UsageError(
            f"--resume {name}: {runs / name / RECORD} cannot be read, so it cannot be told what the run was. "
            "Begin a new one with --resume never."
        )
    if record["state"] == "finished":
        raise UsageError(f"--resume {name}: that run has ended; begin a new one with --resume never")
    then, now = record["asked"], asked.as_dict()
    if differing := [f"{key}: {then[key]} -> {now[key]}" for key in now if then[key] != now[key]]:
        raise UsageError(
            f"--resume {name}: that run was asked for something else ({'; '.join(differing)}). Give the options it was "
            "begun with."
        )
    return runs / name


def refusal(
    run: TrainingRun, changes: Sequence[str], finished: Mapping[str, Sequence[str]]
) -> StagegateError:
    """Return why a run is not gone on with: what it finished was finished under something else."""
    done = "; ".join(f"{symbol}: {', '.join(parts)}" for symbol, parts in finished.items())
    shown = [f"    {change}" for change in changes[:_DIFFERENCES_SHOWN]]
    if len(changes) > _DIFFERENCES_SHOWN:
        shown.append(f"    and {len(changes) - _DIFFERENCES_SHOWN} more")
    return UsageError(
        "\n".join(
            [
                f"run {run.name} did not end, and it cannot be gone on with: since it began this has changed",
                *shown,
                f"  It has finished {done or 'nothing'}; going on would put two different trainings under one name.",
                "  Put the old value back to go on, or begin anew with --resume never.",
            ]
        )
    )


class _Absent:
    def __repr__(self) -> str:
        return "(not there)"


_ABSENT = _Absent()


def _shown(values: Mapping[str, Any], key: str) -> str:
    text = str(values.get(key, _ABSENT))
    return text if len(text) <= 60 else text[:57] + "..."


def _as_json(value: Any) -> Any:
    """Return a value as it comes back from a file, so that what was written and what is now can be compared."""
    return json.loads(json.dumps(value, default=str))
