"""Does every link of README and docs lead somewhere, and does the index lead to every page?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, anchors, links, pages

INDEX = DOCS / "README.md"


def dead_links(page: Path) -> list[str]:
    """Return the links of a page whose file or heading is missing."""
    found = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, heading = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists():
            found.append(f"{link}: no such file")
        elif heading and (target.suffix != ".md" or heading not in anchors(target)):
            found.append(f"{link}: no such heading")
    return found


@pytest.mark.parametrize(
    "page", [*pages(), ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_link_leads_somewhere(page):
    assert dead_links(page) == []


def test_every_page_is_one_step_from_the_index():
    linked = {(INDEX.parent / link.partition("#")[0]).resolve() for link in links(INDEX)}
    missing = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {
        str(page.relative_to(DOCS)) for page in linked if page.is_relative_to(DOCS)
    }
    assert missing == {"README.md"}, "give each page a line in docs/README.md"


def test_a_dead_link_is_noticed(tmp_path):
    (tmp_path / "there.md").write_text("# A heading, with `code`\n\n## Twice\n\n## Twice\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](gone.md) [c](there.md#a-heading-with-code) [d](there.md#twice-1)\n"
        "[e](there.md#twice-2) [f](#nowhere) [g](https://example.org/x) `[h](code.md)`\n"
        '```\n[i](block.md)\n```\n<img src="gone.png">\n',
        encoding="utf-8",
    )
    assert dead_links(page) == [
        "gone.md: no such file",
        "there.md#twice-2: no such heading",
        "#nowhere: no such heading",
        "gone.png: no such file",
    ]
