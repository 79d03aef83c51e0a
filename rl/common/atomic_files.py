"""Files that are complete or absent, whenever the process or the machine stops.

A file is written beside its target under a name nobody reads, flushed to the disk, and renamed over the
target in one step. The folder is flushed too, since the rename itself lives there. A disk that refuses is a
`StorageError` that names the file and the way out; the older file is intact then.
"""

from __future__ import annotations

import ctypes
import errno
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

from rl.common.errors import StorageError
from rl.common.printable import printable

_STRAY = re.compile(r"\..+\.(?P<pid>\d+)\.[0-9a-f]+\.tmp", re.DOTALL)
_HASH_BLOCK_BYTES = 1 << 20
_PROBE_BYTES = 1 << 20  # more than a model with its sidecar

# What can be mended by making room; anything else is mended by another folder or other rights.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

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
        StorageError: If the disk is full, or the folder cannot be made or written to.
        FileNotFoundError: If the block ended without creating the file.
    """
    target = Path(path)
    temporary = target.parent / f".{target.name}.{os.getpid()}.{secrets.token_hex(6)}.tmp"
    _being_written.add(temporary.absolute())
    try:
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
        if not os.path.lexists(temporary):
            raise FileNotFoundError(f"nothing was written to become {target}")
        with storage_errors(target):
            _flush_file(temporary)
            temporary.replace(target)
            flush_folder(target.parent)
    finally:
        _being_written.discard(temporary.absolute())
        _remove_half_written(temporary)


@contextmanager
def storage_errors(path: Path | str) -> Generator[None]:
    """Turn what the system says about writing `path` into words: which file, why, and what to do about it.

    Raises:
        StorageError: For any OSError of the block.
    """
    target = Path(path)
    try:
        yield
    except OSError as error:
        folder = target.parent.absolute()
        if error.errno in _NO_ROOM:
            remedy = f"Make room on the disk of {folder}"
        else:
            remedy = f"Make {folder} a folder that can be written to"
        raise StorageError(
            f"{target} cannot be written: {error.strerror or error}.\n"
            f"  What was there before is untouched. {remedy} and run the same command again."
        ) from error


def append_all(descriptor: int, data: bytes) -> None:
    """Write all bytes to a descriptor opened for appending.

    A disk that fills up takes a part first, and complains when asked to take the rest.

    Raises:
        OSError: If it does not take all; the part stays in the file.
    """
    while data:
        data = data[os.write(descriptor, data) :]


def require_writable(folder: Path | str, option: str) -> None:
    """Refuse a folder that could not be written to, by writing to it, before hours of work depend on it.

    Rights alone do not tell: a read-only disk, a full one and a quota show only in a write.

    Args:
        folder: Made where it is missing.
        option: The option that names another folder, for the message.

    Raises:
        StorageError: If it cannot be made or written to, or has no room for a megabyte.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}.{secrets.token_hex(6)}.tmp"
        try:
            # Not zeros, which some disks store as nothing.
            probe.write_bytes(os.urandom(_PROBE_BYTES))
            _flush_file(probe)
        finally:
            _remove_half_written(probe)
    except OSError as error:
        remedy = (
            "Make room on its disk" if error.errno in _NO_ROOM else "Make it a folder that can be written to"
        )
        raise StorageError(
            f"{folder} cannot be written to: {error.strerror or error}.\n"
            f"  {remedy}, or choose another one with {option}."
        ) from error


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` to `path` as UTF-8 with the line ends it has, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, obj: Any) -> None:
    """Write `obj` to `path` as JSON with two-space indents, keys in their own order, whole or not at all.

    Characters that act on a terminal are written as their codes, so that the file can be looked at.

    Raises:
        ValueError: If a number is not finite, which JSON cannot say; an existing file stays as it was.
        TypeError: If something is not JSON-able; an existing file stays as it was.
    """
    write_text(path, printable(json.dumps(obj, indent=2, allow_nan=False, ensure_ascii=False)) + "\n")


def sha256_of(path: Path | str) -> str:
    """Return the SHA-256 of the file's bytes as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sweep_stray_files(folder: Path | str, *, below: bool = False) -> list[Path]:
    """Delete what killed writers left in `folder` and return what was deleted, sorted.

    Only files named by `writing` are touched, and only those whose writer no longer runs on this machine.
    A folder that does not exist holds no strays.

    Args:
        folder: Where to look.
        below: Look in all folders below it too; links to folders are not followed.
    """
    top = Path(folder)
    if not top.is_dir():
        return []
    swept = []
    # Not rglob("*"): of everything below, only what could be a stray is worth a look.
    for candidate in sorted(top.rglob(".*.tmp") if below else top.glob(".*.tmp")):
        match = _STRAY.fullmatch(candidate.name)
        if match and candidate.is_file() and not _has_a_writer(candidate, int(match["pid"])):
            _remove_half_written(candidate)
            if not os.path.lexists(candidate):
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


def _remove_half_written(path: Path) -> None:
    try:
        # missing_ok: it became its target, or another run that starts at this moment sweeps the same folder.
        path.unlink(missing_ok=True)
    except OSError:
        # The folder is gone, is no folder, or has become read-only. That is told by the error on its way already, and
        # the next run sweeps what is left.
        return


def _flush_file(path: Path) -> None:
    # Windows flushes only what was opened for writing.
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Make what was renamed or removed in a folder outlast a power cut."""
    if sys.platform == "win32":
        return  # a folder cannot be opened there; the rename is journalled by the file system
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
