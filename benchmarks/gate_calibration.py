"""What the gates let through: false promotions on noise, power on planted edges, by simulation.

`python -m benchmarks.gate_calibration --help`. The gates, the trading kernel, the metrics and the markets are the
product's own; only the policies are cheap ones (`benchmarks.cheap_policies`), so that thousands of them can be judged.
Every run draws a market of its own: no two runs of a cell share a bar.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import nct, t, ttest_1samp

from benchmarks.cheap_policies import (
    BARS_PER_SESSION,
    arrays_of,
    best_by_cost,
    inputs_of,
    oracle_actions,
    random_actions,
    random_rules,
    replay_sessions,
    rules_at,
)
from benchmarks.measuring import Clocks
from rl.backtest.baselines import buy_and_hold
from rl.common.atomic_files import write_json
from rl.common.seeding import generator
from rl.common.threads import use_one_thread
from rl.market.synthetic import SyntheticMarket, generate
from rl.stages.evidence import alpha_for_attempt, session_clustered_t
from rl.stages.gates import TradeRecord, Verdict, across_symbols, progress_verdict, promotion_verdict
from rl.stages.plan import Criteria, StageName, load_plan
from rl.trading.market_arrays import MarketArrays
from rl.trading.metrics import (
    max_drawdown,
    profit_factor,
    session_returns,
    sharpe_ratio,
    wilson_interval,
    win_rate,
)
from rl.trading.rules import TradingRules

PLAN = Path(__file__).resolve().parents[1] / "config" / "training_sequence.yaml"
SESSIONS_PER_YEAR = 250
ALPHA = 0.05
FALSE_DISCOVERY_RATE = 0.05
USUAL_COST_BP = 0.5

TRAINING_SESSIONS = 60
NOISE = ("noise_gauss", "noise_garch", "noise_drift", "bounce")
PURE_NOISE = ("noise_gauss", "noise_garch")
"""Nothing to earn at any cost. A drift pays whoever holds; a bounce pays whoever trades below its half spread."""
COSTS_BP = (0.0, 0.5, 1.0)
FRESH_SESSIONS = (5, 20, 60, 120)
ATTEMPTS = (1, 3, 5, 10, 20)
RETRY_SESSIONS = (20, 60)
SYMBOLS = 10
REAL_AMONG_THEM = (0, 3)
SYMBOL_SESSIONS = 60
EDGES: tuple[tuple[str, dict[str, float]], ...] = (
    ("planted", {"r2": 0.0005, "rho": 0.99}),
    ("planted", {"r2": 0.002, "rho": 0.98}),
    ("planted", {"r2": 0.0022, "rho": 0.98}),
    ("planted", {"r2": 0.02, "rho": 0.95}),
    ("ar1", {"phi": -0.1}),
    ("hamilton", {}),
)
REAL_EDGE = EDGES[2]
"""Annual Sharpe ratio of session returns of about 7: what 60 sessions should show in nine of ten cases."""
POWER_SESSIONS = (20, 60, 120)
SHARPES = (1, 2, 3, 5, 7, 10, 20)
CLUSTERED = ((20, 5), (60, 20))


# ---- one record, judged every way ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What every rule says about one policy on one window."""

    naive: bool
    """Stage 2's point criteria alone: win rate at least .40, profit factor at least 1.0."""
    targets: bool
    """Published targets: profit factor at least 1.2, annual Sharpe above 1, drawdown below 25 %."""
    progress: str
    """Stage 2's progress gate: PASS, FAIL or INCONCLUSIVE."""
    promotion: str
    """The promotion gate with stage 2's criteria."""
    edge_only: str
    """The promotion gate with those of stage 3, which names none: amount of data and evidence alone."""
    trades: int
    mean_return: float
    """Per session, a fraction."""
    spread: float
    """Standard deviation of the session returns."""


@dataclass(frozen=True, kw_only=True)
class RunSymbol:
    """One symbol of a run of several, for the rules that choose among them."""

    naive: bool
    """Stage 2's point criteria alone."""
    five_percent: bool
    """Whether the promotion gate passes at 5 %, nothing kept for later attempts."""
    verdict: Verdict
    """The promotion gate's, judged alone."""


