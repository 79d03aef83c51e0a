"""Whether what a model file says can be used: a network of bearable size, weights that are its own, rules, windows.

A file may be whole, vouched for by its sidecar, and still ask for a network of a terabyte or for a billion steps of
adaptation. All of it is judged by arithmetic on the numbers in the file, before anything of their size is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

import pandas as pd
import torch

from rl.checkpoints.adaptation import META_WEIGHTS, STEP_SIZE_PREFIX, AdaptationRecipe
from rl.common.errors import CheckpointError, UsageError
from rl.common.paths import checked_symbol
from rl.common.printable import is_printable
from rl.common.sizes import MOST_EXPERTS, MOST_LAYERS, MOST_PARAMETERS, WIDEST_LAYER
from rl.features.scaler import FeatureScaler
from rl.market.bars import LONGEST_COLUMN_NAME
from rl.policies.spec import parameter_count, spec_problems
from rl.trading.kernel import ACCOUNT_FEATURES, ACTION_COUNTS
from rl.trading.rules import TradingRules

OUTCOMES = ("PASS", "FAIL", "INCONCLUSIVE")
LEVELS = ("progress", "adaptation", "promotion")
WINDOWS = ("train", "validation", "promotion", "test")


def content_problems(
    content: Mapping[str, Any], weights: torch.Tensor, extra: Mapping[str, torch.Tensor]
) -> list[str]:
    """Return everything that keeps a model from being used, worded for whoever was given the file.

    Args:
        content: Its metadata, of the right types at the top level.
        weights: Its parameters. (P,)
        extra: Its further tensors by name.
    """
    found: list[str] = []
    try:
        checked_symbol(content["symbol"])
    except UsageError:
        found.append("its symbol cannot be one")
    champion = content["champion_of"]
    if champion is not None and champion not in ("ppo", "moe", "maml"):
        found.append(f"champion_of is {champion!r:.80}; there are ppo, moe, maml")
    found += _feature_problems(content["feature_names"])
    network = _network_problems(content["policy_spec"], weights)
    found += network
    if not found:
        found += _fit_problems(content)
    found += _rules_problems(content["trading"])
    found += _window_problems(content["splits"])
    found += _verdict_problems(content["verdict"])
    if not network:
        found += _adaptation_problems(content, weights, extra)
    return found


def _feature_problems(names: list[str]) -> Iterator[str]:
    if len(set(names)) != len(names):
        yield "its feature_names hold a name twice"
    for name in names:
        if not name or len(name) > LONGEST_COLUMN_NAME or not is_printable(name):
            yield f"its feature_names hold {name!a:.80}, which cannot be the name of a column"
            return


def _network_problems(spec: dict[str, Any], weights: torch.Tensor) -> list[str]:
    lists = [spec.get(key) for key in ("hidden", "expert_hidden", "value_hidden", "gate_inputs")]
    if any(isinstance(values, list) and len(values) > WIDEST_LAYER for values in lists):
        return ["policy_spec lists more layers or columns than any policy has"]
    if problems := spec_problems(spec):
        return [f"policy_spec: {problem:.200}" for problem in problems[:5]]
    layers = [spec[key] for key in ("hidden", "expert_hidden", "value_hidden") if key in spec]
    widths = [
        spec["observations"],
        spec["actions"],
        spec.get("gate_hidden", 1),
        *(w for each in layers for w in each),
    ]
    for what, asked, most in (
        ("layers", max(map(len, layers)), MOST_LAYERS),
        ("units in a layer", max(widths), WIDEST_LAYER),
        ("experts", spec.get("experts", 1), MOST_EXPERTS),
        # Last, since only then it is a product of small numbers.
        ("parameters", parameter_count(spec), MOST_PARAMETERS),
    ):
        if asked > most:
            return [f"policy_spec asks for {asked:.3g} {what}, and at most {most:,} are built"]
    if parameter_count(spec) != len(weights):
        return [
            f"policy_spec asks for {parameter_count(spec):,} weights, but the file holds {len(weights):,}"
        ]
    return []


def _fit_problems(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield what in scaler, features, actions and network does not fit together."""
    scheme, spec = content["action_scheme"], content["policy_spec"]
    if scheme not in ACTION_COUNTS:
        yield f"its action_scheme is {scheme!r:.80}; there are {', '.join(ACTION_COUNTS)}"
    elif spec["actions"] != ACTION_COUNTS[scheme]:
        yield f"policy_spec has {spec['actions']} actions, but the scheme {scheme} has {ACTION_COUNTS[scheme]}"
    try:
        scaler = FeatureScaler.from_dict(content["scaler"])
    except CheckpointError as error:
        yield f"scaler: {str(error).partition(chr(10))[0]:.200}"
        return
    if list(scaler.names) != content["feature_names"]:
        yield "its scaler is for other features than its feature_names"
    seen = len(scaler.columns) + ACCOUNT_FEATURES
    if spec["observations"] != seen:
        yield f"policy_spec takes {spec['observations']:,} numbers, but features and account are {seen:,}"


