"""Is it really MAML? Worlds small enough for the answer to be worked out, and an engine broken on purpose.

`pytest -rP tests/learning/test_maml_proofs.py` prints the numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from rl.algorithms.learn2learn_engine import learn2learn_path
from tests.learning import maml_proofs as proofs

PROOFS: dict[str, Callable[[], dict[str, float]]] = {
    "parabolas end where algebra says": proofs.parabolas_end_where_algebra_says,
    "parabola gradients are those on paper": proofs.parabola_gradients_are_those_on_paper,
    "the bandit's meta-gradient is exact": proofs.bandit_meta_gradient_is_exact,
    "every inner step has a rollout of its own": proofs.every_inner_step_learns_from_a_rollout_of_its_own,
    "step sizes are learned": proofs.step_sizes_are_learned,
    "judged on other data": proofs.the_policy_is_judged_on_other_data_than_it_adapted_to,
}


@pytest.mark.parametrize("proof", PROOFS.values(), ids=PROOFS.keys())
def test_the_engine_is_maml(proof):
    print({name: f"{number:.7f}" for name, number in proof().items()})


def test_the_four_ways_to_train_on_two_parabolas_end_apart():
    """Else the proof could not tell one from another."""
    for one, two in itertools.combinations(proofs.CONVERGED.values(), 2):
        assert abs(one - two) > 0.1


def test_the_mistakes_on_the_bandit_give_other_numbers(monkeypatch):
    """Log-probabilities are wrong, and with a baseline they are first order, at the price of second order."""
    proofs.break_engine(monkeypatch, "log-probabilities in place of ratios")
    p = proofs.sigmoid(0.5)
    naive = proofs.bandit_meta_gradient()
    naive_with_baseline = proofs.bandit_meta_gradient(baseline=p)
    print({"log-probabilities": naive, "with a baseline": naive_with_baseline})
    assert naive == pytest.approx(proofs.BANDIT["log-probabilities"], abs=1e-6)
    assert naive_with_baseline == pytest.approx(proofs.BANDIT["first order"], abs=1e-6)
    for one, two in itertools.combinations(proofs.BANDIT.values(), 2):
        assert abs(one - two) > 0.02


def test_the_other_engine_finds_the_same_number_on_the_bandit():
    assert proofs.bandit_meta_gradient(path=learn2learn_path) == pytest.approx(
        proofs.bandit_meta_gradient(), rel=1e-12
    )


NOTICED_BY = {
    "log-probabilities in place of ratios": (
        "the bandit's meta-gradient is exact",
        "every inner step has a rollout of its own",
    ),
    "the inner gradient detached": (
        "parabolas end where algebra says",
        "parabola gradients are those on paper",
        "the bandit's meta-gradient is exact",
        "every inner step has a rollout of its own",
    ),
    "the first rollout for every inner step": ("every inner step has a rollout of its own",),
    "step sizes that stay": ("step sizes are learned",),
    "judged on support": ("judged on other data",),
    "no inner step": tuple(PROOFS),
}


@pytest.mark.parametrize(
    ("mistake", "name"), [(mistake, name) for mistake, names in NOTICED_BY.items() for name in names]
)
def test_a_broken_engine_is_noticed(monkeypatch, mistake, name):
    """A proof that a broken engine passes proves nothing."""
    proofs.break_engine(monkeypatch, mistake)
    with pytest.raises(AssertionError):
        PROOFS[name]()


@pytest.fixture(scope="module")
def sinusoid_curves() -> dict[str, dict[int, float]]:
    curves = {
        way: proofs.sinusoid_curve(proofs.train_on_sinusoids(way, iterations=3000, seed=0))
        for way in ("MAML", "first order", "joint")
    }
    return {**curves, "scratch": proofs.sinusoid_curve(proofs.sinusoid_start(0))}


def test_maml_learns_a_sinusoid_in_one_step_and_joint_training_does_not(sinusoid_curves):
    for way, curve in sinusoid_curves.items():
        print(f"{way:12}", "  ".join(f"{step}: {error:.2f}" for step, error in curve.items()))
    proofs.sinusoids_are_learned_in_one_step(sinusoid_curves)


def test_on_sinusoids_none_of_the_others_passes_for_maml(sinusoid_curves):
    """Also what MAML would be without its second order, or without an inner loop."""
    for way in ("first order", "joint", "scratch"):
        with pytest.raises(AssertionError):
            proofs.sinusoids_are_learned_in_one_step({**sinusoid_curves, "MAML": sinusoid_curves[way]})
