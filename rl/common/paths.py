"""Where things lie, and which names may become part of a path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rl.common.errors import UsageError

_SYMBOL = re.compile(r"[A-Za-z0-9_.=^-]+")


def checked_symbol(text: str) -> str:
    """Return `text` unchanged if it may be used as a symbol.

    A symbol becomes part of file names, so one that could climb out of its folder, hide a file or name
    a folder is refused. `BRK-B`, `^GSPC`, `EURUSD=X`, `BHP.AX` and `Bank_Nifty_5` are all fine.

    Raises:
        UsageError: If the text is empty, starts with a dot, contains two dots in a row, or holds any
            character besides letters, digits and `_ . = ^ -`.
    """
    if _SYMBOL.fullmatch(text) and not text.startswith(".") and ".." not in text:
        return text
    if not text:
        found = "is empty"
    elif text.startswith("."):
        found = "starts with a dot"
    elif ".." in text:
        found = "contains two dots in a row"
    else:
        strange = sorted({character for character in text if not _SYMBOL.fullmatch(character)})
        found = "contains " + ", ".join(repr(character) for character in strange)
    raise UsageError(
        f"{text!r} cannot be a symbol: it {found}.\n"
        "  A symbol is the name of its raw data file without the ending: letters, digits and _ . = ^ - ,\n"
        "  not starting with a dot. Rename the file or correct the option."
    )


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
