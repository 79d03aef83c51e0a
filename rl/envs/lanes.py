"""Many accounts stepped through the kernel at once, compiled."""

from __future__ import annotations

import numpy as np

from rl.common.compiled import njit
from rl.trading.kernel import (
    REFUSALS,
    REWARD,
    TERMINATED,
    UNITS,
    decode,
    mask_actions,
    observe,
    open_account,
    step_one,
)

# Where a lane is, int64 (LANE_SIZE,).
BAR = 0  # decision bar
LAST = 1  # bar at which the episode is truncated
START = 2  # decision bar the episode began at
WINDOW = 3  # row of the windows table
RANDOM = 4  # state of the lane's own generator
LANE_SIZE = 5


@njit(cache=True)
def _next_random(state):
    """Advance a splitmix64 generator (Steele, Lea and Flood 2014); return its state and a number in [0, 1)."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    mixed = state
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = mixed ^ (mixed >> np.uint64(31))
    return state, np.float64(mixed >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True)
def begin_episode(lane, windows, episode_bars):
    """Draw a window and a start bar for one lane.

    windows: (W, 2) int64, first decision bar and last bar of each. An episode is `episode_bars` decisions long, or
    the whole window where that is shorter.
    """
    state, draw = _next_random(np.uint64(lane[RANDOM]))
    which = min(int(draw * len(windows)), len(windows) - 1)
    first = windows[which, 0]
    last = windows[which, 1]
    room = last - first - episode_bars
    state, draw = _next_random(state)
    start = first if room <= 0 else first + min(int(draw * (room + 1)), room)
    lane[RANDOM] = np.int64(state)
    lane[WINDOW] = which
    lane[BAR] = start
    lane[START] = start
    lane[LAST] = min(start + episode_bars, last)


@njit(cache=True)
def reset_lane(
    ohlc, features, atr,
    rules, windows, window_rules, episode_bars, capital, scheme, lane, account, obs, mask,
):  # fmt: skip
    """Begin one lane's next episode and write its first observation and mask."""
    begin_episode(lane, windows, episode_bars)
    open_account(account, capital)
    observe(features, ohlc, atr, account, lane[BAR], obs)
    mask_actions(scheme, rules[window_rules[lane[WINDOW]]], 0.0, mask)


@njit(cache=True)
def step_lanes(
    ohlc, features, session, session_end, tradable, atr,
    rules, windows, window_rules, episode_bars, capital, scheme,
    actions, lanes, accounts, obs, rewards, terminated, truncated, final_obs, masks,
    episode_return, final_return, final_length, final_accounts, parts, fills, out,
):  # fmt: skip
    """Step every lane by one bar; a lane whose episode ended begins its next one in the same step.

    Axes: N lanes, D observation, W windows, A actions. `obs`, `rewards`, `terminated`, `truncated`, `masks` are
    written for all lanes; `final_obs`, `final_return`, `final_length` and `final_accounts` only where an episode ended.
    """
    for i in range(len(actions)):
        lane = lanes[i]
        account = accounts[i]
        row = rules[window_rules[lane[WINDOW]]]
        bar = lane[BAR]
        units, refused = decode(scheme, actions[i], row, account, ohlc[bar, 3], tradable[bar])
        if refused:
            account[REFUSALS] += 1.0
        step_one(ohlc, session, session_end, tradable, atr, row, account, bar, units, fills, out)
        rewards[i] = out[REWARD]
        for k in range(len(out)):
            parts[i, k] = out[k]
        episode_return[i] += out[REWARD]
        lane[BAR] = bar + 1
        terminated[i] = out[TERMINATED] != 0.0
        truncated[i] = not terminated[i] and lane[BAR] >= lane[LAST]
        if terminated[i] or truncated[i]:
            observe(features, ohlc, atr, account, lane[BAR], final_obs[i])
            final_return[i] = episode_return[i]
            final_length[i] = lane[BAR] - lane[START]
            for k in range(len(account)):
                final_accounts[i, k] = account[k]
            episode_return[i] = 0.0
            reset_lane(
                ohlc, features, atr,
                rules, windows, window_rules, episode_bars, capital, scheme, lane, account, obs[i], masks[i],
            )  # fmt: skip
        else:
            observe(features, ohlc, atr, account, lane[BAR], obs[i])
            mask_actions(scheme, row, account[UNITS], masks[i])
