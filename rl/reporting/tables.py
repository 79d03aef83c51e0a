"""Plain-text tables and the way figures are written in them; percent and signs appear here and nowhere else."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rl.common.printable import printable

WIDTH = 110

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""How a cell begins that a spreadsheet would run."""

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")

SYNTHETIC_PREFIX = "SYN_"
"""How the symbols of made-up markets begin."""


def table_lines(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: int = 1,
    width: int = WIDTH,
    unbroken: bool = False,
) -> list[str]:
    """Return a table as lines of text without colour; the first `left` columns are left-aligned.

    Cells that do not fit are broken; with `unbroken`, those of the first column before all others.
    """
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(
            Text(printable(heading)),
            justify="left" if place < left else "right",
            overflow="fold",
            no_wrap=unbroken and place > 0,
        )
    for row in rows:
        # Text, not str: brackets in a name are no markup here.
        table.add_row(*(Text(printable(cell)) for cell in row))
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None, force_terminal=False).print(table)
    return [line.rstrip() for line in buffer.getvalue().splitlines() if line.strip()]


def csv_text(text: str) -> str:
    """Return text for a cell of a csv file that a spreadsheet takes for text, and never for a formula.

    One that begins with = + - @, a tab or a line's end gets an apostrophe before it; a plain number, such as a time
    before 1970 in seconds, stays one. A carriage return, which would end the row, and other unseen characters are
    written as their codes.
    """
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def percent(value: float | None, digits: int = 1) -> str:
    """Return a fraction as percent, or a dash."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def change(value: float | None, digits: int = 1) -> str:
    """Return a difference of fractions as percent with its sign, or a dash."""
    return "-" if value is None else f"{100 * value:+.{digits}f} %"


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with so many decimals and thousands marked, or a dash."""
    return "-" if value is None else f"{value:,.{digits}f}"


def whole(value: float | None) -> str:
    """Return a whole number with thousands marked, or a dash; a mean is rounded to the nearest."""
    return "-" if value is None else f"{round(value):,}"


def probability(value: float | None) -> str:
    """Return a probability with three significant digits, or a dash."""
    return "-" if value is None else f"{value:.3g}"
