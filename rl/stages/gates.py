"""Verdicts on a stage's model: may it go on, and may it be used?

*Progress* is permission to spend compute: every point criterion met on enough data. *Promotion* is a claim:
progress on a window nobody has looked at, and evidence that the mean trade earns money after costs and that
the record is more than a share of buy-and-hold. Each answers PASS, FAIL or INCONCLUSIVE, with every figure
beside its threshold.

A figure that cannot be computed never passes: a record without trades has no win rate, and one without a
losing trade has no profit factor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from rl.common.errors import ConfigError
from rl.stages.evidence import (
    ClusteredTest,
    Intercept,
    alpha_for_attempt,
    benjamini_hochberg,
    intercept_against,
    paired_test,
    profit_factor_excess,
    profit_factor_interval,
    session_clustered_t,
    sessions_needed,
    sessions_to_show,
    win_rate_excess,
)
from rl.stages.reasons import readable_reasons
from rl.trading.metrics import (
    break_even_win_rate,
    expectancy,
    figures,
    payoff_ratio,
    profit_factor,
    reason_not_computed,
    sharpe_ratio,
    wilson_interval,
    win_rate,
)

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Level = Literal["progress", "promotion", "adaptation"]
Direction = Literal["at least", "at most"]

_STAGE_WORDS = {"ppo": "stage 1 (ppo)", "moe": "stage 2 (moe)", "maml": "stage 3 (maml)"}

# Criteria that say how much there is to judge, not how good it is. Missing one means too little data.
_AMOUNTS = ("trades", "sessions")

_EDGE = "p_no_edge"


class Criteria(Protocol):
    """What a gate asks for; None where it does not ask."""

    @property
    def min_win_rate(self) -> float | None:
        """Least share of closed trades that win."""
        ...

    @property
    def min_profit_factor(self) -> float | None:
        """Least money won per unit of money lost."""
        ...

    @property
    def max_drawdown(self) -> float | None:
        """Most that marked equity may fall below its peak, a fraction."""
        ...

    @property
    def min_trades(self) -> int | None:
        """Closed trades below which nothing is decided."""
        ...

    @property
    def min_sessions(self) -> int | None:
        """Sessions with trades below which nothing is decided."""
        ...

    @property
    def min_episodes(self) -> int | None:
        """Training episodes a model needs behind it."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class TradeRecord:
    """What a model did on a window, net of costs. Axes: n closed trades, S sessions of the window."""

    net_pnl: np.ndarray
    """Net result of each closed trade, money. (n,)"""
    trade_session: np.ndarray
    """Session in which each trade was closed. (n,)"""
    session_returns: np.ndarray
    """Net return of every session of the window, traded or not, fractions. (S,)"""
    benchmark_session_returns: np.ndarray | None
    """Return of buy-and-hold in the same sessions; None where there is none to compare with. (S,)"""
    max_drawdown: float
    """Largest fall of marked equity below its peak, a fraction."""
    episodes: int | None = None
    """Training episodes behind the model; None where that has no meaning."""

    def __post_init__(self) -> None:
        sessions = len(self.session_returns)
        if len(self.net_pnl) != len(self.trade_session):
            raise ValueError(f"{len(self.net_pnl)} trades have {len(self.trade_session)} sessions")
        if self.trading_sessions > sessions:
            raise ValueError(f"trades lie in {self.trading_sessions} sessions, but the window has {sessions}")
        if self.benchmark_session_returns is not None and len(self.benchmark_session_returns) != sessions:
            compared = len(self.benchmark_session_returns)
            raise ValueError(f"the benchmark has {compared} sessions, the record {sessions}")

    @property
    def trading_sessions(self) -> int:
        """Sessions in which at least one trade was closed."""
        return len(np.unique(self.trade_session))


