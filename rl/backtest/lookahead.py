"""Does anything see the future? Every step from raw file to verdict is run again on other futures of the same past.

Three questions, asked at cuts spread over the data:

* *future poison*: the bars after the cut are altered, shuffled or deleted. Whatever was known at the cut may not change
  by a single bit. Deleting them is the *prefix* test: everything is computed anew from the first bars alone.
* *warm start*: a feature computed from its last W bars equals the one computed from all history.
* *follow the fill*: an order decided at the cut has to fill at a price that changes with the bars after it.

Each step is given inputs that are equal up to the cut even where a step before it is at fault, so a fault is found in
the step that makes it and in no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rl.backtest.engine import Replay
from rl.backtest.lookahead_chain import Chain, Model, random_model, traded
from rl.backtest.lookahead_own_columns import foreknowledge
from rl.backtest.lookahead_poisons import POISONS, RawSeries, chosen_cuts
from rl.common.errors import DataError
from rl.common.seeding import generator
from rl.envs.scaled_market import bar_volatility, scaled_market
from rl.features.indicators import Feature, Stretch
from rl.features.pipeline import (
    VALUE_LIMIT,
    FeatureTable,
    chosen_features,
    longest_lookback_bars,
    market_clock,
)
from rl.features.scaler import FeatureScaler
from rl.market.bars import Bars, readable_label
from rl.market.calendars import calendar
from rl.market.checks import counted
from rl.market.instruments import Instrument
from rl.market.raw_table import RawTable
from rl.market.splits import SplitPlan, Splits, longest_embargo, split_bars
from rl.trading.kernel import ACTION_COUNTS, ORDER
from rl.trading.ledger import LOG_BAR, LOG_PRICE, LOG_REASON
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import rules_for

T = TypeVar("T")

CLEAN = "clean"
SEES_THE_FUTURE = "SEES THE FUTURE"
SUSPICIOUS = "SUSPICIOUS"
FORGETS_TOO_SLOWLY = "WARM-UP TOO SHORT"
NOT_TESTED = "not tested"

PIECES = {
    "ingest": "raw file to bars",
    "features": "bars to features",
    "windows": "train, validation, promotion, test",
    "scaler": "what the training rows teach",
    "scaling": "features to scaled features",
    "observations": "what both environments show and pay",
    "decisions": "model to actions",
    "fills": "actions to fills and equity",
    "gate inputs": "trade record of a window that ends at the cut",
    "own columns": "x_ columns of the user's own file",
}
"""Every step the check can blame, in the order of the chain."""

CUTS = 20
TOLERANCE = 1e-6
"""How far a feature from its last W bars may lie from that of all history, as a share of max(1, its size)."""

LOCAL_BARS = 400
"""Bars traded up to each cut."""

OBSERVED_BARS = 100
"""Bars the environments walk up to each cut; they go one call a bar."""

BARS_AHEAD = 40
"""Bars the traded window goes on beyond the cut, for a fault to look at."""

LANES = 4
LEAST_BARS_BEFORE = 64
"""No cut lies earlier; a file of fewer bars is hardly recognised as one."""

TRAINING_ROWS_AFTER_FACTOR = 10.0
AMPLE_LOTS = 1000.0

# Checks of the whole series that a user may have set to `error` would refuse the altered futures, and are of no
# consequence for what the bars are.
_TOLERATED = ("jump", "stale_run", "flat_bars", "hole", "unfinished_session")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One verdict: about a step, or one column of it."""

    piece: str
    """Key of `PIECES`."""
    item: str
    """What of it: a column, a pair of windows, a kind of number."""
    verdict: str
    tests: int
    """Comparisons made."""
    remark: str = ""
    """The first difference, or what else has to be said."""
    warm_up_bars: int | None = None
    """Bars a feature is computed from."""
    warm_start_error: float | None = None
    """Largest difference between the feature from that many bars and from all history."""

    @property
    def is_fault(self) -> bool:
        """True where nothing after it can be trusted."""
        return self.verdict in (SEES_THE_FUTURE, SUSPICIOUS)


