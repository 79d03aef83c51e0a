"""One model file and its sidecar: complete or absent, and verified before any use.

`<name>.pth` is written by `torch.save` and holds tensors, numbers, strings, lists and dicts only.
`<name>.pth.json` repeats everything readable and holds the SHA-256 of the weights file, since neither zip nor
pickle notices a flipped bit in a weight.

A file is judged in this order, and nothing of it is used before all of it holds: an ordinary file of bearable
size; the hash in the sidecar; the container; the names its pickle asks for; `torch.load(weights_only=True)`;
types, shapes and finiteness; whether network, features, rules and windows fit together and are of bearable size
(`rl.checkpoints.content`); agreement with the sidecar.

Saving over an older pair takes three renames: a sidecar that names both hashes, the weights, the sidecar
alone. Stop anywhere, and what lies there is the old model or the new one.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import math
import os
import pickle
import pickletools
import re
import string
import struct
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rl.checkpoints.content import content_problems
from rl.common.atomic_files import write_bytes, write_text
from rl.common.errors import CheckpointError, ConfigError, MissingPackageError, UsageError
from rl.common.paths import checked_symbol
from rl.common.plain_files import UnfitFileError, read_plain_file

FORMAT_VERSION = 1
"""Raised whenever an older program would misread a newer file."""

STAGES = {
    "ppo": "_ppo_stage1.pth",
    "moe": "_moe_stage2.pth",
    "maml": "_maml_stage3_final.pth",
    "final": "_final_model.pth",
}
"""Stages in training order, and how the file of each ends."""

OLDEST_SAFE_TORCH = (2, 10)
"""Before it, `weights_only=True` could be made to run code (CVE-2025-32434, CVE-2026-24747)."""

LARGEST_FILE_BYTES = 512 << 20
"""Weights files above this are refused unread; the models of the main plan have less than one megabyte."""

LARGEST_SIDECAR_BYTES = 16 << 20
"""Sidecars above this are refused unread."""

LARGEST_PICKLE_BYTES = 2 << 20
"""What describes the tensors in a weights file; examining it takes seconds a megabyte."""

_FORMAT = "stagegate-checkpoint"
_MOST_METADATA_VALUES = 200_000
_DEEPEST_METADATA = 64
_LARGEST_INTEGER = 1 << 256  # states of random generators have 128 bits
_DTYPES = (torch.float32, torch.float64, torch.int32, torch.int64, torch.uint8, torch.bool)
_FILE_KEYS = {"format", "format_version", "metadata", "weights", "extra_tensors"}
_ENTRY_KEYS = {"sha256", "bytes", "metadata"}
_SAFE_NAME = re.compile(r"[A-Za-z0-9_.=^-]+")

# Everything a file of ours asks its reader for. weights_only allows more, some of it expensive:
# bytearray(10**12).
_ALLOWED_GLOBALS = {
    "torch._utils _rebuild_tensor_v2",
    "collections OrderedDict",
    "torch FloatStorage",
    "torch DoubleStorage",
    "torch IntStorage",
    "torch LongStorage",
    "torch ByteStorage",
    "torch BoolStorage",
}
# Everything torch.save writes into its archive.
_MEMBER = re.compile(
    r"[^/]+/(data\.pkl|data/[0-9]+|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id)"
)
# Ways to name or make an object other than GLOBAL; torch.save writes none of them.
_OTHER_CONSTRUCTORS = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"}

# What the readers of zip, pickle and torch are known to raise on damaged or hostile input.
_UNREADABLE = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


class _UnfitError(Exception):
    """What is wrong with a checkpoint's content; the caller knows whether it was read or to be written."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Everything needed to use a model, and to say where it came from.

    Apart from the tensors all of it is plain: None, bool, int, finite float, str, and lists and dicts of
    those. Tuples come back as lists. A figure that cannot be computed is None.
    """

    stage: str
    """ppo, moe, maml or final."""
    symbol: str
    """The symbol the model trades."""
    policy_spec: dict[str, Any]
    """What `build_policy` makes the network from."""
    weights: torch.Tensor
    """All parameters of the policy, in its own order. float32 (P,)"""
    extra_tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    """Further tensors by name, such as MAML's meta-parameters and step sizes."""
    scaler: dict[str, Any]
    """The feature scaler, fitted on the training split."""
    feature_names: list[str]
    """Market features in the order of the observation."""
    action_scheme: str
    """What the action numbers mean."""
    instrument: dict[str, Any]
    """Lot size, calendar, costs and rules of what is traded."""
    trading: dict[str, Any]
    """Stops, reward weights and what else the kernel was run with."""
    splits: dict[str, Any]
    """Boundaries of the data windows, ISO UTC."""
    data_hash: str
    """Hash of the raw data trained on."""
    seed: int
    """Seed of the whole run."""
    plan: dict[str, Any] = field(default_factory=dict)
    """The training plan as run, defaults included."""
    versions: dict[str, Any] = field(default_factory=dict)
    """Versions of Python and the libraries; see `library_versions`."""
    lineage: list[Any] = field(default_factory=list)
    """Where it came from, oldest first; the last entry names the parent's hash."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Figures of its validation."""
    verdict: dict[str, Any] = field(default_factory=dict)
    """What its gate decided; empty where it has not been judged."""
    champion_of: str | None = None
    """In a final model, the stage whose model it is."""
    format_version: int = FORMAT_VERSION
    """Version of the file format."""
    sha256: str | None = None
    """Hash of the file it was loaded from, for the lineage of its children; not written."""

    @property
    def passed(self) -> bool:
        """True where its gate said PASS."""
        return self.verdict.get("outcome") == "PASS"


