"""What a report's page says, read back without the code that wrote it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "br", "img", "input", "hr", "wbr", "path", "use"}
SCALES = {
    "percent": 100.0, "percent0": 100.0, "percent2": 100.0, "change": 100.0, "change2": 100.0,
    "bp": 1e4, "bp_change": 1e4, "bp4": 1e4,
}  # fmt: skip
"""By how much a form multiplies what the report holds; every other form by 1."""


@dataclass
class Figure:
    """One value shown on a page."""

    at: str
    form: str
    text: str = ""


@dataclass
class Page(HTMLParser):
    """Figures, plain text, links and tables of a page."""

    figures: list[Figure] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    loose_numbers: list[str] = field(default_factory=list)
    """Right-aligned cells, which hold numbers, without a mark of where they stand in the report."""
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self._figure: Figure | None = None
        self._depth = 0
        self._table: dict[str, Any] | None = None
        self._cell: list[str] | None = None
        self._marked = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.tags.append(tag)
        for name in ("href", "src", "xlink:href", "action", "data"):
            if known.get(name):
                self.links.append(str(known[name]))
        if "data-at" in known:
            self._figure = Figure(str(known["data-at"]), str(known["data-as"]))
            self._depth = len(self._open)
            self._marked = True
        if tag == "table":
            self._table = {"rows": known.get("data-rows"), "keys": [], "row": -1, "column": -1}
        if tag == "th" and self._table is not None and "data-key" in known:
            self._table["keys"].append((known["data-key"], known["data-as"]))
        if tag == "tr" and self._table is not None and self._table["keys"] and self._in("tbody"):
            self._table["row"] += 1
            self._table["column"] = -1
        if tag == "td" and self._table is not None:
            self._table["column"] += 1
            self._cell, self._marked = [], False
        if tag not in VOID:
            self._open.append((tag, known))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("href", "src", "xlink:href") and value]

    def handle_endtag(self, tag: str) -> None:
        while self._open:
            name, known = self._open.pop()
            if self._figure is not None and len(self._open) == self._depth:
                self.figures.append(self._figure)
                self._figure = None
            if name == "td" and self._table is not None and self._cell is not None:
                self._close_cell(known)
            if name == "table":
                self._table = None
            if name == tag:
                break

    def _close_cell(self, known: dict[str, str | None]) -> None:
        table, text = self._table, "".join(self._cell or [])
        assert table is not None
        if table["rows"]:
            key, form = table["keys"][table["column"]]
            self.figures.append(Figure(f"{table['rows']}/{table['row']}/{key}", form, text))
        elif known.get("class") == "r" and re.search(r"\d", text) and not self._marked:
            self.loose_numbers.append(text)
        self._cell = None

    def handle_data(self, data: str) -> None:
        if self._in("script") or self._in("style"):
            return
        self.text += data
        if self._figure is not None:
            self._figure.text += data
        if self._cell is not None:
            self._cell.append(data)

    def _in(self, tag: str) -> bool:
        return any(name == tag for name, _ in self._open)


def read_page(html: str) -> Page:
    """Return what a page shows."""
    page = Page()
    page.feed(html)
    page.close()
    return page


def value_at(report: Any, place: str) -> Any:
    """Return the value at a path of keys and places such as `stages/0/verdict`."""
    for part in place.split("/"):
        report = report[int(part)] if isinstance(report, list) else report.get(part)
        if report is None:
            return None
    return report


def disagreement(figure: Figure, report: Any) -> str | None:
    """Return how a figure differs from the report it comes from; None where it is that value, rounded."""
    value = value_at(report, figure.at)
    if value is None:
        return (
            None if re.fullmatch(r"–[a-z]+", figure.text) else f"{figure.at}: null, shown as {figure.text!r}"
        )
    if isinstance(value, str | bool):
        shown = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
        return None if figure.text == shown else f"{figure.at}: {value!r}, shown as {figure.text!r}"
    found = re.fullmatch(
        r"([+−]?)([\d,]+)(?:\.(\d+))?(?:e([+−]\d+))?( %)?", figure.text.replace("\N{NO-BREAK SPACE}", " ")
    )
    if not found:
        return f"{figure.at}: {value!r}, shown as {figure.text!r}"
    sign, digits, decimals, exponent, percent = found.groups()
    power = int(exponent.replace("−", "-")) if exponent else 0
    number = float(f"{'-' if sign == '−' else ''}{digits.replace(',', '')}.{decimals or 0}") * 10.0**power
    wanted = SCALES.get(figure.form, 1.0) * value
    if (percent is not None) != figure.form.startswith(("percent", "change")):
        return f"{figure.at}: {figure.form} has to say its unit, but is {figure.text!r}"
    last_digit = 10.0 ** (power - len(decimals or ""))
    # A count is exact; the mean of counts is rounded.
    is_count = figure.form == "whole" and value == int(value)
    room = 0.0 if is_count else 0.5000001 * last_digit
    return (
        None if abs(number - wanted) <= room + 1e-12 else f"{figure.at}: {wanted!r}, shown as {figure.text!r}"
    )