@dataclass(frozen=True, kw_only=True)
class LookaheadReport:
    """Everything the check found about one symbol."""

    symbol: str
    bars: int
    cuts: tuple[str, ...]
    """Label of each bar cut after."""
    model: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that say something sees the future, or may."""
        return tuple(finding for finding in self.findings if finding.is_fault)

    @property
    def on_trust(self) -> tuple[Finding, ...]:
        """The user's own columns without a fault: none can be recomputed, and some may not even have been tested."""
        return tuple(
            finding for finding in self.findings if finding.piece == "own columns" and not finding.is_fault
        )

    @property
    def guilty_pieces(self) -> tuple[str, ...]:
        """The steps at fault, in the order of the chain."""
        return tuple(piece for piece in PIECES if any(fault.piece == piece for fault in self.faults))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "symbol": self.symbol,
            "bars": self.bars,
            "cuts": list(self.cuts),
            "poisons": list(POISONS),
            "model": self.model,
            "sees_the_future": bool(self.faults),
            "guilty_pieces": list(self.guilty_pieces),
            "own_columns_on_trust": [finding.item for finding in self.on_trust],
            "findings": [
                {name: getattr(finding, name) for name in Finding.__dataclass_fields__}
                for finding in self.findings
            ],
            "notes": list(self.notes),
        }


