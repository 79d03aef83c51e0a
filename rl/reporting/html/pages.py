"""From a template to one file that needs nothing else: style and script inside, no outside link, no foreign script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from rl import __version__
from rl.common.printable import printable
from rl.stages.reasons import readable_reasons

TEMPLATES = Path(__file__).resolve().parent / "templates"


def unbroken(sentence: str) -> str:
    """Return a sentence in which no number is torn from its percent sign at the end of a line."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def _reasons_of(verdict: Mapping[str, Any]) -> list[str]:
    return readable_reasons(verdict["reasons"], verdict["window"], verdict["metrics"])


def render(template: str, **values: Any) -> str:
    """Return a page. Every text that goes into it is escaped, unless it is `Markup`; control characters are shown.

    Its content security policy lets nothing be loaded and no script run but the one inside, named by its hash. Styles
    are let through, since the charts carry theirs on every element.

    Args:
        template: File name in the folder of the templates.
        values: What the template uses.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    environment.filters["readable_reasons"] = _reasons_of
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'"
    )
    # The two files are ours; nothing from a report goes into them.
    page = environment.get_template(template).render(
        version=__version__,
        policy=policy,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        **values,
    )
    # A name may hold codes that turn the reading direction round, or that no file can hold.
    return printable(page)
