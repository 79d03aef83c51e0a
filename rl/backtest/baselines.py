"""What doing nothing, holding, shorting, guessing and following the last bar earn on the same bars."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rl.backtest.engine import Replay, replay_actions
from rl.trading.market_arrays import MarketArrays
from rl.trading.rules import TradingRules

SHORT, FLAT, LONG = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One baseline's replays; only `random` has more than one."""

    name: str
    description: str
    replays: tuple[Replay, ...]
    unavailable: str | None = None
    """Why there is no replay, where there is none."""


def buy_and_hold(
    market: MarketArrays, window: tuple[int, int], rules: TradingRules, capital: float, side: int = LONG
) -> Replay:
    """Return a full position bought at the first open and held through session ends, without stops.

    An investor who merely holds does not close every evening, so neither does this one.
    """
    held = replace(rules, square_off=False, stop_loss=0.0, take_profit=0.0, trailing_stop=0.0)
    # Where a feature is missing the strategy has to stand aside; a holder need not know any feature.
    blind = replace(market, tradable=np.ones(len(market), dtype=np.bool_))
    actions = np.full(window[1] - window[0] - 1, side, dtype=np.int8)
    return replay_actions(blind, window, held, actions, capital=capital)


def last_bar_sign(
    market: MarketArrays, window: tuple[int, int], rules: TradingRules, capital: float
) -> Replay:
    """Return the replay of being long after a rising bar and short (or flat) after a falling one."""
    closes = market.ohlc[:, 3]
    rows = np.arange(window[0], window[1] - 1)
    change = closes[rows] - closes[np.maximum(rows - 1, 0)]
    down = SHORT if rules.allow_short else FLAT
    actions = np.where(change > 0, LONG, np.where(change < 0, down, FLAT)).astype(np.int8)
    return replay_actions(market, window, rules, actions, capital=capital)


def sign_flipped(
    market: MarketArrays, window: tuple[int, int], rules: TradingRules, capital: float, strategy: Replay
) -> Baseline:
    """Return the strategy with long and short exchanged: apart from costs, it wins what the strategy loses."""
    described = {"name": "sign_flipped", "description": "the strategy with long and short exchanged"}
    if not rules.allow_short:
        return Baseline(**described, replays=(), unavailable="this instrument may not be sold short")
    mirrored = (1 - np.sign(strategy.decided)).astype(np.int8)
    return Baseline(**described, replays=(replay_actions(market, window, rules, mirrored, capital=capital),))


def shuffled_runs(sides: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the same sequence of long, flat and short stretches, their lengths drawn anew among stretches of a side.

    The number of position changes, the time on each side and the holding times stay those of the strategy; only the
    timing is lost.

    Args:
        sides: -1, 0 or 1 per decision bar. (n,)
        generator: Source of the order.
    """
    if len(sides) == 0:
        return sides
    borders = np.concatenate([[0], np.flatnonzero(np.diff(sides)) + 1, [len(sides)]])
    run_side = sides[borders[:-1]]
    lengths = np.diff(borders)
    for side in (-1, 0, 1):
        places = np.flatnonzero(run_side == side)
        lengths[places] = lengths[generator.permutation(places)]
    return np.repeat(run_side, lengths)


def shuffled_sessions(sides: np.ndarray, session: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return stretches shuffled inside each session, and sessions of one length dealt out anew.

    For instruments that are flat every evening: there a stretch moved across a session's end would be cut in two and
    cost more trades than the strategy made.

    Args:
        sides: -1, 0 or 1 per decision bar. (n,)
        session: Session in which each decision is filled. (n,)
        generator: Source of the order.
    """
    borders = np.flatnonzero(np.diff(session)) + 1
    days = [shuffled_runs(day, generator) for day in np.split(sides, borders)]
    lengths = np.array([len(day) for day in days])
    order = np.arange(len(days))
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length)
        order[places] = generator.permutation(places)
    return np.concatenate([days[place] for place in order])


def random_timing(
    market: MarketArrays,
    window: tuple[int, int],
    rules: TradingRules,
    capital: float,
    strategy: Replay,
    generator: np.random.Generator,
    draws: int,
) -> tuple[Replay, ...]:
    """Return `draws` replays with the strategy's stretches at random times."""
    sides = np.sign(strategy.decided).astype(np.int8)
    filled_in = market.session[window[0] + 1 : window[1]]

    def drawn() -> np.ndarray:
        if rules.square_off:
            return shuffled_sessions(sides, filled_in, generator)
        return shuffled_runs(sides, generator)

    return tuple(replay_actions(market, window, rules, drawn() + 1, capital=capital) for _ in range(draws))


def baselines(
    market: MarketArrays,
    window: tuple[int, int],
    rules: TradingRules,
    capital: float,
    strategy: Replay,
    generator: np.random.Generator,
    draws: int = 20,
) -> tuple[Baseline, ...]:
    """Return every baseline on the same bars and costs as `strategy`."""
    flat = replay_actions(
        market, window, rules, np.full(window[1] - window[0] - 1, FLAT, dtype=np.int8), capital=capital
    )
    short = (
        Baseline(
            name="always_short",
            description="sold at the first open and held",
            replays=(buy_and_hold(market, window, rules, capital, SHORT),),
        )
        if rules.allow_short
        else Baseline(
            name="always_short",
            description="sold at the first open and held",
            replays=(),
            unavailable="this instrument may not be sold short",
        )
    )
    return (
        Baseline(name="flat", description="no position", replays=(flat,)),
        Baseline(
            name="buy_and_hold",
            description="bought at the first open and held",
            replays=(buy_and_hold(market, window, rules, capital),),
        ),
        short,
        Baseline(
            name="random",
            description="the strategy's positions with holding times in random order: same turnover, no timing",
            replays=random_timing(market, window, rules, capital, strategy, generator, draws),
        ),
        Baseline(
            name="last_bar_sign",
            description="long after a rising bar, short after a falling one",
            replays=(last_bar_sign(market, window, rules, capital),),
        ),
    )
