"""A training run as one page: what each stage learned, how it was judged, what was promoted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rl.common.atomic_files import write_text
from rl.common.strict_yaml import dump_yaml
from rl.reporting.adaptation_report import COMPARED_WITH
from rl.reporting.html.figures import Figures
from rl.reporting.html.pages import render
from rl.reporting.html.small_charts import adaptation_chart, experts_chart, learning_chart
from rl.stages.stage_model import STAGE_TITLES, STAGES

FILE_NAME = "training_report.html"

VALIDATION = (
    ("total_return", "return", "percent", None, None),
    ("sharpe_ratio", "Sharpe, annual", "number", "sharpe_low", "sharpe_high"),
    ("max_drawdown", "worst drawdown", "percent", None, None),
    ("total_trades", "trades", "whole", None, None),
    ("win_rate", "win rate", "percent", "win_rate_low", "win_rate_high"),
    ("break_even_win_rate", "break-even win rate", "percent", None, None),
    ("profit_factor", "profit factor", "number", None, None),
    ("cost_share", "costs of gross winnings", "percent", None, None),
)

CONTROL = (
    ("mixture_against_network", "mixture minus network"),
    ("mixture_against_stage_1", "mixture minus stage 1"),
    ("network_against_stage_1", "network minus stage 1"),
)

NULLS_SHOWN = 12


def write_training_page(report: dict[str, Any], folder: Path, command: str = "") -> Path:
    """Write `training_report.html` into a run's folder and return its path.

    Args:
        report: What `training_json` returned, or a `training_report.json` read back.
        folder: The run's folder; its name is the run's.
        command: The command line of the run.
    """
    path = folder / FILE_NAME
    write_text(path, training_page(report, folder.name, command))
    return path


def training_page(report: dict[str, Any], run: str, command: str = "") -> str:
    """Return the page; arguments are those of `write_training_page`, `run` its name."""
    symbols = report["symbols"]
    return render(
        "training.html",
        run=run,
        report=report,
        r=Figures(report),
        symbols=symbols,
        stage_names=STAGES,
        titles=STAGE_TITLES,
        words=COMPARED_WITH,
        summary=[_summary(symbol, found) for symbol, found in symbols.items()],
        charts={symbol: _charts(place, found) for place, (symbol, found) in enumerate(symbols.items())},
        validation=VALIDATION,
        control=CONTROL,
        nulls=_most_passed(report),
        command=command,
        plan=dump_yaml(report["plan"]),
        synthetic=any(found["synthetic"] for found in symbols.values()),
        any_promoted=any(_is_promoted(found) for found in symbols.values()),
    )


def _is_promoted(found: dict[str, Any]) -> bool:
    promotion = found["promotion"]
    return promotion is not None and promotion["outcome"] == "PASS" and found["final_model"] is not None


def _summary(symbol: str, found: dict[str, Any]) -> dict[str, Any]:
    stages, promotion = found["stages"], found["promotion"]
    if promotion is None:
        promoted = "no champion"
    elif _is_promoted(found):
        promoted = "PROMOTED"
    elif promotion["outcome"] == "PASS":
        promoted = "passed, but not written"
    else:
        promoted = f"no ({promotion['outcome']}{', written UNPROVEN' if found['final_model'] else ''})"
    return {
        "symbol": symbol,
        "synthetic": found["synthetic"],
        "outcomes": [stages[name]["verdict"]["outcome"] if name in stages else "–" for name in STAGES],
        "champion": found["champion"],
        "promoted": promoted,
    }


def _charts(place: int, found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the charts of every stage of a symbol; their names tell symbols apart by place, not by name."""
    drawn = {}
    for name, stage in found["stages"].items():
        experts, adaptation = stage["validation"].get("experts"), stage.get("adaptation")
        drawn[name] = {
            "learning": learning_chart(f"learning-{place}-{name}", stage["training"]),
            "experts": experts_chart(f"experts-{place}-{name}", experts) if experts else None,
            "adaptation": adaptation_chart(f"adaptation-{place}-{name}", adaptation["curve"])
            if adaptation and adaptation["curve"]
            else None,
        }
    return drawn


def _most_passed(report: dict[str, Any]) -> list[int]:
    """Return the places of the null policies that passed a gate most often."""
    bank = report["null_bank"]
    passes = bank["passes"] if bank else []
    places = [place for place, line in enumerate(passes) if line["passed"]]
    return sorted(places, key=lambda place: (-passes[place]["passed"] / passes[place]["markets"], place))[
        :NULLS_SHOWN
    ]
