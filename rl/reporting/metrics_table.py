"""The figures of every update as rows of one table, under the names stable-baselines3 uses where it has one."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rl.common.runlog import LineFile
from rl.reporting.tables import csv_text

FILE_NAME = "metrics.csv"

KEYS = ("time", "symbol", "stage", "attempt")
"""First columns: when (UTC) and of what. Attempt counts from 1; 0 is the one network stage 2 is compared with."""

FIGURES = {
    "update": "time/iterations",
    "iteration": "time/iterations",
    "episodes": "time/episodes",
    "steps": "time/total_timesteps",
    "steps_per_second": "time/fps",
    "episode_return": "rollout/ep_rew_mean",
    "episode_length": "rollout/ep_len_mean",
    "episodes_ended": "rollout/episodes_ended",
    "support_reward": "rollout/support_reward",
    "query_reward": "rollout/query_reward",
    "loss": "train/loss",
    "policy_loss": "train/policy_gradient_loss",
    "query_loss": "train/policy_gradient_loss",
    "value_loss": "train/value_loss",
    "entropy": "train/entropy_loss",
    "approx_kl": "train/approx_kl",
    "kl_to_sampling": "train/approx_kl",
    "clip_fraction": "train/clip_fraction",
    "explained_variance": "train/explained_variance",
    "learning_rate": "train/learning_rate",
    "gradient_norm": "train/grad_norm",
    "policy_grad_norm": "train/grad_norm",
    "critic_grad_norm": "train/critic_grad_norm",
    "step_size_grad_norm": "train/step_size_grad_norm",
    "epochs_done": "train/n_epochs",
    "rolled_back": "train/rolled_back",
    "auxiliary_loss": "train/auxiliary_loss",
    "diversity": "train/expert_diversity",
    "balance": "train/expert_balance",
    "second_order": "train/second_order",
    "adaptation_kl": "train/adaptation_kl",
    "entropy_before": "train/entropy_before_adaptation",
    "entropy_after": "train/entropy_after_adaptation",
    "kl_coef": "train/kl_coef",
    "step_size_min": "train/step_size_min",
    "step_size_median": "train/step_size_median",
    "step_size_max": "train/step_size_max",
}
"""Figure of an update -> column. PPO and meta-learning have their own names for the same thing."""

CHECKS = {
    "mean_session_return": "eval/mean_session_return",
    "win_rate": "eval/win_rate",
    "profit_factor": "eval/profit_factor",
    "trades": "eval/trades",
    "adapted": "eval/adapted_growth",
    "unadapted": "eval/unadapted_growth",
}
"""Figure of a check on held-out bars -> column; filled in the row of the first update after a check."""

COLUMNS = (*KEYS, *dict.fromkeys(FIGURES.values()), *CHECKS.values())

NOT_SHOWN = frozenset({"episodes_this_call", "iterations_this_call"})
"""Figures that the table has under another name."""


class MetricRows:
    """Makes a row of each update; knows which check was shown already, so that none is shown twice."""

    def __init__(self) -> None:
        self._checked: dict[tuple[str, str, int], Any] = {}

    def row(
        self, symbol: str, stage: str, attempt: int, figures: Mapping[str, Any], at: datetime
    ) -> dict[str, Any]:
        """Return column -> value of one update; what is not known or not finite has no entry.

        Args:
            symbol: The symbol trained.
            stage: ppo, moe or maml.
            attempt: From 1; 0 for the network stage 2 is compared with.
            figures: What the learner reported, with the newest check under `validation` or `meta_validation`.
            at: When.
        """
        found: dict[str, Any] = {
            "time": at.astimezone(UTC).isoformat(timespec="milliseconds"),
            "symbol": symbol,
            "stage": stage,
            "attempt": attempt,
        }
        numbers = {FIGURES[name]: value for name, value in figures.items() if name in FIGURES}
        if "train/entropy_loss" in numbers:
            # As stable-baselines3 has it: the loss falls as entropy rises.
            numbers["train/entropy_loss"] = -numbers["train/entropy_loss"]
        check = figures.get("validation") or figures.get("meta_validation") or {}
        of, when = (symbol, stage, attempt), check.get("episodes", check.get("iteration"))
        if check and self._checked.get(of, math.nan) != when:
            self._checked[of] = when
            numbers |= {CHECKS[name]: value for name, value in check.items() if name in CHECKS}
        found |= {
            name: value
            for name, value in numbers.items()
            # An infinite one is a text where it comes from events.jsonl.
            if isinstance(value, int | float) and math.isfinite(value)
        }
        return found


class MetricsTable:
    """`metrics.csv` of a run, a row appended for every update; processes side by side share it."""

    def __init__(self, folder: Path) -> None:
        """Open the table of a run's folder.

        Raises:
            StorageError: It cannot be made or written to.
        """
        self._file = LineFile(folder / FILE_NAME, ",".join(COLUMNS))
        self._rows = MetricRows()

    def add(self, symbol: str, stage: str, attempt: int, figures: Mapping[str, Any]) -> None:
        """Append the row of one update.

        Raises:
            StorageError: The disk refuses.
        """
        row = self._rows.row(symbol, stage, attempt, figures, datetime.now(UTC))
        text = io.StringIO()
        cells = (csv_text(str(row[name])) if name == "symbol" else row.get(name, "") for name in COLUMNS)
        csv.writer(text, lineterminator="").writerow(cells)
        self._file.append(text.getvalue())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
