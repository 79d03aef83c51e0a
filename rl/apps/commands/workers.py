"""Processes that share the work of a command, one thread each; the death of one costs nobody else anything."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from rl.common.errors import TERMINATED, StagegateError
from rl.common.stopping import TerminatedError, finishing, is_requested, listening, stops_come_out
from rl.common.threads import use_one_thread

Job = TypeVar("Job")
Result = TypeVar("Result")

LOOK_EVERY_SECONDS = 0.5
"""How soon a request to stop is seen; a dead worker is seen at once."""

STOP_SECONDS = 5.5
"""What workers are given to save and end; less than this process is given itself."""

STARTS = 2
"""Processes a piece of work may cost before it counts as failed."""


class WorkerTracebackError(Exception):
    """Carries the text of a worker's traceback, as the cause of the error that came from there."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass
class _Worker(Generic[Job]):
    """A process and the work it has now."""

    process: BaseProcess
    connection: Connection
    job: Job | None = None


def share_work(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    *,
    on_result: Callable[[Job, Result], None],
    on_error: Callable[[Job, Exception], None],
    on_restart: Callable[[Job, str], None],
) -> None:
    """Do every job in one of several fresh processes, each one job at a time.

    A process that dies is noticed at once, and its job is given to a new one; where that dies too, the job has failed.
    A signal to this process is passed on: workers save what they can, and are killed if they do not end in time. They
    end by themselves as soon as this process is gone, so that none works on unseen.

    Args:
        work: A function of a module, which a new process can import.
        jobs: What to do, in the order in which to begin.
        workers: How many processes at most.
        on_result: Told of what a job came to.
        on_error: Told of what a job raised, or that its processes died.
        on_restart: Told, in words, that a job is begun again because its process died.
    """
    waiting, starts = deque(enumerate(jobs)), dict.fromkeys(range(len(jobs)), 0)
    team: list[_Worker[tuple[int, Job]]] = []
    with finishing():
        try:
            while (waiting or any(worker.job for worker in team)) and not is_requested():
                while waiting and sum(worker.job is not None for worker in team) < workers:
                    _give(waiting.popleft(), team, starts, work)
                for worker in _with_news(team):
                    number, job = worker.job  # ty: ignore[not-iterable]
                    answer = _answer(worker)
                    if answer is not None:
                        worker.job = None
                        is_error, value = answer
                        on_error(job, value) if is_error else on_result(job, value)
                        continue
                    team.remove(worker)
                    died = f"its process ({worker.process.pid}) {_how_it_died(worker)}"
                    if starts[number] < STARTS:
                        on_restart(job, f"{died}; begun again in a new one")
                        waiting.appendleft((number, job))
                    else:
                        on_error(job, StagegateError(f"{died}, as the one before it did; given up"))
            if is_requested():
                _ask_to_stop(team)
        finally:
            for worker in team:
                _end(worker)


def _give(
    numbered: tuple[int, Job],
    team: list[_Worker[tuple[int, Job]]],
    starts: dict[int, int],
    work: Callable[[Job], Any],
) -> None:
    starts[numbered[0]] += 1
    idle = next((worker for worker in team if worker.job is None and worker.process.is_alive()), None)
    if idle is None:
        idle = _started(work)
        team.append(idle)
    idle.job = numbered
    try:
        idle.connection.send(numbered[1])
    except OSError:
        # It died while it was idle or starting: the loop sees that next.
        return


def _started(work: Callable[[Any], Any]) -> _Worker[Any]:
    # Fresh interpreters: a forked one would inherit torch's and numba's threads half-alive.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, work), daemon=True)
    # Ctrl-C reaches every process of a terminal, this one too before it could say that it leaves that to us.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # Ours has to be the only other end, or a dead worker's pipe would not be closed.
    theirs.close()
    return _Worker(process, ours)


def _with_news(team: Iterable[_Worker[Job]]) -> list[_Worker[Job]]:
    """Return busy workers that answered or died; waits for one, but not for long."""
    busy = [worker for worker in team if worker.job is not None]
    waited_for = [each for worker in busy for each in (worker.connection, worker.process.sentinel)]
    ready = set(wait(waited_for, timeout=LOOK_EVERY_SECONDS))
    return [worker for worker in busy if ready & {worker.connection, worker.process.sentinel}]


def _answer(worker: _Worker[Any]) -> tuple[bool, Any] | None:
    """Return whether a worker's job failed and what it came to; None where the worker is dead."""
    try:
        if not worker.connection.poll():
            return None
        is_error, value, trace = pickle.loads(worker.connection.recv_bytes())  # noqa: S301 - our own child's
    except (EOFError, OSError):
        return None
    if is_error:
        value.__cause__ = WorkerTracebackError(trace)
    return is_error, value


def _how_it_died(worker: _Worker[Any]) -> str:
    worker.process.join(timeout=5)
    code = worker.process.exitcode
    if code is not None and code < 0:
        hint = " (out of memory, or somebody)" if -code == signal.SIGKILL else ""
        return f"was ended by {signal.Signals(-code).name}{hint}"
    return f"ended with exit code {code}"


def _ask_to_stop(team: Iterable[_Worker[Any]]) -> None:
    """Pass a stop on, and wait for the workers to save and end."""
    busy = [worker for worker in team if worker.job is not None]
    for worker in busy:
        if worker.process.is_alive():
            os.kill(worker.process.pid or 0, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for worker in busy:
        worker.process.join(timeout=max(0.0, deadline - time.monotonic()))


def _end(worker: _Worker[Any]) -> None:
    worker.connection.close()
    # An idle one has nothing to save, and what a busy one saved is on the disk whole.
    worker.process.kill()
    worker.process.join()


# --- in the worker ----------------------------------------------------------------------------------------------------


def serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    """Do one job after the other as they come, until there is nobody to do them for."""
    use_one_thread()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with listening(patience=STOP_SECONDS - 1.0, as_worker=True):
        try:
            while True:
                connection.send_bytes(_done(work, connection.recv()))
        except (EOFError, OSError):
            return
        except TerminatedError:
            sys.exit(TERMINATED)


def _done(work: Callable[[Any], Any], job: Any) -> bytes:
    """Do a job; return what it came to, or what it raised, for the pipe."""
    try:
        with stops_come_out():
            return pickle.dumps((False, work(job), ""))
    except Exception as error:  # noqa: BLE001 - told in the parent, which knows what a failure costs
        trace = "".join(traceback.format_exception(error))
        try:
            answer = pickle.dumps((True, error, trace))
            pickle.loads(answer)  # noqa: S301 - some errors are written and cannot be read
        except Exception:  # noqa: BLE001 - whatever its class does on the way
            answer = pickle.dumps((True, StagegateError(f"{type(error).__name__}: {error}"), trace))
        return answer


def _end_with_parent() -> None:
    """End this process as soon as the one it works for is gone: nobody is there to take what it would come to."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(TERMINATED)
