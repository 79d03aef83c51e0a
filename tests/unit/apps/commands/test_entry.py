"""Around every command: one message for every failure, and its exit code."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

import pytest

from rl.apps.commands.entry import run_command
from rl.common.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MissingPackageError,
    StagegateError,
    TrainingDivergedError,
    UsageError,
)
from rl.common.interpreter import interpreter
from rl.common.stopping import TerminatedError


@pytest.fixture(autouse=True)
def _signals():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def raising(error: BaseException):
    def work(_: argparse.Namespace) -> int:
        raise error

    return work


def run(work) -> int:
    return run_command(work, argparse.Namespace())


@pytest.mark.parametrize("code", [0, 4, 5])
def test_the_code_of_the_work_is_the_code_of_the_command(code, capsys):
    assert run(lambda _: code) == code
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (UsageError, 2),
        (ConfigError, 2),
        (MissingPackageError, 3),
        (DataError, 4),
        (CheckpointError, 4),
        (TrainingDivergedError, 1),
        (StagegateError, 1),
    ],
)
def test_an_error_for_the_user_is_its_message_and_its_code(kind, code, capsys):
    assert run(raising(kind("what, where, remedy"))) == code
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "error: what, where, remedy\n")


def test_a_missing_package_is_named_with_what_installs_it(capsys):
    assert run(raising(ModuleNotFoundError("No module named 'talib.x'", name="talib.x"))) == 3
    assert "the package talib.x is missing" in capsys.readouterr().err


def test_a_missing_module_of_ours_is_our_fault(capsys):
    assert run(raising(ModuleNotFoundError("No module named 'rl.gone'", name="rl.gone"))) == 1
    message = capsys.readouterr().err
    assert "make setup" not in message
    Path(message.split("traceback: ")[1].strip()).unlink()


def test_what_nobody_foresaw_is_one_line_with_the_traceback_in_a_file(capsys):
    assert run(raising(ZeroDivisionError("division by zero"))) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "unexpected error: ZeroDivisionError: division by zero"
    log = Path(second.removeprefix("  traceback: "))
    assert "ZeroDivisionError" in log.read_text()
    log.unlink()


def test_ctrl_c_ends_with_130_and_says_how_to_start_again(capsys):
    assert run(raising(KeyboardInterrupt())) == 130
    message = capsys.readouterr().err
    assert "interrupted" in message
    assert f"Start again with: {interpreter()} " in message


def test_sigterm_ends_with_143(capsys):
    def work(_: argparse.Namespace) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        # The handler runs between two instructions of this thread.
        for _ in range(1000):
            pass
        return 0

    assert run(work) == 143
    assert "terminated" in capsys.readouterr().err


def test_a_sigterm_that_compiled_code_has_wrapped_is_no_fault_of_ours(capsys):
    wrapped = SystemError("returned a result with an exception set")
    wrapped.__cause__ = TerminatedError()
    assert run(raising(wrapped)) == 143
    assert capsys.readouterr().err.startswith("terminated")
