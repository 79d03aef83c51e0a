"""Read YAML settings without PyYAML's surprises, remembering where every key stands.

PyYAML changes values without a word: `1e-4` is text, `9:15` is 555, `no` is false, `010` is 8, and of two
equal keys the second wins. Here a plain word is a number, true, false or null only where nobody could have
meant text, keys are always text, and what cannot be read with certainty is refused with its line and column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.reader import ReaderError

from rl.common.errors import ConfigError, nearest
from rl.common.plain_files import UnfitFileError, read_plain_file

KeyPath = tuple[str | int, ...]
"""Where a value stands: names of keys, and numbers of list items counted from 0."""

LARGEST_FILE_BYTES = 1 << 20
"""A larger file is something else (a data file given by mistake), and would take minutes to parse."""

MOST_VALUES = 50_000
"""Words and blocks of one file, and what its aliases make of them: nine nested repeats of ten would otherwise fill the
memory, and a file of commas would take a minute to read. A thousand instruments with every key fit."""

DEEPEST_NESTING = 32
"""Levels of blocks and lists. The parser is recursive, and no settings file comes near this."""

OVERRIDE_LAYER = 1_000
"""Layer of the first `--set`: its problems are listed after those of the files."""

OPTION_LAYER = 1_000_000
"""Layer of the first option of its own, such as `--seed`."""


@dataclass(frozen=True)
class Origin:
    """Where one key was written."""

    place: str
    """As problems name it: `config/plan.yaml:7:5`, or `--set training_params.ppo.gamma=0.9`."""

    label: str
    """As a listing of all settings names it: `config/plan.yaml:7`, `--set`, `--seed`, `--profile quick`."""

    order: tuple[int, int, int]
    """Layer, line, column: problems are listed in this order."""

    key: KeyPath
    """The key as its author wrote it; differs from its place in the tree for blocks that were moved."""


@dataclass(frozen=True)
class Problem:
    """One line of a refusal."""

    place: str
    key: str
    says: str
    order: tuple[int, int, int] = (0, 0, 0)

    def __str__(self) -> str:
        if not self.key or self.place.startswith(f"--set {self.key}="):
            return f"{self.place}: {self.says}"
        return f"{self.place}: {self.key}: {self.says}"


def refusal(problems: Iterable[Problem]) -> ConfigError:
    """Return the error that lists these problems, one per line."""
    lines = [str(problem) for problem in problems]
    count = f"{len(lines)} problem{'' if len(lines) == 1 else 's'}; nothing was started."
    return ConfigError("\n".join([*lines, count]))


def _refused(place: str, says: str) -> ConfigError:
    return refusal([Problem(place, "", says)])


def dotted(path: KeyPath) -> str:
    """Return a key path as people write it: `stages[0].gate`; a part with a dot in it is quoted."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (f'"{step}"' if "." in step else step)
    return text


@dataclass(frozen=True)
class LoadedYaml:
    """The settings of one file, or of several laid over one another, with the place of every key.

    `problems` holds what the text itself has wrong (keys written twice). `strict_config.validate` refuses
    them together with its own; whoever uses `data` without it has to look at them.
    """

    path: Path
    data: dict[str, Any]
    origins: Mapping[KeyPath, Origin] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def where(self, path: KeyPath) -> str:
        """Return `file:line:column` of a key, or the option that set it; of the block above if absent."""
        return self.origin(path).place

    def origin(self, path: KeyPath) -> Origin:
        """Return where a key was written; for one that was not, where the nearest block above it was."""
        for length in range(len(path), 0, -1):
            if found := self.origins.get(path[:length]):
                return found
        return Origin(str(self.path), "default", (0, 0, 0), ())

    def problem(self, path: KeyPath, says: str) -> Problem:
        """Return a problem that points at this key and names it as its author wrote it."""
        written = max(
            (length for length in range(1, len(path) + 1) if path[:length] in self.origins), default=0
        )
        origin = self.origin(path[:written])
        return Problem(origin.place, dotted(origin.key + path[written:]), says, origin.order)

    def block(self, path: KeyPath) -> LoadedYaml:
        """Return the block at `path` as settings of its own; problems in it still name keys as written."""
        inner: Any = self.data
        for step in path:
            inner = inner[step]
        depth = len(path)
        below = {
            key[depth:]: origin
            for key, origin in self.origins.items()
            if len(key) > depth and key[:depth] == path
        }
        return LoadedYaml(self.path, inner, below)


