"""What every entry point does around its work: one thread, kind errors, exit codes."""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from rl.common.errors import INTERRUPTED, MISSING, UNEXPECTED, StagegateError
from rl.common.threads import use_one_thread


def run_command(work: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command; turn every failure into one message and its exit code."""
    use_one_thread()
    try:
        return work(options)
    except StagegateError as error:
        print(f"error: {error}", file=sys.stderr)
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
    except KeyboardInterrupt:
        print("interrupted; stages finished so far are saved", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line on screen, the rest in a file
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    with tempfile.NamedTemporaryFile(
        "w", prefix="stagegate-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write("".join(traceback.format_exception(error)))
    print(
        f"unexpected error: {type(error).__name__}: {error}\n  traceback: {Path(log.name)}", file=sys.stderr
    )
    return UNEXPECTED
