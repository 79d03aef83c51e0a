"""How often the whole product promotes: noise that should not be, planted edges that should.

`python -m benchmarks.promotion_rates --help`. Every market is a raw file, trained by `run_training.py` in a run of its
own: data, models, reports and ledger are its own too, so no market knows of another. That is the harshest way for the
gate, because no correction for several symbols helps it. What one run of all of them would have promoted is worked out
from the verdicts afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import run_training
from rl.common.atomic_files import write_json
from rl.common.compiled import source_hash
from rl.common.errors import GATE_STOPPED, OK
from rl.common.seeding import generator
from rl.common.threads import use_one_thread
from rl.market.synthetic import generate, write_raw_csv
from rl.reporting.tables import table_lines
from rl.stages.gates import Verdict, across_symbols
from rl.stages.plan import STAGES, load_plan

PLAN = Path(__file__).resolve().parent / "plans" / "small.yaml"
SESSIONS = 250
BARS_PER_SESSION = 187
NOISE = ("noise_gauss", "noise_garch", "noise_drift", "bounce")
PLANTED = "planted"
PLANTED_PARAMS = {"r2": 0.02, "rho": 0.95}
MOST_PROMOTED_OF_NOISE = 0.05
LEAST_PROMOTED_OF_PLANTED = 0.90


@dataclass(frozen=True, kw_only=True)
class Market:
    """One market to be trained on."""

    symbol: str
    kind: str
    seed: int
    """Of the prices; below 2^62."""
    training_seed: int
    params: dict[str, float] = field(default_factory=dict)

    @property
    def is_noise(self) -> bool:
        return self.kind in NOISE


def markets(noise: int, planted: int) -> list[Market]:
    """Return so many noise markets, their kinds in turn, and so many planted ones."""
    kinds = [NOISE[number % len(NOISE)] for number in range(noise)] + [PLANTED] * planted
    numbers: dict[str, int] = {}
    found = []
    for kind in kinds:
        number = numbers[kind] = numbers.get(kind, 0) + 1
        seed = int(generator(0, "promotion rates", kind, number).integers(2**62))
        found.append(
            Market(
                symbol=f"SYN_{kind}_{number:03}_2",
                kind=kind,
                seed=seed,
                training_seed=number,
                params=PLANTED_PARAMS if kind == PLANTED else {},
            )
        )
    return found


def identity(market: Market) -> str:
    """Return a hash of everything a result depends on: market, plan and code. 16 hexadecimal digits"""
    parts = [repr(market), str(SESSIONS), PLAN.read_text(encoding="utf-8"), source_hash()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def train_market(market: Market, out: Path) -> dict[str, Any]:
    """Draw one market, train it by the command a user runs, and return what came of it.

    Raises:
        RuntimeError: The command ended with anything but success or "a gate stopped it".
    """
    folder = out / market.symbol
    shutil.rmtree(folder, ignore_errors=True)
    wall, cpu = time.perf_counter(), time.process_time()
    drawn = generate(market.kind, SESSIONS, market.seed, BARS_PER_SESSION, **market.params)
    write_raw_csv(drawn, folder / "raw" / f"{market.symbol}.csv")
    words = [
        "--symbols",
        market.symbol,
        "--config",
        str(PLAN),
        "--seed",
        str(market.training_seed),
        "--quiet",
    ]
    for option, name in (
        ("--raw-data-dir", "raw"),
        ("--processed-data-dir", "processed"),
        ("--models-dir", "models"),
        ("--reports-dir", "reports"),
    ):
        words += [option, str(folder / name)]
    with (
        (folder / "output.txt").open("w", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        code = run_training.main(words)
    if code not in (OK, GATE_STOPPED):
        raise RuntimeError(
            f"run_training.py {' '.join(words)} ended with {code}; see {folder / 'output.txt'}"
        )
    (report,) = folder.glob("reports/runs/*/training_report.json")
    found = json.loads(report.read_text(encoding="utf-8"))["symbols"][market.symbol]
    result = {
        "identity": identity(market),
        **outcome_of(market, found),
        "exit_code": code,
        "cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.perf_counter() - wall,
    }
    write_json(folder / "result.json", result)
    # The market can be drawn again from its seed; 120 of them would fill a gigabyte.
    for name in ("raw", "processed"):
        shutil.rmtree(folder / name)
    return result


def outcome_of(market: Market, report: dict[str, Any]) -> dict[str, Any]:
    """Return what a training report says about a market, as far as promotion goes."""
    promotion = report["promotion"]
    verdict = Verdict.from_dict(promotion) if promotion else None
    return {
        "symbol": market.symbol,
        "kind": market.kind,
        "seed": market.seed,
        "stages": {name: stage["verdict"]["outcome"] for name, stage in report["stages"].items()},
        "attempts": {name: len(stage["attempts"]) for name, stage in report["stages"].items()},
        "champion": report["champion"],
        "stopped": report["stopped"],
        "promoted": bool(verdict and verdict.passed),
        "p": verdict.criterion("p_no_edge").value if verdict else None,
        "attempt": verdict.attempt if verdict else None,
        "promotion": promotion,
    }


def promoted_together(results: Sequence[dict[str, Any]]) -> set[str]:
    """Return which symbols one run of all of them would have promoted, by the product's rule for a run's symbols."""
    judged = [Verdict.from_dict(result["promotion"]) for result in results if result["promotion"]]
    settled = across_symbols(judged, load_plan(PLAN).evidence.false_discovery_rate)
    return {verdict.symbol for verdict in settled if verdict.passed}


def finished(market: Market, out: Path) -> dict[str, Any] | None:
    """Return the result a market already has from this code and plan, or None."""
    file = out / market.symbol / "result.json"
    if not file.exists():
        return None
    result = json.loads(file.read_text(encoding="utf-8"))
    return result if result["identity"] == identity(market) else None


def summary(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table: what passed which gate and what was promoted, by kind of market."""
    together = promoted_together(results)
    rows = []
    groups = [(kind, [kind]) for kind in (*NOISE, PLANTED)]
    groups.insert(len(NOISE), ("all noise", list(NOISE)))
    for title, kinds in groups:
        group = [result for result in results if result["kind"] in kinds]
        if not group:
            continue
        passed = [sum(result["stages"].get(stage) == "PASS" for result in group) for stage in STAGES]
        rows.append(
            [
                title,
                str(len(group)),
                *map(str, passed),
                str(sum(result["promotion"] is not None for result in group)),
                str(sum(result["promoted"] for result in group)),
                str(sum(result["symbol"] in together for result in group)),
                f"{np.mean([result['cpu_seconds'] for result in group]):.1f}",
            ]
        )
    headings = [
        "market", "trained", "ppo PASS", "moe PASS", "maml PASS", "judged", "promoted", "in one run", "CPU s each",
    ]  # fmt: skip
    return table_lines(headings, rows)


