"""Are the replies those that the models give alone, whoever shares the batch?

Greedy replies are held against ``generate`` of the transformers library, on models that it and
peft opened themselves. Two runs may part only where the two likeliest tokens are equally likely
but for rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import factory
from tunediff.errors import InputError, LengthError, NumericsError, PairError, UsageError
from tunediff.pair.hf import HfPair
from tunediff.pair.open import open_pair
from tunediff.scoring import attention, generate, sampling
from tunediff.scoring.attention import Memory
from tunediff.scoring.packs import Pack
from tunediff.values import Encoded, Generation, Item, Reply

TIE = 1e-4  # logits nearer to each other than this may change places by rounding
GREEDY = Generation(max_new_tokens=16)
SAMPLED = Generation(max_new_tokens=16, temperature=1.0, top_p=0.9)
ITEMS = [
    Item(f"p{i}", prompt=text) for i, text in enumerate(factory.texts(5, seed=3, words=(1, 14)))
]


def opened(base: Path, tuned: Path) -> HfPair:
    pair = open_pair(base, tuned, device="cpu")
    assert isinstance(pair, HfPair)
    return pair


def alone(base: Path, tuned: Path) -> tuple[Any, Any]:
    """Both models as the libraries open them."""
    load = AutoModelForCausalLM.from_pretrained
    if (tuned / "adapter_config.json").exists():
        return load(base).eval(), PeftModel.from_pretrained(load(base), tuned).eval()
    return load(base).eval(), load(tuned).eval()


def greedy(model: Any, prompt: Encoded, most: int) -> list[int]:
    """What the transformers library answers, its end token included."""
    ids = torch.from_numpy(prompt.ids)[None]
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=most,
            do_sample=False,
            pad_token_id=0,
        )
    return out[0, len(prompt.ids) :].tolist()


def assert_same(model: Any, prompt: Encoded, found: Reply, wanted: Sequence[int]) -> None:
    """The same tokens; from a tie on they may differ."""
    assert found.ids is not None
    got = [*found.ids, factory.EOS] if found.stop == "end" else list(found.ids)
    if got == list(wanted):
        return
    at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), None)
    assert at is not None, (got, wanted)
    seen = torch.tensor([[*prompt.ids.tolist(), *wanted[:at]]])
    with torch.no_grad():
        first, second = model(seen).logits[0, -1].topk(2).values.tolist()
    assert first - second < TIE, (got, wanted, at)


def assert_as_alone(base: Path, tuned: Path) -> None:
    pair = opened(base, tuned)
    prompts = pair.prompts(ITEMS, None)
    replies = list(pair.generate(prompts, GREEDY))
    for models, column in zip(alone(base, tuned), zip(*replies, strict=True), strict=True):
        for prompt, reply in zip(prompts, column, strict=True):
            assert_same(models, prompt, reply, greedy(models, prompt, GREEDY.max_new_tokens))
    assert any(b.ids != t.ids for b, t in replies), "the sides answered alike: nothing was tested"


# --- against the library


@pytest.mark.parametrize("architecture", [*factory.ARCHITECTURES, "gemma2", "qwen3", "phi3"])
def test_greedy_as_the_library(architecture: str, tmp_path: Path) -> None:
    window = 6 if architecture in ("mistral", "gemma2", "phi3") else None
    base = factory.tiny_model(tmp_path / "base", architecture, sliding_window=window)
    assert_as_alone(base, factory.lora_adapter(tmp_path / "lora", base, scale=0.2))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.tiny_model(tmp_path_factory.mktemp("base"), "llama", tie=False)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.lora_adapter(tmp_path_factory.mktemp("adapter"), base, scale=0.2)


@pytest.fixture(scope="module")
def pair(base: Path, adapter: Path) -> HfPair:
    return opened(base, adapter)


KINDS: dict[str, Callable[[Path, Path], Path]] = {
    "top layer": lambda base, to: factory.lora_adapter(to, base, layers=[2], scale=0.4),
    "head alone": lambda base, to: factory.lora_adapter(to, base, targets=["lm_head"], scale=0.4),
    "dora": lambda base, to: factory.lora_adapter(to, base, dora=True, scale=0.2),
    "full": lambda base, to: factory.full_finetune(to, base, scale=0.2),
    "merged": lambda base, to: factory.merged_model(
        to / "merged", base, factory.lora_adapter(to / "lora", base, scale=0.2)
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tuning_as_the_library(kind: str, base: Path, tmp_path: Path) -> None:
    assert_as_alone(base, KINDS[kind](base, tmp_path))


def test_a_real_model_ends_its_stories(shared: Path) -> None:
    base, adapter = (shared / "models" / n for n in ("stories260K", "stories260K-gsm8k-lora"))
    pair = opened(base, adapter)
    items = [Item(str(i), prompt=p) for i, p in enumerate(("Lily", "2 + 2 ="))]
    prompts = pair.prompts(items, None)
    generation = Generation(max_new_tokens=240)
    replies = list(pair.generate(prompts, generation))
    model = alone(base, adapter)[0]
    tokenizer = AutoTokenizer.from_pretrained(base)
    for prompt, (reply, _) in zip(prompts, replies, strict=True):
        ids = greedy(model, prompt, generation.max_new_tokens)
        # its settings name two end tokens; a story ends with the BOS of the next
        assert (reply.stop == "end") == (ids[-1] in (1, 2))
        ids = ids[:-1] if reply.stop == "end" else ids
        assert reply.ids == tuple(ids)
        whole = tokenizer.decode([*prompt.ids, *ids], skip_special_tokens=True)
        assert whole == tokenizer.decode(prompt.ids, skip_special_tokens=True) + reply.text
    assert {reply.stop for reply, _ in replies} >= {"end"}


# --- company


@pytest.mark.parametrize("generation", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("budget", [1, 100, 300])
def test_company_changes_no_reply(pair: HfPair, generation: Generation, budget: int) -> None:
    prompts = pair.prompts(ITEMS, None)
    usual = list(pair.generate(prompts, generation))
    streams = pair.engine.streams
    ends = frozenset({*streams.ends, factory.EOS})
    rules = generate.Rules(generation, 0, ends, pair._read, pair.context)
    assert list(generate.generate(pair.engine, prompts, rules, budget=budget)) == usual
    backwards = list(pair.generate(prompts[::-1], generation))
    assert backwards[::-1] == usual
    for prompt, both in zip(prompts, usual, strict=True):
        assert list(pair.generate([prompt], generation)) == [both]


def test_a_side_not_asked_is_none(pair: HfPair, base: Path, tmp_path: Path) -> None:
    other = opened(base, factory.full_finetune(tmp_path, base, scale=0.2))
    for asked in (pair, other):
        prompts = asked.prompts(ITEMS, None)
        both = list(asked.generate(prompts, GREEDY))
        assert list(asked.generate(prompts, GREEDY, sides=("tuned",))) == [
            (None, t) for _, t in both
        ]
        assert list(asked.generate(prompts, GREEDY, sides=("base",))) == [
            (b, None) for b, _ in both
        ]
    assert list(pair.generate([], GREEDY)) == []


def test_short_replies_leave_and_the_others_go_on(
    pair: HfPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = pair.prompts(ITEMS, None)
    whole = list(pair.generate(prompts, GREEDY))
    end = whole[0][0].ids[3]  # a token of some replies, and not of others
    monkeypatch.setattr(pair.engine.streams, "ends", (end,))
    lengths = set()
    for both, cut in zip(whole, pair.generate(prompts, GREEDY), strict=True):
        for long, short in zip(both, cut, strict=True):
            ids = long.ids[: long.ids.index(end)] if end in long.ids else long.ids
            assert (short.ids, short.stop) == (ids, "end" if end in long.ids else "length")
            lengths.add(len(short.ids))
    assert len(lengths) > 1, "all replies ended together: nothing was tested"


def test_a_memory_forgets_all_but_what_is_selected() -> None:
    memory = Memory(3, 4)
    module = torch.nn.Identity()
    key = torch.arange(6.0).view(1, 1, 6, 1)
    bounds = ((0, 2), (2, 5), (5, 6))
    with memory.reading(bounds, 0), attention.packed(bounds):
        memory.keep(module, key, 10 * key)
    assert memory.lengths == [2, 3, 1]
    memory.select([1, 2])
    assert memory.lengths == [3, 1]
    query = torch.zeros(1, 1, 2, 1)  # equal weights: the mean of what is seen
    new = torch.tensor([100.0, 200.0]).view(1, 1, 2, 1)
    with memory.going_on(torch.device("cpu")):
        seen = memory.attend(module, query, new, 10 * new, None, None, None)
    wanted = [(20 + 30 + 40 + 1000) / 4, (50 + 2000) / 2]
    np.testing.assert_allclose(seen.flatten().numpy(), wanted, rtol=1e-6)
    assert memory.lengths == [4, 2]


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("scaling", [None, 1.3])
def test_a_token_attends_as_if_the_text_were_read_again(
    window: int | None, softcap: float | None, scaling: float | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, 12, 8, generator=generator) for heads in (4, 2, 2))
    options: dict[str, Any] = {"scaling": scaling, "sliding_window": window, "softcap": softcap}

    def attended(at: Sequence[int]) -> torch.Tensor:
        out, _ = attention._attend(module, q[:, :, at], k[:, :, at], v[:, :, at], None, **options)
        return out[0]

    module = torch.nn.Identity()
    whole = ((0, 7), (7, 12))
    with attention.packed(whole):
        wanted = attended(range(12))
    memory = Memory(2, 9)
    with attention.packed(((0, 5), (5, 8))), memory.reading(((0, 5), (5, 8)), 0):
        attended([0, 1, 2, 3, 4, 7, 8, 9])
    for step in ([5, 10], [6, 11]):
        with attention.packed(((0, 1), (1, 2))), memory.going_on(torch.device("cpu")):
            found = attended(step)
        np.testing.assert_allclose(found.numpy(), wanted[step].numpy(), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_replies_part_only_within_the_noise(base: Path, adapter: Path, dtype: str) -> None:
    """Rounding of the dtype makes some part, and none further; a fault is further than that."""
    pair = open_pair(base, adapter, device="cpu", dtype=dtype)
    assert isinstance(pair, HfPair)
    items = [
        Item(str(i), prompt=text) for i, text in enumerate(factory.texts(12, 5, words=(1, 14)))
    ]
    prompts = pair.prompts(items, None)
    asked = [Item(item.id, text=item.prompt) for item in items]
    noise = pair.noise_floor(pair.encode(asked, None, False))["logit_mse"] ** 0.5
    # two logits, each off in both of two answers: twice the floor is one standard deviation
    most = 4 * noise
    real = pair.engine.streams
    alone = [both for prompt in prompts for both in pair.generate([prompt], GREEDY)]

    def gaps(spoil: Callable[[torch.Tensor], Any]) -> list[float]:
        pair.engine.streams = Faulty(real, spoil)
        together = list(pair.generate(prompts, GREEDY))
        pair.engine.streams = real
        return [
            gap_at_parting(pair, side, prompt, one.ids, other.ids)
            for prompt, *replies in zip(prompts, together, alone, strict=True)
            for side, one, other in zip(sampling.BOTH, *replies, strict=True)
        ]

    assert max(gaps(lambda z: None)) <= most
    rng = np.random.default_rng(0)
    rounded = gaps(lambda z: z.add_(torch.from_numpy(rng.normal(0, noise, z.shape))))
    assert max(rounded) <= most
    if dtype == "bfloat16":
        assert max(rounded) > 0, "none parted: the bound was not tested"
    leaked = gaps(lambda z: z.add_(0.2 * z.roll(1, dims=0)))  # a row sees its neighbour
    assert max(leaked) > most


def gap_at_parting(
    pair: Any, side: Any, prompt: Encoded, one: Sequence[int], other: Sequence[int]
) -> float:
    """How far apart the logits are of the tokens at which two replies part; 0: they do not."""
    ends = [[*ids, factory.EOS] for ids in (one, other)]
    at = next((i for i, (a, b) in enumerate(zip(*ends, strict=False)) if a != b), None)
    if at is None:
        return 0.0
    ids = torch.tensor([*prompt.ids.tolist(), *one[:at]])
    streams = pair.engine.streams
    z = streams.logits(streams.one(Pack.of([ids], streams.device), side)[-1:], side)[0]
    return abs(z[ends[0][at]] - z[ends[1][at]]).item()


# --- what a reply is


def test_stop_strings_cut_the_text_and_keep_the_token(pair: HfPair) -> None:
    prompts = pair.prompts(ITEMS, None)
    for prompt, (whole, _) in zip(prompts, pair.generate(prompts, GREEDY), strict=True):
        stop = whole.text[5:7]
        generation = replace(GREEDY, stop=("never said", stop))
        ((found, _),) = pair.generate([prompt], generation)
        assert found.stop == "stop_string"
        assert found.text == whole.text[: whole.text.index(stop)]
        count = len(found.ids)
        assert found.ids == whole.ids[:count]
        text, before = (pair._read("base", prompt, whole.ids[:n]) for n in (count, count - 1))
        assert stop in text
        assert stop not in before


def test_a_reply_never_leaves_the_context(pair: HfPair) -> None:
    assert pair.context == 256
    (prompt,) = pair.prompts([Item("long", prompt="x" * 250)], None)
    assert len(prompt.ids) == 251
    for reply in next(iter(pair.generate([prompt], GREEDY))):
        assert (len(reply.ids), reply.stop) == (5, "length")
        (scores,) = pair.score([pair.continuation(prompt, reply.ids)])
        assert scores.reason is None
    (full,) = pair.prompts([Item("full", prompt="x" * 254)], None)
    assert len(next(iter(pair.generate([full], GREEDY)))[0].ids) == 1
    with pytest.raises(LengthError, match="item 'over' has 256 tokens; at most 255 fit before"):
        pair.prompts([Item("over", prompt="x" * 255)], None)
    with pytest.raises(LengthError, match="at most 9 fit"):
        pair.prompts([Item("over", prompt="x" * 20)], 9)


def test_replies_are_scored_as_they_were_made(pair: HfPair, base: Path, adapter: Path) -> None:
    prompts = pair.prompts(ITEMS, None)
    models = alone(base, adapter)
    for prompt, both in zip(prompts, pair.generate(prompts, GREEDY), strict=True):
        for reply in both:
            asked = pair.continuation(prompt, reply.ids)
            assert asked.bytes_scored >= len(reply.text.encode())
            (scores,) = pair.score([asked])
            assert scores.targets.tolist() == list(reply.ids)
            for model, nll in zip(models, (scores.nll_base, scores.nll_tuned), strict=True):
                with torch.no_grad():
                    z = model(torch.from_numpy(asked.ids)[None]).logits[0].double()
                log_p = z.log_softmax(-1)[len(prompt.ids) - 1 : -1]
                true = -log_p.gather(1, torch.tensor(reply.ids)[:, None])[:, 0].numpy()
                np.testing.assert_allclose(nll, true, atol=1e-4)


def test_what_cannot_be_scored_is_refused(pair: HfPair) -> None:
    (prompt,) = pair.prompts(ITEMS[:1], None)
    with pytest.raises(InputError, match="a reply without tokens"):
        pair.continuation(prompt, [])
    with pytest.raises(InputError, match="the token id 300; the model knows 300 tokens"):
        pair.continuation(prompt, [5, 300])


def test_the_tuned_sides_own_end_ends_replies(base: Path, tmp_path: Path) -> None:
    tuned = factory.lora_adapter(tmp_path / "lora", base, scale=0.2)
    plain = opened(base, tuned)
    prompts = plain.prompts(ITEMS, None)
    said = [reply for both in plain.generate(prompts, GREEDY) for reply in both]
    token = next(i for reply in said for i in reply.ids if 2 <= i < 272)
    factory.tiny_tokenizer(tuned)
    word = AutoTokenizer.from_pretrained(tuned).convert_ids_to_tokens(token)
    factory.edit_json(tuned / "tokenizer_config.json", eos_token=word)
    with_end = opened(base, tuned)
    for before, after in zip(
        said, (r for both in with_end.generate(prompts, GREEDY) for r in both), strict=True
    ):
        cut = token in before.ids
        assert after.stop == ("end" if cut else before.stop)
        assert after.ids == (before.ids[: before.ids.index(token)] if cut else before.ids)
    assert plain.settings["ends"] == [factory.EOS]
    assert with_end.settings["ends"] == [factory.EOS, token]


ADDED: dict[str, Callable[[Path, Path], Path]] = {
    "full": factory.full_finetune,
    "adapter": lambda to, base: factory.lora_adapter(
        to, base, modules_to_save=["lm_head", "embed_tokens"]
    ),
}


@pytest.mark.parametrize("kind", ADDED)
def test_no_side_says_a_token_that_it_does_not_have(kind: str, base: Path, tmp_path: Path) -> None:
    """Tuned may say its added ones, which base cannot be asked about."""
    more = AutoModelForCausalLM.from_pretrained(base)
    more.resize_token_embeddings(305, mean_resizing=False)
    more.save_pretrained(tmp_path / "more")
    pair = opened(base, ADDED[kind](tmp_path / "tuned", tmp_path / "more"))
    prompts = pair.prompts(ITEMS, None)
    any_token = Generation(max_new_tokens=64, temperature=100.0)
    added = 0
    for prompt, both in zip(prompts, pair.generate(prompts, any_token), strict=True):
        assert max(both[0].ids, default=0) < 300
        if max(both[1].ids, default=0) >= 300:
            added += 1
            with pytest.raises(InputError, match=r"the token id 30\d; the model knows 300 tokens"):
                pair.continuation(prompt, both[1].ids)
    assert added, "no added token was said: nothing was tested"


# --- prompts


def test_a_prompt_begins_as_a_text_and_has_no_end(base: Path, adapter: Path, pair: HfPair) -> None:
    from tokenizers import processors

    found, empty = pair.prompts([Item("a", prompt="the fox"), Item("e", prompt="")], None)
    assert found.ids[0] == factory.BOS
    assert factory.EOS not in found.ids
    assert (len(found.scored), found.probe, found.bytes_scored) == (0, len(found.ids) - 1, 0)
    assert empty.ids.tolist() == [factory.BOS]
    other = opened(base, adapter)
    other.tokens.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", factory.BOS), ("</s>", factory.EOS)]
    )
    again = other.prompts([Item("a", prompt="the fox"), Item("e", prompt="")], None)
    assert [p.ids.tolist() for p in again] == [found.ids.tolist(), [factory.BOS]]


def test_what_nobody_can_answer(pair: HfPair, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Item 't' is a text"):
        pair.prompts([Item("t", text="the fox")], None)
    base = factory.tiny_model(tmp_path / "base", add_bos=False)
    other = opened(base, factory.lora_adapter(tmp_path / "lora", base))
    with pytest.raises(InputError, match="Item 'e' has an empty prompt"):
        other.prompts([Item("e", prompt="")], None)


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_messages_are_asked_up_to_the_assistants_word(pair: HfPair) -> None:
    user = {"role": "user", "content": "hi"}
    said = {"role": "assistant", "content": "the fox"}
    open_, answered = Item("o", messages=(user,)), Item("a", messages=(user, said))
    with pytest.raises(InputError, match="no chat template"):
        pair.prompts([open_], None)
    chat = pair.with_template(TEMPLATE)
    for prompt in chat.prompts([open_, answered], None):
        text = "".join(pair.token_text(int(i)) for i in prompt.ids[1:])
        assert (prompt.ids[0], text) == (factory.BOS, "user: hi\nassistant: ")
    assert chat.settings["template"] == hashlib.sha256(TEMPLATE.encode()).hexdigest()
    assert pair.settings["template"] is None
    with pytest.raises(InputError, match="special token '</s>' inside a message"):
        chat.prompts([Item("s", messages=({"role": "user", "content": "</s>"},))], None)


def test_a_template_given_aloud(base: Path, adapter: Path) -> None:
    chosen = open_pair(base, adapter, device="cpu", template=TEMPLATE)
    assert chosen.settings["template"] == hashlib.sha256(TEMPLATE.encode()).hexdigest()
    with pytest.raises(UsageError, match="template does not go with the backend 'toy'"):
        open_pair("toy", "toy:1", template=TEMPLATE)
    with pytest.raises(UsageError, match="intersect does not go with the backend 'hf'"):
        open_pair(base, adapter, intersect=True)


def test_different_tokenizers_do_not_answer_together(base: Path, tmp_path: Path) -> None:
    other = factory.tiny_model(tmp_path / "other", add_bos=False)
    found = open_pair(base, other, device="cpu", bits_per_byte_only=True)
    for ask in (
        lambda: found.prompts(ITEMS, None),
        lambda: found.generate([], GREEDY),
        lambda: found.continuation(Encoded("a", np.zeros(1, int), np.zeros(0, int), 0, 0), [1]),
    ):
        with pytest.raises(PairError, match="different tokenizers"):
            ask()


# --- chance


def by_hand(z: np.ndarray, temperature: float, top_p: float, u: float) -> int:
    """Inverse CDF over the fewest likeliest tokens, all sorted."""
    p = np.exp((z.astype(float) - z.max()) / temperature)
    p /= p.sum()
    order = sorted(range(len(z)), key=lambda i: (-z[i], i))
    kept, mass = [], 0.0
    for i in order:
        kept.append(i)
        mass += p[i]
        if mass >= top_p * (1 - 1e-12):
            break
    target, below = u * mass, 0.0
    for i in kept[:-1]:
        below += p[i]
        if target < below:
            return i
    return kept[-1]


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3, 1e-9])
@pytest.mark.parametrize("size", [7, 1500])
def test_a_token_is_chosen_as_by_hand(size: int, top_p: float, spread: float) -> None:
    random = np.random.default_rng(size)
    z = (spread * random.standard_normal(size)).astype(np.float32).round(1)  # with many equals
    z[3] = -np.inf
    for temperature in (0.3, 1.0, 5.0):
        generation = Generation(temperature=temperature, top_p=top_p)
        for u in (0.0, *random.random(12), 1 - 1e-16):
            wanted = by_hand(z, temperature, top_p, float(u))
            assert sampling.choose(z, generation, float(u)) == wanted


def test_tokens_come_as_often_as_they_are_likely() -> None:
    z = np.array([0.0, 2.0, -1.0, 1.0], np.float32)
    generation = Generation(temperature=1.5)
    drawn = [sampling.choose(z, generation, (i + 0.5) / 4000) for i in range(4000)]
    p = np.exp(z / 1.5)
    np.testing.assert_allclose(np.bincount(drawn) / 4000, p / p.sum(), atol=3e-4)


def test_shares_begin_where_the_last_one_ends() -> None:
    z, generation = np.zeros(4, np.float32), Generation(temperature=1.0)
    drawn = [sampling.choose(z, generation, u) for u in (0.0, 0.25, 0.5, 0.75, 0.999)]
    assert drawn == [0, 1, 2, 3, 3]


def test_greedy_takes_the_first_of_equals() -> None:
    z = np.array([1.0, 7.0, 7.0, -np.inf], np.float32)
    assert sampling.choose(z, Generation(), 0.99) == 1


def test_noise_depends_on_seed_prompt_sample_and_position_alone() -> None:
    def noise(ids: Sequence[int] = (1, 2), item: str = "a", sample: int = 0, **g: Any) -> Any:
        prompt = Encoded(item, np.array(ids), np.empty(0, np.int64), len(ids) - 1, 0)
        return sampling.noise(prompt, Generation(**{"max_new_tokens": 8, **g}), sample).tolist()

    usual = noise()
    assert noise(item="b", temperature=2.0, top_p=0.5) == usual
    assert noise(max_new_tokens=20)[:8] == usual
    assert len({tuple(x) for x in (usual, noise((2, 1)), noise(sample=1), noise(seed=1))}) == 4
    many = np.array([noise(sample=k, max_new_tokens=50) for k in range(200)])
    assert 0 <= many.min() <= many.max() < 1
    assert abs(many.mean() - 0.5) < 4 / np.sqrt(12 * many.size)
    assert abs(np.corrcoef(many[:, 0], many[:, 1])[0, 1]) < 0.3


def test_samples_differ_and_come_again(pair: HfPair) -> None:
    prompts = pair.prompts(ITEMS, None)
    first = list(pair.generate(prompts, SAMPLED, sample=0))
    assert list(pair.generate(prompts, SAMPLED, sample=0)) == first
    for other in (
        pair.generate(prompts, SAMPLED, sample=1),
        pair.generate(prompts, replace(SAMPLED, seed=1)),
        pair.generate(prompts, GREEDY),
    ):
        assert all(b.ids != c.ids for (b, _), (c, _) in zip(first, other, strict=True))


def test_samples_are_drawn_from_the_models_own_distribution(
    pair: HfPair, base: Path, adapter: Path
) -> None:
    (prompt,) = pair.prompts(ITEMS[:1], None)
    once = Generation(max_new_tokens=1, temperature=0.7)
    drawn = [next(iter(pair.generate([prompt], once, sample=k))) for k in range(60)]
    for side, model in enumerate(alone(base, adapter)):
        with torch.no_grad():
            z = model(torch.from_numpy(prompt.ids)[None]).logits[0, -1].numpy()
        for k, both in enumerate(drawn):
            u = float(sampling.noise(prompt, once, k)[0])
            wanted = by_hand(z, 0.7, 1.0, u)
            got = both[side].ids[0] if both[side].ids else factory.EOS
            assert got in {by_hand(z, 0.7, 1.0, u + d) for d in (-1e-5, 0.0, 1e-5)}, wanted


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.01}, "top_p is 1.01"),
        ({"stop": ("a", "")}, r"stop is \('a', ''\)"),
    ],
)
def test_settings_that_make_no_replies(pair: HfPair, changes: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=name):
        pair.generate([], replace(GREEDY, **changes))


# --- faults


class Faulty:
    """Streams whose logits, or whose memory, fail when told to."""

    def __init__(
        self,
        streams: Any,
        logits: Callable[[torch.Tensor], None] = lambda z: None,
        most: int = 10_000,
    ) -> None:
        self._streams, self._logits, self._most = streams, logits, most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._streams, name)

    def mixed(self, pack: Pack, split: int) -> torch.Tensor:
        if len(pack.ids) > self._most:
            raise torch.OutOfMemoryError("planted")
        return self._streams.mixed(pack, split)

    def mixed_logits(self, h: torch.Tensor, split: int) -> torch.Tensor:
        z = self._streams.mixed_logits(h, split)
        self._logits(z)
        return z


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("row", "who"), [(1, "'p1'.* base"), (7, "'p2'.* tuned")])
def test_logits_that_are_not_finite(
    pair: HfPair, monkeypatch: pytest.MonkeyPatch, row: int, who: str, value: float
) -> None:
    prompts = pair.prompts(ITEMS, None)

    def spoil(z: torch.Tensor) -> None:
        z[row, slice(None) if value < 0 else 17] = value

    monkeypatch.setattr(pair.engine, "streams", Faulty(pair.engine.streams, spoil))
    with pytest.raises(NumericsError, match=f"item {who} model's logits are not finite"):
        list(pair.generate(prompts, GREEDY))


def test_a_masked_vocabulary_is_no_fault(pair: HfPair, monkeypatch: pytest.MonkeyPatch) -> None:
    def mask(z: torch.Tensor) -> None:
        z[:, 100:] = float("-inf")

    monkeypatch.setattr(pair.engine, "streams", Faulty(pair.engine.streams, mask))
    for generation in (GREEDY, SAMPLED):
        for both in pair.generate(pair.prompts(ITEMS, None), generation):
            assert all(max(reply.ids, default=0) < 100 for reply in both)


def test_running_out_of_memory_changes_no_reply(
    pair: HfPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = pair.prompts(ITEMS, None)
    usual = list(pair.generate(prompts, GREEDY))
    longest = max(len(p.ids) for p in prompts)
    halvings = pair.engine.halvings
    real = pair.engine.streams
    monkeypatch.setattr(pair.engine, "streams", Faulty(real, most=2 * longest))
    assert list(pair.generate(prompts, GREEDY)) == usual
    assert pair.engine.halvings > halvings
    assert pair.settings["halvings"] == pair.engine.halvings
    monkeypatch.setattr(pair.engine, "streams", Faulty(real, most=longest - 1))
    worst = next(p for p in prompts if len(p.ids) == longest)
    with pytest.raises(
        NumericsError, match=f"Memory ran out on the reply to item '{worst.item_id}'"
    ):
        list(pair.generate(prompts, GREEDY))


def test_other_errors_are_not_taken_for_memory(
    pair: HfPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(_: torch.Tensor) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(pair.engine, "streams", Faulty(pair.engine.streams, break_down))
    with pytest.raises(RuntimeError, match="something else"):
        list(pair.generate(pair.prompts(ITEMS, None), GREEDY))
