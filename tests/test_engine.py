"""Do numbers stay what they are, whoever shares the pack, whatever the memory and the machine?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import factory
from tunediff.errors import NumericsError
from tunediff.pair.hf import HfPair
from tunediff.pair.open import open_pair
from tunediff.scoring import floor, packs, precision
from tunediff.scoring.engine import Engine
from tunediff.scoring.packs import Pack
from tunediff.values import TOKEN_METRICS, Encoded, Item, Scores

CPU = torch.device("cpu")
FIGURES = {
    *TOKEN_METRICS,
    *("delta_nll", "ppl_base", "ppl_tuned", "ppl_ratio", "logit_l2_last"),
    *("bits_per_byte_base", "bits_per_byte_tuned"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.tiny_model(tmp_path_factory.mktemp("base"), "llama")


@pytest.fixture(scope="module")
def pair(base: Path, tmp_path_factory: pytest.TempPathFactory) -> HfPair:
    adapter = factory.lora_adapter(tmp_path_factory.mktemp("adapter"), base)
    opened = open_pair(base, adapter, device="cpu")
    assert isinstance(opened, HfPair)
    return opened


@pytest.fixture(scope="module")
def items(pair: HfPair) -> list[Encoded]:
    texts = factory.texts(9, words=(3, 25))
    return pair.encode([Item(f"t{i}", text=t) for i, t in enumerate(texts)], None, False)


def engine_of(pair: HfPair, **changes: Any) -> Engine:
    """An engine of its own, so that no test leaves a halved budget behind."""
    had = pair.engine
    options = {"streams": had.streams, "kernel": had.kernel, "threads": had.threads}
    return Engine(**options | changes)


def numbers(scores: Sequence[Scores]) -> np.ndarray:
    """Every token metric of every item, (tokens, 10)."""
    return np.concatenate(
        [np.stack([getattr(s, name) for name in TOKEN_METRICS], axis=1) for s in scores]
    )


# --- packs


def fake(lengths: Sequence[int]) -> list[Encoded]:
    return [
        Encoded(f"i{k}", np.arange(n), np.arange(n - 1), n - 1, n) for k, n in enumerate(lengths)
    ]


@pytest.mark.parametrize("budget", [1, 5, 17, 64, 10_000])
@pytest.mark.parametrize("seed", range(3))
def test_packs_hold_every_item_once_in_order(budget: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    asked = fake(rng.integers(2, 40, 50).tolist())
    planned = list(packs.plan(asked, lambda: budget))
    assert [i for pack in planned for i in pack] == asked
    for pack, following in zip(planned, [*planned[1:], None], strict=True):
        tokens = sum(len(i.ids) for i in pack)
        assert len(pack) == 1 or tokens <= budget
        if following is not None:  # as full as it can be
            assert tokens + len(following[0].ids) > budget


def test_no_items_no_packs() -> None:
    assert list(packs.plan([], lambda: 8)) == []


def test_a_shrunk_budget_counts_at_once() -> None:
    budgets = iter([100, *[20] * 10])
    sizes = [len(pack) for pack in packs.plan(fake([10] * 30), lambda: next(budgets))]
    assert sizes == [10, *[2] * 10]


def test_a_row_starts_every_text_at_position_0() -> None:
    texts = [torch.tensor([5, 6, 7]), torch.tensor([8]), torch.tensor([9, 3])]
    pack = Pack.of(texts, CPU)
    assert pack.ids.tolist() == [5, 6, 7, 8, 9, 3]
    assert pack.positions.tolist() == [0, 1, 2, 0, 0, 1]
    assert pack.bounds == ((0, 3), (3, 4), (4, 6))


# --- neighbours and order


@pytest.mark.parametrize(("budget", "chunk"), [(1, 64), (40, 7), (10_000, 1), (10_000, 1000)])
def test_scores_do_not_depend_on_packs_or_chunks(
    pair: HfPair, items: list[Encoded], budget: int, chunk: int
) -> None:
    usual = list(pair.score(items))
    other = list(engine_of(pair, budget=budget, chunk=chunk).score(items))
    assert [s.item_id for s in other] == [i.item_id for i in items]
    np.testing.assert_allclose(numbers(other), numbers(usual), rtol=2e-4, atol=2e-6)
    for one, two in zip(usual, other, strict=True):
        assert (one.probe_position, one.bytes_scored) == (two.probe_position, two.bytes_scored)
        assert one.probe_logit_l2 == pytest.approx(two.probe_logit_l2, rel=1e-4)
        assert [i for i, _ in one.probe_top_base] == [i for i, _ in two.probe_top_base]


def test_order_and_company_change_nothing(pair: HfPair, items: list[Encoded]) -> None:
    alone = [next(iter(pair.score([item]))) for item in items]
    backwards = list(pair.score(items[::-1]))[::-1]
    np.testing.assert_allclose(numbers(backwards), numbers(alone), rtol=2e-4, atol=2e-6)


def test_two_calls_are_equal_to_the_bit(pair: HfPair, items: list[Encoded]) -> None:
    first, second = (list(pair.score(items)) for _ in range(2))
    assert numbers(first).tobytes() == numbers(second).tobytes()
    assert pair.noise_floor(items) == pair.noise_floor(items)


# --- memory


class Short:
    """Streams that run out of memory when told to."""

    def __init__(self, streams: Any, fail: Callable[[str, int, int], BaseException | None]) -> None:
        self._streams, self._fail = streams, fail
        self.calls = dict.fromkeys(("pair", "logits_pair"), 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._streams, name)

    def pair(self, pack: Pack) -> Any:
        self._maybe("pair", len(pack.ids))
        return self._streams.pair(pack)

    def logits_pair(self, h_b: torch.Tensor, h_t: torch.Tensor) -> Any:
        self._maybe("logits_pair", len(h_b))
        return self._streams.logits_pair(h_b, h_t)

    def _maybe(self, where: str, size: int) -> None:
        self.calls[where] += 1
        error = self._fail(where, self.calls[where], size)
        if error is not None:
            raise error


ERRORS = (
    torch.OutOfMemoryError("planted"),
    MemoryError(),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
)


PLACES = (("pair", 1), ("pair", 2), ("logits_pair", 1), ("logits_pair", 4))


@pytest.mark.parametrize(
    ("place", "error"),
    [*((place, ERRORS[0]) for place in PLACES), *((PLACES[1], error) for error in ERRORS[1:])],
)
def test_running_out_once_changes_no_number(
    pair: HfPair, items: list[Encoded], place: tuple[str, int], error: BaseException
) -> None:
    usual = numbers(list(engine_of(pair, budget=60, chunk=8).score(items)))
    short = Short(pair.engine.streams, lambda *at: error if at[:2] == place else None)
    engine = engine_of(pair, streams=short, budget=60, chunk=8)
    found = list(engine.score(items))
    assert [s.item_id for s in found] == [i.item_id for i in items]
    assert engine.halvings == 1
    assert 1 < engine.budget < 60 or engine.chunk == 4
    np.testing.assert_allclose(numbers(found), usual, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("where", "most"), [("pair", 130), ("logits_pair", 5)])
def test_memory_that_stays_short(pair: HfPair, items: list[Encoded], where: str, most: int) -> None:
    def fail(at: str, _: int, size: int) -> BaseException | None:
        return torch.OutOfMemoryError("planted") if at == where and size > most else None

    total = sum(len(item.ids) for item in items)
    engine = engine_of(pair, streams=Short(pair.engine.streams, fail), budget=2 * total, chunk=40)
    found = list(engine.score(items))
    np.testing.assert_allclose(
        numbers(found), numbers(list(pair.score(items))), rtol=1e-4, atol=1e-5
    )
    if where == "pair":  # no more often than it takes, and not below half of what fits
        assert engine.budget > most / 2
        assert engine.halvings <= math.ceil(math.log2(total / most))
    # what fits is kept: a later pack does not run out again
    again = engine.halvings
    list(engine.score(items))
    assert engine.halvings == again


def test_one_token_that_does_not_fit_is_an_error_with_its_name(
    pair: HfPair, items: list[Encoded]
) -> None:
    short = Short(pair.engine.streams, lambda at, *_: MemoryError() if at == "pair" else None)
    engine = engine_of(pair, streams=short, budget=512, chunk=64)
    with pytest.raises(NumericsError) as error:
        list(engine.score(items))
    assert error.value.message.startswith("Memory ran out on item 't0' of")
    assert "--max-length" in error.value.hint


def test_other_errors_are_not_taken_for_memory(pair: HfPair, items: list[Encoded]) -> None:
    short = Short(pair.engine.streams, lambda *_: RuntimeError("shapes do not match"))
    engine = engine_of(pair, streams=short)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(engine.score(items))
    assert engine.halvings == 0


# --- logits that are not finite


class Broken(Short):
    """Streams whose tuned logits hold a value at one token of the text."""

    def __init__(self, streams: Any, token: int, value: float, both: bool = False) -> None:
        super().__init__(streams, lambda *_: None)
        self.token, self.value, self.both = token, value, both
        self._bad: torch.Tensor

    def pair(self, pack: Pack) -> Any:
        h_b, h_t = self._streams.pair(pack)
        self._bad = h_t[pack.ids == self.token]
        return h_b, h_t

    def logits_pair(self, h_b: torch.Tensor, h_t: torch.Tensor) -> Any:
        z_b, z_t = (z.clone() for z in self._streams.logits_pair(h_b, h_t))
        hit = (h_t[:, None] == self._bad[None]).all(2).any(1)
        z_t[hit, 280] = self.value
        if self.both:
            z_b[hit, 280] = self.value
        return z_b, z_t


def marked(items: list[Encoded]) -> list[Encoded]:
    """The same items, the fourth with a token at position 2 that no other item has."""
    ids = items[3].ids.copy()
    ids[2] = 299
    return [*items[:3], replace(items[3], ids=ids), *items[4:]]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, "at position 2 the tuned model's logits hold NaN"),
        (math.inf, "at position 2 the tuned model's logits hold +infinity"),
        (-math.inf, "at position 2 a logit is −infinity on one side only"),
    ],
)
def test_an_item_with_bad_logits_fails_alone(
    pair: HfPair, items: list[Encoded], value: float, said: str
) -> None:
    asked = marked(items)
    engine = engine_of(pair, streams=Broken(pair.engine.streams, 299, value))
    found = list(engine.score(asked))
    assert [s.item_id for s in found if s.reason is not None] == ["t3"]
    bad = found[3]
    assert (bad.reason or "").startswith(said)
    assert [len(getattr(bad, name)) for name in (*TOKEN_METRICS, "positions")] == [0] * 11
    assert bad.bytes_scored == 0
    assert math.isnan(bad.probe_logit_l2)
    good = [s for s in found if s is not bad]
    usual = [s for i, s in enumerate(pair.score(asked)) if i != 3]
    assert numbers(good).tobytes() == numbers(usual).tobytes()


def test_a_masked_entry_on_both_sides_is_no_failure(pair: HfPair, items: list[Encoded]) -> None:
    engine = engine_of(pair, streams=Broken(pair.engine.streams, 299, -math.inf, both=True))
    found = list(engine.score(marked(items)))
    assert [s.reason for s in found] == [None] * len(items)
    assert np.isfinite(numbers(found)).all()


# --- the noise floor


def test_every_figure_has_a_floor_and_none_is_0(pair: HfPair, items: list[Encoded]) -> None:
    found = pair.noise_floor(items)
    assert set(found) == FIGURES
    assert all(0 < value < 1e-2 for name, value in found.items() if name != "top1_agreement")
    assert found["kl_base_tuned"] < 1e-10
    assert found["logit_mse"] < 1e-9


def test_a_change_of_1e_9_stays_below_the_floor(
    base: Path, tmp_path: Path, pair: HfPair, items: list[Encoded]
) -> None:
    tiny = open_pair(base, factory.lora_adapter(tmp_path, base, scale=1e-9), device="cpu")
    limit, found = tiny.noise_floor(items), numbers(list(tiny.score(items)))
    for name in ("kl_base_tuned", "kl_tuned_base", "js", "logit_mse", "logit_mse_centred"):
        assert found[:, TOKEN_METRICS.index(name)].mean() <= limit[name], name
    # the floor is base's alone: what tuned is does not count
    assert limit == pair.noise_floor(items)


def test_a_change_of_1e_4_stands_above_it(base: Path, tmp_path: Path, items: list[Encoded]) -> None:
    small = open_pair(base, factory.lora_adapter(tmp_path, base, scale=1e-4), device="cpu")
    limit, found = small.noise_floor(items), numbers(list(small.score(items)))
    for name in ("kl_base_tuned", "logit_mse_centred"):
        assert found[:, TOKEN_METRICS.index(name)].mean() > 10 * limit[name], name


def test_the_floor_is_larger_in_bfloat16(base: Path, pair: HfPair, items: list[Encoded]) -> None:
    rough = open_pair(base, pair.tuned.path, device="cpu", dtype="bfloat16")
    fine, coarse = pair.noise_floor(items), rough.noise_floor(items)
    for name in FIGURES - {"top1_agreement"}:
        assert coarse[name] > 100 * fine[name], name


def test_the_floors_sample_is_spread_and_bounded() -> None:
    asked = fake([5, 400, 30, 12, 80, 200, 9, 50, 60, 70])
    chosen = floor.sample(asked)
    assert 1 < len(chosen) <= floor.TEXTS
    assert sum(len(i.scored) for i in chosen) <= floor.LEAST_TOKENS
    by_id = {i.item_id: i for i in asked}
    for item in chosen:
        whole = by_id[item.item_id]
        assert item.ids.tolist() == whole.ids[: len(item.ids)].tolist()
        assert item.scored.max() + 1 < len(item.ids)
    assert [i.item_id for i in floor.sample(asked[::-1])] == [i.item_id for i in chosen]


def test_a_base_without_finite_logits_has_no_floor(pair: HfPair, items: list[Encoded]) -> None:
    class AllNan(Short):
        def logits(self, h: torch.Tensor, side: Any, noise: int | None = None) -> torch.Tensor:
            return self._streams.logits(h, side, noise) * math.nan

    broken = engine_of(pair, streams=AllNan(pair.engine.streams, lambda *_: None))
    with pytest.raises(NumericsError, match="base model's logits are not finite on any text"):
        floor.noise_floor(broken, items)


# --- the precision of products


def rounded(bits: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Round float32 to so many bits of mantissa."""

    def to(x: torch.Tensor) -> torch.Tensor:
        mantissa, exponent = torch.frexp(x)
        return torch.ldexp(torch.round(mantissa * 2**bits) / 2**bits, exponent)

    return to


