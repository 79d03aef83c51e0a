"""One thread per process: parallel work is spread over symbols, not inside one matrix product.

With nets of a few thousand weights a second thread waits more than it works, and several runs on one
machine slow each other down many times over. One thread also fixes the order of sums, which results
that are equal bit for bit need.
"""

from __future__ import annotations

import os
import sys

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""What the numerical libraries read, once, while they are imported."""


def use_one_thread() -> None:
    """Keep numpy, numba and torch to one thread each. Entry points call this before anything else.

    The variables only work before numpy is imported, so after that they are left alone; torch can be told
    later and is, if somebody imported it already. This function itself imports neither.
    """
    if "numpy" not in sys.modules:
        for variable in VARIABLES:
            os.environ[variable] = "1"
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