def _rules_problems(trading: dict[str, Any]) -> list[str]:
    rules = trading.get("rules")
    if not isinstance(rules, dict):
        return ["trading has no rules"]
    kinds = get_type_hints(TradingRules)
    known = {field.name for field in fields(TradingRules)}
    if set(rules) != known:
        odd = sorted(set(rules) ^ known)
        return [f"trading.rules lacks or does not know {odd[0]!r:.80}"]
    for name, value in rules.items():
        if kinds[name] is bool if isinstance(value, bool) else kinds[name] is float and _is_number(value):
            continue
        return [f"trading.rules.{name} has to be a {kinds[name].__name__}, but is {value!r:.80}"]
    found = [f"trading.rules: {problem:.200}" for problem in TradingRules(**rules).problems()]
    capital = trading.get("capital", 1.0)
    if not _is_number(capital) or capital <= 0:
        found.append(f"trading.capital has to be a number above 0, but is {capital!r:.80}")
    return found


def _window_problems(splits: dict[str, Any]) -> Iterator[str]:
    for name in WINDOWS:
        span = splits.get(name)
        if not isinstance(span, dict) or not {"first", "last"} <= set(span):
            yield f"splits name no {name} window"
        elif not all(_is_time(span[end]) for end in ("first", "last")):
            yield f"splits.{name} is no pair of times"
    if splits.get("data_end") is not None and not _is_time(splits["data_end"]):
        yield "splits.data_end is no time"
    embargo = splits.get("embargo_bars", 0)
    if type(embargo) is not int or not 0 <= embargo < 1 << 31:
        yield f"splits.embargo_bars has to be a whole number of at least 0, but is {embargo!r:.80}"


def _verdict_problems(verdict: dict[str, Any]) -> Iterator[str]:
    if not verdict:
        return
    if verdict.get("outcome") not in OUTCOMES:
        yield f"verdict.outcome is {verdict.get('outcome')!r:.80}; there are {', '.join(OUTCOMES)}"
    if verdict.get("level") not in LEVELS:
        yield f"verdict.level is {verdict.get('level')!r:.80}; there are {', '.join(LEVELS)}"
    for name, kind in (("window", dict), ("context", dict), ("attempt", int)):
        if type(verdict.get(name)) is not kind:
            yield f"verdict.{name} has to be a {kind.__name__}"


def _adaptation_problems(
    content: Mapping[str, Any], weights: torch.Tensor, extra: Mapping[str, torch.Tensor]
) -> list[str]:
    """Return what is wrong with the recipe and the tensors a model adapts by."""
    stored = content["trading"].get("adaptation")
    if stored is None:
        return []
    found: list[str] = []
    try:
        AdaptationRecipe.from_dict(stored)
    except CheckpointError as error:
        found.append(f"trading.adaptation: {str(error).rstrip('.')}")
    if META_WEIGHTS in extra and extra[META_WEIGHTS].shape != weights.shape:
        found.append(
            f"{META_WEIGHTS} has the shape {tuple(extra[META_WEIGHTS].shape)}, not {tuple(weights.shape)}"
        )
    for name, tensor in extra.items():
        if name.startswith(STEP_SIZE_PREFIX) and tensor.numel() != 1:
            found.append(f"{name!a:.80} has to be one number, but has the shape {tuple(tensor.shape)}")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_time(text: Any) -> bool:
    if not isinstance(text, str) or len(text) > 64:
        return False
    try:
        return pd.Timestamp(text) is not pd.NaT and pd.Timestamp(text).as_unit("ns") is not pd.NaT
    except (ValueError, OverflowError):
        return False
