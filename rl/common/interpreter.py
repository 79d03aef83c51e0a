"""How the user starts Python here, so that a command a message tells can be pasted and runs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path


def interpreter() -> str:
    """Return what to type for the interpreter that runs: its path where it lies inside the current folder.

    Many machines have no `python`, or one without our packages. So that of a virtual environment in the current folder
    is named as it was made, `.venv/bin/python`; any other one is `python`, as in an active environment.
    """
    here = Path.cwd()
    if not sys.executable or sys.prefix == sys.base_prefix:
        return "python"
    own = Path(sys.executable)
    for folder in own.parents:
        # The file's own path, links kept: resolved, an environment's interpreter is that of the system.
        if folder.is_dir() and folder.samefile(here):
            return shlex.quote(str(own.relative_to(folder)))
    return "python"


def command_line(words: Iterable[str]) -> str:
    """Return the line that runs a file or a module (`-m`, `rl`, …) with this interpreter, quoted for a shell."""
    return f"{interpreter()} {shlex.join(words)}"
