"""What every entry point does around its work: one thread, kind errors, exit codes."""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from rl.common.errors import INTERRUPTED, MISSING, TERMINATED, UNEXPECTED, USAGE, StagegateError
from rl.common.interpreter import command_line
from rl.common.printable import printable
from rl.common.stopping import TerminatedError, ignore_further_signals, listening, stops_come_out
from rl.common.threads import use_one_thread


def run_command(work: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command; turn every failure into one message and its exit code."""
    use_one_thread()
    with listening():
        return _run(work, options)


def _run(work: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    try:
        with stops_come_out():
            return work(options)
    except StagegateError as error:
        print(printable("\n".join([f"error: {error}", *_notes(error)])), file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == "rl":
            return _unexpected(error)
        print(
            f"error: the package {error.name} is missing. Install what is needed with: make setup\n"
            "  and run the command with .venv/bin/python.",
            file=sys.stderr,
        )
        return MISSING
    except (PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        # A path the user named, or a folder they may not write to.
        place = error.filename2 or error.filename
        print(printable(f"error: {place}: {error.strerror}; choose another file or folder"), file=sys.stderr)
        return USAGE
    except KeyboardInterrupt as signal:
        return _stopped("interrupted", INTERRUPTED, signal)
    except TerminatedError as signal:
        return _stopped("terminated", TERMINATED, signal)
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line on screen, the rest in a file
        return _unexpected(error)


def _stopped(how: str, code: int, signal: BaseException) -> int:
    ignore_further_signals()
    what_now = _notes(signal) or [f"  Start again with: {command_line(sys.argv)}"]
    print(printable("\n".join([f"{how}; everything that was written is whole.", *what_now])), file=sys.stderr)
    return code


def _notes(error: BaseException) -> list[str]:
    """Return what was noted on the way: a command that can be gone on with says how."""
    return getattr(error, "__notes__", [])


def _unexpected(error: Exception) -> int:
    with tempfile.NamedTemporaryFile(
        "w", prefix="stagegate-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write("".join(traceback.format_exception(error)))
    print(
        printable(
            "\n".join(
                [
                    f"unexpected error: {type(error).__name__}: {error}",
                    f"  traceback: {Path(log.name)}",
                    *_notes(error),
                ]
            )
        ),
        file=sys.stderr,
    )
    return UNEXPECTED
