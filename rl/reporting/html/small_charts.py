"""Charts that fill a phone and stand side by side on a desktop: results, costs, learning, experts, adaptation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from rl.reporting.html.svg import COLOURS, SMALL, drawn

BASIS_POINTS = 1e4
_SHARE_WITH_ROOM = 8.0
"""Percent of a bar in which the number of its expert can be read."""

_SHADES = ("strategy", "hold", "gain", "third", "loss", "muted", "shade", "ink")


def results_chart(results: dict[str, Any]) -> Markup:
    """Return the histogram of net trade results, losses and wins apart by colour and hatching."""
    edges, counts = BASIS_POINTS * np.array(results["edges"]), np.array(results["counts"])

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        middles = (edges[:-1] + edges[1:]) / 2
        for won, colour, hatch, label in (
            (False, "loss", "///", "lost"),
            (True, "gain", "", "won"),
        ):
            part = (middles > 0) == won
            axis.bar(
                middles[part], counts[part], width=np.diff(edges)[part], color=COLOURS[colour], alpha=0.75,
                hatch=hatch, edgecolor=COLOURS["paper"], linewidth=0.4, label=label,
            )  # fmt: skip
        axis.axvline(0.0, color=COLOURS["ink"], linewidth=0.8)
        axis.axvline(
            BASIS_POINTS * results["mean"], color=COLOURS["ink"], linewidth=1.2, linestyle="--", label="mean"
        )
        axis.set_xlabel("net result of a trade, bp of what was bought or sold")
        axis.set_ylabel("trades")
        axis.legend()

    return drawn("results", "How the net results of trades are distributed", (SMALL, 3.0), draw)


def groups_chart(groups: Sequence[dict[str, Any]], name: str, currency: str) -> Markup:
    """Return what trades earned by a key, such as the hour of entry: bars with the number of trades over them."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        values = np.array([group["net_pnl"] for group in groups])
        places = np.arange(len(groups))
        for won, colour, hatch in ((True, "gain", ""), (False, "loss", "///")):
            part = (values > 0) == won
            axis.bar(
                places[part], values[part], width=0.75, color=COLOURS[colour], alpha=0.75, hatch=hatch,
                edgecolor=COLOURS["paper"], linewidth=0.4,
            )  # fmt: skip
        axis.axhline(0.0, color=COLOURS["ink"], linewidth=0.8)
        step = 1 + len(groups) // 13
        axis.set_xticks(places[::step], [str(group["name"]) for group in groups][::step])
        axis.set_ylabel(f"net result, {currency}")
        axis.grid(visible=False, axis="x")

    return drawn(f"groups-{name}", f"Net result of trades by {name}", (SMALL, 2.6), draw)