@cache
def criteria(stage: StageName) -> Criteria:
    """Return what the shipped plan asks after a stage, less the training episodes these policies do not have."""
    return replace(load_plan(PLAN).criteria(stage), min_episodes=None)


def promotion(
    record: TradeRecord, stage: StageName, *, symbol: str = "SYN", attempt: int = 1, alpha: float = ALPHA
) -> Verdict:
    """Return the product's promotion verdict."""
    return promotion_verdict(
        record, criteria(stage), symbol=symbol, stage=stage, window={}, attempt=attempt, alpha=alpha
    )


def is_naive_pass(record: TradeRecord) -> bool:
    """Return True where the point criteria of stage 2 are met, whatever the amount of data."""
    asked = criteria("moe")
    assert asked.min_win_rate is not None
    assert asked.min_profit_factor is not None
    return bool(
        win_rate(record.net_pnl) >= asked.min_win_rate
        and profit_factor(record.net_pnl) >= asked.min_profit_factor
    )


def is_pass_at_five_percent(record: TradeRecord) -> bool:
    """Return the promotion gate's answer where a look may use 5 %, whatever was tried before."""
    # A first attempt may use half of what it is given.
    return promotion(record, "moe", alpha=ALPHA / alpha_for_attempt(1, 1.0)).passed


def judged(record: TradeRecord) -> Judged:
    """Return what every rule says about a record."""
    verdict = promotion(record, "moe")
    progress = progress_verdict(record, criteria("moe"), symbol="SYN", stage="moe", window={}, alpha=ALPHA)
    returns = record.session_returns
    return Judged(
        naive=is_naive_pass(record),
        targets=bool(
            profit_factor(record.net_pnl) >= 1.2
            and sharpe_ratio(returns, SESSIONS_PER_YEAR) > 1.0
            and record.max_drawdown < 0.25
        ),
        progress=progress.outcome,
        promotion=verdict.outcome,
        edge_only=promotion(record, "maml").outcome,
        trades=len(record.net_pnl),
        mean_return=float(np.mean(returns)),
        spread=float(np.std(returns, ddof=1)),
    )


@dataclass(frozen=True)
class Stretch:
    """A drawn market with an account's rules, and the record of any actions on any of its sessions."""

    arrays: MarketArrays
    rules: TradingRules

    def record(self, actions: np.ndarray, sessions: tuple[int, int]) -> TradeRecord:
        """Replay actions (one per bar of the market) through the kernel on sessions from one number up to another."""
        first, stop = sessions
        return self.records(actions, first, (stop - first,))[stop - first]

    def records(self, actions: np.ndarray, first: int, lengths: tuple[int, ...]) -> dict[int, TradeRecord]:
        """Return the records of windows of so many sessions that all begin with the same one.

        One replay of the longest holds them all: everybody is flat at a close, so a shorter one is its beginning.
        """
        replay = replay_sessions(self.arrays, (first, first + max(lengths)), self.rules, actions)
        window = (replay.start, replay.stop)
        held = buy_and_hold(self.arrays, window, self.rules, replay.capital)
        session = self.arrays.session[slice(*window)]
        returns, benchmark = (
            session_returns(each.equity, session, replay.capital) for each in (replay, held)
        )
        records = {}
        for length in lengths:
            inside = replay.trades.session < first + length
            records[length] = TradeRecord(
                net_pnl=replay.trades.net_pnl[inside],
                trade_session=replay.trades.session[inside],
                session_returns=returns[:length],
                benchmark_session_returns=benchmark[:length],
                max_drawdown=max_drawdown(replay.equity[: length * BARS_PER_SESSION]),
            )
        return records


def drawn(name: str, sessions: int, *labels: str | int, **params: float) -> SyntheticMarket:
    """Return a market whose seed belongs to these labels and no others."""
    seed = int(generator(0, "gate calibration", name, *labels).integers(2**62))
    return generate(name, sessions, seed, BARS_PER_SESSION, **params)


