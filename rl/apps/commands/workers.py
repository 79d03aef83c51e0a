"""Processes that share the work of a command, one thread each."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from rl.common.threads import use_one_thread


@contextmanager
def worker_pool(workers: int) -> Generator[ProcessPoolExecutor]:
    """Give a pool of fresh processes; they end at once where the block is left by an exception.

    Args:
        workers: How many.
    """
    # Fresh interpreters: a forked one would inherit torch's and numba's threads half-alive.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker)
    try:
        yield pool
    except BaseException:
        # Ctrl-C, SIGTERM or a fault of ours: waiting for the others to finish would take minutes.
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def begin_worker() -> None:
    """Keep to one thread, and leave Ctrl-C, which every process of a terminal gets, to the parent."""
    use_one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
