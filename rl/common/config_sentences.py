"""Word what pydantic found wrong, for the person who wrote the file: `must be at most 1 (got 40)`."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from rl.common.errors import nearest
from rl.common.strict_yaml import KeyPath, dotted

_DATE, _DATE_TIME, _TIME = (
    "a date such as 2024-03-28",
    "a date and time such as 2024-03-28T09:15",
    "a time such as 09:15",
)

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a block of keys",
    "model_type": "a block of keys",
    "none_required": "null",
    "date_type": _DATE,
    "date_parsing": _DATE,
    "date_from_datetime_parsing": _DATE,
    "datetime_type": _DATE_TIME,
    "datetime_parsing": _DATE_TIME,
    "datetime_from_date_parsing": _DATE_TIME,
    "time_type": _TIME,
    "time_parsing": _TIME,
}

_BOUNDS = {
    "greater_than_equal": "at least",
    "greater_than": "more than",
    "less_than_equal": "at most",
    "less_than": "less than",
}


def sentences(model: type[BaseModel], path: KeyPath, errors: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what to say about one key.

    Args:
        model: What the whole file was checked against; suggestions come from its keys.
        path: The key.
        errors: pydantic's errors for it. Where the key allows alternatives (`auto` or a number) there is one
        for each, and
            they become one sentence.
    """
    said, expected = [], []
    for error in errors:
        if sentence := _own_sentence(model, path, error):
            said.append(sentence)
        else:
            expected.append(_expectation(error))
    if expected:
        value = errors[0]["input"]
        wanted = " or ".join(dict.fromkeys(expected))
        said.append(f"must be {wanted} ({_got(value, wanted)}){_remedy(errors, value)}")
    return list(dict.fromkeys(said))


def _own_sentence(model: type[BaseModel], path: KeyPath, error: Mapping[str, Any]) -> str | None:
    """Return the sentence of an error that is not of the form `must be X (got Y)`."""
    if error["type"] == "missing":
        return "is missing and has no default"
    if error["type"] == "extra_forbidden":
        return _unknown_key(model, path)
    if error["type"] in ("value_error", "assertion_error"):
        return str(error["ctx"]["error"])
    return None


def _expectation(error: Mapping[str, Any]) -> str:
    """Return what would have been right, as the words after `must be`."""
    kind, details = error["type"], error.get("ctx", {})
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind in _BOUNDS:
        limit = next(details[name] for name in ("ge", "gt", "le", "lt") if name in details)
        return f"{_BOUNDS[kind]} {_shown(_simple(limit))}"
    if kind in ("literal_error", "enum"):
        names = _choices(error)
        return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    if kind in ("too_short", "string_too_short"):
        return f"at least {details['min_length']} long"
    if kind in ("too_long", "string_too_long"):
        return f"at most {details['max_length']} long"
    if kind == "string_pattern_mismatch":
        return f"text that fits {details['pattern']}"
    # Kinds that no model here can raise; pydantic's own words are better than none.
    return f"valid: {error['msg'][:1].lower()}{error['msg'][1:]}"


def _choices(error: Mapping[str, Any]) -> list[str]:
    expected = str(error["ctx"]["expected"])
    return re.findall(r"'([^']*)'", expected) or [expected]


def _got(value: Any, wanted: str) -> str:
    if " long" in wanted and isinstance(value, (str, list)):
        return f"got {len(value)}"
    if "number" in wanted and isinstance(value, str) and _as_number(value) is not None:
        return f"got the text {_shown(value)}"
    return f"got {_shown(value)}"


def _remedy(errors: Sequence[Mapping[str, Any]], value: Any) -> str:
    """Return what to write instead, where the slip is a well-known one."""
    for error in errors:
        details = error.get("ctx", {})
        limit = details.get("le", details.get("lt"))
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if limit is not None and is_number and limit <= 1 < value <= 100:
            return f"; {value:g} % is written {_fraction(value)}"
        if error["type"] in ("int_type", "float_type") and isinstance(value, str):
            return _number_remedy(value)
        if error["type"] in ("model_type", "dict_type") and value is None:
            return "; leave the key out to keep its defaults"
        if error["type"] == "literal_error" and isinstance(value, str):
            close = nearest(value, _choices(error), count=1)
            return f"; did you mean {close[0]}?" if close else ""
    return ""


def _number_remedy(text: str) -> str:
    number = _as_number(text)
    if number is not None:
        return f"; write {_shown(_simple(number))}, without quotes, commas or leading zeros"
    percent = _as_number(text.strip()[:-1]) if text.strip().endswith("%") else None
    return "" if percent is None else f"; {percent:g} % is written {_fraction(percent)}"


def _fraction(percent: float) -> str:
    return f"{percent / 100:.2f}" if percent == int(percent) else f"{percent / 100:g}"


def _as_number(text: str) -> float | None:
    try:
        return float(text.replace(",", "").replace("_", ""))
    except ValueError:
        return None


def _simple(number: float) -> float:
    """Return 1 for 1.0, so that a limit reads as it would be said."""
    return int(number) if isinstance(number, float) and number.is_integer() and abs(number) < 1e15 else number


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a block of keys"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    return str(value)


# --- which keys there are -----------------------------------------------------------------------------------


def _unknown_key(model: type[BaseModel], path: KeyPath) -> str:
    name = str(path[-1])
    known = [key for block in _blocks_at(model, path[:-1]) for key in _fields(block)]
    if close := nearest(name, known, count=1):
        return f"unknown key; did you mean {close[0]}?"
    if elsewhere := [dotted(found) for found in _paths_of(model, ()) if found[-1] == name]:
        return f"unknown key here; did you mean {' or '.join(elsewhere[:3])}?"
    return f"unknown key; known here: {', '.join(known)}"


def _fields(block: type[BaseModel]) -> dict[str, Any]:
    return {info.alias or name: info.annotation for name, info in block.model_fields.items()}


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Yield the parts of `X | Y`, and `X` itself otherwise; what `Annotated` adds is dropped."""
    if get_origin(annotation) in (Union, types.UnionType):
        for alternative in get_args(annotation):
            yield from _alternatives(alternative)
    elif hasattr(annotation, "__metadata__"):
        yield from _alternatives(get_args(annotation)[0])
    else:
        yield annotation


def _blocks_at(annotation: Any, path: KeyPath) -> list[type[BaseModel]]:
    """Return the models that may stand at `path` below a type."""
    found: list[type[BaseModel]] = []
    for inner in _alternatives(annotation):
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            if not path:
                found.append(inner)
            elif path[0] in _fields(inner):
                found += _blocks_at(_fields(inner)[str(path[0])], path[1:])
        elif path and get_args(inner):
            # The X of dict[str, X], list[X] and tuple[X, ...].
            found += _blocks_at([part for part in get_args(inner) if part is not Ellipsis][-1], path[1:])
    return found


def _paths_of(model: type[BaseModel], path: KeyPath) -> Iterator[KeyPath]:
    for name, annotation in _fields(model).items():
        yield (*path, name)
        for inner in _alternatives(annotation):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _paths_of(inner, (*path, name))