_METADATA = {
    "stage": str,
    "symbol": str,
    "policy_spec": dict,
    "scaler": dict,
    "feature_names": list,
    "action_scheme": str,
    "instrument": dict,
    "trading": dict,
    "splits": dict,
    "data_hash": str,
    "seed": int,
    "plan": dict,
    "versions": dict,
    "lineage": list,
    "metrics": dict,
    "verdict": dict,
    "champion_of": (str, type(None)),
}


def save_checkpoint(path: Path | str, checkpoint: Checkpoint) -> str:
    """Write a checkpoint and its sidecar so that a crash leaves the previous pair or the new one.

    Equal checkpoints give equal bytes: no time and no file name goes into the file.

    Args:
        path: Where the weights file goes; the sidecar goes beside it.
        checkpoint: What to write.

    Returns:
        SHA-256 of the weights file, for the lineage of models made from it.

    Raises:
        CheckpointError: If a tensor holds what is not finite or has the wrong type, or metadata is not plain.
            Nothing has been written then.
        MissingPackageError: If torch is too old to read it back safely.
        OSError: If the disk refuses; the previous pair is intact.
    """
    require_safe_torch()
    path = Path(path)
    if checkpoint.format_version != FORMAT_VERSION:
        raise _not_written(path, f"its format version is {checkpoint.format_version!r}, not {FORMAT_VERSION}")
    extra = {name: _own_copy(tensor) for name, tensor in checkpoint.extra_tensors.items()}
    try:
        metadata = _checked_metadata({name: getattr(checkpoint, name) for name in _METADATA})
        weights, extra = _checked_tensors(_own_copy(checkpoint.weights), extra)
        _require_usable(metadata, weights, extra)
    except _UnfitError as error:
        raise _not_written(path, str(error)) from error
    content = {
        "format": _FORMAT,
        "format_version": FORMAT_VERSION,
        "metadata": metadata,
        "weights": weights,
        "extra_tensors": extra,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    if len(data) > LARGEST_FILE_BYTES:
        raise _not_written(path, f"it has {len(data)} bytes, and at most {LARGEST_FILE_BYTES} would be read")
    with zipfile.ZipFile(buffer) as archive:
        described = max(member.file_size for member in archive.infolist() if member.filename.endswith(".pkl"))
    if described > LARGEST_PICKLE_BYTES:
        raise _not_written(
            path, f"its metadata have {described} bytes, and at most {LARGEST_PICKLE_BYTES} would be read"
        )
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "metadata": metadata}
    previous = _entry_in_place(path)
    sidecar = {"format": _FORMAT, "format_version": FORMAT_VERSION, **entry}
    if previous is None:
        # Nothing to keep. The sidecar goes first: without weights beside it, nothing is there yet.
        _write_sidecar(path, sidecar)
        write_bytes(path, data)
    else:
        _write_sidecar(path, {**sidecar, "replaces": previous})
        write_bytes(path, data)
        _write_sidecar(path, sidecar)
    return entry["sha256"]


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint after verifying all of it, on the CPU.

    Raises:
        CheckpointError: If a file is missing, a link, too large, truncated, altered, hostile, in another
            format version, or holds what is not finite; the message says which.
        MissingPackageError: If torch is too old to read it safely.
    """
    require_safe_torch()
    path = Path(path)
    data, entry, text = _verified_bytes(path)
    content = _loaded(path, data)
    try:
        if not isinstance(content, dict) or set(content) != _FILE_KEYS or content["format"] != _FORMAT:
            raise _UnfitError("it is not a Stagegate checkpoint")
        _check_version(content["format_version"])
        metadata = _checked_metadata(content["metadata"])
        weights, extra = _checked_tensors(content["weights"], content["extra_tensors"])
        _require_usable(metadata, weights, extra)
    except _UnfitError as error:
        raise _refused(path, str(error)) from error
    try:
        described = _checked_metadata(entry["metadata"])
    except _UnfitError as error:
        raise _refused(sidecar_of(path), str(error)) from error
    differing = [name for name in _METADATA if _canonical(metadata[name]) != _canonical(described[name])]
    if differing:
        raise _refused(sidecar_of(path), f"it differs from its weights file in {', '.join(differing)}")
    if _sidecar_text(json.loads(text)).encode("utf-8") != text:
        # What every check above let pass: a key twice, a number in other words. Ours are written in one way only.
        raise _refused(sidecar_of(path), "it was altered: its text is not the one this program writes")
    return Checkpoint(**metadata, weights=weights, extra_tensors=extra, sha256=entry["sha256"])


def verified_content(path: Path | str, sha256: str) -> Any:
    """Return what `torch.save` wrote into a file, after verifying its hash and that it holds nothing but plain values.

    Args:
        path: The file.
        sha256: What its bytes have to hash to.

    Raises:
        CheckpointError: If it is missing, a link, too large, altered or hostile; the message says which.
        MissingPackageError: If torch is too old to read it safely.
    """
    require_safe_torch()
    path = Path(path)
    data = _read_plain_file(path, LARGEST_FILE_BYTES)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise _refused(path, f"it was altered: its SHA-256 is {found}, and {sha256} was written")
    return _loaded(path, data)


def sidecar_of(path: Path | str) -> Path:
    """Return where the sidecar of a weights file lies: the same name with `.json` added."""
    path = Path(path)
    return path.with_name(path.name + ".json")


def stage_file(symbol: str, stage: str) -> str:
    """Return the file name of a symbol's model after a stage, such as `Nifty_2_ppo_stage1.pth`.

    Raises:
        UsageError: If the symbol may not be part of a file name, or the stage is unknown.
    """
    if stage not in STAGES:
        raise UsageError(f"{stage!r} is not a stage; there are {', '.join(STAGES)}.")
    return checked_symbol(symbol) + STAGES[stage]


def timestamped_name(convention: str, symbol: str, stage: str, algorithm: str, time: datetime) -> str:
    """Return the file name of a dated copy, such as `Nifty_2_stage_1_PPO_20240131T093000Z.pth`.

    Args:
        convention: Text with {symbol}, {stage}, {algorithm} and {timestamp}; the first and last have to
            occur.
        symbol: The symbol traded.
        stage: Name of the stage.
        algorithm: Name of the algorithm.
        time: When the model was made; has to have a time zone.

    Raises:
        ConfigError: If the convention names something else, lacks what keeps copies apart, or leads out of
            the folder.
    """
    if time.tzinfo is None:
        raise ValueError("time has to have a time zone")
    known = {"symbol": checked_symbol(symbol), "stage": stage, "algorithm": algorithm}
    known["timestamp"] = time.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    where = f"model_naming_convention {convention!r}"
    name, used = "", set()
    try:
        parts = list(string.Formatter().parse(convention))
    except ValueError as error:
        raise ConfigError(f"{where} cannot be read: {error}.") from error
    for literal, placeholder, layout, conversion in parts:
        name += literal
        if placeholder is None:
            continue
        if placeholder not in known or layout or conversion:
            raise ConfigError(
                f"{where} uses {{{placeholder}}}; there are {{{'}, {'.join(known)}}}, without options."
            )
        used.add(placeholder)
        name += known[placeholder]
    missing = [key for key in ("symbol", "timestamp") if key not in used]
    if missing:
        raise ConfigError(f"{where} lacks {{{'}, {'.join(missing)}}}; one copy would overwrite another.")
    if not _SAFE_NAME.fullmatch(name) or name.startswith(".") or ".." in name:
        raise ConfigError(f"{where} gives {name!r}; a file name has letters, digits and _ . = ^ - only.")
    return name if name.endswith(".pth") else name + ".pth"


def library_versions() -> dict[str, str]:
    """Return the versions a result depends on: Python, torch, numpy, numba, gymnasium, TA-Lib, pandas, scipy.

    A package that is not installed is left out.
    """
    versions = {"python": sys.version.split()[0]}
    for package in ("torch", "numpy", "numba", "gymnasium", "TA-Lib", "pandas", "scipy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def require_safe_torch(version: str | None = None) -> None:
    """Refuse a torch whose `weights_only=True` can be made to run code.

    Args:
        version: Version text to judge; default that of the torch in use.

    Raises:
        MissingPackageError: If it is older than `OLDEST_SAFE_TORCH`, or its version cannot be read.
    """
    found = torch.__version__ if version is None else version
    match = re.match(r"(\d+)\.(\d+)", found)
    if match is None or (int(match[1]), int(match[2])) < OLDEST_SAFE_TORCH:
        oldest = ".".join(map(str, OLDEST_SAFE_TORCH))
        raise MissingPackageError(
            f"torch {found} is installed, but a model file can run code in torch before {oldest}.\n"
            f'  Install a newer one: pip install "torch>={oldest}"'
        )


def _loaded(path: Path, data: bytes) -> Any:
    _check_container(path, data)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise _refused(path, f"torch cannot read it: {_first_line(error)}") from error


def _verified_bytes(path: Path) -> tuple[bytes, dict[str, Any], bytes]:
    """Return the weights file's bytes, the sidecar's entry about exactly these bytes, and the sidecar's text."""
    seen: tuple[bytes, bytes] | None = None
    while True:
        data = _read_plain_file(path, LARGEST_FILE_BYTES)
        text = _read_plain_file(sidecar_of(path), LARGEST_SIDECAR_BYTES, needed_by=path)
        entries = _sidecar_entries(path, text)
        digest = hashlib.sha256(data).hexdigest()
        for entry in entries:
            if entry["sha256"] == digest:
                return data, entry, text
        # Another process may have renamed a new pair into place between the two reads. Then a second look
        # differs.
        if seen == (data, text):
            break
        seen = (data, text)
    expected = entries[0]
    if len(data) < expected["bytes"]:
        raise _refused(path, f"it is truncated: {len(data)} bytes of {expected['bytes']}")
    if len(data) > expected["bytes"]:
        raise _refused(path, f"it was altered: {len(data)} bytes instead of {expected['bytes']}")
    raise _refused(path, f"it was altered: its SHA-256 is {digest}, the sidecar says {expected['sha256']}")


