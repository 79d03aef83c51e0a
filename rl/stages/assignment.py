"""Does it pay who leads when: the same experts on the same bars, led as the gate chose at other times.

That the gate follows the regimes says little: it sees what regimes are made of, so a gate of random weights follows
them too. Whether its choice earns anything is seen by moving that choice in time and trading the window again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from rl.backtest.engine import Replay
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.policies.encoders import MixtureOfExperts, Mlp
from rl.policies.forward import PackedPolicy, pack
from rl.stages.evaluation import replay_on
from rl.stages.symbol_data import SymbolData
from rl.trading.kernel import ACCOUNT_FEATURES

MOST_SHIFTS = 59
"""Replays at most: the smallest p is 1/60. Each costs as much as trading the window once, about 10 µs a bar."""

ENOUGH_AS_GOOD = 10
"""Where so many shifted choices did as well, the answer is clear and no further ones are tried."""

SIGNIFICANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class AssignmentWorth:
    """The window's return as the gate chose, beside that of the same choice shifted in time."""

    as_chosen: float
    """Return of the window, a fraction."""
    shifted_mean: float | None
    """Mean return over the shifts; None where the window is too short to shift anything."""
    shifted_low: float | None
    """5th percentile of the shifts' returns."""
    shifted_high: float | None
    """95th percentile."""
    p: float
    """Chance of a return as high if it does not matter who leads when, for a gate that was not chosen on this window.

    Of weights that were chosen by it, as on validation, the figure comes out too small: in 100 draws without an edge
    that kept the best of 16 gates it averaged .21 in place of .5.
    """
    shifts: int

    @property
    def pays(self) -> bool:
        """True where the gate's choice earns more than the same choice at other times, beyond chance."""
        return self.p < SIGNIFICANCE

    def in_words(self) -> str:
        """Return the figures in a sentence's middle."""
        if self.shifted_mean is None:
            return "the window is too short to tell"
        return (
            f"the window returns {100 * self.as_chosen:.2f} %, and {100 * self.shifted_mean:.2f} % on average with the "
            f"gate's choice shifted in time, p {self.p:.3g} by {self.shifts} shifts"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {**asdict(self), "pays": self.pays}


def assignment_worth(
    data: SymbolData,
    policy: ActorCritic,
    window: str,
    replay: Replay,
    *,
    scheme: str,
    rng: np.random.Generator,
    most: int = MOST_SHIFTS,
) -> AssignmentWorth:
    """Return what the gate's timing is worth on a window.

    Each shift moves what the gate sees by so many bars round the window, while experts and account see the bars as they
    are. So the weights keep their values, their stretches and how often they change; only when each expert leads is
    another matter. p is that of Besag and Clifford (1991, Biometrika 78, 301-304): shifts are drawn until
    `ENOUGH_AS_GOOD` of them earned as much, p = that number / shifts; else p = (1 + as good ones) / (1 + shifts). Under
    no effect p is uniform in both cases. A choice that never changes does as well shifted: p is 1.

    Args:
        data: The symbol.
        policy: The mixture.
        window: Name of the window.
        replay: What the mixture did there.
        scheme: Its action scheme.
        rng: Draws the shifts, without repetition.
        most: Replays at most.
    """
    rows = np.arange(replay.start, replay.stop - 1)
    rows = rows[data.table.usable[rows]]
    apart = with_gate_apart(policy)
    returns: list[float] = []
    as_chosen = _total_return(replay)
    as_good = 0
    for shift in rng.permutation(np.arange(1, len(rows)))[:most]:
        shifted = replay_on(
            with_gate_shifted(data, policy, rows, int(shift)),
            apart,
            window,
            scheme=scheme,
            capital=replay.capital,
        )
        returns.append(_total_return(shifted))
        as_good += returns[-1] >= as_chosen
        if as_good == ENOUGH_AS_GOOD:
            break
    was_ended = as_good == ENOUGH_AS_GOOD
    p = as_good / len(returns) if was_ended else (1 + as_good) / (1 + len(returns))
    low, high = np.quantile(returns, [0.05, 0.95]) if returns else (None, None)
    return AssignmentWorth(
        as_chosen=as_chosen,
        shifted_mean=float(np.mean(returns)) if returns else None,
        shifted_low=None if low is None else float(low),
        shifted_high=None if high is None else float(high),
        p=p,
        shifts=len(returns),
    )


def with_gate_apart(policy: ActorCritic) -> PackedPolicy:
    """Return a mixture whose gate reads columns of its own, after the features and before the account.

    On the bars of `with_gate_shifted` with shift 0 it acts bit for bit as the mixture does.
    """
    spec = policy.spec
    columns, features = len(spec["gate_inputs"]), spec["observations"] - ACCOUNT_FEATURES
    own = list(range(features, features + columns))
    apart = build_policy({**spec, "observations": spec["observations"] + columns, "gate_inputs": own}, seed=0)
    actor, old = apart.actor, policy.actor
    assert isinstance(actor, MixtureOfExperts)
    assert isinstance(old, MixtureOfExperts)
    actor.gate.load_state_dict(old.gate.state_dict())
    with torch.no_grad():
        for (weight, bias), (old_weight, old_bias) in zip(
            actor.expert_layers(), old.expert_layers(), strict=True
        ):
            _copy_without_own_columns(weight, old_weight, features, columns)
            bias.copy_(old_bias)
        _copy_critic(apart.critic, policy.critic, features, columns)
    return pack(apart)


def _copy_critic(critic: Mlp, old: Mlp, features: int, columns: int) -> None:
    for (weight, bias), (old_weight, old_bias) in zip(critic.layers(), old.layers(), strict=True):
        _copy_without_own_columns(weight, old_weight, features, columns)
        bias.copy_(old_bias)


def _copy_without_own_columns(weight: torch.Tensor, old: torch.Tensor, features: int, columns: int) -> None:
    """Copy a layer's weight; where it reads observations, the gate's own columns get weight 0. (…, in, out)"""
    if weight.shape == old.shape:
        weight.copy_(old)
        return
    weight[..., :features, :] = old[..., :features, :]
    weight[..., features : features + columns, :] = 0.0
    weight[..., features + columns :, :] = old[..., features:, :]


def with_gate_shifted(data: SymbolData, policy: ActorCritic, rows: np.ndarray, shift: int) -> SymbolData:
    """Return the symbol with further columns for the gate: what it saw `shift` of these rows earlier, in a circle.

    Args:
        data: The symbol.
        policy: The mixture; tells which columns its gate reads.
        rows: Rows on which decisions are made. (B,)
        shift: By how many of them.
    """
    features = data.market.features
    seen = features[:, policy.spec["gate_inputs"]].copy()
    seen[rows] = np.roll(seen[rows], shift, axis=0)
    market = replace(data.market, features=np.ascontiguousarray(np.hstack([features, seen])))
    return replace(data, market=market)


def _total_return(replay: Replay) -> float:
    return float(replay.equity[-1]) / replay.capital - 1.0
