"""Create .venv in this checkout and install what is needed into it. Safe to run again.

    python tools/bootstrap.py                 what training and backtesting need (the same as: core)
    python tools/bootstrap.py core test dev   also the named groups or extras of pyproject.toml
    python tools/bootstrap.py all             everything

Every package but torch is taken by requirements.lock, which names the SHA-256 of each file that may be installed;
torch and, on Linux, the CUDA packages it pins itself come by version. On a system the lock has no files for,
`--without-hashes` installs by version alone.

Standard library only, since nothing else is there yet. pip's own settings (its files and PIP_* variables)
apply: an index mirror, a proxy or a certificate is set there. When nothing has changed since the last
complete run, nothing is done.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
PYPROJECT = ROOT / "pyproject.toml"
CONSTRAINTS = ROOT / "constraints.txt"
LOCK = ROOT / "requirements.lock"
LEARN2LEARN = ROOT / "requirements-learn2learn.txt"

OLDEST, TOO_NEW = (3, 11, 5), (3, 15, 0)
STAMP_PREFIX = ".ready-"


class SetupError(Exception):
    """The set-up cannot go on; the text says why and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Install the named sets; return 0, or 1 after saying what went wrong."""
    parser = argparse.ArgumentParser(description="Create .venv and install pinned packages into it.")
    parser.add_argument("sets", nargs="*", help="core (always installed), a group of pyproject.toml, or all")
    parser.add_argument(
        "--without-hashes",
        action="store_true",
        help="trust the index: install by version, whatever file it has",
    )
    options = parser.parse_args(arguments)
    try:
        check_python(sys.version_info[:3], "this")
        install(options.sets, check_hashes=not options.without_hashes)
    except SetupError as error:
        print(f"Set-up stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Set-up interrupted; run it again to continue.", file=sys.stderr)
        return 130
    return 0


def check_python(version: tuple[int, ...], which: str) -> None:
    """Refuse a Python for which the pinned packages have no ready-made files."""
    if not OLDEST <= version < TOO_NEW:
        raise SetupError(
            f"Python 3.11.5 to 3.14 is needed, {which} is {'.'.join(map(str, version))}.\n"
            "  Install one of those and name it, e.g. make setup PYTHON=python3.13"
        )


def install(wanted: Iterable[str], *, check_hashes: bool = True) -> None:
    """Bring .venv to where the wanted sets are installed, and leave a stamp for each."""
    requirements = read_requirements()
    sets = chosen_sets(wanted, list(requirements))
    if not VENV_PYTHON.exists():
        create_venv()
    stamp = stamp_text(venv_version())
    if all(read_stamp(name) == stamp for name in sets):
        return

    # A set that is installed may change packages of another, so from here until the end none is ready.
    for old in VENV.glob(f"{STAMP_PREFIX}*"):
        old.unlink()
    packages = list(dict.fromkeys(package for name in sets for package in requirements[name]))
    pip = pip_command()
    say(f"installing {', '.join(sets)} into .venv (the first time this downloads PyTorch: minutes)")
    if check_hashes and (locked := locked_packages(LOCK.read_text(encoding="utf-8"), sets)):
        install_locked(pip, locked)
    # What is still missing now: torch, and what it pins itself.
    run_pip([*pip, "install", "--quiet", "--constraint", str(CONSTRAINTS), *packages], "the packages")
    run_pip(
        [
            *(*pip, "install", "--quiet", "--no-deps", "--use-pep517"),
            # Built by the setuptools installed above, not by whatever the index has today.
            *("--no-build-isolation", "--requirement", str(LEARN2LEARN)),
        ],
        "learn2learn",
    )
    remove_learn2learn_tests()
    for name in sets:
        (VENV / f"{STAMP_PREFIX}{name}").write_text(stamp, encoding="utf-8")
    say("ready")


def locked_packages(lock: str, sets: Iterable[str]) -> list[str]:
    """Return the entries of requirements.lock that these sets bring along, hashes included.

    Args:
        lock: The file's text: before each entry a line `# core test` that names the sets it belongs to.
        sets: The sets to install.
    """
    wanted, entries, belongs = set(sets), [], False
    for line in lock.splitlines():
        if line.startswith("#"):
            belongs = bool(wanted & set(line[1:].split()))
        elif line.startswith(" ") and belongs:
            entries[-1] += "\n" + line
        elif line and belongs:
            entries.append(line)
    return entries


def install_locked(pip: list[str], entries: list[str]) -> None:
    """Install exactly these files; one whose SHA-256 is another is refused by pip."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text("\n".join(entries) + "\n", encoding="utf-8")
        run_pip(
            [*pip, "install", "--quiet", "--require-hashes", "--no-deps", "--requirement", str(wanted)],
            "the files of requirements.lock",
            "If it names a hash, a file is not the one that was tested. If it finds no file for this system:\n"
            "  python tools/bootstrap.py --without-hashes",
        )


