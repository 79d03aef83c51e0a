"""`python -m rl COMMAND`: everything besides training and backtesting."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rl.apps.commands.options import refuse_without_full, rl_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options, run the command, and return the exit code."""
    options = rl_parser().parse_args(argv)
    from rl.apps.commands.entry import run_command

    return run_command(_work, options)


def _work(options: argparse.Namespace) -> int:
    if options.verb == "process":
        from rl.apps.commands.process import process_files

        return process_files(options)
    if options.verb == "gate":
        from rl.apps.commands.gate import gate

        return gate(options)
    if options.verb == "doctor":
        refuse_without_full(options)
        if options.full:
            from rl.apps.commands.learning import measure_learning

            return measure_learning(options)
        from rl.apps.commands.doctor import examine

        return examine(options)
    from rl.apps.commands.synth import write_synthetic

    return write_synthetic(options)


if __name__ == "__main__":
    sys.exit(main())
