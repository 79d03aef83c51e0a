"""Figures of a trading record: one pure function each.

Fractions everywhere (0.35, not 35 %), money where a name says profit, pnl, cost or value. A figure that
cannot be computed is nan, or inf where a quotient has nothing to divide by; neither can pass a gate, and
`figures` turns both into null with a reason before anything is written.

Words used below: a trade is a round trip from flat to flat, its net result is after every cost on both legs;
a session is one trading day of the instrument's calendar (for daily bars, one bar).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()

# Below this share of the largest value a spread is rounding, not variation: the standard deviation of a
# constant series is often 1e-19 instead of 0, which would turn a flat line into a Sharpe ratio of 1e16.
_ROUNDING = 1e-12

_NO_TRADE = {"nan": "no trade was closed"}
_NO_SPREAD = {"nan": "fewer than two sessions, or their returns did not vary"}
_NO_GROWTH = {
    "nan": "no session, or the account did not start with money",
    "inf": "growth too large for a number",
}
_NO_CALMAR = {
    "nan": "no session, or the equity did not move",
    "inf": "the equity never fell below its peak",
}

# By the name a figure is reported under.
_REASONS = {
    "win_rate": _NO_TRADE,
    "win_rate_low": _NO_TRADE,
    "win_rate_high": _NO_TRADE,
    "profit_factor": {
        "nan": "no trade was closed, or none won or lost anything",
        "inf": "no trade lost money",
    },
    "expectancy": _NO_TRADE,
    "payoff_ratio": {"nan": "no trade was won", "inf": "no trade lost money"},
    "break_even_win_rate": {"nan": "there were not both won and lost trades"},
    "average_holding_bars": _NO_TRADE,
    "cost_share": {
        "nan": "no trade was closed, or none cost or earned anything",
        "inf": "no trade won anything before its costs",
    },
    "exposure": {"nan": "there is no bar"},
    "turnover_per_year": {"nan": "no session, or the average equity was not above zero"},
    "sharpe_ratio": _NO_SPREAD,
    "sharpe_low": _NO_SPREAD,
    "sharpe_high": _NO_SPREAD,
    "sharpe_per_session": _NO_SPREAD,
    "sortino_ratio": {"nan": "no session, or the equity did not move", "inf": "no session lost money"},
    "calmar": _NO_CALMAR,
    "calmar_ratio": _NO_CALMAR,
    "max_drawdown": {"nan": "no equity, or the account did not start with money"},
    "cagr": _NO_GROWTH,
    "annual_return": _NO_GROWTH,
}


def win_rate(net_pnl: np.ndarray) -> float:
    """Return the share of closed trades that won, in [0, 1]. nan when no trade was closed.

    A trade of exactly zero is not a win. Win rate describes style: a near target and a far stop win often and
    can still lose money.

    Args:
        net_pnl: Net result of each closed trade, money. (n,)
    """
    net_pnl = _vector(net_pnl)
    return float(np.mean(net_pnl > 0.0)) if len(net_pnl) else math.nan


def profit_factor(net_pnl: np.ndarray) -> float:
    """Return money won per unit of money lost, over closed trades after costs.

    1.0 is break-even. inf when nothing was lost. nan when no trade was closed (or every result was exactly
    zero), so that a gate cannot pass on an empty record. Return libraries divide per-period returns instead,
    which differs as soon as position sizes or holding times do.

    Args:
        net_pnl: Net result of each closed trade, money. (n,)
    """
    net_pnl = _vector(net_pnl)
    return _quotient(float(np.sum(np.maximum(net_pnl, 0.0))), float(np.sum(np.maximum(-net_pnl, 0.0))))


def expectancy(net_pnl: np.ndarray) -> float:
    """Return the mean net result of a closed trade, money. nan when no trade was closed.

    Args:
        net_pnl: Net result of each closed trade, money. (n,)
    """
    net_pnl = _vector(net_pnl)
    return float(np.mean(net_pnl)) if len(net_pnl) else math.nan


def payoff_ratio(net_pnl: np.ndarray) -> float:
    """Return the average win divided by the average loss.

    The average loss is taken over every trade that was not won, so that trades of exactly zero count here as
    they do in `win_rate`. inf when no trade lost money, nan when no trade was won.

    Args:
        net_pnl: Net result of each closed trade, money. (n,)
    """
    average_win, average_loss = _average_win_and_loss(_vector(net_pnl))
    if math.isnan(average_win):
        return math.nan
    return average_win / average_loss if average_loss > 0.0 else math.inf


def break_even_win_rate(net_pnl: np.ndarray) -> float:
    """Return the win rate at which these average wins and losses would make exactly nothing, in (0, 1).

    `win_rate` lies above it exactly when `expectancy` is positive, so the two together say what a win rate
    alone cannot. nan unless there were both won and lost trades.

    Args:
        net_pnl: Net result of each closed trade, money. (n,)
    """
    average_win, average_loss = _average_win_and_loss(_vector(net_pnl))
    if math.isnan(average_win) or not average_loss > 0.0:
        return math.nan
    return average_loss / (average_win + average_loss)


def average_holding_bars(entry_bar: np.ndarray, exit_bar: np.ndarray) -> float:
    """Return the mean number of bars between a trade's first and last fill. nan when no trade was closed.

    Args:
        entry_bar: Bar of each trade's first fill. (n,)
        exit_bar: Bar of each trade's last fill. (n,)
    """
    entry_bar, exit_bar = _vector(entry_bar), _vector(exit_bar)
    return float(np.mean(exit_bar - entry_bar)) if len(entry_bar) else math.nan


def cost_share(cost: np.ndarray, gross_pnl: np.ndarray) -> float:
    """Return what all trades cost, as a share of what the winning ones earned before costs.

    0.3 means that 30 % of the gross winnings went to commission, tax and slippage. inf when there were costs
    and no gross winnings, nan when no trade was closed.

    Args:
        cost: Every cost of each trade, money, not negative. (n,)
        gross_pnl: Result of each trade before costs, money. (n,)
    """
    return _quotient(float(np.sum(_vector(cost))), float(np.sum(np.maximum(_vector(gross_pnl), 0.0))))


def exposure(units: np.ndarray) -> float:
    """Return the share of bars at whose close a position was held, in [0, 1]. nan when there is no bar.

    Args:
        units: Signed position at the close of each bar. (T,)
    """
    units = _vector(units)
    return float(np.mean(units != 0.0)) if len(units) else math.nan


def turnover(traded_value: np.ndarray, equity: np.ndarray, sessions: int, sessions_per_year: float) -> float:
    """Return how many times a year the average equity was bought or sold; a round trip counts twice.

    nan when there is no bar or session, or when the average equity is not positive.

    Args:
        traded_value: Absolute money value of each fill. (k,)
        equity: Marked equity at each close, money. (T,)
        sessions: Sessions in the span.
        sessions_per_year: Sessions of the instrument's calendar in a year.
    """
    equity = _vector(equity)
    if not len(equity) or sessions <= 0:
        return math.nan
    average = float(np.mean(equity))
    if not average > 0.0:
        return math.nan
    return float(np.sum(np.abs(_vector(traded_value)))) / average * sessions_per_year / sessions


def session_returns(equity: np.ndarray, session: np.ndarray, initial_equity: float) -> np.ndarray:
    """Return the net return of each session: its last equity over the previous session's last, less one.

    Every bar's session is represented, traded or not. Equity that has reached zero or less earns 0.0 for as
    long as it stays as it is, and nan if it moves, since a return on no capital has no meaning.

    Args:
        equity: Marked equity at each close, money. (T,)
        session: Session number of each bar, non-decreasing. (T,)
        initial_equity: Equity before the first bar, money.

    Returns:
        Returns as fractions, one per distinct session in order of time. Empty for no bars. (S,)

    Raises:
        ValueError: If the two arrays differ in length or the sessions run backwards.
    """
    equity, session = _vector(equity), np.asarray(session)
    if equity.shape != session.shape:
        raise ValueError(
            f"equity has shape {equity.shape} and session {session.shape}; one session per bar is needed"
        )
    if not len(equity):
        return np.empty(0)
    steps = np.diff(session)
    if np.any(steps < 0):
        raise ValueError(f"session numbers run backwards after bar {int(np.argmax(steps < 0))}")
    closing = equity[np.append(np.flatnonzero(steps), len(equity) - 1)]
    opening = np.append(initial_equity, closing[:-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = closing / opening - 1.0
    return np.where(opening > 0.0, returns, np.where(closing == opening, 0.0, math.nan))


def sharpe_ratio(returns: np.ndarray, sessions_per_year: float) -> float:
    """Return the annual Sharpe ratio of session returns: mean over standard deviation, risk-free rate 0.

    The deviation divides by n - 1. nan for fewer than two sessions or returns that do not vary. Sessions
    rather than bars: the per-bar ratio has to agree after annualising, and a factor of 13.7 between the two
    on 2-minute bars means a wrong period.

    Args:
        returns: Net returns per session, fractions. (S,)
        sessions_per_year: Sessions of the instrument's calendar in a year.
    """
    return _sharpe_per_session(_vector(returns)) * math.sqrt(sessions_per_year)


def sortino_ratio(returns: np.ndarray, sessions_per_year: float) -> float:
    """Return the annual Sortino ratio: mean session return over its target downside deviation, target 0.

    The deviation is the root mean square of the losses over *all* sessions, so a strategy with few losing
    sessions is not judged by those alone. inf when no session lost and some won; nan for no session or no
    movement.

    Args:
        returns: Net returns per session, fractions. (S,)
        sessions_per_year: Sessions of the instrument's calendar in a year.
    """
    returns = _vector(returns)
    if not len(returns):
        return math.nan
    downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    return _quotient(float(np.mean(returns)), downside) * math.sqrt(sessions_per_year)


def max_drawdown(equity: np.ndarray) -> float:
    """Return the largest fall of equity below its earlier peak, as a share of that peak; 0.25 is 25 %.

    0.0 when it never fell, above 1.0 when equity went below zero, nan for no equity or a start without money.
    Uses marked equity: closed trades alone hide what an open position loses on the way.

    Args:
        equity: Marked equity at each close, money, **preceded by the starting equity**. (T + 1,)
    """
    equity = _vector(equity)
    if not len(equity) or not equity[0] > 0.0:
        return math.nan
    return float(np.max(1.0 - equity / np.maximum.accumulate(equity)))


def cagr(initial_equity: float, final_equity: float, sessions: int, sessions_per_year: float) -> float:
    """Return the constant yearly growth rate that leads from the first equity to the last.

    -1.0 when nothing was left, nan for no session or a start without money. On a span much shorter than a
    year it extrapolates wildly; say the span beside it.

    Args:
        initial_equity: Equity before the first session, money.
        final_equity: Equity after the last session, money.
        sessions: Sessions in between.
        sessions_per_year: Sessions of the instrument's calendar in a year.
    """
    if sessions <= 0 or not initial_equity > 0.0 or math.isnan(final_equity):
        return math.nan
    if final_equity <= 0.0:
        return -1.0
    with np.errstate(over="ignore"):
        return float(np.expm1(math.log(final_equity / initial_equity) * sessions_per_year / sessions))


def calmar(growth_rate: float, drawdown: float) -> float:
    """Return yearly growth per unit of maximum drawdown: `cagr` over `max_drawdown`.

    inf when there was growth and no drawdown, nan when neither moved or either is nan.
    """
    return _quotient(growth_rate, drawdown)


def wilson_interval(wins: float, trades: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a win rate (Wilson 1927, J. Am. Stat. Assoc. 22, p. 209).

    Unlike mean plus or minus two errors it stays inside [0, 1] and has a width at 0 and 100 % wins. It takes
    trades as independent; where those of a session move together, pass the *effective* numbers, which may be
    fractional.

    Args:
        wins: Won trades.
        trades: Closed trades. (nan, nan) when zero.
        confidence: Two-sided, in (0, 1).
    """
    if not trades > 0.0:
        return math.nan, math.nan
    z = _NORMAL.inv_cdf(0.5 + confidence / 2.0)
    share = wins / trades
    centre = share + z * z / (2.0 * trades)
    half_width = z * math.sqrt(share * (1.0 - share) / trades + z * z / (4.0 * trades * trades))
    scale = 1.0 + z * z / trades
    return max(0.0, (centre - half_width) / scale), min(1.0, (centre + half_width) / scale)


