"""From a checkpoint and bars to actions: the one inference path of validation, backtest, signals and service."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rl.algorithms.adaptation import Parameters
from rl.checkpoints.adaptation import (
    META_WEIGHTS,
    STEP_SIZE_PREFIX,
    AdaptationRecipe,
    TradingStretch,
    adapted_weights,
)
from rl.checkpoints.checkpoint import Checkpoint
from rl.common.errors import CheckpointError
from rl.envs.scaled_market import scaled_market
from rl.features.pipeline import FeatureTable
from rl.features.scaler import FeatureScaler
from rl.market.bars import Bars
from rl.policies.actor_critic import build_policy
from rl.policies.forward import PackedPolicy, pack_weights
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules


@dataclass(frozen=True, kw_only=True)
class PreparedPolicy:
    """A policy ready to act on a span, and what was done to it first."""

    packed: PackedPolicy
    weights: np.ndarray
    """What `packed` was made of, in the policy's own order. (P,)"""
    note: str | None
    """What adaptation took place; None for a model that does not adapt."""
    support: tuple[int, int] | None = None
    """Rows of the bars it was adapted on."""


class Predictor:
    """A loaded checkpoint, ready for bars of its symbol."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.scaler = FeatureScaler.from_dict(checkpoint.scaler)

    @property
    def adapts(self) -> bool:
        """True where the model carries meta-parameters to adapt from."""
        return META_WEIGHTS in self.checkpoint.extra_tensors

    def market(self, bars: Bars, table: FeatureTable) -> MarketArrays:
        """Return the kernel's arrays of these bars, features chosen and scaled as in training.

        Raises:
            DataError: A feature of the model does not exist for these bars.
        """
        return scaled_market(bars, table, self.checkpoint.feature_names, self.scaler)

    def policy_for(
        self,
        market: MarketArrays,
        rules: TradingRules,
        *,
        span_start: int,
        capital: float,
        adapt_before_use: bool = True,
    ) -> PreparedPolicy:
        """Return the policy that acts from `span_start` on.

        A stage-3 model is adapted on the bars that end just before the span, so that what it learned from is known
        by then; with `adapt_before_use` off, or too little history, it acts with the weights adapted before its
        validation window.
        """
        spec = self.checkpoint.policy_spec
        stored = self.checkpoint.weights.numpy()
        if not self.adapts:
            return PreparedPolicy(packed=pack_weights(spec, stored), weights=stored, note=None)
        if not adapt_before_use:
            return PreparedPolicy(
                packed=pack_weights(spec, stored),
                weights=stored,
                note="adapted once, before validation (adapt_before_use is off)",
            )
        recipe = self._recipe()
        support = (span_start - recipe.support_bars, span_start)
        if support[0] < 0 or not market.tradable[support[0] : support[1]].any():
            return PreparedPolicy(
                packed=pack_weights(spec, stored),
                weights=stored,
                note=f"adapted once, before validation: fewer than {recipe.support_bars} usable bars precede the span",
            )
        weights = self.weights_adapted_on(market, rules, support, capital=capital)
        return PreparedPolicy(
            packed=pack_weights(spec, weights),
            weights=weights,
            note=f"adapted by {recipe.config.inner_loop_steps} steps on the {recipe.support_bars} bars before the span",
            support=support,
        )

    def weights_adapted_on(
        self, market: MarketArrays, rules: TradingRules, support: tuple[int, int], *, capital: float
    ) -> np.ndarray:
        """Return the weights after the inner steps on a stretch of bars. (P,)"""
        tensors = self.checkpoint.extra_tensors
        policy = build_policy(self.checkpoint.policy_spec, seed=0)
        policy.load_flat(tensors[META_WEIGHTS])
        step_sizes: Parameters = {
            name.removeprefix(STEP_SIZE_PREFIX): size
            for name, size in tensors.items()
            if name.startswith(STEP_SIZE_PREFIX)
        }
        if unknown := sorted(set(step_sizes) - {name for name, _ in policy.named_parameters()}):
            raise CheckpointError(
                f"the stage-3 model of {self.checkpoint.symbol} has a step size for {unknown[0]!a:.80}, which its "
                "policy does not have; it is damaged or was made by hand. Train it again"
            )
        stretch = TradingStretch(
            market=market,
            rules=rules,
            window=support,
            scheme=self.checkpoint.action_scheme,
            capital=capital,
        )
        return adapted_weights(policy, step_sizes, stretch, self._recipe(), name=self.checkpoint.symbol)

    def _recipe(self) -> AdaptationRecipe:
        stored = self.checkpoint.trading.get("adaptation")
        if not isinstance(stored, dict):
            raise CheckpointError(
                f"the stage-3 model of {self.checkpoint.symbol} does not say how it is adapted; train it again"
            )
        return AdaptationRecipe.from_dict(stored)


def adaptation_tensors(meta_weights: torch.Tensor, step_sizes: Parameters) -> dict[str, torch.Tensor]:
    """Return what a stage-3 checkpoint carries besides the acting weights."""
    return {
        META_WEIGHTS: meta_weights.detach().clone(),
        **{STEP_SIZE_PREFIX + name: size.detach().clone() for name, size in step_sizes.items()},
    }
