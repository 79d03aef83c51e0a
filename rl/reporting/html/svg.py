"""matplotlib figures as SVG inside a page: the same bytes for the same figure, colours from the page's own style."""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.figure import Figure

COLOURS = {
    "ink": "#fe0001",
    "muted": "#fe0002",
    "grid": "#fe0003",
    "strategy": "#fe0004",
    "hold": "#fe0005",
    "gain": "#fe0006",
    "loss": "#fe0007",
    "third": "#fe0008",
    "shade": "#fe0009",
    "paper": "#fe0010",
}
"""What charts draw with. None of these is a colour anybody sees: each becomes the variable of that name in the page's
style, so that one chart serves light and dark screens and paper."""

WIDE, NARROW = 10.0, 5.0
"""Widths in inches: one chart for desktop and paper, one for a phone, where the first one's text could not be read."""

SMALL = 5.2
"""Width of charts that stand side by side on a desktop and fill a phone."""

_FONT = "DejaVu Sans"
_STYLE: Any = {
    "font.family": _FONT,
    "font.size": 10,
    "svg.fonttype": "none",
    "path.simplify": False,
    # A dollar sign in a name is no formula.
    "text.parse_math": False,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.7,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.4,
    "hatch.linewidth": 0.6,
}


def drawn(name: str, title: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> Markup:
    """Return a figure as an SVG element.

    Text stays text: it can be searched, read aloud, and takes a quarter of the bytes of drawn letters. Its sizes are
    measured in a wide font that comes with matplotlib, so other fonts fit as well.

    Args:
        name: Unlike that of every other chart of the page, which keeps the ids of the charts apart.
        title: What a screen reader says.
        size: Width and height in inches.
        draw: Fills the figure.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # A letter that the measuring font lacks is drawn by the reader's own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0.0)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return Markup(_slim(buffer.getvalue(), name, title))  # noqa: S704 - matplotlib escapes what it writes


_NUMBERS = re.compile(r"-?\d+\.\d+")
_VALUES = {code: f"var(--{role})" for role, code in COLOURS.items()}
_ANY_COLOUR = re.compile("|".join(_VALUES))


def _slim(text: str, name: str, title: str) -> str:
    """Return matplotlib's SVG without what a page does not need."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<style type="text/css">.*?</style>', "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    # Ids of groups repeat from chart to chart, and nothing refers to them; those of clips and markers stay.
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r' d="[^"]*"', lambda found: _packed(_rounded(found[0], 1)), text)
    text = re.sub(r' (?:x|y|width|height|transform)="[^"]*"', lambda found: _rounded(found[0], 2), text)
    text = re.sub(rf"'{_FONT}'(?:, sans-serif)?", "var(--font)", text)
    text = _ANY_COLOUR.sub(lambda found: _VALUES[found[0]], text)
    text = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', _opening(name, title), text, count=1)
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _opening(name: str, title: str) -> Callable[[re.Match[str]], str]:
    def opening(found: re.Match[str]) -> str:
        return (
            f'<svg role="img" aria-labelledby="{escape(name)}-title" viewBox="{found[1]}" '
            'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">\n'
            f'<title id="{escape(name)}-title">{escape(title)}</title>'
        )

    return opening


def _packed(path: str) -> str:
    """Return a path without the spaces and line ends around its letters."""
    return re.sub(r"\s*([MLCQzZ])\s*", r"\1", path)


def _rounded(text: str, digits: int) -> str:
    return _NUMBERS.sub(lambda found: f"{round(float(found[0]), digits):g}", text)


def thinned(values: np.ndarray, columns: int) -> np.ndarray:
    """Return places of a line that draw the same picture: of every pixel column the first, last, least and greatest.

    Nothing between them would be seen, and no extreme is lost (M4: Jugel et al. 2014, PVLDB 7(10), section 4.2).

    Args:
        values: The line, a value per bar. (n,)
        columns: Columns of pixels they are drawn into.

    Returns:
        Places in order, all of them for a line short enough. (k,)
    """
    n = len(values)
    if n <= 4 * columns:
        return np.arange(n)
    edges = np.linspace(0, n, columns + 1).astype(int)
    kept = {0, n - 1}
    for start, stop in itertools.pairwise(edges):
        part = values[start:stop]
        kept |= {int(start), int(stop) - 1, int(start + np.argmin(part)), int(start + np.argmax(part))}
    return np.array(sorted(kept))
