"""Which settings PPO learns best with, on markets whose best policy is known: `python -m benchmarks.ppo_settings`.

One setting at a time is changed around the shipped plan. A row's score is the mean over markets and seeds of the share
of the oracle's profit, net of costs, that the trained policy earns on unseen bars of another draw. The noise market has
no share, for its oracle stays flat: what is lost there stands in a column of its own.

Settings are chosen on seeds from 50 on; the seeds 0-4, by which the system is judged, are refused without --judged.
With --json the runs already in that file are not repeated, so that a long comparison can be done piece by piece.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.tuning_seeds import add_comparison_options, refuse_judged_seeds
from rl.common.atomic_files import write_json
from rl.common.threads import use_one_thread
from rl.stages.known_answer import learn
from rl.stages.plan import load_plan

PLAN = Path(__file__).resolve().parents[1] / "config" / "training_sequence.yaml"


@dataclass(frozen=True, kw_only=True)
class Market:
    """A market, its cost and how long PPO trains on it."""

    kind: str
    cost_bp: float
    steps: int
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_noise(self) -> bool:
        """True where nothing can be earned, so that there is no share of the best policy's profit."""
        return self.kind.startswith("noise")


MARKETS: dict[str, Market] = {
    "ar1": Market(kind="ar1", cost_bp=0.5, steps=330_000, params={"phi": -0.3}),
    "ou": Market(kind="ou", cost_bp=1.0, steps=330_000),
    "hamilton": Market(kind="hamilton", cost_bp=0.5, steps=330_000),
    "planted": Market(kind="planted", cost_bp=0.5, steps=330_000),
    "momrev": Market(kind="momrev", cost_bp=0.5, steps=655_000),
    "weak ar1": Market(kind="ar1", cost_bp=0.5, steps=330_000, params={"phi": -0.1}),
    "weak planted": Market(kind="planted", cost_bp=0.5, steps=330_000, params={"r2": 0.002, "rho": 0.98}),
    "moe_wide": Market(kind="moe_wide", cost_bp=0.25, steps=655_000),
    "moe4": Market(kind="moe4", cost_bp=0.25, steps=655_000),
    "moe_wide long": Market(kind="moe_wide", cost_bp=0.25, steps=2_621_440),
    "moe4 long": Market(kind="moe4", cost_bp=0.25, steps=2_621_440),
    "noise": Market(kind="noise_garch", cost_bp=0.5, steps=330_000),
}
USUAL_MARKETS = ("ou", "hamilton", "momrev", "weak ar1", "weak planted", "moe_wide", "noise")
"""Slow and fast, strong and weak, one signal and regimes; those left out are learned with every setting."""

SHIPPED = "as shipped"

RAW_REWARD = 6e-4
"""Weight of a reward that is a bar's return times the exposure: these markets' bars move by 6 bp."""


def _ppo(**changes: object) -> tuple[str, ...]:
    return tuple(f"training_params.ppo.{key}={value}" for key, value in changes.items())


SETTINGS: dict[str, tuple[str, ...]] = {
    SHIPPED: (),
    "learning rate .00025": _ppo(learning_rate=0.00025),
    "learning rate .0005": _ppo(learning_rate=0.0005),
    "learning rate .001": _ppo(learning_rate=0.001),
    "learning rate .002": _ppo(learning_rate=0.002),
    "schedule constant": _ppo(learning_rate_schedule="constant"),
    "schedule cosine": _ppo(learning_rate_schedule="cosine"),
    "entropy 0": _ppo(entropy_coef=0.0),
    "entropy .003": _ppo(entropy_coef=0.003),
    "entropy .03": _ppo(entropy_coef=0.03),
    "minibatch 256": _ppo(batch_size=256),
    "minibatch 1024": _ppo(batch_size=1024),
    "minibatch 2048": _ppo(batch_size=2048),
    "epochs 3": _ppo(k_epochs=3),
    "epochs 10": _ppo(k_epochs=10),
    "lanes 64 x 256 steps": _ppo(num_envs=64, rollout_steps=256),
    "lanes 128 x 64 steps": _ppo(num_envs=128),
    "lanes 512 x 32 steps": _ppo(num_envs=512, rollout_steps=32),
    "gamma .9": _ppo(gamma=0.9),
    "gamma .95": _ppo(gamma=0.95),
    "gamma .995": _ppo(gamma=0.995),
    "lambda 0": _ppo(gae_lambda=0.0),
    "lambda .3": _ppo(gae_lambda=0.3),
    "lambda .5": _ppo(gae_lambda=0.5),
    "lambda .8": _ppo(gae_lambda=0.8),
    "lambda .95": _ppo(gae_lambda=0.95),
    "clip .2": _ppo(clip_epsilon=0.2),
    "reward not scaled": (f"environment.reward.log_equity={RAW_REWARD}",),
}
"""Name of a row -> what it changes, as given to `--set`."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training and what it earned on unseen bars."""

    market: str
    setting: str
    changes: tuple[str, ...]
    plan: dict[str, object]
    """training_params.ppo as trained; a run of another default is another run."""
    seed: int
    steps: int
    earned_bp: float
    """Per bar, net of costs, basis points."""
    oracle_bp: float
    trades_per_session: float
    cpu_seconds: float

    @property
    def share(self) -> float:
        """Earned as a share of the best there is."""
        return self.earned_bp / self.oracle_bp


