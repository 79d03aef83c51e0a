"""A model's verdicts recomputed from the ledger and the evidence beside it: no kernel, no weights, no bars.

Trades are put together from the logged fills, session returns and drawdown from the logged equity, tests from
`evidence.py`, and what the family of a run decided from the ledger's own lines. Whoever distrusts a verdict can check
it, and a changed digit in log or ledger shows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from rl.common.atomic_files import sha256_of
from rl.common.errors import DataError
from rl.stages.adaptation_gate import adaptation_verdict, with_own_criteria
from rl.stages.evaluation import iso_utc
from rl.stages.evidence import EvidenceLedger, counted_attempt
from rl.stages.evidence_log import ActionLog, read_action_log, read_windows_log
from rl.stages.family import context_of, stored_verdict, what_is_wrong
from rl.stages.gates import Verdict, across_symbols, progress_verdict, promotion_verdict
from rl.stages.plan import Criteria


class _File(BaseModel):
    file: str
    sha256: str


class _Family(BaseModel):
    symbols: list[str]
    p: list[float | None]
    q: float
    corrected_p: float | None
    rank_threshold: float
    survived: bool
    from_runs: dict[str, str] = {}


class _Settlement(BaseModel):
    run: str
    stage: str
    outcome: str
    reasons: list[str]
    sessions_needed: int | None
    family: _Family


_EVIDENCE = TypeAdapter(dict[str, _File])
_SETTLEMENT = TypeAdapter(_Settlement)

PURPOSES = ("progress", "adaptation", "promotion")
"""What looks are taken for, in the order of a model's way."""

_COPIED = ("context.", "window.name", "window.data_hash", "metrics.episodes", "symbol", "stage", "level")
"""Places of a verdict that ledger and evidence cannot give again: they are taken from the stored one."""

_FAMILY = "context.family."

TOLERANCE = 1e-12
"""Relative difference up to which two figures agree."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One verdict beside what its evidence says."""

    purpose: str
    time: str
    """When the verdict was written into the ledger, ISO UTC."""
    stored: Verdict
    """As the ledger has it; a promotion as it was settled among the symbols of its run."""
    recomputed: Verdict | None
    """From ledger and evidence alone; None where that is impossible."""
    evidence: tuple[str, ...]
    """Files it was recomputed from."""
    compared: int
    """Figures and texts compared; what could only be copied from the ledger is not among them."""
    differences: tuple[str, ...]
    """What does not agree, or why nothing could be recomputed; empty where everything agrees."""
    notes: tuple[str, ...] = ()
    """What is worth knowing and no difference."""

    @property
    def agrees(self) -> bool:
        """True where the verdict was recomputed and not one figure differs."""
        return self.recomputed is not None and not self.differences


def explained(
    ledger: EvidenceLedger, symbol: str, weights: str, model_verdict: Mapping[str, Any] | None = None
) -> list[Explanation]:
    """Return every kind of verdict on a model, each the latest, recomputed.

    Args:
        ledger: Where the verdicts are; the evidence lies in its folder.
        symbol: The symbol the model trades.
        weights: Fingerprint of its weights.
        model_verdict: The verdict its file carries; compared too. Verdicts of the same run and stage are preferred.

    Raises:
        DataError: The ledger is damaged, or holds no verdict on these weights.
    """
    entries = ledger.entries()
    own = model_verdict or {}
    own_run, own_stage = own.get("context", {}).get("run"), own.get("stage")
    found = []
    for purpose in PURPOSES:
        lines = [
            line
            for line in _lines(entries, "verdict", symbol=symbol, purpose=purpose)
            if context_of(line).get("weights") == weights
        ]
        lines = [line for line in lines if context_of(line).get("run") == own_run] or lines
        lines = [line for line in lines if line["verdict"].get("stage") == own_stage] or lines
        if lines:
            found.append(_explained(ledger, entries, lines[-1], model_verdict))
    if not found:
        raise DataError(
            f"{ledger.path} holds no verdict on this model of {symbol} (weights {weights[:12]}…). It was judged under "
            "another --reports-dir, or by a version that did not write whole verdicts; judge it again by training."
        )
    return found


def _lines(entries: Sequence[dict[str, Any]], kind: str, **wanted: Any) -> list[dict[str, Any]]:
    return [
        entry
        for entry in entries
        if entry["kind"] == kind and all(entry.get(name) == value for name, value in wanted.items())
    ]


def _same_look(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in ("symbol", "purpose", "window_hash", "attempt")}


