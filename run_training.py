"""Train every symbol through the staged curriculum; see `python run_training.py --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rl.apps.commands.options import training_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options, train, and return the exit code."""
    options = training_parser().parse_args(argv)
    from rl.apps.commands.entry import run_command

    return run_command(_train, options)


def _train(options: argparse.Namespace) -> int:
    if options.print_config:
        from rl.apps.commands.print_config import print_plan

        return print_plan(options)
    from rl.apps.commands.train import train

    return train(options)


if __name__ == "__main__":
    sys.exit(main())
