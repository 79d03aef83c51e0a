"""Settings are chosen on other seeds than those that results are reported on."""

from __future__ import annotations

import argparse
from pathlib import Path

FIRST_TUNING_SEED = 50
"""Smaller seeds are those results are reported on."""


def first_judged(options: argparse.Namespace) -> int | None:
    """Return the first of `--seeds` that results are reported on and that `--judged` does not allow."""
    judged = (seed for seed in options.seeds if seed < FIRST_TUNING_SEED)
    return None if options.judged else next(judged, None)


def add_comparison_options(parser: argparse.ArgumentParser, *, seeds: list[int]) -> None:
    """Add `--seeds`, `--judged` and `--json` of a comparison that chooses settings."""
    parser.add_argument("--seeds", nargs="+", type=int, default=seeds, metavar="SEED")
    parser.add_argument(
        "--judged", action="store_true", help="allow the seeds below 50, to confirm a choice once made"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keep the runs in FILE and repeat none that is in it"
    )


def refuse_judged_seeds(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a usage error where a comparison would choose settings on a seed that results are reported on."""
    early = first_judged(options)
    if early is not None:
        parser.error(
            f"seeds from {FIRST_TUNING_SEED} on are for choosing settings, but {early} was given; "
            "to confirm a choice on a seed that results are reported on, add --judged"
        )
