"""Caches that only the code that wrote them may read."""

from __future__ import annotations

import pytest

from rl.common import compiled


@pytest.fixture(autouse=True)
def nothing_hashed_yet():
    """The hash is taken once a process."""
    compiled.source_hash.cache_clear()
    yield
    compiled.source_hash.cache_clear()


def test_a_cache_belongs_to_one_version_of_the_code(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "_PACKAGE", tmp_path / "rl")
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl" / "gate.py").write_text("alpha = 0.05\n")
    first = compiled.cache_for_this_code("null_bank")
    assert first is not None
    assert first.is_dir()
    assert first.parent == tmp_path / ".cache" / "null_bank"
    assert compiled.cache_for_this_code("null_bank") == first
    (tmp_path / "rl" / "gate.py").write_text("alpha = 0.5\n")
    compiled.source_hash.cache_clear()
    assert compiled.cache_for_this_code("null_bank") != first


def test_a_checkout_that_cannot_be_written_to_keeps_its_caches_in_the_users_folder(tmp_path, monkeypatch):
    (tmp_path / ".cache").write_text("a file stands where the folder would be")
    home = tmp_path / "home"
    monkeypatch.setattr(compiled, "_PACKAGE", tmp_path / "rl")
    monkeypatch.setenv("HOME", str(home))
    folder = compiled.cache_for_this_code("null_bank")
    assert folder is not None
    assert folder.parent == home / ".cache" / "stagegate" / "null_bank"
    home.rename(tmp_path / "gone")
    home.write_text("nor can anything be written here")
    assert compiled.cache_for_this_code("null_bank") is None
