"""`python -m rl COMMAND`: everything besides training and backtesting."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from rl.apps.commands.options import refuse_without_full, rl_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options, run the command, and return the exit code."""
    options = rl_parser().parse_args(argv)
    from rl.apps.commands.entry import run_command

    return run_command(_work, options)


def _work(options: argparse.Namespace) -> int:
    if options.verb == "doctor":
        refuse_without_full(options)
        if options.full:
            from rl.apps.commands.learning import measure_learning

            return measure_learning(options)
    # Only the module of the command asked for is loaded: most take seconds.
    module, function = _COMMANDS[options.verb]
    work: Callable[[argparse.Namespace], int] = getattr(import_module(f"rl.apps.commands.{module}"), function)
    return work(options)


_COMMANDS = {
    "process": ("process", "process_files"),
    "synth": ("synth", "write_synthetic"),
    "models": ("models", "list_models"),
    "compare": ("compare", "compare"),
    "gate": ("gate", "gate"),
    "doctor": ("doctor", "examine"),
    "schema": ("schema", "write_schemas"),
}
"""Module and function of each command."""


if __name__ == "__main__":
    sys.exit(main())
