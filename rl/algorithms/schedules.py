"""How a step size changes over a training run: four shapes, each with an optional warm-up."""

from __future__ import annotations

import math
from dataclasses import dataclass

SHAPES = ("constant", "linear", "exponential", "cosine")
"""Every shape by name."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The factor a step size is multiplied by, as a function of progress.

    With warm-up w the factor rises in a straight line from 0 at progress 0 to 1 at progress w; the shape then
    runs over what is left. Without, it starts at 1.
    """

    shape: str = "constant"
    """constant; linear (straight line to the end); exponential (equal ratios); cosine (half a wave)."""

    final_fraction: float = 0.05
    """Factor at progress 1; `constant` has no use for it. 0 is allowed except for exponential."""

    warm_up: float = 0.0
    """Share of the run spent on the rise, in [0, 1)."""

    def problems(self) -> list[str]:
        """Return everything wrong with these values, worded for whoever wrote the file."""
        found = []
        if self.shape not in SHAPES:
            found.append(f"schedule has to be one of {', '.join(SHAPES)}, but is {self.shape!r}")
        if not 0 <= self.final_fraction <= 1:
            found.append(f"schedule_final_fraction has to lie in [0, 1], but is {self.final_fraction}")
        elif self.shape == "exponential" and self.final_fraction == 0:
            found.append("schedule_final_fraction has to be above 0 for exponential: no ratio leads to 0")
        if not 0 <= self.warm_up < 1:
            found.append(f"warm_up has to lie in [0, 1), but is {self.warm_up}")
        return found

    def factor(self, progress: float) -> float:
        """Return the factor at this share of the run.

        Args:
            progress: 0 at the start, 1 at the end; what lies outside counts as the nearer of the two.
        """
        progress = min(1.0, max(0.0, progress))
        if progress < self.warm_up:
            return progress / self.warm_up
        rest = (progress - self.warm_up) / (1.0 - self.warm_up)
        final = self.final_fraction
        if self.shape == "linear":
            return 1.0 + rest * (final - 1.0)
        if self.shape == "exponential":
            return final**rest
        if self.shape == "cosine":
            return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * rest))
        return 1.0
