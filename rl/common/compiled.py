"""numba's `njit` with a cache that notices a change in any kernel, not only in the file that was compiled.

numba keeps compiled code until the file of the *outer* function changes. A backtest loop that inlines `step_one` from
another file would go on running yesterday's trading rules after an update. So the cache lies in a folder named by a
hash of the whole package: other code, other folder.

Reference counting stays on everywhere. numba's private `_nrt=False` makes a one-bar step twice as fast and corrupts the
heap as soon as a kernel passes a slice on: tried, and found by a crash in training.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numba
from numba import njit

__all__ = ["cache_for_this_code", "njit", "source_hash"]

_PACKAGE = Path(__file__).resolve().parents[1]


@functools.cache
def source_hash() -> str:
    """Return a hash of every Python file of the package, names included. 16 hexadecimal digits

    As this process first found them: what is edited while it runs is not what it runs.
    """
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode())
        digest.update(b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_for_this_code(name: str) -> Path | None:
    """Return a folder for what only this version of the code may read: in the checkout, or else in the user's cache.

    None where neither can be written to.
    """
    version = source_hash()
    for caches in (_PACKAGE.parent / ".cache", Path.home() / ".cache" / "stagegate"):
        target = caches / name / version
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        return target
    return None


def _use_versioned_cache() -> None:
    target = cache_for_this_code("numba")
    if target is not None:
        numba.config.CACHE_DIR = str(target)  # ty: ignore[missing-attribute]


if not numba.config.CACHE_DIR:  # ty: ignore[missing-attribute]
    _use_versioned_cache()
