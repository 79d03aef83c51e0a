"""What the stages of a run did on every symbol, as Markdown: `python -m benchmarks.stage_table REPORT`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BASIS_POINTS = 1e4


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stage_table",
        description="Turn the training_report.json of a run into Markdown tables: stages, experts, adaptation, cost.",
    )
    parser.add_argument("report", type=Path, help="reports/runs/<run>/training_report.json")
    options = parser.parse_args(argv)
    if not options.report.is_file():
        parser.error(f"{options.report} does not exist; give the training_report.json in a run's folder")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables and return 0."""
    options = parse_options(argv)
    symbols = json.loads(options.report.read_text(encoding="utf-8"))["symbols"]
    for table in (stages, experts, adaptation, cost):
        print("\n".join(table(symbols)) + "\n")
    return 0


def stages(symbols: dict[str, Any]) -> list[str]:
    """Return verdict and validation figures of every stage, the champion, and what promotion said."""
    rows = []
    for name, symbol in symbols.items():
        for stage, found in symbol["stages"].items():
            seen = found["validation"]
            rows.append(
                [
                    name,
                    stage,
                    f"{found['verdict']['outcome']} ({len(found['attempts'])})",
                    _criterion(found["verdict"], "win_rate", seen["win_rate"]),
                    _criterion(found["verdict"], "profit_factor", seen["profit_factor"]),
                    _number(seen["max_drawdown"], 2),
                    f"{seen['total_trades']:,}",
                    _with_ends(seen["sharpe_ratio"], seen["sharpe_low"], seen["sharpe_high"]),
                    "champion" if stage == symbol["champion"] else "",
                ]
            )
        promotion = symbol["promotion"]
        if promotion is not None:
            figures = promotion["metrics"]
            profit_factor = _criterion(promotion, "profit_factor", figures["profit_factor"])
            rows.append(
                [
                    name,
                    "promotion",
                    promotion["outcome"],
                    _criterion(promotion, "win_rate", figures["win_rate"]),
                    f"{profit_factor}, p {_number(figures['p_no_edge'], 3)}",
                    _number(figures["max_drawdown"], 2),
                    f"{figures['trades']:,}",
                    "",
                    "PROMOTED" if symbol["final_model"] else "",
                ]
            )
    heads = [
        "symbol",
        "stage",
        "verdict (attempts)",
        "win rate",
        "profit factor",
        "drawdown",
        "trades",
        "Sharpe",
        "",
    ]
    return _markdown(heads, rows)


def experts(symbols: dict[str, Any]) -> list[str]:
    """Return what the experts of stage 2 do: in use, how far apart, with the regime, worth what."""
    rows = []
    for name, symbol in symbols.items():
        stage = symbol["stages"].get("moe", {})
        found = stage.get("validation", {}).get("experts")
        if found is None:
            continue
        use, shared = found["use"], found["information"]
        knocked = [None if each is None else each["return_change"] for each in found["knock_outs"]]
        rows.append(
            [
                name,
                _number(use["effective_experts"], 2),
                _number(use["gate_entropy"], 2),
                _number(use["divergence"], 2),
                f"{100 * use['switching_rate']:.0f} %",
                "-" if shared is None else f"{shared['nats']:.2f} (p {shared['p']:.3f})",
                _number(found["assignment"]["p"], 3),
                ", ".join("-" if each is None else f"{100 * each:+.1f} %" for each in knocked),
                _beside_network(stage.get("dense_control")),
                "; ".join(found["collapses"]) or "none",
            ]
        )
    heads = [
        "symbol", "experts in effect", "gate entropy", "divergence (nats)", "switching", "information (nats)",
        "assignment p", "return without each", "mixture less one network of its size, bp a session", "collapse",
    ]  # fmt: skip
    return _markdown(heads, rows)


def adaptation(symbols: dict[str, Any]) -> list[str]:
    """Return the curve of adaptation and what it was compared with, in bp per bar."""
    rows = []
    for name, symbol in symbols.items():
        found = symbol["stages"].get("maml", {}).get("adaptation")
        if not found:
            continue
        compared = {each["name"]: each for each in found["comparisons"]}
        rows.append(
            [
                name,
                str(found["query_windows"]),
                ", ".join(f"{each['steps']}: {BASIS_POINTS * each['mean']:+.2f}" for each in found["curve"]),
                *(
                    _difference(compared.get(f"over_{other}"))
                    for other in (
                        "stage_2",
                        "fine_tune",
                        "unadapted",
                        "other_support",
                        "random_start",
                        "buy_and_hold",
                    )
                ),
            ]
        )
    heads = [
        "symbol", "windows", "bp a bar after so many steps", "over stage 2", "over fine-tuning", "over its start",
        "over other support", "over random start", "over holding",
    ]  # fmt: skip
    return _markdown(heads, rows)


def cost(symbols: dict[str, Any]) -> list[str]:
    """Return processor seconds of every stage."""
    names = ("ppo", "moe", "maml")
    rows = [
        [name, *(_number(symbol["stages"].get(stage, {}).get("cpu_seconds"), 0) for stage in names)]
        for name, symbol in symbols.items()
    ]
    return _markdown(["CPU seconds", *names], rows)


def _difference(found: dict[str, Any] | None) -> str:
    if found is None or found["difference"] is None:
        return "-"
    lower = "" if found["lower"] is None else f" (from {BASIS_POINTS * found['lower']:+.2f})"
    return f"{BASIS_POINTS * found['difference']:+.2f}{lower}"


def _beside_network(control: dict[str, Any] | None) -> str:
    """Return what the mixture earned more than one network of as many parameters; a dash where none was trained."""
    if control is None:
        return "-"
    found = control["mixture_against_network"]
    ends = (None if found[end] is None else BASIS_POINTS * found[end] for end in ("lower", "upper"))
    return _with_ends(BASIS_POINTS * found["mean"], *ends)


def _criterion(verdict: dict[str, Any], name: str, value: float | None) -> str:
    """Return a figure with the interval its verdict gives it; stage 3 is not judged by it and gives none."""
    found = next((each for each in verdict["criteria"] if each["name"] == name), None)
    return _number(value, 2) if found is None else _with_ends(value, found["lower"], found["upper"])


def _with_ends(value: float | None, low: float | None, high: float | None) -> str:
    interval = "" if low is None or high is None else f" [{_number(low, 2)}, {_number(high, 2)}]"
    return f"{_number(value, 2)}{interval}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
