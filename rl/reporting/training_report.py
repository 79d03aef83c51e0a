"""The training report: what each stage did, how it was judged, what was promoted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from rl.common.atomic_files import write_json, write_text
from rl.common.printable import printable
from rl.reporting.adaptation_report import adaptation_figures, adaptation_text
from rl.reporting.tables import (
    SYNTHETIC_PREFIX,
    change,
    number,
    percent,
    probability,
    table_lines,
    whole,
)
from rl.stages.mixture_control import Difference, MixtureControl
from rl.stages.null_bank import Calibration
from rl.stages.outcomes import StageOutcome, SymbolOutcome
from rl.stages.plan import STAGES, Plan
from rl.stages.stage_model import STAGE_TITLES

SCHEMA_VERSION = 1
TEXT_WIDTH = 116

TABLE_WIDTH = 130
"""From this width on the summary shows every figure."""

_UNSHORTENED_WIDTH = 105
_SHORT_WORD = "INCONCL."
_SHORT_WORD_MEANS = f"{_SHORT_WORD} is INCONCLUSIVE: the evidence decides neither for nor against."


def summary_table(outcomes: Sequence[SymbolOutcome], width: int = TABLE_WIDTH) -> list[str]:
    """Return one line per symbol: each stage's verdict, champion, promotion and validation figures.

    A narrow one leaves out win rate and profit factor, which stand beside the gates, and shortens INCONCLUSIVE.
    """
    is_narrow, is_short = width < TABLE_WIDTH, width < _UNSHORTENED_WIDTH
    rows = []
    for outcome in outcomes:
        by_stage = {stage.stage: stage for stage in outcome.stages}
        shown = [by_stage[name].verdict.outcome if name in by_stage else "-" for name in STAGES]
        best = by_stage.get(outcome.champion) if outcome.champion else None
        figures: dict[str, Any] = best.validation if best else {}
        row = [
            _labelled(outcome.symbol),
            *shown,
            outcome.champion or "-",
            _promoted(outcome),
            number(figures.get("sharpe_ratio")),
            percent(figures.get("max_drawdown")),
            percent(figures.get("win_rate")),
            number(figures.get("profit_factor")),
        ]
        rows.append([cell.replace("INCONCLUSIVE", _SHORT_WORD) for cell in row] if is_short else row)
    headings = [
        "symbol", "ppo", "moe", "maml", "champion", "promoted", "val Sharpe", "max DD", "win rate", "PF",
    ]  # fmt: skip
    last = len(headings) - 2 * is_narrow
    lines = table_lines(headings[:last], [row[:last] for row in rows], left=6, width=width)
    if any(_SHORT_WORD in cell for row in rows for cell in row[:last]):
        lines += wrap(_SHORT_WORD_MEANS, width)
    return lines


def promotion_table(outcomes: Sequence[SymbolOutcome], width: int = TABLE_WIDTH) -> list[str]:
    """Return one line per symbol judged for promotion: its p, what correcting did to it, and what came of it."""
    rows = []
    for outcome in outcomes:
        found = _promotion_figures(outcome)
        if found is None:
            continue
        survived = {True: "yes", False: "no", None: "-"}[found["survived"]]
        rows.append(
            [
                _labelled(outcome.symbol),
                str(found["look"]),
                probability(found["p"]),
                probability(found["alpha_used"]),
                probability(found["corrected_p"]),
                probability(found["rank_threshold"]),
                survived,
                _promoted(outcome),
            ]
        )
    if not rows:
        return []
    headings = ["promotion", "look", "p", "its alpha", "corrected p", "needed", "survived", "result"]
    return table_lines(headings, rows, width=width)


def _promotion_figures(outcome: SymbolOutcome) -> dict[str, Any] | None:
    """Return what decided a promotion by its p value; None where none was judged."""
    verdict = outcome.promotion
    if verdict is None:
        return None
    family = verdict.context.get("family", {})
    return {
        "look": verdict.attempt,
        "p": verdict.metrics.get("p_no_edge"),
        "alpha_used": verdict.alpha_used,
        "corrected_p": family.get("corrected_p"),
        "rank_threshold": family.get("rank_threshold"),
        "survived": family.get("survived"),
        "outcome": verdict.outcome,
        "settled": outcome.settled,
    }


def _labelled(symbol: str) -> str:
    return f"{symbol} (SYNTHETIC)" if symbol.startswith(SYNTHETIC_PREFIX) else symbol


def _promoted(outcome: SymbolOutcome) -> str:
    if outcome.promotion is None:
        return "no champion"
    if not outcome.settled:
        return "no (unsettled)"
    if outcome.promotion.passed:
        return "PROMOTED" if outcome.final_file else "passed, but not written"
    written = ", written UNPROVEN" if outcome.final_file else ""
    return f"no ({outcome.promotion.outcome}{written})"


def write_training_report(
    outcomes: Sequence[SymbolOutcome],
    plan: Plan,
    folder: Path,
    calibration: Calibration | None = None,
    forgotten: Sequence[str] = (),
) -> list[Path]:
    """Write `training_report.txt` and `.json` into a run's folder; return their paths.

    Args:
        outcomes: What came of each symbol.
        plan: The run's plan.
        folder: Where to.
        calibration: How often trading without an edge passes the plan's gates; None where that was not tried.
        forgotten: Which models the ledger does not know the looks behind, in sentences.
    """
    text, data = folder / "training_report.txt", folder / "training_report.json"
    notes = [*(calibration.notes() if calibration else []), *(f"{text}." for text in forgotten)]
    write_text(text, printable("\n".join(_text(outcomes, plan, notes)) + "\n"))
    write_json(data, training_json(outcomes, plan, calibration, forgotten))
    return [text, data]


def training_json(
    outcomes: Sequence[SymbolOutcome],
    plan: Plan,
    calibration: Calibration | None = None,
    forgotten: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the whole report as plain values, unrounded; arguments as `write_training_report` takes them."""
    return {
        **_json(outcomes, plan),
        "null_bank": calibration.to_dict() if calibration else None,
        "null_bank_notes": calibration.notes() if calibration else [],
        "forgotten_looks": list(forgotten),
    }


