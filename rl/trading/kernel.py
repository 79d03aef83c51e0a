"""One bar of trading, compiled: training, validation, backtest and service all step through `step_one`.

Order of events for a decision made at the close of bar t
    1. the decision is a number of units to hold, made from what is known at the close of t;
    2. it fills at the open of t+1, moved against the trader; a flip is a closing leg and an opening leg;
    3. stop, trailing stop and target are tested against the low and high of t+1: a gap through one fills at the
       open, and a bar that touches both fills the stop;
    4. at the close of t+1 the position is marked, and closed where the session ends and the rules say so;
    5. at or below the ruin level the account is terminated.

Money is float64 and evaluated in the order written (no fast-math), so every caller gets the same bits.
"""

from __future__ import annotations

import math

import numpy as np

from rl.common.compiled import njit
from rl.trading.costs import (
    COMMISSION_PER_ENTRY,
    COMMISSION_PER_UNIT,
    COMMISSION_RATE,
    TAX_ON_SALE_RATE,
    charges,
    slipped,
)
from rl.trading.rules import TradingRules

_FIELDS = list(TradingRules.__dataclass_fields__)
LOT_SIZE = _FIELDS.index("lot_size")
ALLOW_SHORT = _FIELDS.index("allow_short")
MARGIN_RATE = _FIELDS.index("margin_rate")
SQUARE_OFF = _FIELDS.index("square_off")
EXPOSURE = _FIELDS.index("exposure")
RUIN_LEVEL = _FIELDS.index("ruin_level")
STOP_LOSS = _FIELDS.index("stop_loss")
TAKE_PROFIT = _FIELDS.index("take_profit")
TRAILING_STOP = _FIELDS.index("trailing_stop")
EXITS_IN_ATR = _FIELDS.index("exits_in_atr")
WEIGHT_LOG_EQUITY = _FIELDS.index("weight_log_equity")
WEIGHT_DRAWDOWN = _FIELDS.index("weight_drawdown")
WEIGHT_TURNOVER = _FIELDS.index("weight_turnover")
BAR_VOLATILITY = _FIELDS.index("bar_volatility")

# One account, float64 (ACCOUNT_SIZE,).
CASH = 0  # money; a short sale's proceeds are in it
UNITS = 1  # signed position
ENTRY_PRICE = 2  # average fill price of the open position
EQUITY = 3  # cash + units at the last close
PEAK = 4  # highest equity so far
DRAWDOWN = 5  # 1 - equity / peak
BARS_HELD = 6  # closes seen since the position was opened
STOP_PRICE = 7  # 0 where there is none
TARGET_PRICE = 8  # 0 where there is none
TRAIL_DISTANCE = 9  # price units; 0 where there is none
TRAIL_BEST = 10  # best close since entry
INITIAL = 11  # starting capital
COSTS = 12  # money paid so far: commission, tax and slippage
TURNOVER = 13  # notional traded so far
REFUSALS = 14  # orders that could not be carried out
TRADES = 15  # round trips closed
ACCOUNT_SIZE = 16

# What one bar did, float64 (OUT_SIZE,).
REWARD = 0
TERMINATED = 1
FILL_COUNT = 2
BOTH_TOUCHED = 3  # stop and target inside one bar; the stop was taken
BAR_COST = 4
BAR_TURNOVER = 5
PART_LOG_EQUITY = 6  # the reward's components before their weights
PART_DRAWDOWN = 7
PART_TURNOVER = 8
OUT_SIZE = 9

# A fill, float64 (FILL_SIZE,); at most MAX_FILLS a bar.
FILL_UNITS = 0
FILL_PRICE = 1
FILL_CHARGES = 2  # commission and tax
FILL_SLIPPAGE = 3  # money lost between the quoted price and the fill's
FILL_REASON = 4
FILL_SIZE = 5
MAX_FILLS = 4

# Why a fill happened.
ORDER = 0
STOP = 1
TARGET = 2
TRAIL = 3
SESSION_END = 4
LATE_SESSION_END = 5  # the session broke off before its calendar end; closed at the next open
NO_FEATURES = 6  # the features of the decision bar are undefined, so nothing may be held
REASONS = (
    "order",
    "stop",
    "target",
    "trailing stop",
    "session end",
    "late session end",
    "no features",
)

# Action schemes.
SCHEME_TARGET = 0
SCHEME_ORDERS = 1
SCHEMES = {"target": SCHEME_TARGET, "orders": SCHEME_ORDERS}
ACTION_COUNTS = {"target": 3, "orders": 5}
BUY_LONG = 0
SELL_SHORT = 1
CLOSE_LONG = 2
CLOSE_SHORT = 3
HOLD = 4

