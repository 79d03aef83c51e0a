"""`python -m rl schema`: JSON Schemas of the settings files, by which editors complete keys and mark mistakes.

Keys, types and allowed values come from the models that check the files, the texts from the comments of the shipped
files. A schema sees each key alone: what has to hold between keys is checked by the commands.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl.backtest.config import BacktestConfig
from rl.common.atomic_files import write_text
from rl.common.errors import OK, UNEXPECTED
from rl.common.interpreter import interpreter
from rl.common.strict_config import KeyPath, StrictModel, dotted
from rl.common.yaml_comments import comments_of, listed_keys
from rl.market.checks import CHECKS
from rl.market.instruments import InstrumentsFile, ListedInstrumentsFile
from rl.stages.plan import SAME_FOR_ALL_SYMBOLS, SAME_KEYS_FOR_ALL_SYMBOLS, Plan

CONFIG = Path(__file__).resolve().parents[3] / "config"
DIALECT = "http://json-schema.org/draft-07/schema#"
"""The one that editors know best."""

Node = dict[str, Any]


@dataclass(frozen=True)
class _Kind:
    """One kind of settings file."""

    shipped: str
    """The file whose comments explain the keys."""
    title: str
    model: type[StrictModel]
    finish: Callable[[Node], None] | None = None
    """Adds what the model leaves to other checks."""


def write_schemas(options: argparse.Namespace) -> int:
    """Write the schemas, or say which are out of date; return the exit code."""
    outdated = []
    for name, text in schema_texts().items():
        path = options.out_dir / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            state = "up to date"
        elif options.check:
            state = (
                f"out of date; run: {interpreter()} -m rl schema"
                if path.exists()
                else f"missing; run: {interpreter()} -m rl schema"
            )
            outdated.append(name)
        else:
            write_text(path, text)
            state = "written"
        if not options.quiet or (options.check and name in outdated):
            print(f"{path}: {state}")
    return UNEXPECTED if outdated else OK


def schema_texts() -> dict[str, str]:
    """Return the text of each schema by its file name."""
    return {
        kind.shipped.replace(".yaml", ".schema.json"): json.dumps(_schema(kind), indent=1, ensure_ascii=False)
        + "\n"
        for kind in KINDS
    }


def _schema(kind: _Kind) -> Node:
    path = CONFIG / kind.shipped
    found = _inlined(kind.model.model_json_schema(), {})
    # Finished first, so that what is added there is explained like the rest.
    if kind.finish is not None:
        kind.finish(found)
    _explain(found, (), comments_of(path), listed_keys(path))
    return {"$schema": DIALECT, **found, "title": kind.title}


def _inlined(node: Any, defs: Mapping[str, Any]) -> Any:
    """Return a schema with every reference replaced by what it names: beside one, editors ignore all other words."""
    if isinstance(node, list):
        return [_inlined(each, defs) for each in node]
    if not isinstance(node, dict):
        return node
    defs = node.get("$defs", defs)
    rest = {name: _inlined(value, defs) for name, value in node.items() if name not in ("$defs", "$ref")}
    if "$ref" not in node:
        return rest
    return {**_inlined(copy.deepcopy(defs[node["$ref"].rpartition("/")[2]]), defs), **rest}


def _explain(node: Node, path: KeyPath, comments: Mapping[KeyPath, str], listed: Mapping[str, str]) -> None:
    """Give each key its dotted name as title, and its comment, allowed values and default as description."""
    for name, inner in node.get("properties", {}).items():
        key = (*path, name)
        inner["title"] = dotted(key)
        listed_text = listed.get(".".join(map(str, key[-2:]))) or listed.get(name)
        text = comments.get(key) or listed_text or inner.get("description", "")
        parts = [text.rstrip(".") + "."] if text else []
        default = inner.pop("default", None) if inner.get("type") == "object" else inner.get("default")
        if inner.get("type") != "object":
            parts.append(f"Allowed: {_allowed(inner)}.")
            if "default" in inner and default != "":
                parts.append(f"Default: {json.dumps(default, ensure_ascii=False)}.")
        inner["description"] = " ".join(parts)
        _explain(inner, key, comments, listed)
    for word in ("additionalProperties", "items"):
        if isinstance(node.get(word), dict):
            _explain(node[word], path, comments, listed)
    for alternative in node.get("anyOf", []):
        _explain(alternative, path, comments, listed)


def _allowed(node: Node) -> str:
    """Return which values a schema allows, in words."""
    if "anyOf" in node:
        return " or ".join(_allowed(each) for each in node["anyOf"])
    if "const" in node:
        return str(node["const"])
    if "enum" in node:
        return ", ".join(map(str, node["enum"]))
    kind = node.get("type")
    if kind == "array":
        return "a list; each item: " + _allowed(node["items"])
    bounds = [
        f"{words} {node[word]:,}"
        for word, words in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "more than"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "less than"),
        )
        if word in node
    ]
    names = {"number": "a number", "integer": "a whole number", "boolean": "true or false", "string": "text"}
    names |= {"object": "a block of keys"}
    return " ".join([names.get(str(kind), str(kind)), " and ".join(bounds)]).strip()


# --- what the models leave to other checks --------------------------------------------------------------------


def _finish_plan(schema: Node) -> None:
    """Say what a symbol's block may hold: blocks as in the plan, or dotted keys."""
    own: Node = {}
    for path, node in _paths(schema["properties"], ()):
        if path[0] in SAME_FOR_ALL_SYMBOLS or path in SAME_KEYS_FOR_ALL_SYMBOLS:
            continue
        partly = any(path == shared[:1] for shared in SAME_KEYS_FOR_ALL_SYMBOLS)
        own[".".join(path)] = (
            _without_shared(node, path) if partly else {"$ref": "#/properties/" + "/properties/".join(path)}
        )
    schema["definitions"] = {
        "symbol": {"type": "object", "additionalProperties": False, "properties": own},
    }
    schema["properties"]["symbols"]["additionalProperties"] = {"$ref": "#/definitions/symbol"}


