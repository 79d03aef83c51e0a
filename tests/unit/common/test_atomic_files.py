"""A file is complete or absent, and strays of the dead are swept while those of the living stay."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rl.common.atomic_files import (
    require_writable,
    sha256_of,
    sweep_stray_files,
    write_bytes,
    write_json,
    write_text,
    writing,
)
from rl.common.errors import StorageError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def dead_pid() -> int:
    """The number of a process that has just ended."""
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    return finished.pid


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_there_and_nothing_else(tmp_path):
    write_bytes(tmp_path / "model.pth", b"\x00\x01")
    write_text(tmp_path / "report.txt", "für\nalle\n")
    assert (tmp_path / "model.pth").read_bytes() == b"\x00\x01"
    assert (tmp_path / "report.txt").read_bytes() == "für\nalle\n".encode()
    assert names_in(tmp_path) == ["model.pth", "report.txt"]


def test_missing_folders_are_made(tmp_path):
    write_text(tmp_path / "reports" / "training" / "x.txt", "x")
    assert (tmp_path / "reports" / "training" / "x.txt").read_text() == "x"


def test_an_error_while_writing_keeps_the_old_file(tmp_path):
    target = tmp_path / "model.pth"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="disk full"), writing(target) as temporary:
        temporary.write_bytes(b"half of the n")
        raise RuntimeError("disk full")
    assert target.read_bytes() == b"old"
    assert names_in(tmp_path) == ["model.pth"]


def test_ctrl_c_while_writing_keeps_the_old_file(tmp_path):
    target = tmp_path / "model.pth"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), writing(target) as temporary:
        temporary.write_bytes(b"half of the n")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert names_in(tmp_path) == ["model.pth"]


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    target = tmp_path / "model.pth"
    target.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), writing(target):
        pass
    assert target.read_bytes() == b"old"


@pytest.mark.skipif(
    sys.platform == "win32", reason="sends SIGKILL, which Windows does not have; run on Linux"
)
def test_a_killed_writer_keeps_the_old_file_and_leaves_a_stray_that_is_swept(tmp_path):
    target = tmp_path / "model.pth"
    target.write_bytes(b"old")
    program = (
        "import sys, time; from rl.common.atomic_files import writing\n"
        "with writing(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half of the n'); print('half', flush=True); time.sleep(60)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(target)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    assert sweep_stray_files(tmp_path) == [], "its writer still runs"
    assert len(names_in(tmp_path)) == 2

    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert target.read_bytes() == b"old"
    assert len(names_in(tmp_path)) == 2, "a killed process cannot tidy up"
    swept = sweep_stray_files(tmp_path)
    assert [path.name.startswith(f".model.pth.{writer.pid}.") for path in swept] == [True]
    assert names_in(tmp_path) == ["model.pth"]


def test_the_file_appears_only_when_the_block_is_over(tmp_path):
    target = tmp_path / "model.pth"
    with writing(target) as temporary:
        assert temporary.parent == target.parent, "a rename is one step only within one file system"
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"


def test_only_strays_of_dead_writers_are_swept(tmp_path, dead_pid):
    stray = tmp_path / f".model.pth.{dead_pid}.0123456789ab.tmp"
    of_the_parent = tmp_path / f".model.pth.{os.getppid()}.0123456789ab.tmp"
    look_alikes = [
        tmp_path / f"model.pth.{dead_pid}.0123456789ab.tmp",  # not hidden
        tmp_path / f".model.pth.{dead_pid}.0123456789ab.tmp.txt",
        tmp_path / ".model.pth.x12.0123456789ab.tmp",
        tmp_path / ".notes.tmp",
        tmp_path / "model.pth",
    ]
    for file in (stray, of_the_parent, *look_alikes):
        file.write_bytes(b"x")
    (tmp_path / f".folder.{dead_pid}.0123456789ab.tmp").mkdir()
    assert sweep_stray_files(tmp_path) == [stray]
    assert not stray.exists()
    assert of_the_parent.exists()
    assert all(file.exists() for file in look_alikes)


def test_a_stray_with_this_process_number_from_an_earlier_life_is_swept(tmp_path):
    """In a container every run may have the same number."""
    earlier = tmp_path / f".model.pth.{os.getpid()}.0123456789ab.tmp"
    earlier.write_bytes(b"x")
    with writing(tmp_path / "model.pth") as temporary:
        temporary.write_bytes(b"new")
        assert sweep_stray_files(tmp_path) == [earlier]
        assert temporary.exists()
    assert (tmp_path / "model.pth").read_bytes() == b"new"


def test_a_folder_that_does_not_exist_has_no_strays(tmp_path):
    assert sweep_stray_files(tmp_path / "models") == []


def test_json_keeps_the_order_of_keys_and_reads_back(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"b": 1, "a": [0.1, None, "ü"]})
    assert (
        path.read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": [\n    0.1,\n    null,\n    "ü"\n  ]\n}\n'
    )
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": 1, "a": [0.1, None, "ü"]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_numbers_it_cannot_say_and_keeps_the_old_file(tmp_path, value):
    path = tmp_path / "x.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"sharpe": value})
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["x.json"]


def test_the_hash_is_that_of_the_standard(tmp_path):
    # FIPS 180-2, appendix B.1 and B.3: "abc", and one million times "a".
    short, long, empty = tmp_path / "short", tmp_path / "long", tmp_path / "empty"
    short.write_bytes(b"abc")
    long.write_bytes(b"a" * 1_000_000)
    empty.write_bytes(b"")
    assert sha256_of(short) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(long) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    assert sha256_of(empty) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_hash_covers_the_end_of_a_large_file(tmp_path):
    """A model file is read in pieces; a flipped last byte has to show."""
    large = b"x" * 3_000_000 + b"y"
    (tmp_path / "large").write_bytes(large)
    assert sha256_of(tmp_path / "large") == hashlib.sha256(large).hexdigest()


def test_two_writers_of_one_file_do_not_share_a_temporary_name(tmp_path):
    target = tmp_path / "x.txt"
    with writing(target) as first, writing(target) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    # The inner block ends first, so the outer one has the last word.
    assert target.read_text() == "first"
    assert names_in(tmp_path) == ["x.txt"]


def test_a_written_file_has_the_usual_permissions(tmp_path):
    plain, written = tmp_path / "plain", tmp_path / "written"
    plain.write_text("x")
    write_text(written, "x")
    assert written.stat().st_mode == plain.stat().st_mode


# --- a disk that refuses ----------------------------------------------------------------------------------------------

LIMITED = """
import resource, sys
from rl.common.atomic_files import write_bytes
from rl.common.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_bytes(sys.argv[1], b"x" * 300_000)
except StorageError as error:
    print(error)