def measure(market: str, setting: str, seed: int) -> Run:
    """Train with one setting on one market with one seed."""
    chosen = MARKETS[market]
    plan = load_plan(PLAN, overrides=SETTINGS[setting])
    begun = time.process_time()
    learned = learn(
        chosen.kind, cost_bp=chosen.cost_bp, steps=chosen.steps, seed=seed, plan=plan, **chosen.params
    )
    return Run(
        market=market,
        setting=setting,
        changes=SETTINGS[setting],
        plan=plan.training_params.ppo.model_dump(mode="json"),
        seed=seed,
        steps=chosen.steps,
        earned_bp=learned.earned,
        oracle_bp=learned.oracle,
        trades_per_session=learned.trades_per_session,
        cpu_seconds=time.process_time() - begun,
    )


def read_runs(path: Path | None) -> list[Run]:
    """Return the runs of an earlier call, those only that today's shipped plan would repeat exactly."""
    if path is None or not path.exists():
        return []
    stored: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    for entry in stored:
        entry["changes"] = tuple(entry["changes"])
    runs = [Run(**entry) for entry in stored]
    return [run for run in runs if _is_of_this_plan(run)]


def _is_of_this_plan(run: Run) -> bool:
    if SETTINGS.get(run.setting) != run.changes or run.market not in MARKETS:
        return False
    plan = load_plan(PLAN, overrides=run.changes)
    return (
        run.plan == plan.training_params.ppo.model_dump(mode="json")
        and run.steps == MARKETS[run.market].steps
    )


def table(runs: Sequence[Run], markets: Sequence[str], settings: Sequence[str]) -> str:
    """Return the comparison as a Markdown table, the shipped settings first, then the best difference from them.

    A setting that was not run on every market has no row. Not every one has to have been run with every seed: the
    difference is taken between runs of equal market and seed.
    """
    paying = [market for market in markets if not MARKETS[market].is_noise]
    noise = [market for market in markets if MARKETS[market].is_noise]
    wanted = [run for run in runs if run.market in markets]
    rows = {setting: [run for run in wanted if run.setting == setting] for setting in settings}
    whole = {name: own for name, own in rows.items() if {run.market for run in own} == set(markets)}
    differences = {name: _differences(own, rows.get(SHIPPED, [])) for name, own in whole.items()}
    order = sorted(whole, key=lambda name: (name != SHIPPED, -fmean(differences[name] or [0.0])))
    losses = [f"{name}, bp/bar" for name in noise]
    heads = ["setting", "seeds", "mean share", "less shipped (SE)", *paying, *losses, "CPU s a run"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in order:
        own = whole[name]
        shares = [fmean(run.share for run in own if run.market == market) for market in paying]
        lost = [fmean(run.earned_bp for run in own if run.market == market) for market in noise]
        cells = [
            name,
            str(len({run.seed for run in own})),
            f"{fmean(shares):.3f}" if shares else "–",
            "–" if name == SHIPPED else _with_error(differences[name]),
            *(f"{share:.2f}" for share in shares),
            *(f"{loss:+.3f}" for loss in lost),
            f"{fmean(run.cpu_seconds for run in own):.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _differences(runs: Sequence[Run], shipped: Sequence[Run]) -> list[float]:
    """Return how much larger a share is than with the shipped settings, for each market and seed both were run with."""
    shares = {(run.market, run.seed): run.share for run in shipped if not MARKETS[run.market].is_noise}
    return [run.share - shares[run.market, run.seed] for run in runs if (run.market, run.seed) in shares]


def _with_error(differences: Sequence[float]) -> str:
    """Return their mean and its standard error."""
    if len(differences) < 2:
        return "–"
    return f"{fmean(differences):+.3f} ({stdev(differences) / len(differences) ** 0.5:.3f})"


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ppo_settings", description=__doc__.split("\n\n")[1]
    )
    parser.add_argument("--markets", nargs="+", default=USUAL_MARKETS, choices=MARKETS, metavar="MARKET")
    parser.add_argument("--settings", nargs="+", default=tuple(SETTINGS), choices=SETTINGS, metavar="SETTING")
    add_comparison_options(parser, seeds=[50, 51])
    options = parser.parse_args(argv)
    refuse_judged_seeds(parser, options)
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Do the runs that are missing, print the table, and return 0."""
    options = parse_options(argv)
    use_one_thread()
    runs = read_runs(options.json)
    done = {(run.setting, run.market, run.seed) for run in runs}
    for seed in options.seeds:
        for setting in options.settings:
            for market in options.markets:
                if (setting, market, seed) in done:
                    continue
                run = measure(market, setting, seed)
                runs.append(run)
                print(
                    f"{setting}, {market}, seed {seed}: {run.earned_bp:+.3f} of {run.oracle_bp:.3f} bp a bar, "
                    f"{run.trades_per_session:.1f} trades a session, {run.cpu_seconds:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )
                if options.json is not None:
                    write_json(options.json, [asdict(entry) for entry in runs])
    wanted = [run for run in runs if run.seed in options.seeds]
    print(table(wanted, options.markets, options.settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