@dataclass(frozen=True, kw_only=True)
class CriterionResult:
    """One figure beside what it was asked to be; None is what cannot be computed or does not apply."""

    name: str
    value: float | None
    threshold: float
    direction: Direction
    met: bool | None
    """None where the value cannot be computed; that does not pass."""
    lower: float | None = None
    """Lower end of the value's interval."""
    upper: float | None = None
    """Upper end of the value's interval."""
    p_below: float | None = None
    """Chance of a value this bad or worse if the truth is exactly at the threshold."""
    note: str = ""

    def cells(self) -> tuple[str, str, str, str, str]:
        """Return name, figure, interval, what was asked, and how far the figure is from it, as text."""
        interval = f"[{_number(self.lower, 3)}, {_number(self.upper, 3)}]"
        if self.lower is None and self.upper is None:
            interval = ""
        asked = f"{self.direction} {_number(self.threshold)}"
        judgement = f"{self._judgement()}; {self.note}" if self.note else self._judgement()
        return self.name, _number(self.value), interval, asked, judgement

    def _judgement(self) -> str:
        if self.value is None or self.met is None:
            return "cannot be computed"
        if self.met:
            return "ok"
        if self.direction == "at least":
            return f"short by {_number(self.threshold - self.value)}"
        return f"over by {_number(self.value - self.threshold)}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a gate decided and every number it decided by; JSON-able through `to_dict`."""

    outcome: Outcome
    level: Level
    symbol: str
    stage: str
    """Stage whose model was judged: ppo, moe or maml."""
    criteria: tuple[CriterionResult, ...]
    trades: int
    sessions: int
    """Sessions in which at least one trade was closed."""
    alpha_used: float
    """What this look was allowed to spend."""
    attempt: int
    """Which look at this window it was, from 1."""
    window: dict[str, Any]
    """name, from, to (ISO UTC) and data_hash of the data judged on."""
    reasons: tuple[str, ...]
    """Why it is not a PASS; empty for one."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Figures, null where not computed, and `not_computed` with the reasons."""
    sessions_needed: int | None = None
    """Further sessions that would settle it at the observed rate, or where nothing is earned, that are needed before
    anything can be decided; None for PASS, FAIL, or no number."""
    context: dict[str, Any] = field(default_factory=dict)
    """What else is needed to recompute it: code version, seed, cost model, hash of the weights."""

    @property
    def passed(self) -> bool:
        """True for PASS and nothing else."""
        return self.outcome == "PASS"

    def criterion(self, name: str) -> CriterionResult:
        """Return the result of one criterion; KeyError if the gate did not ask for it."""
        for result in self.criteria:
            if result.name == name:
                return result
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain numbers, strings, lists and dicts; `from_dict` restores it."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["criteria"] = [dict(vars(result)) for result in self.criteria]
        plain["reasons"] = list(self.reasons)
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Verdict:
        """Return the verdict that `to_dict` wrote down.

        Raises:
            TypeError: If keys are missing or unknown.
        """
        fields: dict[str, Any] = dict(plain)
        fields["criteria"] = tuple(CriterionResult(**result) for result in plain["criteria"])
        fields["reasons"] = tuple(plain["reasons"])
        return cls(**fields)

    def readable_reasons(self) -> list[str]:
        """Return the reasons as they are shown: large numbers of sessions with thousands marked and in years."""
        return readable_reasons(self.reasons, self.window, self.metrics)

    def lines(self) -> list[str]:
        """Return the verdict as text for a person: outcome, one line per figure, reasons, window."""
        stage = _STAGE_WORDS.get(self.stage, self.stage)
        title = {
            "progress": f"Gate after {stage} for {self.symbol}",
            "adaptation": f"Adaptation gate after {stage} for {self.symbol}",
            "promotion": f"Promotion of {self.symbol} after {stage}",
        }[self.level]
        rows = [result.cells() for result in self.criteria]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        text = [f"{title}: {self.outcome}"]
        for row in rows:
            padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            text.append("  " + "  ".join(padded).rstrip())
        text.extend(f"  {reason}" for reason in self.readable_reasons())
        if family := self.context.get("family"):
            text.append(f"  {_family_sentence(family)}")
        if nulls := self.context.get("null_bank"):
            told = (f"{policy.replace('_', '-')} {outcome}" for policy, outcome in nulls.items())
            text.append(f"  null bank: {', '.join(told)}")
        if self.passed and (caution := self.context.get("null_bank_caution")):
            text.append(f"  {caution}")
        name, start, stop = (self.window.get(key, "?") for key in ("name", "from", "to"))
        look = f"look {self.attempt} at it; alpha {_number(self.alpha_used)}"
        text.append(f"  Judged on the {name} window, {start} to {stop}, {look}.")
        return text


