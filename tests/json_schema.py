"""A small second reader of JSON Schemas: what an editor would mark in a settings file. Unknown words are an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TYPES = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "null": lambda value: value is None,
}
BOUNDS = {
    "minimum": lambda value, limit: value >= limit,
    "maximum": lambda value, limit: value <= limit,
    "exclusiveMinimum": lambda value, limit: value > limit,
    "exclusiveMaximum": lambda value, limit: value < limit,
}
LENGTHS = {"minItems": list, "minLength": str}
SAYS_NOTHING = {"$schema", "title", "description", "default", "definitions"}
READ_WITH_OTHERS = {"additionalProperties"}


def marked(schema: dict[str, Any], value: Any) -> list[str]:
    """Return the dotted places that a schema does not allow, each with the word it breaks."""
    return sorted(_marked(schema, value, "", schema))


def _marked(node: Any, value: Any, at: str, root: dict[str, Any]) -> Iterator[str]:  # noqa: C901 - a table of words
    if "$ref" in node:
        node = _named(root, node["$ref"])
    for word, asked in node.items():
        if word == "type":
            if not TYPES[asked](value):
                yield f"{at}: type"
        elif word == "const":
            if value != asked or isinstance(value, bool) != isinstance(asked, bool):
                yield f"{at}: const"
        elif word == "enum":
            if value not in asked:
                yield f"{at}: enum"
        elif word in BOUNDS:
            if TYPES["number"](value) and not BOUNDS[word](value, asked):
                yield f"{at}: {word}"
        elif word in LENGTHS:
            if isinstance(value, LENGTHS[word]) and len(value) < asked:
                yield f"{at}: {word}"
        elif word == "anyOf":
            found = [list(_marked(each, value, at, root)) for each in asked]
            if all(found):
                yield f"{at}: anyOf"
        elif word == "items":
            for place, item in enumerate(value if isinstance(value, list) else ()):
                yield from _marked(asked, item, f"{at}[{place}]", root)
        elif word == "required":
            yield from (
                f"{at}.{name}: required" for name in asked if isinstance(value, dict) and name not in value
            )
        elif word == "propertyNames":
            for name in value if isinstance(value, dict) else ():
                yield from _marked(asked, name, f"{at}.{name}", root)
        elif word == "properties":
            for name in value if isinstance(value, dict) else ():
                if name in asked:
                    yield from _marked(asked[name], value[name], f"{at}.{name}", root)
        elif word not in SAYS_NOTHING | READ_WITH_OTHERS:
            raise AssertionError(f"the reader does not know the word {word}")
    yield from _others(node, value, at, root)


def _others(node: dict[str, Any], value: Any, at: str, root: dict[str, Any]) -> Iterator[str]:
    others = node.get("additionalProperties", True)
    for name in value if isinstance(value, dict) else ():
        if name in node.get("properties", {}):
            continue
        if others is False:
            yield f"{at}.{name}: unknown"
        elif isinstance(others, dict):
            yield from _marked(others, value[name], f"{at}.{name}", root)


def _named(root: dict[str, Any], reference: str) -> Any:
    node: Any = root
    for step in reference.removeprefix("#/").split("/"):
        node = node[step]
    return node
