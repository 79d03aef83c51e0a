"""How much a record proves: one test for every criterion, and an account of how often one has looked.

Trades of one session share its news, so they count as one observation, not many. Every criterion is turned
into a mean of per-trade numbers and tested by sums per session; sessions, not trades, are what is counted.
The test has no seed: the same record gives the same verdict on every machine.

Known limit: where sessions themselves are correlated (0.3 from one to the next) a nominal 5 % test is wrong
in 6 to 10 % of cases.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from scipy.special import stdtr, stdtrit

from rl.common.atomic_files import append_all, flush_folder, storage_errors
from rl.common.errors import DataError, StorageError

# A spread smaller than this share of the sums themselves is rounding: sums that are equal in truth.
_ROUNDING = 1e-12

_MOST_SESSIONS_NAMED = 10_000_000


@dataclass(frozen=True, kw_only=True)
class ClusteredTest:
    """A mean with its standard error and one-sided p values, from sums per session.

    Everything but `mean` is nan where fewer than two sessions took part.
    """

    mean: float
    """Mean of the values; nan if there is none."""
    standard_error: float
    """Standard error of the mean, in its unit."""
    t: float
    """Mean over standard error; inf or -inf where every session gave the same sum."""
    p_above_zero: float
    """Chance of a mean this high or higher if the truth is zero or less. Small: shown to be above zero."""
    p_below_zero: float
    """Chance of a mean this low or lower if the truth is zero or more. Small: shown to be below zero."""
    lower: float
    """Lower end of the two-sided interval at `confidence`."""
    upper: float
    """Upper end of the two-sided interval at `confidence`."""
    confidence: float
    """Of the interval, in (0, 1)."""
    sessions: int
    """Sessions that took part: those with at least one value."""
    trades: int
    """Values: trades, or sessions where a value is a session's return."""


@dataclass(frozen=True, kw_only=True)
class Intercept:
    """What a strategy earned beyond its exposure to a benchmark. All nan where it cannot be computed."""

    alpha: float
    """Mean return per session left after the benchmark's share, a fraction."""
    beta: float
    """Return of the strategy per unit of benchmark return."""
    standard_error: float
    """Of alpha; robust to unequal spread (HC3)."""
    p_above_zero: float
    """Chance of an alpha this high or higher if the truth is zero or less."""
    p_below_zero: float
    """Chance of an alpha this low or lower if the truth is zero or more."""
    lower: float
    """Lower end of the two-sided interval of alpha."""
    upper: float
    """Upper end of the two-sided interval of alpha."""
    sessions: int
    """Sessions compared."""


def session_clustered_t(values: np.ndarray, sessions: np.ndarray, confidence: float = 0.95) -> ClusteredTest:
    """Test whether the mean of per-trade numbers is above or below zero, counting sessions, not trades.

    Values are added up by session and a t test is made of the sums, with sessions - 1 degrees of freedom. On
    trades that share a shock within their session, a t test of the trades themselves finds a non-existent
    edge in 14 % of cases at a nominal 5 %; this one in 4 to 5 %.

    Only sessions with at least one value take part. A session without trades says nothing about the mean *per
    trade*; entered as a zero sum it would leave the sum and its spread almost as they are and yet be counted
    as a degree of freedom, so that three sessions of trading in a quiet year would look like 250
    observations.

    Where every session gives the same sum there is no spread to estimate. Then p is that of a sign test, one
    half to the power of the sessions: small where there are many, never zero.

    Args:
        values: One number per trade. (n,)
        sessions: The session each belongs to, in any order. (n,)
        confidence: Of the two-sided interval, in (0, 1).

    Raises:
        ValueError: If lengths differ or a value is not finite.
    """
    values, sessions = _finite("values", values), np.asarray(sessions)
    if values.shape != sessions.shape:
        raise ValueError(
            f"values has shape {values.shape} and sessions {sessions.shape}; one session each is needed"
        )
    sums = _sums_by_session(values, sessions)
    clusters, mean = len(sums), float(np.mean(values)) if len(values) else math.nan
    error = t = above = below = lower = upper = math.nan
    if clusters >= 2:
        error = math.sqrt(clusters * float(np.var(sums, ddof=1))) / len(values)
        if error * len(values) <= _ROUNDING * float(np.sum(np.abs(sums))):
            error = 0.0
        t, above, below = _t_and_p(mean, error, clusters)
        half_width = float(stdtrit(clusters - 1, 0.5 + confidence / 2.0)) * error
        lower, upper = mean - half_width, mean + half_width
    return ClusteredTest(
        mean=mean,
        standard_error=error,
        t=t,
        p_above_zero=above,
        p_below_zero=below,
        lower=lower,
        upper=upper,
        confidence=confidence,
        sessions=clusters,
        trades=len(values),
    )


