"""`python -m rl synth`: write a market whose best policy is known."""

from __future__ import annotations

import argparse

from rl.common.errors import OK, UsageError
from rl.common.paths import checked_symbol
from rl.market.synthetic import generate, write_raw_csv

PREFIX = "SYN_"
"""Every made-up symbol says so in its name."""

BARS_PER_SESSION = 187
"""Two-minute bars of a day; the last two minutes before the close are left out."""


def write_synthetic(options: argparse.Namespace) -> int:
    """Write the market the options ask for; return the exit code."""
    symbol = checked_symbol(options.out.name.removesuffix(".gz").removesuffix(".csv"))
    if not symbol.startswith(PREFIX):
        raise UsageError(
            f"--out {options.out}: the name of a made-up market has to start with {PREFIX}, so that no report can take "
            f"it for real; write {options.out.with_name(PREFIX + options.out.name)}"
        )
    params = _parameters(options.param)
    market = generate(options.market, options.sessions, options.seed, BARS_PER_SESSION, **params)
    write_raw_csv(market, options.out)
    print(f"{options.out}: {len(market):,} made-up bars of the market {options.market}, seed {options.seed}")
    return OK


def _parameters(given: list[str]) -> dict[str, float]:
    found = {}
    for text in given:
        name, sign, number = text.partition("=")
        try:
            found[name] = float(number)
        except ValueError as error:
            raise UsageError(f"--param {text}: write NAME=NUMBER, for example phi=-0.3") from error
        if not sign or not name:
            raise UsageError(f"--param {text}: write NAME=NUMBER, for example phi=-0.3")
    return found