"""


def test_a_disk_without_room_keeps_the_old_file_and_says_what_to_do(tmp_path):
    """A size limit makes the system itself refuse half-way, as a full disk does."""
    target = tmp_path / "model.pth"
    target.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(target)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"{target} cannot be written: File too large" in done.stdout
    assert f"Make room on the disk of {tmp_path}" in done.stdout
    assert target.read_bytes() == b"old"
    assert names_in(tmp_path) == ["model.pth"]


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "models").write_text("x")
    with pytest.raises(StorageError, match=r"Make .*models a folder that can be written to"):
        write_text(tmp_path / "models" / "a.txt", "x")
    with pytest.raises(StorageError, match="choose another one with --models-dir"):
        require_writable(tmp_path / "models", "--models-dir")
    assert (tmp_path / "models").read_text() == "x"


def test_a_folder_is_tried_by_writing_to_it_and_left_empty(tmp_path):
    require_writable(tmp_path / "a" / "b", "--models-dir")
    assert names_in(tmp_path / "a" / "b") == []


LIMITED_FOLDER = """
import resource, sys
from rl.common.atomic_files import require_writable
from rl.common.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    require_writable(sys.argv[1], "--models-dir")
except StorageError as error:
    print(error)
"""


def test_a_folder_that_can_be_made_but_has_no_room_for_a_model_is_refused_and_left_empty(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED_FOLDER, str(tmp_path / "models")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"{tmp_path / 'models'} cannot be written to: File too large" in done.stdout
    assert "Make room on its disk, or choose another one with --models-dir." in done.stdout
    assert names_in(tmp_path / "models") == []


def test_a_folder_that_only_looks_writable_is_refused():
    """/proc belongs to root with all rights, and still nothing can be written there."""
    with pytest.raises(StorageError, match="/proc/self/models cannot be written to"):
        require_writable("/proc/self/models", "--models-dir")


def test_strays_below_are_swept_where_asked_for_and_links_are_not_followed(tmp_path, dead_pid):
    top, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    name = f".model.pth.{dead_pid}.0123456789ab.tmp"
    for folder in (top / "retired" / "20260101T000000Z", elsewhere):
        folder.mkdir(parents=True)
        (folder / name).write_bytes(b"x")
    (top / "link").symlink_to(elsewhere)
    assert sweep_stray_files(top) == []
    assert sweep_stray_files(top, below=True) == [top / "retired" / "20260101T000000Z" / name]
    assert (elsewhere / name).exists()
