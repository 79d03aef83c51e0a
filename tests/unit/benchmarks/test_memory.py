"""The line through memory over cycles, and what is counted as an open file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.memory import slope_per_100

ROOT = Path(__file__).resolve().parents[3]


def test_the_slope_is_that_of_the_second_half_per_hundred_cycles():
    # 50 MB while caches fill, then a tenth of a MB each cycle: 10 MB per 100.
    assert slope_per_100([0.0, 50.0, 55.0, 60.0, 60.1, 60.2]) == pytest.approx(10.0)
    assert slope_per_100([100.0] * 10) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; run on Linux")
def test_an_open_file_and_memory_that_is_held_are_seen(tmp_path):
    """In a process of its own: what earlier tests gave back to the allocator would hide what is taken here."""
    code = f"""
from benchmarks.memory import open_files, resident_megabytes
files, megabytes = open_files(), resident_megabytes()
held = bytearray(b"x") * 30_000_000
with open({str(tmp_path / "a")!r}, "w"):
    assert open_files() == files + 1
assert open_files() == files
print(resident_megabytes() - megabytes)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(30.0, abs=5.0)
