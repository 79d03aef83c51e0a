"""What the look-ahead check found, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rl.backtest.lookahead import NOT_TESTED, PIECES, Finding, LookaheadReport
from rl.backtest.lookahead_poisons import POISONS
from rl.common.printable import printable
from rl.market.checks import counted
from rl.reporting.tables import table_lines, whole


def lookahead_text(report: LookaheadReport) -> str:
    """Return one symbol's verdicts as text: a headline, a table per step, a table per feature, notes."""
    guilty = ", ".join(report.guilty_pieces)
    headline = f"SOMETHING SEES THE FUTURE: {guilty}" if guilty else "nothing sees the future"
    if report.on_trust:
        headline = f"{headline if guilty else 'no step sees the future'}; {_on_trust(report.on_trust)}"
    tests = sum(finding.tests for finding in report.findings)
    lines = [
        f"{report.symbol}: {headline}",
        f"  {report.bars:,} bars, {counted(len(report.cuts), 'cut')} from {report.cuts[0]} to {report.cuts[-1]}, later "
        f"bars {', '.join(POISONS)}: {tests:,} comparisons, bit for bit",
        f"  what acts: {report.model}",
        "",
    ]
    features = [finding for finding in report.findings if finding.piece == "features"]
    lines += table_lines(
        ("step", "what", "verdict", "compared"),
        [
            (finding.piece, finding.item, finding.verdict, whole(finding.tests))
            for finding in report.findings
            if finding not in features
        ],
        left=3,
    )
    lines += [
        "",
        "  W: bars a feature is computed from; error: from the last W bars alone, against all history",
    ]
    lines += table_lines(
        ("feature", "verdict", "compared", "W", "error"),
        [
            (
                finding.item,
                finding.verdict,
                whole(finding.tests),
                whole(finding.warm_up_bars),
                "-" if finding.warm_start_error is None else f"{finding.warm_start_error:.0e}",
            )
            for finding in features
        ],
        left=2,
    )
    remarks = _remarks(report.findings)
    if remarks:
        lines += ["", *remarks]
    lines += [f"  note: {note}" for note in report.notes]
    return printable("\n".join(lines))


def _on_trust(columns: Sequence[Finding]) -> str:
    """Return how many own columns nobody can recompute, and how many of those had too little data to be tested."""
    untested = sum(column.verdict == NOT_TESTED for column in columns)
    text = f"{counted(len(columns), 'own column')} {'is' if len(columns) == 1 else 'are'} taken on trust"
    if not untested:
        return text
    return (
        f"{text} ({'NOT TESTED' if untested == len(columns) else f'{untested} NOT TESTED'}: too little data)"
    )


def _remarks(findings: Sequence[Finding]) -> list[str]:
    """Return every remark as a line, faults first."""
    ordered = sorted(
        (finding for finding in findings if finding.remark),
        key=lambda finding: (not finding.is_fault, list(PIECES).index(finding.piece)),
    )
    return [
        f"  {finding.verdict + ': ' if finding.is_fault else ''}{finding.piece}, {finding.item}: {finding.remark}"
        for finding in ordered
    ]