def _explained(
    ledger: EvidenceLedger,
    entries: list[dict[str, Any]],
    line: dict[str, Any],
    model_verdict: Mapping[str, Any] | None,
) -> Explanation:
    stored = stored_verdict(line)
    evidence = line.get("evidence") or {}
    _check_shape(evidence, _EVIDENCE, line, "evidence")
    differences, notes = _wrong_files(ledger.path.parent, line), []
    if line.get("outcome") != stored.outcome:
        differences.append(f"the ledger's line says {line.get('outcome')}, its verdict {stored.outcome}")
    recomputed = None
    try:
        recomputed = _recomputed(ledger, entries, line, stored)
    except (DataError, AttributeError, KeyError, TypeError, ValueError) as error:
        differences.append(f"cannot be recomputed: {type(error).__name__}: {error}")
    compared = 0
    if recomputed is not None:
        compared, found = _compared_again(stored, recomputed)
        differences += found
    if line["purpose"] == "promotion":
        run = stored.context.get("run")
        settlements = _lines(entries, "settlement", run=run, **_same_look(line))
        if not settlements:
            notes.append(
                "Not settled: the run ended before all its symbols were judged. Nothing was promoted."
            )
        else:
            _check_shape(settlements[-1], _SETTLEMENT, line, "settlement")
            settled = _as_settled(stored, settlements[-1])
            if recomputed is not None:
                try:
                    recomputed, found = _settled_again(entries, recomputed, settlements[-1])
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    found = [f"the family cannot be recomputed: {type(error).__name__}: {error}"]
                # All that was compared before, and the family.
                compared, of_the_family = _compared_again(settled, recomputed)
                differences += [each for each in [*found, *of_the_family] if each not in differences]
            stored = settled
    if model_verdict and _is_of(model_verdict, stored):
        _, found = _compared(dict(model_verdict), stored.to_dict())
        differences += [f"the model's file and the ledger differ: {each}" for each in found]
    return Explanation(
        purpose=line["purpose"],
        time=str(line.get("time", "")),
        stored=stored,
        recomputed=recomputed,
        evidence=tuple(each["file"] for each in evidence.values()),
        compared=compared,
        differences=tuple(differences),
        notes=tuple(notes),
    )


def _check_shape(value: Any, shape: TypeAdapter[Any], line: Mapping[str, Any], what: str) -> None:
    """Refuse a part of the ledger that lacks what is needed or holds something else: it was edited."""
    try:
        shape.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise DataError(
            f"the ledger's {what} of {line['symbol']}, {line['purpose']}, look {line['attempt']}, was edited or is not "
            f"of this version: {what_is_wrong(error)}.\n  Restore the ledger from a copy."
        ) from error


def _is_of(model_verdict: Mapping[str, Any], stored: Verdict) -> bool:
    """Return True where the model's file carries this very verdict."""
    same_run = model_verdict.get("context", {}).get("run") == stored.context.get("run")
    return (
        same_run
        and model_verdict.get("level") == stored.level
        and model_verdict.get("attempt") == stored.attempt
    )


# --- from the evidence ------------------------------------------------------------------------------------------------


def _wrong_files(folder: Path, line: Mapping[str, Any]) -> list[str]:
    """Return which files of the evidence are missing or not those the verdict was computed from."""
    evidence = line.get("evidence")
    if not evidence:
        return ["the ledger's line names no evidence"]
    wrong = []
    for each in evidence.values():
        path = folder / each["file"]
        if not path.is_file():
            wrong.append(f"{path} is missing")
        elif (found := sha256_of(path)) != each["sha256"]:
            wrong.append(
                f"{path} was changed: its SHA-256 is {found[:12]}…, the ledger says {each['sha256'][:12]}…"
            )
    return wrong


def _recomputed(
    ledger: EvidenceLedger, entries: list[dict[str, Any]], line: Mapping[str, Any], stored: Verdict
) -> Verdict:
    folder, evidence = ledger.path.parent, line["evidence"]
    looks = _lines(entries, "look", **_same_look(line))
    if not looks:
        raise DataError("the ledger holds no look of this number")
    log = read_action_log(folder / evidence["actions"]["file"])
    asked = Criteria(**stored.context["asked"])
    shared: dict[str, Any] = {
        "symbol": line["symbol"],
        "window": _window(stored, log, line),
        "attempt": counted_attempt(entries, looks[0]),
        "alpha": stored.context["alpha"],
        "context": stored.context,
    }
    if line["purpose"] == "progress":
        record = log.record(stored.metrics["episodes"])
        return progress_verdict(record, asked, stage=stored.stage, **shared)
    if line["purpose"] == "promotion":
        return promotion_verdict(log.record(None), asked, stage=stored.stage, **shared)
    proof, across = read_windows_log(folder / evidence["windows"]["file"])
    verdict = adaptation_verdict(
        proof, asked, across, evaluation_steps=stored.context["evaluation_steps"], **shared
    )
    return with_own_criteria(verdict, log.record(None), asked, stored.context["alpha"])