def trained_actions(
    market: SyntheticMarket, sessions: int, costs_bp: tuple[float, ...], rng: np.random.Generator
) -> dict[float, np.ndarray]:
    """Return, for each cost, the actions on the whole market of the rule that was best on its first sessions."""
    inputs = inputs_of(market)
    bars = sessions * BARS_PER_SESSION
    chosen = best_by_cost(random_rules(len(inputs), rng), inputs[:, :bars], market.returns[:bars], costs_bp)
    return {cost: (rule.sides(inputs)[0] + 1).astype(np.int8) for cost, rule in chosen.items()}


# ---- the simulations: one run each, to be done in any process --------------------------------------------------------


def noise_run(name: str, run: int) -> dict[str, Judged]:
    """Train on 60 sessions of noise and judge on those, and on fresh ones; key: policy, cost, window."""
    market = drawn(name, TRAINING_SESSIONS + max(FRESH_SESSIONS), "noise", run)
    arrays = arrays_of(market)
    rng = generator(0, "gate calibration", name, "policies", run)
    by_cost = trained_actions(market, TRAINING_SESSIONS, COSTS_BP, rng)
    guessed = random_actions(len(market), rng)
    found = {}
    for cost, actions in by_cost.items():
        stretch = Stretch(arrays, rules_at(cost))
        found[f"trained {cost:g} in-sample"] = judged(stretch.record(actions, (0, TRAINING_SESSIONS)))
        policies = {"trained": actions} | ({"random": guessed} if cost == USUAL_COST_BP else {})
        for policy, its_actions in policies.items():
            records = stretch.records(its_actions, TRAINING_SESSIONS, FRESH_SESSIONS)
            found |= {f"{policy} {cost:g} {fresh}": judged(record) for fresh, record in records.items()}
    return found


def retry_run(sessions: int, run: int) -> dict[str, int | None]:
    """Judge one random policy after the other on the same window; for each rule, the attempt that passed first."""
    market = drawn("noise_garch", sessions, "retries", sessions, run)
    stretch = Stretch(arrays_of(market), rules_at(USUAL_COST_BP))
    rng = generator(0, "gate calibration", "retries", "policies", sessions, run)
    first: dict[str, int | None] = {"naive": None, "5 % each": None, "spent": None}
    for attempt in range(1, max(ATTEMPTS) + 1):
        record = stretch.record(random_actions(len(market), rng), (0, sessions))
        passed = {
            "naive": is_naive_pass(record),
            "5 % each": is_pass_at_five_percent(record),
            "spent": promotion(record, "moe", attempt=attempt).passed,
        }
        for rule, has_passed in passed.items():
            if has_passed and first[rule] is None:
                first[rule] = attempt
    return first


def run_symbol(record: TradeRecord, symbol: str) -> RunSymbol:
    """Judge one symbol of a run, alone."""
    return RunSymbol(
        naive=is_naive_pass(record),
        five_percent=is_pass_at_five_percent(record),
        verdict=promotion(record, "moe", symbol=symbol),
    )


def symbols_run(run: int) -> list[RunSymbol]:
    """Judge ten trained policies on noise and three best ones on a real edge, 60 fresh sessions each."""
    found = []
    for place in range(SYMBOLS):
        market = drawn("noise_garch", TRAINING_SESSIONS + SYMBOL_SESSIONS, "symbols", run, place)
        rng = generator(0, "gate calibration", "symbols", "policies", run, place)
        actions = trained_actions(market, TRAINING_SESSIONS, (USUAL_COST_BP,), rng)[USUAL_COST_BP]
        stretch = Stretch(arrays_of(market), rules_at(USUAL_COST_BP))
        window = (TRAINING_SESSIONS, TRAINING_SESSIONS + SYMBOL_SESSIONS)
        found.append(run_symbol(stretch.record(actions, window), f"noise {place}"))
    name, params = REAL_EDGE
    for place in range(max(REAL_AMONG_THEM)):
        market = drawn(name, SYMBOL_SESSIONS, "symbols", "real", run, place, **params)
        stretch = Stretch(arrays_of(market), rules_at(USUAL_COST_BP))
        record = stretch.record(oracle_actions(market, USUAL_COST_BP), (0, SYMBOL_SESSIONS))
        found.append(run_symbol(record, f"real {place}"))
    return found