def _headline(outcomes: Sequence[SymbolOutcome]) -> str:
    passed = [outcome for outcome in outcomes if outcome.promotion is not None and outcome.promotion.passed]
    promoted = [outcome.symbol for outcome in passed if outcome.final_file is not None]
    unwritten = [outcome.symbol for outcome in passed if outcome.final_file is None]
    unsettled = [each.symbol for each in outcomes if each.promotion is not None and not each.settled]
    if unsettled:
        return f"No promotion was settled, and no final model written: {', '.join(unsettled)} judged, but not decided."
    if not passed:
        return f"None of {len(outcomes)} symbols has a model that showed an edge on its promotion window."
    text = f"{len(promoted)} of {len(outcomes)} symbols promoted on evidence"
    text += f": {', '.join(promoted)}." if promoted else "."
    return text + (
        f" Passed, but no final model could be written: {', '.join(unwritten)}." if unwritten else ""
    )


def _text(outcomes: Sequence[SymbolOutcome], plan: Plan, notes: Sequence[str]) -> list[str]:
    lines = ["STAGEGATE TRAINING REPORT", "", _headline(outcomes), ""]
    lines += summary_table(outcomes)
    lines += [
        "",
        "Validation figures are of the greedy policy, net of costs. Stages are chosen and stopped by them, so they are",
        "no estimate of what comes next. The promotion window is opened only to judge a champion; looks are counted.",
        *notes,
    ]
    if table := promotion_table(outcomes):
        rate = plan.evidence.false_discovery_rate
        lines += [
            "",
            *table,
            "",
            "p: chance of such a mean trade without any edge, or of such a return beyond buy-and-hold if that is",
            "larger, asked for at the alpha of its look. Corrected p: times what looking so often costs. Of the models",
            f"promoted in one run at most a share of {percent(rate, 0)} is expected to have no edge "
            "(Benjamini-Hochberg over all symbols",
            "judged in it).",
        ]
    for outcome in outcomes:
        lines += ["", "=" * 100, _labelled(outcome.symbol), ""]
        lines += [
            f"  {name:<11} {first} .. {last}   {sessions:,} sessions"
            for name, (first, last, sessions) in outcome.windows.items()
        ]
        lines += [f"  {note}" for note in outcome.notes]
        lines += [
            f"  its own setting: {key} {_setting(value)}, instead of {_setting(instead)}"
            for key, value, instead in plan.own_settings(outcome.symbol)
        ]
        for stage in outcome.stages:
            lines += ["", *_stage_text(stage, plan)]
        if outcome.stopped:
            lines += ["", f"The sequence stopped here: {outcome.stopped}"]
        if outcome.impossible:
            lines += ["", outcome.impossible]
        lines += ["", f"Champion: {outcome.champion or 'none, no stage passed'}"]
        if outcome.promotion is not None:
            lines += outcome.promotion.lines()
        lines += [
            f"Final model: {outcome.final_file}"
            if outcome.final_file
            else "Final model: none written; the backtest will say that its model was not promoted."
        ]
    return lines


