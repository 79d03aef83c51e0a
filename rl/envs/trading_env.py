"""The trading environment for one account, as an ordinary Gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from rl.envs.vector_env import VectorTradingEnv, spaces
from rl.trading.kernel import BAR_COST, EQUITY, UNITS
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules


class TradingEnv(gymnasium.Env):
    """One account trading one symbol; the contract is `VectorTradingEnv`'s with N = 1.

    It steps the same kernel through the same compiled loop, so on the same start and actions its numbers are equal
    to a lane's bit for bit. Info: `equity` (money), `units` (signed), `cost` (money paid in this bar), `action_mask`.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(
        self,
        market: MarketArrays,
        window: tuple[int, int],
        rules: TradingRules,
        *,
        episode_bars: int,
        scheme: str = "target",
        capital: float = 100_000.0,
    ) -> None:
        self.observation_space, self.action_space = spaces(market.feature_count, scheme)
        self._lanes = VectorTradingEnv(
            market,
            [window],
            [rules],
            num_envs=1,
            episode_bars=episode_bars,
            scheme=scheme,
            capital=capital,
        )

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002 - part of the interface
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode at a random bar of the window; a seed fixes this start and all later ones."""
        super().reset(seed=seed)
        lane_seed = seed if seed is not None else int(self.np_random.integers(2**62))
        obs, infos = self._lanes.reset(seed=lane_seed)
        account = self._lanes.accounts()[0]
        return obs[0], {
            "equity": float(account[EQUITY]),
            "units": 0.0,
            "cost": 0.0,
            "action_mask": infos["action_mask"][0],
        }

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Carry the account over one bar."""
        obs, rewards, terminated, truncated, infos = self._lanes.step(np.array([action]))
        ended = bool(terminated[0] or truncated[0])
        # The lane of an ended episode has begun its next one already; what is reported is how this one ended.
        account = infos["final_account"][0] if ended else self._lanes.accounts()[0]
        info = {
            "equity": float(account[EQUITY]),
            "units": float(account[UNITS]),
            "cost": float(infos["parts"][0, BAR_COST]),
            "action_mask": infos["action_mask"][0],
        }
        last = infos["final_obs"][0] if ended else obs[0]
        return last, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info