def edge_name(edge: int) -> str:
    """Return what a row calls a market with an edge."""
    name, params = EDGES[edge]
    return " ".join([name, *(f"{key} {value:g}" for key, value in params.items())])


def power_run(edge: int, run: int) -> dict[int, Judged]:
    """Judge the best policy of a market with an edge, by number of sessions."""
    name, params = EDGES[edge]
    market = drawn(name, max(POWER_SESSIONS), "power", edge_name(edge), run, **params)
    stretch = Stretch(arrays_of(market), rules_at(USUAL_COST_BP))
    actions = oracle_actions(market, USUAL_COST_BP)
    records = stretch.records(actions, 0, POWER_SESSIONS)
    return {sessions: judged(record) for sessions, record in records.items()}


def correlated_run(sessions: int, trades: int, share: float, rho: float, run: int) -> tuple[bool, bool, bool]:
    """Draw trades without an edge and return which tests claim one.

    Args:
        sessions: Sessions of the window.
        trades: Trades of a session.
        share: Part of a trade's variance that its session shares.
        rho: Correlation of that part from one session to the next.
        run: Number of the run.

    Returns:
        A t test of the trades at 5 %, the session-clustered one at 5 %, and that one at a first look's 2.5 %.
    """
    percents = (round(100 * share), round(100 * rho))
    rng = generator(0, "gate calibration", "clusters", sessions, trades, *percents, run)
    shock = rng.standard_normal(sessions)
    for session in range(1, sessions):
        shock[session] = rho * shock[session - 1] + np.sqrt(1.0 - rho**2) * shock[session]
    own = rng.standard_normal((sessions, trades))
    results = np.sqrt(share) * shock[:, None] + np.sqrt(1.0 - share) * own
    plain = ttest_1samp(results.ravel(), 0.0, alternative="greater").pvalue
    clustered = session_clustered_t(results.ravel(), np.repeat(np.arange(sessions), trades)).p_above_zero
    return bool(plain <= ALPHA), bool(clustered <= ALPHA), bool(clustered <= alpha_for_attempt(1, ALPHA))


# ---- tables ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rate:
    """A share of runs with its 95 % Wilson interval."""

    count: int
    runs: int

    @staticmethod
    def of(hits: Sequence[bool]) -> Rate:
        return Rate(int(sum(hits)), len(hits))

    @property
    def share(self) -> float:
        return self.count / self.runs

    def text(self) -> str:
        """Return the rate in percent with its interval."""
        low, high = wilson_interval(self.count, self.runs)
        return f"{100 * self.share:.1f} ({100 * low:.1f}–{100 * high:.1f})"

    def to_dict(self) -> dict[str, float]:
        low, high = wilson_interval(self.count, self.runs)
        return {"share": self.share, "low": low, "high": high, "count": self.count, "runs": self.runs}


Cell = str | Rate


