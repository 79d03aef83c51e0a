"""Load damaged raw files and judge what came of each: `python -m benchmarks.bad_files --help`.

The judge knows the file before it was damaged. What loads has to hold the same bars, or the same less rows that were
damaged and that a note names; what is refused has to name a damaged row and what to do. Anything else is wrong.
"""

from __future__ import annotations

import argparse
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.raw_defects import DEFECTS, DoesNotApplyError, Draft
from benchmarks.raw_originals import Original, real_originals, twins
from rl.common.errors import DataError
from rl.market.checks import CHECKS
from rl.market.ingest import IngestResult, read_raw

TOLERANT = {name: "drop" for name, check in CHECKS.items() if "drop" in check.allowed}
"""The policies of somebody who would rather lose rows than a file."""

_NUMBERS = ("open", "high", "low", "close")
_REMEDY = re.compile(
    r"\b(Correct|Fetch|Export|Rename|Remove|Save|Set|Put|Split|Sort|Let|Unpack|Complete|Bring|Write|Add)\b"
)
LINES_PER_FAULT = 5
"""Three rows, how many more there are, and what to do."""


@dataclass(frozen=True)
class Outcome:
    """What came of one damaged file."""

    kind: str
    """`same bars`, `fewer bars`, `other bars` (which a note explains), `refused` or `WRONG`."""
    says: str
    """The message or the note, or what is wrong."""


def loaded(
    original: Original, folder: Path, draft: Draft, checks: dict[str, str] | None
) -> IngestResult | str:
    """Write a draft and read it; return the result, or the message that refused it."""
    path = folder / f"{original.symbol}{draft.ending}"
    path.write_bytes(draft.content())
    try:
        return read_raw(path, original.symbol, original.instrument(checks))
    except DataError as error:
        return str(error)
    finally:
        path.unlink()


def judged(
    original: Original,
    folder: Path,
    draft: Draft,
    clean: IngestResult | str,
    checks: dict[str, str] | None = None,
) -> Outcome:
    """Load a draft and say what came of it.

    Args:
        original: What the draft was made of.
        folder: Where to write it.
        draft: The damaged file.
        clean: What came of the undamaged one.
        checks: Policies.
    """
    found = loaded(original, folder, draft, checks)
    if isinstance(found, str):
        fault = _fault_of_refusal(found, original, draft, is_clean_refused=isinstance(clean, str))
        return (
            Outcome("WRONG", f"{fault}: {found}")
            if fault
            else Outcome("refused", found.replace(f"{folder}/", ""))
        )
    if isinstance(clean, str):
        return Outcome("WRONG", "loaded, though the undamaged file was refused")
    return _compared(clean, found, draft)


def _fault_of_refusal(
    message: str, original: Original, draft: Draft, *, is_clean_refused: bool
) -> str | None:
    """Return what a refusal lacks."""
    if f"{original.symbol}{draft.ending}" not in message:
        return "the message does not name the file"
    if not _REMEDY.search(message):
        return "the message says nothing to do"
    if message.count("\n") >= LINES_PER_FAULT * max(1, message.count("set checks:")):
        return "the message is too long"
    named = {int(number.replace(",", "")) for number in re.findall(r"\brow ([\d,]*\d)", message)}
    if not draft.is_whole and not is_clean_refused and not named & draft.damaged_rows():
        return "the message names no damaged row"
    return None


def _compared(clean: IngestResult, found: IngestResult, draft: Draft) -> Outcome:
    """Compare bars by the times they close at."""
    before, after = clean.bars, found.bars
    notes = [note for note in found.notes if note not in clean.notes]
    told = "; ".join(notes)
    _, was, now = np.intersect1d(before.close_time, after.close_time, return_indices=True)
    if len(now) != len(after):
        return Outcome("WRONG", f"{len(after) - len(now)} bars at times that the clean file has none; {told}")
    origin_of = _origins(draft.original)
    missing = np.setdiff1d(np.arange(len(before)), was)
    unexplained = [t for t in missing if not origin_of.get(str(before.label[t]), set()) & draft.may_miss]
    if unexplained:
        return Outcome(
            "WRONG", f"lost {len(unexplained)} undamaged bars, first {before.label[unexplained[0]]}; {told}"
        )
    is_other = np.any([getattr(before, name)[was] != getattr(after, name)[now] for name in _NUMBERS], axis=0)
    is_other |= before.session_end[was] != after.session_end[now]
    if before.volume is not None and after.volume is not None:
        is_other |= (before.volume[was] != after.volume[now]) & ("volume_unit" not in told)
    for t in was[is_other]:
        if not origin_of.get(str(before.label[t]), set()) & draft.may_differ:
            return Outcome("WRONG", f"other numbers at {before.label[t]}; {told}")
    if (before.volume is None) != (after.volume is None) and "volume is not used" not in told:
        return Outcome("WRONG", f"the volume went without a word; {told}")
    left_out = found.counts["rows"] - found.counts["bars"]
    counted = sum(found.counts.get(name, 0) for name in CHECKS if _is_dropped(name, found.notes))
    if left_out != counted:
        return Outcome("WRONG", f"{left_out} rows left out, but {counted} counted; {told}")
    if (len(missing) or is_other.any()) and not notes:
        return Outcome("WRONG", "bars are missing or others, and no note says so")
    kind = "fewer bars" if len(missing) else "other bars" if is_other.any() else "same bars"
    return Outcome(kind, told)


