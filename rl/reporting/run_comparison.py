"""Training runs side by side: what differs in them, what came of each symbol, and which figures cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rl.reporting.tables import number, percent, table_lines, whole
from rl.stages.plan import STAGES
from rl.stages.stage_model import STAGE_TITLES

WIDTH = 150

FIGURES_SHOWN_FOR = 3
"""With more symbols than this, the figures of every stage are shown of those asked for by name."""

NOT_THERE = "-"

WINDOWS = ("train", "validation", "promotion", "test")

FIGURES = (("total_return", percent), ("sharpe_ratio", number), ("total_trades", whole))
"""Figures of the validation window beside what the gate asked for, and how each is written."""


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One run, with what a comparison needs of it."""

    letter: str
    name: str
    folder: str
    plan: dict[str, Any]
    """Dotted keys with their values."""
    symbols: dict[str, dict[str, Any]]
    """Per symbol windows, stages, champion, promotion and final model, as the report has them."""
    made_by: dict[str, Any]
    """Dotted names of code, libraries, instruments; empty where the run did not note them."""

    @classmethod
    def read(
        cls, letter: str, folder: Path, report: Mapping[str, Any], identity: Mapping[str, Any]
    ) -> ComparedRun:
        """Return the run of a report.

        Args:
            letter: What it is called in tables.
            folder: Where it lies.
            report: Its `training_report.json`.
            identity: What `run.json` says identifies it; empty for a run without.

        Raises:
            KeyError, TypeError, AttributeError: The report is another than this program writes.
        """
        symbols = {
            symbol: {
                "windows": {name: dict(found["windows"][name]) for name in WINDOWS},
                "stages": {
                    stage: _stage(found["stages"][stage]) for stage in STAGES if stage in found["stages"]
                },
                "champion": found["champion"],
                "promotion": found["promotion"],
                "final_model": found["final_model"],
                "stopped": found["stopped"],
            }
            for symbol, found in report["symbols"].items()
        }
        made_by = {
            f"{part}.{name}" if name else part: value
            for part in ("code", "libraries", "instruments")
            for name, value in _flat(identity.get(part)).items()
            if value is not None
        }
        if "code" not in made_by and (written := _code(symbols)):
            made_by["code"] = written
        return cls(
            letter=letter,
            name=folder.resolve().name,
            folder=str(folder),
            plan=_flat(report["plan"]),
            symbols=symbols,
            made_by=made_by,
        )


def _stage(found: Mapping[str, Any]) -> dict[str, Any]:
    verdict = found["verdict"]
    return {
        "outcome": verdict["outcome"],
        "attempt": verdict["attempt"],
        "alpha_used": verdict["alpha_used"],
        "criteria": {each["name"]: dict(each) for each in verdict["criteria"]},
        "data_hash": verdict["window"]["data_hash"],
        "rules": verdict["context"].get("rules"),
        "code": verdict["context"].get("source_hash"),
        "episodes": found["episodes"],
        **{name: found["validation"].get(name) for name, _ in FIGURES},
    }