# Equity of an account wiped out below zero still needs a logarithm; the episode ends there anyway.
_SMALLEST_EQUITY = 1e-6

ACCOUNT_FEATURES = 5
ACCOUNT_FEATURE_NAMES = ("exposure", "unrealised_atr", "bars_held", "drawdown", "cash_ratio")


@njit(cache=True)
def open_account(account, capital):
    """Reset one account to `capital` in cash and no position."""
    account[:] = 0.0
    account[CASH] = capital
    account[EQUITY] = capital
    account[PEAK] = capital
    account[INITIAL] = capital


@njit(cache=True)
def whole_lots(units, lot_size):
    """Round units towards zero to a multiple of the lot; a lot of 0 allows fractions."""
    if lot_size <= 0.0:
        return units
    # A quotient that misses a whole number by rounding only (0.3 / 0.1) still counts as whole.
    return math.trunc(units / lot_size * (1.0 + 1e-12)) * lot_size


@njit(cache=True)
def sized(rules, side, equity, close):
    """Return the units of a full position on `side` (-1, 1), sized at the close of the decision bar."""
    if close == 0.0 or equity <= 0.0:
        return 0.0
    return whole_lots(side * rules[EXPOSURE] * equity / abs(close), rules[LOT_SIZE])


@njit(cache=True)
def decode(scheme, action, rules, account, close, is_tradable):
    """Turn an action into the units to hold.

    `target`: 0 short, 1 flat, 2 long; the side already held is kept as it is, without re-sizing.
    `orders`: BUY_LONG and SELL_SHORT open from flat, CLOSE_LONG and CLOSE_SHORT close, HOLD keeps; an order that
    does not fit the position is refused and keeps it.
    Where the decision bar's features are undefined, nothing may be held.

    Returns:
        (units to hold, refused)
    """
    units = account[UNITS]
    if not is_tradable:
        return 0.0, False
    if scheme == SCHEME_TARGET:
        side = action - 1
        if side == 0:
            return 0.0, False
        if units * side > 0.0:
            return units, False
    else:
        if action == HOLD:
            return units, False
        if action == CLOSE_LONG:
            return (0.0, False) if units > 0.0 else (units, True)
        if action == CLOSE_SHORT:
            return (0.0, False) if units < 0.0 else (units, True)
        if units != 0.0:
            return units, True
        side = 1 if action == BUY_LONG else -1
    if side < 0 and rules[ALLOW_SHORT] == 0.0:
        return units, True
    wanted = sized(rules, float(side), account[EQUITY], close)
    return (units, True) if wanted == 0.0 else (wanted, False)


@njit(cache=True)
def mask_actions(scheme, rules, units, mask):
    """Write which actions the position allows into `mask` (A,) bool."""
    may_short = rules[ALLOW_SHORT] != 0.0
    if scheme == SCHEME_TARGET:
        mask[0] = may_short
        mask[1] = True
        mask[2] = True
    else:
        mask[BUY_LONG] = units == 0.0
        mask[SELL_SHORT] = units == 0.0 and may_short
        mask[CLOSE_LONG] = units > 0.0
        mask[CLOSE_SHORT] = units < 0.0
        mask[HOLD] = True


@njit(cache=True)
def _fill(rules, account, out, fills, units, quoted, price, is_entry, reason):
    """Book one leg: cash, costs, position and the line in `fills`."""
    paid = charges(rules, price, units, is_entry)
    slippage = abs(units) * abs(price - quoted)
    account[CASH] += -units * price - paid
    held = account[UNITS]
    if is_entry:
        total = held + units
        account[ENTRY_PRICE] = (account[ENTRY_PRICE] * held + price * units) / total
        account[UNITS] = total
    else:
        account[UNITS] = held + units
        if account[UNITS] == 0.0:
            account[TRADES] += 1.0
            account[ENTRY_PRICE] = 0.0
            account[BARS_HELD] = 0.0
            account[STOP_PRICE] = 0.0
            account[TARGET_PRICE] = 0.0
            account[TRAIL_DISTANCE] = 0.0
            account[TRAIL_BEST] = 0.0
    account[COSTS] += paid + slippage
    account[TURNOVER] += abs(units * price)
    out[BAR_COST] += paid + slippage
    out[BAR_TURNOVER] += abs(units * price)
    row = int(out[FILL_COUNT])
    fills[row, FILL_UNITS] = units
    fills[row, FILL_PRICE] = price
    fills[row, FILL_CHARGES] = paid
    fills[row, FILL_SLIPPAGE] = slippage
    fills[row, FILL_REASON] = reason
    out[FILL_COUNT] += 1.0


