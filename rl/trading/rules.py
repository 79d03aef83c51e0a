"""What an account may do and what doing it costs, as one row of numbers the kernel reads."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, fields, replace

import numpy as np

from rl.common.errors import ConfigError
from rl.market.instruments import Instrument


@dataclass(frozen=True, kw_only=True)
class TradingRules:
    """Costs, limits, exits and reward weights of one symbol, in the order the kernel indexes them.

    Prices are in the instrument's currency, rates are fractions (0.0005 = 5 bp), money is in account currency.
    """

    commission_per_entry: float = 0.0
    """Flat money per order that opens or adds to a position."""
    commission_per_exit: float = 0.0
    """Flat money per order that closes or reduces a position."""
    commission_per_unit: float = 0.0
    """Money per unit traded, either way."""
    commission_rate: float = 0.0
    """Fraction of the traded notional, either way."""
    slippage_rate: float = 0.0
    """Adverse move of every market fill, as a fraction of its price."""
    slippage_price: float = 0.0
    """Adverse move of every market fill, in price units (ticks times tick size)."""
    tax_on_sale_rate: float = 0.0
    """Fraction of the notional of every sale (a short's entry is a sale too)."""
    lot_size: float = 0.0
    """Orders are whole multiples of this many units; 0 allows fractions."""
    allow_short: bool = True
    """Whether units may be negative."""
    margin_rate: float = 1.0
    """Equity that has to stand behind each unit of notional; 1 is a cash account."""
    square_off: bool = False
    """Whether the account is flat after each session's last bar."""
    exposure: float = 1.0
    """Notional of a full position as a fraction of equity at the decision."""
    ruin_level: float = 0.1
    """The account is ruined at or below this fraction of its starting capital."""
    stop_loss: float = 0.0
    """Distance of the stop from the entry price; 0 is none."""
    take_profit: float = 0.0
    """Distance of the target from the entry price; 0 is none."""
    trailing_stop: float = 0.0
    """Distance of the trailing stop from the best close since entry; 0 is none."""
    exits_in_atr: bool = True
    """Whether the three distances are in ATR at the decision (else fractions of the entry price)."""
    weight_log_equity: float = 1.0
    weight_drawdown: float = 0.0
    weight_turnover: float = 0.0
    bar_volatility: float = 1.0
    """Standard deviation of a bar's log return on the training window; it scales `log_equity`."""

    def row(self) -> np.ndarray:
        """Return the numbers in field order, ready for the kernel. (len(fields),) float64"""
        return np.array([float(getattr(self, field.name)) for field in fields(self)], dtype=np.float64)

    def problems(self) -> list[str]:
        """Return everything wrong with these rules, worded for whoever wrote the file."""
        found = [
            f"{field.name} has to be a finite number of at least 0, but is {value}"
            for field in fields(self)
            if not (math.isfinite(value := float(getattr(self, field.name))) and value >= 0)
        ]
        if not 0 < self.margin_rate <= 1:
            found.append(f"margin_rate has to lie in (0, 1], but is {self.margin_rate}")
        if self.exposure <= 0:
            found.append(f"exposure has to be above 0, but is {self.exposure}")
        if self.exposure * self.margin_rate > 1 + 1e-12:
            found.append(
                f"exposure {self.exposure} at margin_rate {self.margin_rate} needs more equity than there is"
            )
        if not 0 <= self.ruin_level < 1:
            found.append(f"ruin_level has to lie in [0, 1), but is {self.ruin_level}")
        if self.bar_volatility <= 0:
            found.append(f"bar_volatility has to be above 0, but is {self.bar_volatility}")
        return found

    def as_dict(self) -> dict[str, float | bool]:
        """Return the rules as plain values for a checkpoint."""
        return asdict(self)

    def fingerprint(self) -> str:
        """Return a short hash of every number here, for telling what was judged apart. 16 hexadecimal digits"""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def without_costs(self, rate: float = 0.0) -> TradingRules:
        """Return the same rules with every cost replaced by one all-in rate per side (for the cost frontier)."""
        free = {
            "commission_per_entry": 0.0,
            "commission_per_exit": 0.0,
            "commission_per_unit": 0.0,
            "slippage_rate": 0.0,
            "slippage_price": 0.0,
            "tax_on_sale_rate": 0.0,
        }
        return replace(self, **free, commission_rate=rate)


def rules_for(
    instrument: Instrument,
    *,
    exposure: float = 1.0,
    ruin_level: float = 0.1,
    stop_loss: float | None = None,
    take_profit: float | None = None,
    trailing_stop: float | None = None,
    exits_in_atr: bool = True,
    weight_log_equity: float = 1.0,
    weight_drawdown: float = 0.0,
    weight_turnover: float = 0.0,
    bar_volatility: float = 1.0,
) -> TradingRules:
    """Return the rules for trading `instrument`; every number that is not the plan's comes from the instrument.

    Raises:
        ConfigError: The combination cannot be traded; all reasons are listed.
    """
    if instrument.kind != "linear":
        raise ConfigError(
            f"{instrument.name}: kind '{instrument.kind}' cannot be traded by this version; write kind: linear"
        )
    rules = TradingRules(
        commission_per_entry=instrument.commission.per_order_entry,
        commission_per_exit=instrument.commission.per_order_exit,
        commission_per_unit=instrument.commission.per_unit,
        commission_rate=instrument.commission.rate,
        slippage_rate=instrument.slippage.rate,
        slippage_price=instrument.slippage.ticks * instrument.tick_size,
        tax_on_sale_rate=instrument.tax_on_sale_rate,
        lot_size=instrument.lot_size,
        allow_short=instrument.allow_short,
        margin_rate=instrument.margin_rate,
        square_off=instrument.square_off,
        exposure=exposure,
        ruin_level=ruin_level,
        stop_loss=stop_loss or 0.0,
        take_profit=take_profit or 0.0,
        trailing_stop=trailing_stop or 0.0,
        exits_in_atr=exits_in_atr,
        weight_log_equity=weight_log_equity,
        weight_drawdown=weight_drawdown,
        weight_turnover=weight_turnover,
        bar_volatility=bar_volatility,
    )
    problems = rules.problems()
    if problems:
        raise ConfigError(f"{instrument.name} cannot be traded as configured:\n  " + "\n  ".join(problems))
    return rules
