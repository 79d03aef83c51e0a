"""`--track`: shows a run's metrics in TensorBoard or MLflow too, from a process of its own.

Whatever happens in that process (a missing package, a locked store, a crash) is one warning here and changes nothing
else: training neither imports those packages nor waits for them.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import rl

MIRRORS = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}
"""Name of a mirror -> packages it needs."""

INSTALL = "python tools/bootstrap.py core tracking"


@contextmanager
def tracking(
    names: Sequence[str], folder: Path, reports_dir: Path, warn: Callable[[str], None]
) -> Generator[None]:
    """Mirror the events of a run while the block lasts.

    Args:
        names: Of the mirrors.
        folder: The run's.
        reports_dir: MLflow's store is made in it.
        warn: Told, once for each mirror, that it does not work (any more).
    """
    usable = [name for name in dict.fromkeys(names) if not _lacks_package(name, warn)]
    if not usable:
        yield
        return
    process = _started(usable, folder, reports_dir)
    listener = threading.Thread(target=_listen, args=(process, warn), daemon=True)
    listener.start()
    try:
        yield
    except BaseException:
        # Who stopped the run does not wait for its mirrors; they write down the rest by themselves.
        _let_go(process)
        raise
    _let_go(process)
    _await(process, listener, warn)


def _lacks_package(name: str, warn: Callable[[str], None]) -> bool:
    missing = [package for package in MIRRORS[name] if importlib.util.find_spec(package) is None]
    if missing:
        warn(
            f"warning: --track {name}: the package {missing[0]} is not installed; the run goes on without it. Install "
            f"it with: {INSTALL}"
        )
    return bool(missing)


def _started(names: Sequence[str], folder: Path, reports_dir: Path) -> subprocess.Popen[str]:
    checkout = str(Path(rl.__file__).parents[1])
    path = os.pathsep.join([checkout, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "rl.apps.commands.mirror",
            str(folder.resolve()),
            str(reports_dir.resolve()),
            *names,
        ],
        # MLflow names ./mlruns as the place of its default experiment: not one in the checkout.
        cwd=reports_dir,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # Usage reports of MLflow are off, and so is what its packages ask of git.
        env={
            **os.environ,
            "PYTHONPATH": path,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "GIT_PYTHON_REFRESH": "quiet",
        },
        # Ctrl-C is this process's; the mirrors end when their input does, and write down the rest first.
        start_new_session=True,
    )


def _listen(process: subprocess.Popen[str], warn: Callable[[str], None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        warn(f"warning: --track {line.rstrip()}; the run goes on without it")


def _let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    # It may have ended already; how is asked later.
    with suppress(BrokenPipeError):
        process.stdin.close()


def _await(process: subprocess.Popen[str], listener: threading.Thread, warn: Callable[[str], None]) -> None:
    # It ends by itself in any case, after a while at most.
    code = process.wait()
    listener.join()
    if process.stdout is not None:
        process.stdout.close()
    if code:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        warn(
            f"warning: --track: the process of the mirrors ended with {how}; the rest of the run is missing there"
        )
