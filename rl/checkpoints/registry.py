"""Which model of a symbol to use: the furthest stage that passed its gate."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rl.checkpoints.checkpoint import STAGES, Checkpoint, load_checkpoint, stage_file
from rl.common.errors import CheckpointError, UsageError, nearest
from rl.common.interpreter import interpreter

ORDER = ("final", "maml", "moe", "ppo")
"""Stages in the order in which their models are preferred."""


RETIRED = "retired"
"""Folder for the files of earlier runs that a newer run has replaced or made obsolete."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The model that was chosen and what a report has to say about the choice."""

    path: Path
    """Its weights file."""
    checkpoint: Checkpoint
    """Its verified content."""
    headline: str
    """A warning for the top of every report: no gate was passed, or a better file cannot be used. Else empty."""


def has_model(models_dir: Path | str, symbol: str) -> bool:
    """Return True where a symbol has a model of any stage, usable or not."""
    return any((Path(models_dir) / stage_file(symbol, stage)).exists() for stage in STAGES)


def best_available(
    models_dir: Path | str,
    symbol: str,
    stage: str = "best",
    *,
    on_refused: Callable[[CheckpointError], None] | None = None,
) -> Found:
    """Return the best model of a symbol: final, maml, moe, ppo, the first that exists and passed its gate.

    If none passed, the first that exists, with a headline that says so. A file that is damaged, altered, or
    of another symbol or stage than its name says is never used. Nor is it skipped in silence, for a worse model
    in its place would go unnoticed: it ends the search, or, for a caller who tells the user, is told and named
    in the headline, and the search goes on.

    Args:
        models_dir: Folder of the checkpoints.
        symbol: The symbol to trade.
        stage: "best", or one of ppo, moe, maml, final for that model and no other.
        on_refused: Told of a file that cannot be used, when another one is used in its place. None: raised.

    Raises:
        CheckpointError: If there is none, or none that can be used, or one that was looked at cannot be and nobody
            is there to be told.
        UsageError: If the symbol or stage cannot be one.
    """
    if stage != "best" and stage not in ORDER:
        raise UsageError(f"{stage!r} is not a stage; choose best, {', '.join(STAGES)}.")
    folder = Path(models_dir)
    stages = ORDER if stage == "best" else (stage,)
    paths = {name: folder / stage_file(symbol, name) for name in stages}
    # lexists: a dangling link is there, and is refused by name.
    present = [name for name in stages if os.path.lexists(paths[name])]
    if not present:
        raise _nothing_found(folder, symbol, [path.name for path in paths.values()])
    chosen: Found | None = None
    refused: list[tuple[Path, CheckpointError]] = []
    for name in present:
        try:
            checkpoint = load_checkpoint(paths[name])
            require_identity(paths[name], checkpoint, symbol, name)
        except CheckpointError as error:
            if on_refused is None:
                raise
            refused.append((paths[name], error))
            continue
        if checkpoint.passed:
            chosen = Found(path=paths[name], checkpoint=checkpoint, headline="")
            break
        if chosen is None:
            chosen = Found(path=paths[name], checkpoint=checkpoint, headline=_headline(checkpoint, stage))
    if chosen is None:
        raise refused[0][1]
    for path, error in refused:
        assert on_refused is not None, "without anybody to tell, the first one was raised"
        on_refused(_replaced(path, error, chosen.path))
    lost = [f"{path.name} CANNOT BE USED, {chosen.path.name} IS USED INSTEAD." for path, _ in refused]
    return replace(chosen, headline=" ".join([*lost, chosen.headline]).strip())


def _replaced(path: Path, error: CheckpointError, used: Path) -> CheckpointError:
    text = f"{error}\n  {used.name} is used instead."
    if kept := _newest_kept(path):
        text += f" An earlier {path.name} is kept as {kept}; copied back with its .json, it is used again."
    return CheckpointError(text)


def _newest_kept(path: Path) -> Path | None:
    """Return the newest usable model of this name that a later run replaced or made obsolete."""
    for kept in sorted((path.parent / RETIRED).glob(f"*/{path.name}"), reverse=True):
        try:
            load_checkpoint(kept)
        except CheckpointError:
            continue  # what is no better than the damaged one is no help
        return kept
    return None


def require_compatible(
    path: Path | str,
    checkpoint: Checkpoint,
    *,
    feature_names: Sequence[str],
    action_schemes: Sequence[str],
) -> None:
    """Refuse a checkpoint that does not fit the features computed here or the actions understood here.

    Args:
        path: Where it lies, for the message.
        checkpoint: What was loaded.
        feature_names: Features in the order in which they are computed now.
        action_schemes: Schemes that can be decoded.

    Raises:
        CheckpointError: If it does not fit; the message names what differs.
    """
    differences = []
    stored, computed = list(checkpoint.feature_names), list(feature_names)
    lacking = [name for name in stored if name not in computed]
    added = [name for name in computed if name not in stored]
    if lacking:
        differences.append(f"it needs the features {', '.join(lacking)}, which are not computed here")
    if added:
        differences.append(f"the features {', '.join(added)} are computed here, but it does not know them")
    if stored != computed and not differences:
        first = next(index for index, name in enumerate(stored) if name != computed[index])
        differences.append(
            f"its features are in another order; feature {first} is {stored[first]}, here {computed[first]}"
        )
    if checkpoint.action_scheme not in action_schemes:
        known = ", ".join(action_schemes)
        differences.append(
            f"its actions follow the scheme {checkpoint.action_scheme!r}, here there are {known}"
        )
    if differences:
        raise CheckpointError(
            f"{path} does not fit this program:\n  "
            + "\n  ".join(differences)
            + "\n  Use the data and version it was trained with, or train it again."
        )


def require_identity(path: Path, checkpoint: Checkpoint, symbol: str, stage: str) -> None:
    """Refuse a model that is of another symbol or stage than the name of its file says.

    Raises:
        CheckpointError: It is.
    """
    for what, found, named in (("symbol", checkpoint.symbol, symbol), ("stage", checkpoint.stage, stage)):
        if found != named:
            raise CheckpointError(
                f"{path} is refused: its name says {what} {named}, but it holds {what} {found}.\n"
                "  It was renamed or copied over another; give it its own name back."
            )


def _headline(checkpoint: Checkpoint, asked: str) -> str:
    outcome = checkpoint.verdict.get("outcome")
    judged = f"its verdict is {outcome}" if outcome else "it has not been judged"
    scope = "NO GATE WAS PASSED" if asked == "best" else "THIS MODEL PASSED NO GATE"
    return f"{scope}: this is the {checkpoint.stage} model of {checkpoint.symbol}, and {judged}."


def _nothing_found(folder: Path, symbol: str, names: list[str]) -> CheckpointError:
    text = f"No checkpoint for {symbol} in {folder}/. Looked for, in this order:\n  {', '.join(names)}\n"
    others = {path.name.removesuffix(end) for end in STAGES.values() for path in folder.glob(f"*{end}")} - {
        symbol
    }
    if similar := nearest(symbol, sorted(others)):
        text += f"  There are models for {', '.join(similar)}.\n"
    elif others:
        text += f"  There are models for {', '.join(sorted(others)[:5])}.\n"
    return CheckpointError(f"{text}  Train it with: {interpreter()} run_training.py --symbols {symbol}")
