"""Write requirements.lock anew: the SHA-256 of every file pip may install for the versions of constraints.txt.

    .venv/bin/python tools/lock.py

For whoever changes constraints.txt. pip itself is asked which file it would take on each system and Python
below; nothing is installed. torch is left out: its files differ per build (CPU, CUDA, a mirror's own), and pip
cannot take "one of those" from an index that has only one of them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
LOCK = ROOT / "requirements.lock"

NOT_LOCKED = "torch"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SYSTEMS = {
    "Linux x86_64": ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64"),
    "Linux aarch64": ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64"),
    "macOS arm64": ("macosx_14_0_arm64",),
    "Windows x86_64": ("win_amd64",),
}

HEADER = """\
# The files pip may install for the versions of constraints.txt, by SHA-256: a file that was exchanged in an index
# or on the way is refused. Written by tools/lock.py for {systems}
# and Python {pythons}; used by tools/bootstrap.py, which takes the packages of the sets asked for: the line above
# each names those it belongs to. torch is not in it, its files differ per build.
"""


def main() -> int:
    """Ask pip for each system and Python, and write what it said."""
    pins = [line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if _is_pin(line)]
    found: dict[str, dict[str, Any]] = {}
    for python in PYTHONS:
        for system, platforms in SYSTEMS.items():
            wanted = [pin for pin in pins if not _same_everywhere(found.get(_name_of(pin)))]
            print(f"{system}, Python {python}: {len(wanted)} packages", flush=True)
            for item in _asked(wanted, python, platforms):
                name = canonicalize_name(item["metadata"]["name"])
                known = found.setdefault(name, {"files": {}, "metadata": item["metadata"]})
                known["files"][item["download_info"]["archive_info"]["hashes"]["sha256"]] = item[
                    "download_info"
                ]["url"]
    sets = _sets(found)
    lines = [HEADER.format(systems=", ".join(SYSTEMS), pythons=f"{PYTHONS[0]} to {PYTHONS[-1]}")]
    for pin in pins:
        name = _name_of(pin)
        hashes = sorted(found[name]["files"])
        lines.append(f"# {' '.join(group for group, members in sets.items() if name in members)}")
        lines.append(" \\\n".join([pin, *(f"    --hash=sha256:{digest}" for digest in hashes)]))
    LOCK.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(
        f"written: {LOCK.name}, {len(pins)} packages, {sum(len(one['files']) for one in found.values())} files"
    )
    return 0


def _is_pin(line: str) -> bool:
    return bool(line) and not line.startswith("#") and _name_of(line) != NOT_LOCKED


def _name_of(pin: str) -> str:
    return canonicalize_name(pin.partition("==")[0])


def _same_everywhere(known: dict[str, Any] | None) -> bool:
    return known is not None and any(url.endswith("-none-any.whl") for url in known["files"].values())


def _asked(pins: list[str], python: str, platforms: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return what pip would install of these packages there; of one without a ready-made file, its source."""
    lacking: list[str] = []
    while True:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            finished = subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps"),
                    *("--ignore-installed", "--only-binary", ":all:", "--target", folder),
                    *("--report", str(report), "--python-version", python),
                    *(word for platform in platforms for word in ("--platform", platform)),
                    *(pin for pin in pins if pin not in lacking),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            if finished.returncode == 0:
                return json.loads(report.read_text(encoding="utf-8"))["install"]
        missing = re.search(r"No matching distribution found for (\S+)", finished.stderr)
        if missing is None or missing[1] in lacking:
            sys.exit(finished.stderr)
        print(f"  no ready-made file of {missing[1]}", flush=True)
        lacking.append(missing[1])


def _sets(found: dict[str, dict[str, Any]]) -> dict[str, set[str]]:
    """Return the packages each set of pyproject.toml brings along, on whatever system."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = {
        "core": project["project"]["dependencies"],
        **project["project"].get("optional-dependencies", {}),
        **project["dependency-groups"],
    }
    # learn2learn is built from source by it, in every .venv.
    listed["core"] = [*listed["core"], "setuptools"]
    return {group: _closure(requirements, found) for group, requirements in listed.items()}


def _closure(requirements: list[str], found: dict[str, dict[str, Any]]) -> set[str]:
    waiting = [Requirement(text) for text in requirements]
    members: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in members or name not in {*found, NOT_LOCKED}:
            continue
        members.add(name)
        is_locked = name != NOT_LOCKED
        # What torch needs is asked of the one installed here; nothing of it is locked but what it brings along.
        texts = found[name]["metadata"].get("requires_dist", []) if is_locked else requires(NOT_LOCKED)
        for text in texts or []:
            needed = Requirement(text)
            # An extra nobody asked for is left out; a system's own package is kept for all systems.
            if "extra" not in str(needed.marker or ""):
                waiting.append(needed)
    return members


if __name__ == "__main__":
    sys.exit(main())