def _read_plain_file(path: Path, limit: int, needed_by: Path | None = None) -> bytes:
    try:
        data = read_plain_file(path, limit, follow_links=False)
    except UnfitFileError as error:
        raise _refused(path, f"it {error}") from error
    except FileNotFoundError as error:
        if needed_by is not None:
            raise _refused(
                needed_by, f"its sidecar {path.name} is missing, so it cannot be told whether it is whole"
            ) from error
        raise CheckpointError(f"There is no checkpoint at {path}.") from error
    except OSError as error:
        raise _refused(path, f"it cannot be opened: {error.strerror}") from error
    if not data:
        raise _refused(path, "it is empty")
    return data


def _sidecar_entries(path: Path, text: bytes) -> list[dict[str, Any]]:
    """Return what the sidecar says about the weights file, and about the one being replaced if there is."""
    sidecar = sidecar_of(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refused(sidecar, f"it is not JSON: {_first_line(error)}") from error
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
        raise _refused(sidecar, "it is not the sidecar of a Stagegate checkpoint")
    try:
        _check_version(content.pop("format_version", None))
    except _UnfitError as error:
        raise _refused(sidecar, str(error)) from error
    entries = [content]
    if "replaces" in content:
        entries.append(content.pop("replaces"))
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != _ENTRY_KEYS:
            raise _refused(sidecar, "its keys are not those of a sidecar")
        types = (
            isinstance(entry["sha256"], str),
            type(entry["bytes"]) is int,
            isinstance(entry["metadata"], dict),
        )
        if not all(types):
            raise _refused(sidecar, "its values are not of the type a sidecar has")
    return entries


def _entry_in_place(path: Path) -> dict[str, Any] | None:
    """Return the present sidecar's entry about the present weights file; None where they do not fit."""
    if not os.path.lexists(path):
        return None
    try:
        return _verified_bytes(path)[1]
    except CheckpointError:
        # It could not be loaded before either, so there is nothing to protect while it is being replaced.
        return None


def _write_sidecar(path: Path, content: Mapping[str, Any]) -> None:
    write_text(sidecar_of(path), _sidecar_text(content))


def _sidecar_text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"


def _check_container(path: Path, data: bytes) -> None:
    """Refuse a file that is not a plain torch archive before torch sees it."""
    if not data.startswith(b"PK\x03\x04"):
        raise _refused(path, "it is not an archive of torch.save")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if len(set(names)) != len(names):
                raise _refused(path, "its archive holds a name twice")
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise _refused(
                    path, "its archive is compressed; torch.save does not, and a small file could fill memory"
                )
            if any(name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) for name in names):
                raise _refused(path, "its archive names a path outside itself")
            pickles = [name for name in names if name.endswith(".pkl")]
            if len(pickles) != 1:
                raise _refused(path, f"its archive holds {len(pickles)} pickles instead of one")
            if odd := [name for name in names if not _MEMBER.fullmatch(name)]:
                raise _refused(path, f"its archive holds {odd[0]!a:.80}, which torch.save does not write")
            size = archive.getinfo(pickles[0]).file_size
            if size > LARGEST_PICKLE_BYTES:
                raise _refused(
                    path, f"its metadata are too large: {size} bytes, at most {LARGEST_PICKLE_BYTES}"
                )
            program = archive.read(pickles[0])
        for operation, argument, _ in pickletools.genops(program):
            if operation.name in _OTHER_CONSTRUCTORS:
                raise _refused(
                    path, f"its pickle makes objects in a way torch.save does not ({operation.name})"
                )
            if operation.name == "GLOBAL" and argument not in _ALLOWED_GLOBALS:
                wanted = str(argument).replace(" ", ".")
                raise _refused(
                    path, f"its pickle asks for {wanted}, which could run code; it holds more than weights"
                )
    except _UNREADABLE as error:
        raise _refused(path, f"its archive cannot be read: {_first_line(error)}") from error