@pytest.mark.parametrize(("name", "bits"), [("bfloat16", 8), ("tf32", 11), ("two bfloat16", 16)])
def test_a_rounding_product_is_found_and_not_used(
    monkeypatch: pytest.MonkeyPatch, name: str, bits: int
) -> None:
    exact, to = torch.nn.functional.linear, rounded(bits)

    def linear(x: torch.Tensor, weight: torch.Tensor, bias: Any = None) -> torch.Tensor:
        if torch.get_float32_matmul_precision() == "medium":
            x, weight = to(x), to(weight)
        return exact(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    assert precision.product_error("medium", CPU) > precision.EXACT
    assert precision.product_error("highest", CPU) < precision.EXACT
    assert precision.choose(CPU, torch.float32) == "highest"


def test_an_exact_product_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "product_error", lambda *_: 4e-7)
    assert precision.choose(CPU, torch.float32) == "medium"
    # elsewhere "medium" rounds by design, whatever a check of a few shapes may find
    assert precision.choose(CPU, torch.bfloat16) == "highest"
    assert precision.choose(torch.device("cuda"), torch.float32) == "highest"


def test_settings_of_torch_are_put_back_after_an_error() -> None:
    def settings() -> tuple[str, int]:
        return torch.get_float32_matmul_precision(), torch.get_num_threads()

    def work() -> None:
        with precision.use("medium"), precision.threads(before[1] + 1):
            assert settings() == ("medium", before[1] + 1)
            raise KeyError("planted")

    before = settings()
    with pytest.raises(KeyError):
        work()
    assert settings() == before


def test_the_engine_scores_with_the_kernel_it_was_given(
    pair: HfPair, items: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Looking(Short):
        def pair(self, pack: Pack) -> Any:
            seen.append((torch.get_float32_matmul_precision(), torch.get_num_threads()))
            return self._streams.pair(pack)

    for kernel in ("highest", "medium"):
        streams = Looking(pair.engine.streams, lambda *_: None)
        list(engine_of(pair, streams=streams, kernel=kernel, threads=1).score(items[:1]))
    assert seen == [("highest", 1), ("medium", 1)]
