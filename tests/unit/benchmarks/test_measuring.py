"""The benchmark's arithmetic: rates, ratios by round, and numbers a reader can compare."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import NAMES, main
from benchmarks.comparisons import BENCHMARKS
from benchmarks.measuring import Clocks, Comparison, Contender, Spread, measure, quantity, table
from benchmarks.sample import sides_by_moving_average


class HandClock:
    """Time that passes only when work says so; wall time runs at twice the processor's."""

    def __init__(self) -> None:
        self.now = 0.0

    def clocks(self) -> Clocks:
        return Clocks(wall=lambda: 2.0 * self.now, cpu=lambda: self.now)

    def work(self, units: float, seconds: list[float]):
        left = list(seconds)

        def run() -> float:
            self.now += left.pop(0)
            return units

        return run


def test_the_first_run_is_not_counted_and_the_ratio_is_taken_within_a_round():
    clock = HandClock()
    comparison = Comparison(
        title="t",
        unit="steps",
        contenders=(
            # 9 seconds of compiling, then three rounds.
            Contender("slow", clock.work(10, [9.0, 1.0, 2.0, 4.0])),
            Contender("fast", clock.work(10, [9.0, 0.5, 0.5, 0.5])),
        ),
    )
    slow, fast = measure(comparison, rounds=3, clocks=clock.clocks())
    assert slow.per_cpu_second == Spread(5.0, 2.5, 10.0)
    assert slow.per_wall_second == Spread(2.5, 1.25, 5.0)
    assert slow.ratio == Spread(1.0, 1.0, 1.0)
    # Round by round 20/10, 20/5, 20/2.5; the ratio of the medians would be 4 too, of the bests only 2.
    assert fast.ratio == Spread(4.0, 2.0, 8.0)


def test_short_work_is_repeated_until_the_clock_can_tell():
    clock = HandClock()
    comparison = Comparison(
        title="t", unit="steps", contenders=(Contender("a", clock.work(1, [1.0] + [0.0625] * 4)),)
    )
    (row,) = measure(comparison, rounds=1, least_seconds=0.25, clocks=clock.clocks())
    assert row.per_cpu_second.median == 16.0  # 4 runs of 1 / 16 second


def test_every_round_begins_with_another_contender():
    order = []
    clock = HandClock()

    def named(name: str) -> Contender:
        def run() -> float:
            order.append(name)
            clock.now += 1.0
            return 1.0

        return Contender(name, run)

    comparison = Comparison(title="t", unit="steps", contenders=(named("a"), named("b"), named("c")))
    measure(comparison, rounds=3, clocks=clock.clocks())
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.515, "0.52"),
        (9.314, "9.31"),
        (46.23, "46.2"),
        (999.4, "999"),
        (999.6, "1.00k"),
        (46_230, "46.2k"),
        (1.7e6, "1.70M"),
        (4.31e7, "43.1M"),
    ],
)
def test_quantities_have_three_digits(value, text):
    assert quantity(value) == text


def test_the_table_names_the_unit_and_keeps_the_notes():
    clock = HandClock()
    comparison = Comparison(
        title="Walking",
        unit="steps",
        contenders=(Contender("a", clock.work(2_000, [1.0, 1.0])),),
        notes=("A note.",),
    )
    text = table(comparison, measure(comparison, rounds=1, clocks=clock.clocks()))
    assert text.splitlines()[0].startswith("Walking  steps per CPU-s")
    assert "2.00k" in text
    assert text.endswith("A note.")


def test_moving_average_sides_are_flat_until_both_means_exist():
    closes = [1.0, 1.0, 1.0, 4.0, 1.0, 1.0, 0.0]
    # Means of the last 1 and 3: 1/1 (equal counts as below), 4/2, 1/2, 1/2, 0/(2/3).
    assert sides_by_moving_average(np.array(closes), fast=1, slow=3).tolist() == [0, 0, -1, 1, -1, -1, -1]


def test_the_names_in_the_help_are_the_benchmarks_there_are():
    assert tuple(BENCHMARKS) == NAMES


def test_an_unknown_benchmark_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["trainng"])
    assert stopped.value.code == 2
    assert "there is no benchmark 'trainng'" in capsys.readouterr().err


def test_the_command_prints_a_table_and_writes_its_numbers(tmp_path):
    """A process of its own: it turns off progress bars for everything imported after it."""
    file = tmp_path / "speed.json"
    command = [sys.executable, "-m", "benchmarks", "processing", "--quick", "--json", str(file)]
    ran = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert "Processing a raw file" in ran.stdout
    assert "QUICK: too little work to quote" in ran.stdout
    (result,) = json.loads(file.read_text())["results"]
    assert [row["name"].split(",")[0] for row in result["rows"]] == [
        "pandas.read_csv alone",
        "Stagegate",
        "Stagegate",
    ]
    assert result["rows"][0]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert all(row["per_cpu_second"]["low"] > 0 for row in result["rows"])