def check_lookahead(
    table: RawTable,
    path: Path,
    symbol: str,
    instrument: Instrument,
    *,
    model: Model | None = None,
    data_hash: str | None = None,
    chain: Chain | None = None,
    cuts: int = CUTS,
    seed: int = 0,
) -> LookaheadReport:
    """Check one symbol from its raw file to the record a gate would be given.

    Args:
        table: Rows of the raw file.
        path: Where they came from, for messages.
        symbol: Its symbol.
        instrument: What is known about it.
        model: What acts; None lets random weights act under the instrument's costs.
        data_hash: Hash of the raw file; where it is the model's, the scaler in the model's file is fitted anew.
        chain: Steps to check; None checks the program's own.
        cuts: Bars to cut after.
        seed: Decides cuts, poisons and random actions.

    Raises:
        DataError: The file cannot be used, or is too short to be split into windows.
    """
    tolerant = instrument.model_copy(
        update={"checks": {**instrument.checks, **dict.fromkeys(_TOLERATED, "warn")}}
    )
    check = _Check(chain or Chain(), table, path, symbol, tolerant, model, seed)
    check.windows_are_apart(data_hash)
    check.scaler_knows_training_rows_only(data_hash)
    chosen = chosen_cuts(
        check.bars,
        cuts,
        generator(seed, "look-ahead check", "cuts"),
        first=min(LEAST_BARS_BEFORE, len(check.bars) // 2),
        warm_up_bars=longest_lookback_bars(),
    )
    for cut in chosen:
        check.warm_start(cut)
        check.other_futures(cut)
    check.own_columns()
    return LookaheadReport(
        symbol=symbol,
        bars=len(check.bars),
        cuts=tuple(readable_label(check.bars, cut) for cut in chosen),
        model=check.model.description,
        findings=tuple(check.findings()),
        notes=tuple(dict.fromkeys(check.notes)),
    )


@dataclass
class _Tally:
    """What came of all comparisons of one item."""

    tests: int = 0
    differences: int = 0
    first: str = ""
    remark: str = ""
    verdict: str | None = None
    """A verdict that does not come from comparing."""
    warm_up_bars: int | None = None
    error: float | None = None

    def finding(self, piece: str, item: str) -> Finding:
        verdict = self.verdict or (CLEAN if self.tests else NOT_TESTED)
        if self.error is not None and self.error > TOLERANCE:
            verdict = FORGETS_TOO_SLOWLY
            self.remark = (
                f"{self.error:.0e} away from the value of all history: older bars than its last {self.warm_up_bars} "
                "still count, so a live program has to load more of them"
            )
        if self.differences:
            verdict = SEES_THE_FUTURE
        remark = self.remark
        if self.differences:
            remark = f"{self.differences} of {self.tests} differ; first: {self.first}"
        return Finding(
            piece=piece,
            item=item,
            verdict=verdict,
            tests=self.tests,
            remark=remark,
            warm_up_bars=self.warm_up_bars,
            warm_start_error=self.error,
        )


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """One cut, what is done after it, and how a message calls it."""

    bar: int
    label: str
    poison: str
    rows: tuple[int, int]
    """First row traded, and the row after the last, on the bars as they are."""


class _Memory:
    """What the bars as they are gave at one cut: made once, compared with every other future."""

    def __init__(self) -> None:
        self._made: dict[Any, Any] = {}

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """Return what was made under this key, making it first where it has not been."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


class _Check:
    """The chain run once on the bars as they are, and the comparisons with other futures."""

    def __init__(
        self,
        chain: Chain,
        raw: RawTable,
        path: Path,
        symbol: str,
        instrument: Instrument,
        model: Model | None,
        seed: int,
    ) -> None:
        self._chain, self._path, self._symbol, self._instrument, self._seed = (
            chain,
            path,
            symbol,
            instrument,
            seed,
        )
        self._given = [name for name in raw.numbers if name.startswith("x_")]
        self.notes: list[str] = []
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self.bars = chain.read(replace(raw.rows(np.arange(len(raw))), notes=[]), path, symbol, instrument)
        self._series = RawSeries.of(raw, self.bars)
        self.table = chain.features(self.bars, instrument)
        self._features = chosen_features(self.bars, instrument)
        self.model = model or self._random_model()
        self._embargo, self._windows, self._boundaries = self._divided()
        self._names = self.model.feature_names
        self._training_scaler = self._fitted(self.table)
        self._scaler = self.model.scaler or self._training_scaler
        self._market = scaled_market(self.bars, self.table, self._names, self._scaler)
        self._scaled = chain.scale(self.bars, self.table, self._names, self._scaler)
        self._found_windows = Splits.from_boundaries(self.bars, self._boundaries).windows
        price = float(np.abs(self.bars.close).max())
        self._ample = max(self.model.capital, AMPLE_LOTS * price * max(1.0, self.model.rules.lot_size))

    # ---- set-up ------------------------------------------------------------------------------------------------

    def _random_model(self) -> Model:
        rules = rules_for(self._instrument, bar_volatility=bar_volatility(self.bars, (0, len(self.bars))))
        price = float(np.abs(self.bars.close).max())
        capital = max(100_000.0, AMPLE_LOTS * price * max(1.0, rules.lot_size))
        return random_model(self.table, rules, capital=capital, seed=self._seed)

    def _divided(self) -> tuple[int, dict[str, np.ndarray], dict[str, Any]]:
        if self.model.boundaries is not None:
            splits = Splits.from_boundaries(self.bars, self.model.boundaries)
            rows = {window.name: np.arange(window.start, window.stop) for window in splits.windows}
            return self.model.embargo_bars or 0, rows, splits.boundaries
        plan = SplitPlan()
        embargo = min(longest_lookback_bars(), longest_embargo(self.bars, plan))
        return (
            embargo,
            self._chain.split(self.bars, embargo),
            split_bars(self.bars, plan, embargo).boundaries,
        )

    def _fitted(self, table: FeatureTable) -> FeatureScaler:
        return self._chain.fit_scaler(
            table, self.model.feature_names, next(iter(self._windows.values())), self._symbol
        )

    def _tally(self, piece: str, item: str) -> _Tally:
        return self._tallies.setdefault((piece, item), _Tally())

    def findings(self) -> Iterator[Finding]:
        """Yield every finding in the order of the chain."""
        for piece in PIECES:
            for (of, item), tally in self._tallies.items():
                if of == piece:
                    yield tally.finding(piece, item)

    # ---- comparisons -------------------------------------------------------------------------------------------

    def _compare(self, piece: str, item: str, known: np.ndarray, again: np.ndarray, cut: _Cut) -> bool:
        """Note whether two arrays of what was known at the cut are equal bit for bit."""
        tally = self._tally(piece, item)
        tally.tests += 1
        if known.shape == again.shape and known.dtype == again.dtype and _bytes(known) == _bytes(again):
            return True
        tally.differences += 1
        if not tally.first:
            tally.first = f"{_difference(known, again)} when the bars after {cut.label} were {cut.poison}"
        return False

    def _fault(self, piece: str, item: str, text: str) -> None:
        tally = self._tally(piece, item)
        tally.differences += 1
        tally.first = tally.first or text

    # ---- windows and scaler ------------------------------------------------------------------------------------

    def windows_are_apart(self, data_hash: str | None) -> None:
        """Check that each window begins after all earlier ones have ended, and the embargo after that."""
        names = list(self._windows)
        look_back = longest_lookback_bars()
        # A file that has lost bars since its model was trained may have lost some of the embargo.
        is_same_file = self.model.data_hash is None or self.model.data_hash == data_hash
        needed = self._embargo if is_same_file else 0
        for place, name in enumerate(names[1:], start=1):
            item = f"{names[place - 1]} to {name}"
            end = max(int(self._windows[earlier].max()) for earlier in names[:place])
            begin = int(self._windows[name].min())
            apart = begin - end - 1
            tally = self._tally("windows", item)
            tally.tests += 1
            tally.remark = f"{counted(apart, 'bar')} apart, embargo {self._embargo}"
            if self._embargo < look_back:
                tally.remark += (
                    f" (below the look-back of {look_back}: first features reach back, never forward)"
                )
            if apart < needed:
                self._fault(
                    "windows",
                    item,
                    f"{name} begins at bar {begin}, but an earlier window ends at bar {end}; at least {needed} bars "
                    "have to lie between",
                )

    def scaler_knows_training_rows_only(self, data_hash: str | None) -> None:
        """Multiply every row after the training window, and compare the scaler with the one in the model's file."""
        values = self.table.values.copy()
        values[int(next(iter(self._windows.values())).max()) + 1 :] *= TRAINING_ROWS_AFTER_FACTOR
        fitted = self._training_scaler
        multiplied = self._fitted(replace(self.table, values=values))
        tally = self._tally("scaler", "rows after the training window times 10")
        tally.tests += 1
        if fitted.to_dict() != multiplied.to_dict():
            tally.differences += 1
            tally.first = _changed_columns(fitted, multiplied)
        if self.model.scaler is None:
            return
        item = "the one in the model's file"
        stored = self._tally("scaler", item)
        if data_hash is None or data_hash != self.model.data_hash:
            stored.remark = "the raw file has changed since, so it cannot be fitted anew"
            return
        stored.tests += 1
        if fitted.to_dict() != self.model.scaler.to_dict():
            stored.differences += 1
            stored.first = f"not what the training rows give: {_changed_columns(fitted, self.model.scaler)}"

    # ---- warm start --------------------------------------------------------------------------------------------

    def warm_start(self, cut: int) -> None:
        """Compute every feature of one bar from its last W bars alone."""
        if not self.table.usable[cut]:
            return
        hours = calendar(self._instrument.calendar)
        longest = cut + 1 - max(feature.lookback_bars for feature in self._features)
        for feature in self._features:
            part = self.bars.slice(self._warm_up_start(feature, cut), cut + 1)
            stretch = Stretch(part, market_clock(part, hours), self._instrument.price_may_be_negative)
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                value = float(np.clip(feature.compute(stretch)[-1], -VALUE_LIMIT, VALUE_LIMIT))
            self._note_warm_start(feature.name, value, cut, feature.lookback_bars)
            longest = min(longest, self._warm_up_start(feature, cut))
        part = self.bars.slice(max(0, longest), cut + 1)
        again = self._chain.features(part, self._instrument)
        for column, name in enumerate(again.names):
            if again.usable[-1] and name not in self._given:
                self._note_warm_start(name, float(again.values[-1, column]), cut, None)

    def _warm_up_start(self, feature: Feature, cut: int) -> int:
        start = cut + 1 - feature.lookback_bars
        if feature.reaches_last_session:
            # The close before this session's first bar.
            start = min(start, int(np.searchsorted(self.bars.session, self.bars.session[cut])) - 1)
        return max(0, start)

    def _note_warm_start(self, name: str, value: float, cut: int, bars: int | None) -> None:
        known = float(self.table.values[cut, self.table.names.index(name)])
        tally = self._tally("features", name)
        tally.warm_up_bars = bars if bars is not None else tally.warm_up_bars
        if np.isnan(value):
            tally.verdict = FORGETS_TOO_SLOWLY
            tally.remark = (
                f"its last {tally.warm_up_bars} bars alone give no value; a live program has to load more"
            )
            return
        error = abs(value - known) / max(1.0, abs(known))
        tally.error = max(error, tally.error or 0.0)

    # ---- other futures -----------------------------------------------------------------------------------------

    def other_futures(self, bar: int) -> None:
        """Run the chain on every other future of one cut and compare what was known."""
        label = readable_label(self.bars, bar)
        memory = _Memory()
        rows = max(0, bar - LOCAL_BARS), min(len(self.bars), bar + 1 + BARS_AHEAD)
        for name, poison in POISONS.items():
            cut = _Cut(bar=bar, label=label, poison=name, rows=rows)
            rng = generator(self._seed, "look-ahead check", name, bar)
            bars = self._other_bars(poison(self._series, bar, rng), cut)
            table = self._other_features(bars, cut)
            self._windows_stay(bars, cut)
            if bar >= int(next(iter(self._windows.values())).max()):
                self._scaler_stays(table, cut)
            market = self._other_market(bars, table, cut)
            self._decisions(market, cut, memory)
            for scheme in ACTION_COUNTS:
                self._observations(market, cut, scheme, memory)
                self._fills(market, cut, scheme, memory)
            self._gate_inputs(market, cut, memory)

    def _other_bars(self, raw: RawTable, cut: _Cut) -> Bars:
        """Read the other file; return its bars with those up to the cut as they were."""
        try:
            bars = self._chain.read(raw, self._path, self._symbol, self._instrument)
        except DataError as error:
            first_line = str(error).splitlines()[0]
            self.notes.append(
                f"with the bars after {cut.label} {cut.poison} the file is refused, so that ingest was not compared "
                f"there: {first_line}"
            )
            return self.bars.slice(0, cut.bar + 1)
        known = int(np.searchsorted(bars.close_time, self.bars.close_time[cut.bar], side="right"))
        before, after = self.bars.slice(0, cut.bar + 1), bars.slice(0, known)
        if self._compare("ingest", "number of bars", np.array([len(before)]), np.array([len(after)]), cut):
            self._compare_bars(before, after, cut)
        return _spliced_bars(self.bars, bars, cut.bar, known)

    def _compare_bars(self, before: Bars, after: Bars, cut: _Cut) -> None:
        for item, columns in (
            ("times", ("close_time", "label")),
            ("sessions", ("session",)),
            ("last bar of a session", ("session_end",)),
            ("prices", ("open", "high", "low", "close")),
        ):
            for column in columns:
                if not self._compare("ingest", item, getattr(before, column), getattr(after, column), cut):
                    break
        if before.volume is not None and after.volume is not None:
            self._compare("ingest", "volume", before.volume, after.volume, cut)
        elif before.volume is not None or after.volume is not None:
            self.notes.append(
                "whether the volume is used is decided for the whole file: it is left out where some bars have none, "
                f"and so it is where the bars after {cut.label} are {cut.poison}"
            )
        for name in before.extra:
            self._compare("ingest", name, before.extra[name], after.extra[name], cut)

    def _other_features(self, bars: Bars, cut: _Cut) -> FeatureTable:
        table = self._chain.features(bars, self._instrument)
        rows = cut.bar + 1
        known, again = self.table.values[:rows], table.values[:rows]
        if known.tobytes() == again.tobytes():
            for name in self.table.names:
                self._tally("features", name).tests += 1
        else:
            for column, name in enumerate(self.table.names):
                self._compare("features", name, known[:, column], again[:, column], cut)
        self._compare(
            "features", "where features are defined", self.table.usable[:rows], table.usable[:rows], cut
        )
        self._compare("features", "average true range", self.table.atr[:rows], table.atr[:rows], cut)
        return FeatureTable(
            values=np.concatenate([known, table.values[rows:]]),
            names=table.names,
            usable=np.concatenate([self.table.usable[:rows], table.usable[rows:]]),
            atr=np.concatenate([self.table.atr[:rows], table.atr[rows:]]),
            regime_names=table.regime_names,
        )

    def _windows_stay(self, bars: Bars, cut: _Cut) -> None:
        """Find the stored windows again; those that ended by the cut are where they were."""
        if len(bars) <= cut.bar + 1:
            return
        after = Splits.from_boundaries(bars, self._boundaries)
        for old, new in zip(self._found_windows, after.windows, strict=True):
            if old.stop <= cut.bar + 1:
                self._compare(
                    "windows",
                    f"{old.name} found again",
                    np.array([old.start, old.stop]),
                    np.array([new.start, new.stop]),
                    cut,
                )

    def _scaler_stays(self, table: FeatureTable, cut: _Cut) -> None:
        known, again = self._training_scaler, self._fitted(table)
        for part in ("center", "scale"):
            self._compare(
                "scaler", "fitted on training rows", getattr(known, part), getattr(again, part), cut
            )

    def _other_market(self, bars: Bars, table: FeatureTable, cut: _Cut) -> MarketArrays:
        rows = cut.bar + 1
        known = self._scaled
        again = self._chain.scale(bars, table, self._names, self._scaler)
        for item in ("features", "ohlc", "tradable", "atr", "session", "session_end"):
            self._compare(
                "scaling",
                "scaled features" if item == "features" else "arrays beside them",
                getattr(known, item)[:rows],
                getattr(again, item)[:rows],
                cut,
            )
        return scaled_market(bars, table, self._names, self._scaler)

    # ---- trading -----------------------------------------------------------------------------------------------

    def _window_on(self, market: MarketArrays, cut: _Cut) -> tuple[int, int]:
        return cut.rows[0], min(cut.rows[1], len(market))

    def _script(self, scheme: str, cut: _Cut) -> np.ndarray:
        """Return random actions of one account for each lane, with a change of side at the cut. (n, LANES)"""
        rng = generator(self._seed, "look-ahead check", "actions", scheme, cut.bar)
        steps = cut.rows[1] - cut.rows[0] - 1
        script = rng.integers(0, ACTION_COUNTS[scheme], (steps, LANES))
        place = cut.bar - cut.rows[0]
        if scheme == "target" and 0 < place < steps:
            script[place - 1 : place + 1, 0] = (0, 2) if self.model.rules.allow_short else (1, 2)
        return script

    def _observations(self, market: MarketArrays, cut: _Cut, scheme: str, memory: _Memory) -> None:
        start = max(cut.rows[0], cut.bar - OBSERVED_BARS)

        def seen(arrays: MarketArrays) -> dict[str, np.ndarray]:
            window = start, min(cut.rows[1], len(arrays))
            steps = min(window[1] - start - 1, cut.bar - start + 1)
            # The actions end with those of the cut, whose change of side shows in the bar after it.
            script = self._script(scheme, cut)[start - cut.rows[0] :][:steps]
            return self._chain.observe(arrays, window, self.model.rules, script, scheme=scheme)

        known, again = memory.once(("seen", scheme), lambda: seen(self._market)), seen(market)
        bars = cut.bar - start + 1
        for item in known:
            rows = bars if "observations" in item else bars - 1
            self._compare("observations", f"{item}, {scheme}", known[item][:rows], again[item][:rows], cut)

    def _decisions(self, market: MarketArrays, cut: _Cut, memory: _Memory) -> None:
        start = cut.rows[0]
        known = memory.once("policy", lambda: self._chain.prepare(self.model, self._market, start))
        again = self._chain.prepare(self.model, market, start)
        self._compare("decisions", "weights that act", known.net, again.net, cut)

        def actions(arrays: MarketArrays) -> np.ndarray:
            window, rules = self._window_on(arrays, cut), self.model.rules
            options = {"scheme": self.model.scheme, "capital": self.model.capital}
            # One bar more than the cut, so that what is decided at the cut itself is among them.
            return traded(arrays, window, rules, known, **options).actions

        rows = cut.bar - start + (0 if cut.poison == "deleted" else 1)
        before = memory.once("actions", lambda: actions(self._market))
        self._compare("decisions", "actions of the policy", before[:rows], actions(market)[:rows], cut)

    def _fills(self, market: MarketArrays, cut: _Cut, scheme: str, memory: _Memory) -> None:
        """Compare what was traded by the cut, and follow the order decided at it."""
        rows = cut.bar - cut.rows[0] + 1
        known = memory.once(("fills", scheme), lambda: self._traded(self._market, cut, scheme))
        again = self._traded(market, cut, scheme)
        self._compare("fills", f"equity, {scheme}", known.equity[:rows], again.equity[:rows], cut)
        self._compare("fills", f"position, {scheme}", known.held[:rows], again.held[:rows], cut)
        rewards = known.rewards[: rows - 1], again.rewards[: rows - 1]
        self._compare("fills", f"reward, {scheme}", *rewards, cut)
        logs = [replay.fill_log[replay.fill_log[:, LOG_BAR] <= cut.bar] for replay in (known, again)]
        self._compare("fills", f"fills, {scheme}", *logs, cut)
        if scheme == "target" and cut.bar + 1 < len(market):
            self._fill_follows(known, again, market, cut)

    def _traded(self, market: MarketArrays, cut: _Cut, scheme: str) -> Replay:
        window = self._window_on(market, cut)
        script = self._script(scheme, cut)[: window[1] - window[0] - 1, 0].astype(np.int8)
        return self._chain.trade(market, window, self.model.rules, script, scheme=scheme, capital=self._ample)

    def _fill_follows(self, known: Replay, again: Replay, market: MarketArrays, cut: _Cut) -> None:
        """Check that what was decided at the cut was not filled at a price known by then."""
        place, bar = cut.bar - cut.rows[0], cut.bar + 1
        changes_position = known.decided[place] != known.held[place]
        if not changes_position or self._market.ohlc[bar, 0] == market.ohlc[bar, 0]:
            return
        item = "order fills at a price not known yet"
        self._tally("fills", item).tests += 1
        prices = [
            log[(log[:, LOG_BAR] == bar) & (log[:, LOG_REASON] == ORDER), LOG_PRICE]
            for log in (known.fill_log, again.fill_log)
        ]
        if not len(prices[0]):
            self._fault("fills", item, f"the order decided at {cut.label} was filled in that very bar")
        elif len(prices[1]) and np.any(np.isin(prices[0], prices[1])):
            text = f"filled at {prices[0][0]:.10g} whatever the next bar's open was"
            self._fault("fills", item, f"the order decided at {cut.label} {text}")

    def _gate_inputs(self, market: MarketArrays, cut: _Cut, memory: _Memory) -> None:
        window = cut.rows[0], cut.bar + 1
        script = self._script("target", cut)[: cut.bar - cut.rows[0], 0].astype(np.int8)

        def told(arrays: MarketArrays) -> dict[str, np.ndarray]:
            rules = self.model.rules
            replay = traded(arrays, window, rules, script, scheme="target", capital=self._ample)
            return self._chain.judge(arrays, window, rules, replay)

        known, again = memory.once("gate", lambda: told(self._market)), told(market)
        for item in known:
            self._compare("gate inputs", item, known[item], again[item], cut)

    # ---- the user's own columns --------------------------------------------------------------------------------

    def own_columns(self) -> None:
        """Ask of every x_ column of the file how much it knows of what follows."""
        for name in self._given:
            found = foreknowledge(self.bars, self.bars.extra[name])
            tests = sum(one.was_enough for one in found)
            self._tallies[("own columns", name)] = _Tally(
                tests=tests,
                verdict=SUSPICIOUS if any(one.is_suspicious for one in found) else None,
                remark="given by the file, cannot be recomputed; "
                + "; ".join(one.described() for one in found),
            )


def _bytes(values: np.ndarray) -> bytes | list[Any]:
    return values.tolist() if values.dtype == object else values.tobytes()


def _difference(known: np.ndarray, again: np.ndarray) -> str:
    if known.shape != again.shape:
        axis = int(len(known) == len(again))
        return f"{known.shape[axis]:,} {('rows', 'columns')[axis]} became {again.shape[axis]:,}"
    row = int(np.argmax(np.reshape(known != again, (len(known), -1)).any(axis=1))) if known.ndim else 0
    before, after = np.ravel(known[row]), np.ravel(again[row])
    column = int(np.argmax(before != after))
    return f"row {row:,} changed from {_shown(before[column])} to {_shown(after[column])}"


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value)