def _setting(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _stage_text(stage: StageOutcome, plan: Plan) -> list[str]:
    block = plan.stage(stage.stage)
    figures = stage.validation
    unit = "iterations" if stage.stage == "maml" else "episodes"
    lines = [
        f"{STAGE_TITLES[stage.stage]}: {block.description}",
        *(f"  - {objective}" for objective in block.objectives),
        f"  {stage.model.episodes} {unit}, {stage.wall_seconds:.1f} s ({stage.cpu_seconds:.1f} s CPU), "
        f"{len(stage.attempts)} attempt{'s' * (len(stage.attempts) > 1)}, file {stage.file}",
        f"  validation: return {percent(figures['total_return'])}, Sharpe {number(figures['sharpe_ratio'])} "
        f"[{number(figures['sharpe_low'])}, {number(figures['sharpe_high'])}], drawdown "
        f"{percent(figures['max_drawdown'])}, {whole(figures['total_trades'])} trades, win rate "
        f"{percent(figures['win_rate'])}, profit factor {number(figures['profit_factor'])}, costs "
        f"{number(figures['total_costs'], 0)}",
    ]
    lines += wrap(_rolled_back(stage), TEXT_WIDTH, initial_indent="  ", subsequent_indent="    ")
    lines += ["  " + line for line in stage.verdict.lines()]
    for earlier in stage.attempts[:-1]:
        lines.append(
            f"    another attempt (look {earlier.attempt}): {earlier.outcome}; {' '.join(earlier.readable_reasons())}"
        )
    if "experts" in figures:
        lines += _expert_text(figures["experts"])
    if stage.stage == "moe" and not stage.model.metrics.get("transfer_learning", True):
        lines.append("  " + _fresh_start(plan))
    if stage.stage == "maml":
        lines += adaptation_text(stage.verdict)
    lines += _worth_of_mixture(stage)
    if stage.control is not None:
        lines += _control_text(stage.control, plan)
    if stage.champion is not None and plan.monitoring.compare_stages:
        lines.append(f"  {stage.champion.text}")
    return lines


def rolled_back_warnings(outcomes: Sequence[SymbolOutcome]) -> list[str]:
    """Return a sentence for every stage of which a part was taken back because a number was not finite."""
    return [
        f"{outcome.symbol}, {STAGE_TITLES[stage.stage]}: {text}"
        for outcome in outcomes
        for stage in outcome.stages
        if (text := _rolled_back(stage))
    ]


def _rolled_back(stage: StageOutcome) -> str:
    """Return the warning, empty where nothing was taken back."""
    count = stage.model.metrics.get("rolled_back", 0)
    if not count:
        return ""
    what = "iteration" if stage.stage == "maml" else "update"
    return (
        f"WARNING: {whole(count)} {what}{'s' * (count > 1)} rolled back, because a number was not finite: nothing was "
        "learned there. The run's log shows where rolled_back rises; a lower learning rate is what usually helps."
    )


def _fresh_start(plan: Plan) -> str:
    if plan.model_management.transfer_learning:
        return "Its experts started from random weights: those that grew out of stage 1 had not parted."
    return "Its experts started from random weights, as the plan says (transfer_learning: false)."


def _expert_text(found: dict[str, Any]) -> list[str]:
    """Return what each expert did, who leads in which regime, and whether that is specialisation."""
    use, known, worth = found["use"], found["information"], found["assignment"]
    rows = []
    for place, record in enumerate(found["experts"]):
        out = found["knock_outs"][place]
        rows.append(
            [
                str(place + 1),
                number(record["gate_weight"]),
                percent(record["leads"]),
                *(percent(record[side], 0) for side in ("short", "flat", "long")),
                percent(record["return_contribution"], 2),
                number(record["mean_holding_bars"], 1),
                "not in use" if out is None else change(out["return_change"], 2),
                "-" if out is None else percent(out["actions_changed"]),
            ]
        )
    headings = [
        "expert", "weight", "leads", "short", "flat", "long", "return", "holding", "without it", "changed",
    ]  # fmt: skip
    lines = ["", f"  Experts on {found['window']}; regimes: {found['regime_source']}"]
    lines += ["    " + line for line in table_lines(headings, rows)]
    lines += [
        "    Short to holding: of the bars an expert leads. Without it: change of the window's return when it is taken",
        "    out; changed: share of decisions that come out differently then.",
        "",
    ]
    shares = [
        [
            regime,
            whole(bars),
            *(
                f"{number(each[row]['gate_weight'])} {percent(each[row]['leads'], 0):>6}"
                for each in found["by_regime"]
            ),
        ]
        for row, (regime, bars) in enumerate(zip(found["regimes"], found["regime_bars"], strict=True))
    ]
    experts = [f"expert {place + 1}" for place in range(len(rows))]
    lines += ["    " + line for line in table_lines(["weight, leads", "bars", *experts], shares)]
    dispensable = [
        str(place + 1)
        for place, out in enumerate(found["knock_outs"])
        if out is not None and out["is_dispensable"]
    ]
    lines += [
        "",
        f"  Leading expert and regime share {number(known['nats'], 3)} nats (NMI {number(known['normalised'])}, p "
        f"{probability(known['p'])} by {whole(known['shifts'])} shifts in time).",
        f"  {number(use['effective_experts'])} experts in effect, {number(use['divergence'], 3)} nats apart; entropy "
        f"of a bar's weights {number(use['gate_entropy'], 3)} nats; the lead changes on "
        f"{percent(use['switching_rate'])} of bars.",
        f"  Return {change(worth['as_chosen'], 2)}; with the gate's choice shifted in time "
        f"{change(worth['shifted_mean'], 2)} on average, 90 % between {change(worth['shifted_low'], 2)}",
        f"  and {change(worth['shifted_high'], 2)} (p {probability(worth['p'])} by {whole(worth['shifts'])} shifts;",
        "  the weights were chosen by their return on this window, which makes that p too small).",
    ]
    if dispensable:
        lines.append(f"  Nothing is lost without expert {' or '.join(dispensable)}.")
    verdict = wrap(found["verdict"], TEXT_WIDTH, initial_indent="  ", subsequent_indent="    ")
    return [*lines, *verdict]


def _worth_of_mixture(stage: StageOutcome) -> list[str]:
    """Return what stage 2 adds to stage 1, if anything; empty where there was no stage 1 to compare it with."""
    if stage.stage != "moe" or stage.champion is None:
        return []
    first = STAGE_TITLES["ppo"]
    if not stage.champion.replaces:
        return [
            f"  The mixture adds nothing over {first} that validation can show; the champion stays {first}."
        ]
    if stage.verdict.outcome == "FAIL":
        return [f"  The mixture earned more than {first}, but failed its gate; the champion stays {first}."]
    return [f"  The mixture earned more than {first} on validation, beyond chance."]


def _control_text(control: MixtureControl, plan: Plan) -> list[str]:
    """Return mixture, one network of as many parameters and stage 1 beside each other, and what that says."""
    rows = [
        [name, *_difference_cells(difference)]
        for name, difference in (
            ("mixture - network", control.mixture_against_network),
            ("mixture - stage 1", control.mixture_against_stage_1),
            ("network - stage 1", control.network_against_stage_1),
        )
        if difference is not None
    ]
    widths = "-".join(str(units) for units in control.hidden)
    verdict = wrap(control.verdict(), TEXT_WIDTH, initial_indent="  ", subsequent_indent="    ")
    how_sure = (
        f"From and to: {percent(1.0 - 2.0 * plan.evidence.alpha, 0)} interval over validation, by which the weights of "
        "all were chosen."
    )
    return [
        "",
        f"  One network of as many parameters ({widths}: {whole(control.parameters)}; the mixture: "
        f"{whole(control.mixture_parameters)}), trained from the same start",
        f"  for {whole(control.episodes)} episodes: {number(control.cpu_seconds, 1)} s CPU, not part of the stage's. "
        "It is no candidate for champion.",
        *(
            "    " + line
            for line in table_lines(["bp a session", "mean", "from", "to", "p more", "p less"], rows)
        ),
        *(f"    {line}" for line in wrap(how_sure, TEXT_WIDTH)),
        *verdict,
    ]


def _difference_cells(difference: Difference) -> list[str]:
    basis_points = (1e4 * difference.mean, 1e4 * difference.lower, 1e4 * difference.upper)
    chances = (difference.p_more, difference.p_less)
    return [
        *("-" if math.isnan(value) else f"{value:+.2f}" for value in basis_points),
        *(probability(None if math.isnan(value) else value) for value in chances),
    ]


def _json(outcomes: Sequence[SymbolOutcome], plan: Plan) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "headline": _headline(outcomes),
        "plan": plan.as_dict(),
        "promotions": {
            outcome.symbol: found
            for outcome in outcomes
            if (found := _promotion_figures(outcome)) is not None
        },
        "symbols": {outcome.symbol: _symbol_json(outcome) for outcome in outcomes},
    }


