"""State in generations: together or not at all, exact, proven by hashes, and the one before it kept."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rl.checkpoints.state_files import StateFiles
from rl.common.errors import CheckpointError
from rl.common.seeding import generator, restored, state_of

VALUES: dict[str, Any] = {
    "nothing": None,
    "truth": True,
    "whole": 1 << 127,
    "third": 1 / 3,
    "infinite": -math.inf,
    "text": "Straße",
    "list": [1, [2.5, None]],
    "tuple": (1, ("a", 2)),
    "by_number": {0: {"step": torch.tensor(3.0)}},
    "of_numpy": np.float64(0.1),
}


def test_what_is_read_is_what_was_written_to_the_last_bit(tmp_path):
    weights = np.nextafter(np.float32(1) / np.arange(1, 50, dtype=np.float32), np.float32(2))
    table = torch.arange(12, dtype=torch.int64).reshape(3, 4).T
    StateFiles(tmp_path).commit(
        {"a": {**VALUES, "weights": weights, "table": table, "flag": np.zeros((), bool)}}
    )
    found = StateFiles(tmp_path).read("a")
    assert found.pop("weights").numpy().tobytes() == weights.tobytes()
    assert torch.equal(found.pop("table"), table)
    assert found.pop("flag").shape == ()
    by_number = found.pop("by_number")
    assert torch.equal(by_number[0]["step"], torch.tensor(3.0))
    assert found == {name: value for name, value in VALUES.items() if name != "by_number"}
    assert [type(found[name]) for name in ("truth", "whole", "of_numpy", "tuple")] == [
        bool,
        int,
        float,
        tuple,
    ]


def test_a_generator_goes_on_where_it_stood(tmp_path):
    rng = generator(7, "draws")
    rng.random(5)
    StateFiles(tmp_path).commit({"rng": state_of(rng)})
    again = restored(StateFiles(tmp_path).read("rng"))
    assert again.random(100).tobytes() == rng.random(100).tobytes()


def test_entries_change_together_and_what_did_not_change_is_not_written_again(tmp_path):
    files = StateFiles(tmp_path)
    files.commit({"a": 1, "b": 2}, facts={"seconds": 1.5})
    files.commit({"b": 3, "c": 4}, dropped=["nobody"])
    files.commit({}, dropped=["c"], facts={"seconds": 2.5})
    again = StateFiles(tmp_path)
    assert (again.generation, again.facts, again.notes) == (3, {"seconds": 2.5}, [])
    assert [again.read(name) for name in ("a", "b", "c")] == [1, 3, None]
    assert again.names == ("a", "b")
    # The last generation and the one before it; nothing else is left.
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "manifest-00000002.json", "manifest-00000003.json",
        "a-00000001.pt", "b-00000002.pt", "c-00000002.pt",
    }  # fmt: skip


def test_a_folder_without_state_has_none(tmp_path):
    files = StateFiles(tmp_path / "none")
    assert (files.generation, files.names, files.facts, files.notes) == (0, (), {}, [])
    assert files.read("a") is None


@pytest.mark.parametrize("value", [object(), {1.5: "a"}, {"a": {1, 2}}, np.array(["a"], dtype=object)])
def test_what_is_not_plain_is_refused_and_nothing_is_written(tmp_path, value):
    files = StateFiles(tmp_path)
    files.commit({"a": 1})
    with pytest.raises(TypeError):
        files.commit({"a": value})
    assert StateFiles(tmp_path).read("a") == 1


def two_generations(folder: Path) -> None:
    files = StateFiles(folder)
    files.commit({"kept": 0, "changing": torch.zeros(50)})
    files.commit({"changing": torch.ones(50)}, facts={"number": 2})


@pytest.mark.parametrize("name", ["manifest-00000002.json", "changing-00000002.pt"])
@pytest.mark.parametrize("how", ["gone", "empty", "cut", "flipped", "a link"])
def test_where_the_newest_is_damaged_the_one_before_it_is_used_and_that_is_said(tmp_path, name, how):
    two_generations(tmp_path)
    path = tmp_path / name
    data = path.read_bytes()
    if how == "gone" and name.startswith("manifest"):
        pytest.skip("without its manifest a generation was never there")
    if how in ("gone", "a link"):
        path.rename(tmp_path / "elsewhere")
    if how == "a link":
        (tmp_path / "elsewhere").write_bytes(data + b" ")
        path.symlink_to(tmp_path / "elsewhere")
    if how in ("empty", "cut"):
        path.write_bytes(data[: len(data) // 2] if how == "cut" else b"")
    if how == "flipped":
        path.write_bytes(data[:-30] + bytes([data[-30] ^ 4]) + data[-29:])
    files = StateFiles(tmp_path)
    assert files.generation == 1
    assert torch.equal(files.read("changing"), torch.zeros(50))
    assert len(files.notes) == 2
    assert "saved state 2 is damaged and not used" in files.notes[0]
    # The next one is a new generation, not the damaged one's second try.
    assert files.commit({"changing": 7}) == 3
    again = StateFiles(tmp_path)
    assert (again.read("changing"), again.read("kept"), again.notes) == (7, 0, [])


def test_damage_to_what_both_generations_need_leaves_nothing_to_go_on_from(tmp_path):
    two_generations(tmp_path)
    path = tmp_path / "kept-00000001.pt"
    path.write_bytes(path.read_bytes()[:-1])
    files = StateFiles(tmp_path)
    assert (files.generation, files.names) == (0, ())
    assert files.notes[-1] == "no older saved state is whole; what was kept here is done again"


def test_every_flipped_bit_is_noticed(tmp_path):
    two_generations(tmp_path)
    rng = random.Random(3)
    for path in (tmp_path / "manifest-00000002.json", tmp_path / "changing-00000002.pt"):
        data = path.read_bytes()
        for _ in range(100):
            changed, place = bytearray(data), rng.randrange(len(data))
            changed[place] ^= 1 << rng.randrange(8)
            path.write_bytes(bytes(changed))
            assert StateFiles(tmp_path).generation == 1, (path.name, place)
        path.write_bytes(data)
    assert StateFiles(tmp_path).generation == 2


def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path):
    folder = tmp_path / "state"
    two_generations(folder)
    path = folder / "manifest-00000002.json"
    content = json.loads(path.read_text())
    content["files"]["kept"]["file"] = "../outside.pt"
    path.write_text(json.dumps(content))
    assert StateFiles(folder).generation == 1


def test_what_a_killed_writer_left_is_swept(tmp_path):
    two_generations(tmp_path)
    # No process has this number.
    stray = tmp_path / ".changing-00000003.pt.99999999.abcdef012345.tmp"
    stray.write_bytes(b"half")
    unnamed = tmp_path / "changing-00000003.pt"
    unnamed.write_bytes(b"written, but its manifest was not")
    files = StateFiles(tmp_path)
    assert (files.generation, files.notes, stray.exists()) == (2, [], False)
    files.commit({"changing": 1})
    assert files.read("changing") == 1


def test_an_entry_that_was_exchanged_after_opening_is_refused_when_it_is_read(tmp_path):
    """A sound file of another state, which nothing but its hash tells."""
    ours, other = StateFiles(tmp_path / "ours"), StateFiles(tmp_path / "other")
    ours.commit({"a": {"x": 1}})
    other.commit({"a": {"x": 2}})
    (path,) = (tmp_path / "ours").glob("a-*.pt")
    path.write_bytes((tmp_path / "other" / path.name).read_bytes())
    with pytest.raises(CheckpointError, match="it was altered"):
        ours.read("a")