@dataclass(frozen=True, kw_only=True)
class ChampionDecision:
    """Whether a later stage's model takes the place of an earlier one."""

    replaces: bool
    mean_difference: float
    """Mean of later minus earlier return per session, a fraction; nan where nothing could be compared."""
    lower: float
    """One-sided lower bound of that mean; the later model takes over only where it is above zero."""
    p: float
    """Chance of a difference this large if the later model is no better."""
    text: str
    """The decision in a sentence."""


def progress_verdict(
    record: TradeRecord,
    criteria: Criteria,
    *,
    symbol: str,
    stage: str,
    window: Mapping[str, Any],
    attempt: int = 1,
    alpha: float = 0.05,
    confidence: float = 0.95,
    context: Mapping[str, Any] | None = None,
) -> Verdict:
    """Decide whether a stage's model may be trained further.

    PASS: every criterion met, on at least `min_trades` trades over `min_sessions` sessions. FAIL: one is missed
    with that much data; or, with any amount, is significantly missed, the drawdown is over its limit (more
    data cannot lower a maximum), or fewer than `min_episodes` were trained. INCONCLUSIVE: too little data, or
    a figure that cannot be computed.

    Args:
        record: What the model did on the window.
        criteria: What is asked; None in a field means not asked.
        symbol: The symbol traded.
        stage: ppo, moe or maml.
        window: name, from, to and data_hash of the data judged on.
        attempt: Which look at this window it is, from 1; see `EvidenceLedger.record`.
        alpha: What all looks at this window may spend together, one-sided. A miss is significant at the whole of it:
            looking again must not make missing harder. A claim (promotion) may use this attempt's share only.
        confidence: Of the intervals shown beside the figures.
        context: What else is needed to recompute the verdict.

    Raises:
        ConfigError: If the criteria name nothing a model could miss.
    """
    spent = alpha_for_attempt(attempt, alpha)
    results = _progress_criteria(record, criteria, stage, confidence)
    outcome, reasons = _progress_outcome(results, alpha)
    wanted = _more_sessions_for_data(record, criteria) if outcome == "INCONCLUSIVE" else None
    if wanted:
        earns = expectancy(record.net_pnl) > 0.0
        reasons.append(_sessions_sentence(wanted, "at this rate of trading", earns=earns))
    return Verdict(
        outcome=outcome,
        level="progress",
        symbol=symbol,
        stage=stage,
        criteria=tuple(results),
        trades=len(record.net_pnl),
        sessions=record.trading_sessions,
        alpha_used=spent,
        attempt=attempt,
        window=dict(window),
        reasons=tuple(reasons),
        metrics=_metrics(record, session_clustered_t(record.net_pnl, record.trade_session, confidence)),
        sessions_needed=wanted,
        context=dict(context or {}),
    )


