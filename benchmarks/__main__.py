"""Measure speed beside other libraries: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rl.common.threads import use_one_thread

NAMES = ("stepping", "training", "backtests", "growth", "processing", "start")


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure speed in turns with other libraries: one thread each, rates per second of "
        "processor time, medians over rounds with lowest and highest. Ratios are to a table's first row.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which ones; all if none is named: {', '.join(NAMES)}"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each table (default: 5)")
    parser.add_argument(
        "--quick", action="store_true", help="less work and 2 rounds: does it run, not how fast"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(NAMES)}")
    if options.rounds < 1:
        parser.error(f"--rounds has to be at least 1, but is {options.rounds}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen benchmarks, print a table each, and return 0."""
    options = parse_options(argv)
    use_one_thread()
    # backtesting.py shows a bar for every run; tqdm reads this while it is imported, by whomever.
    os.environ.setdefault("TQDM_DISABLE", "1")
    from benchmarks.comparisons import BENCHMARKS, QUICK, Sizes
    from benchmarks.measuring import measure, table
    from rl.common.atomic_files import write_json

    # torch has come in with the import above; the environment variables were set in time for the others.
    use_one_thread()
    sizes, rounds = (QUICK, 2) if options.quick else (Sizes(), options.rounds)
    about = conditions(rounds, is_quick=options.quick)
    print("\n".join(f"{key}: {value}" for key, value in about.items()))
    results: list[dict[str, Any]] = []
    for name in options.names or NAMES:
        for comparison in BENCHMARKS[name](sizes):
            rows = measure(comparison, rounds=rounds)
            print(f"\n{table(comparison, rows)}", flush=True)
            results.append(
                {
                    "benchmark": name,
                    "title": comparison.title,
                    "unit": comparison.unit,
                    "rows": [asdict(row) for row in rows],
                    "notes": list(comparison.notes),
                }
            )
    if options.json is not None:
        write_json(options.json, {"conditions": about, "results": results})
    return 0


def conditions(rounds: int, *, is_quick: bool) -> dict[str, str]:
    """Return what the numbers depend on besides the code."""
    from benchmarks.peers import versions

    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "machine": f"{processor()}, {os.cpu_count()} logical cores, {platform.system()} {platform.machine()}",
        "load when starting": f"{load} (above 1 per core others compete; ratios by processor time stand it)",
        "software": ", ".join([f"Python {platform.python_version()}", *versions()]),
        "measured": f"{rounds} rounds in turns, one thread"
        + (", QUICK: too little work to quote" if is_quick else ""),
    }


def processor() -> str:
    """Return the processor's name as the system states it."""
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown processor"


if __name__ == "__main__":
    sys.exit(main())
