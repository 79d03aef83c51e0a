"""What a person (or a pipe) sees while a command runs: results on stdout, progress and warnings on stderr."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import threading
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from tqdm import tqdm

from rl.common.errors import StagegateError, StorageError
from rl.common.printable import printable
from rl.common.runlog import EVENTS, LineFile, RunLog
from rl.reporting.console_lines import clock, coloured, gate_lines, wrapped
from rl.reporting.metrics_table import MetricsTable
from rl.stages.gates import Verdict

PLAIN_LINE_SECONDS = 30.0
"""Without a bar, a line says this often how far a stage is."""

TEXT_LOG = "run.log"
"""Everything the screen showed, or would have shown with -v, in the folder of the run's events."""

NARROWEST, PLAIN_WIDTH, WIDEST = 60, 100, 140


@dataclass(frozen=True, kw_only=True)
class Look:
    """How lines look on this screen, or in this pipe."""

    width: int = PLAIN_WIDTH
    """Columns of a line."""
    wraps: bool = False
    """True for a terminal: sentences are broken there; in a pipe they stay lines that can be searched."""
    colour: bool = False
    verbose: bool = False
    """True to show every check, too."""


def look_of(stream: TextIO, *, no_color: bool = False, verbose: bool = False) -> Look:
    """Return how lines look on a stream.

    Colour only on a terminal that has it, and neither with --no-color nor where the environment has a NO_COLOR that is
    not empty (https://no-color.org).
    """
    is_terminal = stream.isatty()
    columns = shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns if is_terminal else PLAIN_WIDTH
    wants_none = no_color or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return Look(
        width=min(max(columns, NARROWEST), WIDEST),
        wraps=is_terminal,
        colour=is_terminal and not wants_none,
        verbose=verbose,
    )


class Console:
    """Says things once: as text, as JSON lines, or not at all; every event and every line also goes to a file."""

    def __init__(self, log: RunLog, *, as_json: bool, quiet: bool, look: Look | None = None) -> None:
        self._log = log
        self._as_json = as_json
        self._quiet = quiet
        self._text: LineFile | None = LineFile(log.path.with_name(TEXT_LOG))
        self._began = time.monotonic()
        self.look = look or Look()
        self.problems: dict[str, StagegateError] = {}
        """What went wrong, by symbol; decides the exit code."""
        self.warnings: list[str] = []
        """Everything that was warned of, to be said again in the end."""

    @property
    def text_log(self) -> str:
        """Where everything that was said can be read again."""
        return str(self._log.path.with_name(TEXT_LOG))

    def seconds(self) -> float:
        """Return for how long this has been going on."""
        return time.monotonic() - self._began

    def event(self, name: str, **fields: Any) -> None:
        """Record an event, and print it where JSON was asked for."""
        line = self._log.event(name, **fields)
        if self._as_json:
            _write(sys.stdout, printable(line))

    def say(self, text: str) -> None:
        """Print a line of the result."""
        self._note("INFO", text)
        if not self._quiet:
            self._show(text)

    def detail(self, text: str) -> None:
        """Print what only -v shows."""
        self._note("DEBUG", text)
        if self.look.verbose and not self._quiet:
            self._show(text)

    def result(self, text: str, *, may_wrap: bool = True) -> None:
        """Print what the command was for, even with --quiet; a command to be copied stays one line."""
        self._note("INFO", text)
        self._show(text, may_wrap=may_wrap)

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
        self.warnings.append(text)
        self.remark(text)

    def remark(self, text: str) -> None:
        """Print something on stderr that is no warning, or was said as one before."""
        _write(sys.stderr, coloured(printable(text)) if self._colours(sys.stderr) else printable(text))
        self._note("WARNING", text)

    def close(self) -> None:
        """Close the text log."""
        if self._text is not None:
            self._text.close()
            self._text = None

    def _show(self, text: str, *, may_wrap: bool = True) -> None:
        # With --json, stdout is for programs; whoever watches reads the other stream.
        stream = sys.stderr if self._as_json else sys.stdout
        text = printable(text)
        if self.look.wraps and may_wrap:
            text = wrapped(text, self.look.width)
        _write(stream, coloured(text) if self._colours(stream) else text)

    def _colours(self, stream: TextIO) -> bool:
        return self.look.colour and stream.isatty()

    def _note(self, level: str, text: str) -> None:
        """Write a line into the text log; a disk that refuses costs that file, and no run."""
        if self._text is None or not text:
            return
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            self._text.append("\n".join(f"{at} {level:<7} {line}" for line in printable(text).split("\n")))
        except StorageError as unwritten:
            self.close()
            _write(sys.stderr, f"warning: {unwritten.args[0]}\n  The rest of that log is not written.")