def _check_version(version: Any) -> None:
    if type(version) is not int or version != FORMAT_VERSION:
        shown = version if type(version) is int else f"of type {type(version).__name__}"
        raise _UnfitError(f"its format version is {shown}, and this program reads {FORMAT_VERSION}")


def _checked_metadata(metadata: Any) -> dict[str, Any]:
    budget = [_MOST_METADATA_VALUES]
    plain = _plain(metadata, "metadata", 0, budget)
    if not isinstance(plain, dict):
        raise _UnfitError("its metadata is not a table")
    for trouble, names in (("lacks", set(_METADATA) - set(plain)), ("holds", set(plain) - set(_METADATA))):
        if names:
            raise _UnfitError(f"its metadata {trouble} {', '.join(sorted(names))}"[:300])
    for name, kind in _METADATA.items():
        if not isinstance(plain[name], kind) or isinstance(plain[name], bool):
            raise _UnfitError(f"{name} has to be {_words(kind)}, but is {type(plain[name]).__name__}")
    if plain["stage"] not in STAGES:
        raise _UnfitError(f"its stage is {plain['stage']!r:.80}; there are {', '.join(STAGES)}")
    if not all(isinstance(name, str) for name in plain["feature_names"]):
        raise _UnfitError("its feature_names are not all text")
    return plain


