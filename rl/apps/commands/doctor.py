"""`python -m rl doctor`: can this installation be trusted with a training run?"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numba
import numpy as np
import torch

from rl import __version__
from rl.apps.commands.raw_data_check import raw_file_states
from rl.apps.commands.symbols import symbols_of
from rl.backtest.engine import replay_actions
from rl.backtest.lookahead import check_lookahead
from rl.backtest.lookahead_chain import observed
from rl.backtest.planted_leaks import LEAKS
from rl.checkpoints.checkpoint import OLDEST_SAFE_TORCH
from rl.common.errors import DATA, OK, UNEXPECTED
from rl.common.printable import printable
from rl.common.seeding import generator
from rl.envs.scaled_market import fitted_scaler, scaled_market
from rl.features.pipeline import compute_features
from rl.market.checks import counted
from rl.market.instruments import Instrument, load_instruments
from rl.market.raw_table import RawTable, read_table
from rl.market.synthetic import generate, to_bars, write_raw_csv
from rl.stages.known_answer import KnownMarket, Learned, learn
from rl.stages.known_answer_stages import KnownAnswer
from rl.stages.plan import Plan
from rl.trading.kernel import ACTION_COUNTS
from rl.trading.rules import TradingRules

SYMBOL = "SYN_planted_2"
SESSIONS = 40
CUTS = 10
CUTS_PER_LEAK = 6

KERNEL_STEPS = 300
KERNEL_ACCOUNTS = 8

LEARNING_STEPS = 330_000
LEARNING_SHARE = 0.85
"""Share of the best policy's earnings that a sound installation reaches, the same that the learning tests ask for."""

CONTROL_STEPS = 100_000
CONTROL_BP = 0.05
"""Most that is earned a bar on unseen bars by who learned from features in random order."""

MIXTURE_STEPS = 200_000
MIXTURE_SHARE = 0.70
"""Less than of PPO: the mixture begins without a parent, and learns for a short time."""

ADAPTED_SHARE = 0.60
UNADAPTED_SHARE = 0.30
"""A few steps on 935 bars take an untrained network from around nothing to most of what the best policy earns."""

PACKAGES = ("torch", "numpy", "numba", "pandas", "gymnasium", "scipy", "TA-Lib", "pyarrow")


@dataclass(frozen=True)
class Diagnosis:
    """What one check found."""

    name: str
    is_well: bool
    figure: str

    def line(self, seconds: float) -> str:
        """Return it as one line."""
        return f"{'ok' if self.is_well else 'FAILED':<7} {self.name:<16} {self.figure}   ({seconds:.1f} s)"


def examine(options: argparse.Namespace) -> int:
    """Run every check, print a line for each, and return OK only if all is well."""
    # First, since a mistake in them has nothing to do with the installation.
    book, known = load_instruments(*options.instruments), symbols_of(options)
    show = _Printed(as_json=options.json, quiet=options.quiet)
    show.text(f"Stagegate {__version__}, {platform.platform()}")
    failed = []
    for check in _checks(skip_learning=options.skip_learning):
        begun = time.perf_counter()
        found = check()
        seconds = time.perf_counter() - begun
        show.line(found.line(seconds), "installation", found.name, found.figure, is_well=found.is_well)
        failed += [] if found.is_well else [found.name]
    refused = []
    for state in raw_file_states(known, book):
        word = "ok" if state.is_well else "refused"
        show.line(
            f"{word:<7} {state.symbol:<16} {state.figure}",
            "data",
            state.symbol,
            state.figure,
            is_well=state.is_well,
        )
        refused += [] if state.is_well else [state.symbol]
    for note in known.notes():
        show.text(f"        data             {note}")
    if not known.raw and not known.unusable:
        show.text(f"        data             {options.raw_data_dir} holds no price file, so none was read")
    if failed:
        print(f"FAILED: {', '.join(failed)}. Do not trust models or reports made here.", file=sys.stderr)
        return UNEXPECTED
    if refused:
        text = (
            f"the installation is well, but {counted(len(refused), 'raw file')} refused: {', '.join(refused)}"
        )
        print(printable(text), file=sys.stderr)
        return DATA
    if not options.json:
        print("all is well" + (" (learning was not checked)" if options.skip_learning else ""))
    return OK


