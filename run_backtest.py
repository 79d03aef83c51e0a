"""Backtest the best available model of every symbol; see `python run_backtest.py --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rl.apps.commands.options import backtest_parser, refuse_without_walk_forward


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options, backtest, and return the exit code."""
    options = backtest_parser().parse_args(argv)
    from rl.apps.commands.entry import run_command

    return run_command(_backtest, options)


def _backtest(options: argparse.Namespace) -> int:
    if options.print_config:
        from rl.apps.commands.print_config import print_backtest_settings

        return print_backtest_settings(options)
    if options.walk_forward is not None:
        from rl.apps.commands.walk_forward import walk_forward

        return walk_forward(options)
    refuse_without_walk_forward(options)
    if options.check_lookahead:
        from rl.apps.commands.check_lookahead import check_for_lookahead

        return check_for_lookahead(options)
    from rl.apps.commands.backtest import backtest

    return backtest(options)


if __name__ == "__main__":
    sys.exit(main())
