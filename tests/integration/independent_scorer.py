"""Recompute a backtest from its action log and the raw bars, with nothing of the program that made it.

Standard library only, so that a mistake of the program cannot be repeated here by sharing its code. Run it by hand:

    python tests/integration/independent_scorer.py actions.csv raw.csv SYMBOL CAPITAL name=rate ...

with the costs as plain numbers: commission_per_entry, commission_per_exit, commission_per_unit, commission_rate,
slippage_rate, slippage_price, tax_on_sale_rate.
"""

from __future__ import annotations

import csv
import itertools
import sys
from dataclasses import dataclass, field
from pathlib import Path

NO_COSTS = {
    "commission_per_entry": 0.0,
    "commission_per_exit": 0.0,
    "commission_per_unit": 0.0,
    "commission_rate": 0.0,
    "slippage_rate": 0.0,
    "slippage_price": 0.0,
    "tax_on_sale_rate": 0.0,
}


@dataclass
class Score:
    """What the log's decisions earned."""

    final_equity: float
    total_pnl: float
    trade_pnl: list[float] = field(default_factory=list)
    costs: float = 0.0
    equity: list[float] = field(default_factory=list)
    """At the close of every bar after a decision."""
    exits: dict[str, int] = field(default_factory=dict)
    """How many trades ended inside a bar, by the reason the log gives."""

    @property
    def win_rate(self) -> float | None:
        """Share of closed trades with a positive net result; None where none was closed."""
        return sum(pnl > 0 for pnl in self.trade_pnl) / len(self.trade_pnl) if self.trade_pnl else None


def read_bars(path: Path) -> tuple[list[str], dict[str, tuple[float, float, float, float]]]:
    """Return the labels of a raw csv file in order, and open, high, low, close by label."""
    bars = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            bars[row["datetime"]] = tuple(float(row[name]) for name in ("open", "high", "low", "close"))
    return list(bars), bars


def score(actions: Path, raw: Path, symbol: str, capital: float, **rates: float) -> Score:
    """Walk one account through the log.

    A decision is made at the close of its bar and filled at the open of the next one, moved against the trader. Its
    size is the logged position (signed notional at that close over equity at that close) put back into units; the
    equity is the one computed here. A position changed at the open has a fill price in the log; one closed later in
    the bar has an exit price.
    """
    costs = NO_COSTS | rates
    labels, bars = read_bars(raw)
    following = dict(itertools.pairwise(labels))
    cash, units, trade_cash = capital, 0.0, 0.0
    result = Score(final_equity=capital, total_pnl=0.0)
    equity = capital

    def pay(leg: float, quoted: float, price: float, is_entry: bool) -> None:
        """Book one leg of a trade."""
        nonlocal cash, units, trade_cash
        notional = abs(leg * price)
        fee = costs["commission_per_entry"] if is_entry else costs["commission_per_exit"]
        fee += abs(leg) * costs["commission_per_unit"] + notional * costs["commission_rate"]
        fee += notional * costs["tax_on_sale_rate"] if leg < 0 else 0.0
        cash -= leg * price + fee
        trade_cash -= leg * price + fee
        result.costs += fee + abs(leg) * abs(price - quoted)
        units = 0.0 if not is_entry else units + leg
        if not is_entry:
            result.trade_pnl.append(trade_cash)
            trade_cash = 0.0

    def slipped(quoted: float, leg: float) -> float:
        move = abs(quoted) * costs["slippage_rate"] + costs["slippage_price"]
        return quoted + move if leg > 0 else quoted - move

    with actions.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["symbol"] != symbol:
                continue
            decided_at = bars[row["datetime"]][3]
            opened, high, low, close = bars[following[row["datetime"]]]
            wanted = float(row["position"]) * equity / decided_at
            if row["fill_price"]:
                if units:
                    pay(-units, opened, slipped(opened, -units), is_entry=False)
                if wanted:
                    pay(wanted, opened, slipped(opened, wanted), is_entry=True)
                logged = float(row["fill_price"])
                expected = slipped(opened, wanted or -1.0)
                other = slipped(opened, 1.0)
                # A bare exit may be a sale or a purchase; anything but the open and its slippage is wrong.
                if min(abs(logged - expected), abs(logged - other)) > 1e-9 * abs(opened):
                    raise ValueError(f"{row['datetime']}: filled at {logged}, but the next open is {opened}")
            if row["exit_price"]:
                price = float(row["exit_price"])
                reason = row["exit_reason"]
                # A session's end is a market order at the close; stops and targets lie inside the bar.
                quoted = close if reason == "session end" else price
                if reason == "session end" and abs(price - slipped(close, -units)) > 1e-9 * abs(close):
                    raise ValueError(f"{row['datetime']}: session ended at {price}, but the close is {close}")
                room = abs(slipped(price, 1.0) - price) * (1 + 1e-9)
                if not low - room <= price <= high + room:
                    raise ValueError(f"{row['datetime']}: {reason} at {price}, outside {low} to {high}")
                pay(-units, quoted, price, is_entry=False)
                result.exits[reason] = result.exits.get(reason, 0) + 1
            equity = cash + units * close
            result.equity.append(equity)
    result.final_equity, result.total_pnl = equity, equity - capital
    return result


if __name__ == "__main__":
    log, source, name, money, *given = sys.argv[1:]
    found = score(
        Path(log),
        Path(source),
        name,
        float(money),
        **{k: float(v) for k, v in (text.split("=") for text in given)},
    )
    print(f"P&L {found.total_pnl!r}, {len(found.trade_pnl)} trades, win rate {found.win_rate!r}")