@dataclass(frozen=True, kw_only=True)
class Table:
    """Figures under headings; a rate is shown in percent, its interval in brackets."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def markdown(self) -> str:
        """Return the table as it stands in docs/why/gates.md."""
        lines = [self.headings, tuple("---" for _ in self.headings)]
        lines += [tuple(cell.text() if isinstance(cell, Rate) else cell for cell in row) for row in self.rows]
        return "\n".join([self.title, "", *("| " + " | ".join(line) + " |" for line in lines)])

    def to_dict(self) -> dict[str, Any]:
        rows = [[cell.to_dict() if isinstance(cell, Rate) else cell for cell in row] for row in self.rows]
        return {"title": self.title, "headings": list(self.headings), "rows": rows}


Spread = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], list[Any]]
"""Calls a function with each tuple of arguments, in whatever processes, and returns the results in order."""

VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE")
RATE_HEADINGS = (
    "naive stage 2", "published targets", "progress PASS", "promotion PASS", "FAIL", "INCONCLUSIVE",
    "PASS, evidence alone",
)  # fmt: skip


def rates(records: Sequence[Judged]) -> tuple[Rate, ...]:
    """Return the rates under RATE_HEADINGS."""
    return (
        Rate.of([each.naive for each in records]),
        Rate.of([each.targets for each in records]),
        Rate.of([each.progress == "PASS" for each in records]),
        *(Rate.of([each.promotion == outcome for each in records]) for outcome in VERDICTS),
        Rate.of([each.edge_only == "PASS" for each in records]),
    )


def window_name(window: str) -> str:
    """Return what a row calls the sessions judged on."""
    return "60, its own training data" if window == "in-sample" else f"{window} fresh"


def noise_tables(runs: int, spread: Spread) -> list[Table]:
    """Return what passes on markets with nothing to find."""
    cells = [(name, run) for name in NOISE for run in range(runs)]
    found = spread(noise_run, cells)
    by_market = {
        name: [each for (market, _), each in zip(cells, found, strict=True) if market == name]
        for name in NOISE
    }
    pure = [each for name in PURE_NOISE for each in by_market[name]]
    windows = ("in-sample", *map(str, FRESH_SESSIONS))
    keys = [("trained", cost, window) for cost in COSTS_BP for window in windows]
    keys += [("random", USUAL_COST_BP, window) for window in windows[1:]]
    pooled = [
        (
            policy,
            f"{cost:g} bp",
            window_name(window),
            *rates([each[f"{policy} {cost:g} {window}"] for each in pure]),
        )
        for policy, cost, window in keys
    ]
    single = [
        (
            name,
            f"{cost:g} bp",
            window_name(window),
            *rates([each[f"trained {cost:g} {window}"] for each in records]),
        )
        for name, records in by_market.items()
        for cost in COSTS_BP
        for window in windows
    ]
    of_runs = "runs, 95 % Wilson interval"
    return [
        Table(
            title=f"Noise, {' and '.join(PURE_NOISE)} together: % of {len(PURE_NOISE) * runs} {of_runs}",
            headings=("policy", "cost", "sessions judged", *RATE_HEADINGS),
            rows=tuple(pooled),
        ),
        Table(
            title=f"Noise by market, policy best of 200 on 60 training sessions: % of {runs} {of_runs}",
            headings=("market", "cost", "sessions judged", *RATE_HEADINGS),
            rows=tuple(single),
        ),
    ]


def retry_tables(runs: int, spread: Spread) -> list[Table]:
    """Return how often some attempt gets through on one window."""
    cells = [(sessions, run) for sessions in RETRY_SESSIONS for run in range(runs)]
    found = spread(retry_run, cells)
    rows = []
    for sessions in RETRY_SESSIONS:
        first = [each for (window, _), each in zip(cells, found, strict=True) if window == sessions]
        for attempts in ATTEMPTS:
            passed = (
                Rate.of([each[rule] is not None and each[rule] <= attempts for each in first])
                for rule in ("naive", "5 % each", "spent")
            )
            rows.append((str(sessions), str(attempts), *passed))
    return [
        Table(
            title=f"Retries on one window, random policies on noise_garch at 0.5 bp: % of {runs} runs with a pass",
            headings=(
                "sessions",
                "attempts",
                "naive stage 2",
                "promotion at 5 % each time",
                "promotion, alpha spent",
            ),
            rows=tuple(rows),
        )
    ]


def symbol_tables(runs: int, spread: Spread) -> list[Table]:
    """Return how often a run of ten symbols promotes a worthless one, and how many real ones it finds."""
    found = spread(symbols_run, [(run,) for run in range(runs)])
    rows = []
    for real in REAL_AMONG_THEM:
        judged_together = [[*each[: SYMBOLS - real], *each[SYMBOLS : SYMBOLS + real]] for each in found]
        for rule, chosen in SYMBOL_RULES.items():
            promoted = [chosen(symbols) for symbols in judged_together]
            false = [sum(each[: SYMBOLS - real]) for each in promoted]
            share_false = [bad / max(sum(each), 1) for bad, each in zip(false, promoted, strict=True)]
            true = [is_real for each in promoted for is_real in each[SYMBOLS - real :]]
            rows.append(
                (
                    str(real),
                    rule,
                    Rate.of([bad > 0 for bad in false]),
                    f"{100 * float(np.mean(share_false)):.1f}",
                    Rate.of(true) if real else "–",
                )
            )
    return [
        Table(
            title=f"{SYMBOLS} symbols in one run, {SYMBOL_SESSIONS} sessions, 0.5 bp: % of {runs} runs; noise_garch "
            "with trained policies, real edges of annual Sharpe 7 with the best policy",
            headings=(
                "real edges",
                "rule",
                "some worthless symbol promoted",
                "false share of promoted, mean %",
                "real ones found",
            ),
            rows=tuple(rows),
        )
    ]


def naive_choice(symbols: Sequence[RunSymbol]) -> list[bool]:
    """Promote whoever meets the point criteria."""
    return [each.naive for each in symbols]


def each_at_five_percent(symbols: Sequence[RunSymbol]) -> list[bool]:
    """Promote whoever shows an edge at 5 %, however many were tried."""
    return [each.five_percent for each in symbols]


def own_verdict(symbols: Sequence[RunSymbol]) -> list[bool]:
    """Promote whoever passes the promotion gate, as if it were alone."""
    return [each.verdict.passed for each in symbols]


def family_verdict(symbols: Sequence[RunSymbol], q: float = FALSE_DISCOVERY_RATE) -> list[bool]:
    """Promote whom the product promotes of a run's symbols."""
    return [settled.passed for settled in across_symbols([each.verdict for each in symbols], q)]


