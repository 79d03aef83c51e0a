"""State that changes while a run goes on, in files: every generation whole, proven by hashes, the one before it kept.

A generation is one manifest (`manifest-00000007.json`) and the files it names, each with its SHA-256. What did not
change since the generation before is not written again. The manifest comes last, so that a process killed anywhere
leaves the newest complete generation as it was. Values are plain: None, bool, int, float, text, lists, tuples, dicts
and tensors; arrays come back as tensors. Reading runs no code.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rl.checkpoints.checkpoint import verified_content
from rl.common.atomic_files import sweep_stray_files, write_bytes, write_text
from rl.common.errors import CheckpointError
from rl.common.plain_files import UnfitFileError, read_plain_file

FORMAT = "stagegate-state"
FORMAT_VERSION = 1
GENERATIONS_KEPT = 2

_MANIFEST = re.compile(r"manifest-(\d{8})\.json")
_LARGEST_MANIFEST_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class _Generation:
    number: int
    facts: dict[str, Any]
    files: dict[str, dict[str, str]]
    """File and SHA-256 of every entry, in the order in which they were first written."""


class StateFiles:
    """Named entries in a folder, changed together or not at all."""

    def __init__(self, folder: Path | str) -> None:
        """Open the newest generation that is whole.

        A folder that is missing or empty has none. Damage is not repaired: the generation before is taken, and where
        that is damaged too, none; `notes` says so.
        """
        self.folder = Path(folder)
        self.notes: list[str] = []
        """What was found damaged and what was done about it, in sentences."""
        sweep_stray_files(self.folder)
        numbers = self._numbers()
        self._highest = max(numbers, default=0)
        """Numbers are not used twice, so that a damaged generation is not mistaken for its successor."""
        self._now = self._newest_whole(numbers)
        self._before: _Generation | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What the newest generation's manifest says besides its files; plain JSON."""
        return dict(self._now.facts)

    @property
    def generation(self) -> int:
        """Number of the newest generation; 0 where there is none."""
        return self._now.number

    @property
    def names(self) -> tuple[str, ...]:
        """Every entry there is."""
        return tuple(self._now.files)

    def read(self, name: str) -> Any:
        """Return an entry; None where there is no such entry.

        Raises:
            CheckpointError: It was altered since it was opened.
        """
        entry = self._now.files.get(name)
        return None if entry is None else verified_content(self.folder / entry["file"], entry["sha256"])

    def commit(
        self,
        changed: Mapping[str, Any],
        *,
        dropped: Iterable[str] = (),
        facts: Mapping[str, Any] | None = None,
    ) -> int:
        """Write a new generation and return its number; when this returns, it is on the disk.

        Args:
            changed: New or changed entries.
            dropped: Entries that are not needed any more.
            facts: Replaces the facts, if given.

        Raises:
            TypeError: A value is not plain; the generation before stands.
            OSError: The disk refuses; the generation before stands.
        """
        number = self._highest + 1
        gone = set(dropped)
        files = {name: entry for name, entry in self._now.files.items() if name not in gone | set(changed)}
        for name, value in changed.items():
            buffer = io.BytesIO()
            torch.save(_plain(value, name), buffer)
            data = buffer.getvalue()
            file = f"{name}-{number:08d}.pt"
            write_bytes(self.folder / file, data)
            files[name] = {"file": file, "sha256": hashlib.sha256(data).hexdigest()}
        new = _Generation(number=number, facts=dict(self.facts if facts is None else facts), files=files)
        write_text(self.folder / f"manifest-{number:08d}.json", _manifest_text(new))
        self._highest, self._before, self._now = number, self._now, new
        self._remove_older()
        return number

    def _numbers(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        found = (_MANIFEST.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def _newest_whole(self, numbers: list[int]) -> _Generation:
        for number in numbers:
            path = self.folder / f"manifest-{number:08d}.json"
            try:
                generation = _read_manifest(path, number)
                for entry in generation.files.values():
                    verified_content(self.folder / entry["file"], entry["sha256"])
            except CheckpointError as error:
                self.notes.append(
                    f"saved state {number} is damaged and not used: {str(error).splitlines()[0]}"
                )
                continue
            if number != numbers[0]:
                self.notes.append(f"going on from the state saved before it ({number})")
            return generation
        if numbers:
            self.notes.append("no older saved state is whole; what was kept here is done again")
        return _Generation(number=0, facts={}, files={})

    def _remove_older(self) -> None:
        kept = [self._now, *([self._before] if self._before and self._before.number else [])]
        needed = {entry["file"] for each in kept for entry in each.files.values()}
        needed |= {f"manifest-{each.number:08d}.json" for each in kept}
        for path in self.folder.iterdir():
            if path.suffix in (".pt", ".json") and path.name not in needed:
                path.unlink(missing_ok=True)


def _manifest_text(generation: _Generation) -> str:
    content: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "generation": generation.number,
        "facts": generation.facts,
        "files": generation.files,
    }
    return json.dumps({**content, "sha256": _digest(content)}, indent=1, allow_nan=False) + "\n"


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_manifest(path: Path, number: int) -> _Generation:
    """Return a generation as its manifest describes it, the files themselves unseen.

    Raises:
        CheckpointError: It is not a manifest, or not the one that was written.
    """
    try:
        content = json.loads(read_plain_file(path, _LARGEST_MANIFEST_BYTES, follow_links=False))
        written = content.pop("sha256")
        if content["format"] != FORMAT or content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"it is not in format {FORMAT} {FORMAT_VERSION}")
        if _digest(content) != written or content["generation"] != number:
            raise ValueError("it was altered: its content does not hash to what it says")
        files = {
            name: {"file": entry["file"], "sha256": entry["sha256"]}
            for name, entry in content["files"].items()
        }
        if strange := [
            entry["file"] for entry in files.values() if Path(entry["file"]).name != entry["file"]
        ]:
            raise ValueError(f"it names the file {strange[0]!r}, which lies elsewhere")
        return _Generation(number=number, facts=content["facts"], files=files)
    except (
        UnfitFileError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error


def _plain(value: Any, where: str) -> Any:
    """Return a value as `torch.save` writes it without naming a class: arrays as tensors, each with its own storage."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu").clone(memory_format=torch.contiguous_format)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value).copy()).reshape(value.shape)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, f"{where}[{place}]") for place, item in enumerate(value)]
    if isinstance(value, tuple):
        return tuple(_plain(item, f"{where}[{place}]") for place, item in enumerate(value))
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    raise TypeError(f"{where} is of type {type(value).__name__}; only plain values and tensors are kept")


def _key(key: Any, where: str) -> str | int:
    if not isinstance(key, (str, int)):
        raise TypeError(f"{where} has a key of type {type(key).__name__}; keys are text or whole numbers")
    return key
