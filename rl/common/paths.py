"""Where things lie, and which names may become part of a path."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from rl.common.errors import UsageError

_SYMBOL = re.compile(r"[A-Za-z0-9_.=^-]+")

LONGEST_SYMBOL = 100
"""Names of 255 bytes are the most file systems take; stage, date and the ending of a temporary file follow."""

_DEVICES = re.compile(r"(CON|PRN|AUX|NUL|COM[0-9]|LPT[0-9])(\..*)?", re.IGNORECASE)
"""Names Windows gives to devices, whatever ending follows: what is written there is gone. Elsewhere CON.DE is one
of a stock."""


def checked_symbol(text: str) -> str:
    """Return `text` unchanged if it may be used as a symbol.

    A symbol becomes part of file names, so one that could climb out of its folder, hide a file or name
    a folder is refused. So is what a program that reads a report may take for something else: a table for a
    formula (a leading =), a shell for an option (a leading -). `BRK-B`, `^GSPC`, `EURUSD=X`, `BHP.AX` and
    `Bank_Nifty_5` are all fine.

    Raises:
        UsageError: If the text is empty, too long, begins with a dot, a dash or an equals sign, ends with a
            dot, contains two dots in a row, is a device of Windows, or holds any character besides letters,
            digits and `_ . = ^ -`.
    """
    if not (found := _why_no_symbol(text)):
        return text
    shown = text if len(text) <= LONGEST_SYMBOL else text[:LONGEST_SYMBOL] + "…"
    raise UsageError(
        f"{shown!r} cannot be a symbol: it {found}.\n"
        "  A symbol is the name of its raw data file without the ending: letters, digits and _ . = ^ - ,\n"
        "  not starting with a dot, dash or equals sign. Rename the file or correct the option."
    )


def _why_no_symbol(text: str) -> str:
    if not text:
        return "is empty"
    if len(text) > LONGEST_SYMBOL:
        return f"has {len(text)} characters, and at most {LONGEST_SYMBOL} leave room for the rest of a file's name"
    for sign, name in ((".", "dot"), ("-", "dash"), ("=", "equals sign")):
        if text.startswith(sign):
            return f"starts with {'an' if name[0] == 'e' else 'a'} {name}"
    if ".." in text:
        return "contains two dots in a row"
    if strange := sorted({character for character in text if not _SYMBOL.fullmatch(character)}):
        return "contains " + ", ".join(_shown(character) for character in strange[:5])
    if text.endswith("."):
        return "ends with a dot, which Windows leaves out"
    if os.name == "nt" and (device := _DEVICES.fullmatch(text)):
        return f"is a device of Windows ({device[1].upper()}); put something before it, such as X_{text}"
    return ""


def _shown(character: str) -> str:
    """Return a character as text; one that may look like another with its number."""
    return repr(character) if character.isascii() else f"{character!r} (U+{ord(character):04X})"


@dataclass(frozen=True)
class Folders:
    """The four folders a run reads from and writes to."""

    raw: Path
    """What the user put in; never written to, except by commands that collect or make data."""

    processed: Path
    """Checked bars with their features, one pair of files per symbol."""

    models: Path
    """Checkpoints with their sidecars."""

    reports: Path
    """Everything meant for reading."""

    @classmethod
    def default(cls, root: Path | str = Path()) -> Folders:
        """Return the folders of a checkout whose top is `root` (default: the current folder)."""
        top = Path(root)
        return cls(
            raw=top / "data" / "raw",
            processed=top / "data" / "processed",
            models=top / "models",
            reports=top / "reports",
        )
