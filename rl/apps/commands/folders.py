"""Folders a command writes to: refused before the work where they cannot be written, freed of what killed runs left."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from rl.common.atomic_files import require_writable, sweep_stray_files


def prepare_folders(options: argparse.Namespace, *names: str) -> None:
    """Refuse folders that cannot be written to, and delete half-written files of processes that are no more.

    Args:
        options: The command's options.
        names: Options that name the folders, such as `models_dir`; made where they are missing.

    Raises:
        StorageError: The first that cannot be written to, or has no room left.
    """
    for name in names:
        folder: Path = getattr(options, name)
        require_writable(folder, f"--{name.replace('_', '-')}")
        sweep_stray_files(folder, below=True)


def prepare_files(paths: Iterable[Path], option: str) -> None:
    """Refuse files whose folder cannot be written to, before the work whose result they shall hold.

    Raises:
        StorageError: The first whose folder cannot be written to, or has no room left.
    """
    for folder in {path.parent for path in paths}:
        require_writable(folder, option)
        sweep_stray_files(folder)