def promotion_verdict(
    record: TradeRecord,
    criteria: Criteria,
    *,
    symbol: str,
    stage: str,
    window: Mapping[str, Any],
    attempt: int = 1,
    alpha: float = 0.05,
    confidence: float = 0.95,
    context: Mapping[str, Any] | None = None,
) -> Verdict:
    """Decide whether a model may be used: the progress criteria and evidence of an edge.

    Evidence is that both (i) the mean net trade result, by sums per session, and (ii) the intercept against
    buy-and-hold on session returns are above zero, each at the alpha of this attempt. Both have to be shown, so
    the p value of the claim is the larger of the two (intersection-union test, Berger 1982, Technometrics 24,
    p. 295). In a rising market whoever is long at random times wins significantly, and has an intercept above
    zero every other time: asking for its sign alone would promote it. A mean and an intercept that are positive
    but not yet shown to be are INCONCLUSIVE, with the number of further sessions that would settle it; one below
    zero is a FAIL. Arguments as in `progress_verdict`, on a window no gate, early stop or choice has touched.
    """
    spent = alpha_for_attempt(attempt, alpha)
    results = _progress_criteria(record, criteria, stage, confidence, may_be_empty=True)
    edge = session_clustered_t(record.net_pnl, record.trade_session, confidence)
    results.append(
        _result(
            "mean_trade",
            edge.mean,
            0.0,
            lower=edge.lower,
            upper=edge.upper,
            p_below=edge.p_below_zero,
            note="no trade was closed" if math.isnan(edge.mean) else "net money per trade",
        )
    )
    beyond = _beyond_benchmark(record, confidence)
    p = _p_no_edge(edge, beyond)
    tested = f"chance of such {'a mean trade' if p == edge.p_above_zero else 'an intercept'} without any edge"
    if math.isnan(p):
        tested = "nothing to test in fewer than two sessions with trades"
    results.append(_result(_EDGE, p, spent, "at most", note=tested))
    results.append(_intercept_criterion(beyond))
    outcome, reasons = _promotion_outcome(results, alpha, spent)
    wanted = None
    if outcome == "INCONCLUSIVE":
        wanted = _more_sessions_for_edge(record, criteria, edge, beyond, spent)
        if wanted:
            earns = _could_be_shown(edge, beyond)
            reasons.append(_sessions_sentence(wanted, "if trades go on as observed", earns=earns))
    return Verdict(
        outcome=outcome,
        level="promotion",
        symbol=symbol,
        stage=stage,
        criteria=tuple(results),
        trades=len(record.net_pnl),
        sessions=record.trading_sessions,
        alpha_used=spent,
        attempt=attempt,
        window=dict(window),
        reasons=tuple(reasons),
        metrics=_metrics(record, edge, p_no_edge=p, intercept_t=_intercept_t(beyond)),
        sessions_needed=wanted,
        context=dict(context or {}),
    )


def corrected_p(verdict: Verdict) -> float:
    """Return a promotion's p value times what its look costs, at most 1: p k (k + 1) for the k-th look.

    It is at most alpha exactly where p is at most the alpha of that look. nan where nothing could be tested.

    Raises:
        KeyError: If the verdict is not one of promotion.
    """
    p = verdict.criterion(_EDGE).value
    return math.nan if p is None else min(1.0, p * verdict.attempt * (verdict.attempt + 1))


def across_symbols(verdicts: Sequence[Verdict], q: float, joined: Sequence[Verdict] = ()) -> list[Verdict]:
    """Return the promotion verdicts of one run, corrected for how many symbols were judged in it.

    Of many symbols without an edge some show one by luck. Benjamini and Hochberg (1995), J. R. Stat. Soc. B
    57, p. 289, on the p values corrected for attempts: a PASS that does not survive becomes INCONCLUSIVE, and
    says how many more sessions would be needed for it to survive beside the others as they are. Every verdict
    keeps its own p, alpha and attempt, and gains `context["family"]`: `symbols` and their `p`, `q`, its own
    `corrected_p`, the `rank_threshold` that had to be met, and `survived`. All symbols that were judged count,
    also those that failed or could not be tested; but only what would be promoted can be a discovery. The small
    p of a symbol that misses another criterion would otherwise make room for others without an edge. The order
    does not matter. One symbol alone is no family: there the symbol's own test is enough.

    Args:
        verdicts: Of `promotion_verdict`, one per symbol.
        q: Expected share of false promotions among all, in (0, 0.5].
        joined: Verdicts of further symbols that count in the family but are not decided here, since other runs
            judged them (`family.judged_with`). `context["family"]["from_runs"]` says which run each comes from.

    Returns:
        The verdicts in the order given.

    Raises:
        ValueError: If a symbol occurs twice, or q is out of range.
    """
    members = [*verdicts, *joined]
    symbols = [verdict.symbol for verdict in members]
    if len(set(symbols)) < len(symbols):
        raise ValueError(f"each symbol of a run has one promotion verdict, but these are of {symbols}")
    if not 0.0 < q <= 0.5:
        raise ValueError(f"q has to lie in (0, 0.5], but is {q}")
    p_values = np.array([corrected_p(verdict) for verdict in members])
    claimed = np.where([verdict.passed for verdict in members], p_values, math.nan)
    by_name = sorted(range(len(symbols)), key=symbols.__getitem__)
    settled = []
    for place, verdict in enumerate(verdicts):
        threshold = _rank_threshold(claimed, place, q)
        family = {
            "symbols": [symbols[each] for each in by_name],
            "p": [_known(p_values[each]) for each in by_name],
            "q": q,
            "corrected_p": _known(p_values[place]),
            "rank_threshold": threshold,
            "survived": bool(p_values[place] <= threshold),
        }
        if joined:
            family["from_runs"] = {each.symbol: each.context.get("run") for each in joined}
        if len(members) == 1 and verdict.criterion(_EDGE).met:
            whole = verdict.alpha_used * verdict.attempt * (verdict.attempt + 1)
            family |= {"rank_threshold": max(q, whole), "survived": True}
        settled.append(_settled(verdict, family))
    return settled