def cost_chart(frontier: Sequence[dict[str, Any]], bears: float | None, paid: float | None) -> Markup:
    """Return what the same actions earn at rising costs, with the cost paid and the cost they bear."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.plot(
            [point["cost_bp_per_side"] for point in frontier],
            [100 * point["total_return"] for point in frontier],
            color=COLOURS["strategy"],
            marker="o",
            markersize=4,
            label="return of the same actions",
        )
        axis.axhline(0.0, color=COLOURS["ink"], linewidth=0.8)
        top = max(point["cost_bp_per_side"] for point in frontier)
        for cost, style, label in ((paid, ":", "paid"), (bears, "--", "break-even")):
            if cost is not None and cost <= 1.3 * top:
                axis.axvline(cost, color=COLOURS["loss"], linestyle=style, linewidth=1.3, label=label)
        axis.set_xlabel("all-in cost, bp per side")
        axis.set_ylabel("return, %")
        axis.legend()

    return drawn("costs", "Return of the same actions at rising cost", (SMALL, 3.0), draw)


def learning_chart(name: str, training: dict[str, Any]) -> Markup | None:
    """Return how a stage's score on the bars it is chosen by moved as it trained; None where that was not recorded."""
    if curve := training.get("validation_curve"):
        x = [point["episodes"] for point in curve]
        lines = {"greedy policy": [point["mean_session_return"] for point in curve]}
        best, unit, across = training.get("best_episodes"), "bp per session", "episodes"
    elif curve := training.get("meta_validation_curve"):
        x = [point["iteration"] for point in curve]
        lines = {
            "adapted": [point["adapted"] for point in curve],
            "before adapting": [point["unadapted"] for point in curve],
        }
        best, unit, across = training.get("best_iteration"), "bp per bar", "meta-iterations"
    else:
        return None

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for (label, values), colour, style in zip(
            lines.items(), ("strategy", "hold"), ("-", "--"), strict=False
        ):
            shown = [np.nan if value is None else BASIS_POINTS * value for value in values]
            axis.plot(x, shown, color=COLOURS[colour], linestyle=style, marker="o", markersize=3, label=label)
        axis.axhline(0.0, color=COLOURS["ink"], linewidth=0.8)
        if best is not None:
            axis.axvline(best, color=COLOURS["gain"], linestyle=":", linewidth=1.4, label="weights kept")
        axis.set_xlabel(across)
        axis.set_ylabel(unit)
        axis.legend()

    return drawn(name, f"Learning curve: {', '.join(lines)}, {unit}", (SMALL, 2.7), draw)


def adaptation_chart(name: str, curve: Sequence[dict[str, Any]]) -> Markup:
    """Return the growth after so many adaptation steps, with its interval."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        steps = [point["steps"] for point in curve]

        def line(key: str) -> list[float]:
            return [np.nan if point[key] is None else BASIS_POINTS * point[key] for point in curve]

        axis.fill_between(
            steps,
            line("lower"),
            line("upper"),
            color=COLOURS["strategy"],
            alpha=0.2,
            linewidth=0,
            label="95 % interval",
        )
        axis.plot(steps, line("mean"), color=COLOURS["strategy"], marker="o", markersize=4, label="mean")
        axis.axhline(0.0, color=COLOURS["ink"], linewidth=0.8)
        axis.set_xticks(steps)
        axis.set_xlabel("adaptation steps")
        axis.set_ylabel("net log growth, bp per bar")
        axis.legend()

    return drawn(name, "Growth after adaptation steps", (SMALL, 3.0), draw)


def experts_chart(name: str, found: dict[str, Any]) -> Markup:
    """Return the share of each regime's bars every expert leads, told apart by colour and number."""
    regimes, by_regime = found["regimes"], found["by_regime"]

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        left = np.zeros(len(regimes))
        places = np.arange(len(regimes))[::-1]
        for number, records in enumerate(by_regime):
            shares = np.array([100 * (record["leads"] or 0.0) for record in records])
            axis.barh(
                places, shares, left=left, height=0.78, color=COLOURS[_SHADES[number % len(_SHADES)]], alpha=0.8,
                edgecolor=COLOURS["paper"], linewidth=0.8, label=f"expert {number + 1}",
            )  # fmt: skip
            for place, share, start in zip(places, shares, left, strict=True):
                if share >= _SHARE_WITH_ROOM:
                    axis.text(
                        start + share / 2, place, str(number + 1), ha="center", va="center", fontsize=9,
                        color=COLOURS["paper"], fontweight="bold",
                    )  # fmt: skip
            left += shares
        axis.set_yticks(places, [regime.replace(", ", ",\n") for regime in regimes], fontsize=8)
        axis.set_xlim(0, 100)
        axis.set_xlabel("bars it leads, % of the regime's bars")
        axis.grid(visible=False, axis="y")
        figure.legend(loc="outside upper left", ncols=min(4, len(by_regime)), handlelength=1.6, borderpad=0.1)

    return drawn(name, "Which expert leads in which regime", (SMALL, 1.1 + 0.34 * len(regimes)), draw)