def _require_usable(
    metadata: dict[str, Any], weights: torch.Tensor, extra: Mapping[str, torch.Tensor]
) -> None:
    if problems := content_problems(metadata, weights, extra):
        raise _UnfitError("; ".join(problems[:5]))


def _plain(value: Any, where: str, depth: int, budget: list[int]) -> Any:
    """Return value as None, bool, int, float, str, list or dict, or say what in it is something else."""
    # A pickle can hold lists that contain themselves, or one list a billion times.
    budget[0] -= 1
    if depth > _DEEPEST_METADATA or budget[0] < 0:
        raise _UnfitError(f"its metadata is too deep or too large at {where[:80]}")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise _UnfitError(f"{where} is {value}; a figure that cannot be computed is None")
    if isinstance(value, int) and abs(value) >= _LARGEST_INTEGER:
        raise _UnfitError(f"{where} is an integer of {value.bit_length()} bits")
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)  # without what a subclass adds
    if isinstance(value, str):
        # Pickle writes a text that is the same object a second time as a reference. Without one object per
        # text, equal checkpoints would give different bytes depending on how they came about.
        return sys.intern(str(value))
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]", depth + 1, budget) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        strange = [key for key in value if not isinstance(key, str)]
        if strange:
            raise _UnfitError(f"{where} has a key of type {type(strange[0]).__name__}; keys are text")
        return {
            sys.intern(str(key)): _plain(item, f"{where}.{key}", depth + 1, budget)
            for key, item in value.items()
        }
    kept = "only plain numbers, text, lists and dicts are kept"
    raise _UnfitError(f"{where} is of type {type(value).__name__}; {kept}")


