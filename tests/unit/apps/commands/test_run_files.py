"""What a run's folder says of checkout and data, also where that cannot be told."""

from __future__ import annotations

import subprocess
from pathlib import Path

from rl.apps.commands.run_files import commit_of, write_data_quality
from rl.market.checks import CHECKS
from rl.market.instruments import load_instruments


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_commit_is_that_of_the_checkout_and_changes_are_told(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "a")
    assert commit_of(tmp_path) == (git(tmp_path, "rev-parse", "HEAD"), False)
    (tmp_path / "a").write_text("2")
    assert commit_of(tmp_path)[1] is True


def test_a_copy_without_git_has_no_commit_even_inside_another_checkout(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "copy").mkdir()
    assert commit_of(tmp_path / "copy") == (None, None)


def test_every_check_has_a_row_with_the_policy_of_the_instrument(tmp_path):
    instrument = load_instruments().find("A_2").instrument.model_copy(update={"checks": {"jump": "error"}})
    caught = write_data_quality(tmp_path, {"A_2": instrument}, tmp_path)
    rows = (tmp_path / "data_quality.csv").read_text().splitlines()
    assert len(rows) == 1 + len(CHECKS)
    assert "A_2,jump,error,0,0,0," in rows
    assert caught == {}
