"""One trainer per symbol and folder; whoever dies holds nothing any more."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rl.common.errors import LOCKED, LockedError, StorageError, UsageError
from rl.common.locks import lock_path, symbol_lock, worker_lock

ROOT = Path(__file__).resolve().parents[3]

HOLDER = """
import sys, time
from rl.common.locks import symbol_lock
from rl.common.errors import LockedError
try:
    with symbol_lock(sys.argv[1], sys.argv[2], run=sys.argv[3]):
        print("held", flush=True)
        sys.stdin.readline()
except LockedError:
    print("refused", flush=True)
"""

WORKER = """
import os, sys
from rl.common.errors import LockedError
from rl.common.locks import worker_lock
try:
    with worker_lock(sys.argv[1], "Nifty_2", holder=int(sys.argv[2])):
        print("held", flush=True)
        sys.stdin.readline()
except LockedError:
    print("refused", flush=True)
"""


@contextmanager
def process(program: str, *arguments: object) -> Generator[subprocess.Popen[str]]:
    """Run a program and end it; its first line is read with `said`."""
    started = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def said(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return started.stdout.readline().strip()


def test_a_second_trainer_is_refused_and_told_who_has_it(tmp_path):
    with process(HOLDER, tmp_path, "Nifty_2", "run-1") as holder:
        assert said(holder) == "held"
        with pytest.raises(LockedError) as refused, symbol_lock(tmp_path, "Nifty_2", run="run-2"):
            pytest.fail("two trainers on one symbol")
        message = str(refused.value)
        for part in ("Nifty_2", str(tmp_path), "run-1", f"process {holder.pid} on {socket.gethostname()}"):
            assert part in message
        assert "--models-dir" in message
        assert refused.value.exit_code == LOCKED
        # Another symbol, and the same symbol in another folder, are free.
        with symbol_lock(tmp_path, "Nifty_5", run="run-2"), symbol_lock(tmp_path / "b", "Nifty_2", run="r"):
            pass
        # Being refused took nothing from the holder, its record neither.
        assert json.loads(lock_path(tmp_path, "Nifty_2").read_text())["run"] == "run-1"


def test_it_is_free_again_when_the_holder_is_done(tmp_path):
    for run in ("run-1", "run-2"):
        with symbol_lock(tmp_path, "Nifty_2", run=run) as left_behind:
            assert left_behind is None, "it was given back in order"
    with pytest.raises(ZeroDivisionError), symbol_lock(tmp_path, "Nifty_2", run="run-3"):
        _ = 1 / 0
    with symbol_lock(tmp_path, "Nifty_2", run="run-4") as left_behind:
        assert left_behind is None, "a run that fails gives it back too"


def test_a_killed_holder_holds_nothing_and_is_named(tmp_path):
    with process(HOLDER, tmp_path, "Nifty_2", "run-1") as holder:
        assert said(holder) == "held"
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with symbol_lock(tmp_path, "Nifty_2", run="run-2") as left_behind:
        assert left_behind is not None
        assert f"run run-1 (process {holder.pid}" in left_behind


def test_a_record_of_another_machine_or_of_a_living_number_is_no_lock(tmp_path):
    """Only the lock itself counts: a container gives every run the same process number."""
    path = lock_path(tmp_path, "Nifty_2")
    path.parent.mkdir()
    for record in (
        json.dumps({"pid": os.getpid(), "host": "elsewhere", "run": "old", "started": "2024"}),
        '{"pid": 12, "ho',
        "[" * 3000,
        "[]",
        '{"run": "\\u001b[2J"}',
    ):
        path.write_text(record)
        with symbol_lock(tmp_path, "Nifty_2", run="run-2") as left_behind:
            assert left_behind is not None
            assert "\x1b" not in left_behind


def test_of_many_that_start_at_once_one_gets_it(tmp_path):
    for _ in range(3):
        started = [
            subprocess.Popen(
                [sys.executable, "-c", HOLDER, str(tmp_path), "Nifty_2", f"run-{number}"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(6)
        ]
        answers = [said(each) for each in started]
        for each in started:
            each.communicate("done\n")
        assert sorted(answers) == ["held", *["refused"] * 5]


def test_a_worker_keeps_the_symbol_when_the_process_that_gave_it_the_work_is_killed(tmp_path):
    with process(HOLDER, tmp_path, "Nifty_2", "run-1") as holder:
        assert said(holder) == "held"
        with process(WORKER, tmp_path, holder.pid) as worker:
            assert said(worker) == "held"
            os.kill(holder.pid, signal.SIGKILL)
            holder.wait()
            with pytest.raises(LockedError, match="run-1"), symbol_lock(tmp_path, "Nifty_2", run="run-2"):
                pytest.fail("the worker still trains it")
            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
    with symbol_lock(tmp_path, "Nifty_2", run="run-2") as left_behind:
        assert left_behind is not None


def test_a_worker_that_comes_late_does_not_join_another_run(tmp_path):
    with symbol_lock(tmp_path, "Nifty_2", run="run-2"):
        with process(WORKER, tmp_path, os.getpid()) as worker:
            assert said(worker) == "held"
        with process(WORKER, tmp_path, 1) as worker:
            assert said(worker) == "refused"
    with pytest.raises(LockedError), worker_lock(tmp_path, "Nifty_2", holder=os.getpid()):
        pytest.fail("the run is over")


def test_a_program_started_by_the_holder_does_not_inherit_the_lock(tmp_path):
    with symbol_lock(tmp_path, "Nifty_2", run="run-1"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    try:
        with symbol_lock(tmp_path, "Nifty_2", run="run-2"):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_folder_that_cannot_hold_the_lock_is_named(tmp_path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(StorageError) as refused, symbol_lock(tmp_path / "models", "Nifty_2", run="run-1"):
        pytest.fail("there is no such folder")
    assert str(tmp_path / "models") in str(refused.value)
    assert "Not a directory" in str(refused.value) or "File exists" in str(refused.value)


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("keep me")
    path = lock_path(tmp_path, "Nifty_2")
    path.parent.mkdir()
    path.symlink_to(secret)
    with pytest.raises(StorageError), symbol_lock(tmp_path, "Nifty_2", run="run-1"):
        pytest.fail("a link")
    assert secret.read_text() == "keep me"


def test_a_file_system_without_locks_is_refused_with_the_way_out(tmp_path, monkeypatch):
    """No such file system can be mounted in a test; the answer of the system call is what differs."""

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(StorageError) as refused, symbol_lock(tmp_path, "Nifty_2", run="run-1"):
        pytest.fail("nobody could be kept out")
    assert "knows no file locks" in str(refused.value)
    assert "local disk" in str(refused.value)


def test_a_name_that_climbs_out_of_the_folder_is_no_symbol(tmp_path):
    with pytest.raises(UsageError), symbol_lock(tmp_path, "../Nifty_2", run="run-1"):
        pytest.fail("outside")


def test_two_locks_in_one_process_exclude_each_other_too(tmp_path):
    started = time.monotonic()
    with (
        symbol_lock(tmp_path, "Nifty_2", run="run-1"),
        pytest.raises(LockedError),
        symbol_lock(tmp_path, "Nifty_2", run="run-1"),
    ):
        pytest.fail("the run would wait for itself")
    assert time.monotonic() - started < 5.0, "it is refused, not waited for"
