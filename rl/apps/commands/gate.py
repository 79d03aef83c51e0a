"""`python -m rl gate`: what was decided on a model and why, checked against the evidence."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rl.checkpoints.checkpoint import Checkpoint, load_checkpoint
from rl.checkpoints.registry import best_available
from rl.common.compiled import source_hash
from rl.common.errors import DATA, OK, DataError, UsageError
from rl.common.paths import checked_symbol
from rl.common.printable import printable
from rl.reporting.tables import probability, table_lines
from rl.stages.evaluation import iso_utc
from rl.stages.evidence import LEDGER_NAME, EvidenceLedger
from rl.stages.explain import Explanation, explained
from rl.stages.gates import CriterionResult, Verdict
from rl.stages.model_files import model_from


def gate(options: argparse.Namespace) -> int:
    """Explain a model's verdicts, or list the looks at a symbol; return the exit code."""
    ledger = EvidenceLedger(options.reports_dir / LEDGER_NAME)
    if not ledger.path.is_file():
        raise DataError(
            f"there is no evidence ledger {ledger.path}; name the folder of the run's reports with --reports-dir"
        )
    if options.looks is not None:
        return _print_looks(ledger, checked_symbol(options.looks))
    path, checkpoint = _model(options.explain, options.models_dir)
    weights = model_from(checkpoint).fingerprint()
    print(printable(f"{path}   weights {weights[:12]}   ledger {ledger.path}"))
    print(ledger.how_sealed())
    found = explained(ledger, checkpoint.symbol, weights, checkpoint.verdict)
    for explanation in found:
        print()
        for line in explanation_lines(explanation):
            print(printable(line))
    return OK if all(each.agrees for each in found) else DATA


def _model(text: str, models_dir: Path) -> tuple[Path, Checkpoint]:
    if text.endswith(".pth"):
        if not Path(text).exists():
            raise UsageError(f"--explain {text}: there is no such file")
        return Path(text), load_checkpoint(text)
    found = best_available(models_dir, checked_symbol(text))
    return found.path, found.checkpoint


def explanation_lines(found: Explanation) -> list[str]:
    """Return one verdict as stored, its figures beside the recomputed ones, and whether they agree."""
    lines = [*found.stored.lines(), f"  Written {found.time} by {_code(found.stored)}.", *found.notes]
    if found.recomputed is not None:
        rows = [[name, stored, again] for name, stored, again in _figures(found.stored, found.recomputed)]
        lines += ["", *("  " + line for line in table_lines(["figure", "stored", "recomputed"], rows))]
    lines.append("")
    if found.agrees:
        files = " and ".join(found.evidence)
        lines.append(
            f"AGREES: {found.compared} figures and texts recomputed from {files} and the ledger are as stored. "
            "Seed, costs, code version, null bank and hash of the raw file are what the ledger says, not checked."
        )
    else:
        lines += ["DIFFERS:", *(f"  {each}" for each in found.differences)]
    return lines


def _code(verdict: Verdict) -> str:
    version, written = verdict.context.get("code_version", "?"), verdict.context.get("source_hash", "?")
    now = "" if written == source_hash() else f"; this is source {source_hash()}"
    return f"version {version}, source {written}{now}"


def _figures(stored: Verdict, again: Verdict) -> list[tuple[str, str, str]]:
    pairs = [("outcome", stored.outcome, again.outcome)]
    recomputed = {result.name: result for result in again.criteria}
    for result in stored.criteria:
        other = recomputed.get(result.name)
        pairs.append((result.name, _figure(result), _figure(other) if other else "-"))
    pairs.append(("alpha of this look", _text(stored.alpha_used), _text(again.alpha_used)))
    one, other = (verdict.context.get("family", {}) for verdict in (stored, again))
    if one or other:
        names = ("corrected_p", "rank_threshold", "survived")
        pairs += [(name, _text(one.get(name)), _text(other.get(name))) for name in names]
    return pairs + [
        (name, _text(stored.metrics[name]), _text(again.metrics.get(name)))
        for name in ("sharpe_per_session", "mean_session_return")
        if name in stored.metrics
    ]


def _figure(result: CriterionResult) -> str:
    if result.lower is None and result.upper is None:
        return _text(result.value)
    return f"{_text(result.value)} [{_text(result.lower, 4)}, {_text(result.upper, 4)}]"


def _text(value: Any, digits: int = 10) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _print_looks(ledger: EvidenceLedger, symbol: str) -> int:
    """Print every counted look at a symbol's windows and what came of it."""
    entries = [entry for entry in ledger.entries() if entry["symbol"] == symbol]
    looks = [entry for entry in entries if entry["kind"] == "look"]
    if not looks:
        raise DataError(f"{ledger.path} holds no look at {symbol}")
    rows = []
    for look in looks:
        same = [
            entry
            for entry in entries
            if all(entry[name] == look[name] for name in ("window_hash", "purpose", "attempt"))
        ]
        verdict = next((entry for entry in reversed(same) if entry["kind"] == "verdict"), {})
        settled = next((entry for entry in reversed(same) if entry["kind"] == "settlement"), {})
        span = look.get("span")
        dates = " .. ".join(iso_utc(end)[:10] for end in span) if span else "-"
        p = (verdict.get("verdict") or {}).get("metrics", {}).get("p_no_edge")
        outcome = verdict.get("outcome", "-")
        rows.append(
            [
                look["time"][:19],
                look["purpose"],
                str(look["attempt"]),
                dates,
                look.get("stage") or "-",
                look.get("run") or "-",
                outcome,
                settled.get("outcome", "-"),
                probability(p),
            ]
        )
    headings = ["time", "purpose", "look", "window", "stage", "run", "verdict", "settled", "p"]
    for line in table_lines(headings, rows, left=8, width=150):
        print(printable(line))
    print(ledger.how_sealed())
    return OK