def missed_goals(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return in words which of the two goals was missed."""
    noise = [result["promoted"] for result in results if result["kind"] in NOISE]
    planted = [result["promoted"] for result in results if result["kind"] == PLANTED]
    found = []
    if sum(noise) > MOST_PROMOTED_OF_NOISE * len(noise):
        found.append(f"{sum(noise)} of {len(noise)} noise markets were promoted, at most 5 % may be")
    if sum(planted) < LEAST_PROMOTED_OF_PLANTED * len(planted):
        found.append(
            f"{sum(planted)} of {len(planted)} planted edges were promoted, at least 90 % have to be"
        )
    return found


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.promotion_rates",
        description="Train noise and planted edges through run_training.py, one market a run, and count promotions. "
        "Exit code 1 where more than 5 % of noise or fewer than 90 % of planted edges are promoted.",
    )
    parser.add_argument(
        "--noise", type=int, default=100, help="noise markets, four kinds in turn (default: 100)"
    )
    parser.add_argument("--planted", type=int, default=20, help="markets with a planted edge (default: 20)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where everything goes")
    parser.add_argument("--jobs", type=int, default=1, help="markets trained side by side (default: 1)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these kinds of market or symbols")
    parser.add_argument(
        "--resume", action="store_true", help="skip markets that have a result of this code and plan"
    )
    options = parser.parse_args(argv)
    for name, least in (("noise", 0), ("planted", 0), ("jobs", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} has to be at least {least}, but is {getattr(options, name)}")
    chosen = markets(options.noise, options.planted)
    unknown = set(options.only or ()) - {name for market in chosen for name in (market.kind, market.symbol)}
    if unknown:
        parser.error(
            f"--only {' '.join(sorted(unknown))}: no such market among those of --noise and --planted"
        )
    options.markets = [
        market for market in chosen if not options.only or {market.kind, market.symbol} & set(options.only)
    ]
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Train the markets, print and write what was promoted; return 0 if both goals are met."""
    options = parse_options(argv)
    use_one_thread()
    load_plan(PLAN)
    options.out.mkdir(parents=True, exist_ok=True)
    out = options.out.resolve()
    done: dict[str, dict[str, Any]] = {}
    if options.resume:
        done = {market.symbol: found for market in options.markets if (found := finished(market, out))}
        print(f"{len(done)} of {len(options.markets)} markets have a result already", flush=True)
    failed = trained(
        [market for market in options.markets if market.symbol not in done], out, options.jobs, done
    )
    results = [done[market.symbol] for market in options.markets if market.symbol in done]
    write_json(
        out / "results.json",
        {"promoted_together": sorted(promoted_together(results)), "markets": results, "failed": failed},
    )
    print("\n" + "\n".join(summary(results)))
    complaints = [*missed_goals(results), *(f"{symbol}: {error}" for symbol, error in failed.items())]
    for line in complaints or ["Both goals are met."]:
        print(line)
    print(f"results: {out / 'results.json'}")
    return 1 if complaints else 0


def trained(todo: Sequence[Market], out: Path, jobs: int, done: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Train markets side by side, put their results into `done`, and return what went wrong, by symbol."""
    failed: dict[str, str] = {}
    # Fresh interpreters, which import the command once and then run it market by market.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=use_one_thread) as pool:
        waiting = {pool.submit(train_market, market, out): market for market in todo}
        for future in as_completed(waiting):
            symbol = waiting[future].symbol
            try:
                done[symbol] = future.result()
            except Exception as error:  # noqa: BLE001 - one market's fault must not cost the others' results
                failed[symbol] = f"{type(error).__name__}: {error}"
                print(f"{symbol}: {failed[symbol]}", flush=True)
                continue
            print(line_of(done[symbol]), flush=True)
    return failed


def line_of(result: dict[str, Any]) -> str:
    """Return one market's result in a line."""
    verdicts = " ".join(f"{stage} {outcome}" for stage, outcome in result["stages"].items())
    promotion = result["promotion"]["outcome"] if result["promotion"] else "not judged"
    p = "" if result["p"] is None else f", p {result['p']:.3g}"
    return f"{result['symbol']}: {verdicts}; promotion {promotion}{p}; {result['cpu_seconds']:.1f} s CPU"


if __name__ == "__main__":
    sys.exit(main())