def _rank_threshold(p_values: np.ndarray, place: int, q: float) -> float:
    """Return the largest p value with which this one would be rejected, the others being as they are."""
    supposed = p_values.copy()
    supposed[place] = 0.0
    return q * int(np.sum(benjamini_hochberg(supposed, q))) / len(p_values)


def _settled(verdict: Verdict, family: Mapping[str, Any]) -> Verdict:
    """Return the verdict with what its family decided."""
    settled = replace(verdict, context={**verdict.context, "family": dict(family)})
    others = len(family["symbols"]) > 1
    if family["survived"] or verdict.outcome == "FAIL" or not others or family["corrected_p"] is None:
        return settled
    level = family["rank_threshold"] / (verdict.attempt * (verdict.attempt + 1))
    if verdict.outcome == "INCONCLUSIVE" and level >= verdict.alpha_used:
        return settled  # its own reasons ask for more already
    reason = (
        f"Not shown among the {len(family['symbols'])} symbols {_where_judged(family)}: "
        f"p {_number(verdict.criterion(_EDGE).value)}, needed {_number(level)} or less"
    )
    wanted = _more_sessions_at(verdict, level)
    if wanted:
        reason += f"; about {wanted} more sessions would be needed if trades go on as observed"
    return replace(
        settled,
        outcome="INCONCLUSIVE",
        reasons=(*verdict.reasons, f"{reason}."),
        sessions_needed=max(wanted or 0, verdict.sessions_needed or 0) or None,
    )


def _more_sessions_at(verdict: Verdict, alpha: float) -> int | None:
    """Return the further sessions that would show a verdict's edge at another alpha than its own."""
    found = verdict.metrics
    # A t that is no number beside a p that is one: every session gave the same sum.
    t = math.inf if found["mean_trade_t"] is None else found["mean_trade_t"]
    trading = sessions_to_show(found["expectancy"], t, verdict.sessions, alpha)
    if trading is None:
        return None
    observed = found["window_sessions"]
    beyond, t_beyond = verdict.criterion("intercept").value, found["intercept_t"]
    if beyond is not None and beyond <= 0.0:
        return None
    for_intercept = 0
    if beyond is not None and t_beyond is not None:
        for_intercept = (sessions_to_show(beyond, t_beyond, observed, alpha) or 0) - observed
    return max(0, _more_sessions(trading, verdict.sessions, observed), for_intercept) or None


def _family_sentence(family: Mapping[str, Any]) -> str:
    count = len(family["symbols"])
    judged = (
        "The only symbol judged in this run"
        if count == 1
        else f"One of {count} symbols {_where_judged(family)}"
    )
    return (
        f"{judged}: p corrected for attempts {_number(family['corrected_p'])}, needed "
        f"{_number(family['rank_threshold'])} or less (false discovery rate {_number(family['q'])}); "
        f"{'survived' if family['survived'] else 'did not survive'}."
    )


def _where_judged(family: Mapping[str, Any]) -> str:
    runs = sorted(set(family.get("from_runs", {}).values()))
    if not runs:
        return "judged in this run"
    named = runs[0] if len(runs) == 1 else f"{len(runs)} others"
    return f"judged in this run or, sharing looks with it, in {named}"


