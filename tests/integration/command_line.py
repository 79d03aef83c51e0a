"""The commands as a user runs them, without the cost of a new interpreter each time, and plans small enough to test."""

from __future__ import annotations

import contextlib
import io
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import rl.__main__
import run_backtest
import run_training

ROOT = Path(__file__).resolve().parents[2]
PLAN = ROOT / "config" / "training_sequence.yaml"
SETTINGS = ROOT / "config" / "backtest.yaml"

TINY = (
    "training_params.ppo.num_envs=8",
    "training_params.ppo.rollout_steps=32",
    "training_params.ppo.batch_size=128",
    "training_params.ppo.k_epochs=2",
    "training_params.ppo.hidden_dim=8",
    "training_params.moe.expert_hidden_dim=8",
    "training_params.moe.gating_hidden_dim=4",
    "training_params.moe.fresh_start_if_collapsed=false",
    "training_params.maml.support_steps=32",
    "training_params.maml.query_steps=32",
    "training_params.maml.inner_loop_steps=2",
    "training_params.maml.evaluation_steps=2",
    "training_params.maml.support_sessions=1",
    "training_params.maml.query_sessions=1",
    "training_sequence.stage_1_ppo.episodes=6",
    "training_sequence.stage_2_moe.episodes=4",
    "training_sequence.stage_3_maml.meta_iterations=1",
    "training_sequence.stage_3_maml.success_criteria.min_adaptation_speed=2",
    "progression_rules.advancement_criteria.stage_1_to_2.min_episodes=0",
    "progression_rules.advancement_criteria.stage_2_to_3.min_episodes=0",
    "progression_rules.fallback_strategies.extend_training=false",
    "progression_rules.fallback_strategies.hyperparameter_tuning=false",
    "model_management.keep_best_models=false",
    "monitoring.checkpoint_frequency=3",
    "environment.episode_bars=100",
    # Too few sessions for a verdict, so that every stage is trained whatever it earns.
    "evidence.min_sessions=1000",
)
"""The shipped plan, small enough to run through all three stages in a second or two."""


@dataclass(frozen=True)
class Finished:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Workplace:
    """Folders of one user."""

    root: Path

    @property
    def raw(self) -> Path:
        """Raw files."""
        return self.root / "raw"

    @property
    def processed(self) -> Path:
        """Processed files."""
        return self.root / "processed"

    @property
    def models(self) -> Path:
        """Models."""
        return self.root / "models"

    @property
    def reports(self) -> Path:
        """Reports."""
        return self.root / "reports"

    def folders(self) -> list[str]:
        """Return the folder options of every command."""
        named = {
            "--raw-data-dir": self.raw,
            "--processed-data-dir": self.processed,
            "--models-dir": self.models,
            "--reports-dir": self.reports,
        }
        return [word for option, folder in named.items() for word in (option, str(folder))]

    def written(self) -> set[str]:
        """Return the names of all files a model or processed folder holds, without locks, which say nothing."""
        found = [
            path for folder in (self.processed, self.models) for path in folder.rglob("*") if path.is_file()
        ]
        return {str(path.relative_to(self.root)) for path in found if path.suffix != ".lock"}

    def synth(self, symbol: str, market: str = "planted", *, sessions: int = 40, seed: int = 7) -> Path:
        """Write a made-up market as a raw file."""
        path = self.raw / f"{symbol}.csv"
        done = finished(
            rl.__main__.main,
            [
                "synth",
                "--market",
                market,
                "--sessions",
                str(sessions),
                "--seed",
                str(seed),
                "--out",
                str(path),
            ],
        )
        assert done.code == 0, done.err
        return path

    def train(self, *arguments: str, settings: Sequence[str] = (), base: Sequence[str] = TINY) -> Finished:
        """Run `run_training.py` with these arguments and the settings of `base` and `settings`."""
        plan = [] if "--config" in arguments else ["--config", str(PLAN)]
        overrides = [word for setting in (*base, *settings) for word in ("--set", setting)]
        return finished(run_training.main, [*self.folders(), *plan, *overrides, *arguments])

    def backtest(self, *arguments: str) -> Finished:
        """Run `run_backtest.py`."""
        config = [] if "--config" in arguments else ["--config", str(SETTINGS)]
        return finished(run_backtest.main, [*self.folders(), *config, *arguments])

    def gate(self, *arguments: str) -> Finished:
        """Run `python -m rl gate`."""
        return finished(rl.__main__.main, ["gate", *self.folders()[4:], *arguments])

    def process(self, *arguments: str) -> Finished:
        """Run `python -m rl process`."""
        return finished(rl.__main__.main, ["process", *self.folders()[:4], *arguments])


def finished(main: Callable[[list[str]], int], arguments: list[str]) -> Finished:
    """Run a command's `main` and return its exit code and output."""
    out, err = io.StringIO(), io.StringIO()
    # A command takes over SIGTERM for its process; this process is the test run's.
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
    except SystemExit as exit_:  # argparse ends this way
        code = int(exit_.code or 0)
    finally:
        signal.signal(signal.SIGTERM, on_terminate)
    return Finished(code, out.getvalue(), err.getvalue())