def _write(stream: TextIO, text: str) -> None:
    """Write whole lines at once: those of workers side by side must not run into each other."""
    stream.write(text + "\n")
    stream.flush()


@contextmanager
def console_of(options: argparse.Namespace, kind: str) -> Generator[Console]:
    """Open the console of a command that is no training; its log gets a folder of its own, `<time>-<kind>`."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    look = look_of(sys.stderr if options.json else sys.stdout, no_color=options.no_color)
    with (
        RunLog(options.reports_dir / "runs" / f"{stamp}-{kind}" / EVENTS) as log,
        closing(Console(log, as_json=options.json, quiet=options.quiet, look=look)) as console,
    ):
        yield console


class TrainingListener:
    """Shows a sequence: a bar on a terminal, plain lines elsewhere, the gate's figures after each stage."""

    def __init__(
        self, console: Console, *, bars: bool, named: bool = False, metrics: MetricsTable | None = None
    ) -> None:
        """Begin to listen.

        Args:
            console: Where lines go.
            bars: Show a bar that moves.
            named: Put the symbol into every line: those of several come mixed.
            metrics: Table that gets a row for every update.
        """
        self._console = console
        self._with_bars = bars
        self._named = named
        self._metrics = metrics
        self._progress: _Bar | _PlainProgress | None = None
        self._attempt = 0
        self._checked: Any = None

    def stage_started(
        self, symbol: str, stage: str, total: int, unit: str, why: str, attempt: int = 1
    ) -> None:
        """A stage, or another attempt at it, begins."""
        self.close()
        self._attempt, self._checked = attempt, None
        self._console.event(
            "stage_started", symbol=symbol, stage=stage, total=total, unit=unit, why=why, attempt=attempt
        )
        self._console.detail(f"{self._label(symbol)}{stage} begins: {why}")
        label = f"{self._label(symbol)}{stage:<5}"
        if self._with_bars:
            self._progress = _Bar(label, total, unit)
        else:
            self._progress = _PlainProgress(self._console, label, total, unit)

    def progressed(self, symbol: str, stage: str, figures: dict[str, Any]) -> None:
        """One update was done."""
        done = int(figures.get("episodes_this_call", figures.get("iterations_this_call", 0)))
        self._console.event("progress", symbol=symbol, stage=stage, attempt=self._attempt, **figures)
        if self._metrics is not None:
            self._metrics.add(symbol, stage, self._attempt, figures)
        check = figures.get("validation") or figures.get("meta_validation")
        if check is not None and check != self._checked:
            self._checked = check
            self._console.detail(f"{self._label(symbol)}{stage} {done} done   {_short(figures)}")
        if self._progress is not None:
            self._progress.update(done, _short(figures))

    def judged(
        self,
        symbol: str,
        stage: str,
        verdict: Verdict,
        seconds: float,
        cpu_seconds: float,
        attempts: int = 1,
    ) -> None:
        """A stage is over."""
        self.close()
        self._console.event(
            "stage_judged",
            symbol=symbol,
            stage=stage,
            outcome=verdict.outcome,
            wall_seconds=seconds,
            cpu_seconds=cpu_seconds,
            attempts=attempts,
            verdict=verdict.to_dict(),
        )
        lines = gate_lines(
            stage,
            verdict,
            seconds=seconds,
            attempts=attempts,
            width=self._console.look.width,
            symbol=symbol if self._named else "",
        )
        self._console.say("\n".join(lines))
        told = [f"{self._label(symbol)}{stage} took {cpu_seconds:.1f} s of processor time", *verdict.lines()]
        self._console.detail("\n      ".join(told))

    def said(self, symbol: str, text: str) -> None:
        """Something else worth a line."""
        self._console.event("note", symbol=symbol, text=text)
        if self._progress is not None:
            self._progress.make_room()
        self._console.say(f"  {symbol}: {text}" if self._named else f"  {text}")

    def close(self) -> None:
        """End the bar, or the lines now and then, of the stage at hand."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None

    def _label(self, symbol: str) -> str:
        return f"  {symbol} " if self._named else "  "


class _Bar:
    """A bar on stderr; it is gone when the stage is over."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.bar: tqdm = tqdm(
            total=total,
            desc=printable(label),
            file=sys.stderr,
            leave=False,
            dynamic_ncols=True,
            ascii=" #" if (sys.stderr.encoding or "").lower().replace("-", "") != "utf8" else None,
            bar_format="{desc} {bar:20} {n_fmt}/{total_fmt} " + _unit(unit) + "  eta {remaining}{postfix}",
        )

    def update(self, done: int, figures: str) -> None:
        self.bar.set_postfix_str(
            "trained; judging it" if done >= (self.bar.total or 0) else figures, refresh=False
        )
        self.bar.update(done - self.bar.n)
        if done >= (self.bar.total or 0):
            self.bar.refresh()

    def make_room(self) -> None:
        """Take the bar from the screen for a line; the next update brings it back."""
        self.bar.clear()

    def close(self) -> None:
        self.bar.close()