@dataclass(frozen=True, kw_only=True)
class _Printed:
    """What is shown of the checks: every line, only what is not well, or a JSON object for each."""

    as_json: bool
    quiet: bool

    def text(self, text: str) -> None:
        if not (self.as_json or self.quiet):
            print(printable(text), flush=True)

    def line(self, text: str, part: str, name: str, figure: str, *, is_well: bool) -> None:
        if self.as_json:
            found = {"part": part, "name": name, "is_well": is_well, "figure": figure}
            print(printable(json.dumps(found, ensure_ascii=False)), flush=True)
        elif not (self.quiet and is_well):
            print(printable(text), flush=True)


def _checks(*, skip_learning: bool) -> Iterator[Callable[[], Diagnosis]]:
    yield versions
    yield threads
    with tempfile.TemporaryDirectory(prefix="stagegate-doctor-") as folder:
        path = Path(folder) / f"{SYMBOL}.csv"
        write_raw_csv(generate("planted", SESSIONS, 3), path)
        table, instrument = read_table(path), load_instruments().find(SYMBOL).instrument
        yield lambda: look_ahead(table, path, instrument)
        yield lambda: planted_leaks(table, path, instrument)
    yield one_kernel
    if not skip_learning:
        yield fast_signal
        yield weak_signal
        yield control
        yield mixture
        yield adaptation


def versions() -> Diagnosis:
    """Say which versions are installed; torch has to be one that loads model files safely."""
    installed = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    release = tuple(int(part) for part in version("torch").split("+")[0].split(".")[:2])
    oldest = ".".join(str(part) for part in OLDEST_SAFE_TORCH)
    is_safe = release >= OLDEST_SAFE_TORCH
    figure = f"Python {platform.python_version()}, {installed}"
    return Diagnosis(
        "versions", is_safe, figure if is_safe else f"{figure}; torch has to be {oldest} or newer"
    )


def threads() -> Diagnosis:
    """Say how many threads sums are spread over; with more than one, runs cannot be repeated bit for bit."""
    counts = {"torch": torch.get_num_threads(), "numba": numba.get_num_threads()}
    figure = ", ".join(f"{name} {count}" for name, count in counts.items())
    return Diagnosis("threads", set(counts.values()) == {1}, f"{figure} (1 each is needed)")


def look_ahead(table: RawTable, path: Path, instrument: Instrument) -> Diagnosis:
    """Check every step from raw file to verdict on a made-up market."""
    report = check_lookahead(table, path, SYMBOL, instrument, cuts=CUTS)
    tests = sum(finding.tests for finding in report.findings)
    names = [finding for finding in report.findings if finding.warm_up_bars is not None]
    slow = [finding.item for finding in names if finding.verdict != "clean"]
    figure = f"{tests:,} comparisons at {CUTS} cuts, {len(names)} features"
    if report.faults:
        figure += "; " + "; ".join(f"{fault.piece}, {fault.item}: {fault.remark}" for fault in report.faults)
    elif slow:
        figure += f"; not clean: {', '.join(slow)}"
    else:
        figure += ", no difference"
    return Diagnosis("look-ahead", not report.faults and not slow, figure)


def planted_leaks(table: RawTable, path: Path, instrument: Instrument) -> Diagnosis:
    """Check that the same check catches every planted leak, and blames the step that makes it."""
    missed = []
    for name, leak in LEAKS.items():
        spoiled = leak.spoil(table) if leak.spoil else table
        report = check_lookahead(spoiled, path, SYMBOL, instrument, chain=leak.chain, cuts=CUTS_PER_LEAK)
        missed += [] if report.guilty_pieces == (leak.piece,) else [name]
    figure = f"{len(LEAKS) - len(missed)} of {len(LEAKS)} caught"
    return Diagnosis("planted leaks", not missed, figure + (f"; not: {', '.join(missed)}" if missed else ""))