def champion_keeps(
    later: np.ndarray,
    earlier: np.ndarray,
    alpha: float = 0.05,
    *,
    later_name: str = "the later model",
    earlier_name: str = "the earlier model",
) -> ChampionDecision:
    """Decide whether a later model replaces an earlier one: only where it earned more, beyond luck.

    Args:
        later: Session returns of the later model on the validation window, fractions. (S,)
        earlier: Session returns of the earlier model on the same sessions. (S,)
        alpha: One-sided level of the lower bound.
        later_name: How the text calls the later model.
        earlier_name: How the text calls the earlier model.

    Raises:
        ValueError: If the two differ in length or hold what is not finite.
    """
    test = paired_test(later, earlier, confidence=1.0 - 2.0 * alpha)
    replaces = test.lower > 0.0 and test.p_above_zero <= alpha
    if math.isnan(test.lower):
        text = f"{earlier_name} stays: {test.sessions} sessions are too few to compare it with {later_name}."
    else:
        than = f"less than {earlier_name}" if test.mean < 0.0 else f"more than {earlier_name}"
        figures_text = (
            f"{later_name} earned {abs(test.mean) * 1e4:.2f} bp per session {than} over {test.sessions} sessions, "
            f"lower bound of the difference {test.lower * 1e4:+.2f} bp at {1.0 - alpha:.0%}"
        )
        who = f"{later_name} replaces {earlier_name}" if replaces else f"{earlier_name} stays"
        text = f"{who}: {figures_text}."
    return ChampionDecision(
        replaces=replaces, mean_difference=test.mean, lower=test.lower, p=test.p_above_zero, text=text
    )


def _progress_criteria(
    record: TradeRecord, criteria: Criteria, stage: str, confidence: float, *, may_be_empty: bool = False
) -> list[CriterionResult]:
    results = []
    if criteria.min_win_rate is not None:
        results.append(_win_rate_criterion(record, criteria.min_win_rate, confidence))
    if criteria.min_profit_factor is not None:
        results.append(_profit_factor_criterion(record, criteria.min_profit_factor, confidence))
    if criteria.max_drawdown is not None:
        results.append(_result("max_drawdown", record.max_drawdown, criteria.max_drawdown, "at most"))
    if not results and not may_be_empty:
        raise ConfigError(
            f"The gate after {_STAGE_WORDS.get(stage, stage)} names no criterion that a model could miss; "
            "it would always pass.\n  Give it min_win_rate, min_profit_factor or max_drawdown."
        )
    if criteria.min_trades is not None:
        results.append(_result("trades", len(record.net_pnl), criteria.min_trades))
    if criteria.min_sessions is not None:
        results.append(_result("sessions", record.trading_sessions, criteria.min_sessions))
    if criteria.min_episodes is not None:
        results.append(_result("episodes", record.episodes, criteria.min_episodes))
    return results


def _win_rate_criterion(record: TradeRecord, threshold: float, confidence: float) -> CriterionResult:
    share = win_rate(record.net_pnl)
    lower, upper = wilson_interval(share * _effective_trades(record), _effective_trades(record), confidence)
    test = session_clustered_t(win_rate_excess(record.net_pnl, threshold), record.trade_session)
    return _result("win_rate", share, threshold, lower=lower, upper=upper, p_below=test.p_below_zero)


def _effective_trades(record: TradeRecord) -> float:
    """Return how many independent trades would leave the win rate as uncertain as these do.

    At most their number.

    The usual design effect: the clustered variance of the win rate over the binomial one (Kish 1965).
    """
    count, share = len(record.net_pnl), win_rate(record.net_pnl)
    if not count or share in (0.0, 1.0):
        return float(count)
    test = session_clustered_t(win_rate_excess(record.net_pnl, share), record.trade_session)
    clustered = test.standard_error**2
    binomial = share * (1.0 - share) / count
    # nan (a single session) keeps the number of trades; the criteria on sessions deal with that.
    return count / (clustered / binomial) if clustered > binomial else float(count)


