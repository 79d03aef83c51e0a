"""Do the experts of a mixture specialise: who leads in which regime, what each is worth, and does it pay?

An expert leads on a bar where the gate gives it the greatest weight. What the account does on that bar is counted
for its leader, although the others have a say in it as far as their weights go.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from rl.backtest.engine import Replay
from rl.common.seeding import generator
from rl.policies.actor_critic import ActorCritic, build_policy
from rl.policies.encoders import MixtureOfExperts, MixtureParts
from rl.policies.forward import pack
from rl.policies.mixture import diversity
from rl.stages.assignment import AssignmentWorth, assignment_worth
from rl.stages.evaluation import replay_on
from rl.stages.regimes import regimes_of
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData
from rl.trading.kernel import ACCOUNT_FEATURES

LEAST_USAGE = 0.02
"""Mean gate weight above which an expert is in use."""

LEAST_EFFECTIVE_SHARE = 2.5 / 4
"""Experts in effect, exp H(w̄), as a share of all experts: 2.5 of 4."""

LEAST_DIVERGENCE = 0.02
"""Nats by which experts in use have to differ."""

MOST_ENTROPY_SHARE = 0.9
"""Mean entropy of the gate's weights, as a share of that of equal weights, from which the gate chooses nothing."""

LEAST_GATE_INFORMATION = 0.01
"""Nats the state has to say about the weights: less, and they are as good as constant."""

MONOPOLY = 0.9
"""Mean gate weight from which one expert is said to do everything."""

SIGNIFICANCE = 0.05
SHIFTS = 1000

FEWEST_CHANGES = 0.01
"""Share of actions; an expert whose removal changes fewer and costs nothing is dispensable."""

BLOCK_BARS = 8192
NEVER = -1e9
"""Score of an expert taken out: its weight is exactly 0, and the others' are what they are among themselves."""


@dataclass(frozen=True, kw_only=True)
class ExpertUse:
    """How a gate uses its experts and how far they differ. Axis: E experts. Entropies in nats."""

    mean_gate_weight: tuple[float, ...]
    """w̄, mean over bars. (E,)"""
    effective_experts: float
    """exp H(w̄), from 1 to E."""
    gate_entropy: float
    """H(w|s): entropy of a bar's weights, mean over bars. 0 where the gate always picks one, ln E where never."""
    gate_information: float
    """H(w̄) - H(w|s): what the state says about who acts. 0 where the weights are constant."""
    switching_rate: float
    """Share of bars on which another expert leads than on the bar before."""
    divergence: float
    """Jensen-Shannon divergence of experts in use: pairs weighted by the product of their mean gate weights."""
    plain_divergence: float
    """The same with all pairs weighted alike."""

    @property
    def unused(self) -> list[int]:
        """Places of the experts the gate gives next to nothing."""
        return [place for place, weight in enumerate(self.mean_gate_weight) if weight <= LEAST_USAGE]

    def collapses(self) -> list[str]:
        """Return every way in which the mixture is none, in words; empty for a healthy one.

        Usage alone cannot tell: exact clones and an untrained gate use all experts alike.
        """
        experts, top = len(self.mean_gate_weight), int(np.argmax(self.mean_gate_weight))
        has_monopoly = self.mean_gate_weight[top] >= MONOPOLY
        needed = LEAST_EFFECTIVE_SHARE * experts
        found = []
        if has_monopoly:
            found.append(f"one-hot gate: expert {top + 1} has {self.mean_gate_weight[top]:.1%} of the weight")
        elif self.unused:
            idle = ", ".join(str(place + 1) for place in self.unused)
            found.append(f"unused experts: {idle} (at most {LEAST_USAGE:.0%} of the weight)")
        elif self.effective_experts < needed:
            found.append(
                f"lopsided gate: {self.effective_experts:.2f} of {experts} experts in effect, {needed:.2f} needed"
            )
        if self.plain_divergence <= LEAST_DIVERGENCE and self.divergence <= LEAST_DIVERGENCE:
            found.append(
                f"clones: the experts act alike, {self.plain_divergence:.4f} nats apart, more than {LEAST_DIVERGENCE} "
                "needed"
            )
        elif self.divergence <= LEAST_DIVERGENCE and not has_monopoly:
            found.append(
                f"clones in use: the experts in use act alike, {self.divergence:.4f} nats apart, more than "
                f"{LEAST_DIVERGENCE} needed"
            )
        if self.gate_entropy >= MOST_ENTROPY_SHARE * math.log(experts):
            found.append(
                f"uniform gate: its weights are nearly equal on every bar (entropy {self.gate_entropy:.3f} of at most "
                f"{math.log(experts):.3f} nats)"
            )
        elif self.gate_information <= LEAST_GATE_INFORMATION and not has_monopoly:
            found.append(
                f"constant gate: its weights are the same in every state (within {self.gate_information:.4f} nats)"
            )
        return found


