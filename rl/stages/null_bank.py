"""Trading that cannot have an edge, put through the gates: what passes there has not been shown to be one.

The null bank is flat, buy-and-hold, always short, the candidate's positions at random times, the candidate with its
sign flipped, and following the last bar. It is used twice:

* before a run, `refuse_if_nulls_pass` puts it through the plan's gates on the calibration bank of
  `rl.stages.null_markets`, where nothing can be earned, and refuses a plan whose promotions would mean nothing;
* at every gate, `judge_nulls` puts it through that gate on the candidate's own window, to be shown beside the verdict.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from rl.backtest.baselines import Baseline, baselines, sign_flipped
from rl.backtest.engine import Replay
from rl.common.atomic_files import write_json
from rl.common.compiled import cache_for_this_code
from rl.common.errors import ConfigError
from rl.common.seeding import generator
from rl.stages import gates
from rl.stages.evaluation import trade_record
from rl.stages.gates import Outcome, TradeRecord, Verdict
from rl.stages.null_markets import KINDS, MARKETS, MOST_AMOUNT, calibration_records
from rl.stages.plan import STAGES, Criteria, Evidence, Plan
from rl.stages.stage_model import STAGE_TITLES
from rl.stages.symbol_data import SymbolData

RANDOM_DRAWS = 20
"""Random timings judged at each gate of a run."""

MOST_PROMOTED = 5
"""Of 100 markets without an edge: the promise a plan has to keep."""

TITLES = {
    "flat": "flat",
    "buy_and_hold": "buy-and-hold",
    "always_short": "always-short",
    "random": "random",
    "sign_flipped": "sign-flipped",
    "last_bar_sign": "last-bar sign",
    "long_by_day": "always long, flat in the evening",
    "random_long": "long at random times",
    "random_side_by_session": "a random side each session",
}
"""What people are told. The first six are the null bank; the others trade on the calibration bank only."""


# --- at a gate --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class NullOutcome:
    """What a gate said to one null policy."""

    policy: str
    outcomes: tuple[Outcome, ...]
    """One, or one per random draw; none where the policy could not be tried."""
    unavailable: str | None = None
    """Why it could not."""

    @property
    def passes(self) -> int:
        """Draws that were passed."""
        return self.outcomes.count("PASS")

    def text(self) -> str:
        """Return the outcome, `3 of 20 PASS`, or why there is none."""
        if not self.outcomes:
            return f"not tried: {self.unavailable}"
        if len(self.outcomes) == 1:
            return self.outcomes[0]
        return f"{self.passes} of {len(self.outcomes)} PASS"


def null_replays(
    data: SymbolData, replay: Replay, window: str, *, draws: int = RANDOM_DRAWS
) -> tuple[Baseline, ...]:
    """Return the null bank replayed on a window by the kernel, under the candidate's rules and capital.

    Args:
        data: The symbol.
        replay: What the candidate did on the window.
        window: Name of the window.
        draws: Random timings.
    """
    place = data.market, data.window(window), data.rules, replay.capital
    stream = generator(0, "null bank", data.symbol, window)
    each = {null.name: null for null in baselines(*place, replay, stream, draws)}
    each["sign_flipped"] = sign_flipped(*place, replay)
    return tuple(each[name] for name in TITLES if name in each)


def judge_nulls(
    data: SymbolData, nulls: Iterable[Baseline], window: str, judge: Callable[[TradeRecord], Verdict]
) -> tuple[NullOutcome, ...]:
    """Put each null policy through a gate.

    Args:
        data: The symbol.
        nulls: From `null_replays`.
        window: Name of the window they traded.
        judge: The candidate's gate, with its criteria, alpha and attempt, but not asking for training episodes.
    """
    by_name = {null.name: null for null in nulls}
    (held,) = by_name["buy_and_hold"].replays
    return tuple(
        NullOutcome(
            policy=name,
            outcomes=tuple(
                judge(trade_record(data, each, window, None, held)).outcome for each in null.replays
            ),
            unavailable=null.unavailable,
        )
        for name, null in by_name.items()
    )


def beside_nulls(
    verdict: Verdict, data: SymbolData, replay: Replay, criteria: Criteria, *, alpha: float
) -> Verdict:
    """Return a verdict with what the same gate says to the null bank on the same window; the outcome is the same.

    `context["null_bank"]` holds each policy's outcome, or `3 of 20 PASS`. Where the candidate is promoted and a null
    policy would be too, `context["null_bank_caution"]` says so. Looks at the window are not counted: no model is
    chosen by them.

    Args:
        verdict: Of `progress_verdict` or `promotion_verdict` on the candidate.
        data: Its symbol.
        replay: What it did on the window.
        criteria: What it was asked.
        alpha: What all looks at the window may spend together.
    """
    window = verdict.window["name"]
    gate = ConfiguredGate(verdict.level, verdict.stage, verdict.symbol, criteria, alpha, verdict.attempt)
    nulls = judge_nulls(data, null_replays(data, replay, window), window, gate.judge)
    context = {**verdict.context, "null_bank": {null.policy: null.text() for null in nulls}}
    suspicious = [null for null in nulls if null.passes > len(null.outcomes) * MOST_PROMOTED / 100]
    if verdict.level == "promotion" and verdict.passed and suspicious:
        told = ", ".join(f"{TITLES[null.policy]} ({null.text()})" for null in suspicious)
        context["null_bank_caution"] = (
            f"CAUTION: on this very window the gate would also promote trading that has no edge: {told}. "
            "What was shown may be the window's doing, not the model's."
        )
    return replace(verdict, context=context)


# --- before a run -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConfiguredGate:
    """One gate as some part of the plan configures it."""

    level: gates.Level
    stage: str
    symbol: str | None
    """Whose block of `symbols` it is; None for the plan's own."""
    criteria: Criteria
    alpha: float
    attempt: int = 1

    def judge(self, record: TradeRecord) -> Verdict:
        """Put one record through it; training episodes, which a null policy has none of, are not asked for."""
        # Asked of the module, so that a gate that was replaced is the one tested.
        verdict = gates.promotion_verdict if self.level == "promotion" else gates.progress_verdict
        return verdict(
            record,
            dataclasses.replace(self.criteria, min_episodes=None),
            symbol=self.symbol or "null bank",
            stage=self.stage,
            window={"name": "null bank"},
            attempt=self.attempt,
            alpha=self.alpha,
        )


