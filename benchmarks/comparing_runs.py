"""What two runs came to, without what a clock decides, so that all the rest can be asked to be equal."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def without(value: Any, names: Collection[str]) -> Any:
    """Return plain values without the fields of these names, at any depth."""
    if isinstance(value, dict):
        return {name: without(each, names) for name, each in value.items() if name not in names}
    return [without(each, names) for each in value] if isinstance(value, list) else value