@dataclass(frozen=True, kw_only=True)
class SharedInformation:
    """What the leading expert and the regime say about each other."""

    nats: float
    normalised: float
    """Divided by the mean of the two entropies: 0 for nothing, 1 where each determines the other."""
    p: float
    """Chance of as much if regimes and experts had nothing to do with each other."""
    shifts: int
    """Shifts of the regimes in time that p was counted over."""


@dataclass(frozen=True, kw_only=True)
class ExpertRecord:
    """One expert on the bars of a window, or of one regime in it. None where there is nothing to take a mean of."""

    gate_weight: float | None
    """Mean gate weight on those bars."""
    leads: float | None
    """Share of those bars on which it leads."""
    short: float | None
    """Share of the bars it leads on which the decision was to be short."""
    flat: float | None
    long: float | None
    return_contribution: float
    """Change of equity from the closes of the bars it leads to the next ones, in starting capital."""
    mean_holding_bars: float | None
    """Of closed trades that were decided on while it led."""


@dataclass(frozen=True, kw_only=True)
class KnockOut:
    """The same window traded without one expert, the others' weights scaled up to 1."""

    return_change: float
    """Return of the window without it, minus return with it."""
    actions_changed: float
    """Share of decisions that come out differently."""

    @property
    def is_dispensable(self) -> bool:
        """True where nothing is lost without it, and next to nothing done differently."""
        return self.return_change >= 0.0 and self.actions_changed <= FEWEST_CHANGES


@dataclass(frozen=True, kw_only=True)
class Specialisation:
    """What a mixture's experts did on a window. Axes: E experts, R regimes that occur there."""

    window: str
    regime_source: str
    regimes: tuple[str, ...]
    """(R,)"""
    regime_bars: tuple[int, ...]
    """(R,)"""
    use: ExpertUse
    information: SharedInformation
    experts: tuple[ExpertRecord, ...]
    """(E,)"""
    by_regime: tuple[tuple[ExpertRecord, ...], ...]
    """(E, R)"""
    knock_outs: tuple[KnockOut | None, ...]
    """None for experts not in use. (E,)"""
    assignment: AssignmentWorth
    """What the gate's timing is worth."""

    @property
    def follows_regimes(self) -> bool:
        """True where who leads depends on the regime beyond chance and the mixture has not collapsed in any way."""
        return self.information.p < SIGNIFICANCE and not self.use.collapses()

    @property
    def specialises(self) -> bool:
        """True where the gate follows the regimes and its choice pays: a gate of random weights follows them too."""
        return self.follows_regimes and self.assignment.pays

    def verdict(self) -> str:
        """Return the finding in a sentence or two."""
        known, worth = self.information, self.assignment.in_words()
        figures = f"{known.nats:.3f} nats, NMI {known.normalised:.2f}, p {known.p:.3g}"
        if self.specialises:
            least = min(self.use.mean_gate_weight)
            return (
                f"Experts specialise, and it pays: who leads depends on the regime ({figures}), {worth}, and the least "
                f"used expert has {least:.1%} of the weight."
            )
        if self.follows_regimes:
            return (
                f"The gate follows the regimes ({figures}), as a gate of random weights would too; that it pays who "
                f"leads when is not shown: {worth}."
            )
        pays = f" It does pay who leads when: {worth}." if self.assignment.pays else ""
        return f"Experts do not specialise: {'; '.join(self._reasons(figures))}.{pays}"

    def _reasons(self, figures: str) -> list[str]:
        """Return why the gate does not follow the regimes."""
        known, reasons = self.information, self.use.collapses()
        if len(self.regimes) < 2:
            reasons.append("the window holds one regime only, so there is nothing to specialise in")
        elif known.p >= SIGNIFICANCE:
            reasons.append(f"who leads depends on the regime no more than by chance ({figures})")
        return reasons

    def as_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        knock_outs = [
            None if each is None else {**asdict(each), "is_dispensable": each.is_dispensable}
            for each in self.knock_outs
        ]
        return {
            **asdict(self),
            "knock_outs": knock_outs,
            "assignment": self.assignment.as_dict(),
            "follows_regimes": self.follows_regimes,
            "collapses": self.use.collapses(),
            "specialises": self.specialises,
            "verdict": self.verdict(),
        }


