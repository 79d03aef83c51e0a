"""Model files somebody else made: each by code, in a folder of the test, each with a sidecar that vouches for it.

`CORPUS` maps a name to what damages a good model in place and to words of the reason it has to be refused with.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rl.checkpoints.checkpoint import LARGEST_FILE_BYTES, LARGEST_SIDECAR_BYTES, sidecar_of

Damage = Callable[[Path, Path], None]
"""What it does to a good model file, given a path that exists afterwards if code was run."""


class Hostile(NamedTuple):
    """One way to make a model file."""

    damage: Damage
    says: str
    """Part of the reason it is refused with."""


class RunsCode:
    """Pickles to a call that leaves a mark."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


def torch_bytes(content: object) -> bytes:
    """Return what `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def vouched(path: Path, data: bytes, metadata: dict[str, Any] | None = None) -> None:
    """Put `data` in place of a weights file, with a sidecar that says it is right."""
    path.write_bytes(data)
    sidecar = json.loads(sidecar_of(path).read_text())
    sidecar |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    if metadata is not None:
        sidecar["metadata"] = metadata
    sidecar_of(path).write_text(json.dumps(sidecar, indent=2) + "\n")


def rezipped(data: bytes, changed: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip archive with some members exchanged or added."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in [*old.namelist(), *(name for name in changed if name not in old.namelist())]:
            new.writestr(name, changed[name] if name in changed else old.read(name))
    return target.getvalue()


def pickled_in(path: Path) -> str:
    """Return the name of the pickle inside a weights file."""
    with zipfile.ZipFile(path) as archive:
        return next(name for name in archive.namelist() if name.endswith(".pkl"))


def with_content(change: Callable[[dict[str, Any]], None]) -> Damage:
    """Return a damage that changes what a whole and vouched file says."""

    def damage(path: Path, _: Path) -> None:
        content = copy.deepcopy(torch.load(path, weights_only=True))
        change(content)
        vouched(path, torch_bytes(content), content["metadata"])

    return damage


def with_metadata(*keys: str | int, to: Any) -> Damage:
    """Return a damage that sets one value of the metadata, given by the keys that lead there."""

    def change(content: dict[str, Any]) -> None:
        inner = content["metadata"]
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = to

    return with_content(change)


def with_tensor(name: str, make: Callable[[torch.Tensor], Any]) -> Damage:
    """Return a damage that exchanges the weights or an extra tensor."""

    def change(content: dict[str, Any]) -> None:
        inner = content if name == "weights" else content["extra_tensors"]
        inner[name] = make(content["weights"])

    return with_content(change)


def _changed_bytes(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path, _: vouched(path, change(path.read_bytes()))


def _code_in_pickle(path: Path, canary: Path) -> None:
    content = torch.load(path, weights_only=True)
    vouched(path, torch_bytes({**content, "extra_tensors": RunsCode(canary)}))


def _bare_pickle(path: Path, canary: Path) -> None:
    vouched(path, pickle.dumps(RunsCode(canary)))


def _safetensors(path: Path, _: Path) -> None:
    header = json.dumps({"weights": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}).encode()
    vouched(path, struct.pack("<Q", len(header)) + header + bytes(12))


def _oversized_header(path: Path, _: Path) -> None:
    vouched(path, struct.pack("<Q", 2 << 30) + b"{}")


def _hidden_pickle(path: Path, canary: Path) -> None:
    vouched(path, rezipped(path.read_bytes(), {pickled_in(path): pickle.dumps(RunsCode(canary), protocol=2)}))


def _terabyte(path: Path, _: Path) -> None:
    program = b"\x80\x02c__builtin__\nbytearray\nq\x00\x8a\x06" + struct.pack("<Q", 10**12)[:6] + b"\x85R."
    vouched(path, rezipped(path.read_bytes(), {pickled_in(path): program}))


def _nested(path: Path, _: Path) -> None:
    data = path.read_bytes()
    for _ in range(5):
        data = rezipped(data, {"archive/more.zip": data})
    vouched(path, data)


def _bomb(path: Path, _: Path) -> None:
    vouched(path, rezipped(path.read_bytes(), {"archive/data/9": bytes(200 << 20)}, zipfile.ZIP_DEFLATED))


def _overlapping(path: Path, _: Path) -> None:
    """Let two members of the archive's list point at one place, as bombs that unpack to petabytes do."""
    data = bytearray(path.read_bytes())
    places = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]
    data[places[2] + 42 : places[2] + 46] = data[places[1] + 42 : places[1] + 46]
    vouched(path, bytes(data))


