"""Adapting a meta-learned policy to a stretch of history: the same rollouts in training, validation and backtest."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from rl.algorithms.adaptation import AdaptationConfig, Parameters, RolloutData, adapt
from rl.common.errors import CheckpointError
from rl.common.seeding import generator
from rl.common.sizes import MOST_INNER_STEPS, MOST_SUPPORT_BARS, MOST_SUPPORT_STEPS
from rl.envs.vector_env import VectorTradingEnv
from rl.policies.actor_critic import ActorCritic
from rl.policies.forward import pack_weights
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

META_WEIGHTS = "meta_weights"
"""Name of the meta-parameters among a stage-3 checkpoint's tensors."""

STEP_SIZE_PREFIX = "step_size."
"""What the name of each tensor's learned step size begins with; the tensor's own name follows."""

ROLLOUT_LANES = 16
"""Accounts that act side by side in one rollout of a task."""


@dataclass(frozen=True, kw_only=True)
class TradingStretch:
    """A stretch of one symbol's history that rollouts may be taken from."""

    market: MarketArrays
    rules: TradingRules
    window: tuple[int, int]
    scheme: str
    capital: float

    def rollout(self, spec: dict, params: Parameters, steps: int, rng: np.random.Generator) -> RolloutData:
        """Let accounts with these parameters trade the stretch, each of its bars as often as any other.

        Args:
            spec: The policy's spec.
            params: Its parameters by name, in the order of the flat vector.
            steps: Transitions wanted; rounded to whole rows of lanes.
            rng: Source of starts and actions.
        """
        lanes = min(ROLLOUT_LANES, steps)
        length = max(2, steps // lanes)
        pieces = self._pieces(length, rng)
        envs = VectorTradingEnv(
            self.market,
            pieces,
            [self.rules] * len(pieces),
            num_envs=lanes,
            episode_bars=length,
            scheme=self.scheme,
            capital=self.capital,
        )
        envs.reset(seed=int(rng.integers(2**62)))
        acted = envs.act(pack_weights(spec, flat_weights(params)), rng.random((length, lanes)))
        truncated = acted.truncated
        # The rollout stops here whether or not the episode did; the account is marked, trading would go on.
        truncated[-1] |= ~acted.terminated[-1]
        return RolloutData(
            obs=_rows(acted.observations),
            next_obs=_rows(acted.reached),
            actions=_rows(acted.actions),
            log_probs=_rows(acted.log_probs),
            rewards=acted.rewards,
            terminated=acted.terminated,
            truncated=truncated,
            action_mask=_rows(acted.action_masks),
        )

    def _pieces(self, length: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Cut the stretch at every `length` decisions from a random bar on; each account draws one piece at a time.

        Starts at any bar that leaves room for `length` decisions would all but leave out the stretch's ends, the newest
        bars among them: of 187 bars and 64 decisions the last would be seen 60 times less often than a middle one.
        """
        start, last = self.window[0], self.window[1] - 1
        cut = start + int(rng.integers(length)) if last - start > length else start
        edges = [start, *range(cut, last, length), last]
        return [(first, stop + 1) for first, stop in pairwise(edges) if stop > first]


def _rows(values: np.ndarray) -> torch.Tensor:
    """Return the same numbers with time and lane in one axis. (T, N, …) -> (T · N, …)"""
    return torch.from_numpy(values.reshape(-1, *values.shape[2:]))


def flat_weights(params: Parameters) -> np.ndarray:
    """Return parameters by name as one flat float32 vector. (P,)"""
    return torch.cat([tensor.detach().reshape(-1).float() for tensor in params.values()]).numpy()


@dataclass(frozen=True, kw_only=True)
class AdaptationRecipe:
    """What adapting a stage-3 model takes besides its weights; travels in its checkpoint."""

    config: AdaptationConfig
    support_bars: int
    """Bars of history to adapt on."""
    support_steps: int
    """Transitions of each inner step's rollout."""

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> AdaptationRecipe:
        """Return the recipe that `to_dict` wrote down.

        Raises:
            CheckpointError: It is not one, or asks for more than anybody adapts by.
        """
        try:
            values: dict[str, Any] = {**plain, "config": AdaptationConfig(**plain["config"])}
            recipe = cls(**values)
            problems = recipe.problems()
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"The recipe of adaptation cannot be read: {error!r:.200}.") from error
        if problems:
            raise CheckpointError(f"The recipe of adaptation cannot be used: {'; '.join(problems):.500}.")
        return recipe

    def problems(self) -> list[str]:
        """Return everything wrong with these values, worded for whoever was given the file."""
        counts = {
            "inner_loop_steps": (self.config.inner_loop_steps, 1, MOST_INNER_STEPS),
            "support_bars": (self.support_bars, 2, MOST_SUPPORT_BARS),
            "support_steps": (self.support_steps, 2, MOST_SUPPORT_STEPS),
        }
        found = [
            f"{name} has to be a whole number from {least} to {most}, but is {value!r:.80}"
            for name, (value, least, most) in counts.items()
            if type(value) is not int or not least <= value <= most
        ]
        for each in fields(AdaptationConfig):
            value = getattr(self.config, each.name)
            if isinstance(each.default, float) and not (_is_number(value) and math.isfinite(value)):
                found.append(f"{each.name} has to be a finite number, but is {value!r:.80}")
        # The rules of the plan compare numbers, so they are asked where there are only numbers.
        return found or self.config.problems()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def adapted_weights(
    policy: ActorCritic,
    step_sizes: Parameters,
    stretch: TradingStretch,
    recipe: AdaptationRecipe,
    *,
    name: str,
) -> np.ndarray:
    """Return the policy's flat weights after its inner steps on one stretch of history. (P,)

    The same stretch, weights and name give the same bits; the policy itself is not changed.

    Args:
        policy: The meta-parameters.
        step_sizes: Learned step size of each tensor.
        stretch: The support bars.
        recipe: Settings of the training run.
        name: Names this adaptation's random numbers; the symbol.
    """

    def support(params: Parameters, rng: np.random.Generator) -> RolloutData:
        return stretch.rollout(policy.spec, params, recipe.support_steps, rng)

    rng = generator(0, "adapt before use", name)
    steps = recipe.config.inner_loop_steps
    return flat_weights(adapt(policy, step_sizes, support, steps, rng, recipe.config))
