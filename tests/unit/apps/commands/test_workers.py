"""Work shared among processes: what one comes to, what its death costs, and that none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rl.apps.commands.workers import share_work
from rl.common.errors import DataError, StagegateError
from rl.common.stopping import TerminatedError, finishing, is_requested, listening

ROOT = Path(__file__).resolve().parents[4]


@dataclass(frozen=True)
class Task:
    """What a worker is asked to do, and where it leaves traces."""

    name: str
    folder: Path
    does: str = "answer"


def work(task: Task) -> str:
    """Do as the task says; every start leaves a file with the process number."""
    starts = len(list(task.folder.glob(f"{task.name}-*")))
    (task.folder / f"{task.name}-{starts}").write_text(str(os.getpid()))
    if task.does == "refuse":
        raise DataError(f"{task.name} is bad")
    if task.does == "raise what cannot be sent":
        raise UnsendableError(lambda: None)
    if task.does == "die" or (task.does == "die once" and starts == 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if task.does == "save when asked":
        with finishing():
            while not is_requested():
                time.sleep(0.01)
            (task.folder / "saved").touch()
    if task.does == "never end":
        time.sleep(600)
    return f"{task.name} done"


class UnsendableError(Exception):
    """Cannot be pickled."""

    def __init__(self, fault: Callable[[], None]) -> None:
        super().__init__("an odd fault")
        self.fault = fault


@dataclass
class Heard:
    """What came back."""

    results: dict[str, str] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    restarts: list[tuple[str, str]] = field(default_factory=list)


def shared(*tasks: Task, workers: int = 2) -> Heard:
    """Share tasks among processes."""
    heard = Heard()
    told: dict[str, Any] = {
        "on_result": lambda task, result: heard.results.update({task.name: result}),
        "on_error": lambda task, error: heard.errors.update({task.name: error}),
        "on_restart": lambda task, text: heard.restarts.append((task.name, text)),
    }
    share_work(work, tasks, workers, **told)
    return heard


def processes(folder: Path, name: str = "") -> list[int]:
    """Return the numbers of the processes that began a task."""
    return [int(path.read_text()) for path in sorted(folder.glob(f"{name}*-*"))]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


def test_one_process_does_several_tasks_and_a_bad_one_costs_only_itself(tmp_path):
    heard = shared(
        Task("a", tmp_path),
        Task("b", tmp_path, "refuse"),
        Task("c", tmp_path, "raise what cannot be sent"),
        Task("d", tmp_path),
        workers=1,
    )
    assert heard.results == {"a": "a done", "d": "d done"}
    assert isinstance(heard.errors["b"], DataError)
    assert "in work" in str(heard.errors["b"].__cause__)
    assert str(heard.errors["c"]) == "UnsendableError: an odd fault"
    assert len(set(processes(tmp_path))) == 1
    assert not any(map(is_running, processes(tmp_path)))


def test_a_task_whose_process_dies_is_begun_again_once_and_then_given_up(tmp_path):
    began = time.monotonic()
    heard = shared(Task("a", tmp_path, "die once"), Task("b", tmp_path, "die"), Task("c", tmp_path))
    assert heard.results == {"a": "a done", "c": "c done"}
    assert sorted(name for name, _ in heard.restarts) == ["a", "b"]
    assert "was ended by SIGKILL (out of memory, or somebody); begun again" in heard.restarts[0][1]
    assert isinstance(heard.errors["b"], StagegateError)
    assert "as the one before it did; given up" in str(heard.errors["b"])
    assert [len(processes(tmp_path, name)) for name in "abc"] == [2, 2, 1]
    assert time.monotonic() - began < 120


def test_a_stop_is_passed_on_and_what_can_save_does(tmp_path):
    def told_to_stop() -> None:
        with listening():
            # The alarm stands for whoever sends SIGTERM while this process waits for its workers.
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
            alarm_when((tmp_path / "a-0").exists)
            shared(Task("a", tmp_path, "save when asked"), Task("b", tmp_path), workers=1)

    with pytest.raises(TerminatedError):
        told_to_stop()
    assert (tmp_path / "saved").exists()
    assert not (tmp_path / "b-0").exists()
    assert not any(map(is_running, processes(tmp_path)))


def alarm_when(is_due: Callable[[], bool]) -> None:
    """Ring SIGALRM every tenth of a second until something is due, then for the old handler once."""
    real = signal.getsignal(signal.SIGALRM)

    def ring(number: int, frame: Any) -> None:
        if is_due():
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert callable(real)
            real(number, frame)

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)


ORPHAN = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/unit/apps/commands")
from test_workers import Task, shared
if __name__ == "__main__":
    shared(Task("a", Path(sys.argv[1]), "never end"))
"""


def test_workers_end_with_the_process_they_work_for(tmp_path):
    """One that worked on unseen would write into the folders of the run that is gone on with."""
    script = tmp_path / "parent.py"
    script.write_text(ORPHAN)
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], cwd=ROOT, env=_environment())
    until(lambda: (tmp_path / "a-0").exists() and (tmp_path / "a-0").read_text())
    parent.kill()
    parent.wait()
    (worker,) = processes(tmp_path, "a")
    until(lambda: not is_running(worker))


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def until(is_due: Callable[[], Any], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_due():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
