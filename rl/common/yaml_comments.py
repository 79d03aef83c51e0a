"""What the comments of a settings file say about its keys.

The comment behind a key, the lines that go on with it, and the block of comment lines right above the key count. A file
whose entries all have the same keys may explain them once, in the list at its top:

    # Keys of an entry
    #   lot_size               orders are whole multiples of this many units; 0 allows fractions
"""

from __future__ import annotations

import re
from pathlib import Path

from rl.common.strict_yaml import KeyPath, load_yaml

_BEHIND = re.compile(r"(?:^|\s)#(?: (?P<text>.*))?$")
_LISTED = re.compile(r"#   (?P<name>[a-z_.]+) {2,}(?P<text>\S.*)")
_GOES_ON = re.compile(r"# {6,}(?P<text>\S.*)")


def comments_of(path: Path) -> dict[KeyPath, str]:
    """Return the comment of each key of a file that has one; several keys on a line share its comment.

    Raises:
        ConfigError: The file cannot be read as settings.
    """
    loaded = load_yaml(path)
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    found: dict[KeyPath, str] = {}
    seen: set[int] = set()
    for key, origin in loaded.origins.items():
        number = origin.order[1]
        if isinstance(key[-1], int):
            continue
        text = _behind(lines, number - 1)
        if number not in seen:
            # Of several keys on a line, what stands above is about the first.
            text = ". ".join(part.rstrip(".") for part in (text, _above(lines, number - 1)) if part)
        seen.add(number)
        if text:
            found[key] = text
    return found


def listed_keys(path: Path) -> dict[str, str]:
    """Return the keys that the list at the top of a file explains, with their explanation."""
    found: dict[str, str] = {}
    name = ""
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if not line.startswith("#"):
            break
        if entry := _LISTED.fullmatch(line):
            name = entry["name"]
            found[name] = entry["text"]
        elif name and (rest := _GOES_ON.fullmatch(line)):
            found[name] += f" {rest['text']}"
        else:
            name = ""
    return found


def _behind(lines: list[str], place: int) -> str:
    """Return the comment behind a line's content, with the comment lines below that begin in its column."""
    comment = _BEHIND.search(lines[place])
    if comment is None or not comment["text"]:
        return ""
    parts, column = [comment["text"].strip()], lines[place].index("#", comment.start())
    for line in lines[place + 1 :]:
        if not line.strip().startswith("#") or line.index("#") != column:
            break
        parts.append(line.strip(" #"))
    return " ".join(parts)


def _above(lines: list[str], place: int) -> str:
    """Return the comment lines right above a line, in its own column."""
    column = len(lines[place]) - len(lines[place].lstrip())
    parts: list[str] = []
    for line in reversed(lines[:place]):
        if not re.match(rf" {{{column}}}# [^-]", line):
            break
        parts.insert(0, line.strip(" #"))
    return " ".join(parts)