def _without_shared(node: Node, path: tuple[str, ...]) -> Node:
    """Return a block without the keys that are the same for all symbols."""
    shared = {key[-1] for key in SAME_KEYS_FOR_ALL_SYMBOLS if key[:-1] == path}
    kept = {
        name: {"$ref": "#/properties/" + "/properties/".join((*path, name))}
        for name in node["properties"]
        if name not in shared
    }
    return {"type": "object", "additionalProperties": False, "properties": kept}


def _paths(properties: Mapping[str, Node], path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Node]]:
    found = []
    for name, node in properties.items():
        found.append(((*path, name), node))
        found += _paths(node.get("properties", {}), (*path, name))
    return found


def _finish_instruments(schema: Node) -> None:
    """Name the checks of raw files, and allow the short list of instruments in place of the block."""
    for block in ("instruments", "classes", "prefixes", "suffixes"):
        keys = schema["properties"][block]["additionalProperties"]["properties"]
        keys["checks"] |= {
            "additionalProperties": False,
            "properties": {
                name: {"enum": list(check.allowed), "default": check.default, "description": check.rule}
                for name, check in CHECKS.items()
            },
        }
    listed = _inlined(ListedInstrumentsFile.model_json_schema(), {})["properties"]["instruments"]
    entries = schema["properties"]["instruments"]
    either = [{word: entries.pop(word) for word in ("type", "additionalProperties")}, listed]
    schema["properties"]["instruments"] = {**entries, "anyOf": either}


KINDS = (
    _Kind("training_sequence.yaml", "Stagegate: training plan", Plan, _finish_plan),
    _Kind("backtest.yaml", "Stagegate: settings of a backtest", BacktestConfig),
    _Kind("instruments.yaml", "Stagegate: instruments", InstrumentsFile, _finish_instruments),
)