def win_rate_excess(net_pnl: np.ndarray, threshold: float) -> np.ndarray:
    """Return 1 - w for a won trade, -w for another; the mean is >= 0 exactly when the win rate is >= w.

    Args:
        net_pnl: Net result of each trade, money. (n,)
        threshold: The win rate w asked for, in [0, 1].
    """
    return (np.asarray(net_pnl, dtype=np.float64) > 0.0) - threshold


def profit_factor_excess(net_pnl: np.ndarray, threshold: float) -> np.ndarray:
    """Return wins as they are and losses times k; the mean is >= 0 exactly when the profit factor is >= k.

    There is no division, so a record without losses has a mean as well.

    Args:
        net_pnl: Net result of each trade, money. (n,)
        threshold: The profit factor k asked for, not negative.
    """
    net_pnl = np.asarray(net_pnl, dtype=np.float64)
    return np.maximum(net_pnl, 0.0) - threshold * np.maximum(-net_pnl, 0.0)


def profit_factor_interval(
    net_pnl: np.ndarray, sessions: np.ndarray, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the profit factors that the session-clustered test would not reject.

    The test of `profit_factor_excess` solved for its threshold (Fieller 1954, J. R. Stat. Soc. B 16, p. 175),
    so the interval and the p value never contradict each other. The upper end is inf where the losses are too
    few to bound it; (nan, nan) for fewer than two sessions or no loss at all.

    Args:
        net_pnl: Net result of each trade, money. (n,)
        sessions: The session each belongs to. (n,)
        confidence: Two-sided, in (0, 1).
    """
    net_pnl, sessions = _finite("net_pnl", net_pnl), np.asarray(sessions)
    won = _sums_by_session(np.maximum(net_pnl, 0.0), sessions)
    lost = _sums_by_session(np.maximum(-net_pnl, 0.0), sessions)
    clusters = len(won)
    if clusters < 2 or not lost.any():
        return math.nan, math.nan
    spread = np.cov(won, lost) * clusters * float(stdtrit(clusters - 1, 0.5 + confidence / 2.0)) ** 2
    # Not rejected are the k with a k^2 - 2 b k + c <= 0; the observed factor is one of them, so roots exist.
    a = float(lost.sum() ** 2 - spread[1, 1])
    b = float(won.sum() * lost.sum() - spread[0, 1])
    c = float(won.sum() ** 2 - spread[0, 0])
    under_the_root = b * b - a * c
    if a > 0.0:
        root = math.sqrt(max(0.0, under_the_root))
        return max(0.0, (b - root) / a), (b + root) / a
    # The mean loss cannot be told from zero, so no factor is too large. What is rejected lies between the two
    # roots, if there are any, and the observed factor lies above them or below them.
    above = (b - math.sqrt(under_the_root)) / a if a < 0.0 < under_the_root else math.nan
    return (above, math.inf) if 0.0 < above <= won.sum() / lost.sum() else (0.0, math.inf)


def paired_test(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> ClusteredTest:
    """Test whether `a` earned more per session than `b` on the same sessions; the mean is that of a - b.

    What both share (a rise of the whole market) cancels, which makes it far sharper than comparing two means.

    Args:
        a: Returns per session, fractions. (S,)
        b: Returns of the same sessions, in the same order. (S,)
        confidence: Of the two-sided interval, in (0, 1).

    Raises:
        ValueError: If lengths differ or a value is not finite.
    """
    a, b = _finite("a", a), _finite("b", b)
    if a.shape != b.shape:
        raise ValueError(f"a has {len(a)} sessions and b {len(b)}; a paired test needs the same sessions")
    return session_clustered_t(a - b, np.arange(len(a)), confidence)


def intercept_against(strategy: np.ndarray, benchmark: np.ndarray, confidence: float = 0.95) -> Intercept:
    """Return what the strategy earned per session beyond its exposure to the benchmark.

    Ordinary least squares of strategy on benchmark session returns, with an intercept. Errors are robust to a
    spread that changes with the benchmark (HC3, MacKinnon and White 1985), since a strategy that holds
    positions in some sessions only has exactly that; t with sessions - 2 degrees of freedom. In a rising
    market this is what separates an edge from merely having been long.

    All numbers are nan for fewer than three sessions, or where the benchmark did not move or moved in one
    session only (then that session fits exactly and leaves nothing to judge by).

    Args:
        strategy: Net returns per session, fractions. (S,)
        benchmark: Returns of buy-and-hold in the same sessions, fractions. (S,)
        confidence: Of the two-sided interval of alpha, in (0, 1).

    Raises:
        ValueError: If lengths differ or a value is not finite.
    """
    strategy, benchmark = _finite("strategy", strategy), _finite("benchmark", benchmark)
    if strategy.shape != benchmark.shape:
        raise ValueError(
            f"strategy has {len(strategy)} sessions and benchmark {len(benchmark)}; they have to match"
        )
    count = len(strategy)
    unknown = Intercept(
        alpha=math.nan,
        beta=math.nan,
        standard_error=math.nan,
        p_above_zero=math.nan,
        p_below_zero=math.nan,
        lower=math.nan,
        upper=math.nan,
        sessions=count,
    )
    if count < 3:
        return unknown
    moves = benchmark - benchmark.mean()
    total = float(moves @ moves)
    if total <= (_ROUNDING * float(np.max(np.abs(benchmark)))) ** 2 * count:
        return unknown
    leverage = 1.0 / count + moves**2 / total
    if np.any(leverage > 1.0 - 1e-9):
        return unknown
    beta = float(moves @ strategy) / total
    alpha = float(strategy.mean() - beta * benchmark.mean())
    residuals = strategy - alpha - beta * benchmark
    scale = float(np.max(np.abs(strategy)))
    # A copy of the benchmark has an alpha of zero, but rounding leaves it a hair to one side or the other.
    alpha = 0.0 if abs(alpha) <= _ROUNDING * scale else alpha
    # Alpha is this weighted sum of the strategy's returns, and so is its error of the residuals.
    weights = 1.0 / count - benchmark.mean() * moves / total
    error = math.sqrt(float(np.sum((weights * residuals / (1.0 - leverage)) ** 2)))
    error = 0.0 if error <= _ROUNDING * scale else error
    _, above, below = _t_and_p(alpha, error, count - 1)
    half_width = float(stdtrit(count - 2, 0.5 + confidence / 2.0)) * error
    return Intercept(
        alpha=alpha,
        beta=beta,
        standard_error=error,
        p_above_zero=above,
        p_below_zero=below,
        lower=alpha - half_width,
        upper=alpha + half_width,
        sessions=count,
    )


def alpha_for_attempt(attempt: int, alpha: float = 0.05) -> float:
    """Return the share of alpha that the k-th look at a window may spend: alpha / (k (k + 1)).

    The shares of all attempts together add up to alpha, however many there are: 1/2, 1/6, 1/12, ...

    Args:
        attempt: Number k of the look, from 1.
        alpha: What all looks together may spend, in (0, 1).
    """
    if attempt < 1:
        raise ValueError(f"attempts are counted from 1, but this one is {attempt}")
    return alpha / (attempt * (attempt + 1))


def benjamini_hochberg(p_values: np.ndarray, q: float) -> np.ndarray:
    """Return True for each hypothesis rejected so that at most a share q of those is expected to be false.

    Benjamini and Hochberg (1995), J. R. Stat. Soc. B 57, p. 289, for several symbols judged in one run. A p
    value of nan (nothing could be tested) counts as 1: it is never rejected, but it was tried.

    Args:
        p_values: One per hypothesis. (n,)
        q: Expected share of false discoveries, in (0, 1).

    Returns:
        Which are rejected, in the order given. (n,)
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    p_values = np.where(np.isnan(p_values), 1.0, p_values)
    count = len(p_values)
    ordered = np.sort(p_values)
    small_enough = np.flatnonzero(ordered <= q * np.arange(1, count + 1) / max(count, 1))
    if not len(small_enough):
        return np.zeros(count, dtype=bool)
    return p_values <= ordered[small_enough[-1]]


def sessions_needed(test: ClusteredTest, alpha: float) -> int | None:
    """Return how many sessions in all would just show this mean to be above zero at level alpha.

    The t value grows with the root of the number of sessions. It supposes that mean and spread stay as
    observed, in which case the test comes out either way about equally often; it is a scale, not a promise.

    Args:
        test: What was observed.
        alpha: One-sided level.

    Returns:
        Sessions in all, those observed included and never fewer. None where the mean is not positive, nothing
        could be tested, or more than ten million would be needed.
    """
    return sessions_to_show(test.mean, test.t, test.sessions, alpha)


def sessions_to_show(mean: float, t: float, sessions: int, alpha: float) -> int | None:
    """Return `sessions_needed` of a test of which only mean, t value and number of sessions are known."""
    if not mean > 0.0 or math.isnan(t):
        return None
    if math.isinf(t):
        return max(sessions, math.ceil(math.log(alpha) / math.log(0.5)))

    def shown(count: int) -> bool:
        return t * math.sqrt(count / sessions) >= float(stdtrit(count - 1, 1.0 - alpha))

    high = max(2, sessions)
    if shown(high):
        return high
    while not shown(high):
        high *= 2
        if high > _MOST_SESSIONS_NAMED:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high


def window_hash(symbol: str, start_ns: int | np.integer, stop_ns: int | np.integer, data_hash: str) -> str:
    """Return the name under which looks at a window are counted: 64 hexadecimal digits.

    Args:
        symbol: The symbol judged.
        start_ns: Closing time of the window's first bar, UTC nanoseconds.
        stop_ns: Closing time of its last bar, UTC nanoseconds.
        data_hash: Hash of the data judged on. Prefer one of the window's own bars: with that of a whole file
            that grows at its end, the count would start again with every new bar.
    """
    text = json.dumps([symbol, int(start_ns), int(stop_ns), data_hash])
    return hashlib.sha256(text.encode()).hexdigest()


_KINDS = ("look", "verdict", "settlement")

_SPOILED_BY = {"promotion": ("promotion", "test")}
"""Looks for another purpose that count too, where the windows overlap: a promotion window that has moved into bars
which backtests have opened is not one that nobody has looked at."""

LEDGER_NAME = "evidence_ledger.jsonl"
"""In the reports folder: deleting models does not make windows fresh again."""

_SEAL = ', "chain": "'
"""Stands before the seal, which ends a line: the SHA-256 of the seal of the line before and of this line up to here."""


@dataclass(frozen=True, kw_only=True)
class _Content:
    """What a ledger holds."""

    entries: list[dict[str, Any]]
    is_torn: bool
    """True where the last thing in the file is a torn line."""
    seal: str
    """Of everything read; the next line is chained to it."""
    unsealed: int
    """Lines without a seal, written by versions that knew none."""


class EvidenceLedger:
    """Counts looks at data windows, in a file that is only ever appended to.

    One JSON object per line: a *look* takes the next attempt number of its window, a *verdict* says what came
    of it, a *settlement* what became of that verdict among all symbols judged in the run. Deleting a model
    does not reset the count. Record a look **before** looking: a process killed in between has then spent an
    attempt rather than gained a free one. The file is locked while a line is added, so two processes never
    get the same number, and each line is on the disk before its number is handed out.

    A line cut off by a crash was never acknowledged; it is not counted, stays in the file, and is reported in
    `notes` and by a warning. Any other damage is refused, since a count with a hole proves nothing. Each line ends
    with a hash of itself and of the line before, so that a changed figure and a line taken out are damage too. Not seen
    are lines taken off the end, and what somebody does who computes all hashes anew.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        """What was found wrong with the file and passed over, in words."""

    def record(
        self,
        symbol: str,
        window_hash: str,
        purpose: str,
        *,
        subject: str | None = None,
        span: tuple[int, int] | None = None,
        **fields: Any,
    ) -> int:
        """Write down that a window is about to be looked at, and return which attempt at it this is, from 1.

        Args:
            symbol: The symbol judged.
            window_hash: Which window, from `window_hash`.
            purpose: What the look is for, such as "progress" or "promotion"; each is counted by itself.
            subject: What is judged, such as the hash of the weights. The same subject on the same window gets
                the number it had: a look repeated after an interruption shows nothing new and costs nothing.
            span: Start and stop of the window, UTC nanoseconds. If given, looks of the same symbol and
                purpose at windows that overlap it in time count too, since overlapping windows are not fresh
                data. For a promotion, so do looks at test windows.
            fields: Whatever else the line should say; JSON-able, finite numbers.

        Raises:
            DataError: If the ledger is damaged.
            StorageError: If the disk refuses; the ledger is as it was, and the look is not counted.
            ValueError: If a field cannot be written as JSON.
        """
        if not (symbol and window_hash and purpose):
            raise ValueError("symbol, window_hash and purpose have to be non-empty texts")
        with self._locked() as file:
            content = self._read(file)
            known = _looks(content.entries, symbol, window_hash, purpose, span)
            if subject is not None:
                for entry in known:
                    same = entry["purpose"] == purpose and entry["window_hash"] == window_hash
                    if same and entry.get("subject") == subject:
                        return int(entry["attempt"])
            attempt = 1 + max((int(entry["attempt"]) for entry in known), default=0)
            self._append(
                file,
                {
                    "kind": "look",
                    "symbol": symbol,
                    "window_hash": window_hash,
                    "purpose": purpose,
                    "attempt": attempt,
                    "subject": subject,
                    "span": [int(end) for end in span] if span is not None else None,
                },
                fields,
                after=content,
            )
        return attempt

    def conclude(self, symbol: str, window_hash: str, purpose: str, attempt: int, **fields: Any) -> None:
        """Write down what came of a look; not counted as one. The same verdict twice is written once.

        Raises:
            DataError: If the ledger is damaged, or holds no such look.
            ValueError: If a field cannot be written as JSON.
        """
        self._follow_up("verdict", symbol, window_hash, purpose, attempt, fields)

    def settle(self, symbol: str, window_hash: str, purpose: str, attempt: int, **fields: Any) -> None:
        """Write down what became of a verdict once all symbols of its run were judged; as `conclude`."""
        self._follow_up("settlement", symbol, window_hash, purpose, attempt, fields)

    def _follow_up(
        self,
        kind: str,
        symbol: str,
        window_hash: str,
        purpose: str,
        attempt: int,
        fields: Mapping[str, Any],
    ) -> None:
        with self._locked() as file:
            content = self._read(file)
            looks = [
                look
                for look in _looks(content.entries, symbol, window_hash, purpose, None)
                if look["purpose"] == purpose
            ]
            if attempt not in [look["attempt"] for look in looks]:
                raise DataError(
                    f"{self.path} holds no look number {attempt} at this window of {symbol} for {purpose}; "
                    f"it holds {len(looks)}. Record the look before its {kind}."
                )
            line: dict[str, Any] = {"kind": kind, "symbol": symbol, "window_hash": window_hash}
            line |= {"purpose": purpose, "attempt": attempt}
            written = json.loads(self._as_json({**line, **fields}))
            if not any(entry.items() >= written.items() for entry in content.entries):
                self._append(file, line, fields, after=content)

    def attempts(
        self, symbol: str, window_hash: str, purpose: str, span: tuple[int, int] | None = None
    ) -> int:
        """Return how many looks have been counted so far; 0 where the ledger does not exist.

        Args:
            symbol: The symbol judged.
            window_hash: Which window, from `window_hash`.
            purpose: What the looks were for.
            span: As in `record`.

        Raises:
            DataError: If the ledger is damaged.
        """
        looks = _looks(self.entries(), symbol, window_hash, purpose, span)
        return max((int(entry["attempt"]) for entry in looks), default=0)

    def entries(self) -> list[dict[str, Any]]:
        """Return every line as written, oldest first and without its seal; empty where the ledger does not exist.

        Raises:
            DataError: If the ledger is damaged.
        """
        return self._content().entries if self.path.exists() else []

    def how_sealed(self) -> str:
        """Return in a sentence how far the lines of the ledger are known to be as they were written.

        Raises:
            DataError: If the ledger is damaged.
        """
        content = self._content()
        count = len(content.entries)
        if content.unsealed:
            return (
                f"{content.unsealed:,} of {count:,} lines of the ledger are of an earlier version and carry no hash: "
                "whether they are as they were written cannot be told."
            )
        return f"All {count:,} lines of the ledger are as they were written, and none between them is missing (hashes)."

    def _content(self) -> _Content:
        with self.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return self._read(file)

    @contextmanager
    def _locked(self) -> Generator[FileIO]:
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            opened = self.path.open("a+b", buffering=0)
        with opened as file:
            # Released when the file is closed, also by the death of the process.
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _read(self, file: BinaryIO) -> _Content:
        file.seek(0)
        lines = file.read().split(b"\n")
        entries: list[dict[str, Any]] = []
        torn: list[tuple[int, bytes]] = []  # unreadable lines since the last entry
        seal, unsealed = "", 0
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            entry = _parsed(line)
            # What follows the last line end was cut off, even where it happens to be readable.
            is_open = number == len(lines)
            if entry is None:
                torn.append((number, line))
                continue
            # Whoever found a torn line before its own said so; anything else unreadable was changed
            # afterwards.
            if torn and not is_open and entry.get("after_torn_line") is not True:
                raise self._damaged(torn[0][0])
            stated = entry.pop("chain", None)
            # Once there are seals, every line has one; a line without was put there by somebody else.
            if stated is None and len(entries) > unsealed:
                raise self._altered(number)
            # An open line too: the next one closes it, and makes it one that counts.
            seal = _seal_of(seal, line if stated is None else line.rpartition(_SEAL.encode())[0])
            if stated not in (None, seal):
                raise self._altered(number)
            if is_open:
                torn.append((number, line))
                continue
            self._note_torn(torn)
            torn = []
            entries.append(entry)
            unsealed += stated is None
        for number, line in torn:
            if number != len(lines) and line.endswith(b"}"):
                raise self._damaged(number)
        self._note_torn(torn)
        return _Content(entries=entries, is_torn=bool(torn), seal=seal, unsealed=unsealed)

    def _append(
        self, file: BinaryIO, line: Mapping[str, Any], fields: Mapping[str, Any], *, after: _Content
    ) -> None:
        taken = sorted(set(fields) & {*line, "time", "after_torn_line", "chain"})
        if taken:
            raise ValueError(f"{', '.join(taken)} cannot be given as a field: the ledger writes it itself")
        content = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **line, **fields}
        if after.is_torn:
            content["after_torn_line"] = True
        body = self._as_json(content).removesuffix("}")
        text = f'{body}{_SEAL}{_seal_of(after.seal, body.encode())}"}}'
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                # Closes the torn line, so that this one does not become its tail.
                text = "\n" + text
        try:
            with storage_errors(self.path):
                append_all(file.fileno(), text.encode() + b"\n")
                os.fsync(file.fileno())
                if not size:
                    flush_folder(self.path.parent)
        except StorageError:
            # A full disk may have taken a part of the line. Nobody was given its number.
            os.ftruncate(file.fileno(), size)
            raise

    def _as_json(self, content: Mapping[str, Any]) -> str:
        try:
            return json.dumps(content, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"a line of {self.path} cannot be written as JSON: {error}") from error

    def _note_torn(self, torn: list[tuple[int, bytes]]) -> None:
        for number, line in torn:
            note = (
                f"{self.path}, line {number}: cut off after {len(line)} bytes while it was written. "
                "Its attempt number was never given out; the line is not counted."
            )
            if note not in self.notes:
                self.notes.append(note)
                warnings.warn(note, stacklevel=4)

    def _altered(self, number: int) -> DataError:
        return DataError(
            f"{self.path}, line {number}: is not as it was written, or a line before it was changed or taken out: it "
            "does not hash to what it says.\n"
            "  The ledger is only ever appended to; with a changed line, looks cannot be counted any more. "
            "Restore the file from a copy, or move it away and judge on data newer than it."
        )

    def _damaged(self, number: int) -> DataError:
        return DataError(
            f"{self.path}, line {number}: is not a line of an evidence ledger.\n"
            "  The ledger is only ever appended to; with a changed line, looks cannot be counted any more. "
            "Restore the file from a copy, or move it away and judge on data newer than it."
        )


def counted_attempt(entries: Sequence[Mapping[str, Any]], look: Mapping[str, Any]) -> int:
    """Return the number a look should have by the looks written before it, counted anew.

    Args:
        entries: Of the ledger, oldest first; the look is one of them.
        look: The line of a look.
    """
    before = []
    for entry in entries:
        if entry is look:
            break
        before.append(dict(entry))
    span = tuple(look["span"]) if look.get("span") else None
    known = _looks(before, look["symbol"], look["window_hash"], look["purpose"], span)
    return 1 + max((int(entry["attempt"]) for entry in known), default=0)


def _seal_of(before: str, body: bytes) -> str:
    """Return the hash that seals a line.

    Args:
        before: Seal of the line before; empty for the first.
        body: The line up to its seal; one without a seal, whole.
    """
    return hashlib.sha256(before.encode() + body).hexdigest()


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or entry.get("kind") not in _KINDS:
        return None
    texts = all(isinstance(entry.get(key), str) for key in ("symbol", "window_hash", "purpose"))
    attempt = entry.get("attempt")
    return entry if texts and isinstance(attempt, int) and attempt >= 1 else None


def _looks(
    entries: list[dict[str, Any]], symbol: str, window_hash: str, purpose: str, span: tuple[int, int] | None
) -> list[dict[str, Any]]:
    def counts(entry: Mapping[str, Any]) -> bool:
        if entry["kind"] != "look" or entry["symbol"] != symbol:
            return False
        if entry["purpose"] not in _SPOILED_BY.get(purpose, (purpose,)):
            return False
        other = entry.get("span")
        overlaps = span is not None and other is not None and span[0] <= other[1] and other[0] <= span[1]
        return overlaps or entry["window_hash"] == window_hash

    return [entry for entry in entries if counts(entry)]


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} has to be one-dimensional, but has shape {array.shape}")
    if not np.isfinite(array).all():
        position = int(np.argmax(~np.isfinite(array)))
        raise ValueError(f"{name}[{position}] is {array[position]}; only finite numbers can be tested")
    return array


def _sums_by_session(values: np.ndarray, sessions: np.ndarray) -> np.ndarray:
    _, cluster = np.unique(sessions, return_inverse=True)
    return np.bincount(cluster, weights=values)


def _t_and_p(mean: float, error: float, clusters: int) -> tuple[float, float, float]:
    """Return t and the p values of a mean above and below zero, with clusters - 1 degrees of freedom."""
    if error > 0.0:
        t = mean / error
        return t, float(stdtr(clusters - 1, -t)), float(stdtr(clusters - 1, t))
    if mean == 0.0:
        return math.nan, math.nan, math.nan
    same_sign = 0.5**clusters
    return math.copysign(math.inf, mean), *((same_sign, 1.0) if mean > 0.0 else (1.0, same_sign))
