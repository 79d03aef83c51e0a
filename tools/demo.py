"""The whole sequence on three made-up markets: one with a planted edge, one with regimes, one pure noise.

Runs the same commands a user runs, prints each, and ends with the gate table and the path of the report.
Everything goes into data/demo, models/demo and reports/demo. Where nothing has changed since the last demo, its results
are shown again and nothing is run.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
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
STAMP = Path("reports/demo/made_of.txt")
"""Says of which code, settings and packages the demo's results are."""
FOLDERS = [
    "--raw-data-dir", str(RAW),
    "--processed-data-dir", "data/demo/processed",
    "--models-dir", "models/demo",
    "--reports-dir", "reports/demo",
]  # fmt: skip


def main() -> int:
    """Make the markets, train, backtest; return the first exit code that is not 0."""
    started = time.monotonic()
    made_of = hash_of_inputs(ROOT)
    if is_up_to_date(ROOT, made_of):
        show("nothing has changed since: shown again; to run it anew, delete reports/demo")
        return 0
    (ROOT / STAMP).unlink(missing_ok=True)
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
    (ROOT / STAMP).write_text(f"{made_of}\n", encoding="utf-8")
    show(f"whole demo: {time.monotonic() - started:.0f} s")
    return 0


def show(how: str) -> None:
    """Print the gate table and where the reports lie."""
    print("\n" + "\n".join(gate_table()))
    print(
        "\nThe markets are made up and all say SYNTHETIC: planted has an edge, regimes too, noise has none."
    )
    print(f"Report: {REPORT}   In a browser: {REPORT.with_suffix('.html')}   ({how})")


def hash_of_inputs(root: Path) -> str:
    """Return a hash of all that the demo's results follow from."""
    digest = hashlib.sha256(sys.version.encode())
    for path in inputs(root):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def inputs(root: Path) -> Iterator[Path]:
    """Yield code, settings and the list of packages."""
    for folder, kind in (
        ("rl", "*.py"),
        ("rl", "*.html"),
        ("rl", "*.css"),
        ("config", "*.yaml"),
        ("plans", "*.yaml"),
    ):
        yield from sorted((root / folder).rglob(kind))
    for name in ("run_training.py", "run_backtest.py", "tools/demo.py", "constraints.txt"):
        yield root / name


def is_up_to_date(root: Path, made_of: str) -> bool:
    """Return True where the last demo was of the same inputs and its results are still there."""
    stamp = root / STAMP
    if not stamp.is_file() or stamp.read_text(encoding="utf-8").strip() != made_of:
        return False
    reports = [root / REPORT.with_suffix(ending) for ending in (".txt", ".json", ".html")]
    models = [list((root / "models" / "demo").glob(f"{symbol}_*.pth")) for symbol in MARKETS]
    return all(path.is_file() for path in reports) and all(models) and any(training_reports(root))


def training_reports(root: Path) -> list[Path]:
    """Return the text reports of the demo's trainings."""
    return sorted((root / "reports/demo/runs").glob("*/training_report.txt"))


def gate_table() -> list[str]:
    """Return the headline and the table of the newest training report."""
    newest = training_reports(ROOT)[-1]
    lines = newest.read_text(encoding="utf-8").splitlines()
    return lines[2 : lines.index("", 4)]


def run(*words: str) -> int:
    """Print and run one command with this interpreter; return its exit code."""
    print(f"\n$ python {' '.join(words)}", flush=True)
    return subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