@dataclass(frozen=True, kw_only=True)
class NullPasses:
    """How often one null policy passed one gate on one kind of market."""

    level: str
    stage: str
    symbol: str | None
    alpha: float
    policy: str
    kind: str
    """Key of `KINDS`."""
    passed: int
    markets: int

    def text(self) -> str:
        """Return policy and count in words."""
        return f"{TITLES[self.policy]} in {self.passed} of {self.markets} {KINDS[self.kind]}"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How often each null policy passed each gate of a plan on the calibration bank."""

    passes: tuple[NullPasses, ...]

    def too_many(self) -> list[NullPasses]:
        """Return where a policy without an edge was promoted more often than promised."""
        return [
            found
            for found in self.passes
            if found.level == "promotion" and found.passed > MOST_PROMOTED * found.markets / 100
        ]

    def most(self, level: str, stage: str, symbol: str | None = None) -> NullPasses:
        """Return the policy that passed a gate most often."""
        own = [
            found
            for found in self.passes
            if (found.level, found.stage, found.symbol) == (level, stage, symbol)
        ]
        return max(own, key=lambda found: found.passed)

    def notes(self) -> list[str]:
        """Return what a reader of the verdicts should know about the gates."""
        promoted = max((self.most("promotion", stage) for stage in STAGES), key=lambda found: found.passed)
        lines = [
            f"Null bank: the promotion gate lets trading without an edge through at most in {promoted.passed} of "
            f"{promoted.markets} markets ({TITLES[promoted.policy]}, {KINDS[promoted.kind]})."
        ]
        for stage in STAGES[:2]:
            most = self.most("progress", stage)
            if most.passed > MOST_PROMOTED * most.markets / 100:
                lines.append(
                    f"Null bank: the gate after {STAGE_TITLES[stage]} is passed by {most.text()}; it is permission to "
                    "go on, not evidence."
                )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        return {"passes": [asdict(found) for found in self.passes]}


def refuse_if_nulls_pass(plan: Plan) -> Calibration:
    """Return how often trading without an edge passes the plan's gates; refuse a plan under which it is promoted.

    Every gate the plan configures, per-symbol blocks included, judges the calibration bank at the first look. A gate
    that asks for more trades or sessions than the bank's markets have is judged as if it asked for what they have: on
    more data worthless trading passes no more often. The counts depend on the gates and on the code alone, and are
    kept with the compiled code; a file of them that was damaged is counted anew. The adaptation gate compares a policy
    with itself and has no null bank.

    Raises:
        ConfigError: Under some gate a null policy is promoted in more than `MOST_PROMOTED` of 100 markets.
    """
    found = _remembered(gates_of(plan))
    if refused := found.too_many():
        raise ConfigError(_refusal(plan, refused))
    return found


def calibrate(asked: Sequence[ConfiguredGate]) -> Calibration:
    """Put the calibration bank through gates.

    Criteria only ever take promotions away, so those are judged on the records that evidence alone promotes.
    """
    passes = []
    promoted: dict[tuple[str, str, float], list[TradeRecord]] = {}
    for (kind, policy), records in calibration_records().items():
        for gate in asked:
            if gate.level == "promotion":
                key = (kind, policy, gate.alpha)
                if key not in promoted:
                    bare = dataclasses.replace(gate, criteria=_EVIDENCE_ALONE)
                    promoted[key] = [record for record in records if bare.judge(record).passed]
                passed = sum(gate.judge(record).passed for record in promoted[key])
            elif kind == "noise":
                passed = sum(gate.judge(record).passed for record in records)
            else:
                continue
            passes.append(
                NullPasses(
                    level=gate.level,
                    stage=gate.stage,
                    symbol=gate.symbol,
                    alpha=gate.alpha,
                    policy=policy,
                    kind=kind,
                    passed=passed,
                    markets=MARKETS,
                )
            )
    return Calibration(passes=tuple(passes))


_EVIDENCE_ALONE = Criteria(
    min_win_rate=None,
    min_profit_factor=None,
    max_drawdown=None,
    min_trades=1,
    min_sessions=2,
    min_episodes=0,
    min_adaptation_speed=None,
    min_cross_symbol_performance=None,
)


def gates_of(plan: Plan) -> list[ConfiguredGate]:
    """Return every gate a plan configures: its own, and those of a symbol's block that differ from them."""
    found: list[ConfiguredGate] = []
    for symbol in (None, *plan.symbols):
        own = plan if symbol is None else plan.for_symbol(symbol)
        for level, stages in (("progress", STAGES[:2]), ("promotion", STAGES)):
            for stage in stages:
                asked = own.criteria(stage)
                criteria = dataclasses.replace(
                    asked,
                    min_trades=min(asked.min_trades, MOST_AMOUNT),
                    min_sessions=min(asked.min_sessions, MOST_AMOUNT),
                    min_episodes=0,
                )
                numbers = (asked.min_win_rate, asked.min_profit_factor, asked.max_drawdown)
                if level == "progress" and all(number is None for number in numbers):
                    continue  # refused by the gate itself
                gate = ConfiguredGate(level, stage, symbol, criteria, own.evidence.alpha)
                if symbol is None or dataclasses.replace(gate, symbol=None) not in found:
                    found.append(gate)
    return found


