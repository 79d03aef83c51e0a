"""Files that are complete or absent, whenever the process or the machine stops.

A file is written beside its target under a name nobody reads, flushed to the disk, and renamed over the
target in one step. The folder is flushed too, since the rename itself lives there.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import secrets
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_STRAY = re.compile(r"\..+\.(?P<pid>\d+)\.[0-9a-f]+\.tmp", re.DOTALL)
_HASH_BLOCK_BYTES = 1 << 20

# Temporary files this process is writing now. A container often gives every run the same process number,
# so "my own number" alone does not mean that the file is mine.
_being_written: set[Path] = set()


@contextmanager
def writing(path: Path | str) -> Generator[Path, None, None]:
    """Give a temporary path to write to; on success it becomes `path`, on any failure it disappears.

    The temporary file does not exist yet when the block starts: the block has to create it. Missing parent
    folders are made. Whatever ends the block early (an exception, Ctrl-C) leaves an older file at `path`
    untouched; a killed process leaves at most a stray file for `sweep_stray_files`.

    Raises:
        FileNotFoundError: If the block ended without creating the file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name}.{os.getpid()}.{secrets.token_hex(6)}.tmp"
    _being_written.add(temporary.absolute())
    try:
        yield temporary
        _flush_file(temporary)
        temporary.replace(target)
        _flush_folder(target.parent)
    finally:
        # After the rename nothing is there any more; otherwise this is the half-written file.
        temporary.unlink(missing_ok=True)
        _being_written.discard(temporary.absolute())


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` to `path` as UTF-8 with the line ends it has, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, obj: Any) -> None:
    """Write `obj` to `path` as JSON with two-space indents, keys in their own order, whole or not at all.

    Raises:
        ValueError: If a number is not finite, which JSON cannot say; an existing file stays as it was.
        TypeError: If something is not JSON-able; an existing file stays as it was.
    """
    write_text(path, json.dumps(obj, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def sha256_of(path: Path | str) -> str:
    """Return the SHA-256 of the file's bytes as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sweep_stray_files(folder: Path | str) -> list[Path]:
    """Delete what killed writers left in `folder` and return what was deleted, sorted.

    Only files named by `writing` are touched, and only those whose writer no longer runs on this machine.
    Sub-folders are not entered. A folder that does not exist holds no strays.
    """
    top = Path(folder)
    if not top.is_dir():
        return []
    swept = []
    for candidate in sorted(top.iterdir()):
        match = _STRAY.fullmatch(candidate.name)
        if match and candidate.is_file() and not _has_a_writer(candidate, int(match["pid"])):
            # missing_ok: another run that starts at this moment may sweep the same folder.
            candidate.unlink(missing_ok=True)
            swept.append(candidate)
    return swept


def _has_a_writer(temporary: Path, pid: int) -> bool:
    if pid == os.getpid():
        return temporary.absolute() in _being_written
    return _is_running(pid)


def _is_running(pid: int) -> bool:
    """Return True if a process with this number exists, whoever owns it."""
    if sys.platform == "win32":
        # os.kill with signal 0 is not a question on Windows, it is sent as Ctrl-C.
        query_limited_information, inherited, still_active = 0x1000, 0, 259
        kernel32 = ctypes.windll.kernel32
        handle = kernel32.OpenProcess(query_limited_information, inherited, pid)
        if not handle:
            return False
        code = ctypes.c_ulong()
        kernel32.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel32.CloseHandle(handle)
        return code.value == still_active
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _flush_file(path: Path) -> None:
    # Windows flushes only what was opened for writing.
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return  # a folder cannot be opened there; the rename is journalled by the file system
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
