"""Random number generators with names, so that one part's draws never move another part's.

A shared generator makes results depend on the order of calls: adding a draw in one place changes
everything after it. Here each part asks for its own stream by name.
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import numpy as np

from rl.common.errors import CheckpointError, UsageError


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return the stream that belongs to this seed and these names, the same on every machine.

    `generator(7, "rollout", 3)` and `generator(7, "rollout", 4)` are independent; so are the names
    `("a", "bc")` and `("ab", "c")`, and the names `1` and `"1"`.

    Args:
        seed: The run's seed, 0 or more.
        names: What the stream is for, from the general to the particular.

    Raises:
        UsageError: If the seed is negative.
    """
    if seed < 0:
        raise UsageError(f"seed has to be 0 or more, but is {seed}")
    # JSON keeps apart what plain joining would merge; Python's own hash() differs between processes.
    label = json.dumps([name if isinstance(name, str) else int(name) for name in names])
    digest = hashlib.sha256(label.encode("utf-8")).digest()
    words = np.frombuffer(digest, dtype=">u4").tolist()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([int(seed), *words])))


def state_of(gen: np.random.Generator) -> dict[str, Any]:
    """Return where `gen` stands, as plain text and integers, to be given to `restored`."""
    return copy.deepcopy(dict(gen.bit_generator.state))


def restored(state: dict[str, Any]) -> np.random.Generator:
    """Return a generator that continues exactly where the one given to `state_of` stood.

    Raises:
        CheckpointError: If the state was not made by `state_of`.
    """
    kind = state.get("bit_generator")
    if kind != "PCG64":
        raise CheckpointError(
            f"The saved random state is of kind {kind!r}; only 'PCG64' can be continued.\n"
            "  The file was written by another program or is damaged. Train again from the start."
        )
    bits = np.random.PCG64(0)
    try:
        # setattr, because numpy declares a type for it that a dict read from a file cannot have.
        setattr(bits, "state", copy.deepcopy(state))  # noqa: B010
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"The saved random state is incomplete ({error!r}). Train again from the start."
        ) from error
    return np.random.Generator(bits)
