"""Does the mixture earn its name on a market of regimes: `python -m benchmarks.mixture_settings`.

Every arm is trained for as many steps in all, through the product's own stages, on a draw of 833 sessions of which the
shipped windows give 500 to training and 125 to the choice of weights; it is judged on 250 sessions of another draw.
Stage 1 alone; stage 1, then the mixture (diversity weight as shipped, 0 and 0.2); stage 1, then one network of as many
parameters.

Settings are chosen on seeds from 50 on; the seeds 0-4, by which the system is judged, are refused without --judged.
With --json the runs already in that file are not repeated, so that a long comparison can be done piece by piece.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.tuning_seeds import add_comparison_options, refuse_judged_seeds
from rl.common.atomic_files import write_json
from rl.common.threads import use_one_thread
from rl.policies.spec import parameter_count
from rl.stages.known_answer import KnownMarket
from rl.stages.known_answer_stages import KnownAnswer, Trained
from rl.stages.moe_stage import equal_parameter_training
from rl.stages.plan import Plan, load_plan

PLAN = Path(__file__).resolve().parents[1] / "config" / "training_sequence.yaml"

COST_BP = 0.25
TOTAL_STEPS = 2_600_000
PARENT_STEPS = 100_000
"""Of them spent on stage 1 before mixture and network grow out of it."""

PPO, MIXTURE, NETWORK, FRESH = "PPO", "mixture", "one network", "mixture, from random weights"
NO_DIVERSITY, MUCH_DIVERSITY = "mixture, diversity 0", "mixture, diversity 0.2"
ARMS: dict[str, tuple[str, ...]] = {
    PPO: (),
    MIXTURE: (),
    NETWORK: (),
    FRESH: ("model_management.transfer_learning=false",),
    NO_DIVERSITY: ("training_params.moe.diversity_loss_weight=0.0",),
    MUCH_DIVERSITY: ("training_params.moe.diversity_loss_weight=0.2",),
}
"""Name of an arm -> what it changes, as given to `--set`."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm with one seed, and what it earned on unseen bars."""

    market: str
    arm: str
    seed: int
    steps: int
    parent_steps: int
    settings: dict[str, Any]
    """training_params of PPO and mixture as trained; a run of another default is another run."""
    share: float
    """Earned as a share of the oracle's profit, net of costs."""
    trades_per_session: float
    parameters: int
    cpu_seconds: float
    """Of the training after stage 1, judging left out."""
    experts: dict[str, Any] | None
    """What the experts do on the validation window; None where there are none."""


def measure(market: str, arm: str, seed: int, steps: int, parent_steps: int) -> Run:
    """Train one arm with one seed."""
    plan = load_plan(PLAN, overrides=ARMS[arm])
    trial = KnownAnswer(KnownMarket(kind=market, cost_bp=COST_BP), plan, seed=seed)
    parent = None if arm == PPO else trial.ppo(parent_steps).model
    begun = time.process_time()
    if arm == PPO:
        trained = trial.ppo(steps)
    elif arm == NETWORK:
        training = equal_parameter_training(trial.data, plan, parent, seed=seed)
        episodes = round((steps - parent_steps) / plan.environment.episode_bars)
        trained = Trained(model=training.train(episodes, lambda _: None))
    else:
        trained = trial.moe(parent, steps - parent_steps)
    seconds = time.process_time() - begun
    learned = trial.learned(trained)
    is_mixture = trained.model.policy_spec["encoder"] == "mixture"
    return Run(
        market=market,
        arm=arm,
        seed=seed,
        steps=steps,
        parent_steps=parent_steps,
        settings=settings_of(plan),
        share=learned.share,
        trades_per_session=learned.trades_per_session,
        parameters=parameter_count(trained.model.policy_spec),
        cpu_seconds=seconds,
        experts=trial.experts(trained) if is_mixture else None,
    )


def settings_of(plan: Plan) -> dict[str, Any]:
    """Return what a run was trained by, as far as a plan may change it."""
    params = plan.training_params
    return {
        "ppo": params.ppo.model_dump(mode="json"),
        "moe": params.moe.model_dump(mode="json"),
        "transfer_learning": plan.model_management.transfer_learning,
    }