def _is_dropped(name: str, notes: Sequence[str]) -> bool:
    return any(note.startswith(f"{name}: dropped") for note in notes)


def _origins(original: Original) -> dict[str, set[int]]:
    """Return the rows of an original by their label."""
    columns = original.time_columns()
    found: dict[str, set[int]] = {}
    for number, row in enumerate(original.rows):
        found.setdefault(" ".join(row[column] for column in columns), set()).add(number)
    return found


@dataclass(frozen=True)
class Cell:
    """One defect made in one original."""

    defect: str
    original: str
    strict: Outcome
    """With the policies as they come."""
    tolerant: Outcome
    """With `drop` wherever that is offered."""


def matrix(
    originals: dict[str, Original], folder: Path, defects: Sequence[str] = tuple(DEFECTS)
) -> Iterator[Cell]:
    """Make every defect in every original, and judge what comes of it."""
    for original in originals.values():
        clean = {
            policy: loaded(original, folder, Draft.of(original), checks)
            for policy, checks in (("strict", None), ("tolerant", TOLERANT))
        }
        for name in defects:
            try:
                outcomes = []
                for policy, checks in (("strict", None), ("tolerant", TOLERANT)):
                    draft = Draft.of(original)
                    DEFECTS[name](draft, len(draft.lines) // 2)
                    outcomes.append(judged(original, folder, draft, clean[policy], checks))
            except DoesNotApplyError:
                continue
            yield Cell(name, original.name, *outcomes)


# --- the table ------------------------------------------------------------------------------------------------------

_WORDS = {
    "same bars": "same bars",
    "fewer bars": "fewer, named",
    "other bars": "others, named",
    "refused": "refused",
}


def table(cells: Sequence[Cell]) -> str:
    """Return the outcomes by defect as a table in Markdown, with one message or note of each."""
    lines = [
        "| Defect | As the policies come | With `drop` where allowed | For example |",
        "|---|---|---|---|",
    ]
    for defect in dict.fromkeys(cell.defect for cell in cells):
        found = [cell for cell in cells if cell.defect == defect]
        shown = next(
            (cell.strict.says for cell in found if cell.strict.says), "no note: nothing was wrong with a row"
        )
        lines.append(
            f"| {defect} | {_tally([cell.strict for cell in found])} | {_tally([cell.tolerant for cell in found])}"
            f" | {_shortened(shown)} |"
        )
    return "\n".join(lines)


def _tally(outcomes: Sequence[Outcome]) -> str:
    kinds = [_WORDS.get(outcome.kind, outcome.kind) for outcome in outcomes]
    return ", ".join(f"{kind} {kinds.count(kind)}" for kind in sorted(set(kinds), key=kinds.index))


def _shortened(says: str) -> str:
    """Return the first fault of a message, without the remedy that all of its kind have."""
    text = " ".join(says.split("\n")[0].split(";")[0].split()).replace("|", "\\|")
    return text if len(text) <= 140 else text[:139] + "…"


def endless_line(folder: Path, size: int) -> tuple[str, float, float]:
    """Write one line of `size` bytes and read it.

    Returns:
        The message, seconds of processor time, and by how many megabytes the process grew at most.
    """
    path = folder / "Nifty_1.csv"
    original = twins()["index minutes, no header"]
    with path.open("wb") as file:
        file.write((",".join(original.header) + "\n").encode())
        for _ in range(size >> 20):
            file.write(b"1" * (1 << 20))
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        read_raw(path, "Nifty_1", original.instrument())
        says = "loaded"
    except DataError as error:
        says = str(error).replace(f"{folder}/", "")
    path.unlink()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return says, time.process_time() - begun, grown


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bad_files", description=__doc__)
    parser.add_argument(
        "--real", type=Path, metavar="DIR", help="damage the real files in DIR instead of their twins"
    )
    parser.add_argument("--rows", type=int, help="take only so many rows of each real file")
    parser.add_argument("--endless", type=int, metavar="BYTES", help="read one line of so many bytes instead")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.endless:
            says, seconds, grown = endless_line(folder, options.endless)
            print(f"{says}\n{seconds:.2f} s of processor time, {grown:.0f} MB more memory")
            return 0
        originals = real_originals(options.real, options.rows) if options.real else twins()
        if not originals:
            parser.error(f"{options.real} holds none of the real files")
        cells = list(matrix(originals, folder))
    print(table(cells))
    wrong = [
        (cell, outcome)
        for cell in cells
        for outcome in (cell.strict, cell.tolerant)
        if outcome.kind == "WRONG"
    ]
    print(f"\n{2 * len(cells)} files of {len(originals)} originals, {len(wrong)} wrong")
    for cell, outcome in wrong:
        print(f"{cell.defect} in {cell.original}: {outcome.says}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
