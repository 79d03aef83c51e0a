"""The ways a run can end, and the errors that carry them.

Each error class is one sentence about whose turn it is: the reader of the message, or ours. An entry point
catches `StagegateError`, prints the message and exits with `exit_code`; anything else is our fault and
exits with `UNEXPECTED`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

OK = 0
"""Done as configured."""

UNEXPECTED = 1
"""A fault of the program; the traceback is in the log."""

USAGE = 2
"""The command line or a configuration file has to be changed."""

MISSING = 3
"""A package or device is not there."""

DATA = 4
"""A data file or checkpoint is missing or cannot be used."""

GATE_STOPPED = 5
"""The work was done and a gate said no; this is a result, not a fault."""

LOCKED = 6
"""Another run is at work on the same symbol; nothing was changed."""

STORAGE = 7
"""A disk is full or a file cannot be written; what was there before is intact."""

INTERRUPTED = 130
"""Ctrl-C: 128 + SIGINT, as shells count."""

TERMINATED = 143
"""SIGTERM: 128 + SIGTERM, as shells count."""


class StagegateError(Exception):
    """Something the reader of the message can act on; its text says what, where, found, allowed, remedy."""

    exit_code: int = UNEXPECTED


class ConfigError(StagegateError):
    """A configuration file says something that is unknown, of the wrong type, or impossible."""

    exit_code = USAGE


class UsageError(StagegateError):
    """A command-line option or a name given by the user cannot be used."""

    exit_code = USAGE


class MissingPackageError(StagegateError):
    """A package or device that this command needs is not installed or is too old."""

    exit_code = MISSING


class DataError(StagegateError):
    """Market data is missing, damaged, or too short for what was asked."""

    exit_code = DATA


class CheckpointError(StagegateError):
    """A model file is missing, damaged, altered, or does not fit what was asked."""

    exit_code = DATA


class LockedError(StagegateError):
    """Another process trains this symbol into the same folder; wait for it, or choose another folder."""

    exit_code = LOCKED


class StorageError(StagegateError):
    """A file could not be written; the message names the folder, and what was there before is intact."""

    exit_code = STORAGE


class TrainingDivergedError(StagegateError):
    """Training produced numbers that are not finite; the message names the step and the tensor."""

    exit_code = UNEXPECTED


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` known names that `name` may have been meant to be, best first.

    Case is ignored, because the usual slip in a symbol or a key is a capital letter.

    Args:
        name: What was written.
        names: What would have been understood.
        count: The most suggestions wanted; 0 gives none.

    Returns:
        Names spelled as in `names`. Empty when nothing is close.
    """
    if count < 1:
        return []
    known = list(dict.fromkeys(names))
    spellings = [known_name.casefold() for known_name in known]
    # Asking for every match first: two names that differ only in case share one folded spelling.
    close = difflib.get_close_matches(name.casefold(), dict.fromkeys(spellings), n=max(1, len(known)))
    found = [original for spelling in close for original in known if original.casefold() == spelling]
    return found[:count]
