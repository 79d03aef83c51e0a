"""Model files: what comes back, what is refused and why, and what a crash leaves."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickle
import signal
import struct
import time
import zipfile
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import torch

import rl.checkpoints.checkpoint as module
from rl.checkpoints.checkpoint import (
    Checkpoint,
    library_versions,
    load_checkpoint,
    require_safe_torch,
    save_checkpoint,
    sidecar_of,
    stage_file,
    timestamped_name,
)
from rl.common.errors import CheckpointError, ConfigError, MissingPackageError, UsageError
from tests.unit.checkpoints.sound_model import COUNT, sound_content


def small_checkpoint(first_weight: float = 0.5, **changes) -> Checkpoint:
    content = sound_content(first_weight)
    content["metrics"]["small"] = 1e-8
    content["extra_tensors"] = {"meta_weights": torch.ones(2, 3, dtype=torch.float64)}
    return Checkpoint(**{**content, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "Nifty_2_maml_stage3_final.pth"


@pytest.fixture
def saved(path: Path) -> Path:
    save_checkpoint(path, small_checkpoint())
    return path


def assert_same(found: Checkpoint, expected: Checkpoint) -> None:
    for one in fields(Checkpoint):
        if one.name not in ("weights", "extra_tensors", "sha256"):
            assert getattr(found, one.name) == getattr(expected, one.name), one.name
    assert torch.equal(found.weights, expected.weights)
    assert list(found.extra_tensors) == list(expected.extra_tensors)
    for name, tensor in expected.extra_tensors.items():
        assert found.extra_tensors[name].dtype == tensor.dtype
        assert torch.equal(found.extra_tensors[name], tensor)


def rewrap(path: Path, data: bytes) -> None:
    """Put `data` in place of the weights file, with a sidecar that vouches for it, as an attacker would."""
    path.write_bytes(data)
    sidecar = json.loads(sidecar_of(path).read_text())
    sidecar |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    sidecar_of(path).write_text(json.dumps(sidecar, indent=2) + "\n")


def torch_bytes(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def content_of(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def rezipped(data: bytes, changed: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in [*old.namelist(), *(name for name in changed if name not in old.namelist())]:
            new.writestr(name, changed[name] if name in changed else old.read(name))
    return target.getvalue()


# --- what comes back ----------------------------------------------------------------------------------------


def test_everything_comes_back_as_it_was_saved(saved):
    assert_same(load_checkpoint(saved), small_checkpoint())


def test_the_hash_returned_by_saving_is_that_of_the_file_and_comes_back_with_it(path):
    digest = save_checkpoint(path, small_checkpoint())
    assert load_checkpoint(path).sha256 == digest
    assert json.loads(sidecar_of(path).read_text())["sha256"] == digest
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_equal_checkpoints_give_equal_bytes_wherever_they_lie(tmp_path):
    first, second = tmp_path / "a.pth", tmp_path / "folder" / "b_with_another_name.pth"
    assert save_checkpoint(first, small_checkpoint()) == save_checkpoint(second, small_checkpoint())
    assert first.read_bytes() == second.read_bytes()


def test_a_loaded_checkpoint_saves_to_the_same_bytes(saved, tmp_path):
    again = tmp_path / "again.pth"
    save_checkpoint(again, load_checkpoint(saved))
    assert again.read_bytes() == saved.read_bytes()


def test_equal_texts_that_are_different_objects_give_equal_bytes(path, tmp_path):
    """Pickle tells one text used twice from two equal ones; a resumed run would then differ from a whole one."""
    first, second = "alpha beta".title(), "ALPHA BETA".title()
    assert first is not second
    once, twice = [first, first], [first, second]
    other = tmp_path / "other.pth"
    assert save_checkpoint(path, small_checkpoint(lineage=once)) == save_checkpoint(
        other, small_checkpoint(lineage=twice)
    )


def test_the_sidecar_can_be_read_by_people(saved):
    sidecar = json.loads(sidecar_of(saved).read_text())
    assert sidecar["metadata"]["verdict"]["outcome"] == "PASS"
    assert sidecar["metadata"]["feature_names"] == ["return_1", "x_regime"]
    assert sidecar["bytes"] == saved.stat().st_size
    assert sidecar_of(saved).name == "Nifty_2_maml_stage3_final.pth.json"
    assert "replaces" not in sidecar


def test_numpy_numbers_and_tuples_come_back_plain(path):
    save_checkpoint(path, small_checkpoint(metrics={"n": np.int64(3), "x": np.float32(0.5), "pair": (1, 2)}))
    metrics = load_checkpoint(path).metrics
    assert metrics == {"n": 3, "x": 0.5, "pair": [1, 2]}
    assert type(metrics["n"]) is int


def test_states_of_random_generators_fit(path):
    state = np.random.default_rng(1).bit_generator.state
    save_checkpoint(path, small_checkpoint(plan={"generator": state}))
    assert load_checkpoint(path).plan["generator"] == state


def test_a_view_does_not_take_along_what_it_was_cut_from(path):
    save_checkpoint(path, small_checkpoint(weights=torch.zeros(1_000_000)[:COUNT]))
    assert path.stat().st_size < 20_000


def test_parameters_that_require_gradients_are_saved_as_numbers(path):
    save_checkpoint(path, small_checkpoint(weights=torch.nn.Parameter(torch.ones(COUNT))))
    weights = load_checkpoint(path).weights
    assert type(weights) is torch.Tensor
    assert not weights.requires_grad


def test_a_checkpoint_knows_whether_its_gate_was_passed():
    assert small_checkpoint().passed
    assert not small_checkpoint(verdict={"outcome": "INCONCLUSIVE"}).passed
    assert not small_checkpoint(verdict={}).passed


def test_nothing_but_the_pair_is_left_in_the_folder(saved):
    save_checkpoint(saved, small_checkpoint(2.0))
    assert sorted(saved.parent.iterdir()) == [saved, sidecar_of(saved)]
    assert load_checkpoint(saved).weights[0] == 2.0


# --- what is not written ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_never_saved(saved, bad):
    before = saved.read_bytes(), sidecar_of(saved).read_bytes()
    with pytest.raises(
        CheckpointError, match="not written: weights holds 1 numbers that are not finite, the first at"
    ):
        save_checkpoint(saved, small_checkpoint(bad))
    assert (saved.read_bytes(), sidecar_of(saved).read_bytes()) == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"extra_tensors": {"m": torch.tensor([[0.0, math.nan]])}},
            "extra tensor m holds 1 .* position 1 of 2",
        ),
        ({"extra_tensors": {"m": [1.0]}}, "extra tensor m is of type list"),
        ({"extra_tensors": {"m": torch.zeros(2, dtype=torch.complex64)}}, "of a kind that is not kept"),
        ({"extra_tensors": {"m": torch.zeros(2, 2).to_sparse()}}, "of a kind that is not kept"),
        ({"weights": torch.zeros(2, dtype=torch.float64)}, "one row of float32"),
        ({"weights": torch.zeros(2, 2)}, "one row of float32"),
        ({"weights": torch.zeros(0)}, "one row of float32"),
        ({"weights": [0.0]}, "weights is of type list"),
        ({"metrics": {"sharpe": math.nan}}, "metadata.metrics.sharpe is nan; .* is None"),
        ({"scaler": {"median": np.zeros(2)}}, "metadata.scaler.median is of type ndarray"),
        ({"plan": {5: "five"}}, "metadata.plan has a key of type int"),
        ({"plan": {"path": Path("x")}}, "metadata.plan.path is of type"),
        ({"lineage": [[1, {"a": {1, 2}}]]}, r"metadata.lineage\[0\]\[1\].a is of type set"),
        ({"seed": 1 << 300}, "an integer of 301 bits"),
        ({"seed": "7"}, "seed has to be int, but is str"),
        ({"seed": True}, "seed has to be int, but is bool"),
        ({"stage": "dqn"}, "its stage is 'dqn'; there are ppo, moe, maml, final"),
        ({"feature_names": ["a", 1]}, "feature_names are not all text"),
        ({"champion_of": 3}, "champion_of has to be str or None"),
        ({"format_version": 2}, "its format version is 2, not 1"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(path, changes, reason):
    with pytest.raises(CheckpointError, match=f"not written: .*{reason}"):
        save_checkpoint(path, small_checkpoint(**changes))
    assert list(path.parent.iterdir()) == []


def test_metadata_that_contains_itself_is_not_written(path):
    plan: dict = {}
    plan["self"] = plan
    with pytest.raises(CheckpointError, match="too deep or too large"):
        save_checkpoint(path, small_checkpoint(plan=plan))


# --- damage -------------------------------------------------------------------------------------------------


def test_every_one_of_300_flipped_bits_is_noticed(saved):
    """Neither zip nor pickle notices a flipped bit in a weight; the hash notices each."""
    data = saved.read_bytes()
    places = np.random.default_rng(0).choice(len(data) * 8, size=300, replace=False)
    for place in places:
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << (place % 8)
        saved.write_bytes(flipped)
        with pytest.raises(CheckpointError, match="it was altered: its SHA-256 is"):
            load_checkpoint(saved)
    saved.write_bytes(data)
    load_checkpoint(saved)


def test_every_one_of_300_flipped_bits_of_the_sidecar_is_noticed(saved):
    """Also one that changes no value, such as an exponent written 1E-8."""
    text = sidecar_of(saved).read_bytes()
    places = set(np.random.default_rng(1).choice(len(text) * 8, size=300, replace=False).tolist())
    places |= {8 * place + 5 for place in range(len(text)) if text[place : place + 2] == b"e-"}
    for place in sorted(places):
        flipped = bytearray(text)
        flipped[place // 8] ^= 1 << (place % 8)
        sidecar_of(saved).write_bytes(flipped)
        with pytest.raises(CheckpointError):
            load_checkpoint(saved)
    assert b"e-" in text
    sidecar_of(saved).write_bytes(text)
    load_checkpoint(saved)


def test_a_changed_figure_in_the_sidecar_is_refused_by_name(saved):
    sidecar = json.loads(sidecar_of(saved).read_text())
    sidecar["metadata"]["metrics"]["sharpe_ratio"] = 9.0
    sidecar_of(saved).write_text(json.dumps(sidecar))
    with pytest.raises(
        CheckpointError, match=r"\.pth\.json is refused: it differs from its weights file in metrics"
    ):
        load_checkpoint(saved)


@pytest.mark.parametrize("kept", [1, 3, 100, 0.5, -1])
def test_a_truncated_file_is_refused_with_both_lengths(saved, kept):
    data = saved.read_bytes()
    length = int(len(data) * kept) if isinstance(kept, float) else kept % len(data)
    saved.write_bytes(data[:length])
    with pytest.raises(CheckpointError, match=f"it is truncated: {length} bytes of {len(data)}"):
        load_checkpoint(saved)


def test_a_file_with_something_behind_it_is_refused(saved):
    saved.write_bytes(saved.read_bytes() + b"x")
    with pytest.raises(CheckpointError, match=r"it was altered: .* bytes instead of"):
        load_checkpoint(saved)


def test_an_empty_file_is_refused(saved):
    saved.write_bytes(b"")
    with pytest.raises(CheckpointError, match="it is empty"):
        load_checkpoint(saved)


def test_a_missing_file_and_a_missing_sidecar_are_told_apart(saved):
    sidecar_of(saved).unlink()
    with pytest.raises(CheckpointError, match=r"its sidecar Nifty_2_maml_stage3_final\.pth\.json is missing"):
        load_checkpoint(saved)
    saved.unlink()
    with pytest.raises(CheckpointError, match="There is no checkpoint at"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[1]", "not the sidecar of a Stagegate checkpoint"),
        ('{"format": "stagegate-checkpoint"}', "format version is of type NoneType"),
        ('{"format": "stagegate-checkpoint", "format_version": 1}', "keys are not those of a sidecar"),
        (
            '{"format": "stagegate-checkpoint", "format_version": 1, "sha256": 1, "bytes": 1, "metadata": 1}',
            "not of the type",
        ),
    ],
)
def test_a_sidecar_that_is_none_is_refused(saved, text, reason):
    sidecar_of(saved).write_text(text)
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(saved)


def test_another_format_version_is_refused_with_both_numbers(saved):
    sidecar = json.loads(sidecar_of(saved).read_text())
    sidecar_of(saved).write_text(json.dumps({**sidecar, "format_version": 2}))
    with pytest.raises(CheckpointError, match="its format version is 2, and this program reads 1"):
        load_checkpoint(saved)
    sidecar_of(saved).write_text(json.dumps(sidecar))
    rewrap(saved, torch_bytes({**content_of(saved), "format_version": 3}))
    with pytest.raises(CheckpointError, match="its format version is 3, and this program reads 1"):
        load_checkpoint(saved)


# --- hostile files, each with a sidecar that vouches for it -------------------------------------------------


class RunsCode:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_pickle_that_runs_code_does_not_run(saved, tmp_path):
    marker = tmp_path / "code ran"
    content = {**content_of(saved), "extra_tensors": RunsCode(marker)}
    rewrap(saved, torch_bytes(content))
    with pytest.raises(CheckpointError, match=r"its pickle asks for posix\.mkdir, which could run code"):
        load_checkpoint(saved)
    assert not marker.exists()
    # The file is as dangerous as it says.
    torch.load(saved, weights_only=False)
    assert marker.exists()


def test_the_reader_of_torch_refuses_code_too(saved, tmp_path, monkeypatch):
    """Two locks: what the list of allowed names let through, weights_only would still refuse."""
    marker = tmp_path / "code ran"
    rewrap(saved, torch_bytes({**content_of(saved), "extra_tensors": RunsCode(marker)}))
    monkeypatch.setattr(module, "_ALLOWED_GLOBALS", {*module._ALLOWED_GLOBALS, "posix mkdir", "nt mkdir"})
    with pytest.raises(CheckpointError, match="torch cannot read it"):
        load_checkpoint(saved)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_bare_pickle_under_our_name_does_not_run(saved, tmp_path, protocol):
    marker = tmp_path / "code ran"
    rewrap(saved, pickle.dumps(RunsCode(marker), protocol=protocol))
    with pytest.raises(CheckpointError, match=r"not an archive of torch\.save"):
        load_checkpoint(saved)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_hidden_in_a_torch_archive_does_not_run(saved, tmp_path, protocol):
    marker = tmp_path / "code ran"
    hidden = pickle.dumps(RunsCode(marker), protocol=protocol)
    rewrap(saved, rezipped(saved.read_bytes(), {"archive/data.pkl": hidden}))
    with pytest.raises(CheckpointError, match=r"its pickle (asks for|makes objects)"):
        load_checkpoint(saved)
    assert not marker.exists()


def test_a_second_pickle_is_refused(saved):
    rewrap(saved, rezipped(saved.read_bytes(), {"archive/other.pkl": b"."}))
    with pytest.raises(CheckpointError, match="2 pickles instead of one"):
        load_checkpoint(saved)


def test_a_pickle_that_asks_for_a_terabyte_is_refused(saved):
    # bytearray is allowed by weights_only.
    program = b"\x80\x02c__builtin__\nbytearray\nq\x00\x8a\x06" + struct.pack("<Q", 10**12)[:6] + b"\x85R."
    rewrap(saved, rezipped(saved.read_bytes(), {"archive/data.pkl": program}))
    with pytest.raises(CheckpointError, match=r"its pickle asks for __builtin__\.bytearray"):
        load_checkpoint(saved)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_name_twice_is_refused(saved):
    """Two readers of the same zip may take different ones."""
    data = io.BytesIO(rezipped(saved.read_bytes(), {}))
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
    rewrap(saved, data.getvalue())
    with pytest.raises(CheckpointError, match="its archive holds a name twice"):
        load_checkpoint(saved)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(saved):
    bomb = rezipped(saved.read_bytes(), {"archive/data/9": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    rewrap(saved, bomb)
    with pytest.raises(CheckpointError, match="its archive is compressed"):
        load_checkpoint(saved)


def test_a_path_out_of_the_archive_is_refused(saved):
    rewrap(saved, rezipped(saved.read_bytes(), {"archive/../../../etc/passwd": b"x"}))
    with pytest.raises(CheckpointError, match="names a path outside itself"):
        load_checkpoint(saved)


def test_a_tensor_that_claims_more_than_its_storage_is_refused(saved):
    endless = torch.zeros(1).expand(10**12)
    rewrap(saved, torch_bytes({**content_of(saved), "weights": endless}))
    with pytest.raises(CheckpointError, match="weights is not a plain contiguous tensor"):
        load_checkpoint(saved)
    good = torch_bytes(content_of(saved) | {"weights": torch.zeros(77)})
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        program = archive.read("archive/data.pkl")
    assert program.count(b"KM") >= 1
    rewrap(saved, rezipped(good, {"archive/data.pkl": program.replace(b"KM", b"K\xff")}))
    with pytest.raises(CheckpointError, match="torch cannot read it"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("weights", torch.tensor([math.nan]), "not finite"),
        ("weights", torch.zeros(3, dtype=torch.float64), "one row of float32"),
        ("weights", torch.zeros(3, dtype=torch.complex64), "its pickle asks for torch.ComplexFloatStorage"),
        (
            "weights",
            torch.nn.Parameter(torch.zeros(3)),
            "its pickle asks for torch._utils._rebuild_parameter",
        ),
        ("weights", "none", "weights is of type str"),
        ("extra_tensors", [torch.zeros(1)], "not a table by name"),
        ("metadata", {"stage": "ppo"}, "its metadata lacks"),
        ("metadata", [], "its metadata is not a table"),
        ("format", "another", "not a Stagegate checkpoint"),
    ],
)
def test_content_of_the_wrong_kind_is_refused(saved, key, value, reason):
    rewrap(saved, torch_bytes({**content_of(saved), key: value}))
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(saved)


def test_metadata_with_a_further_key_is_refused(saved):
    content = content_of(saved)
    content["metadata"]["surprise"] = 1
    rewrap(saved, torch_bytes(content))
    with pytest.raises(CheckpointError, match="its metadata holds surprise"):
        load_checkpoint(saved)


def test_one_list_a_billion_times_is_refused_quickly(saved):
    laughs: list = [1]
    for _ in range(30):
        laughs = [laughs] * 10
    content = content_of(saved)
    content["metadata"]["lineage"] = laughs
    rewrap(saved, torch_bytes(content))
    with pytest.raises(CheckpointError, match="too deep or too large"):
        load_checkpoint(saved)


def test_a_state_dict_of_another_program_is_refused(saved):
    rewrap(saved, torch_bytes({"layer.weight": torch.zeros(2, 2)}))
    with pytest.raises(CheckpointError, match="not a Stagegate checkpoint"):
        load_checkpoint(saved)


def test_random_bytes_that_are_vouched_for_are_refused(saved):
    """Nothing a damaged container makes its readers raise may get past the refusal."""
    rng = np.random.default_rng(2)
    data = saved.read_bytes()
    for _ in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 8):
            damaged[place] = rng.integers(256)
        rewrap(saved, bytes(damaged))
        try:
            load_checkpoint(saved)
        except CheckpointError:
            continue


def test_links_pipes_and_folders_are_refused(saved, tmp_path):
    link = tmp_path / "link.pth"
    link.symlink_to(saved)
    with pytest.raises(CheckpointError, match="it is a symbolic link"):
        load_checkpoint(link)
    moved = tmp_path / "moved.json"
    sidecar_of(saved).rename(moved)
    sidecar_of(saved).symlink_to(moved)
    with pytest.raises(CheckpointError, match="it is a symbolic link"):
        load_checkpoint(saved)
    pipe = tmp_path / "pipe.pth"
    os.mkfifo(pipe)
    with pytest.raises(CheckpointError, match="it is not an ordinary file"):
        load_checkpoint(pipe)
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(CheckpointError, match="it is not an ordinary file"):
        load_checkpoint(tmp_path / "folder.pth")


def test_a_file_of_unbearable_size_is_refused_unread(saved):
    os.truncate(saved, module.LARGEST_FILE_BYTES + 1)  # sparse: takes no space
    with pytest.raises(CheckpointError, match=f"it is too large: {module.LARGEST_FILE_BYTES + 1} bytes"):
        load_checkpoint(saved)


def test_a_sidecar_of_unbearable_size_is_refused_unread(saved):
    os.truncate(sidecar_of(saved), module.LARGEST_SIDECAR_BYTES + 1)
    with pytest.raises(CheckpointError, match="it is too large"):
        load_checkpoint(saved)


# --- crashes ------------------------------------------------------------------------------------------------


class CrashError(Exception):
    """Stands for the moment the machine stops."""


def crash_at(monkeypatch: pytest.MonkeyPatch, rename: int) -> None:
    """Stop the next save just before its rename number `rename`, counted from 0."""
    real, count = os.replace, [0]

    def replace_or_crash(source, target):
        if count[0] == rename:
            raise CrashError
        count[0] += 1
        real(source, target)

    monkeypatch.setattr(os, "replace", replace_or_crash)


@pytest.mark.parametrize(("rename", "survivor"), [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0)])
def test_a_crash_while_replacing_leaves_the_old_model_or_the_new_one(path, monkeypatch, rename, survivor):
    save_checkpoint(path, small_checkpoint(1.0, metrics={"which": "old"}))
    with monkeypatch.context() as patch:
        crash_at(patch, rename)
        if rename < 3:
            with pytest.raises(CrashError):
                save_checkpoint(path, small_checkpoint(2.0, metrics={"which": "new"}))
        else:  # there are three renames, so the save is complete
            save_checkpoint(path, small_checkpoint(2.0, metrics={"which": "new"}))
    found = load_checkpoint(path)
    assert found.weights[0] == survivor
    assert found.metrics == {"which": "old" if survivor == 1.0 else "new"}
    # And the next save works from there, whatever it found.
    for rename_again in (1, 2, 9):
        with monkeypatch.context() as patch:
            crash_at(patch, rename_again)
            try:
                save_checkpoint(path, small_checkpoint(3.0))
            except CrashError:
                assert load_checkpoint(path).weights[0] in (survivor, 3.0)
    assert load_checkpoint(path).weights[0] == 3.0
    assert "replaces" not in json.loads(sidecar_of(path).read_text())


@pytest.mark.parametrize("rename", [0, 1])
def test_a_crash_during_the_first_save_leaves_no_checkpoint(path, monkeypatch, rename):
    with monkeypatch.context() as patch:
        crash_at(patch, rename)
        with pytest.raises(CrashError):
            save_checkpoint(path, small_checkpoint())
    with pytest.raises(CheckpointError, match="There is no checkpoint at"):
        load_checkpoint(path)
    save_checkpoint(path, small_checkpoint())
    load_checkpoint(path)


def test_a_damaged_pair_can_be_replaced(saved):
    saved.write_bytes(b"garbage")
    save_checkpoint(saved, small_checkpoint(4.0))
    assert load_checkpoint(saved).weights[0] == 4.0


def save_for_ever(path: Path, first: int, acknowledge: int | None = None) -> None:
    """Save numbered checkpoints until killed; in a forked child, so it must never return into pytest."""
    try:
        for number in range(first, first + 100_000):
            save_checkpoint(path, small_checkpoint(float(number), seed=number))
            if acknowledge is not None:
                os.write(acknowledge, struct.pack("<q", number))
    finally:
        os._exit(1)


needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="this system cannot fork; runs on Linux and macOS"
)


@needs_fork
def test_a_writer_killed_at_any_moment_leaves_a_whole_model_not_older_than_the_last_acknowledged(path):
    rng = np.random.default_rng(3)
    save_checkpoint(path, small_checkpoint(0.0, seed=0))
    last = 0
    for _ in range(12):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            save_for_ever(path, last + 1, writing)
        os.close(writing)
        # At least one save is acknowledged before the kill, however busy the machine.
        (acknowledged,) = struct.unpack("<q", os.read(reading, 8))
        time.sleep(rng.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while record := os.read(reading, 8):
            (acknowledged,) = struct.unpack("<q", record)
        os.close(reading)
        found = load_checkpoint(path)
        assert found.seed in (acknowledged, acknowledged + 1)
        assert found.weights[0] == found.seed
        last = found.seed
    assert last >= 12


@needs_fork
def test_a_reader_never_meets_a_half_replaced_model(path):
    save_checkpoint(path, small_checkpoint(0.0, seed=0))
    child = os.fork()
    if child == 0:
        save_for_ever(path, 1)
    try:
        seen = set()
        deadline = time.monotonic() + 120.0
        while len(seen) < 100 and time.monotonic() < deadline:
            found = load_checkpoint(path)
            assert found.weights[0] == found.seed
            seen.add(found.seed)
        assert len(seen) == 100
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# --- torch, names, versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.9.1", "2.9.9+cu128", "1.13.0", "0.4", "unknown"])
def test_a_torch_that_can_be_made_to_run_code_is_refused(version):
    with pytest.raises(MissingPackageError, match=r"before 2\.10"):
        require_safe_torch(version)


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0+cpu", "3.0.0a0"])
def test_a_newer_torch_is_accepted(version):
    require_safe_torch(version)


def test_saving_and_loading_ask_for_a_safe_torch(saved, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.0")
    for call in (lambda: load_checkpoint(saved), lambda: save_checkpoint(saved, small_checkpoint())):
        with pytest.raises(MissingPackageError):
            call()


def test_stage_files_have_the_names_of_the_promise():
    assert [stage_file("Bank_Nifty_5", stage) for stage in ("ppo", "moe", "maml", "final")] == [
        "Bank_Nifty_5_ppo_stage1.pth",
        "Bank_Nifty_5_moe_stage2.pth",
        "Bank_Nifty_5_maml_stage3_final.pth",
        "Bank_Nifty_5_final_model.pth",
    ]


def test_a_name_that_leads_out_of_the_folder_is_refused():
    with pytest.raises(UsageError):
        stage_file("../../etc/passwd", "ppo")
    with pytest.raises(UsageError, match="is not a stage"):
        stage_file("Nifty_2", "dqn")


MOMENT = datetime(2024, 1, 31, 9, 30, tzinfo=UTC)


def test_dated_copies_follow_the_convention_in_utc():
    convention = "{symbol}_{stage}_{algorithm}_{timestamp}"
    expected = "Nifty_2_stage_1_PPO_20240131T093000Z.pth"
    assert timestamped_name(convention, "Nifty_2", "stage_1", "PPO", MOMENT) == expected
    india = MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert timestamped_name(convention + ".pth", "Nifty_2", "stage_1", "PPO", india) == expected


@pytest.mark.parametrize(
    ("convention", "reason"),
    [
        ("{symbol}_{stage}", r"lacks \{timestamp\}"),
        ("{timestamp}", r"lacks \{symbol\}"),
        ("{symbol}_{when}_{timestamp}", r"uses \{when\}; there are \{symbol\}, \{stage\}, \{algorithm\}"),
        ("{symbol.__class__}_{timestamp}", r"uses \{symbol.__class__\}"),
        ("{symbol!r}_{timestamp}", "without options"),
        ("{symbol:>50}_{timestamp}", "without options"),
        ("../{symbol}_{timestamp}", "a file name has letters"),
        (".{symbol}_{timestamp}", "a file name has letters"),
        ("{symbol_{timestamp}", "uses|cannot be read"),
        ("{symbol}_{timestamp", "cannot be read"),
    ],
)
def test_a_convention_that_cannot_name_files_is_refused(convention, reason):
    with pytest.raises(ConfigError, match=reason):
        timestamped_name(convention, "Nifty_2", "stage_1", "PPO", MOMENT)


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        timestamped_name("{symbol}_{timestamp}", "Nifty_2", "s", "PPO", MOMENT.replace(tzinfo=None))


def test_versions_name_what_a_result_depends_on():
    versions = library_versions()
    assert versions["numpy"] == np.__version__
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert versions["python"].startswith("3.")


def test_a_checkpoint_is_copied_with_changes_for_the_next_stage(saved):
    parent = load_checkpoint(saved)
    child = replace(parent, stage="final", champion_of="maml", lineage=[*parent.lineage, parent.sha256])
    save_checkpoint(saved.with_name("final.pth"), child)
    assert load_checkpoint(saved.with_name("final.pth")).lineage[-1] == parent.sha256
