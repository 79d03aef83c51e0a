"""`python -m rl models`: the models of a folder, how each was judged, and whether it is whole."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rl.apps.commands.options import wants_all
from rl.checkpoints.checkpoint import STAGES, Checkpoint, load_checkpoint, sidecar_of
from rl.checkpoints.registry import RETIRED, require_identity
from rl.common.errors import DATA, OK, CheckpointError, DataError, UsageError, nearest
from rl.common.interpreter import interpreter
from rl.common.printable import printable
from rl.reporting.tables import table_lines
from rl.stages.evidence import LEDGER_NAME, EvidenceLedger
from rl.stages.model_files import model_from

WIDTH = 150

NOT_JUDGED = "-"
"""Only the champion of a symbol is judged for promotion."""


@dataclass(frozen=True, kw_only=True)
class ListedModel:
    """One model file."""

    file: str
    """Its path below the models folder."""
    symbol: str
    stage: str
    verdict: str | None
    """Of the stage's own gate; of a final model that of promotion. None where it is damaged or was not judged."""
    promotion: str | None
    """What was decided on the promotion window, in words; None where that cannot be told."""
    window: str | None
    """Name of the window the verdict is about."""
    window_from: str | None
    window_to: str | None
    written: str
    """When the file was written, ISO UTC."""
    run: str | None
    is_whole: bool
    """Its hash and all that it says of itself were verified."""
    damage: str | None
    """Why it cannot be used."""


def list_models(options: argparse.Namespace) -> int:
    """List the models the options ask for; return the exit code."""
    files = _files(options.models_dir, copies=options.copies)
    symbols = sorted({symbol for _, symbol, _ in files}, key=str.casefold)
    if not files:
        raise DataError(
            f"there is no model in {options.models_dir}. Train with: {interpreter()} run_training.py --symbols all; "
            "or name another folder with --models-dir."
        )
    wanted = symbols if wants_all(options.symbols) else _known(options.symbols, symbols, options.models_dir)
    ledger = EvidenceLedger(options.reports_dir / LEDGER_NAME)
    settled = _settled(ledger.entries()) if ledger.path.is_file() else None
    models = [
        _listed(path, symbol, stage, options.models_dir, settled)
        for path, symbol, stage in files
        if symbol in wanted
    ]
    if options.json:
        print(printable(json.dumps([asdict(model) for model in models], ensure_ascii=False, indent=2)))
    else:
        _print(models, quiet=options.quiet)
        if settled is None:
            print(
                printable(f"{ledger.path} is not there, so what became of promotions is not known."),
                file=sys.stderr,
            )
    return OK if all(model.is_whole for model in models) else DATA


def _files(models_dir: Path, *, copies: bool) -> list[tuple[Path, str, str | None]]:
    """Return weights files with symbol and stage as their names say, in order of symbol and stage; None: a copy's."""
    folders = [models_dir, *(sorted((models_dir / RETIRED).glob("*")) if copies else [])]
    found = []
    for folder in folders:
        # A sidecar alone is a model whose weights are gone.
        paths = {path.with_suffix("") if path.suffix == ".json" else path for path in folder.glob("*.pth*")}
        for path in sorted(path for path in paths if path.suffix == ".pth"):
            stage = next((name for name, end in STAGES.items() if path.name.endswith(end)), None)
            if stage is not None:
                found.append((path, path.name.removesuffix(STAGES[stage]), stage))
            elif copies:
                found.append((path, "", None))
    order = list(STAGES)
    known = sorted({symbol for _, symbol, _ in found if symbol}, key=len, reverse=True)
    # A dated copy's name begins with the symbol, unless the plan names copies otherwise.
    named = [
        (path, symbol or next((name for name in known if path.name.startswith(name)), path.stem), stage)
        for path, symbol, stage in found
    ]
    return sorted(
        named,
        key=lambda each: (
            each[1].casefold(),
            each[0].parent != models_dir,
            order.index(each[2]) if each[2] else 9,
            each[0],
        ),
    )


def _known(asked: Sequence[str], symbols: Sequence[str], models_dir: Path) -> list[str]:
    wrong = []
    for name in asked:
        if name not in symbols:
            close = nearest(name, symbols)
            hint = f"did you mean {', '.join(close)}?" if close else f"there are: {', '.join(symbols[:10])}"
            wrong.append(f"{name}: no model of it in {models_dir}; {hint}")
    if wrong:
        raise UsageError("\n".join(wrong))
    return list(asked)


