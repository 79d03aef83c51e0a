"""Reading whole files: pipes, devices and endless files are refused, and nothing waits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rl.common.plain_files import UnfitFileError, read_plain_file


def test_a_file_comes_back_whole(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert read_plain_file(tmp_path / "f", 3) == b"abc"
    with pytest.raises(UnfitFileError, match="is too large: 3 bytes, at most 2 are read"):
        read_plain_file(tmp_path / "f", 2)


def test_what_is_no_ordinary_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(UnfitFileError, match="is not an ordinary file"):
            read_plain_file(path, 100)


def test_a_file_that_says_it_is_empty_and_is_not_is_read_up_to_its_limit():
    """Files of /proc have no size."""
    with pytest.raises(UnfitFileError, match="is too large: more than 5 bytes"):
        read_plain_file(Path("/proc/cpuinfo"), 5)


def test_links_are_followed_only_where_they_may_be(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("f")
    assert read_plain_file(tmp_path / "link", 9) == b"abc"
    with pytest.raises(UnfitFileError, match="is a symbolic link"):
        read_plain_file(tmp_path / "link", 9, follow_links=False)
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(UnfitFileError, match="is a symbolic link"):
        read_plain_file(tmp_path / "circle", 9)


def test_a_name_no_file_can_have_and_a_missing_file_are_told_apart(tmp_path):
    with pytest.raises(UnfitFileError, match="a name no file can have"):
        read_plain_file(Path("a\0b"), 9)
    with pytest.raises(FileNotFoundError):
        read_plain_file(tmp_path / "none", 9)
