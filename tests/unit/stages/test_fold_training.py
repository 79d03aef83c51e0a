"""A fold is the product's own sequence on its window: it sees nothing later and is trained once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl.backtest.walk_forward import folds_of, parse_walk_forward
from rl.checkpoints.checkpoint import load_checkpoint
from rl.common.errors import CheckpointError
from rl.market.bars import Bars
from rl.market.instruments import Commission, FoundInstrument
from rl.stages.evidence import LEDGER_NAME, EvidenceLedger
from rl.stages.fold_training import FoldWork, fold_data, is_finished, trade_stretch, train_fold, works_of
from rl.stages.plan import Plan
from tests.builders import an_instrument
from tests.unit.stages.small_symbol import edge_bars, edge_table, small_plan, with_bars_changed_from

BARS = edge_bars(sessions=60)
FOUND = FoundInstrument(
    an_instrument(name="EDGE", commission=Commission(rate=1e-5), margin_rate=0.2), "EDGE (instrument)"
)
UNDECIDED = "evidence.min_sessions=1000"
"""Too few sessions for a verdict, so that every stage is trained whatever it earns."""

PLAN = small_plan(UNDECIDED)


class Heard:
    """A listener that keeps which stages began, and may break off at one."""

    def __init__(self, break_off_at: str | None = None) -> None:
        self.began: list[str] = []
        self.break_off_at = break_off_at

    def stage_started(
        self, symbol: str, stage: str, total: int, unit: str, why: str, attempt: int = 1
    ) -> None:
        self.began.append(stage)
        if stage == self.break_off_at:
            raise KeyboardInterrupt

    def progressed(self, symbol: str, stage: str, figures: dict[str, Any]) -> None: ...

    def judged(
        self, symbol: str, stage: str, verdict: Any, seconds: float, cpu_seconds: float, attempts: int = 1
    ) -> None: ...

    def said(self, symbol: str, text: str) -> None: ...


def works(
    root: Path, bars: Bars = BARS, plan: Plan = PLAN, stages: tuple[str, ...] = ("ppo",)
) -> list[FoldWork]:
    """Return two folds of 40 sessions and the 10 after them."""
    table = edge_table(bars)
    folds, _ = folds_of(bars, table.usable, parse_walk_forward("40s/10s"))
    return works_of(bars, table, folds, plan, stages=stages, instrument=FOUND, root=root)


def tensors(work: FoldWork) -> dict[str, bytes]:
    found = {}
    for path in sorted((work.folder / "models").glob("*.pth")):
        checkpoint = load_checkpoint(path)
        found[path.name] = checkpoint.weights.numpy().tobytes()
        found |= {
            f"{path.name} {name}": each.numpy().tobytes() for name, each in checkpoint.extra_tensors.items()
        }
    return found


def files(work: FoldWork) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((work.folder / "models").glob("*.pth"))}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> list[FoldWork]:
    """Return two finished folds of all three stages."""
    folds = works(tmp_path_factory.mktemp("folds"), stages=("ppo", "moe", "maml"))
    for work in folds:
        train_fold(work, Heard())
    return folds


def test_a_window_is_cut_in_the_plans_proportions_with_the_stretch_right_after_it(tmp_path):
    first, second = works(tmp_path, plan=small_plan("embargo_bars=25"))
    splits = fold_data(first).splits
    # 40 sessions of 25 bars in proportions 60 : 15 : 10, an embargo of one session before each later window.
    assert [(window.start, window.stop) for window in splits.windows] == [
        (0, 725),  # 705.9 runs on to the next start of a session
        (750, 900),  # 882.4 likewise
        (925, 975),  # the embargo before the stretch is taken from here
        (1000, 1250),
    ]
    assert (second.fold.begin, second.fold.start) == (250, 1250)
    assert len(second.bars) == 1250


def test_every_stage_is_trained_judged_and_counted_as_in_a_training_run(trained):
    for work in trained:
        record = json.loads((work.folder / "fold.json").read_text())
        assert list(record["stages"]) == ["ppo", "moe", "maml"]
        assert record["promotion"] in ("PASS", "FAIL", "INCONCLUSIVE")
    looks = [
        [
            line["purpose"]
            for line in EvidenceLedger(work.folder / LEDGER_NAME).entries()
            if line["kind"] == "look"
        ]
        for work in trained
    ]
    one = ["progress", "progress", "adaptation", "promotion"]
    # The second fold's ledger goes on with what the first one looked at.
    assert looks == [one, one + one]


def test_bars_after_a_folds_window_change_nothing_of_its_models(trained, tmp_path):
    """Its models are made of its window alone: not of its stretch, and of nothing later."""
    changed = with_bars_changed_from(BARS, trained[0].fold.start)
    other = works(tmp_path, changed, stages=("ppo", "moe", "maml"))
    assert other[0].identity == trained[0].identity
    assert other[1].identity != trained[1].identity
    train_fold(other[0], Heard())
    assert files(other[0]) == files(trained[0])
    assert len(files(trained[0])) >= 3


def test_a_bar_of_its_window_makes_it_another_fold(trained, tmp_path):
    last = trained[0].fold.start - 1
    changed = works(
        tmp_path, with_bars_changed_from(BARS, last, until=last + 1), stages=("ppo", "moe", "maml")
    )
    assert [work.identity for work in changed] != [work.identity for work in trained]
    assert changed[0].identity != trained[0].identity


@pytest.mark.parametrize("setting", ["seed=5", "splits.train=0.61 splits.test=0.14"])
def test_another_plan_makes_it_another_fold(trained, tmp_path, setting):
    other = works(tmp_path, plan=small_plan(UNDECIDED, *setting.split()), stages=("ppo", "moe", "maml"))
    assert other[0].identity != trained[0].identity


def test_a_finished_fold_is_not_trained_again(trained):
    heard = Heard()
    before = files(trained[0])
    again = train_fold(trained[0], heard)
    assert heard.began == []
    assert files(trained[0]) == before
    assert again.found.checkpoint.symbol == "EDGE_15"
    assert not (trained[0].folder / "state").exists()


def test_an_interrupted_fold_goes_on_with_the_stage_it_was_in_to_the_same_weights(trained, tmp_path):
    work = works(tmp_path, stages=("ppo", "moe", "maml"))[0]
    with pytest.raises(KeyboardInterrupt):
        train_fold(work, Heard(break_off_at="maml"))
    assert not is_finished(work)
    heard = Heard()
    train_fold(work, heard)
    assert heard.began == ["maml"]
    assert tensors(work) == tensors(trained[0])


def test_a_finished_fold_whose_model_was_changed_is_refused(trained, tmp_path):
    work = replace(trained[0], folder=tmp_path / "copy")
    shutil.copytree(trained[0].folder, work.folder)
    train_fold(work, Heard())
    path = next((work.folder / "models").glob("*.pth"))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CheckpointError, match="Remove the folder"):
        train_fold(work, Heard())


def test_the_stretch_a_fold_trades_does_not_know_what_comes_after_it(trained, tmp_path):
    fold, found = trained[0].fold, train_fold(trained[0], Heard())
    rows = (fold.start, fold.stop)

    def traded(bars: Bars):
        table = edge_table(bars)
        return trade_stretch(bars, table, found, FOUND, rows, 1e5, fold_data(trained[0]).rules, adapts=True)

    one, other = traded(BARS), traded(with_bars_changed_from(BARS, fold.stop))
    np.testing.assert_array_equal(one.equity, other.equity)
    np.testing.assert_array_equal(one.actions, other.actions)
    assert not np.array_equal(one.equity, traded(with_bars_changed_from(BARS, fold.stop - 5)).equity)
