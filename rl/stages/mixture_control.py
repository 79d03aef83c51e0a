"""Did the mixture form earn anything: stage 2 beside one network of as many parameters, trained the same way.

The network is a control: never a candidate for champion, and not counted as a look, for nothing is decided by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rl.policies.spec import parameter_count
from rl.stages.evaluation import packed, replay_on, returns_by_session
from rl.stages.evidence import paired_test
from rl.stages.moe_stage import equal_parameter_training
from rl.stages.plan import Plan
from rl.stages.policy_training import PolicyTraining, Report
from rl.stages.run_state import SymbolJournal
from rl.stages.stage_model import StageModel
from rl.stages.symbol_data import SymbolData

CONTROL = "control"
"""What its training and its clock are called in the journal."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much more one model earned per session than another, on the same sessions of validation; fractions."""

    mean: float
    lower: float
    """Lower end of the two-sided interval; nan where there are too few sessions."""
    upper: float
    p_more: float
    """Chance of a difference this large if the first earns no more than the second."""
    p_less: float
    """Chance of a difference this small if the first earns no less than the second."""
    sessions: int

    @classmethod
    def between(cls, first: np.ndarray, second: np.ndarray, alpha: float) -> Difference:
        """Compare session returns, paired, by the test that decides on champions. (S,), (S,)"""
        test = paired_test(first, second, confidence=1.0 - 2.0 * alpha)
        return cls(
            mean=test.mean,
            lower=test.lower,
            upper=test.upper,
            p_more=test.p_above_zero,
            p_less=test.p_below_zero,
            sessions=test.sessions,
        )

    @property
    def is_more(self) -> bool:
        """True where the first earned more, beyond chance."""
        return self.lower > 0.0

    @property
    def is_less(self) -> bool:
        """True where the first earned less, beyond chance."""
        return self.upper < 0.0

    def in_words(self) -> str:
        """Return the mean and its interval in basis points a session."""
        if math.isnan(self.lower):
            return (
                f"{self.mean * 1e4:+.2f} bp a session, {self.sessions} sessions are too few for an interval"
            )
        return (
            f"{self.mean * 1e4:+.2f} bp a session [{self.lower * 1e4:+.2f}, {self.upper * 1e4:+.2f}] over "
            f"{self.sessions} sessions"
        )


@dataclass(frozen=True, kw_only=True)
class MixtureControl:
    """A mixture, one network of as many parameters and stage 1, side by side on validation."""

    hidden: tuple[int, ...]
    """Widths of the network's hidden layers."""
    parameters: int
    """Of the network."""
    mixture_parameters: int
    episodes: int
    """Trained, of either."""
    best_episodes: int
    """After which the network's weights were chosen by validation."""
    mixture_attempts: int
    """Attempts (extensions and searches) the mixture is the best of; the network had one."""
    mean_session_return: float
    """Of the network."""
    mixture_against_network: Difference
    mixture_against_stage_1: Difference | None
    """None where there was no stage 1."""
    network_against_stage_1: Difference | None
    wall_seconds: float
    cpu_seconds: float

    def verdict(self) -> str:
        """Return in words whether the mixture form earned anything."""
        against = self.mixture_against_network
        if math.isnan(against.lower):
            return f"Whether the mixture form earns anything cannot be said: {against.in_words()}."
        if against.is_more:
            text = "The mixture form earns something: the mixture beats one network of as many parameters"
        elif against.is_less:
            text = "The mixture form costs something: one network of as many parameters beats the mixture"
        else:
            text = "The mixture form earns nothing that validation can show beyond one network of as many parameters"
        text += f" (mixture minus network {against.in_words()})."
        if self.network_against_stage_1 is not None and self.network_against_stage_1.is_more:
            text += " That network beats stage 1 too, so more weights and more training pay by themselves."
        if self.mixture_attempts > 1:
            text += f" The mixture is the best of {self.mixture_attempts} attempts, the network had one."
        return f"{text} Each was trained once: another seed may turn it round."

    def as_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON: what is not a number is None."""
        return {**_finite(asdict(self)), "verdict": self.verdict()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def mixture_control(
    data: SymbolData,
    plan: Plan,
    mixture: StageModel,
    parent: StageModel | None,
    *,
    returns: np.ndarray,
    parent_returns: np.ndarray | None,
    attempts: int,
    report: Report,
    journal: SymbolJournal | None = None,
) -> MixtureControl:
    """Train the network of equal size as the mixture was trained, and compare the three on validation.

    As the mixture: from the same parent or from random weights, in rounds of as many episodes, under the settings of
    the attempt that was kept, choosing by validation as often.

    Args:
        data: The symbol.
        plan: Its plan.
        mixture: Stage 2's model.
        parent: What the mixture started from.
        returns: The mixture's session returns on validation. (S,)
        parent_returns: The parent's. (S,)
        attempts: How many attempts that mixture is the best of.
        report: Called after every update with its figures.
        journal: Where the training is kept while it goes on, and gone on with; None keeps nothing.
    """
    journal = journal or SymbolJournal()
    journal.begin(CONTROL)
    plan = plan.with_ppo(**mixture.metrics["searched"])
    if not mixture.metrics["transfer_learning"]:
        plan = plan.with_fresh_experts()
    training = equal_parameter_training(data, plan, parent, seed=plan.seed)
    _train(training, mixture.metrics["episodes_by_round"], report, journal)
    network = training.model()
    environment = plan.environment
    replay = replay_on(
        data,
        packed(network),
        "validation",
        scheme=environment.action_scheme,
        capital=environment.initial_capital,
    )
    network_returns = returns_by_session(data, replay, "validation")

    def against_stage_1(of: np.ndarray) -> Difference | None:
        return None if parent_returns is None else Difference.between(of, parent_returns, plan.evidence.alpha)

    wall, cpu = journal.since(CONTROL)
    return MixtureControl(
        hidden=tuple(network.policy_spec["hidden"]),
        parameters=parameter_count(network.policy_spec),
        mixture_parameters=parameter_count(mixture.policy_spec),
        episodes=network.episodes,
        best_episodes=network.metrics["best_episodes"],
        mixture_attempts=attempts,
        mean_session_return=float(np.mean(network_returns)),
        mixture_against_network=Difference.between(returns, network_returns, plan.evidence.alpha),
        mixture_against_stage_1=against_stage_1(returns),
        network_against_stage_1=against_stage_1(network_returns),
        wall_seconds=wall,
        cpu_seconds=cpu,
    )


def _train(training: PolicyTraining, rounds: Sequence[int], report: Report, journal: SymbolJournal) -> None:
    """Train in rounds of so many episodes; what the journal holds of them is not trained again."""
    progress = journal.progress(CONTROL)
    if progress is not None:
        training.load_state(progress.state)
    finished = 0 if progress is None else progress.attempt + progress.is_trained
    for number, episodes in enumerate(rounds[finished:], start=finished):

        def keep(state: dict[str, Any], *, is_trained: bool = False, number: int = number) -> None:
            journal.keep_progress(CONTROL, number, state, is_trained=is_trained)

        training.train(episodes, report, keep=keep)
        keep(training.state(), is_trained=True)