# --- words: which plain word is what ------------------------------------------------------------------------

_INT, _FLOAT, _BOOL, _NULL = (f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null"))

_DIGITS = r"(0|[1-9][0-9]*)"
"""A leading zero is octal to some readers and decimal to others, so such a word stays text."""

_PLAIN_WORDS = (
    (_BOOL, r"true|True|TRUE|false|False|FALSE", "tTfF"),
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_INT, r"[-+]?(0|[1-9][0-9]{0,30}|[1-9][0-9]{0,2}(_[0-9]{3}){1,10})", "-+0123456789"),
    (_FLOAT, rf"[-+]?({_DIGITS}(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    (_FLOAT, r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the words above instead of its own."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}  # ty: ignore[incompatible-attribute-override]

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = 0
        self.nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        event = self.peek_event()
        tag = getattr(event, "tag", None)
        if tag is not None:
            # A tag can ask for any Python object to be built; no setting needs one.
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            raise _Unwelcome(
                None, None, f"the tag {shown} is not read; write the plain value", event.start_mark
            )
        self.nodes += 1
        if self.nodes > MOST_VALUES:
            raise _Unwelcome(None, None, f"holds more than {MOST_VALUES:,} values", event.start_mark)
        self.depth += 1
        if self.depth > DEEPEST_NESTING:
            raise _Unwelcome(
                None, None, f"is nested more than {DEEPEST_NESTING} levels deep", event.start_mark
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Unwelcome(yaml.MarkedYAMLError):
    """YAML that is well formed and still not read here."""


class _Dumper(yaml.SafeDumper):
    """Quotes whatever either this module or a plain YAML reader would take for something other than text."""


for _tag, _pattern, _first in _PLAIN_WORDS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), list(_first))


def _plain_value(node: yaml.ScalarNode) -> Any:
    text = node.value
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return text.lower() == "true"
    if node.tag == _INT:
        return int(text.replace("_", ""))
    if node.tag == _FLOAT:
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


# --- reading ------------------------------------------------------------------------------------------------


def load_yaml(path: Path, *, label: str | None = None, layer: int = 0) -> LoadedYaml:
    """Read a YAML file of settings, whose top level is a block of keys.

    Args:
        path: The file; problems name it as given here.
        label: What a listing of all settings says instead of `file:line` (`--profile quick`).
        layer: Number of this file among those laid over one another; problems are listed in that order.

    Raises:
        ConfigError: The file is absent, unreadable, not UTF-8, empty, too large, not YAML, not a block of
        keys, or asks
            for what is not read (tags, aliases without end). Keys written twice are left in `problems`
            instead.
    """
    node = _parse(path, _read_text(path))
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _NULL):
        raise _refused(str(path), "holds no settings (it is empty or has comments only)")
    if not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
        says = f"has to hold 'key: value' lines, but holds {kind}"
        raise _refused(_place(path, node.start_mark), says)
    builder = _Builder(path, label, layer)
    data = builder.build(node, ())
    return LoadedYaml(path, data, builder.origins, tuple(builder.problems))


def dump_yaml(data: Mapping[str, Any], *, width: float = 120, in_one_line: bool = False) -> str:
    """Return `data` as YAML that `load_yaml`, and any other YAML reader, gives back unchanged.

    Args:
        data: What to write.
        width: Longer texts are folded over several lines.
        in_one_line: Whether lists are written as `[1, 2]`.
    """
    style = None if in_one_line else False
    return yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=style, width=width
    )


def _place(path: Path, mark: yaml.Mark | None) -> str:
    return f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)


