"""What a sequence leaves behind: one record per stage and per symbol, and who hears of them on the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rl.stages.gates import ChampionDecision, Verdict
from rl.stages.mixture_control import MixtureControl
from rl.stages.stage_model import StageModel


class Listener(Protocol):
    """Who hears what a sequence does: console, log, tests."""

    def stage_started(
        self, symbol: str, stage: str, total: int, unit: str, why: str, attempt: int = 1
    ) -> None:
        """A stage, or another attempt at it, begins; attempt 0 is a network to compare with, and no candidate."""

    def progressed(self, symbol: str, stage: str, figures: dict[str, Any]) -> None:
        """One update was done."""

    def judged(
        self,
        symbol: str,
        stage: str,
        verdict: Verdict,
        seconds: float,
        cpu_seconds: float,
        attempts: int = 1,
    ) -> None:
        """A stage is over, after so many attempts."""

    def said(self, symbol: str, text: str) -> None:
        """Something else is worth a line."""


@dataclass(frozen=True, kw_only=True)
class StageOutcome:
    """One stage as it ended."""

    stage: str
    model: StageModel
    verdict: Verdict
    attempts: tuple[Verdict, ...]
    """Every verdict on the way, the deciding one last."""
    file: Path
    wall_seconds: float
    cpu_seconds: float
    validation: dict[str, Any]
    """Figures of the greedy policy on the validation window."""
    champion: ChampionDecision | None
    """How it compared with the champion before it; None for the first."""
    control: MixtureControl | None = None
    """Stage 2 beside one network of as many parameters; its seconds are not part of the stage's."""


@dataclass(frozen=True, kw_only=True)
class SymbolOutcome:
    """What came of one symbol."""

    symbol: str
    stages: tuple[StageOutcome, ...]
    champion: str | None
    champion_file: Path | None = None
    """The stage file the champion lies in; the final model is made from it."""
    promotion: Verdict | None
    """On its own when the sequence ends; among all symbols of the run once `settle_promotions` has settled it."""
    final_file: Path | None
    """None until the promotions of the run are settled, and where none was written."""
    stopped: str | None
    """Which gate kept a later stage from being trained; None where no gate did."""
    impossible: str | None
    """Which stage could not be trained for want of data, and why."""
    notes: tuple[str, ...]
    windows: dict[str, tuple[str, str, int]]
    """First label, last label and number of sessions of each window."""
    bars: int
    features: int
    seconds: float

    @property
    def gate_stopped(self) -> bool:
        """True where a gate ended the sequence."""
        return self.stopped is not None

    @property
    def settled(self) -> bool:
        """True where the promotion was decided among all symbols of the run."""
        return self.promotion is not None and "family" in self.promotion.context

    @property
    def promoted(self) -> bool:
        """True where the promotion was passed and the final model could be written."""
        return self.promotion is not None and self.promotion.passed and self.final_file is not None

    @property
    def everything_passed(self) -> bool:
        """True where every gate and the promotion were passed."""
        return (
            not self.gate_stopped
            and all(stage.verdict.passed for stage in self.stages)
            and self.promotion is not None
            and self.promotion.passed
        )
