"""One trainer per symbol and models folder, by a lock that ends with its process.

The lock is `flock` on `.locks/<symbol>.lock` in the models folder: the system gives it back when the last process that
holds it ends, however it ends, so nothing has to be cleaned up by hand and no guess about process numbers is made. What
stands in the file only says who it is. Two trainers would overwrite each other's models and count each other's looks.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rl.common.atomic_files import storage_errors
from rl.common.errors import LockedError, StorageError
from rl.common.paths import checked_symbol
from rl.common.printable import printable

FOLDER = ".locks"
"""In the models folder."""

_MOST_RECORD_BYTES = 4096

# What file systems without locks answer: some network and container mounts.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def symbol_lock(models_dir: Path | str, symbol: str, *, run: str) -> Generator[str | None]:
    """Hold a symbol against every other trainer into this folder while the block runs.

    Whoever held it before and died, on this machine or another, does not hold it any more.

    Args:
        models_dir: Where the models go; made where it is missing.
        symbol: The symbol to be trained.
        run: Name of the run, for the message the other trainer gets.

    Yields:
        A sentence where the run that had it last ended without giving it back; None otherwise.

    Raises:
        LockedError: Another process holds it; the message says who.
        StorageError: The lock file cannot be made, or its file system knows no locks.
    """
    path = lock_path(models_dir, symbol)
    descriptor = _opened(path)
    try:
        # Alone first, so that two who come at once cannot both get it, then shared, so that the workers of this run
        # can hold it too (`worker_lock`). Changing from one to the other may lose it: then somebody else has it.
        _flock(descriptor, fcntl.LOCK_EX, path, symbol)
        left_behind = _record(descriptor)
        _write_record(descriptor, path, run)
        _flock(descriptor, fcntl.LOCK_SH, path, symbol)
        try:
            yield None if left_behind is None else f"{_who(left_behind)} ended without giving back its lock"
        finally:
            os.ftruncate(descriptor, 0)
            # Not only by closing: a program being started at this moment has a copy of the descriptor for an instant.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


@contextmanager
def worker_lock(models_dir: Path | str, symbol: str, *, holder: int) -> Generator[None]:
    """Hold a symbol in a worker process together with the process that gave it the work.

    A worker whose parent is killed works on for a while. Holding the lock itself, it is not joined by a second trainer.

    Args:
        models_dir: Where the models go.
        symbol: The symbol the worker trains.
        holder: Number of the process that holds the lock for the run.

    Raises:
        LockedError: That process does not hold it any more.
        StorageError: The lock file cannot be opened.
    """
    path = lock_path(models_dir, symbol)
    descriptor = _opened(path)
    try:
        _flock(descriptor, fcntl.LOCK_SH, path, symbol)
        found = _record(descriptor)
        if found is None or found.get("pid") != holder:
            raise _locked(symbol, path, found)
        yield
    finally:
        os.close(descriptor)


def lock_path(models_dir: Path | str, symbol: str) -> Path:
    """Return where the lock of a symbol lies."""
    return Path(models_dir) / FOLDER / f"{checked_symbol(symbol)}.lock"


def _opened(path: Path) -> int:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # No link is followed: it could make this write into somebody else's file.
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)


def _flock(descriptor: int, kind: int, path: Path, symbol: str) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _locked(symbol, path, _record(descriptor)) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise StorageError(
            f"{path}: the file system of this folder knows no file locks ({error.strerror}), so it cannot be told "
            "whether another run trains the same symbol.\n  Choose a folder on a local disk with --models-dir."
        ) from error


def _record(descriptor: int) -> dict[str, Any] | None:
    """Return who is written in the lock file, an empty record where that cannot be read, None where nobody is."""
    text = os.pread(descriptor, _MOST_RECORD_BYTES, 0)
    if not text:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_record(descriptor: int, path: Path, run: str) -> None:
    record = {
        "pid": os.getpid(),
        "host": platform.node(),
        "run": run,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    text = json.dumps(record).encode() + b"\n"
    with storage_errors(path):
        os.ftruncate(descriptor, 0)
        if os.pwrite(descriptor, text, 0) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _locked(symbol: str, path: Path, record: dict[str, Any] | None) -> LockedError:
    return LockedError(
        f"{symbol} is being trained into {path.parent.parent} by another process: {_who(record or {})}.\n"
        "  Wait until it ends, or train into another folder with --models-dir. The lock ends with that process; no "
        "file has to be deleted."
    )


def _who(record: dict[str, Any]) -> str:
    run, pid, host, started = (
        # The file may come from elsewhere, and a terminal obeys control characters.
        printable(str(record.get(name, "unknown"))[:100])
        for name in ("run", "pid", "host", "started")
    )
    return f"run {run} (process {pid} on {host}, since {started})"
