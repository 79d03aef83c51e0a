"""How often trading without an edge passes a plan's gates: `python -m benchmarks.null_bank`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from rl.common.threads import use_one_thread


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.null_bank",
        description="Count in how many markets without an edge each null policy passes each gate of a plan.",
    )
    parser.add_argument("--config", type=Path, default=Path("config/training_sequence.yaml"))
    parser.add_argument("--profile", default="full")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--sign-only",
        action="store_true",
        help="as if promotion asked for the sign of the return beyond buy-and-hold, not for evidence of it",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print one row per policy and kind of market, one column per gate; return 0."""
    options = parse_options(argv)
    use_one_thread()
    from rl.stages import gates
    from rl.stages.null_bank import TITLES, calibrate, gates_of
    from rl.stages.null_markets import KINDS, MARKETS, calibration_records
    from rl.stages.plan import load_plan

    if options.sign_only:
        # setattr, because a function of a module is not declared to be replaceable.
        setattr(gates, "_p_no_edge", lambda edge, _beyond: edge.p_above_zero)  # noqa: B010
    asked = gates_of(load_plan(options.config, overrides=options.overrides, profile=options.profile))
    calibrate(asked)  # compiles
    calibration_records.cache_clear()
    started = time.process_time()
    found = calibrate(asked).passes
    seconds = time.process_time() - started
    columns = list(dict.fromkeys((each.symbol, each.level, each.stage) for each in found))
    print(f"passes of {MARKETS} markets; {seconds:.2f} s of processor time")
    print(f"{'markets':<42}{'policy':<33}" + "".join(f"{level} {stage:<6}" for _, level, stage in columns))
    for kind, policy in dict.fromkeys((each.kind, each.policy) for each in found):
        own = {
            (each.symbol, each.level, each.stage): each.passed
            for each in found
            if (each.kind, each.policy) == (kind, policy)
        }
        cells = "".join(f"{own.get(column, ''):<{len(column[1]) + 7}}" for column in columns)
        print(f"{KINDS[kind]:<42}{TITLES[policy]:<33}{cells}".rstrip())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