def _window(stored: Verdict, log: ActionLog, line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the window with what log and ledger say of it; the hash of the raw file is beyond both."""
    first, last = int(log.close_time[0]), int(log.close_time[-1])
    return {**stored.window, "from": iso_utc(first), "to": iso_utc(last), "hash": line["window_hash"]}


# --- the family of a run ----------------------------------------------------------------------------------------------


def _as_settled(stored: Verdict, settlement: Mapping[str, Any]) -> Verdict:
    return replace(
        stored,
        outcome=settlement["outcome"],
        reasons=tuple(settlement["reasons"]),
        sessions_needed=settlement["sessions_needed"],
        context={**stored.context, "family": settlement["family"]},
    )


def _settled_again(
    entries: list[dict[str, Any]], own: Verdict, settlement: Mapping[str, Any]
) -> tuple[Verdict, list[str]]:
    """Return the verdict settled with those of its family in the ledger, and what is missing there."""
    run, missing, family, joined = settlement["run"], [], [own], []
    from_runs = settlement["family"].get("from_runs", {})
    for symbol in settlement["family"]["symbols"]:
        if symbol == own.symbol:
            continue
        member_of = from_runs.get(symbol, run)
        line = (
            _judged_in(entries, symbol, member_of)
            if symbol in from_runs
            else _settled_in(entries, symbol, run)
        )
        if line is None:
            missing.append(f"the ledger holds no promotion verdict on {symbol} of run {member_of}")
        else:
            (joined if symbol in from_runs else family).append(stored_verdict(line))
    return across_symbols(family, settlement["family"]["q"], joined)[0], missing


def _judged_in(entries: list[dict[str, Any]], symbol: str, run: str, **look: Any) -> dict[str, Any] | None:
    """Return the line of a symbol's promotion verdict in a run, which need not have been settled."""
    wanted = {"symbol": symbol, "purpose": "promotion", **look}
    lines = [line for line in _lines(entries, "verdict", **wanted) if context_of(line).get("run") == run]
    return lines[-1] if lines else None


def _settled_in(entries: list[dict[str, Any]], symbol: str, run: str) -> dict[str, Any] | None:
    """Return the line of the promotion verdict on a symbol that was settled in a run."""
    settled = _lines(entries, "settlement", symbol=symbol, run=run, purpose="promotion")
    return _judged_in(entries, run=run, **_same_look(settled[-1])) if settled else None


# --- comparing --------------------------------------------------------------------------------------------------------


def _compared(stored: Mapping[str, Any], recomputed: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Return how many figures and texts were compared, and which differ."""
    return _differing(dict(_leaves(stored)), dict(_leaves(recomputed)))


def _differing(one: dict[str, Any], other: dict[str, Any]) -> tuple[int, list[str]]:
    places = [*one, *(place for place in other if place not in one)]
    found = [
        f"{place}: stored {_shown(one, place)}, recomputed {_shown(other, place)}"
        for place in places
        if place not in one or place not in other or not _agree(one[place], other[place])
    ]
    return len(places), found


def _compared_again(stored: Verdict, recomputed: Verdict) -> tuple[int, list[str]]:
    """Return how many places of a verdict were recomputed, and which differ; what was copied proves nothing."""

    def own(verdict: Verdict) -> dict[str, Any]:
        leaves = dict(_leaves(verdict.to_dict()))
        return {
            place: value
            for place, value in leaves.items()
            if place.startswith(_FAMILY) or not place.startswith(_COPIED)
        }

    return _differing(own(stored), own(recomputed))


def _shown(leaves: Mapping[str, Any], place: str) -> str:
    return repr(leaves[place]) if place in leaves else "nothing"


def _agree(one: Any, other: Any) -> bool:
    numbers = all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in (one, other))
    if numbers:
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=0.0)
    return type(one) is type(other) and one == other


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{place}.{name}" if place else str(name))
    elif isinstance(value, (list, tuple)) and value:
        for number, inner in enumerate(value):
            # A criterion is known by its name.
            name = inner.get("name", number) if isinstance(inner, Mapping) else number
            yield from _leaves(inner, f"{place}.{name}")
    else:
        yield place, list(value) if isinstance(value, tuple) else value
