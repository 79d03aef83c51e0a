"""README and docs as a reader meets them: fenced blocks with the marks above them, headings, links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ORDER = ("first-run.md", "how-to", "reference", "why")

FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^(?P<fence>```|~~~)(?P<language>[^\n]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    """Of its first line inside the fence, from 1."""
    language: str
    mark: str
    """What the HTML comment directly above it says, or nothing."""
    body: str

    @property
    def place(self) -> str:
        """Page and line."""
        return (
            f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page.name}:{self.line}"
        )


@dataclass(frozen=True)
class Shown:
    """One command of a `bash` block."""

    block: Block
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.block.place.rpartition(':')[0]}:{self.line} {shlex.join(self.words)}"


def pages() -> list[Path]:
    """Return README and every page of docs, in the order a newcomer reads them."""
    first = [ROOT / "README.md", DOCS / "README.md", DOCS / "first-run.md"]
    rest = [page for folder in ORDER[1:] for page in sorted((DOCS / folder).glob("*.md"))]
    others = sorted(set(DOCS.rglob("*.md")) - set(first) - set(rest))
    return [*first, *rest, *others]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("body")) + 1,
            found["language"].strip(),
            found["mark"] or "",
            found["body"],
        )
        for found in FENCE.finditer(text)
    ]


def shown_commands(block: Block) -> list[Shown]:
    """Return the commands of a `bash` block; a backslash at a line's end joins it with the next."""
    found = []
    body = re.sub(r"\\\n", lambda _: "  ", block.body)
    for offset, line in enumerate(body.splitlines()):
        words = tuple(shlex.split(line, comments=True))
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words:
            found.append(Shown(block, block.line + offset, words))
    return found


def without_blocks(text: str) -> str:
    """Return a page's text without its fenced blocks and code spans."""
    text = FENCE.sub("", text)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while (name := slug if number == 0 else f"{slug}-{number}") in found:
            number += 1
        found.add(name)
    return found


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures."""
    text = without_blocks(page.read_text(encoding="utf-8"))
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