@njit(cache=True)
def _affordable(rules, account, units, price):
    """Return `units` cut to what the equity at this price can carry after the costs of getting in."""
    equity = account[CASH] + account[UNITS] * price
    per_unit = abs(price) * (rules[MARGIN_RATE] + rules[COMMISSION_RATE]) + rules[COMMISSION_PER_UNIT]
    if units < 0.0:
        per_unit += abs(price) * rules[TAX_ON_SALE_RATE]
    carried = abs(account[UNITS]) * abs(price) * rules[MARGIN_RATE]
    room = equity - carried - rules[COMMISSION_PER_ENTRY]
    if room <= 0.0 or per_unit <= 0.0:
        return 0.0
    most = room / per_unit
    if abs(units) <= most:
        return units
    return whole_lots(math.copysign(most, units), rules[LOT_SIZE])


@njit(cache=True)
def _trade_at_open(rules, account, out, fills, target_units, quoted, atr, reason):
    """Carry the decision out at the open: a closing or reducing leg first, then an opening or adding one."""
    units = account[UNITS]
    if target_units == units:
        return
    if units != 0.0 and (target_units * units <= 0.0 or abs(target_units) < abs(units)):
        leg = -units if target_units * units <= 0.0 else target_units - units
        _fill(
            rules,
            account,
            out,
            fills,
            leg,
            quoted,
            slipped(rules, quoted, leg),
            is_entry=False,
            reason=reason,
        )
    more = target_units - account[UNITS]
    if more == 0.0 or target_units == 0.0:
        return
    price = slipped(rules, quoted, more)
    leg = _affordable(rules, account, more, price)
    if leg == 0.0:
        account[REFUSALS] += 1.0
        return
    was_flat = account[UNITS] == 0.0
    _fill(rules, account, out, fills, leg, quoted, price, is_entry=True, reason=reason)
    if was_flat:
        _place_exits(rules, account, atr)


@njit(cache=True)
def _place_exits(rules, account, atr):
    """Set stop, target and trailing distance of a position just opened, from its fill price."""
    entry = account[ENTRY_PRICE]
    unit = atr if rules[EXITS_IN_ATR] != 0.0 else abs(entry)
    side = 1.0 if account[UNITS] > 0.0 else -1.0
    if rules[STOP_LOSS] > 0.0:
        account[STOP_PRICE] = entry - side * rules[STOP_LOSS] * unit
    if rules[TAKE_PROFIT] > 0.0:
        account[TARGET_PRICE] = entry + side * rules[TAKE_PROFIT] * unit
    account[TRAIL_DISTANCE] = rules[TRAILING_STOP] * unit
    account[TRAIL_BEST] = entry


@njit(cache=True)
def _test_exits(rules, account, out, fills, bar_open, high, low):
    """Close the position where the bar reached its stop, its trailing stop or its target."""
    units = account[UNITS]
    side = 1.0 if units > 0.0 else -1.0
    has_stop = account[STOP_PRICE] != 0.0
    stop = account[STOP_PRICE]
    reason = STOP
    if account[TRAIL_DISTANCE] > 0.0:
        trail = account[TRAIL_BEST] - side * account[TRAIL_DISTANCE]
        if not has_stop or side * (trail - stop) > 0.0:
            stop = trail
            reason = TRAIL
        has_stop = True
    worst = low if side > 0.0 else high
    best = high if side > 0.0 else low
    stop_hit = has_stop and side * (stop - worst) >= 0.0
    target_hit = account[TARGET_PRICE] != 0.0 and side * (best - account[TARGET_PRICE]) >= 0.0
    if stop_hit and target_hit:
        out[BOTH_TOUCHED] = 1.0
    if stop_hit and not (target_hit and side * (bar_open - account[TARGET_PRICE]) >= 0.0):
        # Already through at the open: the stop's own price was never on offer.
        quoted = bar_open if side * (stop - bar_open) >= 0.0 else stop
        _fill(
            rules,
            account,
            out,
            fills,
            -units,
            quoted,
            slipped(rules, quoted, -units),
            is_entry=False,
            reason=reason,
        )
    elif target_hit:
        # A target is a limit order: its price or better, so no slippage.
        quoted = bar_open if side * (bar_open - account[TARGET_PRICE]) >= 0.0 else account[TARGET_PRICE]
        _fill(rules, account, out, fills, -units, quoted, quoted, is_entry=False, reason=TARGET)


@njit(cache=True)
def _mark(account, close):
    """Value the account at `close`."""
    account[EQUITY] = account[CASH] + account[UNITS] * close
    account[PEAK] = max(account[PEAK], account[EQUITY])
    account[DRAWDOWN] = 1.0 - account[EQUITY] / account[PEAK]