def _symbol_json(outcome: SymbolOutcome) -> dict[str, Any]:
    return {
        "synthetic": outcome.symbol.startswith(SYNTHETIC_PREFIX),
        "windows": {
            name: {"from": first, "to": last, "sessions": sessions}
            for name, (first, last, sessions) in outcome.windows.items()
        },
        "stages": {
            stage.stage: {
                "episodes": stage.model.episodes,
                "rolled_back": stage.model.metrics.get("rolled_back", 0),
                "wall_seconds": stage.wall_seconds,
                "cpu_seconds": stage.cpu_seconds,
                "file": str(stage.file),
                "validation": stage.validation,
                "verdict": stage.verdict.to_dict(),
                "attempts": [verdict.to_dict() for verdict in stage.attempts],
                "training": stage.model.metrics,
                "champion": None if stage.champion is None else _champion_json(stage),
                **({"dense_control": stage.control.as_dict()} if stage.control is not None else {}),
                **({"adaptation": adaptation_figures(stage.verdict)} if stage.stage == "maml" else {}),
            }
            for stage in outcome.stages
        },
        "champion": outcome.champion,
        "promotion": outcome.promotion.to_dict() if outcome.promotion else None,
        "final_model": str(outcome.final_file) if outcome.final_file else None,
        "stopped": outcome.stopped,
        "impossible": outcome.impossible,
        "notes": list(outcome.notes),
        "seconds": outcome.seconds,
    }


def _champion_json(stage: StageOutcome) -> dict[str, Any]:
    decision = stage.champion
    assert decision is not None
    known = {
        "mean_difference": decision.mean_difference,
        "lower": decision.lower,
        "p": decision.p,
    }
    return {
        "replaces": decision.replaces,
        "text": decision.text,
        **{
            name: value if value == value and abs(value) != float("inf") else None
            for name, value in known.items()
        },
    }
