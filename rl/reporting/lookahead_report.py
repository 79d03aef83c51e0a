"""What the look-ahead check found, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rl.backtest.lookahead import PIECES, Finding, LookaheadReport
from rl.backtest.lookahead_poisons import POISONS
from rl.market.checks import counted
from rl.reporting.tables import table_lines, whole


def lookahead_text(report: LookaheadReport) -> str:
    """Return one symbol's verdicts as text: a headline, a table per step, a table per feature, notes."""
    guilty = ", ".join(report.guilty_pieces)
    headline = f"SOMETHING SEES THE FUTURE: {guilty}" if guilty else "nothing sees the future"
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
    return "\n".join(lines)


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
