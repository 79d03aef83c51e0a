"""How SIGTERM and Ctrl-C end a command: at once, but inside training only after the update at hand, and its saving.

Everything on disk is complete or absent at any moment, so ending at once loses nothing but time. A training loop that
can save where it stands asks for a little of that time with `finishing`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

PATIENCE_SECONDS = 6.0
"""Work that has not finished its step by then is ended where it is; what was saved last counts."""


class TerminatedError(BaseException):
    """SIGTERM arrived. Not an Exception, so that nothing on the way takes it for a failure of its own."""


class _Signals:
    """What this process knows of signals; they belong to the process, so there is one of these."""

    def __init__(self) -> None:
        self.number: int | None = None
        """The first signal that arrived."""
        self.sections = 0
        """How many `finishing` blocks we are in."""
        self.is_overdue = False
        self.heeds_a_second = True
        self.patience = PATIENCE_SECONDS
        self.timer: threading.Timer | None = None


_signals = _Signals()


@contextmanager
def listening(*, patience: float = PATIENCE_SECONDS, as_worker: bool = False) -> Generator[None]:
    """Take over SIGTERM and SIGINT for a block, and give them back after it.

    Args:
        patience: Seconds a `finishing` block is given to come to its end.
        as_worker: A process that works for another one: Ctrl-C, which every process of a terminal gets, is left to
            that one, and so is ending at once: a group may be sent the signal its parent passes on, too.
    """
    global _signals
    before, known = _signals, {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    _signals = _Signals()
    _signals.patience, _signals.heeds_a_second = patience, not as_worker
    signal.signal(signal.SIGTERM, _on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN if as_worker else _on_signal)
    try:
        yield
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)
        _signals = before


@contextmanager
def finishing() -> Generator[None]:
    """Let the first signal wait until the block has come to its own end; it then raises there.

    The block has to ask `is_requested` every second or so, and save and leave if so. Where it does not end in time, or
    a second signal arrives, that ends it where it is.

    Raises:
        KeyboardInterrupt, TerminatedError: At the end of the block, if a signal came meanwhile.
    """
    _signals.sections += 1
    try:
        yield
    finally:
        _signals.sections -= 1
        if _signals.timer is not None:
            _signals.timer.cancel()
    if _signals.number is not None:
        _end(_signals.number)


@contextmanager
def stops_come_out() -> Generator[None]:
    """Raise a stop as itself where compiled code wrapped it: to be put inside whatever catches failures.

    A handler that raises while a compiled function is being entered leaves it as a SystemError whose cause is the stop.
    Taken for a failure, it would be reported as a fault of the program.

    Raises:
        KeyboardInterrupt, TerminatedError: In place of a SystemError that came of one.
    """
    try:
        yield
    except SystemError as error:
        cause: BaseException | None = error
        while isinstance(cause, SystemError):
            cause = cause.__cause__
        if isinstance(cause, KeyboardInterrupt | TerminatedError):
            raise cause from None
        raise


def is_requested() -> bool:
    """Return True once a signal has asked this process to stop."""
    return _signals.number is not None


def ignore_further_signals() -> None:
    """Let the last words of a command that is ending anyway be said whole."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _on_signal(number: int, _frame: FrameType | None) -> None:
    is_first = _signals.number is None
    if is_first:
        _signals.number = number
        if _signals.sections:
            _signals.timer = threading.Timer(_signals.patience, _overdue, (number,))
            _signals.timer.daemon = True
            _signals.timer.start()
            if _signals.heeds_a_second:
                # Not print, which the signal may have interrupted.
                os.write(
                    2, b"\nstopping: what is at hand is finished and saved first; once more ends it at once\n"
                )
            return
    elif not (_signals.heeds_a_second or _signals.is_overdue):
        return
    _end(number)


def _overdue(number: int) -> None:
    _signals.is_overdue = True
    # Only the main thread runs handlers; this wakes it wherever it waits.
    os.kill(os.getpid(), number)


def _end(number: int) -> NoReturn:
    error: Any = KeyboardInterrupt if number == signal.SIGINT else TerminatedError
    raise error
