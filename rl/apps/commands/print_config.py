"""`--print-config`: every setting of a command with where its value comes from. Nothing heavy is loaded for it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from rl.apps.commands.options import given_settings, wants_all
from rl.backtest.config import backtest_settings
from rl.common.config_listing import WIDTH, listing
from rl.common.errors import OK, nearest
from rl.common.paths import checked_symbol
from rl.common.printable import printable
from rl.common.strict_config import Setting
from rl.stages.plan import FULL, load_plan, plan_settings


def print_plan(options: argparse.Namespace) -> int:
    """Print the plan of `run_training.py`; with one symbol asked for, the plan as it holds for that symbol."""
    symbol = _the_symbol(options.symbols)
    common = {"overrides": options.overrides, "profile": options.profile, "seed": options.seed}
    named = list(load_plan(options.config, **common).symbols)
    settings = plan_settings(options.config, **common, symbol=symbol)
    layers = ["default", str(options.config)]
    layers += [f"--profile {options.profile}"] if options.profile != FULL else []
    layers += ["--set"] if options.overrides else []
    layers += ["--seed"] if options.seed is not None else []
    what = "The plan" if symbol is None else f"The plan of {symbol}"
    notes = [_without_a_block(symbol, named)] if symbol is not None and symbol not in named else []
    return _print(what, settings, layers, notes, as_json=options.json, symbol=symbol)


def print_backtest_settings(options: argparse.Namespace) -> int:
    """Print the settings of `run_backtest.py`."""
    given = given_settings(options)
    settings = backtest_settings(options.config, overrides=options.overrides, given=given)
    layers = ["default", str(options.config), *(["--set"] if options.overrides else [])]
    layers += [option for option, _ in given.values()]
    return _print("The settings of a backtest", settings, layers, [], as_json=options.json)


def _print(
    what: str,
    settings: Sequence[Setting],
    layers: Sequence[str],
    notes: Sequence[str],
    *,
    as_json: bool,
    symbol: str | None = None,
) -> int:
    if as_json:
        found = {
            "symbol": symbol,
            "layers": list(layers),
            "notes": list(notes),
            "settings": [each.as_dict() for each in settings],
        }
        print(printable(json.dumps(found, ensure_ascii=False, indent=2)))
        return OK
    heading = f"{what} as this command would use it, with the origin of each value. --config reads this too."
    for line in _wrapped([*heading.split(), "From", "weak", "to", "strong:"], "#"):
        print(line)
    for line in _wrapped([f"{layer} <" for layer in layers[:-1]] + [layers[-1]], "#  "):
        print(line)
    for line in _wrapped(" ".join(notes).split(), "#"):
        print(line)
    print()
    for line in listing(settings, symbol=symbol):
        print(line)
    return OK


def _wrapped(words: Sequence[str], start: str) -> list[str]:
    lines: list[str] = []
    for word in words:
        if not lines or len(f"{lines[-1]} {word}") > WIDTH:
            lines.append(start)
        lines[-1] += f" {printable(word)}"
    return lines


def _the_symbol(asked: Sequence[str]) -> str | None:
    """Return the symbol whose own plan is wanted; None where several or all are asked for."""
    return checked_symbol(asked[0]) if len(asked) == 1 and not wants_all(asked) else None


def _without_a_block(symbol: str, named: Sequence[str]) -> str:
    """Return what to say of a symbol that the plan says nothing about."""
    close = nearest(symbol, named, count=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"The plan has no block for {symbol} under `symbols`: what holds for all is shown.{hint}"