def _read_text(path: Path) -> str:
    try:
        raw = read_plain_file(path, LARGEST_FILE_BYTES)
    except UnfitFileError as error:
        raise _refused(str(path), f"{error}; settings are text in a small file of their own") from None
    except FileNotFoundError:
        names = nearest(path.name, [file.name for file in path.parent.glob("*.y*ml")], count=1)
        hint = f"; did you mean {path.parent / names[0]}?" if names else ""
        raise _refused(str(path), f"there is no such file{hint}") from None
    except OSError as error:
        raise _refused(str(path), f"cannot be read ({error.strerror})") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        says = f"byte {error.object[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        raise _refused(f"{path}:{line}:{column}", says) from error


def _parse(path: Path, text: str) -> yaml.Node | None:
    try:
        return _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _refused(_place(path, mark), _syntax_sentence(error)) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        says = f"character {ord(text[error.position]):#06x} may not stand in YAML"
        raise _refused(f"{path}:{line}:{column}", says) from error


def _syntax_sentence(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or str(error)
    if isinstance(error, _Unwelcome):
        return problem
    if "'\\t'" in problem:
        return "is not valid YAML: there is a tab character; YAML is indented with spaces"
    if "another document" in problem:
        return "a second document starts here (---); a settings file holds one"
    here, start = error.problem_mark, error.context_mark
    began = (
        f" ({error.context}, which starts on line {start.line + 1})"
        if start and here and start.line != here.line
        else ""
    )
    return f"is not valid YAML: {problem}{began}"


def _is_half(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


class _Builder:
    """Turns YAML nodes into plain values, noting the place of every key and each key written twice."""

    def __init__(self, path: Path, label: str | None, layer: int) -> None:
        self.path, self.label, self.layer = path, label, layer
        self.origins: dict[KeyPath, Origin] = {}
        self.problems: list[Problem] = []
        self._values = 0
        self._open: set[int] = set()

    def build(self, node: yaml.Node, key: KeyPath) -> Any:
        """Return the value of `node`, which stands at `key`."""
        self._values += 1
        if self._values > MOST_VALUES:
            says = f"its aliases expand to more than {MOST_VALUES:,} values"
            raise _refused(_place(self.path, node.start_mark), says)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, key)
        if id(node) in self._open:
            raise _refused(
                _place(self.path, node.start_mark), f"{dotted(key)} contains itself through an alias"
            )
        self._open.add(id(node))
        value = self._mapping(node, key) if isinstance(node, yaml.MappingNode) else self._sequence(node, key)
        self._open.remove(id(node))
        return value

    def _scalar(self, node: yaml.ScalarNode, key: KeyPath) -> Any:
        if _is_half(node.value):
            self._refuse(node.start_mark, key, "holds half of a character (a lone surrogate escape)")
            return ""
        return _plain_value(node)

    def _sequence(self, node: yaml.Node, key: KeyPath) -> list[Any]:
        for index, item in enumerate(node.value):
            self._note((*key, index), item.start_mark)
        return [self.build(item, (*key, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.Node, key: KeyPath) -> dict[str, Any]:
        built: dict[str, Any] = {}
        first_line: dict[str, int] = {}
        for name_node, value_node in node.value:
            mark = name_node.start_mark
            if not isinstance(name_node, yaml.ScalarNode):
                self._refuse(mark, key, "a key has to be one word, not a list or a block")
                continue
            # Keys stay as written: NO, 600519 and 2024-01-01 are names here, never false, a number or a date.
            name = name_node.value
            if _is_half(name):
                self._refuse(mark, key, "a key holds half of a character (a lone surrogate escape)")
            elif name == "<<":
                self._refuse(mark, (*key, name), "blocks are not merged by <<; write the keys out")
            elif name in built:
                says = f"is written twice in this block; the first one is on line {first_line[name]}"
                self._refuse(mark, (*key, name), says)
            else:
                first_line[name] = self._order(mark)[1]
                self._note((*key, name), mark)
                built[name] = self.build(value_node, (*key, name))
        return built

    def _refuse(self, mark: yaml.Mark | None, key: KeyPath, says: str) -> None:
        self.problems.append(Problem(_place(self.path, mark), dotted(key), says, self._order(mark)))

    def _note(self, key: KeyPath, mark: yaml.Mark | None) -> None:
        order = self._order(mark)
        self.origins[key] = Origin(
            _place(self.path, mark), self.label or f"{self.path}:{order[1]}", order, key
        )

    def _order(self, mark: yaml.Mark | None) -> tuple[int, int, int]:
        return (self.layer, mark.line + 1, mark.column + 1) if mark else (self.layer, 0, 0)


# --- layers: a profile over a file, --set over both ---------------------------------------------------------


def layered(base: LoadedYaml, over: LoadedYaml) -> LoadedYaml:
    """Lay one set of settings over another: blocks are merged, anything else (lists too) is replaced."""
    origins = dict(base.origins)
    data = _merge(base.data, over.data, (), origins, over.origins)
    return LoadedYaml(base.path, data, origins, base.problems + over.problems)


def _merge(
    base: Any, over: Any, path: KeyPath, origins: dict[KeyPath, Origin], new: Mapping[KeyPath, Origin]
) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        inner = {
            name: _merge(base.get(name), value, (*path, name), origins, new) for name, value in over.items()
        }
        return base | inner
    depth = len(path)
    for key in [key for key in origins if key[:depth] == path]:
        del origins[key]
    origins.update({key: origin for key, origin in new.items() if key[:depth] == path})
    return over


_KEY_PART = re.compile(r"\"([^\"]+)\"|([^.\"]+)")
_DOTTED_KEY = re.compile(r"(\"[^\"]+\"|[^.\"]+)(\.(\"[^\"]+\"|[^.\"]+))*")


def apply_overrides(loaded: LoadedYaml, overrides: Sequence[str]) -> LoadedYaml:
    """Lay `KEY=VALUE` settings of the command line over those of a file; of two, the later wins.

    KEY is dotted (`training_params.ppo.gamma`); a part with a dot in it is quoted (`symbols."BHP.AX".seed`).
    VALUE is read by the rules of the file, so `1e-4` is a number and `[1, 2]` a list. Whether such a key
    exists is for `validate` to say.
    """
    for number, text in enumerate(overrides):
        loaded = layered(loaded, _override(text, (OVERRIDE_LAYER + number, 0, 0)))
    return loaded


def _override(text: str, order: tuple[int, int, int]) -> LoadedYaml:
    option = Path("--set")
    place = f"{option} {text}"
    name, equals, value_text = text.partition("=")
    name = name.strip()
    if not equals or name.count(".") > DEEPEST_NESTING or not _DOTTED_KEY.fullmatch(name):
        says = "is not KEY=VALUE with a dotted key, such as training_params.ppo.learning_rate=0.0003"
        return LoadedYaml(option, {}, {}, (Problem(place, "", says, order),))
    key = tuple(quoted or plain for quoted, plain in _KEY_PART.findall(name))
    try:
        node = _parse(option, value_text)
    except ConfigError:
        says = "the value is not valid YAML; put quotes around text that has any of : # [ ] { } in it"
        return LoadedYaml(option, {}, {}, (Problem(place, "", says, order),))
    builder = _Builder(option, None, 0)
    data: Any = None if node is None else builder.build(node, key)
    for step in reversed(key):
        data = {step: data}
    paths = [key[: length + 1] for length in range(len(key))] + list(builder.origins)
    problems = tuple(Problem(place, found.key, found.says, order) for found in builder.problems)
    return LoadedYaml(option, data, {path: Origin(place, "--set", order, path) for path in paths}, problems)


def apply_options(loaded: LoadedYaml, given: Mapping[str, tuple[str, Any]]) -> LoadedYaml:
    """Lay values that have an option of their own over settings; they win over `--set`.

    Args:
        loaded: The settings.
        given: Option and value by the key it sets: `{"seed": ("--seed", 5)}`.
    """
    for number, (key, (option, value)) in enumerate(given.items()):
        origin = Origin(f"{option} {value}", option, (OPTION_LAYER + number, 0, 0), (key,))
        loaded = layered(loaded, LoadedYaml(Path(option), {key: value}, {(key,): origin}))
    return loaded


def written_out(loaded: LoadedYaml, path: KeyPath) -> LoadedYaml:
    """Return settings with the dotted keys of the block at `path` written out as blocks.

    `environment.exposure: 0.5` becomes `environment: {exposure: 0.5}`. Of a key that stands there in both ways the one
    of the later layer counts; in one layer it is written twice, which is a problem.
    """
    block: Any = loaded.data
    for step in path:
        block = block[step]
    names = [name for name in block if "." in name]
    found = _without_keys(loaded, path, names)
    for name in sorted(names, key=lambda name: loaded.origin((*path, name)).order):
        steps = (*path, *name.split("."))
        for rest, value in _values_of(block[name], ()):
            found = _with_value(found, (*steps, *rest), value, _moved(loaded, (*path, name), steps, rest))
    return found


def _without_keys(loaded: LoadedYaml, path: KeyPath, names: Sequence[str]) -> LoadedYaml:
    gone, depth = {(*path, name) for name in names}, len(path) + 1
    origins = {key: origin for key, origin in loaded.origins.items() if key[:depth] not in gone}
    return LoadedYaml(loaded.path, _without_values(loaded.data, path, names), origins, loaded.problems)


def _without_values(data: Any, path: KeyPath, names: Sequence[str]) -> Any:
    if not path:
        return {name: value for name, value in data.items() if name not in names}
    return data | {path[0]: _without_values(data[path[0]], path[1:], names)}


def _values_of(value: Any, path: KeyPath) -> Iterable[tuple[KeyPath, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _values_of(inner, (*path, name))
    else:
        yield path, value


def _moved(loaded: LoadedYaml, old: KeyPath, new: KeyPath, rest: KeyPath) -> dict[KeyPath, Origin]:
    """Return the origins of a value and of the blocks around it, at its new place."""
    depth = len(old)
    own = loaded.origin((*old, *rest))
    around = {(*new, *rest)[:length]: own for length in range(1, len(new) + len(rest))}
    inside = {
        (*new, *key[depth:]): origin
        for key, origin in loaded.origins.items()
        if key[: depth + len(rest)] == (*old, *rest)
    }
    return {
        key: Origin(origin.place, origin.label, origin.order, key)
        for key, origin in {**around, **inside}.items()
    }


def _with_value(
    loaded: LoadedYaml, path: KeyPath, value: Any, origins: Mapping[KeyPath, Origin]
) -> LoadedYaml:
    there = _in_the_way(loaded.data, path)
    if there is not None and (before := loaded.origins.get(there)) is not None:
        own = origins[path]
        if before.order[0] > own.order[0]:
            return loaded
        if before.order[0] == own.order[0]:
            says = f"is written twice in this block; it also stands at {before.place}"
            twice = Problem(own.place, dotted(path), says, own.order)
            return LoadedYaml(loaded.path, loaded.data, loaded.origins, (*loaded.problems, twice))
    data: Any = value
    for step in reversed(path):
        data = {str(step): data}
    # A block that is there already keeps the place where it was first written.
    kept = {
        key: origin for key, origin in origins.items() if len(key) >= len(path) or key not in loaded.origins
    }
    merged = layered(loaded, LoadedYaml(loaded.path, data, kept))
    return LoadedYaml(loaded.path, merged.data, {**kept, **merged.origins}, merged.problems)


def _in_the_way(data: Any, path: KeyPath) -> KeyPath | None:
    """Return the longest part of a path at which a value stands; None where there is none, or blocks only."""
    for length, step in enumerate(path, start=1):
        if not isinstance(data, dict) or step not in data:
            return None
        data = data[step]
        if not isinstance(data, dict) or length == len(path):
            return path[:length]
    return None