def _code(symbols: Mapping[str, Any]) -> str | None:
    found = {stage["code"] for each in symbols.values() for stage in each["stages"].values()}
    return ", ".join(sorted(code for code in found if code)) or None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing in which runs differ."""

    what: str
    """plan, code, libraries, instruments, data or symbols."""
    key: str
    values: tuple[Any, ...]
    """In the order of the runs; None where a run does not have it."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs side by side."""

    runs: tuple[ComparedRun, ...]
    symbols: tuple[str, ...]
    differences: tuple[Difference, ...]
    not_comparable: dict[str, tuple[str, ...]]
    """Per symbol, why the figures of its runs do not say which is better."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "runs": [{"letter": run.letter, "name": run.name, "folder": run.folder} for run in self.runs],
            "differences": [
                {"what": each.what, "key": each.key, "values": self._by_name(each.values)}
                for each in self.differences
            ],
            "not_comparable": {symbol: list(why) for symbol, why in self.not_comparable.items()},
            "symbols": {
                symbol: self._by_name([_told(run.symbols.get(symbol)) for run in self.runs])
                for symbol in self.symbols
            },
        }

    def _by_name(self, values: Sequence[Any]) -> dict[str, Any]:
        return {run.letter: value for run, value in zip(self.runs, values, strict=True)}


def _told(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    stages = {
        name: {key: value for key, value in stage.items() if key not in ("rules", "code")}
        for name, stage in found["stages"].items()
    }
    promotion = found["promotion"]
    kept = ("outcome", "attempt", "alpha_used", "reasons")
    return {
        **found,
        "stages": stages,
        "promotion": {name: promotion.get(name) for name in kept} if promotion else None,
    }


def compared(runs: Sequence[ComparedRun], symbols: Sequence[str]) -> Comparison:
    """Return what differs between runs, for these symbols."""
    differences = [
        *_differences("plan", [run.plan for run in runs]),
        *_differences("", [_known_of(run, runs) for run in runs]),
    ]
    for symbol in symbols:
        hashes = [_data_hash(run.symbols.get(symbol)) for run in runs]
        if len({each for each in hashes if each is not None}) > 1:
            differences.append(Difference(what="data", key=symbol, values=tuple(hashes)))
        if any(symbol not in run.symbols for run in runs):
            trained = tuple("trained" if symbol in run.symbols else None for run in runs)
            differences.append(Difference(what="symbols", key=symbol, values=trained))
    reasons = {symbol: _why_not(symbol, runs) for symbol in symbols}
    return Comparison(
        runs=tuple(runs),
        symbols=tuple(symbols),
        differences=tuple(differences),
        not_comparable={symbol: why for symbol, why in reasons.items() if why},
    )


def _known_of(run: ComparedRun, runs: Sequence[ComparedRun]) -> dict[str, Any]:
    """Return what made a run, without parts that another run did not note at all: that is no difference."""
    noted = [{name.partition(".")[0] for name in other.made_by} for other in runs]
    by_all = set.intersection(*noted)
    return {name: value for name, value in run.made_by.items() if name.partition(".")[0] in by_all}


def _differences(what: str, tables: Sequence[Mapping[str, Any]]) -> list[Difference]:
    keys = dict.fromkeys(key for table in tables for key in table)
    found = []
    for key in keys:
        # An empty block is one that says nothing.
        values = tuple(table.get(key) if table.get(key) != {} else None for table in tables)
        if any(one != other for one, other in pairwise(values)):
            part, _, rest = key.partition(".")
            found.append(Difference(what=what or part, key=key if what else rest, values=values))
    return found


def _data_hash(found: Mapping[str, Any] | None) -> str | None:
    hashes = {stage["data_hash"] for stage in found["stages"].values()} if found else set()
    return ", ".join(sorted(hashes)) or None


def _why_not(symbol: str, runs: Sequence[ComparedRun]) -> tuple[str, ...]:
    having = [(run.letter, run.symbols[symbol]) for run in runs if symbol in run.symbols]
    if len(having) < 2:
        return (f"only {having[0][0]} trained it" if having else "no run trained it",)
    found = []
    for window in ("validation", "promotion"):
        spans = {letter: _span(each["windows"][window]) for letter, each in having}
        if len(set(spans.values())) > 1:
            shown = ", ".join(f"{letter} {span}" for letter, span in spans.items())
            found.append(f"other {window} windows: {shown}")
    if len({_data_hash(each) for _, each in having} - {None}) > 1:
        found.append("other raw data (its hash differs)")
    rules = [stage["rules"] for _, each in having for stage in each["stages"].values() if stage["rules"]]
    costs = [{name: value for name, value in each.items() if name != "bar_volatility"} for each in rules]
    if any(one != other for one, other in pairwise(costs)):
        names = sorted(
            {name for one, other in pairwise(costs) for name in one if one.get(name) != other.get(name)}
        )
        found.append(f"other costs or trading rules: {', '.join(names)}")
    return tuple(found)


def _span(window: Mapping[str, Any]) -> str:
    return f"{str(window['from'])[:10]} .. {str(window['to'])[:10]}"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


# --- as text ------------------------------------------------------------------------------------------------


def comparison_lines(found: Comparison, *, summary_only: bool, all_symbols: bool) -> list[str]:
    """Return a comparison as text.

    Args:
        found: What was compared.
        summary_only: Leave out the figures of every stage.
        all_symbols: No symbol was asked for by name; then the figures are shown for a few symbols only.
    """
    lines = ["RUNS", *(f"  {run.letter}  {run.name}   {_number_of_symbols(run)}" for run in found.runs)]
    lines += ["", "WHAT DIFFERS", *_difference_lines(found)]
    if found.not_comparable:
        lines += [
            "",
            "NOT COMPARABLE: figures on other windows, data or costs do not say which run is better",
        ]
        for why in dict.fromkeys(found.not_comparable.values()):
            alike = [symbol for symbol, other in found.not_comparable.items() if other == why]
            lines += [f"  {', '.join(alike)}: {'; '.join(why)}"]
    lines += ["", "WHAT CAME OF THEM", *("  " + line for line in _summary(found))]
    if summary_only:
        return lines
    if all_symbols and len(found.symbols) > FIGURES_SHOWN_FOR:
        lines += ["", "The figures of every stage, with what each gate asked for: add --symbols NAME."]
    else:
        for symbol in found.symbols:
            note = "   NOT COMPARABLE, see above" if symbol in found.not_comparable else ""
            lines += ["", f"{symbol}{note}", *("  " + line for line in _figures(found, symbol))]
    return [
        *lines,
        "",
        "Figures are of the validation window, on which stages were chosen: taking the better run by them is one more",
        "choice, and what it earns later will on average be less. Promotion is decided on a window of its own.",
    ]


def _number_of_symbols(run: ComparedRun) -> str:
    return f"{len(run.symbols)} symbol{'' if len(run.symbols) == 1 else 's'}, seed {run.plan.get('seed')}"


def _difference_lines(found: Comparison) -> list[str]:
    silent = [
        run.letter for run in found.runs if not any(name.startswith("libraries") for name in run.made_by)
    ]
    note = [f"  Versions of libraries were not noted by {', '.join(silent)}."] if silent else []
    if not found.differences:
        return ["  nothing in plan, data and code", *note]
    rows = [
        [each.what, each.key, *(_value(value, each.what) for value in each.values)]
        for each in found.differences
    ]
    headings = ["", "", *(run.letter for run in found.runs)]
    return ["  " + line for line in table_lines(headings, rows, left=len(headings), width=WIDTH)] + note


def _value(value: Any, what: str) -> str:
    if value is None:
        return "null" if what == "plan" else NOT_THERE
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if what == "data":
        return text[:12]
    return text if len(text) <= 40 else text[:37] + "..."


def _summary(found: Comparison) -> list[str]:
    rows = []
    for symbol in found.symbols:
        for run in found.runs:
            each = run.symbols.get(symbol)
            if each is None:
                rows.append([symbol, run.letter, *[NOT_THERE] * 8])
                continue
            stages = [each["stages"].get(stage, {}).get("outcome", NOT_THERE) for stage in STAGES]
            champion = each["stages"].get(each["champion"], {})
            figures = [write(champion.get(name)) for name, write in FIGURES]
            rows.append([symbol, run.letter, *stages, each["champion"] or "none", _promoted(each), *figures])
    headings = ["symbol", "run", *STAGES, "champion", "promoted", "val return", "val Sharpe", "val trades"]
    return table_lines(headings, rows, left=7, width=WIDTH)


def _promoted(each: Mapping[str, Any]) -> str:
    promotion = each["promotion"]
    if promotion is None:
        return "not judged"
    if promotion["outcome"] == "PASS":
        return "PROMOTED" if each["final_model"] else "passed, not written"
    return f"no ({promotion['outcome']})"


def _figures(found: Comparison, symbol: str) -> list[str]:
    """Return the figures of every stage of a symbol: what was asked for, and what each run had."""
    rows: list[list[str]] = []
    each = [run.symbols.get(symbol) for run in found.runs]
    for stage in STAGES:
        ran = [one["stages"].get(stage) if one else None for one in each]
        if not any(ran):
            continue
        title = STAGE_TITLES[stage]
        looks = [f"{one['outcome']} (look {one['attempt']})" if one else NOT_THERE for one in ran]
        rows.append([title, "verdict", "", *looks])
        rows += [["", name, *_criterion(name, ran)] for name in _criteria(ran)]
        rows += [
            ["", f"val {name}", "", *(write((one or {}).get(name)) for one in ran)] for name, write in FIGURES
        ]
    promotions = [one["promotion"] if one else None for one in each]
    if any(promotions):
        judged = [f"{one['outcome']} (look {one['attempt']})" if one else "not judged" for one in promotions]
        rows.append(["promotion", "verdict", "", *judged])
        p = [(one or {}).get("metrics", {}).get("p_no_edge") for one in promotions]
        alpha = [(one or {}).get("alpha_used") for one in promotions]
        rows.append(["", "p without an edge", "", *(_cell(value) for value in p)])
        rows.append(["", "alpha of the look", "", *(_cell(value) for value in alpha)])
    headings = ["stage", "figure", "asked", *(run.letter for run in found.runs)]
    return table_lines(headings, rows, left=3, width=WIDTH)


def _criteria(ran: Sequence[Mapping[str, Any] | None]) -> list[str]:
    return list(dict.fromkeys(name for one in ran if one for name in one["criteria"]))


def _criterion(name: str, ran: Sequence[Mapping[str, Any] | None]) -> list[str]:
    """Return what was asked for and what each run had; a threshold that differs stands beside its run's figure."""
    results = [one["criteria"].get(name) if one else None for one in ran]
    asked = {f"{each['direction']} {_cell(each['threshold'])}" for each in results if each}
    alike = len(asked) == 1
    cells = []
    for each in results:
        if each is None:
            cells.append(NOT_THERE)
            continue
        met = {True: "ok", False: "short", None: "?"}[each["met"]]
        own = "" if alike else f", {each['direction']} {_cell(each['threshold'])}"
        cells.append(f"{_cell(each['value'])} {met}{own}")
    return [asked.pop() if alike else "differs", *cells]


def _cell(value: Any) -> str:
    return NOT_THERE if value is None else f"{value:.4g}" if isinstance(value, (int, float)) else str(value)
