"""Charts over the bars of a span: equity and drawdown, and the prices of a stretch with every entry and exit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rl.backtest.result import SymbolResult
from rl.market.bars import Bars, readable_label
from rl.reporting.html.svg import COLOURS, NARROW, WIDE, drawn, thinned

COLUMNS_PER_INCH = 32
"""Columns of pixels lines are thinned to."""


class Drawing(Protocol):
    """Fills a figure that is drawn twice."""

    def __call__(self, figure: Figure, *, is_narrow: bool) -> None:
        """Draw; the narrow one is for phones."""


def both_widths(name: str, title: str, heights: tuple[float, float], draw: Drawing) -> Markup:
    """Return a chart for wide screens and paper and one for phones; the page's style shows one of them.

    Args:
        name: Unlike that of every other chart of the page.
        title: What a screen reader says.
        heights: Of the wide and the narrow one, in inches.
        draw: Fills the figure; told whether it is the narrow one.
    """
    wide = drawn(f"{name}-wide", title, (WIDE, heights[0]), partial(draw, is_narrow=False))
    narrow = drawn(f"{name}-narrow", title, (NARROW, heights[1]), partial(draw, is_narrow=True))
    return Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(wide, narrow)


def equity_chart(result: SymbolResult) -> Markup:
    """Return equity beside buy-and-hold and flat, windows shaded, over their drawdowns on the same bars."""
    capital, replay = result.replay.capital, result.replay
    own, held = 100 * (replay.equity / capital - 1), 100 * (result.held_equity / capital - 1)
    falls, held_falls = _drawdown(replay.equity), _drawdown(result.held_equity)

    def draw(figure: Figure, *, is_narrow: bool) -> None:
        columns = int((NARROW if is_narrow else WIDE) * COLUMNS_PER_INCH)
        top, low = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
        top.axhline(0.0, color=COLOURS["muted"], linewidth=1.0, linestyle=":", label="doing nothing")
        _line(top, held, columns, color=COLOURS["hold"], linestyle="--", linewidth=1.2, label="buy-and-hold")
        _line(top, own, columns, color=COLOURS["strategy"], linewidth=1.6, label="strategy")
        top.set_ylabel("change, %" if is_narrow else "change of capital, %")
        handles, labels = top.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside upper left", ncols=3, borderpad=0.1)
        places = thinned(falls, columns=columns)
        low.fill_between(places, falls[places], 0.0, color=COLOURS["loss"], alpha=0.25, linewidth=0)
        _line(low, falls, columns, color=COLOURS["loss"], linewidth=1.0)
        _line(low, held_falls, columns, color=COLOURS["hold"], linestyle="--", linewidth=1.0)
        low.set_ylabel("below peak, %")
        _shade_windows((top, low), result, is_narrow=is_narrow)
        _name_bars(low, result.bars, replay.start, replay.stop, 3 if is_narrow else 7)
        top.margins(x=0)

    title = (
        f"Equity of {result.symbol} beside buy-and-hold and doing nothing, in percent of the capital, and below it how "
        "far each stands under its peak"
    )
    return both_widths("equity", title, (4.3, 4.6), draw)


def _line(axis: Axes, values: np.ndarray, columns: int, **style: Any) -> None:
    places = thinned(values, columns=columns)
    axis.plot(places, values[places], **style)


def _drawdown(equity: np.ndarray) -> np.ndarray:
    return -100.0 * (1.0 - equity / np.maximum.accumulate(equity))


def _shade_windows(axes: Sequence[Axes], result: SymbolResult, *, is_narrow: bool) -> None:
    """Shade what training or choosing has seen, and name every window; the test window stays clear."""
    replay = result.replay
    inside = {}
    for name, window in result.background.get("windows", {}).items():
        first = max(window["first_row"], replay.start) - replay.start
        end = min(window["first_row"] + window["bars"], replay.stop) - replay.start
        if end > first:
            inside[name] = (first, end)
    for name, (first, end) in inside.items():
        strength = {"train": 0.28, "validation": 0.18, "promotion": 0.09}.get(name, 0.0)
        for axis in axes:
            if strength:
                axis.axvspan(first, end, color=COLOURS["shade"], alpha=strength, linewidth=0)
            if len(inside) > 1:
                axis.axvline(first, color=COLOURS["muted"], linewidth=0.8)
        if end - first > 0.07 * len(replay.equity) or len(inside) == 1:
            short = {"validation": "val.", "promotion": "prom."} if is_narrow else {}
            alone = (
                ": not seen in training or choosing" if name == "test" else ": seen in training or choosing"
            )
            seen = "" if len(inside) > 1 else alone
            axes[0].annotate(
                short.get(name, name) + seen,
                (first, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(4, -3),
                textcoords="offset points",
                va="top",
                fontsize=8.5,
                color=COLOURS["muted"],
            )


def _name_bars(axis: Axes, bars: Bars, start: int, stop: int, count: int) -> None:
    """Put dates under the bars: nights and weekends take no room, so ticks stand at bars, not at even times."""
    places = np.unique(np.linspace(0, stop - start - 1, count + 2).astype(int)[1:-1])
    labels = [readable_label(bars, start + int(place)) for place in places]
    days = [label[:10] for label in labels]
    if len(set(days)) < len(days):
        days = [label[5:16] if len(label) >= 16 else label for label in labels]
    axis.set_xticks(places, days)


_MARKS = {"long": "^", "short": "v"}


def price_chart(result: SymbolResult) -> Markup:
    """Return the closes of the chosen stretch with every entry and exit, and the position held under them."""
    bars, replay, stretch = result.bars, result.replay, result.stretch
    rows = slice(stretch.start, stretch.stop)
    first = stretch.start - replay.start
    held = replay.held[first : first + (stretch.stop - stretch.start)]

    def draw(figure: Figure, *, is_narrow: bool) -> None:
        top, low = figure.subplots(2, 1, sharex=True, height_ratios=[4.5, 1])
        count = stretch.stop - stretch.start
        along = np.arange(count)
        top.fill_between(
            along,
            bars.low[rows],
            bars.high[rows],
            color=COLOURS["shade"],
            alpha=0.3,
            linewidth=0,
            label="low to high",
        )
        top.plot(along, bars.close[rows], color=COLOURS["ink"], linewidth=0.9, label="close")
        # Trades that began or ended outside must not press the stretch together.
        lowest, highest = float(np.min(bars.low[rows])), float(np.max(bars.high[rows]))
        room = 0.06 * (highest - lowest) or 1.0
        top.set_ylim(lowest - room, highest + room)
        _mark_trades(top, result, 22 if is_narrow else 34)
        top.set_ylabel(f"price, {result.instrument['currency']}")
        handles, labels = top.get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside upper left",
            ncols=3 if is_narrow else 7,
            columnspacing=1.4,
            borderpad=0.1,
        )
        for side, colour in ((1, "strategy"), (-1, "hold")):
            low.broken_barh(
                _stays(np.sign(held) == side), (0, side), color=COLOURS[colour], alpha=0.55, linewidth=0
            )
        low.set_yticks([-1, 0, 1], ["short", "flat", "long"])
        low.set_ylim(-1.15, 1.15)
        low.grid(visible=False)
        _name_bars(low, bars, stretch.start, stretch.stop, 2 if is_narrow else 6)
        top.margins(x=0.01)

    count = stretch.stop - stretch.start
    title = f"Closes of {result.symbol} on {count} bars with entries and exits, and the position held"
    return both_widths("price", title, (4.2, 4.6), draw)


def _stays(is_there: np.ndarray) -> list[tuple[int, int]]:
    """Return first bar and length of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_there, [False]]).astype(np.int8)))
    return [(int(first), int(end - first)) for first, end in zip(edges[::2], edges[1::2], strict=True)]


