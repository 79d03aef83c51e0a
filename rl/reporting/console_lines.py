"""Lines of the console while a run goes on: header, windows, gates and the table at the end, at any width."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import wrap

from rl.market.checks import counted
from rl.reporting.tables import number, percent, table_lines, whole
from rl.stages.gates import CriterionResult, Verdict
from rl.stages.symbol_data import SymbolData

WINDOWS = ("train", "validation", "promotion", "test")

ONE_LINE_WINDOWS = 128
"""From this width on a window's first and last day stand beside each other."""

_SHARES = ("win_rate", "max_drawdown")
_COUNTS = ("trades", "sessions", "episodes", "query_windows")


def clock(seconds: float) -> str:
    """Return a duration as 0:07, 11:04 or 2:00:59."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def wrapped(text: str, width: int) -> str:
    """Return text with every line that is too long broken at spaces, its rest indented two further.

    Words are never broken: a path or a command on a line of its own can still be copied.
    """
    found = []
    for line in text.split("\n"):
        if len(line) <= width:
            found.append(line)
            continue
        indent = line[: len(line) - len(line.lstrip())]
        found += wrap(
            line.lstrip(),
            width,
            initial_indent=indent,
            subsequent_indent=indent + "  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(found)


def joined(pieces: Sequence[str], width: int, *, rest: str = "") -> list[str]:
    """Return pieces side by side, three spaces apart, on as few lines of this width as hold them whole.

    Args:
        pieces: None of them is broken, unless it is longer than a line.
        width: Of a line.
        rest: How every line but the first begins.
    """
    lines, line, is_empty = [], "", True
    for piece in pieces:
        if not is_empty and len(line) + 3 + len(piece) > width:
            lines.append(line)
            line, is_empty = rest, True
        line += piece if is_empty else f"   {piece}"
        is_empty = False
    return [*lines, line]


def windows_table(symbols: Sequence[SymbolData], width: int) -> list[str]:
    """Return the first and last day of every window of every symbol."""
    together = " .. " if width >= ONE_LINE_WINDOWS else "\n"
    rows = [
        [
            data.symbol,
            whole(len(data.bars)),
            *(together.join(label[:10] for label in data.dates(name)) for name in WINDOWS),
            str(len(data.feature_names)),
        ]
        for data in symbols
    ]
    return table_lines(["symbol", "rows", *WINDOWS, "features"], rows, width=width, unbroken=True)


def criterion_text(result: CriterionResult) -> str:
    """Return a figure with its interval and what was asked of it, and whether that was missed."""
    name, value = result.name, result.value
    words = name.replace("_", " ")
    kept = "need" if result.direction == "at least" else "at most"
    missed = "" if result.met else ", missed"
    if name in _COUNTS:
        return f"{whole(value)} {words} ({kept} {whole(result.threshold)}{missed})"
    threshold = f"{100 * result.threshold:g} %" if name in _SHARES else f"{result.threshold:.4g}"
    asked = f"({kept} {threshold}{missed})"
    if value is None:
        return f"{words} not computed {asked}"
    interval = ""
    if result.lower is not None or result.upper is not None:
        interval = f" [{_figure(name, result.lower, unit=False)}, {_figure(name, result.upper, unit=False)}]"
    unit = " bp/bar" if result.note.startswith("bp of log growth per bar") else ""
    return f"{words} {_figure(name, value)}{interval}{unit} {asked}"


def _figure(name: str, value: float | None, *, unit: bool = True) -> str:
    if value is None:
        return "-"
    if name in _SHARES:
        shown = percent(value)
        return shown if unit else shown.removesuffix(" %")
    if name == "profit_factor":
        return number(value)
    return f"{value:.3g}"


def gate_lines(
    stage: str, verdict: Verdict, *, seconds: float, attempts: int, width: int, symbol: str = ""
) -> list[str]:
    """Return what a stage came to: its gate's verdict, every figure beside its threshold, the looks counted.

    Args:
        stage: ppo, moe or maml.
        verdict: The gate's.
        seconds: Wall time of the stage.
        attempts: How often the stage was trained and judged in this run.
        width: Of a line.
        symbol: Put before the stage where the lines of several symbols come mixed.
    """
    label = f"{symbol} {stage}" if symbol else stage
    head = f"  {label:<5} done in {clock(seconds)}   gate {verdict.outcome}"
    indent = " " * min(len(f"  {label:<5} "), 12)
    looks = f"look {verdict.attempt} at this window: alpha {verdict.alpha_used:.3g}"
    tried = f"{counted(attempts, 'attempt')}, {looks}"
    criteria = [criterion_text(result) for result in verdict.criteria]
    lines = joined([head, *criteria, tried], width, rest=indent)
    said = verdict.readable_reasons()
    if nulls := verdict.context.get("null_bank"):
        told = (f"{policy.replace('_', '-')} {outcome}" for policy, outcome in nulls.items())
        said.append(f"null bank: {', '.join(told)}")
    if verdict.passed and (caution := verdict.context.get("null_bank_caution")):
        said.append(caution)
    for sentence in said:
        lines += wrapped(indent + sentence, width).split("\n")
    return lines


_OUTCOMES = re.compile(r"\b(PASS|PROMOTED|FAIL|INCONCLUSIVE|UNPROVEN|missed|warning|error)\b")
_COLOURS = {"PASS": 32, "PROMOTED": 32, "FAIL": 31, "missed": 31, "error": 31}
_YELLOW = 33


def coloured(text: str) -> str:
    """Return text with its verdicts in colour; the words say the same without."""
    return _OUTCOMES.sub(lambda found: f"\x1b[{_COLOURS.get(found[0], _YELLOW)}m{found[0]}\x1b[0m", text)
