"""One thread per process: parallel work is spread over symbols, not inside one matrix product.

With nets of a few thousand weights a second thread waits more than it works, and several runs on one
machine slow each other down many times over. One thread also fixes the order of sums, which results
that are equal bit for bit need.
"""

from __future__ import annotations

import os
import sys

VARIABLES = {
    "OMP_NUM_THREADS": "torch",
    "OPENBLAS_NUM_THREADS": "numpy",
    "MKL_NUM_THREADS": "torch",  # numpy from PyPI has OpenBLAS
    "NUMBA_NUM_THREADS": "numba",
}
"""What the numerical libraries read, once, while they are imported; and whose import that is."""


def thread_settings() -> dict[str, str | None]:
    """Return what these variables are set to, for the record of a run; None where one is not set."""
    return {variable: os.environ.get(variable) for variable in VARIABLES}


def use_one_thread() -> None:
    """Keep numpy, numba and torch to one thread each. Entry points call this before anything else.

    A variable only works before its library is imported, so after that it is left alone; torch can be told
    later and is, if somebody imported it already. This function itself imports none of them.
    """
    for variable, library in VARIABLES.items():
        if library not in sys.modules:
            os.environ[variable] = "1"
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
