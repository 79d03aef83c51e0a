"""All runs of a reports folder side by side: `index.html`, which leads to the report of each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rl.common.atomic_files import write_text
from rl.common.runlog import events_file
from rl.reporting.html.figures import Column, Figures
from rl.reporting.html.pages import render
from rl.reporting.html.training_page import FILE_NAME
from rl.reporting.run_folders import run_folders, training_report
from rl.reporting.tables import SYNTHETIC_PREFIX

COLUMNS = (
    Column("total_return", "return", "percent"),
    Column("held", "buy-and-hold", "percent"),
    Column("sharpe_ratio", "Sharpe", "number"),
    Column("max_drawdown", "drawdown", "percent"),
    Column("total_trades", "trades", "whole"),
    Column("win_rate", "win rate", "percent"),
    Column("profit_factor", "profit factor", "number"),
)


def write_runs_page(reports_dir: Path) -> Path:
    """Write `index.html` into the reports folder, a row for each symbol of each run in it; return its path.

    A training run is read from its `training_report.json`, a backtest from its `events.jsonl`. A run without either,
    one that was interrupted, has no row. What cannot be read is named under the table.
    """
    path = Path(reports_dir) / "index.html"
    unreadable: list[str] = []
    rows = [row for run in run_folders(path.parent) for row in _rows(run, path.parent, unreadable)]
    write_text(path, runs_page(rows, unreadable))
    return path


def runs_page(rows: list[dict[str, Any]], unreadable: list[str]) -> str:
    """Return the page; a row has run, symbol, kind, window, stage, verdict, link and the figures of `COLUMNS`."""
    return render(
        "runs.html",
        rows=rows,
        r=Figures({"rows": rows}),
        columns=COLUMNS,
        unreadable=unreadable,
        synthetic=any(row["symbol"].startswith(SYNTHETIC_PREFIX) for row in rows),
    )


def _rows(run: Path, reports_dir: Path, unreadable: list[str]) -> Iterator[dict[str, Any]]:
    log = events_file(run)
    try:
        if (report := training_report(run)) is not None:
            yield from _trained(run, report, reports_dir)
        elif log.is_file():
            yield from _tested(run, log.read_text(encoding="utf-8").splitlines(), reports_dir)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        unreadable.append(f"{run.name}: {type(error).__name__}: {error}")


def _trained(run: Path, report: dict[str, Any], reports_dir: Path) -> list[dict[str, Any]]:
    page = run / FILE_NAME
    rows = []
    for symbol, found in report["symbols"].items():
        champion = found["champion"]
        # With --stages, the champion may be a model that an earlier run trained.
        validation = found["stages"].get(champion, {}).get("validation", {})
        missing = "the champion was trained in an earlier run" if champion else "there is no champion"
        promotion = found["promotion"]
        passed = promotion is not None and promotion["outcome"] == "PASS" and found["final_model"] is not None
        told = "no champion" if promotion is None else f"promotion {promotion['outcome']}"
        rows.append(
            {
                "run": run.name,
                "symbol": symbol,
                "kind": "training",
                "window": "validation",
                "stage": champion or "none",
                "verdict": told,
                "promoted": passed,
                "in_sample": True,
                "link": _link(page, reports_dir) if page.is_file() else None,
                **_figures(validation, None, missing, "not part of the training report"),
            }
        )
    return rows


def _tested(run: Path, lines: list[str], reports_dir: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in lines if line.strip()]
    pages = [
        Path(file)
        for event in events
        if event.get("event") == "reports_written"
        for file in event["files"]
        if file.endswith(".html") and Path(file).is_file()
    ]
    rows = []
    for event in events:
        # Training runs tell of their symbols too, without figures.
        if event.get("event") != "symbol_done" or "metrics" not in event:
            continue
        span, symbol = event.get("span") or {}, event["symbol"]
        own = [page for page in pages if page.stem == symbol] or pages[-1:]
        rows.append(
            {
                "run": run.name,
                "symbol": symbol,
                "kind": "backtest",
                "window": span.get("split", "not recorded"),
                "stage": event["model"]["stage"],
                "verdict": event["model"]["verdict_text"],
                "promoted": event["model"]["promoted"],
                "in_sample": bool(span.get("seen_in_training_or_choosing")),
                "link": _link(own[0], reports_dir) if own else None,
                **_figures(event["metrics"], event.get("buy_and_hold"), "", "not recorded by this run"),
            }
        )
    return rows


def _figures(
    found: dict[str, Any], held: dict[str, Any] | None, missing: str, no_hold: str
) -> dict[str, Any]:
    values = {column.key: found.get(column.key) for column in COLUMNS if column.key != "held"}
    reasons = found.get("not_computed", {}) if found else dict.fromkeys(values, missing)
    return {
        **values,
        "held": held["total_return"] if held else None,
        "not_computed": {**reasons, **({} if held else {"held": no_hold})},
    }


def _link(page: Path, reports_dir: Path) -> str:
    # Quoted, or a file named like an address (javascript:…) would be one.
    return quote(Path(os.path.relpath(page.absolute(), reports_dir.absolute())).as_posix())