def _duplicate(path: Path, _: Path) -> None:
    data = io.BytesIO(path.read_bytes())
    name = pickled_in(path)
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr(name + "x", pickle.dumps({}, protocol=2))
    raw = data.getvalue().replace((name + "x").encode(), name.encode() + b"\0")
    vouched(path, raw)


def _named(name: str) -> Damage:
    return lambda path, _: vouched(path, rezipped(path.read_bytes(), {name: b"x"}))


def _link(path: Path, _: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _linked_sidecar(path: Path, _: Path) -> None:
    sidecar_of(path).rename(path.with_name("elsewhere.json"))
    sidecar_of(path).symlink_to("elsewhere.json")


def _device(path: Path, _: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _pipe(path: Path, _: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _piped_sidecar(path: Path, _: Path) -> None:
    sidecar_of(path).unlink()
    os.mkfifo(sidecar_of(path))


def _folder(path: Path, _: Path) -> None:
    path.unlink()
    path.mkdir()


def _sidecar(change: Callable[[dict[str, Any]], None]) -> Damage:
    def damage(path: Path, _: Path) -> None:
        sidecar = json.loads(sidecar_of(path).read_text())
        change(sidecar)
        sidecar_of(path).write_text(json.dumps(sidecar, indent=2) + "\n")

    return damage


def _sidecar_text(make: Callable[[str], str]) -> Damage:
    return lambda path, _: sidecar_of(path).write_text(make(sidecar_of(path).read_text())) and None


def _many_keys(path: Path, _: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["metadata"]["plan"] = {f"k{number}": number for number in range(1_000_000)}
    vouched(path, torch_bytes(content))


def _laughs(content: dict[str, Any]) -> None:
    laughs: list[Any] = [1]
    for _ in range(30):
        laughs = [laughs] * 10
    content["metadata"]["lineage"] = laughs


def _without_sidecar_change(change: Callable[[dict[str, Any]], None]) -> Damage:
    def damage(path: Path, _: Path) -> None:
        content = torch.load(path, weights_only=True)
        change(content)
        vouched(path, torch_bytes(content))

    return damage


def _twice(text: str) -> str:
    return text.replace('"seed":', '"seed": 1,\n    "seed":', 1)


def _pad(weights: torch.Tensor) -> torch.Tensor:
    return torch.cat([weights, torch.zeros(1)])


def _nan(weights: torch.Tensor) -> torch.Tensor:
    bad = weights.clone()
    bad[len(bad) // 2] = math.nan
    return bad


SPEC = "policy_spec"
RULES = ("trading", "rules")

CORPUS: dict[str, Hostile] = {
    # Code.
    "a pickle that runs code, in a torch archive": Hostile(_code_in_pickle, "which could run code"),
    "a pickle that runs code, renamed": Hostile(_bare_pickle, "not an archive of torch.save"),
    "a pickle that runs code, hidden in the archive": Hostile(_hidden_pickle, "its pickle"),
    "a pickle that asks for a terabyte": Hostile(_terabyte, "bytearray"),
    "two pickles": Hostile(_named("archive/other.pkl"), "2 pickles instead of one"),
    # The container.
    "a safetensors file under our name": Hostile(_safetensors, "not an archive of torch.save"),
    "a header that claims 2 GB": Hostile(_oversized_header, "not an archive of torch.save"),
    "archives inside archives": Hostile(_nested, "which torch.save does not write"),
    "a small archive that unpacks to 200 MB": Hostile(_bomb, "its archive is compressed"),
    "members that lie over each other": Hostile(_overlapping, "is refused"),
    "a name twice": Hostile(_duplicate, "its archive"),
    "a name that climbs": Hostile(_named("archive/../../etc/passwd"), "names a path outside itself"),
    "an absolute name": Hostile(_named("/etc/passwd"), "names a path outside itself"),
    "a name of Windows that climbs": Hostile(_named("archive\\..\\..\\x"), "names a path outside itself"),
    "cut off, and vouched for": Hostile(_changed_bytes(lambda data: data[:-100]), "archive cannot be read"),
    "half a file, and vouched for": Hostile(_changed_bytes(lambda data: data[: len(data) // 2]), "archive"),
    "four bytes": Hostile(_changed_bytes(lambda data: data[:4]), "archive"),
    "random bytes": Hostile(_changed_bytes(lambda data: os.urandom(len(data))), "not an archive"),
    # The file itself.
    "a link": Hostile(_link, "it is a symbolic link"),
    "a link to an endless device": Hostile(_device, "it is a symbolic link"),
    "a pipe": Hostile(_pipe, "it is not an ordinary file"),
    "a folder": Hostile(_folder, "it is not an ordinary file"),
    "half a gigabyte": Hostile(lambda path, _: os.truncate(path, LARGEST_FILE_BYTES + 1), "it is too large"),
    "nothing": Hostile(lambda path, _: path.write_bytes(b"") and None, "it is empty"),
    "a sidecar that is a link": Hostile(_linked_sidecar, "it is a symbolic link"),
    "a sidecar that is a pipe": Hostile(_piped_sidecar, "it is not an ordinary file"),
    # The sidecar's text.
    "a sidecar of unbearable size": Hostile(
        lambda path, _: os.truncate(sidecar_of(path), LARGEST_SIDECAR_BYTES + 1), "it is too large"
    ),
    "a sidecar nested a million deep": Hostile(_sidecar_text(lambda _: "[" * 1_000_000), "it is not JSON"),
    "a sidecar that lies about the hash": Hostile(
        _sidecar(lambda text: text.update(sha256="0" * 64)), "its SHA-256 is"
    ),
    "a sidecar that lies about the size": Hostile(
        _sidecar(lambda text: text.update(sha256="0" * 64, bytes=7)), "bytes instead of 7"
    ),
    "a sidecar that lies about the verdict": Hostile(
        _sidecar(lambda text: text["metadata"]["verdict"].update(outcome="PROMOTED")),
        "differs from its weights",
    ),
    "a key twice in the sidecar": Hostile(_sidecar_text(_twice), "is refused"),
    "a number of a million digits": Hostile(
        _sidecar_text(lambda text: text.replace('"seed": ', '"seed": ' + "9" * 1_000_000, 1)), "not JSON"
    ),
    # Tensors.
    "weights that are no numbers": Hostile(with_tensor("weights", _nan), "not finite"),
    "weights of the wrong type": Hostile(with_tensor("weights", lambda w: w.double()), "one row of float32"),
    "weights of the wrong shape": Hostile(
        with_tensor("weights", lambda w: w.reshape(1, -1)), "one row of float32"
    ),
    "a tensor that claims a trillion numbers": Hostile(
        with_tensor("weights", lambda _: torch.zeros(1).expand(10**12)), "not a plain contiguous tensor"
    ),
    "one weight too many": Hostile(with_tensor("weights", _pad), "weights, but the file holds"),
    "one weight too few": Hostile(
        with_tensor("weights", lambda w: w[:-1].clone()), "weights, but the file holds"
    ),
    # Metadata.
    "a million keys": Hostile(_many_keys, "its metadata are too large"),
    "one list a billion times": Hostile(_without_sidecar_change(_laughs), "too deep or too large"),
    "a key nobody knows": Hostile(with_metadata("surprise", to=1), "holds surprise"),
    "a symbol that climbs": Hostile(
        with_metadata("symbol", to="../../etc/passwd"), "its symbol cannot be one"
    ),
    "a symbol that moves the cursor": Hostile(
        with_metadata("symbol", to="\x1b[2J"), "its symbol cannot be one"
    ),
    # What a whole file asks for.
    "a network of a trillion inputs": Hostile(
        with_metadata(SPEC, "observations", to=10**12), "policy_spec asks for"
    ),
    "a layer of a trillion units": Hostile(
        with_metadata(SPEC, "expert_hidden", to=[10**12]), "policy_spec asks for"
    ),
    "a million layers": Hostile(with_metadata(SPEC, "expert_hidden", to=[1] * 100_000), "more layers"),
    "layers of no units": Hostile(with_metadata(SPEC, "value_hidden", to=[0]), "policy_spec: value_hidden"),
    "an encoder nobody knows": Hostile(
        with_metadata(SPEC, "encoder", to="os.system"), "encoder has to be one of"
    ),
    "a spec of another network": Hostile(
        with_metadata(SPEC, "expert_hidden", to=[3, 3]), "weights, but the file holds"
    ),
    "an action scheme nobody knows": Hostile(
        with_metadata("action_scheme", to="all in"), "action_scheme is 'all in'"
    ),
    "the actions of another scheme": Hostile(with_metadata("action_scheme", to="orders"), "has 3 actions"),
    "a feature name with markup": Hostile(
        with_metadata("feature_names", 0, to="<script>alert(1)</script>"),
        "other features than its feature_names",
    ),
    "a feature name that moves the cursor": Hostile(
        with_metadata("feature_names", 0, to="\x1b]0;owned\x07"), "cannot be the name of a column"
    ),
    "a feature twice": Hostile(
        with_content(
            lambda c: c["metadata"].update(feature_names=["a"] * len(c["metadata"]["feature_names"]))
        ),
        "a name twice",
    ),
    "a scaler that divides by nothing": Hostile(with_metadata("scaler", "scale", 0, to=0.0), "scaler"),
    "a scaler of enormous numbers": Hostile(with_metadata("scaler", "center", 0, to=10**70), "scaler"),
    "a scaler of text": Hostile(with_metadata("scaler", "center", to="abc"), "scaler"),
    "a scaler of one number too few": Hostile(
        with_content(lambda c: c["metadata"]["scaler"]["scale"].pop()), "scaler"
    ),
    "no rules": Hostile(with_metadata("trading", to={}), "trading has no rules"),
    "a rule nobody knows": Hostile(with_metadata(*RULES, "free_money", to=1.0), "free_money"),
    "a rule that is text": Hostile(with_metadata(*RULES, "exposure", to="all"), "trading.rules.exposure"),
    "an exposure of a billion": Hostile(with_metadata(*RULES, "exposure", to=1e9), "needs more equity"),
    "a margin of nothing": Hostile(with_metadata(*RULES, "margin_rate", to=0.0), "margin_rate"),
    "no windows": Hostile(with_metadata("splits", to={}), "splits name no train window"),
    "a window that is no time": Hostile(
        with_metadata("splits", "test", "first", to="soon"), "no pair of times"
    ),
    "a window of another age": Hostile(
        with_metadata("splits", "test", "first", to="999999-01-01T00:00:00Z"), "no pair of times"
    ),
    "an end of the data that is a list": Hostile(
        with_metadata("splits", "data_end", to=[]), "data_end is no time"
    ),
    "an outcome nobody knows": Hostile(with_metadata("verdict", "outcome", to="BUY"), "verdict.outcome"),
    "a verdict without a level": Hostile(with_metadata("verdict", "level", to=None), "verdict.level"),
    "a verdict whose window is text": Hostile(with_metadata("verdict", "window", to="x"), "verdict.window"),
    "a recipe of a billion steps": Hostile(
        with_metadata("trading", "adaptation", "config", "inner_loop_steps", to=10**9), "inner_loop_steps"
    ),
    "a recipe of a trillion transitions": Hostile(
        with_metadata("trading", "adaptation", "support_steps", to=10**12), "support_steps"
    ),
    "a recipe of minus one bar": Hostile(
        with_metadata("trading", "adaptation", "support_bars", to=-1), "support_bars"
    ),
    "a recipe with a discount of two": Hostile(
        with_metadata("trading", "adaptation", "config", "gamma", to=2.0), "gamma has to lie in"
    ),
    "a recipe that is text": Hostile(
        with_metadata("trading", "adaptation", to="learn"), "recipe of adaptation"
    ),
    "a recipe with a key nobody knows": Hostile(
        with_metadata("trading", "adaptation", "config", "eval", to="1"), "recipe of adaptation"
    ),
    "meta-parameters of another network": Hostile(
        with_tensor("meta_weights", lambda w: w[:-1].clone()), "meta_weights has the shape"
    ),
}
