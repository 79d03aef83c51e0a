"""Replays: a policy, a list of actions or a rule walked through the trading kernel over one window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rl.common.compiled import njit
from rl.common.errors import StagegateError
from rl.policies.forward import PackedPolicy, first_layer, policy_logits_from_prefix
from rl.trading.kernel import (
    ACCOUNT_FEATURES,
    ACCOUNT_SIZE,
    ACTION_COUNTS,
    BAR_COST,
    BOTH_TOUCHED,
    EQUITY,
    FILL_COUNT,
    FILL_SIZE,
    MAX_FILLS,
    OUT_SIZE,
    REFUSALS,
    REWARD,
    SCHEMES,
    TERMINATED,
    UNITS,
    decode,
    mask_actions,
    observe,
    open_account,
    step_one,
)
from rl.trading.ledger import LOG_BAR, LOG_SIZE, Trades, trades_from_fills
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

_NO_ACTION = -1

_PREFIX_BARS = 4096
"""The market half of the first layer does not depend on the account; it is computed for so many bars at a time."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What one account did over one window. Axes: n bars of the window, m fills.

    Row 0 is the first decision bar: the account still holds its starting capital there.
    """

    start: int
    """Row of the first decision bar."""
    stop: int
    """Row after the window's last bar."""
    capital: float
    equity: np.ndarray
    """Marked at each close. (n,)"""
    held: np.ndarray
    """Signed units after each close. (n,)"""
    decided: np.ndarray
    """Signed units held after the decision of each bar was filled; the last bar decides nothing. (n - 1,)"""
    actions: np.ndarray
    """Action taken at each decision bar. (n - 1,) int8"""
    rewards: np.ndarray
    """Reward of each step. (n - 1,)"""
    costs: np.ndarray
    """Money paid in each step. (n - 1,)"""
    fill_log: np.ndarray
    """Fills in order of time. (m, LOG_SIZE)"""
    trades: Trades
    account: np.ndarray
    """The account at the end. (ACCOUNT_SIZE,)"""
    decisions: int
    """Decisions made; fewer than n - 1 only where the account was ruined. From then on it stands still, without
    position: equity stays at its last value."""
    bars_touching_both: int
    """Bars in which stop and target were both inside the range; the stop was taken."""
    was_ruined: bool


@njit(cache=True)
def _grown(fill_log, needed):
    if needed <= len(fill_log):
        return fill_log
    larger = np.empty((2 * needed, LOG_SIZE), dtype=np.float64)
    larger[: len(fill_log)] = fill_log
    return larger


@njit(cache=True)
def _record(fill_log, count, bar, fills, out):
    """Append one bar's fills to the log; return the log (maybe a larger one) and the new count."""
    new = int(out[FILL_COUNT])
    fill_log = _grown(fill_log, count + new)
    for k in range(new):
        fill_log[count + k, LOG_BAR] = bar
        fill_log[count + k, 1:] = fills[k]
    return fill_log, count + new


@njit(cache=True)
def _best_allowed(logits, mask):
    """Return the allowed action with the largest logit, or -1 where an allowed logit is not finite."""
    best = _NO_ACTION
    for action in range(len(logits)):
        if not mask[action]:
            continue
        if not np.isfinite(logits[action]):
            return _NO_ACTION
        if best == _NO_ACTION or logits[action] > logits[best]:
            best = action
    return best


@njit(cache=True)
def _decided_units(fills, out, held_before, intended_reasons):
    """Return the units held after the decision's own fills of this bar."""
    units = held_before
    for k in range(int(out[FILL_COUNT])):
        if intended_reasons[int(fills[k, -1])]:
            units += fills[k, 0]
    return units


@njit(cache=True)
def _scan(
    ohlc, features, session, session_end, tradable, atr,
    rules, start, stop, scheme, capital, shape, net, scratch_size, script, intended_reasons,
):  # fmt: skip
    """Walk one account from the close of `start` to the close of `stop - 1`.

    The action of each bar is `script[t - start]`, or the greedy action of the packed policy where the script is empty.
    """
    steps = stop - start - 1
    equity = np.empty(steps + 1, dtype=np.float64)
    held = np.empty(steps + 1, dtype=np.float64)
    decided = np.zeros(steps, dtype=np.float64)
    actions = np.zeros(steps, dtype=np.int8)
    rewards = np.zeros(steps, dtype=np.float64)
    costs = np.zeros(steps, dtype=np.float64)
    account = np.empty(ACCOUNT_SIZE, dtype=np.float64)
    fills = np.zeros((MAX_FILLS, FILL_SIZE), dtype=np.float64)
    out = np.zeros(OUT_SIZE, dtype=np.float64)
    fill_log = np.empty((1024, LOG_SIZE), dtype=np.float64)
    obs = np.empty(features.shape[1] + ACCOUNT_FEATURES, dtype=np.float32)
    scratch = np.empty(scratch_size, dtype=np.float32)
    action_count = 3 if scheme == 0 else 5
    logits = np.empty(action_count, dtype=np.float32)
    mask = np.ones(action_count, dtype=np.bool_)
    prefix = np.empty((0, 0), dtype=np.float32)
    count = 0
    both = 0
    open_account(account, capital)
    equity[0] = capital
    held[0] = 0.0
    done = steps
    for step in range(steps):
        t = start + step
        if len(script) > 0:
            action = int(script[step])
        else:
            if step % _PREFIX_BARS == 0:
                prefix = first_layer(shape, net, features[t : min(t + _PREFIX_BARS, stop)])
            observe(features, ohlc, atr, account, t, obs)
            policy_logits_from_prefix(
                shape, net, prefix[step % _PREFIX_BARS], features.shape[1], obs, logits, scratch
            )
            mask_actions(scheme, rules, account[UNITS], mask)
            action = _best_allowed(logits, mask)
            if action == _NO_ACTION:
                return (
                    equity,
                    held,
                    decided,
                    actions,
                    rewards,
                    costs,
                    fill_log[:count],
                    account,
                    both,
                    -1 - step,
                )
        units, refused = decode(scheme, action, rules, account, ohlc[t, 3], tradable[t])
        if refused:
            account[REFUSALS] += 1.0
        held_before = account[UNITS]
        step_one(ohlc, session, session_end, tradable, atr, rules, account, t, units, fills, out)
        if out[FILL_COUNT] > 0.0:
            fill_log, count = _record(fill_log, count, t + 1, fills, out)
        decided[step] = _decided_units(fills, out, held_before, intended_reasons)
        actions[step] = action
        rewards[step] = out[REWARD]
        costs[step] = out[BAR_COST]
        both += int(out[BOTH_TOUCHED])
        equity[step + 1] = account[EQUITY]
        held[step + 1] = account[UNITS]
        if out[TERMINATED] != 0.0:
            done = step + 1
            break
    return equity, held, decided, actions, rewards, costs, fill_log[:count], account, both, done