@njit(cache=True)
def step_one(ohlc, session, session_end, tradable, atr, rules, account, t, target_units, fills, out):
    """Carry the account from the close of bar t to the close of bar t+1, holding `target_units` from the open.

    Args:
        ohlc: (T, 4) float64. session: (T,) int32. session_end, tradable: (T,) bool. atr: (T,) float64.
        rules: One row of `TradingRules`. account: One account, changed in place. (ACCOUNT_SIZE,)
        t: Decision bar; t + 1 has to exist.
        target_units: Signed units to hold, from `decode`.
        fills: Where the bar's fills are written. (MAX_FILLS, FILL_SIZE)
        out: What the bar did, overwritten. (OUT_SIZE,)
    """
    out[:] = 0.0
    bar = t + 1
    bar_open = ohlc[bar, 0]
    equity_before = account[EQUITY]
    drawdown_before = account[DRAWDOWN]

    reason = ORDER if tradable[t] else NO_FEATURES
    if rules[SQUARE_OFF] != 0.0 and account[UNITS] != 0.0 and session[bar] != session[t]:
        # The session broke off early, so its last close could not be traded; this open is the first chance.
        held = account[UNITS]
        _fill(
            rules,
            account,
            out,
            fills,
            -held,
            bar_open,
            slipped(rules, bar_open, -held),
            is_entry=False,
            reason=LATE_SESSION_END,
        )
        if target_units * held > 0.0:
            target_units = 0.0
    _trade_at_open(rules, account, out, fills, target_units, bar_open, atr[t], reason)
    if account[UNITS] != 0.0:
        _test_exits(rules, account, out, fills, bar_open, ohlc[bar, 1], ohlc[bar, 2])
    close = ohlc[bar, 3]
    if account[UNITS] != 0.0 and rules[SQUARE_OFF] != 0.0 and session_end[bar]:
        held = account[UNITS]
        price = slipped(rules, close, -held)
        _fill(rules, account, out, fills, -held, close, price, is_entry=False, reason=SESSION_END)
    if account[UNITS] != 0.0:
        account[BARS_HELD] += 1.0
        # The trailing stop moves after the bar was tested, never before.
        account[TRAIL_BEST] = (
            max(account[TRAIL_BEST], close) if account[UNITS] > 0.0 else min(account[TRAIL_BEST], close)
        )
    _mark(account, close)

    floor = _SMALLEST_EQUITY * account[INITIAL]
    growth = math.log(max(account[EQUITY], floor) / max(equity_before, floor))
    out[PART_LOG_EQUITY] = growth / rules[BAR_VOLATILITY]
    out[PART_DRAWDOWN] = -max(account[DRAWDOWN] - drawdown_before, 0.0) / rules[BAR_VOLATILITY]
    out[PART_TURNOVER] = -out[BAR_TURNOVER] / max(equity_before, floor)
    out[REWARD] = (
        rules[WEIGHT_LOG_EQUITY] * out[PART_LOG_EQUITY]
        + rules[WEIGHT_DRAWDOWN] * out[PART_DRAWDOWN]
        + rules[WEIGHT_TURNOVER] * out[PART_TURNOVER]
    )
    if account[EQUITY] <= rules[RUIN_LEVEL] * account[INITIAL]:
        out[TERMINATED] = 1.0


@njit(cache=True)
def account_features(account, close, atr, row):
    """Write what the policy sees of its account into `row` (ACCOUNT_FEATURES,) float32.

    exposure: signed notional / equity. unrealised_atr: open profit per unit in ATR, a fifth of it, within +-2.
    bars_held: log(1 + bars) / 5. drawdown: fraction of the peak. cash_ratio: cash / equity, within +-3.
    """
    equity = max(account[EQUITY], _SMALLEST_EQUITY * account[INITIAL])
    units = account[UNITS]
    row[0] = np.float32(min(max(units * close / equity, -3.0), 3.0))
    unrealised = 0.0
    if units != 0.0 and atr > 0.0:
        side = 1.0 if units > 0.0 else -1.0
        unrealised = min(max(0.2 * side * (close - account[ENTRY_PRICE]) / atr, -2.0), 2.0)
    row[1] = np.float32(unrealised)
    row[2] = np.float32(0.2 * math.log1p(account[BARS_HELD]))
    row[3] = np.float32(account[DRAWDOWN])
    row[4] = np.float32(min(max(account[CASH] / equity, -3.0), 3.0))


@njit(cache=True)
def observe(features, ohlc, atr, account, t, row):
    """Write the observation at the close of bar t: market features, then account features. (F + 5,) float32"""
    width = features.shape[1]
    for j in range(width):
        row[j] = features[t, j]
    account_features(account, ohlc[t, 3], atr[t], row[width:])
