"""Check settings against a pydantic model and report every mistake at once, with its line and column.

    config/training_sequence.yaml:7:5: training_params.ppo.k_epochs: must be a whole number (got 'six')
    config/training_sequence.yaml:8:5: training_params.moe.num_expert: unknown key; did you mean num_experts?
    2 problems; nothing was started.

A settings file is read by `load_yaml`, options of the command line are laid over it by `apply_overrides`, and
`validate` turns the result into a frozen model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rl.common.config_sentences import sentences
from rl.common.strict_yaml import (
    KeyPath,
    LoadedYaml,
    Origin,
    Problem,
    apply_options,
    apply_overrides,
    dotted,
    dump_yaml,
    layered,
    load_yaml,
    refusal,
    written_out,
)

__all__ = [
    "Finding",
    "KeyPath",
    "LoadedYaml",
    "Origin",
    "Problem",
    "Setting",
    "StrictModel",
    "apply_options",
    "apply_overrides",
    "check",
    "dotted",
    "dump_yaml",
    "layered",
    "load_yaml",
    "origins",
    "refusal",
    "validate",
    "written_out",
]

Model = TypeVar("Model", bound=BaseModel)


class Finding(NamedTuple):
    """Something wrong between keys. Paths are relative to the block whose `problems` reports it."""

    at: KeyPath
    """The key to point at."""

    says: str
    """The sentence, worded for whoever wrote the file."""

    reads: tuple[KeyPath, ...] = ()
    """Other keys the sentence depends on: where one of them is itself refused, the finding is left out."""


class StrictModel(BaseModel):
    """A block of settings: frozen, no unknown keys, no conversion between types, no inf or nan."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def problems(self) -> Iterable[Finding]:
        """Return what is wrong between several keys of this block; each key alone is checked by its type."""
        return ()


class Setting(NamedTuple):
    """One setting with where its value comes from."""

    path: KeyPath
    value: Any
    origin: str
    """`default`, `file:line`, `--profile quick`, `--set`, or the option that sets it (`--seed`)."""
    kind: str
    """`default`, `file`, `profile` or `option`; `symbol` where a block of one symbol says it."""
    instead_of: Any = None
    """In a symbol's block: what holds for the others."""

    @property
    def key(self) -> str:
        """Its key as `--set` takes it."""
        return dotted(self.path)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        found = {"key": self.key, "value": self.value, "origin": self.origin, "kind": self.kind}
        return found | ({"instead_of": self.instead_of} if self.kind == "symbol" else {})


def validate(model: type[Model], loaded: LoadedYaml, *, overrides: Sequence[str] = ()) -> Model:
    """Return the settings as a `model`, after laying `overrides` (`KEY=VALUE`) over them.

    Raises:
        ConfigError: Every problem of the text, of each key and between keys, one per line.
    """
    value, problems = check(model, apply_overrides(loaded, overrides))
    if value is None:
        raise refusal(problems)
    return value


def check(model: type[Model], loaded: LoadedYaml) -> tuple[Model | None, list[Problem]]:
    """Return the validated settings and no problem, or None and every problem found."""
    value, errors = _validated(model, loaded.data)
    by_path: dict[KeyPath, list[Mapping[str, Any]]] = {}
    for error in errors:
        by_path.setdefault(_path_in(loaded.data, error), []).append(error)
    problems = list(loaded.problems)
    for path, group in by_path.items():
        problems += [loaded.problem(path, says) for says in sentences(model, path, group)]
    if errors:
        # What is wrong between keys shows in a complete model only, so defaults stand in for refused keys.
        value, _ = _validated(model, _without(loaded.data, by_path))
    if value is not None:
        for finding in _findings(value, ()):
            involved = (finding.at, *finding.reads)
            if not any(_overlap(path, refused) for path in involved for refused in by_path):
                problems.append(loaded.problem(finding.at, finding.says))
    return (None if problems else value), in_order(problems)


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Return each problem once: files before options, then by line and column."""
    return sorted(set(problems), key=lambda problem: (problem.order, problem.key, problem.says))


def origins(model: BaseModel, loaded: LoadedYaml) -> list[Setting]:
    """Return every setting with where its value came from.

    Args:
        model: The validated settings, with defaults filled in.
        loaded: What they were validated from, overrides applied.
    """
    leaves = _leaves(model.model_dump(mode="json", by_alias=True), ())
    return [Setting(path, value, *_from(loaded, path)) for path, value in leaves]


def _from(loaded: LoadedYaml, path: KeyPath) -> tuple[str, str]:
    """Return the origin of a value, and of which kind it is."""
    found = loaded.origins.get(path)
    if found is None:
        return "default", "default"
    if found.key[0] == "symbols" and len(found.key) > 2:
        return found.label, "symbol"
    if found.label.startswith("--"):
        return found.label, "profile" if found.label.startswith("--profile") else "option"
    return found.label, "file"


def _leaves(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    else:
        yield path, value


def _validated(model: type[Model], data: Any) -> tuple[Model | None, Sequence[Mapping[str, Any]]]:
    """Validate in JSON mode: there a list may become a tuple and text a date, but text never a number."""
    try:
        return model.model_validate_json(json.dumps(data), strict=True), ()
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _path_in(data: Any, error: Mapping[str, Any]) -> KeyPath:
    """Return the key an error is about; the names pydantic adds for alternatives it tried are not keys."""
    path: list[str | int] = []
    last = len(error["loc"]) - 1
    for number, step in enumerate(error["loc"]):
        in_list = isinstance(data, list) and isinstance(step, int) and step < len(data)
        if in_list or (isinstance(data, dict) and step in data):
            path.append(step)
            data = data[step]
        elif error["type"] == "missing" and number == last:
            path.append(step)
    return tuple(path)


def _without(data: Any, paths: Iterable[KeyPath], here: KeyPath = ()) -> Any:
    if isinstance(data, dict):
        return {
            name: _without(value, paths, (*here, name))
            for name, value in data.items()
            if (*here, name) not in paths
        }
    if isinstance(data, list):
        return [
            _without(item, paths, (*here, index))
            for index, item in enumerate(data)
            if (*here, index) not in paths
        ]
    return data


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def _findings(value: Any, path: KeyPath) -> Iterator[Finding]:
    if isinstance(value, StrictModel):
        for finding in value.problems():
            reads = tuple((*path, *read) for read in finding.reads)
            yield Finding((*path, *finding.at), finding.says, reads)
    if isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            yield from _findings(getattr(value, name), (*path, info.alias or name))
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _findings(inner, (*path, name))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _findings(inner, (*path, index))