def _changed_columns(known: FeatureScaler, again: FeatureScaler) -> str:
    if known.columns != again.columns:
        return "it knows other features or regimes"
    changed = [
        name
        for place, name in enumerate(known.columns)
        if known.center[place] != again.center[place] or known.scale[place] != again.scale[place]
    ]
    return f"{counted(len(changed), 'column')} scaled differently: {', '.join(changed[:3])}" + (
        ", …" if len(changed) > 3 else ""
    )


def _spliced_bars(clean: Bars, other: Bars, bar: int, known: int) -> Bars:
    """Return the bars up to `bar` as they are, and after them those of the other future. (T',)"""
    head, tail = clean.slice(0, bar + 1), other.slice(known, len(other))

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(head, name), getattr(tail, name)])

    volume = None
    if head.volume is not None:
        volume = np.concatenate([head.volume, np.zeros(len(tail)) if tail.volume is None else tail.volume])
    return Bars(
        symbol=clean.symbol,
        bar_seconds=clean.bar_seconds,
        session=np.concatenate([head.session, np.maximum(tail.session, head.session[-1])]),
        volume=volume,
        extra={name: np.concatenate([values, tail.extra[name]]) for name, values in head.extra.items()},
        **{
            name: joined(name)
            for name in ("close_time", "session_end", "open", "high", "low", "close", "label")
        },
    )
