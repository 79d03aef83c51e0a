"""Price and cost of a fill, compiled; every leg of every trade is charged here."""

from __future__ import annotations

from rl.common.compiled import njit
from rl.trading.rules import TradingRules

_FIELDS = list(TradingRules.__dataclass_fields__)
COMMISSION_PER_ENTRY = _FIELDS.index("commission_per_entry")
COMMISSION_PER_EXIT = _FIELDS.index("commission_per_exit")
COMMISSION_PER_UNIT = _FIELDS.index("commission_per_unit")
COMMISSION_RATE = _FIELDS.index("commission_rate")
SLIPPAGE_RATE = _FIELDS.index("slippage_rate")
SLIPPAGE_PRICE = _FIELDS.index("slippage_price")
TAX_ON_SALE_RATE = _FIELDS.index("tax_on_sale_rate")


@njit(cache=True)
def slipped(rules, price, units):
    """Return the price a market order for `units` (signed) gets: the quoted one moved against the trader."""
    slip = abs(price) * rules[SLIPPAGE_RATE] + rules[SLIPPAGE_PRICE]
    return price + slip if units > 0.0 else price - slip


@njit(cache=True)
def charges(rules, price, units, is_entry):
    """Return commission and tax of one leg of `units` (signed) filled at `price`, in money."""
    size = abs(units)
    notional = size * abs(price)
    flat = rules[COMMISSION_PER_ENTRY] if is_entry else rules[COMMISSION_PER_EXIT]
    tax = notional * rules[TAX_ON_SALE_RATE] if units < 0.0 else 0.0
    return flat + size * rules[COMMISSION_PER_UNIT] + notional * rules[COMMISSION_RATE] + tax