def _mark_trades(axis: Axes, result: SymbolResult, size: float) -> None:
    trades, stretch = result.replay.trades, result.stretch
    inside = np.flatnonzero((trades.exit_bar >= stretch.start) & (trades.entry_bar < stretch.stop))
    for won, colour, style in ((True, COLOURS["gain"], "-"), (False, COLOURS["loss"], ":")):
        ways = [place for place in inside if (trades.net_pnl[place] > 0) == won]
        x = [[trades.entry_bar[p] - stretch.start, trades.exit_bar[p] - stretch.start, np.nan] for p in ways]
        y = [[trades.entry_price[p], trades.exit_price[p], np.nan] for p in ways]
        if ways:
            label = "won" if won else "not won"
            axis.plot(
                np.concatenate(x),
                np.concatenate(y),
                color=colour,
                linestyle=style,
                linewidth=1.5,
                label=label,
            )
    for side, sign, colour in (("long", 1, COLOURS["strategy"]), ("short", -1, COLOURS["hold"])):
        ways = [p for p in inside if trades.side[p] == sign and trades.entry_bar[p] >= stretch.start]
        if ways:
            axis.scatter(
                trades.entry_bar[ways] - stretch.start, trades.entry_price[ways], s=size, marker=_MARKS[side],
                color=colour, linewidths=0.4, edgecolors=COLOURS["paper"], zorder=3, label=f"{side} entry",
            )  # fmt: skip
    ways = [p for p in inside if trades.exit_bar[p] < stretch.stop]
    if ways:
        axis.scatter(
            trades.exit_bar[ways] - stretch.start, trades.exit_price[ways], s=0.8 * size, marker="x",
            color=COLOURS["ink"], linewidths=1.0, zorder=3, label="exit",
        )  # fmt: skip
    axis.set_xlim(0, stretch.stop - stretch.start - 1)
