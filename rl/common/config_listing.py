"""Settings written out with where each value comes from, as YAML that can be read back.

training_params:
  ppo:
    learning_rate: 0.0003                              # --set
    batch_size: 512                                    # config/training_sequence.yaml:69
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rl.common.printable import printable
from rl.common.strict_config import KeyPath, Setting, dump_yaml

WIDTH = 100
"""Columns that a listing takes at most, unless a path is longer than that."""

ORIGIN_COLUMN = 56
"""Where origins begin, behind values that leave room for them."""


def listing(settings: Sequence[Setting], *, symbol: str | None = None) -> list[str]:
    """Return settings as lines of YAML, each with its origin as a comment.

    Args:
        settings: In the order of their blocks, as `origins` gives them.
        symbol: Whose own settings these are; its block's origins then name it. None: of the whole plan, in which they
            stand in the block itself.
    """
    lines: list[str] = []
    open_blocks: KeyPath = ()
    for setting in settings:
        *blocks, name = setting.path
        for depth, block in enumerate(blocks):
            if open_blocks[: depth + 1] != tuple(blocks[: depth + 1]):
                lines.append("  " * depth + _entry(block, {}, width=WIDTH)[0].removesuffix(" {}"))
                open_blocks = tuple(blocks[: depth + 1])
        open_blocks = tuple(blocks)
        lines += _with_origin(name, setting, "  " * len(blocks), symbol)
    return [printable(line) for line in lines]


def _with_origin(name: str | int, setting: Setting, indent: str, symbol: str | None) -> list[str]:
    comment = f"# {_origin(setting, symbol)}"
    room, column = WIDTH - len(indent), ORIGIN_COLUMN - len(indent)
    lines = _entry(name, setting.value, in_one_line=True)
    if len(lines) > 1 or len(lines[0]) > room or (_is_list(setting) and len(lines[0]) >= column):
        # A list gets a line for each item. A text is folded behind the word that passes the width: it has to fit.
        longest = max(map(len, str(setting.value).split()), default=0)
        lines = _entry(name, setting.value, width=max(1, room - longest))
    beside = f"{lines[0]:<{column}}  {comment}"
    # Behind the first line of a folded text, a comment would become part of it.
    if len(beside) <= room and (len(lines) == 1 or _is_list(setting)):
        return [indent + line for line in [beside, *lines[1:]]]
    return [indent + line for line in [comment, *lines]]


def _is_list(setting: Setting) -> bool:
    return isinstance(setting.value, list)


def _entry(
    name: str | int, value: Any, *, width: float = float("inf"), in_one_line: bool = False
) -> list[str]:
    lists_in_line = in_one_line and isinstance(value, list)
    return dump_yaml({str(name): value}, width=width, in_one_line=lists_in_line).splitlines()


def _origin(setting: Setting, symbol: str | None) -> str:
    if setting.kind != "symbol":
        return setting.origin
    if symbol is not None:
        return f"{setting.origin}, for {symbol} only"
    return f"{setting.origin}, instead of {json.dumps(setting.instead_of, ensure_ascii=False)}"