class _PlainProgress:
    """A line now and then, from a thread of its own: judging a stage takes longer than training it at times."""

    def __init__(self, console: Console, label: str, total: int, unit: str) -> None:
        self._console = console
        self._label, self._total, self._unit = label, total, unit
        self._done, self._figures = 0, ""
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._speak, daemon=True)
        self._thread.start()

    def update(self, done: int, figures: str) -> None:
        self._done, self._figures = done, figures

    def make_room(self) -> None:
        """Lines need no room."""

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def line(self, now: float) -> str:
        """Return how far the stage is."""
        done, seconds = self._done, now - self._began
        if done >= self._total:
            so_far = f"trained; judging it ({clock(seconds)} so far)"
            return f"{self._label} {done}/{self._total} {_unit(self._unit)}   {so_far}"
        if not done:
            return f"{self._label} 0/{self._total} {_unit(self._unit)}   {clock(seconds)} so far"
        left = clock(seconds / done * (self._total - done))
        figures = f"   {self._figures}" if self._figures else ""
        return f"{self._label} {done}/{self._total} {_unit(self._unit)}{figures}   eta {left}"

    def _speak(self) -> None:
        while not self._over.wait(PLAIN_LINE_SECONDS):
            self._console.say(self.line(time.monotonic()))


def _unit(unit: str) -> str:
    return {"episodes": "ep", "iterations": "it"}.get(unit, unit)


def _short(figures: dict[str, Any]) -> str:
    """Return the few figures worth a place beside a bar."""
    parts = []
    if (rate := figures.get("steps_per_second")) is not None:
        parts.append(f"{rate / 1000:.1f}k steps/s")
    validation = figures.get("validation") or {}
    if (win := validation.get("win_rate")) is not None:
        parts.append(f"val win {win:.1%}")
    if (factor := validation.get("profit_factor")) is not None:
        parts.append(f"PF {factor:.2f}")
    if (trades := validation.get("trades")) is not None:
        parts.append(f"{trades:,} trades")
    if (reward := figures.get("query_reward")) is not None:
        parts.append(f"query reward {reward:+.4f}")
    return "  ".join(parts)
