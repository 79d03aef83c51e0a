"""Do memory and open files grow over many short trainings and backtests in one process?

Each cycle trains one made-up market through all stages of the shipped plan made small, and backtests what came of it,
by the functions behind the two commands, in fresh folders: a ledger that grows with every look is data, not a leak.
After it, with the collector run, the resident memory and the number of open files are noted. The slope is that of a
least-squares line through the second half, since compiled code, caches and the allocator's pools fill in the first.

    python -m benchmarks.memory --cycles 200
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import rl.__main__
import run_backtest
import run_training
from rl.common.threads import use_one_thread

SLOPE_LIMIT = 1.0
"""MB per 100 cycles."""

SYMBOL = "SYN_planted_2"

SMALL = (
    "training_params.ppo.num_envs=8",
    "training_params.ppo.rollout_steps=32",
    "training_params.ppo.batch_size=128",
    "training_params.ppo.k_epochs=1",
    "training_params.ppo.hidden_dim=8",
    "training_params.moe.expert_hidden_dim=8",
    "training_params.moe.gating_hidden_dim=4",
    "training_params.maml.support_steps=32",
    "training_params.maml.query_steps=32",
    "training_params.maml.inner_loop_steps=1",
    "training_params.maml.evaluation_steps=2",
    "training_params.maml.support_sessions=1",
    "training_params.maml.query_sessions=1",
    "training_sequence.stage_1_ppo.episodes=4",
    "training_sequence.stage_2_moe.episodes=4",
    "training_sequence.stage_3_maml.meta_iterations=1",
    "training_sequence.stage_3_maml.success_criteria.min_adaptation_speed=2",
    "progression_rules.advancement_criteria.stage_1_to_2.min_episodes=0",
    "progression_rules.advancement_criteria.stage_2_to_3.min_episodes=0",
    "progression_rules.fallback_strategies.extend_training=false",
    "progression_rules.fallback_strategies.hyperparameter_tuning=false",
    "monitoring.checkpoint_frequency=4",
    "environment.episode_bars=60",
    # Nothing is asked for, and there are too few sessions for a verdict: every stage is trained whatever it earns.
    "evidence.min_sessions=1000",
    *(
        f"{place}.{criterion}"
        for place in (
            "training_sequence.stage_1_ppo.success_criteria",
            "training_sequence.stage_2_moe.success_criteria",
            "progression_rules.advancement_criteria.stage_1_to_2",
            "progression_rules.advancement_criteria.stage_2_to_3",
        )
        for criterion in ("min_win_rate=0.0", "min_profit_factor=0.0")
    ),
)


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--sessions", type=int, default=30, help="length of the made-up market")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cycles and print the figures; return 1 where memory or open files grow."""
    options = parse_options(argv)
    use_one_thread()
    with tempfile.TemporaryDirectory(prefix="stagegate-memory-") as name:
        megabytes, files = measured(Path(name), options.cycles, options.sessions)
    slope = slope_per_100(megabytes)
    half = len(files) // 2
    grown = max(files[half:]) - min(files[half:])
    print(
        f"{options.cycles} cycles: {megabytes[0]:.1f} MB after the first, {megabytes[half]:.1f} half-way, "
        f"{megabytes[-1]:.1f} after the last\n"
        f"slope over the second half: {slope:+.2f} MB per 100 cycles (limit {SLOPE_LIMIT:g})\n"
        f"open files: {files[half]} half-way, {files[-1]} after the last, at most {grown} apart"
    )
    return int(slope > SLOPE_LIMIT or grown > 0)


def measured(folder: Path, cycles: int, sessions: int) -> tuple[list[float], list[int]]:
    """Return resident memory in MB and open files after each cycle."""
    raw = folder / "raw" / f"{SYMBOL}.csv"
    words = ["--market", "planted", "--sessions", str(sessions), "--seed", "7", "--out", str(raw)]
    _quietly(rl.__main__.main, ["synth", *words])
    megabytes, files = [], []
    begun = time.monotonic()
    for cycle in range(1, cycles + 1):
        _cycle(folder)
        gc.collect()
        megabytes.append(resident_megabytes())
        files.append(open_files())
        if cycle == 1 or cycle % 10 == 0:
            print(
                f"cycle {cycle:4d}   {megabytes[-1]:7.1f} MB   {files[-1]} files   "
                f"{time.monotonic() - begun:5.0f} s",
                file=sys.stderr,
                flush=True,
            )
    return megabytes, files


def _cycle(folder: Path) -> None:
    named = [
        word
        for option in ("raw-data", "processed-data", "models", "reports")
        for word in (f"--{option}-dir", str(folder / option.split("-")[0]))
    ]
    settings = [word for setting in SMALL for word in ("--set", setting)]
    _quietly(run_training.main, ["--symbols", SYMBOL, *named, *settings])
    report = folder / "reports" / "report.txt"
    _quietly(run_backtest.main, ["--symbols", SYMBOL, *named, "--report-file", str(report)])
    assert report.is_file(), "the backtest has to have written its report"
    for name in ("processed", "models", "reports"):
        shutil.rmtree(folder / name)


def _quietly(work: Callable[[list[str]], int], arguments: list[str]) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = work(arguments)
    if code:
        raise RuntimeError(f"{' '.join(arguments)} ended with {code}:\n{said.getvalue()}")


def resident_megabytes() -> float:
    """Return the memory of this process that lies in RAM, MB of 1e6 bytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_files() -> int:
    """Return how many files this process holds open (Linux)."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def slope_per_100(megabytes: Sequence[float]) -> float:
    """Return the rise of a least-squares line through the second half, MB per 100 cycles; nan for fewer than two."""
    late = np.asarray(megabytes[len(megabytes) // 2 :], dtype=np.float64)
    if len(late) < 2:
        return float("nan")
    return 100.0 * float(np.polyfit(np.arange(len(late)), late, 1)[0])


if __name__ == "__main__":
    sys.exit(main())