def specialisation(
    data: SymbolData, model: StageModel, window: str, replay: Replay, *, scheme: str, seed: int
) -> Specialisation:
    """Return what a mixture's experts do on a window. Bars without features, where nobody decides, are left out.

    The gate sees the market only, so its figures are exact; how far experts differ is asked of a flat account.

    Args:
        data: The symbol.
        model: A model whose policy is a mixture.
        window: Name of the window.
        replay: What the model did there.
        scheme: Its action scheme.
        seed: Decides by how much regimes and the gate's choice are shifted.
    """
    policy = model.policy()
    activity = expert_activity(data, policy, window, replay, seed=seed)
    use: ExpertUse = activity["use"]
    return Specialisation(
        **activity,
        knock_outs=tuple(
            None if expert in use.unused else knock_out(data, policy, expert, window, replay, scheme=scheme)
            for expert in range(len(use.mean_gate_weight))
        ),
        assignment=assignment_worth(
            data,
            policy,
            window,
            replay,
            scheme=scheme,
            rng=generator(seed, "assignment", data.symbol, window),
        ),
    )


def expert_activity(
    data: SymbolData, policy: ActorCritic, window: str, replay: Replay, *, seed: int
) -> dict[str, Any]:
    """Return the fields of `Specialisation` that take no further replay: window, regimes, use, information, records.

    Args:
        data: The symbol.
        policy: A mixture.
        window: Name of the span.
        replay: What the policy did there.
        seed: Decides by how much regimes are shifted.
    """
    rows = _deciding_rows(data, replay.start, replay.stop)
    parts = _parts_of_flat_account(policy, data.market.features[rows])
    found = regimes_of(data)
    present, regime = np.unique(found.labels[rows], return_inverse=True)
    gate = parts.gate_probs.numpy()
    experts, by_regime = expert_records(gate, regime, len(present), rows - replay.start, replay)
    stream = generator(seed, "specialisation", data.symbol, window)
    return {
        "window": window,
        "regime_source": found.source,
        "regimes": tuple(found.names[place] for place in present),
        "regime_bars": tuple(int(count) for count in np.bincount(regime)),
        "use": expert_use(parts),
        "information": shared_information(gate.argmax(1), regime, stream),
        "experts": experts,
        "by_regime": by_regime,
    }


def collapses_on(data: SymbolData, model: StageModel, window: str) -> list[str]:
    """Return every way in which a mixture is none on a window, in words; empty for a healthy one."""
    features = data.market.features[_deciding_rows(data, *data.window(window))]
    return expert_use(_parts_of_flat_account(model.policy(), features)).collapses()


def _deciding_rows(data: SymbolData, start: int, stop: int) -> np.ndarray:
    """Return the rows from `start` up to `stop` on which a policy decides. (B,)"""
    # The last bar decides nothing.
    rows = np.arange(start, stop - 1)
    return rows[data.table.usable[rows]]


@torch.no_grad()
def _parts_of_flat_account(policy: ActorCritic, features: np.ndarray) -> MixtureParts:
    """Return what gate and experts say on these bars to an account that holds nothing. (B, F)"""
    observations = np.zeros((len(features), features.shape[1] + ACCOUNT_FEATURES), dtype=np.float32)
    observations[:, : features.shape[1]] = features
    # A flat account holds its whole equity in cash.
    observations[:, -1] = 1.0
    blocks = [policy.mixture_parts(block) for block in torch.from_numpy(observations).split(BLOCK_BARS)]
    return MixtureParts(
        torch.cat([block.gate_log_probs for block in blocks]),
        torch.cat([block.expert_log_probs for block in blocks]),
    )


@torch.no_grad()
def expert_use(parts: MixtureParts) -> ExpertUse:
    """Return how a gate uses its experts on consecutive bars, and how far they differ."""
    weights = parts.gate_probs.double()
    mean = weights.mean(0)
    entropy = float(torch.special.entr(weights).sum(-1).mean())
    entropy_of_mean = float(torch.special.entr(mean).sum())
    leader = weights.argmax(-1)
    return ExpertUse(
        mean_gate_weight=tuple(float(weight) for weight in mean),
        effective_experts=math.exp(entropy_of_mean),
        gate_entropy=entropy,
        # Below zero by rounding only.
        gate_information=max(0.0, entropy_of_mean - entropy),
        switching_rate=float((leader[1:] != leader[:-1]).double().mean()) if len(leader) > 1 else 0.0,
        divergence=float(diversity(parts.expert_log_probs, mean.to(parts.expert_log_probs.dtype))),
        plain_divergence=float(diversity(parts.expert_log_probs)),
    )


# --- regime and leader ------------------------------------------------------------------------------------------------


def mutual_information(counts: np.ndarray) -> float:
    """Return Σ p(e,r) ln (p(e,r) / (p(e) p(r))) of a table of counts, in nats. (E, R)"""
    joint = counts / counts.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    # Below zero by rounding only.
    return max(0.0, float(np.sum(joint[seen] * np.log(joint[seen] / apart[seen]))))