def _profit_factor_criterion(record: TradeRecord, threshold: float, confidence: float) -> CriterionResult:
    lower, upper = profit_factor_interval(record.net_pnl, record.trade_session, confidence)
    test = session_clustered_t(profit_factor_excess(record.net_pnl, threshold), record.trade_session)
    return _result(
        "profit_factor",
        profit_factor(record.net_pnl),
        threshold,
        lower=lower,
        upper=upper,
        p_below=test.p_below_zero,
    )


def _beyond_benchmark(record: TradeRecord, confidence: float) -> Intercept | None:
    if record.benchmark_session_returns is None:
        return None
    return intercept_against(record.session_returns, record.benchmark_session_returns, confidence)


def _p_no_edge(edge: ClusteredTest, beyond: Intercept | None) -> float:
    """Return the larger p value of mean trade and intercept; nan where no trade could be tested."""
    if beyond is None or math.isnan(beyond.alpha) or math.isnan(edge.p_above_zero):
        return edge.p_above_zero
    # An intercept of exactly zero, without any spread, is a copy of a share of buy-and-hold: no edge at all.
    return max(edge.p_above_zero, 1.0 if math.isnan(beyond.p_above_zero) else beyond.p_above_zero)


def _intercept_criterion(found: Intercept | None) -> CriterionResult:
    name = "intercept"
    if found is None:
        return _result(name, None, 0.0, note="there is no buy-and-hold to compare with")
    if math.isnan(found.alpha):
        return _result(name, None, 0.0, note="fewer than three sessions, or buy-and-hold did not move")
    return _result(
        name,
        found.alpha,
        0.0,
        lower=found.lower,
        upper=found.upper,
        p_below=found.p_below_zero,
        note=f"return per session beyond {_number(found.beta)} of buy-and-hold",
    )


def _result(
    name: str,
    value: float | None,
    threshold: float,
    direction: Direction = "at least",
    *,
    lower: float | None = None,
    upper: float | None = None,
    p_below: float | None = None,
    note: str = "",
) -> CriterionResult:
    known = _known(value)
    met = None
    if known is not None:
        met = bool(known >= threshold if direction == "at least" else known <= threshold)
    elif not note:
        note = reason_not_computed(name, value)
    return CriterionResult(
        name=name,
        value=known,
        threshold=threshold,
        direction=direction,
        met=met,
        lower=_known(lower),
        upper=_known(upper),
        p_below=_known(p_below),
        note=note,
    )


def _progress_outcome(results: list[CriterionResult], alpha: float) -> tuple[Outcome, list[str]]:
    decisive = [result for result in results if _is_decisive(result, alpha)]
    if decisive:
        return "FAIL", [_missed(result, alpha) for result in decisive]
    short = [result for result in results if result.name in _AMOUNTS and result.met is not True]
    if short:
        return "INCONCLUSIVE", [
            f"Too little data: {_number(result.value)} {result.name}, needed {_number(result.threshold)}."
            for result in short
        ]
    missed = [result for result in results if result.met is False]
    if missed:
        return "FAIL", [_missed(result, alpha) for result in missed]
    unknown = [result for result in results if result.met is None]
    if unknown:
        return "INCONCLUSIVE", [f"{result.name} cannot be computed: {result.note}." for result in unknown]
    return "PASS", []


def _promotion_outcome(
    results: list[CriterionResult], alpha: float, spent: float
) -> tuple[Outcome, list[str]]:
    outcome, reasons = _progress_outcome([result for result in results if result.name != _EDGE], alpha)
    edge = next(result for result in results if result.name == _EDGE)
    if outcome != "PASS" or edge.met is True:
        return outcome, reasons
    if edge.value is None:
        return "INCONCLUSIVE", ["Fewer than two sessions with trades: nothing can be tested."]
    p = f"p {_number(edge.value)}, needed {_number(spent)} or less"
    return "INCONCLUSIVE", [f"Mean trade and intercept are positive, but not shown to be: {p}."]


def _is_decisive(result: CriterionResult, alpha: float) -> bool:
    """Return True where more data of the same kind would not help."""
    if result.met is False and result.name in ("max_drawdown", "episodes"):
        return True
    return result.met is not True and result.p_below is not None and result.p_below <= alpha


