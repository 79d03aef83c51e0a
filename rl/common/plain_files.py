"""Reading a whole file that somebody else may have put there: no pipe, no device, no endless file."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


class UnfitFileError(Exception):
    """Why a file is not read, as the end of a sentence that begins with its name."""


def read_plain_file(path: Path, limit: int, *, follow_links: bool = True) -> bytes:
    """Return the bytes of an ordinary file of at most `limit` bytes.

    Args:
        path: The file.
        limit: The most bytes read.
        follow_links: False refuses a symbolic link.

    Raises:
        UnfitFileError: It is a pipe, a device, a folder, a link, or too large.
        FileNotFoundError: There is none.
        OSError: It cannot be opened.
    """
    # Opened once and judged by its descriptor, so that nothing can be exchanged in between. Without NONBLOCK
    # a named pipe would wait for a writer for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if not follow_links:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        if not follow_links and path.is_symlink():
            raise OSError(errno.ELOOP, "symbolic link")
        descriptor = os.open(path, flags)
    except ValueError as error:  # a name with a NUL in it
        raise UnfitFileError("has a name no file can have") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnfitFileError("is a symbolic link; put the file itself there") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnfitFileError("is not an ordinary file")
        if status.st_size > limit:
            raise UnfitFileError(f"is too large: {status.st_size} bytes, at most {limit} are read")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise UnfitFileError(f"is too large: more than {limit} bytes")
    return data
