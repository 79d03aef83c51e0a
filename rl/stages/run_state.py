"""The journal of one symbol's sequence: what is finished, and where what is not finished stands.

Kept in the run's folder, so that a killed run goes on where it was. Nothing here decides anything: a sequence that is
run again from an earlier point of its journal comes to the same models, verdicts and looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl.checkpoints.state_files import StateFiles

Saved = Callable[[int, Sequence[str]], None]
"""Told of every generation on the disk: its number, and which entries changed."""

SEQUENCE = "sequence"
"""The entry a finished symbol has."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A training that is going on, or done but not judged."""

    attempt: int
    """Which attempt at the stage it belongs to, from 0."""
    is_trained: bool
    """True where the attempt's training is done."""
    state: dict[str, Any]
    """To be given to `load_state`."""


class SymbolJournal:
    """Entries of one symbol by name, and a clock that goes on where the killed process's stood when it saved last."""

    def __init__(self, folder: Path | None = None, on_saved: Saved | None = None) -> None:
        """Open a journal.

        Args:
            folder: Where it is kept; None keeps nothing, for a sequence that need not be resumed.
            on_saved: Told after every save.
        """
        self._files = StateFiles(folder) if folder is not None else None
        self._on_saved = on_saved
        facts = self._files.facts if self._files else {}
        self._carried = float(facts.get("wall_seconds", 0.0)), float(facts.get("cpu_seconds", 0.0))
        self._marks: dict[str, list[float]] = dict(facts.get("marks", {}))
        self._opened = time.perf_counter(), time.process_time()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found damaged when it was opened."""
        return tuple(self._files.notes) if self._files else ()

    def read(self, name: str) -> dict[str, Any] | None:
        """Return an entry; None where there is none."""
        return self._files.read(name) if self._files else None

    def save(self, changed: Mapping[str, Any], *, dropped: Sequence[str] = ()) -> None:
        """Write entries and drop others, together or not at all; they are on the disk when this returns."""
        if self._files is None:
            return
        wall, cpu = self.seconds()
        facts = {"wall_seconds": wall, "cpu_seconds": cpu, "marks": self._marks}
        generation = self._files.commit(changed, dropped=dropped, facts=facts)
        if self._on_saved is not None:
            self._on_saved(generation, list(changed))

    def names_of(self, prefix: str) -> list[str]:
        """Return the names of all entries that begin so."""
        return [name for name in self._files.names if name.startswith(prefix)] if self._files else []

    # --- the clock

    def seconds(self) -> tuple[float, float]:
        """Return wall and processor seconds spent on the symbol, those of killed processes included."""
        wall, cpu = self._carried
        return wall + time.perf_counter() - self._opened[0], cpu + time.process_time() - self._opened[1]

    def begin(self, name: str) -> None:
        """Set a mark to count from; one that a killed process has set stands."""
        self._marks.setdefault(name, list(self.seconds()))

    def since(self, name: str) -> tuple[float, float]:
        """Return wall and processor seconds since a mark."""
        (wall, cpu), (wall_then, cpu_then) = self.seconds(), self._marks[name]
        return wall - wall_then, cpu - cpu_then

    # --- a training that is going on

    def progress(self, of: str) -> Progress | None:
        """Return where a stage's training (or `control`'s) stands; None where it has not begun."""
        found = self.read(_training(of))
        return None if found is None else Progress(**found)

    def keep_progress(self, of: str, attempt: int, state: dict[str, Any], *, is_trained: bool) -> None:
        """Save where a training stands."""
        self.save({_training(of): {"attempt": attempt, "is_trained": is_trained, "state": state}})

    # --- attempts and stages

    def attempt(self, stage: str, number: int) -> dict[str, Any] | None:
        """Return a judged attempt at a stage."""
        return self.read(_attempt(stage, number))

    def keep_attempt(self, stage: str, number: int, content: Mapping[str, Any]) -> None:
        """Save a judged attempt; what is known of its training stays, for an extension."""
        self.save({_attempt(stage, number): dict(content)})

    def stage(self, stage: str) -> dict[str, Any] | None:
        """Return a stage whose model file is written."""
        return self.read(_stage(stage))

    def keep_stage(self, stage: str, content: Mapping[str, Any]) -> None:
        """Save a stage; its attempts and trainings are not needed any more."""
        used = [*self.names_of(_attempt(stage, "")), *self.names_of("training-"), *self.names_of("baselines")]
        self.save({_stage(stage): dict(content)}, dropped=used)


def finished_parts(folder: Path) -> list[str]:
    """Return what of a symbol is finished, in words; empty where it would be begun anew without loss."""
    names = StateFiles(folder).names
    if SEQUENCE in names:
        return ["everything"]
    return [name.removeprefix("stage-") for name in names if name.startswith("stage-")]


def _training(of: str) -> str:
    return f"training-{of}"


def _attempt(stage: str, number: int | str) -> str:
    return f"attempt-{stage}-{number}"


def _stage(stage: str) -> str:
    return f"stage-{stage}"
