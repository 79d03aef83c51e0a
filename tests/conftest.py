"""Settings of the whole suite, made before numpy, numba or torch are imported."""

from __future__ import annotations

from rl.common.threads import use_one_thread

# Torch's default is every core; on nets this small that costs up to 30 times the time, the more so side by side.
use_one_thread()
