"""The trading environment for many accounts at once, one compiled call a bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from rl.common.errors import TrainingDivergedError
from rl.envs.acting import Acted, act_lanes, room_for
from rl.envs.lanes import LANE_SIZE, RANDOM, reset_lane, step_lanes
from rl.policies.forward import PackedPolicy, first_layer, no_prefix
from rl.trading.kernel import (
    ACCOUNT_FEATURES,
    ACCOUNT_SIZE,
    ACTION_COUNTS,
    FILL_SIZE,
    MAX_FILLS,
    OUT_SIZE,
    SCHEMES,
)
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

# Scaled features are clipped at 5, user columns may be anything finite; the account part lies within 3.
OBSERVATION_BOUND = np.finfo(np.float32).max


def spaces(feature_count: int, scheme: str) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Discrete]:
    """Return the observation and action space of one account."""
    width = feature_count + ACCOUNT_FEATURES
    return (
        gymnasium.spaces.Box(-OBSERVATION_BOUND, OBSERVATION_BOUND, (width,), np.float32),
        gymnasium.spaces.Discrete(ACTION_COUNTS[scheme]),
    )


class VectorTradingEnv(gymnasium.vector.VectorEnv):
    """N accounts trading one or several symbols, each on its own stretch of history.

    Observation: the market features of the decision bar (scaled, about within +-5), then exposure, unrealised profit,
    bars held, drawdown and cash ratio of the account (`kernel.account_features`). (N, F + 5) float32
    Action: `target` 0 short, 1 flat, 2 long; `orders` BUY_LONG, SELL_SHORT, CLOSE_LONG, CLOSE_SHORT, HOLD.
    Fill: at the open of the next bar, against the trader, costs on both legs (`kernel.step_one`).
    Reward: weighted sum of log equity growth in units of the training window's bar volatility, increase of drawdown
    in the same units, and turnover over equity.
    Start: a random window, then a random bar in it, drawn from the lane's own generator; cash only.
    End: *terminated* when equity is at or below the ruin level; *truncated* after `episode_bars` decisions or at the
    end of the window, the position marked, not sold. The next episode begins in the same step.
    Info: `final_obs` (N, D) and `_final_obs` (N,) for episodes that ended; `action_mask` (N, A); `episode_return`,
    `episode_length` (N,) and `final_account` (N, ACCOUNT_SIZE) valid where an episode ended; `parts` (N, OUT_SIZE) is
    what the bar did.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - as Gymnasium declares it
        "autoreset_mode": AutoresetMode.SAME_STEP,
        "render_modes": [],
    }

    def __init__(
        self,
        market: MarketArrays,
        windows: Sequence[tuple[int, int]],
        rules: Sequence[TradingRules],
        *,
        num_envs: int,
        episode_bars: int,
        scheme: str = "target",
        capital: float = 100_000.0,
    ) -> None:
        """Create the environment.

        Args:
            market: Arrays of all symbols.
            windows: First row and row after the last of each stretch lanes may start in. (W, 2)
            rules: Rules of each window's symbol. (W,)
            num_envs: Number of accounts N.
            episode_bars: Decisions per episode.
            scheme: `target` or `orders`.
            capital: Starting capital of every account.
        """
        if len(windows) != len(rules) or not windows:
            raise ValueError(f"every window needs its rules: {len(windows)} windows, {len(rules)} rules")
        for start, stop in windows:
            if not 0 <= start < stop - 1 <= len(market) - 1:
                raise ValueError(f"window {start}:{stop} holds no decision within {len(market)} bars")
        self.market = market
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = spaces(market.feature_count, scheme)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.episode_bars = episode_bars
        self.scheme = scheme
        self.capital = float(capital)
        self._windows = np.array([[start, stop - 1] for start, stop in windows], dtype=np.int64)
        self._rules = np.stack([rule.row() for rule in rules])
        self._window_rules = np.arange(len(rules), dtype=np.int64)
        width = market.feature_count + ACCOUNT_FEATURES
        actions = ACTION_COUNTS[scheme]
        self._lanes = np.zeros((num_envs, LANE_SIZE), dtype=np.int64)
        self._accounts = np.zeros((num_envs, ACCOUNT_SIZE), dtype=np.float64)
        self._episode_return = np.zeros(num_envs, dtype=np.float64)
        self._masks = np.ones((num_envs, actions), dtype=np.bool_)
        self._obs = np.zeros((num_envs, width), dtype=np.float32)
        self._fills = np.zeros((MAX_FILLS, FILL_SIZE), dtype=np.float64)
        self._out = np.zeros(OUT_SIZE, dtype=np.float64)
        self._seeded = False

    def _fixed(self) -> tuple[Any, ...]:
        return (
            *self.market.kernel_args(),
            self._rules,
            self._windows,
            self._window_rules,
            self.episode_bars,
            self.capital,
            SCHEMES[self.scheme],
        )

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002 - part of the interface
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a new episode in every lane; a seed fixes every start that follows."""
        if seed is not None or not self._seeded:
            entropy = [int(part) for part in np.atleast_1d(seed)] if seed is not None else None  # ty: ignore
            words = np.random.SeedSequence(entropy).generate_state(self.num_envs, np.uint64)
            self._lanes[:, RANDOM] = words.view(np.int64)
            self._seeded = True
        ohlc, features, _, _, _, atr, *rest = self._fixed()
        for i in range(self.num_envs):
            reset_lane(
                ohlc, features, atr, *rest, self._lanes[i], self._accounts[i], self._obs[i], self._masks[i]
            )
        self._episode_return[:] = 0.0
        return self._obs.copy(), {"action_mask": self._masks.copy()}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Carry every account over one bar."""
        actions = np.ascontiguousarray(actions, dtype=np.int64)
        count = ACTION_COUNTS[self.scheme]
        if actions.shape != (self.num_envs,) or actions.min() < 0 or actions.max() >= count:
            raise ValueError(f"actions have to be {self.num_envs} whole numbers from 0 to {count - 1}")
        n = self.num_envs
        obs = np.empty_like(self._obs)
        final_obs = np.zeros_like(self._obs)
        rewards = np.empty(n, dtype=np.float64)
        terminated = np.empty(n, dtype=np.bool_)
        truncated = np.empty(n, dtype=np.bool_)
        final_return = np.zeros(n)
        final_length = np.zeros(n, dtype=np.int64)
        final_accounts = np.zeros((n, ACCOUNT_SIZE))
        parts = np.empty((n, OUT_SIZE))
        step_lanes(
            *self._fixed(),
            actions,
            self._lanes,
            self._accounts,
            obs,
            rewards,
            terminated,
            truncated,
            final_obs,
            self._masks,
            self._episode_return,
            final_return,
            final_length,
            final_accounts,
            parts,
            self._fills,
            self._out,
        )
        self._obs = obs
        infos: dict[str, Any] = {"action_mask": self._masks.copy(), "parts": parts}
        ended = terminated | truncated
        if ended.any():
            infos |= {
                "final_obs": final_obs,
                "_final_obs": ended,
                "episode_return": final_return,
                "episode_length": final_length,
                "final_account": final_accounts,
            }
        return obs.copy(), rewards, terminated, truncated, infos

    def act(self, policy: PackedPolicy, uniforms: np.ndarray) -> Acted:
        """Let a policy act in every account for T bars, drawing its actions.

        The same, bit for bit, as `forward_batch`, `sample_actions` and `step` in turn, only sooner.

        Args:
            policy: It reads this environment's observations.
            uniforms: A number in [0, 1) for each action. (T, N)

        Raises:
            TrainingDivergedError: If a logit is not finite, so that no action can be drawn, or an observation or reward
                is not.
        """
        steps, width = len(uniforms), self._obs.shape[1]
        done = room_for(steps, self.num_envs, width, self._masks.shape[1])
        first, count = int(self._windows[:, 0].min()), self.market.feature_count
        stop = int(self._windows[:, 1].max()) + 1
        # Every bar's market part once, where there are fewer bars than looks at them.
        if stop - first <= uniforms.size:
            prefix = first_layer(policy.shape, policy.net, self.market.features[first:stop])
        else:
            prefix, count = no_prefix(policy), 0
        final_return, final_length = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=np.int64)
        reached = act_lanes(
            *self._fixed(),
            policy.shape,
            policy.net,
            policy.scratch(),
            prefix,
            first,
            count,
            np.ascontiguousarray(uniforms, dtype=np.float64),
            self._lanes,
            self._accounts,
            self._masks,
            self._episode_return,
            final_return,
            final_length,
            np.zeros((self.num_envs, ACCOUNT_SIZE)),
            np.empty((self.num_envs, OUT_SIZE)),
            self._fills,
            self._out,
            self._obs,
            np.zeros_like(self._obs),
            done.observations,
            done.reached,
            done.actions,
            done.log_probs,
            done.rewards,
            done.terminated,
            done.truncated,
            done.action_masks,
        )
        if reached < steps:
            raise TrainingDivergedError(
                f"No action could be drawn at step {reached + 1} of {steps}: the policy's logits are not finite.\n"
                "  Its weights or the features at hand hold nan or infinite numbers."
            )
        # An infinite observation drives hidden units to 1 and leaves logits that look sound. A sum in float64 is finite
        # where every float32 is.
        for name, numbers in (("observation", done.reached), ("reward", done.rewards)):
            if not math.isfinite(numbers.sum(dtype=np.float64)):
                bar, lane = np.argwhere(~np.isfinite(numbers))[0][:2]
                raise TrainingDivergedError(
                    f"Step {bar + 1} of {steps}, account {lane}: the {name} is not finite.\n"
                    "  Check the bars and features there."
                )
        return done

    def accounts(self) -> np.ndarray:
        """Return a copy of every account. (N, ACCOUNT_SIZE)"""
        return self._accounts.copy()

    def get_state(self) -> dict[str, np.ndarray]:
        """Return everything the next step depends on."""
        return {
            "lanes": self._lanes.copy(),
            "accounts": self._accounts.copy(),
            "episode_return": self._episode_return.copy(),
            "masks": self._masks.copy(),
            "obs": self._obs.copy(),
        }

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on exactly where `get_state` was taken."""
        self._lanes[:] = state["lanes"]
        self._accounts[:] = state["accounts"]
        self._episode_return[:] = state["episode_return"]
        self._masks[:] = state["masks"]
        self._obs = np.array(state["obs"], dtype=np.float32)
        self._seeded = True
