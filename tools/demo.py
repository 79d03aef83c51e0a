"""The whole sequence on three made-up markets: one with a planted edge, one with regimes, one pure noise.

Runs the same commands a user runs, prints each, and ends with the gate table and the path of the report.
Everything goes into data/demo, models/demo and reports/demo.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RAW = Path("data/demo/raw")
MARKETS = {
    "SYN_planted_2": ("planted", 11),
    "SYN_regimes_2": ("momrev", 12),
    "SYN_noise_2": ("noise_garch", 13),
}
SESSIONS = 500
REPORT = Path("reports/demo/backtest_report.txt")
FOLDERS = [
    "--raw-data-dir", str(RAW),
    "--processed-data-dir", "data/demo/processed",
    "--models-dir", "models/demo",
    "--reports-dir", "reports/demo",
]  # fmt: skip


def main() -> int:
    """Make the markets, train, backtest; return the first exit code that is not 0."""
    started = time.monotonic()
    for symbol, (market, seed) in MARKETS.items():
        target = RAW / f"{symbol}.csv"
        if not (ROOT / target).exists():
            made = run(
                "-m", "rl", "synth", "--market", market, "--sessions", str(SESSIONS), "--seed", str(seed),
                "--out", str(target),
            )  # fmt: skip
            if made:
                return made
    trained = run("run_training.py", "--symbols", "all", "--profile", "quick", "--jobs", "2", *FOLDERS)
    # 5 says that a gate stopped a symbol: on pure noise that is the right answer.
    if trained not in (0, 5):
        return trained
    tested = run(
        "run_backtest.py", "--symbols", "all", "--process-data", "--quiet", *FOLDERS,
        "--report-file", str(REPORT), "--report-file", str(REPORT.with_suffix(".json")),
        "--report-file", str(REPORT.with_suffix(".html")),
    )  # fmt: skip
    if tested:
        return tested
    print("\n" + "\n".join(gate_table()))
    print(
        "\nThe markets are made up and all say SYNTHETIC: planted has an edge, regimes too, noise has none."
    )
    seconds = time.monotonic() - started
    print(f"Report: {REPORT}   In a browser: {REPORT.with_suffix('.html')}   (whole demo: {seconds:.0f} s)")
    return 0


def gate_table() -> list[str]:
    """Return the headline and the table of the newest training report."""
    newest = max((ROOT / "reports/demo/runs").glob("*/training_report.txt"))
    lines = newest.read_text(encoding="utf-8").splitlines()
    return lines[2 : lines.index("", 4)]


def run(*words: str) -> int:
    """Print and run one command with this interpreter; return its exit code."""
    print(f"\n$ python {' '.join(words)}", flush=True)
    return subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