def read_runs(path: Path | None) -> list[Run]:
    """Return the runs of an earlier call, those only that today's shipped plan would repeat."""
    if path is None or not path.exists():
        return []
    runs = [Run(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    return [run for run in runs if run.settings == settings_of(load_plan(PLAN, overrides=ARMS[run.arm]))]


def table(runs: Sequence[Run], arms: Sequence[str]) -> str:
    """Return a Markdown table: a row for each arm, means over seeds, every seed's share."""
    heads = [
        "arm",
        "parameters",
        "share of oracle (SE)",
        "each seed",
        "less mixture (SE)",
        "trades a session",
        "CPU s",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for arm in arms:
        own = sorted((run for run in runs if run.arm == arm), key=lambda run: run.seed)
        if own:
            cells = [
                arm,
                f"{own[0].parameters:,}",
                _mean_and_error([run.share for run in own]),
                " ".join(f"{run.share:.3f}" for run in own),
                "–" if arm == MIXTURE else _mean_and_error(_paired(own, runs)),
                f"{fmean(run.trades_per_session for run in own):.0f}",
                f"{fmean(run.cpu_seconds for run in own):.0f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def experts_table(runs: Sequence[Run], arms: Sequence[str]) -> str:
    """Return a Markdown table of what the experts do on validation, means over seeds and the worst p."""
    heads = [
        "arm",
        "information, nats (least)",
        "its p at most",
        "effective experts",
        "nats apart",
        "in use",
        "knock-out, mean",
        "knock-outs that cost",
        "assignment, p at most",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for arm in arms:
        found = [run.experts for run in runs if run.arm == arm and run.experts is not None]
        if found:
            nats = [each["information"]["nats"] for each in found]
            changes = [
                out["return_change"] for each in found for out in each["knock_outs"] if out is not None
            ]
            cells = [
                arm,
                f"{fmean(nats):.3f} ({min(nats):.3f})",
                f"{max(each['information']['p'] for each in found):.3g}",
                f"{fmean(each['use']['effective_experts'] for each in found):.2f}",
                f"{fmean(each['use']['divergence'] for each in found):.3f}",
                f"{len(changes)} of {sum(len(each['knock_outs']) for each in found)}",
                f"{100 * fmean(changes):+.1f} %",
                f"{sum(change < 0 for change in changes)} of {len(changes)}",
                f"{max(each['assignment']['p'] for each in found):.3g}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _paired(own: Sequence[Run], runs: Sequence[Run]) -> list[float]:
    """Return the difference in share from the mixture on equal seeds."""
    mixture = {run.seed: run.share for run in runs if run.arm == MIXTURE}
    return [run.share - mixture[run.seed] for run in own if run.seed in mixture]


def _mean_and_error(values: Sequence[float]) -> str:
    if not values:
        return "–"
    error = f" ({stdev(values) / math.sqrt(len(values)):.3f})" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{error}"


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mixture_settings", description=__doc__.split("\n\n")[1]
    )
    parser.add_argument("--market", default="moe_wide", choices=("moe_wide", "moe4"))
    parser.add_argument("--arms", nargs="+", default=tuple(ARMS), choices=ARMS, metavar="ARM")
    add_comparison_options(parser, seeds=[50])
    parser.add_argument("--steps", type=int, default=TOTAL_STEPS, help=f"in all (default: {TOTAL_STEPS:,})")
    parser.add_argument(
        "--parent-steps",
        type=int,
        default=PARENT_STEPS,
        help=f"of them spent on stage 1 (default: {PARENT_STEPS:,})",
    )
    options = parser.parse_args(argv)
    refuse_judged_seeds(parser, options)
    if not 0 < options.parent_steps < options.steps:
        parser.error(f"--parent-steps has to lie between 0 and --steps, but is {options.parent_steps}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Do the runs that are missing, print both tables, and return 0."""
    options = parse_options(argv)
    use_one_thread()
    runs = read_runs(options.json)
    wanted = {
        (options.market, arm, seed, options.steps, options.parent_steps): (arm, seed)
        for seed in options.seeds
        for arm in options.arms
    }
    done = {_key(run) for run in runs}
    for key, (arm, seed) in wanted.items():
        if key in done:
            continue
        run = measure(options.market, arm, seed, options.steps, options.parent_steps)
        runs.append(run)
        nats = f", {run.experts['information']['nats']:.3f} nats" if run.experts else ""
        print(
            f"{arm}, seed {seed}: {run.share:.3f} of the oracle{nats}, {run.cpu_seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        if options.json is not None:
            write_json(options.json, [asdict(entry) for entry in runs])
    shown = [run for run in runs if _key(run) in wanted]
    print(f"{table(shown, options.arms)}\n\n{experts_table(shown, options.arms)}")
    return 0


def _key(run: Run) -> tuple[str, str, int, int, int]:
    return run.market, run.arm, run.seed, run.steps, run.parent_steps


if __name__ == "__main__":
    sys.exit(main())