# Fills that carry out the decision at the open: an order, a missing feature, a session that broke off.
_AT_OPEN = np.array([True, False, False, False, False, True, True])
_NO_NET = np.zeros(0, dtype=np.float32)
_NO_SHAPE = np.zeros(1, dtype=np.int64)
_NO_SCRIPT = np.zeros(0, dtype=np.int8)


def _replay(
    market: MarketArrays,
    window: tuple[int, int],
    rules: TradingRules,
    scheme: str,
    capital: float,
    shape: np.ndarray,
    net: np.ndarray,
    scratch_size: int,
    script: np.ndarray,
) -> Replay:
    start, stop = window
    if not 0 <= start < stop - 1 < len(market):
        raise ValueError(f"window {start}:{stop} holds no decision within {len(market)} bars")
    equity, held, decided, actions, rewards, costs, log, account, both, done = _scan(
        *market.kernel_args(),
        rules.row(),
        start,
        stop,
        SCHEMES[scheme],
        float(capital),
        shape,
        net,
        scratch_size,
        script,
        _AT_OPEN,
    )
    if done < 0:
        raise StagegateError(
            f"the policy's output at bar {start - 1 - done} is not a number; no action can be taken from it"
        )
    sick = np.flatnonzero(~np.isfinite(equity[1 : done + 1]) | ~np.isfinite(rewards[:done]))
    if len(sick):
        raise StagegateError(
            f"the account at bar {start + 1 + int(sick[0])} is not finite: equity {equity[1 + sick[0]]}, reward "
            f"{rewards[sick[0]]}; check the bars there"
        )
    equity[done + 1 :] = equity[done]
    held[done + 1 :] = 0.0
    return Replay(
        start=start,
        stop=stop,
        capital=float(capital),
        equity=equity,
        held=held,
        decided=decided,
        actions=actions,
        rewards=rewards,
        costs=costs,
        decisions=int(done),
        fill_log=log,
        trades=trades_from_fills(log, market.session),
        account=account,
        bars_touching_both=int(both),
        was_ruined=bool(account[EQUITY] <= rules.ruin_level * capital),
    )


def replay_policy(
    market: MarketArrays,
    window: tuple[int, int],
    rules: TradingRules,
    policy: PackedPolicy,
    *,
    scheme: str = "target",
    capital: float = 100_000.0,
) -> Replay:
    """Let the policy's most probable allowed action trade the window.

    Args:
        market: Arrays of the symbol; features scaled as the policy was trained on.
        window: First decision bar and the row after the last bar.
        rules: Costs and limits.
        policy: The packed network.
        scheme: The action scheme it was trained with.
        capital: Starting capital.

    Raises:
        StagegateError: The network's output or the account is not finite; the bar is named.
    """
    expected = market.feature_count + ACCOUNT_FEATURES
    if policy.observations != expected or policy.actions != ACTION_COUNTS[scheme]:
        raise ValueError(
            f"the policy takes {policy.observations} inputs and {policy.actions} actions, "
            f"the market offers {expected} and scheme '{scheme}' {ACTION_COUNTS[scheme]}"
        )
    return _replay(
        market, window, rules, scheme, capital, policy.shape, policy.net, policy.scratch_size, _NO_SCRIPT
    )


def replay_actions(
    market: MarketArrays,
    window: tuple[int, int],
    rules: TradingRules,
    actions: np.ndarray,
    *,
    scheme: str = "target",
    capital: float = 100_000.0,
) -> Replay:
    """Trade the window by a list of actions, one per decision bar. (stop - start - 1,)"""
    script = np.ascontiguousarray(actions, dtype=np.int8)
    if len(script) != window[1] - window[0] - 1:
        raise ValueError(
            f"window {window} has {window[1] - window[0] - 1} decisions, but {len(script)} actions"
        )
    return _replay(market, window, rules, scheme, capital, _NO_SHAPE, _NO_NET, 1, script)