def shared_information(
    leader: np.ndarray, regime: np.ndarray, rng: np.random.Generator, shifts: int = SHIFTS
) -> SharedInformation:
    """Return the mutual information of leader and regime, with its p value by circular shifts in time.

    Both stay the same for many bars on end, so shuffling bars would call chance meetings of long stretches
    evidence. A shift keeps the stretches of both and breaks only what ties one to the other. p counts the
    observed table among the shifts, (1 + as large ones) / (1 + shifts), so it is never 0.

    Args:
        leader: Number of the leading expert. (B,)
        regime: Number of the regime. (B,)
        rng: Draws the shifts, without replacement.
        shifts: How many, at most B - 1.
    """
    experts, regimes = int(leader.max()) + 1, int(regime.max()) + 1

    def table(moved: np.ndarray) -> np.ndarray:
        flat = np.bincount(leader * regimes + moved, minlength=experts * regimes)
        return flat.reshape(experts, regimes)

    counts = table(regime)
    nats = mutual_information(counts)
    chosen = rng.permutation(np.arange(1, len(regime)))[:shifts]
    # The same table by another order of additions is no smaller one.
    as_large = sum(mutual_information(table(np.roll(regime, shift))) >= nats - 1e-12 for shift in chosen)
    spread = 0.5 * (_entropy(counts.sum(1)) + _entropy(counts.sum(0)))
    return SharedInformation(
        nats=nats,
        normalised=nats / spread if spread > 0.0 else 0.0,
        p=(1 + int(as_large)) / (1 + len(chosen)),
        shifts=len(chosen),
    )


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return -float(np.sum(shares * np.log(shares)))


# --- what each expert did ---------------------------------------------------------------------------------------------


def expert_records(
    gate: np.ndarray, regime: np.ndarray, regimes: int, steps: np.ndarray, replay: Replay
) -> tuple[tuple[ExpertRecord, ...], tuple[tuple[ExpertRecord, ...], ...]]:
    """Return each expert's record on all bars (E,) and on those of each regime (E, R).

    Args:
        gate: Each expert's weight. (B, E)
        regime: Number of the regime. (B,)
        regimes: How many there are, R.
        steps: Which decision of the replay each bar made. (B,)
        replay: What the account did.
    """
    leader = gate.argmax(1)
    side = np.sign(replay.decided[steps])
    gained = np.diff(replay.equity)[steps] / replay.capital
    # Decisions a ruined account did not make.
    is_made = steps < replay.decisions
    place = np.full(len(replay.decided), -1, dtype=np.int64)
    place[steps] = np.arange(len(steps))
    # A trade that fills on a bar was decided on the bar before it.
    entry = place[replay.trades.entry_bar - 1 - replay.start]
    holding = replay.trades.holding_bars

    def record(expert: int, is_here: np.ndarray) -> ExpertRecord:
        led = is_here & (leader == expert)
        decided = side[led & is_made]
        return ExpertRecord(
            gate_weight=_mean(gate[is_here, expert]),
            leads=_mean(leader[is_here] == expert),
            short=_mean(decided < 0),
            flat=_mean(decided == 0),
            long=_mean(decided > 0),
            return_contribution=float(gained[led].sum()),
            mean_holding_bars=_mean(holding[(entry >= 0) & led[entry]]),
        )

    everywhere = np.ones(len(regime), dtype=bool)
    experts = range(gate.shape[1])
    overall = tuple(record(expert, everywhere) for expert in experts)
    by_regime = tuple(tuple(record(expert, regime == each) for each in range(regimes)) for expert in experts)
    return overall, by_regime


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def without_expert(policy: ActorCritic, expert: int) -> ActorCritic:
    """Return a copy of a mixture without one expert: its weight is 0, the others share it in proportion."""
    copy = build_policy(policy.spec, seed=0)
    copy.load_flat(policy.flat_parameters())
    actor = copy.actor
    assert isinstance(actor, MixtureOfExperts)
    with torch.no_grad():
        _, bias = actor.gate.layers()[-1]
        bias[expert] = NEVER
    return copy


def knock_out(
    data: SymbolData, policy: ActorCritic, expert: int, window: str, replay: Replay, *, scheme: str
) -> KnockOut:
    """Return what changes on a window when one expert is taken out of a mixture.

    Args:
        data: The symbol.
        policy: The mixture.
        expert: Place of the expert.
        window: Name of the window.
        replay: What the whole mixture did there.
        scheme: Its action scheme.
    """
    reduced = replay_on(
        data, pack(without_expert(policy, expert)), window, scheme=scheme, capital=replay.capital
    )
    return KnockOut(
        return_change=float(reduced.equity[-1] - replay.equity[-1]) / replay.capital,
        actions_changed=float(np.mean(reduced.actions != replay.actions)),
    )
