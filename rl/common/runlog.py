"""Files of a run that grow line by line: its story as JSON lines, and other text; readable while the run goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rl.common.atomic_files import append_all, storage_errors
from rl.common.errors import StorageError
from rl.common.printable import printable

_OURS = ("time", "event")

EVENTS = "events.jsonl"
"""Name of a run's events in its folder."""

PLAN = "config.resolved.yaml"
"""Name of a run's whole plan in its folder."""

ENVIRONMENT = "environment.json"
"""Name of what a run was done with in its folder."""

_EARLIER_EVENTS = "run.jsonl"
"""What version 0.1.0 called them at first; such runs are still read."""


def events_file(folder: Path) -> Path:
    """Return where the events of a run are; of one that has none, where they would be."""
    earlier = folder / _EARLIER_EVENTS
    return earlier if earlier.is_file() and not (folder / EVENTS).is_file() else folder / EVENTS


class LineFile:
    """Append lines to a file, each handed to the operating system whole before the call returns.

    Several processes may append to one file. A line cut short by a killed process stays one unreadable line: the next
    one starts anew.
    """

    def __init__(self, path: Path | str, heading: str = "") -> None:
        """Open `path` for appending, making its folder where it is missing.

        Args:
            path: The file.
            heading: First line of a new file.

        Raises:
            StorageError: If it cannot be made or written to.
        """
        self.path = Path(path)
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._torn = _ends_mid_line(self.path)
            # Unbuffered, one write per line: a crash loses nothing, and two processes do not mix their lines.
            self._file = self.path.open("ab", buffering=0)
        if heading and self.path.stat().st_size == 0:
            self.append(heading)

    def append(self, text: str) -> None:
        """Append one line, or several that stay together.

        Raises:
            ValueError: If the file is closed.
            StorageError: If the disk refuses; earlier lines are intact, and a later one starts on its own line.
        """
        data = text.encode("utf-8") + b"\n"
        try:
            with storage_errors(self.path):
                # Where the last line was cut off, this one does not become its tail.
                append_all(self._file.fileno(), b"\n" + data if self._torn else data)
            self._torn = False
        except StorageError:
            self._torn = _ends_mid_line(self.path)
            raise

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class RunLog(LineFile):
    """Append events to a file: `{"time": "2024-03-01T09:15:00.000000+00:00", "event": name, ...fields}` a line."""

    def event(self, name: str, /, **fields: Any) -> str:
        """Append one event and return the line that was written, without its end.

        Args:
            name: What happened, e.g. `stage_started`.
            fields: Anything JSON can say, under names besides `time` and `event`; also paths, and numpy
                scalars and arrays. nan is written as null; an infinite number as the text "inf" or "-inf",
                since a profit factor without any loss is a result and not a missing one.

        Raises:
            ValueError: If the log is closed, or a field is named `time` or `event`.
            TypeError: If a field cannot be written as JSON.
            StorageError: If the disk refuses; earlier lines are intact, and a later one starts on its own line.
        """
        for ours in _OURS:
            if ours in fields:
                raise ValueError(f"event {name!r}: the field name {ours!r} is taken by the log itself")
        record = {"time": datetime.now(UTC).isoformat(timespec="microseconds"), "event": name}
        record.update((key, _plain(value)) for key, value in fields.items())
        # JSON escapes some codes that act on a terminal, but not all: whoever prints the log should see them.
        line = printable(json.dumps(record, allow_nan=False, ensure_ascii=False))
        self.append(line)
        return line


def _plain(value: Any) -> Any:
    """Return `value` in the words JSON has."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        return float(value)  # numpy's float64 is a float too, with a longer name
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [_plain(item) for item in items]
    # numpy scalars and arrays, recognised without importing numpy here.
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    raise TypeError(f"a log field cannot hold a {type(value).__name__}: {value!r}")


def _ends_mid_line(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) != b"\n"
