"""How much of what it could know a policy earns by adapting: `python -m benchmarks.task_family`.

Settings are chosen on seeds from 50 on; on the seeds 0-4, by which the system is judged, other settings than the
shipped ones are refused without --judged.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.tuning_seeds import FIRST_TUNING_SEED, first_judged
from rl.common.threads import use_one_thread


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.task_family",
        description="Meta-train on markets that differ in one hidden direction and judge adaptation on others. Figures "
        "are net growth on later bars as a share of what knowing the direction earns there.",
    )
    parser.add_argument("--config", type=Path, default=Path("config/training_sequence.yaml"))
    parser.add_argument("--profile", default="full")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--support-bars", type=int, nargs="+", default=[187], help="bars adapted on")
    parser.add_argument(
        "--start", choices=("moe", "ppo"), default="moe", help="what meta-training starts from"
    )
    parser.add_argument("--markets", type=int, default=300, help="test markets of each seed")
    parser.add_argument(
        "--judged",
        action="store_true",
        help="allow other settings on seeds below 50, to confirm a choice once made",
    )
    options = parser.parse_args(argv)
    early = first_judged(options)
    if options.overrides and early is not None:
        parser.error(
            f"settings are chosen on seeds from {FIRST_TUNING_SEED} on, but --set was given with seed {early}; add "
            f"--seeds {FIRST_TUNING_SEED}, or --judged to confirm a choice on a seed that results are reported on"
        )
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Print one row per number of support bars and seed, and the mean over seeds; return 0."""
    options = parse_options(argv)
    use_one_thread()
    import numpy as np

    from rl.stages.plan import load_plan
    from rl.stages.task_family import adapt_to_family

    plan = load_plan(options.config, overrides=options.overrides, profile=options.profile)
    names: list[str] = []
    for bars in options.support_bars:
        rows = []
        for seed in options.seeds:
            began = time.process_time()
            found = adapt_to_family(seed, plan, bars, start=options.start, test_markets=options.markets)
            shares = {f"{steps} steps": found.share(found.after(steps)) for steps in found.steps}
            shares["other support"] = found.share(found.other_support)
            shares["parent, fine-tuned"] = found.share(found.fine_tuned)
            shares["random start"] = found.share(found.random_start)
            if not names:
                names = list(shares)
                print(f"{'bars':>5}{'seed':>6}" + "".join(f"{name:>20}" for name in names) + f"{'CPU s':>8}")
            rows.append(list(shares.values()))
            seconds = time.process_time() - began
            print(
                f"{bars:>5}{seed:>6}" + "".join(f"{share:>20.3f}" for share in rows[-1]) + f"{seconds:>8.0f}",
                flush=True,
            )
        print(f"{bars:>5}{'mean':>6}" + "".join(f"{share:>20.3f}" for share in np.mean(rows, axis=0)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
