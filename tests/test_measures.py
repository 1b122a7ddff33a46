"""Do the token measures say what docs/definitions.md says that they do?"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from faults import FakePair, scores_of
from tunediff.measures import BITS_PER_BYTE, BUILT_IN, NLL
from tunediff.values import Item, Scores

BY_NAME = {m.name: m for m in BUILT_IN}


@pytest.fixture
def scores() -> Scores:
    (encoded,) = FakePair().encode([Item("a", text="eleven bytes")], None, False)
    return scores_of(encoded, np.random.default_rng(5))


def exact(values: np.ndarray) -> float:
    """The sum in rational arithmetic: an oracle that shares nothing with fsum."""
    return float(sum((Fraction(float(v)) for v in values), Fraction(0)))


def test_the_built_in_measures_are_those_of_the_token_table() -> None:
    assert list(BY_NAME) == [
        "nll",
        "bits_per_byte",
        "kl_base_tuned",
        "kl_tuned_base",
        "js",
        "logit_mse",
        "logit_mse_centred",
        "logit_l2",
        "logit_l2_last",
        "top1_agreement",
        "delta_p",
        "delta_p_rms",
    ]


def test_margins_and_directions_are_those_stated_before_the_run() -> None:
    assert {m.name: m.margin for m in BUILT_IN if m.margin is not None} == {
        "nll": 0.02,
        "bits_per_byte": 0.01,
    }
    assert {m.name: m.direction for m in BUILT_IN if m.direction} == {
        "nll": -1,
        "bits_per_byte": -1,
        "delta_p": 1,
    }
    assert [m.name for m in BUILT_IN if m.pool == "rms"] == ["delta_p_rms"]


def test_nll_keeps_both_sides_and_their_difference(scores: Scores) -> None:
    seen = NLL.function(scores)
    assert seen.base_sum == exact(scores.nll_base)
    assert seen.tuned_sum == exact(scores.nll_tuned)
    assert seen.effect_sum == seen.tuned_sum - seen.base_sum
    assert (seen.count, seen.reason) == (11, None)


def test_bits_per_byte_counts_bytes_not_tokens(scores: Scores) -> None:
    seen = BITS_PER_BYTE.function(replace(scores, bytes_scored=40))
    np.testing.assert_allclose(seen.base_sum, exact(scores.nll_base) * np.log2(np.e), rtol=1e-15)
    np.testing.assert_allclose(seen.tuned_sum, exact(scores.nll_tuned) * np.log2(np.e), rtol=1e-15)
    assert seen.count == 40
    assert seen.effect_sum == seen.tuned_sum - seen.base_sum


def test_bits_per_byte_works_across_tokenizers(scores: Scores) -> None:
    seen = BITS_PER_BYTE.function(replace(scores, nll_tuned=np.array([1.0, 2.0])))
    np.testing.assert_allclose(seen.tuned_sum, 3.0 * np.log2(np.e), rtol=1e-15)


@pytest.mark.parametrize(
    "name",
    ["kl_base_tuned", "kl_tuned_base", "js", "logit_mse", "logit_mse_centred", "logit_l2",
     "top1_agreement", "delta_p"],
)  # fmt: skip
def test_a_divergence_is_the_exact_sum_of_its_own_array(scores: Scores, name: str) -> None:
    seen = BY_NAME[name].function(scores)
    assert seen.effect_sum == exact(getattr(scores, name))
    assert (seen.base_sum, seen.tuned_sum, seen.count, seen.reason) == (None, None, 11, None)


def test_the_rms_of_delta_p_pools_squares(scores: Scores) -> None:
    seen = BY_NAME["delta_p_rms"].function(scores)
    assert seen.effect_sum == exact(scores.delta_p**2)
    assert seen.effect_sum != exact(scores.delta_p) ** 2


def test_the_last_position_is_one_observation(scores: Scores) -> None:
    seen = BY_NAME["logit_l2_last"].function(scores)
    assert (seen.effect_sum, seen.count) == (scores.probe_logit_l2, 1)


def test_sums_do_not_lose_small_terms_beside_large_ones(scores: Scores) -> None:
    values = np.array([1e16, 1.0, -1e16])  # a plain sum gives 0
    seen = BY_NAME["delta_p"].function(replace(scores, delta_p=values))
    assert seen.effect_sum == 1.0


@pytest.mark.parametrize("name", BY_NAME)
def test_a_failed_item_is_null_with_its_reason(name: str) -> None:
    (encoded,) = FakePair().encode([Item("a", text="abc")], None, False)
    failed = scores_of(encoded, np.random.default_rng(5), failed=True)
    seen = BY_NAME[name].function(failed)
    assert seen.reason == "Its logits are not finite."
    assert (seen.base_sum, seen.tuned_sum, seen.effect_sum, seen.count) == (None, None, None, 0)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_null_with_a_reason(
    scores: Scores, name: str, wrong: float
) -> None:
    array = {"nll": "nll_tuned", "bits_per_byte": "nll_base", "delta_p_rms": "delta_p"}
    broken = np.array([0.5, wrong])
    if name == "logit_l2_last":
        seen = BY_NAME[name].function(replace(scores, probe_logit_l2=wrong))
    else:
        seen = BY_NAME[name].function(replace(scores, **{array.get(name, name): broken}))
    assert seen.reason == "1 values of the item are NaN or infinite."
    assert (seen.effect_sum, seen.count) == (None, 0)


@pytest.mark.parametrize("name", [n for n in BY_NAME if n != "logit_l2_last"])
def test_nothing_scored_is_null_and_not_zero(name: str) -> None:
    (encoded,) = FakePair().encode([Item("a", text="a")], None, False)
    seen = BY_NAME[name].function(scores_of(encoded, np.random.default_rng(5)))
    assert seen.reason == "No position of the item was scored."
    assert (seen.effect_sum, seen.count) == (None, 0)


def test_identical_models_have_no_effect(scores: Scores) -> None:
    same = replace(scores, nll_tuned=scores.nll_base)
    assert NLL.function(same).effect_sum == 0.0
    assert BITS_PER_BYTE.function(same).effect_sum == 0.0