SYMBOL_RULES: dict[str, Callable[[Sequence[RunSymbol]], list[bool]]] = {
    "naive stage 2": naive_choice,
    "p at most 5 % each": each_at_five_percent,
    "promotion gate, each alone": own_verdict,
    "promotion gate and Benjamini-Hochberg, q 5 %": family_verdict,
    "promotion gate and Benjamini-Hochberg, q 10 %": partial(family_verdict, q=0.10),
}


def power_tables(runs: int, spread: Spread) -> list[Table]:
    """Return how often a real edge is promoted."""
    cells = [(edge, run) for edge in range(len(EDGES)) for run in range(runs)]
    found = spread(power_run, cells)
    rows = []
    for edge in range(len(EDGES)):
        records = [each for (place, _), each in zip(cells, found, strict=True) if place == edge]
        for sessions in POWER_SESSIONS:
            window = [each[sessions] for each in records]
            trades = str(round(float(np.mean([each.trades for each in window]))))
            rows.append((edge_name(edge), annual_sharpe(window), str(sessions), trades, *rates(window)))
    return [
        Table(
            title=f"Power: the best policy of markets with an edge, flat at every close, 0.5 bp: % of {runs} runs",
            headings=("market", "annual Sharpe", "sessions", "mean trades", *RATE_HEADINGS),
            rows=tuple(rows),
        )
    ]


def annual_sharpe(records: Sequence[Judged]) -> str:
    """Return the annual Sharpe ratio of all runs' sessions together."""
    mean = float(np.mean([each.mean_return for each in records]))
    within = float(np.mean([each.spread**2 for each in records]))
    return f"{mean / np.sqrt(within) * np.sqrt(SESSIONS_PER_YEAR):.1f}"


def cluster_tables(runs: int, spread: Spread) -> list[Table]:
    """Return the true error of a nominal 5 % test where trades, or sessions, move together."""
    kinds = (
        ("independent trades", 0.0, 0.0),
        ("trades of a session share a fifth of their variance", 0.2, 0.0),
        ("the same, sessions correlated 0.3", 0.2, 0.3),
        ("trades of a session share nine tenths, sessions correlated 0.3", 0.9, 0.3),
    )
    rows = []
    for text, share, rho in kinds:
        for sessions, trades in CLUSTERED:
            cells = [(sessions, trades, share, rho, run) for run in range(4 * runs)]
            claims = zip(*spread(correlated_run, cells), strict=True)
            rows.append((text, f"{sessions} x {trades}", *map(Rate.of, claims)))
    return [
        Table(
            title=f"Tests of trades without an edge: % of {4 * runs} runs that claim one",
            headings=(
                "trades",
                "sessions x trades",
                "t test of trades, 5 %",
                "session-clustered, 5 %",
                "session-clustered, first look's 2.5 %",
            ),
            rows=tuple(rows),
        )
    ]