Settled = Mapping[tuple[str, str], str]
"""What became of a promotion, by symbol and fingerprint of the weights."""


def _settled(entries: Iterable[dict[str, Any]]) -> Settled:
    """Return the last word on each model that was judged for promotion."""
    judged: dict[tuple[Any, ...], tuple[str, str]] = {}
    found: dict[tuple[str, str], str] = {}
    for entry in entries:
        if entry["purpose"] != "promotion":
            continue
        look = (entry["symbol"], entry["window_hash"], entry["attempt"])
        weights = ((entry.get("verdict") or {}).get("context") or {}).get("weights")
        if entry["kind"] == "verdict" and weights:
            judged[look] = (entry["symbol"], weights)
            found[judged[look]] = f"{entry['outcome']}, not settled"
        elif entry["kind"] == "settlement" and look in judged:
            promoted = entry["outcome"] == "PASS"
            found[judged[look]] = "PROMOTED" if promoted else f"no ({entry['outcome']})"
    return found


def _listed(
    path: Path, symbol: str, stage: str | None, models_dir: Path, settled: Settled | None
) -> ListedModel:
    written = max(
        (each.lstat().st_mtime for each in (path, sidecar_of(path)) if each.is_symlink() or each.exists()),
        default=0.0,
    )
    common: dict[str, Any] = {
        "file": str(path.relative_to(models_dir)),
        "written": datetime.fromtimestamp(written, tz=UTC).isoformat(timespec="seconds"),
    }
    try:
        checkpoint = load_checkpoint(path)
        if stage is not None:
            require_identity(path, checkpoint, symbol, stage)
    except CheckpointError as error:
        return ListedModel(
            **common,
            symbol=symbol,
            stage=stage or "copy",
            verdict=None,
            promotion=None,
            window=None,
            window_from=None,
            window_to=None,
            run=None,
            is_whole=False,
            damage=str(error),
        )
    window = checkpoint.verdict.get("window") or {}
    return ListedModel(
        **common,
        symbol=checkpoint.symbol,
        stage=f"final ({checkpoint.champion_of})" if checkpoint.stage == "final" else checkpoint.stage,
        verdict=checkpoint.verdict.get("outcome"),
        promotion=_promotion(checkpoint, settled),
        window=window.get("name"),
        window_from=window.get("from"),
        window_to=window.get("to"),
        run=checkpoint.trading.get("run"),
        is_whole=True,
        damage=None,
    )


def _promotion(checkpoint: Checkpoint, settled: Settled | None) -> str | None:
    if checkpoint.stage == "final":
        return "PROMOTED" if checkpoint.passed else "UNPROVEN"
    if settled is None:
        return None
    return settled.get((checkpoint.symbol, model_from(checkpoint).fingerprint()), NOT_JUDGED)


def _print(models: Sequence[ListedModel], *, quiet: bool) -> None:
    now = time.time()
    rows = [
        [
            model.symbol,
            model.stage,
            model.verdict or "-",
            model.promotion or "?",
            _window(model),
            _age(now - datetime.fromisoformat(model.written).timestamp()),
            "whole" if model.is_whole else "DAMAGED",
            model.run or "-",
            *([model.file] if any(each.file != _usual(each) for each in models) else []),
        ]
        for model in models
    ]
    headings = ["symbol", "stage", "verdict", "promoted", "judged on", "age", "file", "run", "name"]
    for line in table_lines(
        headings[: len(rows[0])], rows, left=len(rows[0]), width=WIDTH if len(rows[0]) < 9 else 200
    ):
        print(line)
    for model in models:
        if model.damage is not None:
            print(printable(f"\n{model.damage}"))
    if not quiet:
        print(
            "\nverdict: of the stage's own gate, on the validation window; of a final model, of promotion.\n"
            "promoted: what was decided on the promotion window, together for all symbols of a run; only the champion\n"
            "  of a symbol is judged there.\n"
            "whole: the file's hash and everything it says of itself were verified just now."
        )


def _usual(model: ListedModel) -> str:
    return model.symbol + STAGES.get(model.stage.split()[0], "")


def _window(model: ListedModel) -> str:
    if model.window is None or model.window_from is None or model.window_to is None:
        return "-"
    return f"{model.window} {model.window_from[:10]} .. {model.window_to[:10]}"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"
