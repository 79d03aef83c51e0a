"""Which other libraries are here to be compared with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

PEERS = {
    "stable_baselines3": "stable-baselines3",
    "gym_anytrading": "gym-anytrading",
    "backtesting": "backtesting",
    "vectorbt": "vectorbt",
}
"""Import name and package name."""


def is_here(module: str) -> bool:
    """Tell whether a peer is installed."""
    return find_spec(module) is not None


def note_on(*modules: str) -> tuple[str, ...]:
    """Return a sentence for each of these peers that is missing, so that no row is left out in silence."""
    return tuple(
        f"Not measured: {PEERS[module]} is not installed (pip install {PEERS[module]})."
        for module in modules
        if not is_here(module)
    )


def versions() -> list[str]:
    """Return name and version of what the numbers depend on."""
    found = []
    for package in ("torch", "numba", "numpy", "gymnasium", *PEERS.values()):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found
