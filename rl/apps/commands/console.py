"""What a person (or a pipe) sees while a command runs: results on stdout, progress and log lines on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

from rl.common.errors import StagegateError, StorageError
from rl.common.printable import printable
from rl.common.runlog import RunLog
from rl.stages.gates import Verdict
from rl.stages.stage_model import STAGE_TITLES

PLAIN_LINE_SECONDS = 30.0
"""Without a terminal, one line of progress at most this often."""


def _write(stream: TextIO, line: str) -> None:
    """Write a line at once: those of workers side by side must not run into each other."""
    stream.write(printable(line) + "\n")
    stream.flush()


class Console:
    """Says things once: as text, as JSON lines, or not at all; every event also goes to the run log."""

    def __init__(self, log: RunLog, *, as_json: bool, quiet: bool) -> None:
        self._log = log
        self._as_json = as_json
        self._quiet = quiet
        self.problems: dict[str, StagegateError] = {}
        """What went wrong, by symbol; decides the exit code."""

    def event(self, name: str, **fields: Any) -> None:
        """Record an event, and print it where JSON was asked for."""
        line = self._log.event(name, **fields)
        if self._as_json:
            _write(sys.stdout, line)

    def say(self, text: str) -> None:
        """Print a line of the result."""
        if not self._as_json and not self._quiet:
            _write(sys.stdout, text)

    def result(self, text: str) -> None:
        """Print what the command was for, even with --quiet."""
        if not self._as_json:
            _write(sys.stdout, text)

    def problem(self, symbol: str, error: StagegateError) -> None:
        """Keep, record and print what went wrong with a symbol."""
        self.problems[symbol] = error
        text = str(error)
        self.warn(text if text.startswith(f"{symbol}:") else f"{symbol}: {text}")
        try:
            self.event("symbol_failed", symbol=symbol, kind=type(error).__name__, error=text)
        except StorageError as unwritten:
            # What failed may have been this disk; the other symbols still have to hear what became of them.
            self.warn(str(unwritten))

    def warn(self, text: str) -> None:
        """Print a warning or an error."""
        _write(sys.stderr, text)


class TrainingListener:
    """Shows a sequence: a bar on a terminal, plain lines elsewhere, the gate's figures after each stage."""

    def __init__(self, console: Console, *, bars: bool) -> None:
        self._console = console
        self._with_bars = bars
        self._bar: tqdm | None = None
        self._last_line = 0.0
        self._total = 0
        self._started = 0.0

    def stage_started(self, symbol: str, stage: str, total: int, unit: str, why: str) -> None:
        """A stage, or another attempt at it, begins."""
        self._close()
        self._console.event("stage_started", symbol=symbol, stage=stage, total=total, unit=unit, why=why)
        self._total, self._started, self._last_line = total, time.monotonic(), time.monotonic()
        if self._with_bars:
            self._bar = tqdm(
                total=total,
                desc=f"  {symbol} {stage} ({why})",
                unit=unit[:2],
                file=sys.stderr,
                leave=False,
                dynamic_ncols=True,
            )

    def progressed(self, symbol: str, stage: str, figures: dict[str, Any]) -> None:
        """One update was done."""
        done = int(figures.get("episodes_this_call", figures.get("iterations_this_call", 0)))
        self._console_log_only(symbol, stage, figures)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            self._bar.set_postfix_str(_short(figures))
            return
        now = time.monotonic()
        if now - self._last_line >= PLAIN_LINE_SECONDS:
            self._last_line = now
            rate = done / max(now - self._started, 1e-9)
            left = (self._total - done) / rate if rate > 0 else float("nan")
            self._console.say(
                f"  {symbol} {stage} {done}/{self._total} {_short(figures)} about {left:.0f} s left"
            )

    def judged(self, symbol: str, stage: str, verdict: Verdict, seconds: float, cpu_seconds: float) -> None:
        """A stage is over."""
        self._close()
        self._console.event(
            "stage_judged",
            symbol=symbol,
            stage=stage,
            outcome=verdict.outcome,
            wall_seconds=seconds,
            cpu_seconds=cpu_seconds,
            verdict=verdict.to_dict(),
        )
        self._console.say(
            f"  {symbol}: {STAGE_TITLES[stage]} done in {seconds:.1f} s ({cpu_seconds:.1f} s CPU)"
        )
        for line in verdict.lines():
            self._console.say("    " + line)

    def said(self, symbol: str, text: str) -> None:
        """Something else worth a line."""
        self._close()
        self._console.event("note", symbol=symbol, text=text)
        self._console.say(f"  {symbol}: {text}")

    def _console_log_only(self, symbol: str, stage: str, figures: dict[str, Any]) -> None:
        self._console.event("progress", symbol=symbol, stage=stage, **figures)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _short(figures: dict[str, Any]) -> str:
    """Return the few figures worth a place beside a bar."""
    parts = []
    if (rate := figures.get("steps_per_second")) is not None:
        parts.append(f"{rate / 1000:.0f}k steps/s")
    validation = figures.get("validation") or {}
    if (win := validation.get("win_rate")) is not None:
        parts.append(f"val win {win:.1%}")
    if (factor := validation.get("profit_factor")) is not None:
        parts.append(f"PF {factor:.2f}")
    if (reward := figures.get("query_reward")) is not None:
        parts.append(f"query reward {reward:+.4f}")
    return " ".join(parts)
