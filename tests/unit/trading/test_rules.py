"""What an account may do and what it costs: from the instrument, checked, in the kernel's order."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest

from rl.common.errors import ConfigError
from rl.market.instruments import Commission, Slippage
from rl.trading import costs, kernel
from rl.trading.rules import TradingRules, rules_for
from tests.builders import an_instrument


def test_the_row_holds_every_field_in_order():
    rules = TradingRules(commission_rate=0.25, allow_short=False, margin_rate=0.5, bar_volatility=0.125)
    row = rules.row()
    assert len(row) == len(fields(TradingRules))
    assert row[costs.COMMISSION_RATE] == 0.25
    assert row[kernel.ALLOW_SHORT] == 0.0
    assert row[kernel.MARGIN_RATE] == 0.5
    assert row[kernel.BAR_VOLATILITY] == 0.125


def test_every_cost_of_an_instrument_reaches_the_rules():
    instrument = an_instrument(
        commission=Commission(per_order_entry=20, per_order_exit=7, per_unit=0.5, rate=1e-4),
        slippage=Slippage(ticks=2, rate=3e-4),
        tick_size=0.05,
        tax_on_sale_rate=5e-4,
        lot_size=25,
        allow_short=False,
        margin_rate=0.5,
        square_off=True,
    )
    rules = rules_for(instrument, bar_volatility=0.01)
    assert rules == TradingRules(
        commission_per_entry=20,
        commission_per_exit=7,
        commission_per_unit=0.5,
        commission_rate=1e-4,
        slippage_rate=3e-4,
        slippage_price=2 * 0.05,
        tax_on_sale_rate=5e-4,
        lot_size=25,
        allow_short=False,
        margin_rate=0.5,
        square_off=True,
        bar_volatility=0.01,
    )


def test_exits_and_reward_weights_come_from_the_plan():
    rules = rules_for(
        an_instrument(),
        exposure=0.5,
        ruin_level=0.2,
        stop_loss=2.0,
        take_profit=None,
        trailing_stop=3.0,
        exits_in_atr=False,
        weight_log_equity=2.0,
        weight_drawdown=0.5,
        weight_turnover=0.1,
        bar_volatility=0.02,
    )
    assert (rules.stop_loss, rules.take_profit, rules.trailing_stop, rules.exits_in_atr) == (
        2.0,
        0.0,
        3.0,
        False,
    )
    assert (rules.exposure, rules.ruin_level) == (0.5, 0.2)
    assert (rules.weight_log_equity, rules.weight_drawdown, rules.weight_turnover) == (2.0, 0.5, 0.1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"commission_rate": -0.1}, "commission_rate has to be a finite number of at least 0, but is -0.1"),
        ({"slippage_price": math.nan}, "slippage_price has to be a finite number of at least 0, but is nan"),
        ({"stop_loss": math.inf}, "stop_loss has to be a finite number of at least 0, but is inf"),
        ({"margin_rate": 0.0}, "margin_rate has to lie in (0, 1], but is 0.0"),
        ({"margin_rate": 1.5, "exposure": 0.5}, "margin_rate has to lie in (0, 1], but is 1.5"),
        ({"exposure": 0.0}, "exposure has to be above 0, but is 0.0"),
        (
            {"exposure": 3.0, "margin_rate": 0.5},
            "exposure 3.0 at margin_rate 0.5 needs more equity than there is",
        ),
        ({"ruin_level": 1.0}, "ruin_level has to lie in [0, 1), but is 1.0"),
        ({"bar_volatility": 0.0}, "bar_volatility has to be above 0, but is 0.0"),
    ],
)
def test_rules_that_cannot_be_traded_say_why(changes, says):
    assert says in replace(TradingRules(), **changes).problems()


def test_sound_rules_have_no_problem():
    assert TradingRules().problems() == []
    assert TradingRules(exposure=5.0, margin_rate=0.2).problems() == []


def test_every_problem_is_named_at_once_with_the_instrument():
    with pytest.raises(ConfigError) as refused:
        rules_for(an_instrument(name="Nifty", margin_rate=0.5), exposure=3.0, ruin_level=1.0)
    text = str(refused.value)
    assert text.startswith("Nifty cannot be traded as configured:")
    assert "exposure 3.0" in text
    assert "ruin_level" in text
    assert refused.value.exit_code == 2


def test_an_option_is_refused_and_the_message_says_what_to_write():
    with pytest.raises(ConfigError, match="kind: linear"):
        rules_for(an_instrument(kind="option"))


def test_an_all_in_rate_replaces_every_cost_and_nothing_else():
    rules = TradingRules(
        commission_per_entry=20,
        commission_per_exit=7,
        commission_per_unit=0.5,
        commission_rate=1e-4,
        slippage_rate=3e-4,
        slippage_price=0.1,
        tax_on_sale_rate=5e-4,
        lot_size=25,
        square_off=True,
        stop_loss=2.0,
    )
    assert rules.without_costs(0.001) == TradingRules(
        commission_rate=0.001, lot_size=25, square_off=True, stop_loss=2.0
    )
    assert rules.without_costs() == TradingRules(lot_size=25, square_off=True, stop_loss=2.0)


def test_rules_written_down_are_the_rules_read_back():
    rules = TradingRules(commission_rate=1e-4, square_off=True, stop_loss=2.0)
    assert TradingRules(**rules.as_dict()) == rules
