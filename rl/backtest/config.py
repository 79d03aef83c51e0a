"""Settings of a backtest: every key of `config/backtest.yaml`, checked, with that file's defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from rl.common.strict_config import (
    Finding,
    LoadedYaml,
    Setting,
    StrictModel,
    apply_options,
    apply_overrides,
    load_yaml,
    origins,
    validate,
)


class ReportOptions(StrictModel):
    """What the report shows."""

    interval_confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Coverage of the intervals shown beside figures."""

    listed_trades: Annotated[int, Field(ge=0)] = 200
    """Trades listed per symbol, the latest ones; the actions file always holds all."""

    price_stretch: Literal["latest", "worst_trade", "best_trade", "worst_drawdown"] = "latest"
    """Which bars the HTML report draws with every entry and exit: the last with a closed trade, or those around the
    trade that lost or won most, or around the bottom of the deepest drawdown."""

    price_stretch_bars: Annotated[int, Field(ge=20, le=2000)] = 260
    """How many bars that picture shows at most."""


class BacktestConfig(StrictModel):
    """One backtest. A command-line option overrides a key only when given."""

    initial_capital: Annotated[float, Field(gt=0)] = 100_000.0
    """Capital of each symbol's account, in its instrument's currency."""

    split: Literal["test", "promotion", "validation", "train", "all"] = "test"
    """Which window of the checkpoint is replayed; all but `test` was seen in training or choosing."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Start of the random baselines' generators."""

    random_baseline_seeds: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Random traders of the same turnover the model is ranked among."""

    cost_frontier_bp: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        0.0,
        5.0,
        10.0,
        20.0,
        50.0,
    )
    """All-in costs per side, in basis points of the notional, at which the same actions are replayed."""

    report: ReportOptions = ReportOptions()

    def problems(self) -> Iterable[Finding]:
        """The cost frontier is read from left to right."""
        costs = self.cost_frontier_bp
        if any(left >= right for left, right in pairwise(costs)):
            shown = ", ".join(f"{cost:g}" for cost in costs)
            yield Finding(("cost_frontier_bp",), f"has to rise from each number to the next (got {shown})")


Given = Mapping[str, tuple[str, Any]]
"""Option and value of each key that has an option of its own, where it was given: `{"split": ("--split", "all")}`."""


def load_backtest_config(
    path: Path, *, overrides: Sequence[str] = (), given: Given | None = None
) -> BacktestConfig:
    """Read a backtest's settings; keys the file leaves out have the defaults above.

    Args:
        path: The file.
        overrides: `KEY=VALUE` settings that win over the file.
        given: Options that win over both.

    Raises:
        ConfigError: Every problem of file and overrides at once.
    """
    return validate(BacktestConfig, _read(path, overrides, given))


def backtest_settings(
    path: Path, *, overrides: Sequence[str] = (), given: Given | None = None
) -> list[Setting]:
    """Return every setting with its origin: default, file and line, `--set` or option."""
    loaded = _read(path, overrides, given)
    return origins(validate(BacktestConfig, loaded), loaded)


def _read(path: Path, overrides: Sequence[str], given: Given | None) -> LoadedYaml:
    return apply_options(apply_overrides(load_yaml(path), overrides), given or {})