def one_kernel() -> Diagnosis:
    """Let both environments and the backtest trade the same random actions, and compare every bit."""
    bars = to_bars(generate("noise_garch", 4, 11), "SYN_noise_garch_2")
    table = compute_features(bars, load_instruments().find(bars.symbol).instrument)
    scaler = fitted_scaler(table, table.names, np.arange(len(bars)), bars.symbol)
    market = scaled_market(bars, table, table.names, scaler)
    rules = TradingRules(
        commission_rate=1e-4, slippage_rate=1e-4, stop_loss=1.0, take_profit=2.0, bar_volatility=6e-4
    )
    first = int(np.argmax(table.usable))
    window = first, first + KERNEL_STEPS + 1
    compared, differing = 0, []
    for scheme, count in ACTION_COUNTS.items():
        actions = generator(0, "doctor", "one kernel", scheme).integers(
            0, count, (KERNEL_STEPS, KERNEL_ACCOUNTS)
        )
        lived = observed(market, window, rules, actions, scheme=scheme)
        for account in range(KERNEL_ACCOUNTS):
            replay = replay_actions(market, window, rules, actions[:, account], scheme=scheme)
            paths = [("vector environment", lived["rewards"][:, account], lived["equity"][:, account])]
            if account == 0:
                paths.append(("single environment", lived["single rewards"], lived["single equity"]))
            for name, rewards, equity in paths:
                compared += len(rewards)
                is_equal = (
                    rewards.tobytes() == replay.rewards.tobytes()
                    and equity.tobytes() == replay.equity[1:].tobytes()
                )
                differing += [] if is_equal else [f"{name}, {scheme}, account {account}"]
    figure = f"{compared:,} steps of both environments equal the backtest bit for bit"
    if differing:
        figure = f"the backtest differs from: {'; '.join(differing)}"
    return Diagnosis("one kernel", not differing, figure)


def fast_signal() -> Diagnosis:
    """Train PPO on a market that reverts from bar to bar: costs decide how much of it is worth taking."""
    learned = learn("ar1", cost_bp=0.5, steps=LEARNING_STEPS, seed=0, phi=-0.3)
    return _share_of_best("PPO, fast signal", "PPO", learned, LEARNING_SHARE)


def weak_signal() -> Diagnosis:
    """Train PPO on a market in which one of forty features explains 2 % of the next bar."""
    learned = learn("planted", cost_bp=0.5, steps=LEARNING_STEPS, seed=0)
    return _share_of_best("PPO, weak signal", "PPO", learned, LEARNING_SHARE)


def control() -> Diagnosis:
    """Train PPO on features in random order; whoever still earns has seen the answers."""
    learned = learn("planted", cost_bp=0.5, steps=CONTROL_STEPS, seed=0, shuffle_features=True)
    figure = f"features shuffled in training: {learned.earned:.3f} bp a bar (at most {CONTROL_BP:.2f})"
    return Diagnosis("control", learned.earned <= CONTROL_BP, figure)


def mixture() -> Diagnosis:
    """Train a mixture from scratch, as stage 2 trains it, on a market whose best policy is known."""
    trial = KnownAnswer(KnownMarket(kind="planted", cost_bp=0.5), Plan(), seed=0)
    learned = trial.learned(trial.moe(None, MIXTURE_STEPS))
    return _share_of_best("mixture", "the mixture", learned, MIXTURE_SHARE)


def adaptation() -> Diagnosis:
    """Adapt an untrained network to a few bars as stage 3 does before use, and let it trade those after them."""
    known = KnownMarket(kind="ar1", cost_bp=0.5, params={"phi": -0.3})
    trial = KnownAnswer(known, Plan(), seed=0)
    start = trial.random_start()
    before, after = trial.unadapted(start).share, trial.learned(start).share
    assert start.recipe is not None
    figure = (
        f"{start.recipe.config.inner_loop_steps} steps on {start.recipe.support_bars} bars take an untrained network "
        f"from {before:.2f} (at most {UNADAPTED_SHARE:.2f}) to {after:.2f} of the best policy (at least "
        f"{ADAPTED_SHARE:.2f})"
    )
    return Diagnosis("adaptation", after >= ADAPTED_SHARE and before <= UNADAPTED_SHARE, figure)


def _share_of_best(name: str, who: str, learned: Learned, least: float) -> Diagnosis:
    figure = (
        f"{who} earns {learned.earned:.3f} bp a bar on unseen bars, {learned.share:.2f} of the best policy "
        f"(at least {least:.2f})"
    )
    return Diagnosis(name, learned.share >= least, figure)
