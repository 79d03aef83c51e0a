"""Promotion verdicts and judged symbols whose p value is chosen, not measured."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rl.stages.evidence import EvidenceLedger
from rl.stages.gates import TradeRecord, Verdict, promotion_verdict
from rl.stages.judgement import SymbolRun, circumstances
from rl.stages.model_files import checkpoint_of, write_model
from rl.stages.outcomes import StageOutcome, SymbolOutcome
from rl.stages.plan import Plan
from rl.stages.symbol_data import SymbolData
from tests.unit.stages.small_symbol import edge_model

SESSIONS = 60
WINDOW = {
    "name": "promotion",
    "from": "2024-01-02T00:00:00Z",
    "to": "2024-03-29T00:00:00Z",
    "data_hash": "abc",
    "hash": "0123456789abcdef",
}


@dataclass(frozen=True)
class NothingAsked:
    """Criteria that ask for nothing, so that p and intercept alone decide."""

    min_win_rate: float | None = None
    min_profit_factor: float | None = None
    max_drawdown: float | None = None
    min_trades: int | None = None
    min_sessions: int | None = None
    min_episodes: int | None = None


def promotion_of(symbol: str, t: float, *, attempt: int = 1, alpha: float = 0.05, **changes: Any) -> Verdict:
    """Return the promotion verdict on a record of 60 sessions, one trade each, whose t value is exactly `t`."""
    values = np.random.default_rng(5).normal(size=SESSIONS)
    values = (values - values.mean()) / values.std(ddof=1) + t / np.sqrt(SESSIONS)
    record = TradeRecord(
        net_pnl=values,
        trade_session=np.arange(SESSIONS),
        # A return beyond buy-and-hold that is far from doubt, so that p is that of the mean trade.
        session_returns=(values + 1.0) / 1e4,
        benchmark_session_returns=np.random.default_rng(9).normal(0.0, 0.01, SESSIONS),
        max_drawdown=0.1,
    )
    verdict = promotion_verdict(
        record, NothingAsked(), symbol=symbol, stage="ppo", window=WINDOW, attempt=attempt, alpha=alpha
    )
    return replace(verdict, **changes)


def untested(symbol: str) -> Verdict:
    """Return the promotion verdict on a record without a trade: nothing to test."""
    nothing = TradeRecord(
        net_pnl=np.empty(0),
        trade_session=np.empty(0, dtype=int),
        session_returns=np.zeros(SESSIONS),
        benchmark_session_returns=np.random.default_rng(9).normal(0.0, 0.01, SESSIONS),
        max_drawdown=0.0,
    )
    return promotion_verdict(nothing, NothingAsked(), symbol=symbol, stage="ppo", window=WINDOW)


@dataclass
class Heard:
    """A listener that keeps what was said."""

    texts: list[tuple[str, str]] = field(default_factory=list)

    def stage_started(
        self, symbol: str, stage: str, total: int, unit: str, why: str, attempt: int = 1
    ) -> None:
        """Nothing is trained here."""
        raise AssertionError("a settlement trains nothing")

    def progressed(self, symbol: str, stage: str, figures: dict[str, Any]) -> None:
        """Nothing is trained here."""
        raise AssertionError("a settlement trains nothing")

    def judged(
        self,
        symbol: str,
        stage: str,
        verdict: Verdict,
        seconds: float,
        cpu_seconds: float,
        attempts: int = 1,
    ) -> None:
        """Nothing is judged here."""
        raise AssertionError("a settlement judges nothing")

    def said(self, symbol: str, text: str) -> None:
        """Keep a line."""
        self.texts.append((symbol, text))


def judged_outcome(
    data: SymbolData,
    plan: Plan,
    t: float,
    *,
    models: Path,
    ledger: EvidenceLedger,
    run_name: str = "run-1",
    follow: float = 1.0,
    subject: str | None = None,
) -> SymbolOutcome:
    """Return a symbol as its sequence leaves it: a stage file, a look and a verdict in the ledger, no final model.

    Each run takes looks of its own, unless a subject is given: then it is one look, however many runs take it.
    """
    model = edge_model(plan, follow=follow)
    run = SymbolRun(data, plan, (), None, models, ledger, Heard(), run_name)
    stage_verdict = replace(
        promotion_of(data.symbol, 5.0),
        level="progress",
        context=circumstances(run, model, plan.criteria("ppo")),
    )
    file = write_model(models, checkpoint_of(data, plan, model, stage_verdict, lineage=[], run_name=run_name))
    subject = subject or f"{run_name} {model.fingerprint()}"
    attempt = ledger.record(data.symbol, WINDOW["hash"], "promotion", subject=subject)
    verdict = promotion_of(
        data.symbol, t, attempt=attempt, context=circumstances(run, model, plan.criteria("ppo"))
    )
    ledger.conclude(data.symbol, WINDOW["hash"], "promotion", attempt, verdict=verdict.to_dict())
    stage = StageOutcome(
        stage="ppo",
        model=model,
        verdict=stage_verdict,
        attempts=(stage_verdict,),
        file=file,
        wall_seconds=0.0,
        cpu_seconds=0.0,
        validation={},
        champion=None,
    )
    return SymbolOutcome(
        symbol=data.symbol,
        stages=(stage,),
        champion="ppo",
        champion_file=file,
        promotion=verdict,
        final_file=None,
        stopped=None,
        impossible=None,
        notes=(),
        windows={},
        bars=len(data.bars),
        features=2,
        seconds=0.0,
    )