def _remembered(asked: Sequence[ConfiguredGate]) -> Calibration:
    """Return the counts of an earlier run of the same code, or count."""
    folder = cache_for_this_code("null_bank")
    described = [[asdict(gate) for gate in asked], np.__version__, scipy.__version__]
    name = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32]
    path = folder / f"{name}.json" if folder else None
    found = _read(path) if path is not None and path.exists() else None
    if found is None:
        found = calibrate(asked)
        if path is not None:
            counts = found.to_dict()
            write_json(path, {**counts, "sha256": _digest(counts["passes"])})
    return found


def _read(path: Path) -> Calibration | None:
    """Return the counts in a file; None where it is not as it was written, so that they have to be counted anew."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # not JSON, or not even text
        return None
    if not isinstance(stored, dict) or stored.get("sha256") != _digest(stored.get("passes")):
        return None
    return Calibration(passes=tuple(NullPasses(**each) for each in stored["passes"]))


def _digest(passes: Any) -> str:
    return hashlib.sha256(json.dumps(passes, sort_keys=True).encode()).hexdigest()


def _refusal(plan: Plan, refused: Sequence[NullPasses]) -> str:
    lines = [
        "The plan's promotion gate promotes trading that has no edge, so its verdicts would prove nothing:"
    ]
    for symbol in dict.fromkeys(found.symbol for found in refused):
        own = [found for found in refused if found.symbol == symbol]
        stages = [STAGE_TITLES[stage] for stage in dict.fromkeys(found.stage for found in own)]
        worst = {}
        for found in sorted(own, key=lambda found: -found.passed):
            worst.setdefault((found.policy, found.kind), found)
        whose = f" (gates of {symbol})" if symbol else ""
        lines.append(f"  evidence.alpha is {own[0].alpha:g}. Promoted{whose} after {', '.join(stages)}:")
        lines += [f"    {found.text()}" for found in worst.values()]
        lines.append(f"    At most {MOST_PROMOTED} of 100 are promised. {_remedy(plan, symbol)}")
    return "\n".join(lines)


def _remedy(plan: Plan, symbol: str | None) -> str:
    """Return what to change, after trying it."""
    usual = Evidence().alpha
    own = [
        dataclasses.replace(gate, alpha=min(gate.alpha, usual))
        for gate in gates_of(plan)
        if gate.symbol == symbol and gate.level == "promotion"
    ]
    if calibrate(own).too_many():
        return (
            f"No setting of the plan accounts for it: at alpha {usual:g} it happens too. The gate's code is at fault; "
            "undo changes to rl/stages/gates.py and rl/stages/evidence.py, or install this version anew."
        )
    return f"Write evidence.alpha: {usual:g}, or less; then none is promoted more often than promised."