def read_requirements() -> dict[str, list[str]]:
    """Return the requirements of each set, `core` first, as pyproject.toml lists them."""
    import tomllib  # here, so that an older Python gets a sentence and not a traceback

    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    return {
        "core": project["project"]["dependencies"],
        **project["project"].get("optional-dependencies", {}),
        **project.get("dependency-groups", {}),
    }


def chosen_sets(wanted: Iterable[str], known: list[str]) -> list[str]:
    """Return the sets to install, core first, each once."""
    names = list(wanted)
    if "all" in names:
        return known
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SetupError(
            f"there is no set named {', '.join(unknown)}.\n"
            f"  pyproject.toml has: {', '.join(known)}. The word all means every one of them."
        )
    return list(dict.fromkeys(["core", *names]))


def create_venv() -> None:
    """Create an empty .venv; pip is added by `pip_command`, which can say what is missing."""
    say(f"creating .venv with Python {'.'.join(map(str, sys.version_info[:3]))}")
    try:
        venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(VENV)
    except OSError as error:
        raise SetupError(f"{VENV} cannot be created: {error}") from error


def venv_version() -> str:
    """Return the version of .venv's Python, which need not be the one that runs this file."""
    finished = subprocess.run(
        [str(VENV_PYTHON), "-c", "import sys; print('.'.join(map(str, sys.version_info[:3])))"],
        capture_output=True,
        text=True,
        check=False,
    )
    version = finished.stdout.strip()
    if finished.returncode or not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise SetupError(
            f"the Python in {VENV} does not run any more (was it moved, or its Python removed?).\n"
            "  Delete that folder and run this again."
        )
    check_python(tuple(map(int, version.split("."))), "the one in .venv")
    return version


def stamp_text(python_version: str) -> str:
    """Return a text that changes whenever a finished installation may be out of date."""
    digest = hashlib.sha256(python_version.encode())
    for file in (PYPROJECT, CONSTRAINTS, LOCK, LEARN2LEARN, Path(__file__)):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def read_stamp(name: str) -> str | None:
    """Return the stamp of a set, or None where it was never completely installed."""
    file = VENV / f"{STAMP_PREFIX}{name}"
    return file.read_text(encoding="utf-8") if file.exists() else None


def pip_command() -> list[str]:
    """Return the command line that runs pip for .venv.

    .venv gets its own pip where this Python can make one. Some systems split that off into a package of its
    own (ensurepip); there, the pip outside is told which Python to install for.
    """
    own = [str(VENV_PYTHON), "-m", "pip"]
    if succeeds([*own, "--version"]):
        return own
    if succeeds([str(VENV_PYTHON), "-m", "ensurepip", "--default-pip"]) and succeeds([*own, "--version"]):
        return own
    outside = [sys.executable, "-m", "pip", "--python", str(VENV_PYTHON)]
    if succeeds([*outside, "--version"]):
        return outside
    raise SetupError(
        f"pip is missing, and {sys.executable} cannot make one.\n"
        "  On Debian and Ubuntu: sudo apt install python3-venv. Then run this again."
    )


def run_pip(command: list[str], what: str, advice: str = "") -> None:
    """Run pip with its own messages on the screen; refuse to go on if it fails."""
    finished = subprocess.run(command, check=False)
    if finished.returncode:
        raise SetupError(
            f"pip could not install {what}; its reason stands above.\n"
            "  Without a network, point PIP_INDEX_URL or PIP_FIND_LINKS at a mirror. Then run this again."
            + (f"\n  {advice}" if advice else "")
        )


def remove_learn2learn_tests() -> None:
    """Remove the package `tests` that learn2learn installs beside itself; it would hide this project's."""
    where = subprocess.run(
        [str(VENV_PYTHON), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    packages = Path(where.stdout.strip())
    for record in packages.glob("learn2learn-*.dist-info/RECORD"):
        files = [line.split(",")[0] for line in record.read_text(encoding="utf-8").splitlines()]
        if "tests/__init__.py" in files and (packages / "tests").is_dir():
            shutil.rmtree(packages / "tests")


def succeeds(command: list[str]) -> bool:
    """Return True if the command exists and ends well; its output is not shown."""
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def say(text: str) -> None:
    """Print one line at once, also into a log."""
    print(f"[set-up] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
