"""Do the two kernels say of a pair of logits what the textbook says, to the last digit that counts?

Both kernels, plain torch and compiled, are held against ``oracle.token_metrics``, which takes the
textbook's sums in extended precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

import oracle
from tunediff.errors import NumericsError
from tunediff.scoring import compiled, head, metrics
from tunediff.values import TOKEN_METRICS

Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, np.ndarray]]
DIVERGENCES = ("kl_base_tuned", "kl_tuned_base", "js")
CPU = torch.device("cpu")


def by_torch(z_b: np.ndarray, z_t: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    table = metrics.token_metrics(*(torch.from_numpy(x) for x in (z_b, z_t, targets)))
    return dict(zip(TOKEN_METRICS, table.numpy().T, strict=True))


def by_compiled(z_b: np.ndarray, z_t: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    table = np.empty((len(targets), metrics.COLUMNS))
    compiled.token_metrics(z_b, z_t, targets, table)
    return dict(zip(TOKEN_METRICS, table.T, strict=True))


@pytest.fixture(params=[by_torch, by_compiled], ids=["torch", "compiled"])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return request.param


def logits(
    rows: int, vocabulary: int, *, seed: int = 0, spread: float = 3.0, change: float = 0.1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Base's and tuned's logits, (rows, vocabulary) float32, and targets."""
    rng = np.random.default_rng(seed)
    z_b = spread * rng.standard_normal((rows, vocabulary))
    z_t = z_b + change * rng.standard_normal((rows, vocabulary))
    targets = rng.integers(0, vocabulary, rows)
    return z_b.astype(np.float32), z_t.astype(np.float32), targets