def sharpe_interval(
    returns: np.ndarray, sessions_per_year: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Return a two-sided interval for the annual Sharpe ratio, allowing for skew and fat tails.

    Standard error after Mertens (2002), as in Bailey and Lopez de Prado (2012), "The Sharpe ratio efficient
    frontier", eq. 4. It takes sessions as serially independent. (nan, nan) where the ratio itself is nan.

    Args:
        returns: Net returns per session, fractions. (S,)
        sessions_per_year: Sessions of the instrument's calendar in a year.
        confidence: Two-sided, in (0, 1).
    """
    returns = _vector(returns)
    ratio = _sharpe_per_session(returns)
    if math.isnan(ratio):
        return math.nan, math.nan
    skew, kurtosis = _skew_and_kurtosis(returns)
    error = _sharpe_spread(ratio, skew, kurtosis) / math.sqrt(len(returns) - 1)
    z = _NORMAL.inv_cdf(0.5 + confidence / 2.0)
    year = math.sqrt(sessions_per_year)
    return (ratio - z * error) * year, (ratio + z * error) * year


def best_sharpe_by_luck(trials: int, trial_variance: float) -> float:
    """Return the Sharpe ratio that the best of several worthless trials is expected to show.

    Bailey and Lopez de Prado (2014), "The deflated Sharpe ratio", eq. 1. 0.0 for a single trial.

    Args:
        trials: Independent things tried, at least 1.
        trial_variance: Variance of the trials' Sharpe ratios; per session in, per session out.
    """
    if trials < 1:
        raise ValueError(f"trials has to be at least 1, but is {trials}")
    if trials == 1:
        return 0.0
    expected = (1.0 - np.euler_gamma) * _NORMAL.inv_cdf(1.0 - 1.0 / trials)
    expected += np.euler_gamma * _NORMAL.inv_cdf(1.0 - 1.0 / (trials * math.e))
    return math.sqrt(trial_variance) * float(expected)


def deflated_sharpe(
    sharpe: float, sessions: int, skew: float, kurtosis: float, trials: int, trial_variance: float
) -> float:
    """Return 1 minus the chance of such a Sharpe ratio, or a larger one, by luck as the best of `trials`.

    By luck: where the true ratio is what the best of so many trials without an edge is expected to show
    (`best_sharpe_by_luck`). It is 1 minus a p value, not the probability that there is an edge: that one also
    depends on how many of the things one tries have one. Bailey and Lopez de Prado (2014), "The deflated Sharpe
    ratio", eq. 2. A figure to show beside its trial count, not to decide by: as a rule with 0.95 it is much
    stricter than 5 %. nan for fewer than two sessions or a nan ratio.

    Args:
        sharpe: Sharpe ratio **per session**, not annual.
        sessions: Sessions it was measured on.
        skew: Skewness of the session returns; 0 for a normal distribution.
        kurtosis: Kurtosis of the session returns, not in excess; 3 for a normal distribution.
        trials: Independent things tried, at least 1.
        trial_variance: Variance of the trials' Sharpe ratios per session.
    """
    if sessions < 2 or math.isnan(sharpe):
        return math.nan
    lead = sharpe - best_sharpe_by_luck(trials, trial_variance)
    spread = _sharpe_spread(sharpe, skew, kurtosis)
    if spread == 0.0:
        return math.nan
    return _NORMAL.cdf(lead * math.sqrt(sessions - 1) / spread)


def deflated_sharpe_of(returns: np.ndarray, trials: int, trial_variance: float) -> float:
    """Return `deflated_sharpe` of a series of session returns. nan where its Sharpe ratio is nan.

    Args:
        returns: Net returns per session, fractions. (S,)
        trials: Independent things tried, at least 1.
        trial_variance: Variance of the trials' Sharpe ratios per session.
    """
    returns = _vector(returns)
    ratio = _sharpe_per_session(returns)
    if math.isnan(ratio):
        return math.nan
    skew, kurtosis = _skew_and_kurtosis(returns)
    return deflated_sharpe(ratio, len(returns), skew, kurtosis, trials, trial_variance)


def figures(**values: float | np.integer | None) -> tuple[dict[str, float | int | None], dict[str, str]]:
    """Return figures ready for JSON: None where one cannot be computed, with the reasons beside.

    Args:
        values: Figures by name; nan, inf and None mean "not computed".

    Returns:
        The figures with None in place of what is not a number, and a reason for each None, by name. Write the
        second as the sibling key `not_computed`.
    """
    numbers: dict[str, float | int | None] = {}
    not_computed: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, (int, np.integer)):
            numbers[name] = int(value)
        elif value is not None and math.isfinite(value):
            numbers[name] = float(value)
        else:
            numbers[name] = None
            not_computed[name] = reason_not_computed(name, value)
    return numbers, not_computed


def reason_not_computed(name: str, value: float | None) -> str:
    """Return why the figure `name` came out as `value` (nan, inf or None), in a few words."""
    if value is None:
        return "not measured"
    kind = "nan" if math.isnan(value) else "inf"
    general = "it is not defined for this record" if kind == "nan" else "it is not bounded for this record"
    return _REASONS.get(name, {}).get(kind, general)


def _vector(values: np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"a one-dimensional array is needed, but it has shape {array.shape}")
    return array


def _quotient(numerator: float, denominator: float) -> float:
    """Return numerator / denominator; inf for something over nothing, nan for nothing over nothing."""
    if math.isnan(numerator) or math.isnan(denominator):
        return math.nan
    if denominator != 0.0:
        return numerator / denominator
    return math.nan if numerator == 0.0 else math.copysign(math.inf, numerator)


def _average_win_and_loss(net_pnl: np.ndarray) -> tuple[float, float]:
    """Return the mean win (nan if none) and the mean loss as a positive number (0.0 if every trade won)."""
    won = net_pnl > 0.0
    average_win = float(np.mean(net_pnl[won])) if won.any() else math.nan
    average_loss = float(-np.mean(net_pnl[~won])) if not won.all() else 0.0
    return average_win, average_loss


def _sharpe_per_session(returns: np.ndarray) -> float:
    if len(returns) < 2:
        return math.nan
    spread = float(np.std(returns, ddof=1))
    if not spread > _ROUNDING * float(np.max(np.abs(returns))):
        return math.nan
    return float(np.mean(returns)) / spread


def _skew_and_kurtosis(returns: np.ndarray) -> tuple[float, float]:
    """Return population skewness and kurtosis (3 for a normal distribution) of returns that vary."""
    standard = (returns - np.mean(returns)) / np.std(returns)
    return float(np.mean(standard**3)), float(np.mean(standard**4))


def _sharpe_spread(sharpe: float, skew: float, kurtosis: float) -> float:
    """Return the standard deviation of a Sharpe estimate times the root of its sample size."""
    # Moments of a real sample cannot make this negative; rounded ones typed in by hand can.
    return math.sqrt(max(0.0, 1.0 - skew * sharpe + (kurtosis - 1.0) / 4.0 * sharpe * sharpe))
