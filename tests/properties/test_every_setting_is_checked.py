"""Whatever is wrong in a plan is refused by its key before anything begins, for every key there is.

A key that takes anything is a key whose slip is found out after a night of training.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from rl.common.errors import ConfigError
from rl.common.strict_yaml import dotted, dump_yaml
from rl.stages.plan import Plan, load_plan

PLAN = Path(__file__).resolve().parents[2] / "config" / "training_sequence.yaml"


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and the annotation of every single setting, and of every block with an annotation of None."""
    yield path, None
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, (*path, name))
        else:
            yield (*path, name), field


BLOCKS = [path for path, kind in leaves(Plan) if kind is None]
SETTINGS = {path: field for path, field in leaves(Plan) if field is not None and path != ("symbols",)}


def test_there_are_settings_to_try():
    assert len(SETTINGS) > 100
    assert len(BLOCKS) > 15


def scalar_kinds(annotation: Any) -> set[type]:
    """Return the plain types a setting takes: `Annotated[int, …] | None` gives int and None."""
    if typing.get_origin(annotation) is typing.Annotated:
        return scalar_kinds(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is typing.Literal:
        return {type(value) for value in typing.get_args(annotation)}
    if arguments := [a for a in typing.get_args(annotation) if a is not Ellipsis]:
        if typing.get_origin(annotation) in (tuple, list, dict):
            return {typing.get_origin(annotation)}
        return set().union(*(scalar_kinds(argument) for argument in arguments))
    return {annotation} if isinstance(annotation, type) else set()


def wrong_values(field: Any) -> st.SearchStrategy[Any]:
    """Return values of another type than a setting takes, and numbers no setting takes."""
    kinds = scalar_kinds(field.annotation)
    wrong: list[st.SearchStrategy[Any]] = [st.just({"a": 1}), st.just([[1]])]
    if str not in kinds:
        wrong.append(st.sampled_from(["many", "1e-4x", "yes", "--", "../x", "\x1b[2J"]))
    if bool not in kinds:
        wrong.append(st.booleans())
    if not kinds & {int, float}:
        wrong.append(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
    if float in kinds:
        wrong.append(st.sampled_from([math.nan, math.inf, -math.inf]))
    if float in kinds or int in kinds:
        wrong.append(st.integers(max_value=-1))
    if int in kinds and float not in kinds:
        wrong.append(st.floats(0.1, 0.9))
    if NoneType not in kinds:
        wrong.append(st.none())
    return st.one_of(wrong)


def as_yaml(path: tuple[str, ...], value: Any) -> str:
    for name in reversed(path):
        value = {name: value}
    return dump_yaml(value)


def refused(tmp_path: Path, text: str) -> str:
    file = tmp_path / "plan.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_plan(file)
    assert "nothing was started" in str(error.value)
    return str(error.value)


@settings(max_examples=4, deadline=None)
@pytest.mark.parametrize("path", SETTINGS, ids=dotted)
@given(data=st.data())
def test_a_value_of_the_wrong_type_or_out_of_range_is_refused_by_its_key(tmp_path_factory, path, data):
    value = data.draw(wrong_values(SETTINGS[path]))
    says = refused(tmp_path_factory.getbasetemp(), as_yaml(path, value))
    assert dotted(path) in says
    assert "plan.yaml:" in says


@pytest.mark.parametrize("path", BLOCKS, ids=lambda path: dotted(path) or "top")
@settings(max_examples=3, deadline=None)
@given(name=st.from_regex(r"[a-z_]{1,12}[0-9]", fullmatch=True))
def test_an_unknown_key_is_refused_by_name_in_every_block(tmp_path_factory, path, name):
    says = refused(tmp_path_factory.getbasetemp(), as_yaml((*path, name), 1))
    assert dotted((*path, name)) in says
    assert "unknown key" in says


@pytest.mark.parametrize(
    "path",
    [
        path
        for path, field in SETTINGS.items()
        if scalar_kinds(field.annotation) & {int} and path != ("seed",)
    ],
    ids=dotted,
)
def test_no_count_may_be_larger_than_anything_anybody_trains(tmp_path, path):
    assert dotted(path) in refused(tmp_path, as_yaml(path, 10**18))


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        (("training_params.ppo.hidden_dim=100000",), "at most 4,?096"),
        (
            ("training_params.ppo.num_envs=65536", "training_params.ppo.rollout_steps=65536"),
            "at most 16,777,216",
        ),
        (
            ("training_params.moe.num_experts=64", "training_params.moe.expert_hidden_dim=4096"),
            "experts of 2,147,483,648 parameters",
        ),
    ],
)
def test_a_plan_that_asks_for_a_gigantic_network_is_refused(settings_, says):
    with pytest.raises(ConfigError, match=says):
        load_plan(PLAN, overrides=settings_)
