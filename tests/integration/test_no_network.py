"""Training and backtesting speak to nobody: every attempt to open a connection is noted and stopped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.integration.command_line import PLAN, ROOT, SETTINGS, TINY, Workplace

WATCH = """
import os, sys

def watch(event, arguments):
    if event.split(".")[0] in ("socket", "urllib", "http", "ftplib", "smtplib", "webbrowser"):
        family = getattr(arguments[0], "family", None) if arguments else None
        if event == "socket.__new__":
            family = arguments[1]
        # Processes of one machine may speak to each other, and ask for its name.
        if event == "socket.gethostname" or (family is not None and int(family) == 1):
            return
        with open(os.environ["NETWORK_CANARY"], "a") as canary:
            canary.write(f"{event} {arguments!r} {sys.orig_argv[1:3]}\\n")
        raise OSError(f"no network here: {event}")

sys.addaudithook(watch)
"""


def run(arguments: list[str], folder: Path, canary: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a Python whose every process watches for connections."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "NETWORK_CANARY": str(canary)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_training_and_backtest_open_no_connection(tmp_path):
    watcher, canary = tmp_path / "watcher", tmp_path / "connections"
    watcher.mkdir()
    (watcher / "sitecustomize.py").write_text(WATCH)
    place = Workplace(tmp_path / "place")
    symbols = ["SYN_planted_2", "SYN_ou_2"]
    for symbol in symbols:
        place.synth(symbol, symbol.split("_")[1], sessions=40)
    settings = [word for setting in TINY for word in ("--set", setting)]
    # Two jobs and the mirrors of --track: processes of their own, which are watched too.
    trained = run(
        [
            "run_training.py",
            *place.folders(),
            "--config",
            str(PLAN),
            "--symbols",
            *symbols,
            "--jobs",
            "2",
            *settings,
            "--track",
            "tensorboard",
            "mlflow",
        ],
        watcher,
        canary,
    )
    assert trained.returncode in (0, 5), trained.stderr
    assert (place.models / "SYN_planted_2_maml_stage3_final.pth").exists()
    assert "warning" not in trained.stderr
    # The lines of two processes come mixed, but each is whole and names its symbol.
    for symbol in symbols:
        for stage in ("ppo", "moe", "maml"):
            line = rf"^  {symbol} {stage} done in \d+:\d\d   gate [A-Z]+"
            assert len(re.findall(line, trained.stdout, re.MULTILINE)) == 1
    assert_only_mlflow_asked_for_ipv6(canary)
    tested = run(
        ["run_backtest.py", *place.folders(), "--config", str(SETTINGS), "--symbols", *symbols],
        watcher,
        canary,
    )
    assert tested.returncode == 0, tested.stderr
    assert not canary.exists(), canary.read_text()


def assert_only_mlflow_asked_for_ipv6(canary: Path) -> None:
    """What is left is a package under MLflow that tries on import whether this machine has IPv6 sockets at all.

    It resolves no name and connects to nothing, and it is in the process of the mirrors.
    """
    noted = canary.read_text().splitlines() if canary.exists() else []
    probe = r"socket\.__new__ \(.*, 10, 1, 0\) \['-m', 'rl\.apps\.commands\.mirror'\]"
    assert len(noted) <= 1
    assert [line for line in noted if not re.fullmatch(probe, line)] == []
    canary.unlink(missing_ok=True)


def test_the_watcher_would_notice(tmp_path):
    watcher, canary = tmp_path / "watcher", tmp_path / "connections"
    watcher.mkdir()
    (watcher / "sitecustomize.py").write_text(WATCH)
    for attempt in (
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import urllib.request; urllib.request.urlopen('http://localhost:9')",
        "import socket; socket.getaddrinfo('example.com', 80)",
    ):
        done = run(["-c", attempt], watcher, canary)
        assert done.returncode == 1
        assert "no network here" in done.stderr
        assert canary.exists()
        canary.unlink()