def _checked_tensors(weights: Any, extra: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    weights = _checked_tensor("weights", weights)
    if weights.dtype != torch.float32 or weights.ndim != 1 or not weights.numel():
        shape = f"{weights.dtype} of shape {tuple(weights.shape)}"
        raise _UnfitError(f"weights have to be one row of float32 numbers, but are {shape}")
    if not isinstance(extra, dict) or not all(isinstance(name, str) for name in extra):
        raise _UnfitError("its extra tensors are not a table by name")
    return weights, {
        sys.intern(str(name)): _checked_tensor(f"extra tensor {name}", tensor)
        for name, tensor in extra.items()
    }


def _checked_tensor(name: str, tensor: Any) -> torch.Tensor:
    if type(tensor) is not torch.Tensor:
        raise _UnfitError(f"{name} is of type {type(tensor).__name__} and not a tensor")
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.dtype not in _DTYPES:
        raise _UnfitError(f"{name} is a tensor of a kind that is not kept: {tensor.dtype}, {tensor.layout}")
    # A tensor can claim a trillion elements over four bytes of storage; only a contiguous one has what it
    # claims.
    if not tensor.is_contiguous() or tensor.requires_grad:
        raise _UnfitError(f"{name} is not a plain contiguous tensor")
    if tensor.is_floating_point():
        bad = torch.nonzero(~torch.isfinite(tensor.reshape(-1)))
        if len(bad):
            first = f"the first at position {int(bad[0, 0])} of {tensor.numel()}"
            raise _UnfitError(f"{name} holds {len(bad)} numbers that are not finite, {first}")
    return tensor


def _own_copy(tensor: Any) -> Any:
    """Return a copy with storage of its own: a view would take all it was cut from into the file."""
    if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
        return tensor
    return tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format).as_subclass(torch.Tensor)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _words(kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join("None" if one is type(None) else one.__name__ for one in kinds)


def _first_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return text[:200] or type(error).__name__


def _refused(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is refused: {reason}.\n"
        "  Restore file and sidecar together from a copy, or train the stage again; nothing is repaired."
    )


def _not_written(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is not written: {reason}.\n  What was there before is untouched.")


# A field added to Checkpoint and forgotten in the table above would be lost on saving.
assert {one.name for one in fields(Checkpoint)} == set(_METADATA) | {
    "weights",
    "extra_tensors",
    "format_version",
    "sha256",
}