def at_divergence(
    wanted: float, vocabulary: int, spread: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits whose true KL(p‖q) is about ``wanted`` at every position."""
    z_b, z_t, targets = logits(6, vocabulary, seed=seed, spread=spread, change=1.0)
    p = np.exp(z_b - z_b.max(1, keepdims=True)).astype(np.float64)
    p /= p.sum(1, keepdims=True)
    d = z_t.astype(np.float64) - z_b
    variance = (p * d**2).sum(1) - (p * d).sum(1) ** 2  # KL ≈ half of it, for small d
    d *= np.sqrt(2 * wanted / variance)[:, None]
    return z_b, (z_b + d).astype(np.float32), targets


def agree(found: dict[str, np.ndarray], true: dict[str, np.ndarray], relative: float) -> None:
    for name in DIVERGENCES:
        np.testing.assert_allclose(found[name], true[name], rtol=relative, atol=1e-30, err_msg=name)
    for name in ("logit_mse", "logit_mse_centred", "logit_l2"):
        np.testing.assert_allclose(found[name], true[name], rtol=1e-6, atol=1e-30, err_msg=name)
    for name in ("nll_base", "nll_tuned"):
        np.testing.assert_allclose(found[name], true[name], rtol=1e-6, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(found["delta_p"], true["delta_p"], rtol=1e-5, atol=2e-7)
    assert found["top1_agreement"].tolist() == true["top1_agreement"].tolist()


@pytest.mark.parametrize("spread", [0.5, 3.0, 8.0], ids=["flat", "usual", "peaked"])
@pytest.mark.parametrize("vocabulary", [300, 5000])
@pytest.mark.parametrize("wanted", [1e-8, 1e-7, 1e-6, 1e-4, 1e-2, 0.3])
def test_divergences_down_to_1e_8(
    kernel: Kernel, wanted: float, vocabulary: int, spread: float
) -> None:
    pair = at_divergence(wanted, vocabulary, spread)
    true = oracle.token_metrics(*pair)
    size = true["kl_base_tuned"]
    assert size.min() > wanted / 4
    assert np.median(size) < wanted * 4, "the trial is not of the size it claims"
    agree(kernel(*pair), true, 1e-3 if wanted >= 1e-6 else 1e-2)


@pytest.mark.parametrize("wanted", [1e-8, 1e-6])
def test_divergences_over_a_large_vocabulary(kernel: Kernel, wanted: float) -> None:
    pair = at_divergence(wanted, 50257, 3.0)
    agree(kernel(*pair), oracle.token_metrics(*pair), 1e-3)


def test_a_small_divergence_of_logits_far_from_zero(kernel: Kernel) -> None:
    # a normaliser of 1000 has no digits left for r: the two must be subtracted before rounding
    z_b, z_t, targets = at_divergence(1e-8, 5000, 3.0)
    pair = (z_b + np.float32(1000), z_t + np.float32(1000), targets)
    found, true = kernel(*pair), oracle.token_metrics(*pair)
    for name in DIVERGENCES:
        np.testing.assert_allclose(found[name], true[name], rtol=1e-2, err_msg=name)


def test_the_textbook_sum_in_float32_would_not_pass() -> None:
    # the bound has teeth: what a plain implementation does, misses it
    z_b, z_t, targets = at_divergence(1e-8, 5000, 3.0)
    true = oracle.token_metrics(z_b, z_t, targets)["kl_base_tuned"]
    log_p, log_q = (torch.log_softmax(torch.from_numpy(z), 1) for z in (z_b, z_t))
    plain = (log_p.exp() * (log_p - log_q)).sum(1).numpy()
    assert (np.abs(plain / true - 1) > 0.1).any()


@pytest.mark.parametrize("vocabulary", [1, 2, 3, 511, 512, 513, 1024, 5000])
@pytest.mark.parametrize("rows", [1, 5])
def test_odd_shapes(kernel: Kernel, rows: int, vocabulary: int) -> None:
    pair = logits(rows, vocabulary, seed=vocabulary)
    agree(kernel(*pair), oracle.token_metrics(*pair), 1e-4)


def test_no_rows_at_all(kernel: Kernel) -> None:
    found = kernel(*logits(0, 7))
    assert all(values.shape == (0,) for values in found.values())


@pytest.mark.parametrize("change", [1.0, 5.0, 30.0, 200.0, 3e4])
def test_large_differences(kernel: Kernel, change: float) -> None:
    # r reaches hundreds: exp(r) alone would overflow, and p underflows
    pair = logits(6, 2000, seed=3, change=change)
    found, true = kernel(*pair), oracle.token_metrics(*pair)
    agree(found, true, 1e-4 if change < 1e3 else 1e-3)  # a logit of 1e5 is itself a rough number
    assert (found["js"] <= math.log(2) * (1 + 1e-6)).all()


def test_opposite_certainties(kernel: Kernel) -> None:
    z_b = np.zeros((1, 600), np.float32)
    z_t = np.zeros((1, 600), np.float32)
    z_b[0, 7], z_t[0, 511] = 80, 80
    pair = (z_b, z_t, np.array([7]))
    found = kernel(*pair)
    agree(found, oracle.token_metrics(*pair), 1e-5)
    assert found["js"][0] == pytest.approx(math.log(2), rel=1e-6)
    assert found["kl_base_tuned"][0] == pytest.approx(80, rel=1e-6)
    assert found["top1_agreement"][0] == 0


def test_around_the_border_of_the_two_formulas(kernel: Kernel) -> None:
    # |r| = 1 and |r| = 0.05 are where a kernel changes its formula
    vocabulary = 1500
    z_b = logits(1, vocabulary, seed=5)[0].repeat(8, 0)
    z_t = z_b.copy()
    steps = (0.049, 0.051, 0.5, 0.9999, 1.0, 1.0001, 1.5, 2.0)
    for row, step in enumerate(steps):
        z_t[row, ::2] += step
        z_t[row, 1::2] -= step
    pair = (z_b, z_t.astype(np.float32), np.arange(8))
    agree(kernel(*pair), oracle.token_metrics(*pair), 1e-5)


@pytest.mark.parametrize("shift", [-30.0, 7.0, 100.0])
def test_a_constant_shift_changes_no_probability(kernel: Kernel, shift: float) -> None:
    z_b, z_t, targets = logits(5, 700, seed=2, change=0.3)
    by = np.float32(shift)
    # both sides shifted; then one alone, which logit_mse sees and nothing else does
    for moved in ((z_b + by, z_t + by), (z_b, z_t + by)):
        agree(kernel(*moved, targets), oracle.token_metrics(*moved, targets), 1e-4)
    plain, alone = kernel(z_b, z_t, targets), kernel(z_b, z_t + by, targets)
    for name in (*DIVERGENCES, "logit_mse_centred", "nll_tuned"):
        np.testing.assert_allclose(alone[name], plain[name], rtol=2e-4, err_msg=name)
    assert (alone["logit_mse"] > 40).all()


@pytest.mark.parametrize("shift", [0.0, 20.0, -3.7])
def test_a_pure_shift_is_no_divergence(kernel: Kernel, shift: float) -> None:
    z_b = np.round(logits(4, 900)[0] * 64) / np.float32(64)  # the sum with a shift is exact
    z_t = z_b + np.float32(round(shift * 64) / 64)
    found = kernel(z_b, z_t, np.arange(4))
    for name in DIVERGENCES:
        assert (found[name] >= 0).all()
        assert (found[name] < 1e-12).all(), name
    assert (found["logit_mse_centred"] < 1e-12).all()
    assert (found["top1_agreement"] == 1).all()
    assert (np.abs(found["delta_p"]) < 1e-7).all()


def test_equal_logits_give_exact_zeros(kernel: Kernel) -> None:
    z, _, targets = logits(8, 5000, spread=5)
    found = kernel(z, z.copy(), targets)
    zeros = (*DIVERGENCES, "logit_mse", "logit_mse_centred", "logit_l2", "delta_p")
    assert {name: found[name].any() for name in zeros} == dict.fromkeys(zeros, False)
    assert found["nll_base"].tolist() == found["nll_tuned"].tolist()


@pytest.mark.parametrize("seed", range(4))
def test_never_negative_and_js_bounded(kernel: Kernel, seed: int) -> None:
    change = 10.0 ** np.random.default_rng(seed).uniform(-6, 2)
    z_b, z_t, targets = logits(64, 257, seed=seed, spread=4, change=change)
    found = kernel(z_b, z_t, targets)
    for name in DIVERGENCES:
        assert (found[name] >= 0).all(), (name, change)
    assert (found["js"] <= math.log(2) * (1 + 1e-6)).all()
    back = kernel(z_t, z_b, targets)
    np.testing.assert_allclose(back["js"], found["js"], rtol=1e-3)
    np.testing.assert_allclose(back["kl_base_tuned"], found["kl_tuned_base"], rtol=1e-3)


def test_a_position_without_a_next_token(kernel: Kernel) -> None:
    z_b, z_t, targets = logits(5, 900)
    whole = kernel(z_b, z_t, targets)
    targets[2] = -1
    found = kernel(z_b, z_t, targets)
    for name, values in found.items():
        if name in ("nll_base", "nll_tuned", "delta_p"):
            assert np.isnan(values).tolist() == [False, False, True, False, False], name
            assert np.delete(values, 2).tolist() == np.delete(whole[name], 2).tolist()
        else:
            assert values.tolist() == whole[name].tolist(), name


@pytest.mark.parametrize("side", [0, 1], ids=["base", "tuned"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", [0, 512, 599])
def test_a_logit_that_is_not_finite_leaves_its_row_alone_empty(
    kernel: Kernel, side: int, value: float, column: int
) -> None:
    pair = logits(3, 600)
    whole = kernel(*pair)
    pair[side][1, column] = value
    found = kernel(*pair)
    for name, values in found.items():
        assert np.isnan(values).tolist() == [False, True, False], name
        assert values[[0, 2]].tolist() == whole[name][[0, 2]].tolist()


def test_minus_infinity_on_both_sides_leaves_its_row_to_be_looked_at(kernel: Kernel) -> None:
    z_b, z_t, targets = logits(2, 600)
    z_b[0, 5] = z_t[0, 5] = -math.inf
    assert np.isnan(kernel(z_b, z_t, targets)["kl_base_tuned"]).tolist() == [True, False]


@pytest.mark.parametrize("z", [3e38, -3e38])
def test_logits_near_the_end_of_float32(kernel: Kernel, z: float) -> None:
    # finite logits whose difference is not: the row is empty or right, never wrong
    z_b, z_t, targets = logits(1, 600)
    z_b[0, 3], z_t[0, 3] = z, -z
    kl = kernel(z_b, z_t, targets)["kl_base_tuned"][0]
    assert math.isnan(kl) or kl > 0


def test_a_masked_vocabulary_counts_in_the_mean_over_it() -> None:
    z_b, z_t, _ = logits(1, 600, change=0.5)
    z_b[0, 100:350] = z_t[0, 100:350] = -math.inf
    for target in (0, 99, 350, 599):
        row = metrics.masked_row_metrics(z_b[0], z_t[0], target)
        true = oracle.token_metrics(z_b, z_t, np.array([target]))
        for name, value in zip(TOKEN_METRICS, row, strict=True):
            assert value == pytest.approx(true[name][0], rel=1e-9, abs=1e-12), name
    assert np.isnan(metrics.masked_row_metrics(z_b[0], z_t[0], -1)[[0, 1, 9]]).all()


@pytest.mark.parametrize(
    ("base", "tuned", "target", "said"),
    [
        ({3: math.nan}, {}, 0, "the base model's logits hold NaN"),
        ({}, {3: math.nan}, 0, "the tuned model's logits hold NaN"),
        ({3: math.inf}, {3: math.inf}, 0, "the base model's logits hold +infinity"),
        ({}, {3: math.inf}, 0, "the tuned model's logits hold +infinity"),
        ({3: -math.inf}, {}, 0, "a logit is −infinity on one side only"),
        ({}, {3: -math.inf}, 0, "a logit is −infinity on one side only"),
        ({3: -math.inf}, {3: -math.inf}, 3, "the token that follows has a logit of −infinity"),
        (dict.fromkeys(range(9), -math.inf),) * 2 + (-1, "every logit is −infinity"),
    ],
)
def test_what_cannot_be_compared_is_said(
    base: dict[int, float], tuned: dict[int, float], target: int, said: str
) -> None:
    pair = logits(1, 9)
    for z, planted in zip(pair, (base, tuned), strict=False):
        for column, value in planted.items():
            z[0, column] = value
    with pytest.raises(NumericsError) as error:
        metrics.masked_row_metrics(pair[0][0], pair[1][0], target)
    assert error.value.message.startswith(said)


@pytest.mark.parametrize(("first", "second"), [(0, 5), (4, 511), (511, 512), (3, 599)])
def test_a_tie_goes_to_the_first_as_in_torch(kernel: Kernel, first: int, second: int) -> None:
    z_b, z_t, targets = logits(3, 600, change=0.01)
    for row, (b, t) in enumerate([(True, True), (True, False), (False, True)]):
        for z, tied in ((z_b, b), (z_t, t)):
            z[row, second] = 50
            if tied:
                z[row, first] = 50
    expected = [
        float(torch.argmax(torch.from_numpy(b)) == torch.argmax(torch.from_numpy(t)))
        for b, t in zip(z_b, z_t, strict=True)
    ]
    assert expected == [1, 0, 0]
    assert kernel(z_b, z_t, targets)["top1_agreement"].tolist() == expected


def test_all_logits_alike(kernel: Kernel) -> None:
    z = np.full((2, 600), -4.25, np.float32)
    found = kernel(z, z + 1, np.array([0, 599]))
    assert found["top1_agreement"].tolist() == [1, 1]
    assert found["nll_base"] == pytest.approx([math.log(600)] * 2, rel=1e-7)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_the_rows_and_change_nothing(rows: int, threads: int) -> None:
    vocabulary = head.COMPILED_FROM
    assert head.metrics_kernel(CPU, vocabulary) == "compiled"
    pair = logits(rows, vocabulary)
    whole = by_compiled(*pair)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        table = head.row_metrics(CPU, vocabulary)(*(torch.from_numpy(x) for x in pair))
    finally:
        torch.set_num_threads(before)
    for name, values in zip(TOKEN_METRICS, table.T, strict=True):
        assert values.tolist() == whole[name].tolist(), name


def test_a_small_vocabulary_stays_with_torch() -> None:
    vocabulary = head.COMPILED_FROM - 1
    assert head.metrics_kernel(CPU, vocabulary) == "torch"
    assert head.metrics_kernel(torch.device("cuda"), 10**6) in ("fused", "torch")
    pair = logits(3, vocabulary)
    table = head.row_metrics(CPU, vocabulary)(*(torch.from_numpy(x) for x in pair))
    for name, values in zip(TOKEN_METRICS, table.T, strict=True):
        assert values.tolist() == by_torch(*pair)[name].tolist(), name


def test_views_of_a_buffer_are_read_like_copies() -> None:
    # the engine hands over halves of one buffer, and columns of a wider one
    z_b, z_t, targets = logits(4, head.COMPILED_FROM + 40)
    buffer = torch.from_numpy(np.concatenate([z_b, z_t]))[:, : head.COMPILED_FROM]
    targets %= head.COMPILED_FROM
    found = head.row_metrics(CPU, head.COMPILED_FROM)(
        buffer[:4], buffer[4:], torch.from_numpy(targets)
    )
    expected = by_compiled(*(x.contiguous().numpy() for x in buffer.split(4)), targets)
    for name, values in zip(TOKEN_METRICS, found.T, strict=True):
        np.testing.assert_allclose(values, expected[name], rtol=1e-12, err_msg=name)


def test_the_likeliest_candidates() -> None:
    z = torch.tensor([0.0, 3.0, -1.0, 3.0, 2.0])
    p = torch.softmax(z.double(), 0)
    found = head.top(z)
    assert [i for i, _ in found][2:] == [4, 0, 2]
    assert {i for i, _ in found[:2]} == {1, 3}
    assert [x for _, x in found] == pytest.approx([p[i].item() for i, _ in found], rel=1e-6)
    assert len(head.top(torch.zeros(5000))) == head.TOP
