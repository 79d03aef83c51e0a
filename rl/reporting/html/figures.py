"""Figures of a JSON report as HTML: each says where in the report it stands, or why it is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from rl.reporting.tables import change, number, percent, probability, whole

MISSING = "–"

_TYPESET = str.maketrans({"-": "−", " ": "\N{NO-BREAK SPACE}"})


def _points(value: float, digits: int, sign: str) -> str:
    return f"{1e4 * value:{sign},.{digits}f}"


FORMS = {
    "text": str,
    "whole": whole,
    "number": number,
    "number1": lambda value: number(value, 1),
    "number0": lambda value: number(value, 0),
    "number3": lambda value: number(value, 3),
    "figures4": lambda value: number(value, 0) if abs(value) >= 1000 else f"{value:.4g}",
    "percent": percent,
    "percent0": lambda value: percent(value, 0),
    "percent2": lambda value: percent(value, 2),
    "change": change,
    "change2": lambda value: change(value, 2),
    "bp": lambda value: _points(value, 2, ""),
    "bp_change": lambda value: _points(value, 2, "+"),
    "bp4": lambda value: _points(value, 4, "+"),
    "probability": probability,
}
"""Ways to write a value. Reports hold fractions: `percent` multiplies by 100 and `bp` (basis points) by 10,000."""

_GENERAL = "not measured"


@dataclass(frozen=True)
class Column:
    """A column of a table made from a list of records."""

    key: str
    heading: str
    form: str = "text"


class Figures:
    """Values of one JSON report, written for a page.

    A place is a path such as `metrics/sharpe_ratio`. Every value is wrapped in an element that names place and form, so
    that a test, or a reader with a program, can compare page and report number by number. What cannot be computed is a
    dash with a letter; `reasons` explains the letters used since it was called last.
    """

    def __init__(self, report: dict[str, Any]) -> None:
        self._report = report
        self._reasons: dict[str, str] = {}

    def value(self, place: str) -> Any:
        """Return the value at a place, None where a part of the path does not exist."""
        found: Any = self._report
        for part in place.split("/"):
            if isinstance(found, dict):
                found = found.get(part)
            elif isinstance(found, list | tuple) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                return None
        return found

    def __call__(self, place: str, form: str = "text", reason: str | None = None) -> Markup:
        """Return the value at a place as HTML; `reason` says why it is missing where the report does not."""
        value = self.value(place)
        parent, _, key = place.rpartition("/")
        shown = self._missing(parent, key, reason) if value is None else written(value, form)
        return Markup('<span data-at="{}" data-as="{}">{}</span>').format(place, form, shown)

    def _missing(self, parent: str, key: str, reason: str | None) -> Markup:
        reasons = self.value(f"{parent}/not_computed") if parent else self._report.get("not_computed")
        told = (reasons or {}).get(key) or reason or _GENERAL
        letter = self._reasons.setdefault(told, _letter(len(self._reasons)))
        return Markup('<span class="none">{}<sup>{}</sup></span>').format(MISSING, letter)

    def reasons(self) -> Markup:
        """Return why figures since the last call are missing, as a paragraph; nothing where none is."""
        if not self._reasons:
            return Markup("")
        told = Markup("; ").join(
            Markup("<sup>{}</sup> {}").format(letter, text) for text, letter in self._reasons.items()
        )
        self._reasons = {}
        return Markup('<p class="reasons">{} no figure: {}.</p>').format(MISSING, told)

    def table(self, place: str, columns: Sequence[Column | Sequence[str]], caption: str) -> Markup:
        """Return a list of records as a table that can be sorted; the first column names the row."""
        rows = self.value(place) or []
        heads = [column if isinstance(column, Column) else Column(*column) for column in columns]
        head = Markup("").join(
            Markup('<th scope="col" data-key="{}" data-as="{}"{}>{}</th>').format(
                column.key, column.form, _right(column), column.heading
            )
            for column in heads
        )
        body = Markup("\n").join(
            self._row(f"{place}/{number}", row, heads) for number, row in enumerate(rows)
        )
        return Markup(
            '<div class="scroll" tabindex="0" role="region" aria-label="{}"><table class="sortable" data-rows="{}">'
            "<caption><span>{}</span></caption><thead><tr>{}</tr></thead><tbody>\n{}\n</tbody></table></div>"
        ).format(caption, place, caption, head, body)

    def _row(self, place: str, row: dict[str, Any], columns: Sequence[Column]) -> Markup:
        cells = []
        for column in columns:
            value = row.get(column.key)
            shown = self._missing(place, column.key, None) if value is None else written(value, column.form)
            cells.append(Markup("<td{}>{}</td>").format(_right(column), shown))
        return Markup("<tr>{}</tr>").format(Markup("").join(cells))


def written(value: Any, form: str) -> str:
    """Return a value as text; numbers have a real minus sign and are not torn from their unit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = FORMS[form](value)
    return text if form == "text" else text.translate(_TYPESET)


def _right(column: Column) -> Markup:
    return Markup("") if column.form == "text" else Markup(' class="r"')


def _letter(place: int) -> str:
    """Return a, b, … z, aa, ab, …"""
    first, last = divmod(place, 26)
    return (_letter(first - 1) if first else "") + chr(ord("a") + last)
