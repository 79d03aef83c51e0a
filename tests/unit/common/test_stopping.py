"""Signals: the step at hand is finished and saved, a second signal ends at once, and nothing waits for ever."""

from __future__ import annotations

import os
import signal
import time

import pytest

from rl.common.stopping import TerminatedError, finishing, is_requested, listening, stops_come_out


def send(number: int) -> None:
    """Send this process a signal and let its handler run."""
    os.kill(os.getpid(), number)
    for _ in range(1000):
        pass


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, TerminatedError), (signal.SIGINT, KeyboardInterrupt)]
)
def test_outside_of_training_a_signal_ends_the_work_where_it_is(number, error):
    done = []
    with listening(), pytest.raises(error):
        send(number)
        done.append("more")
    assert done == []


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, TerminatedError), (signal.SIGINT, KeyboardInterrupt)]
)
def test_training_finishes_its_step_and_saves_before_it_ends(number, error):
    done = []

    def training() -> None:
        with finishing():
            while not is_requested():
                send(number)
                done.append("update")
            done.append("saved")
        done.append("the next thing")

    with listening(), pytest.raises(error):
        training()
    assert done == ["update", "saved"]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_training_at_once(second):
    done = []
    with listening(), pytest.raises((TerminatedError, KeyboardInterrupt)), finishing():
        send(signal.SIGTERM)
        done.append("update")
        send(second)
        done.append("saved")
    assert done == ["update"]


def test_a_step_that_takes_too_long_is_given_up():
    began = time.monotonic()
    with listening(patience=0.1), pytest.raises(TerminatedError), finishing():
        send(signal.SIGTERM)
        time.sleep(30)
    assert time.monotonic() - began < 5


def test_a_step_that_ends_in_time_is_not_struck_afterwards():
    with listening(patience=0.1):
        with pytest.raises(TerminatedError), finishing():
            send(signal.SIGTERM)
        time.sleep(0.2)


def test_a_worker_leaves_ctrl_c_to_its_parent_and_takes_one_request_to_stop():
    """The signal may come twice: to the whole group, and passed on by the parent."""
    with listening(as_worker=True), pytest.raises(TerminatedError):
        with finishing():
            send(signal.SIGINT)
            assert not is_requested()
            send(signal.SIGTERM)
            send(signal.SIGTERM)
            assert is_requested()
        raise AssertionError("the end of the step ends the worker")


def test_an_error_inside_training_is_not_replaced_by_the_signal():
    with listening(), pytest.raises(ZeroDivisionError), finishing():
        send(signal.SIGTERM)
        raise ZeroDivisionError


def test_what_listened_before_listens_again():
    known = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with listening():
        assert signal.getsignal(signal.SIGTERM) != known[signal.SIGTERM]
    assert {number: signal.getsignal(number) for number in known} == known
    assert not is_requested()


def wrapped(error: BaseException) -> None:
    """Raise as compiled code does that is being entered when a handler raises."""
    inner = SystemError("returned a result with an exception set")
    inner.__cause__ = error
    raise SystemError("returned a result with an exception set") from inner


@pytest.mark.parametrize("stop", [TerminatedError, KeyboardInterrupt])
def test_a_stop_that_compiled_code_has_wrapped_is_a_stop_and_no_failure(stop):
    with listening(), pytest.raises(stop):
        try:
            with stops_come_out():
                wrapped(stop())
        except Exception:
            pytest.fail("taken for a failure")


def test_what_compiled_code_itself_has_to_complain_of_stays_what_it_is():
    with pytest.raises(SystemError) as caught, stops_come_out():
        wrapped(ValueError("its own"))
    assert isinstance(caught.value.__cause__.__cause__, ValueError)
