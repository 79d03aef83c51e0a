"""Any algorithm of Stable-Baselines3 on our vector environment, and its model through our backtest.

Two functions: `training_env` gives the environment, `backtest_model` the report. How to use them: `docs/how-to/sb3.md`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rl.apps.commands.symbols import (
    KnownSymbols,
    bring_up_to_date,
    chosen_symbols,
    instrument_of,
    known_symbols,
)
from rl.backtest.config import load_backtest_config
from rl.backtest.configured_result import configured_result, data_quality
from rl.backtest.engine import Replay, replay_actions
from rl.backtest.result import SymbolResult, portfolio_figures
from rl.common.errors import StagegateError, UsageError
from rl.envs.scaled_market import scaled_market
from rl.envs.vector_env import VectorTradingEnv
from rl.features.processed_store import load_processed
from rl.features.scaler import FeatureScaler
from rl.market.instruments import FoundInstrument, load_instruments
from rl.reporting.backtest_report import HowMade, checked_report_files, text_report, write_reports
from rl.stages.backtest_looks import conclude_look, count_look, dated_windows, todays_rules, usable_window
from rl.stages.evaluation import iso_utc
from rl.stages.evidence import LEDGER_NAME, EvidenceLedger
from rl.stages.plan import load_plan
from rl.stages.symbol_data import SymbolData, prepare
from rl.stages.trials import trials_of
from rl.trading.kernel import HOLD
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from rl.envs.sb3_vec_env import SB3VecEnv

PLAN_FILE = Path("config/training_sequence.yaml")
BACKTEST_FILE = Path("config/backtest.yaml")
RAW, PROCESSED, REPORTS = Path("data/raw"), Path("data/processed"), Path("reports")

FLAT = 1
"""Of the action scheme `target`."""


@dataclass(frozen=True, kw_only=True)
class SB3Facts:
    """What a model of Stable-Baselines3 was trained on; the same things a checkpoint holds."""

    symbol: str
    feature_names: tuple[str, ...]
    scaler: dict[str, Any]
    action_scheme: str
    trading: dict[str, Any]
    """`rules` of training."""
    splits: dict[str, Any]
    """First and last close of every window, and `data_end`."""
    data_hash: str
    plan: dict[str, Any]
    window: str
    """The window it could see."""


def training_env(
    symbol: str,
    *,
    window: Literal["train", "validation"] = "train",
    num_envs: int = 8,
    episode_bars: int | None = None,
    continuous: bool = False,
    plan: Path | str = PLAN_FILE,
    overrides: Sequence[str] = (),
    instruments: Sequence[Path] = (),
    raw_data_dir: Path | str = RAW,
    processed_data_dir: Path | str = PROCESSED,
) -> SB3VecEnv:
    """Return accounts that trade one window of a symbol, for an algorithm of Stable-Baselines3.

    The windows, features, scaler, costs and reward are those `run_training.py` would use. A new or changed raw file is
    processed first.

    Args:
        symbol: Name of the raw file without its ending.
        window: `train`, or `validation` for an evaluation callback. The other two are not for training or choosing.
        num_envs: Accounts side by side, each on bars of its own.
        episode_bars: Decisions per episode; the plan's where None.
        continuous: Actions from -1 to 1 for algorithms without discrete ones; see `SB3VecEnv`.
        plan: The plan file.
        overrides: `KEY=VALUE` settings that win over it.
        instruments: Files of instruments beside the shipped one.
        raw_data_dir: Raw files.
        processed_data_dir: Processed files.

    Raises:
        MissingPackageError: Stable-Baselines3 is not installed.
        UsageError: The window is closed to training.
        DataError: There is no such symbol, or its file is bad.
    """
    from rl.envs.sb3_vec_env import SB3VecEnv

    if window not in ("train", "validation"):
        raise UsageError(
            f"window '{window}' is closed to training: what has seen it can no longer be judged on it. Train on "
            "'train', choose on 'validation'; backtest_model opens 'test' and counts the look"
        )
    whole = load_plan(Path(plan), overrides=overrides)
    found, processed_dir = _brought_up_to_date(symbol, instruments, raw_data_dir, processed_data_dir)
    own = whole.for_symbol(symbol)
    data = prepare(symbol, own, found, processed_dir)
    lanes = VectorTradingEnv(
        data.market,
        [data.window(window)],
        [data.rules],
        num_envs=num_envs,
        episode_bars=episode_bars or own.environment.episode_bars,
        scheme=own.environment.action_scheme,
        capital=own.environment.initial_capital,
    )
    facts = _facts(data, own.as_dict(), own.environment.action_scheme, window)
    return SB3VecEnv(lanes, continuous=continuous, facts=vars(facts))


def backtest_model(
    model: BaseAlgorithm,
    *,
    split: Literal["test", "validation", "train"] = "test",
    report_files: Sequence[Path | str] = (),
    config: Path | str = BACKTEST_FILE,
    instruments: Sequence[Path] = (),
    raw_data_dir: Path | str = RAW,
    processed_data_dir: Path | str = PROCESSED,
    reports_dir: Path | str = REPORTS,
) -> SymbolResult:
    """Let a model trade a window through the kernel of every other backtest, and report it the same way.

    It takes its most probable action at every bar. A look at the test window is counted in the evidence ledger, and
    what it showed is a trial, as for any model.

    Args:
        model: Trained on `training_env`, or loaded from a file it was saved to.
        split: Which of its windows.
        report_files: Reports, by their endings .txt, .json or .html.
        config: Settings of the backtest.
        instruments: Files of instruments beside the shipped one.
        raw_data_dir: Raw files.
        processed_data_dir: Processed files.
        reports_dir: Where the ledger lies.

    Raises:
        MissingPackageError: Stable-Baselines3 is not installed.
        UsageError: The model was not trained on `training_env`, or the window is not one to backtest on.
        DataError: The symbol's data are gone or bad.
    """
    facts = _facts_of(model)
    if split not in ("test", "validation", "train"):
        raise UsageError(
            f"split '{split}' cannot be opened for this model; it is test, validation or train. The promotion window "
            "belongs to the promotion of run_training.py, which a model from elsewhere does not face"
        )
    files = [Path(file) for file in report_files]
    checked_report_files(files)
    settings = load_backtest_config(Path(config))
    found, processed_dir = _brought_up_to_date(facts.symbol, instruments, raw_data_dir, processed_data_dir)
    processed = load_processed(facts.symbol, processed_dir)
    bars = processed.bars
    scaler = FeatureScaler.from_dict(facts.scaler)
    market = scaled_market(bars, processed.features, facts.feature_names, scaler)
    rules, notes = todays_rules(facts, found)
    window, seen = usable_window(facts, bars, market, split)
    capital = settings.initial_capital
    ledger = EvidenceLedger(Path(reports_dir) / LEDGER_NAME)
    name = type(model).__name__
    look = None
    if split == "test":
        subject = f"{_fingerprint(model)} {rules.fingerprint()} {capital!r}"
        look = count_look(ledger, bars, "test", window, subject=subject, stage=f"sb3 {name}")
    replay = replay_model(model, market, window, rules, scheme=facts.action_scheme, capital=capital)
    if look is not None:
        conclude_look(ledger, facts.symbol, look, replay, market, by_itself=True)
    if processed.meta["data_hash"] != facts.data_hash:
        notes.append(
            "the raw file has changed since this model was trained; windows are found by their dates"
        )
    trials = trials_of(ledger, facts.symbol)
    result = configured_result(
        replay,
        bars=bars,
        market=market,
        rules=rules,
        scheme=facts.action_scheme,
        config=settings,
        instrument=found,
        model=_model_facts(name, facts),
        split=split,
        seen=seen,
        looks=look.attempt if look else None,
        trials=trials.count,
        trial_variance=trials.sharpe_variance,
        notes=notes,
        background={
            "windows": dated_windows(facts, bars),
            "data_quality": data_quality(processed.meta),
            "plan": facts.plan,
        },
    )
    how = HowMade(command=f"backtest_model({name}, split={split!r})", config=settings.model_dump(mode="json"))
    write_reports(files, [result], portfolio_figures([result]), how)
    return result


def report_of(result: SymbolResult) -> str:
    """Return the text report of a backtest."""
    return text_report([result], portfolio_figures([result]))


def replay_model(
    model: BaseAlgorithm,
    market: MarketArrays,
    window: tuple[int, int],
    rules: TradingRules,
    *,
    scheme: str,
    capital: float,
) -> Replay:
    """Let a model's most probable actions trade a window.

    The model is asked bar by bar in one account of the vector environment, for what it sees depends on what it holds;
    its actions are then replayed by the engine of every backtest, which has to come to the same equity.

    Args:
        model: Of Stable-Baselines3.
        market: The symbol's arrays, scaled as in training.
        window: First decision bar and the row after the last.
        rules: Costs and limits.
        scheme: The action scheme.
        capital: Starting capital.

    Raises:
        UsageError: The model sees another number of inputs than the market has.
    """
    from gymnasium.spaces import Box

    from rl.envs.sb3_vec_env import sides_of

    steps = window[1] - window[0] - 1
    lane = VectorTradingEnv(
        market, [window], [rules], num_envs=1, episode_bars=steps, scheme=scheme, capital=capital
    )
    if model.observation_space.shape != lane.single_observation_space.shape:
        raise UsageError(
            f"the model sees {model.observation_space.shape} numbers, the market has "
            f"{lane.single_observation_space.shape}; train it again on training_env"
        )
    continuous = isinstance(model.action_space, Box)
    actions = np.full(steps, FLAT if scheme == "target" else HOLD, dtype=np.int8)
    obs, _ = lane.reset(seed=0)
    for step in range(steps):
        chosen, _ = model.predict(obs, deterministic=True)
        actions[step] = sides_of(chosen, continuous=continuous)[0]
        obs, _, terminated, _, _ = lane.step(actions[step : step + 1])
        if terminated[0]:
            break
    return replay_actions(market, window, rules, actions, scheme=scheme, capital=capital)


def _brought_up_to_date(
    symbol: str, instruments: Sequence[Path], raw_data_dir: Path | str, processed_data_dir: Path | str
) -> tuple[FoundInstrument, Path]:
    """Process a symbol's raw file where that is due; return its instrument and the processed folder.

    Raises:
        StagegateError: What is wrong with the file.
    """
    raw_dir, processed_dir = Path(raw_data_dir), Path(processed_data_dir)
    known: KnownSymbols = known_symbols(raw_dir, processed_dir, raw_dir_was_given=raw_dir != RAW)
    (name,) = chosen_symbols([symbol], known, raw_dir)
    book = load_instruments(*instruments)
    problems: list[StagegateError] = []
    bring_up_to_date(
        [name],
        known,
        book,
        processed_dir,
        on_outcome=lambda _: None,
        on_problem=lambda _, error: problems.append(error),
    )
    if problems:
        raise problems[0]
    return instrument_of(name, book, known.raw), processed_dir


def _facts(data: SymbolData, plan: dict[str, Any], scheme: str, window: str) -> SB3Facts:
    return SB3Facts(
        symbol=data.symbol,
        feature_names=data.feature_names,
        scaler=data.scaler.to_dict(),
        action_scheme=scheme,
        trading={"rules": data.rules.as_dict()},
        splits={
            **data.splits.boundaries,
            "embargo_bars": data.embargo_bars,
            "data_end": iso_utc(int(data.bars.close_time[-1])),
        },
        data_hash=data.data_hash,
        plan=plan,
        window=window,
    )


def _facts_of(model: BaseAlgorithm) -> SB3Facts:
    from rl.envs.sb3_vec_env import MarketBox

    space = model.observation_space
    if not isinstance(space, MarketBox) or not space.facts:
        raise UsageError(
            "this model does not say on which symbol, features and windows it was trained, so nobody could tell which "
            "bars it has not seen; train it on the environment that rl.apps.sb3.training_env returns"
        )
    return SB3Facts(**space.facts)


def _fingerprint(model: BaseAlgorithm) -> str:
    """Return a hash of a model's weights."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, tensor in sorted(model.policy.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()


def _model_facts(name: str, facts: SB3Facts) -> dict[str, Any]:
    return {
        "file": f"a model of Stable-Baselines3's {name}",
        "stage": f"sb3 {name}",
        "verdict": None,
        "verdict_text": "trained outside the gates, not promoted",
        "promoted": False,
        "headline": f"No gate has judged this model: Stable-Baselines3 trained it on the {facts.window} window.",
        "data_hash": facts.data_hash,
    }