def _missed(result: CriterionResult, alpha: float) -> str:
    text = f"{result.name} is {_number(result.value)}, asked {result.direction} {_number(result.threshold)}"
    if result.p_below is not None and result.p_below <= alpha:
        text += f"; significantly so (p {_number(result.p_below)})"
    return text + "."


def _more_sessions_for_data(record: TradeRecord, criteria: Criteria) -> int | None:
    """Return the further sessions until there is as much data as asked; None if unknown or enough."""
    observed = len(record.session_returns)
    trades, trading = len(record.net_pnl), record.trading_sessions
    if not trades:
        return None
    share = max((criteria.min_trades or 0) / trades, (criteria.min_sessions or 0) / trading)
    return max(0, math.ceil(observed * share) - observed) or None


def _more_sessions_for_edge(
    record: TradeRecord, criteria: Criteria, edge: ClusteredTest, beyond: Intercept | None, alpha: float
) -> int | None:
    for_data = _more_sessions_for_data(record, criteria) or 0
    trading = sessions_needed(edge, alpha)
    if trading is None or not _could_be_shown(edge, beyond):
        return for_data or None
    observed = len(record.session_returns)
    for_evidence = _more_sessions(trading, edge.sessions, observed)
    for_intercept = (_sessions_for_intercept(beyond, alpha) or 0) - observed
    return max(for_data, for_evidence, for_intercept) or None


def _could_be_shown(edge: ClusteredTest, beyond: Intercept | None) -> bool:
    """Return True where more data like these would show an edge: mean trade and intercept are above zero."""
    return edge.mean > 0.0 and not (beyond is not None and beyond.alpha <= 0.0)


def _sessions_sentence(wanted: int, supposed: str, *, earns: bool) -> str:
    """Return how many sessions are wanting; of a losing record never as if they would show an edge."""
    if earns:
        return f"About {wanted} more sessions would be needed {supposed}."
    return f"About {wanted} more sessions are needed before anything can be decided."


def _sessions_for_intercept(beyond: Intercept | None, alpha: float) -> int | None:
    t = _intercept_t(beyond)
    if beyond is None or math.isnan(t):
        return None
    return sessions_to_show(beyond.alpha, t, beyond.sessions, alpha)


def _intercept_t(beyond: Intercept | None) -> float:
    if beyond is None or not beyond.standard_error > 0.0:
        return math.nan
    return beyond.alpha / beyond.standard_error


def _more_sessions(trading_needed: int, trading: int, observed: int) -> int:
    # Evidence comes from sessions with trades; the window's other sessions come along at the observed rate.
    return math.ceil(trading_needed * observed / trading) - observed


def _metrics(record: TradeRecord, edge: ClusteredTest, **of_promotion: float) -> dict[str, Any]:
    returns = np.asarray(record.session_returns, dtype=np.float64)
    numbers, not_computed = figures(
        win_rate=win_rate(record.net_pnl),
        profit_factor=profit_factor(record.net_pnl),
        expectancy=expectancy(record.net_pnl),
        payoff_ratio=payoff_ratio(record.net_pnl),
        break_even_win_rate=break_even_win_rate(record.net_pnl),
        max_drawdown=record.max_drawdown,
        trades=len(record.net_pnl),
        trading_sessions=record.trading_sessions,
        window_sessions=len(returns),
        episodes=record.episodes,
        mean_session_return=float(np.mean(returns)) if len(returns) else math.nan,
        sharpe_per_session=sharpe_ratio(returns, 1.0),
        effective_trades=_effective_trades(record),
        mean_trade_lower=edge.lower,
        mean_trade_upper=edge.upper,
        mean_trade_t=edge.t,
        mean_trade_p=edge.p_above_zero,
        **of_promotion,
    )
    return {**numbers, "not_computed": not_computed}


def _known(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return int(value) if isinstance(value, (int, np.integer)) else float(value)


def _number(value: float | None, digits: int = 4) -> str:
    """Return a figure for people: few significant digits, whole numbers whole, an open end as a dash."""
    if value is None:
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"
