"""One thread, set before the libraries look, without loading them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def run(program: str) -> dict:
    """Run a program in a process in which nobody has set the number of threads to one."""
    environment = {**os.environ, **dict.fromkeys(NAMES, "2")}
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(printed.stdout)


REPORT = f"""
loaded = sorted({{"numpy", "torch"}} & set(sys.modules))
print(json.dumps({{name: os.environ[name] for name in {NAMES}}} | {{"loaded": loaded}}))
"""


def test_the_variables_are_set_and_nothing_is_loaded():
    found = run(
        "import json, os, sys; from rl.common.threads import use_one_thread; use_one_thread()" + REPORT
    )
    assert found == {**dict.fromkeys(NAMES, "1"), "loaded": []}


def test_after_numpy_only_its_own_variables_are_left_alone():
    found = run(
        "import json, os, sys, numpy; from rl.common.threads import use_one_thread; use_one_thread()" + REPORT
    )
    others = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    assert found == {**dict.fromkeys(NAMES, "2"), **others, "loaded": ["numpy"]}


def test_torch_and_numba_use_one_thread_afterwards():
    found = run(
        "import json; from rl.common.threads import use_one_thread; use_one_thread(); import torch, numba;"
        "print(json.dumps({'torch': torch.get_num_threads(), 'numba': numba.get_num_threads()}))"
    )
    assert found == {"torch": 1, "numba": 1}


def test_torch_and_numba_use_one_thread_where_numpy_was_there_before():
    found = run(
        "import json, numpy; from rl.common.threads import use_one_thread; use_one_thread(); import torch, numba;"
        "print(json.dumps({'torch': torch.get_num_threads(), 'numba': numba.get_num_threads()}))"
    )
    assert found == {"torch": 1, "numba": 1}


def test_torch_that_is_loaded_already_is_told():
    found = run(
        "import json, torch; before = torch.get_num_threads();"
        "from rl.common.threads import use_one_thread; use_one_thread();"
        "print(json.dumps({'before': before, 'after': torch.get_num_threads()}))"
    )
    assert found == {"before": 2, "after": 1}