def session_tables(runs: int, spread: Spread) -> list[Table]:
    """Return the sessions after which a first look shows an edge, by theory: nothing is drawn."""
    del runs, spread
    rows = []
    for sharpe in SHARPES:
        needed = [sessions_for_power(sharpe / np.sqrt(SESSIONS_PER_YEAR), power) for power in (0.5, 0.8, 0.9)]
        rows.append(
            (str(sharpe), *(str(sessions) for sessions in needed), f"{needed[1] / SESSIONS_PER_YEAR:.2g}")
        )
    return [
        Table(
            title=f"Sessions a first look needs (one-sided {alpha_for_attempt(1, ALPHA):.1%}), a trade in each, "
            "session results normal and independent",
            headings=("true annual Sharpe", "for 50 %", "for 80 %", "for 90 %", "years for 80 %"),
            rows=tuple(rows),
        )
    ]


def sessions_for_power(sharpe_per_session: float, power: float) -> int:
    """Return the least number of sessions, from min_sessions on, with which a t test reaches a power.

    The t value of n sessions has a noncentral t distribution with n - 1 degrees of freedom, centred on
    sharpe_per_session * sqrt(n).
    """
    alpha = alpha_for_attempt(1, ALPHA)

    def reached(sessions: int) -> bool:
        bar = t.isf(alpha, sessions - 1)
        return float(nct.sf(bar, sessions - 1, sharpe_per_session * np.sqrt(sessions))) >= power

    least = criteria("moe").min_sessions or 2
    high = least
    while not reached(high):
        high *= 2
    low = max(least - 1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


TABLES: dict[str, Callable[[int, Spread], list[Table]]] = {
    "noise": noise_tables,
    "retries": retry_tables,
    "symbols": symbol_tables,
    "power": power_tables,
    "clusters": cluster_tables,
    "sessions": session_tables,
}


# ---- the command -----------------------------------------------------------------------------------------------------


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gate_calibration",
        description="Simulate what the gates let through on noise and what they find on planted edges: "
        "the tables of docs/why/gates.md.",
    )
    parser.add_argument("--runs", type=int, default=300, help="runs of each cell (default: 300)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument(
        "--table", action="append", choices=tuple(TABLES), help="which tables; may be repeated (default: all)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE")
    options = parser.parse_args(argv)
    for name in ("runs", "jobs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} has to be at least 1, but is {getattr(options, name)}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen simulations, print their tables, and return 0."""
    options = parse_options(argv)
    use_one_thread()
    clocks = Clocks()
    results, seconds = {}, {}
    for name in options.table or TABLES:
        started = clocks.cpu()
        found = calibration(name, options.runs, options.jobs)
        seconds[name] = clocks.cpu() - started
        results[name] = [table.to_dict() for table in found]
        for table in found:
            print(f"{table.markdown()}\n", flush=True)
        print(f"{name}: {seconds[name]:.0f} s of processor time\n", flush=True)
    print(f"All together: {sum(seconds.values()):.0f} s of processor time")
    if options.json is not None:
        write_json(options.json, {"runs": options.runs, "cpu_seconds": seconds, "tables": results})
    return 0


def calibration(name: str, runs: int, jobs: int = 1) -> list[Table]:
    """Return the tables of one name."""
    if jobs == 1:
        return TABLES[name](runs, lambda work, cells: [work(*cell) for cell in cells])
    # Fresh interpreters: a forked one would inherit numba's threads half-alive.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=use_one_thread) as pool:
        return TABLES[name](runs, partial(spread_over, pool))


def spread_over(pool: Executor, work: Callable[..., Any], cells: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Call work with each cell's arguments in the pool; return the results in the cells' order."""
    return list(pool.map(partial(_called, work), cells, chunksize=max(1, min(25, len(cells) // 8))))


def _called(work: Callable[..., Any], cell: tuple[Any, ...]) -> Any:
    return work(*cell)


if __name__ == "__main__":
    sys.exit(main())
