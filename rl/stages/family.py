"""Which promotions are decided together: those of a run, and those of runs that took the same looks before.

The same model judged again on the same window is no new look and costs nothing. Were it judged there among fewer
symbols, running again whatever came out best would undo the correction for how many were tried.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from rl.common.errors import DataError
from rl.stages.gates import Verdict, corrected_p

_Look = tuple[str, str, int]
"""Symbol, hash of the window, attempt: which model was judged where."""


def judged_with(entries: Sequence[Mapping[str, Any]], verdicts: Sequence[Verdict], run: str) -> list[Verdict]:
    """Return the promotion verdicts of other symbols that belong to the family of a run's.

    Runs belong together where they share a look (symbol, window and attempt; the attempt stands for model, costs and
    capital), also by way of a third run. All symbols judged in them are of one family, whether those runs were settled
    or interrupted, and symbols of this run whose sequence was lost after its verdict. A symbol judged several
    times elsewhere counts once, with the verdict that makes the least room for others; so neither the order of
    the runs nor how often they are repeated decides anything.

    Args:
        entries: Lines of the evidence ledger.
        verdicts: Of promotion, of the run that is settled; one per symbol.
        run: Name of that run.

    Returns:
        One verdict per further symbol, by name. `context["run"]` says which run it comes from.

    Raises:
        DataError: A verdict's line is not one of this version.
    """
    by_run: dict[str, list[Mapping[str, Any]]] = {}
    runs_of: dict[_Look, set[str]] = {}
    for line in entries:
        name = context_of(line).get("run")
        if line["kind"] == "verdict" and line["purpose"] == "promotion" and isinstance(name, str):
            by_run.setdefault(name, []).append(line)
            runs_of.setdefault(_look(line), set()).add(name)
    waiting = {run}
    for verdict in verdicts:
        waiting |= runs_of.get((verdict.symbol, verdict.window["hash"], verdict.attempt), set())
    reached: set[str] = set()
    while waiting:
        reached.add(name := waiting.pop())
        for line in by_run.get(name, []):
            waiting |= runs_of[_look(line)] - reached
    present = {verdict.symbol for verdict in verdicts}
    members: dict[str, Verdict] = {}
    for name in sorted(reached):
        for line in by_run.get(name, []):
            if line["symbol"] in present:
                continue
            verdict = stored_verdict(line)
            known = members.get(verdict.symbol)
            if known is None or _claimed_p(verdict) > _claimed_p(known):
                members[verdict.symbol] = verdict
    return [members[symbol] for symbol in sorted(members)]


def context_of(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return how the verdict of a ledger line came about; empty for other lines and those of older versions."""
    verdict = line.get("verdict")
    context = verdict.get("context") if isinstance(verdict, dict) else None
    return context if isinstance(context, dict) else {}


def stored_verdict(line: Mapping[str, Any]) -> Verdict:
    """Return the verdict that a ledger line holds.

    Raises:
        DataError: It is not one of this version.
    """
    try:
        verdict = Verdict.from_dict(line["verdict"])
        _SHAPE.validate_json(json.dumps(line["verdict"]), strict=True)
        _Context.model_validate_json(json.dumps(verdict.context), strict=True)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the ledger's verdict on {line['symbol']}, {line['purpose']}, look {line['attempt']}, is not one of "
            f"this version: {what_is_wrong(error)}"
        ) from error
    return verdict


class _Context(BaseModel):
    """What of a verdict's context is read, where it is there."""

    run: str = ""
    weights: str = ""
    alpha: float = 0.0
    asked: dict[str, Any] = {}
    null_bank: dict[str, str] = {}
    null_bank_caution: str = ""


_SHAPE = TypeAdapter(Verdict)


def what_is_wrong(error: Exception) -> str:
    """Return in a sentence what keeps a line of the ledger from being read."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}, found {first['input']!r}"
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error)


def _look(line: Mapping[str, Any]) -> _Look:
    return line["symbol"], line["window_hash"], line["attempt"]


def _claimed_p(verdict: Verdict) -> float:
    """Return the corrected p of what would be promoted, infinity for anything else: as a family counts it."""
    p = corrected_p(verdict) if verdict.passed else math.inf
    return math.inf if math.isnan(p) else p
