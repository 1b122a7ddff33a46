"""Does every backend do what ``pair/contract.py`` asks of one?

One suite for all of them; a new backend is one more line in ``KINDS``, or in ``ANSWERING`` where
it has replies and no scores.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import factory
import oracle
from tunediff.errors import InputError, PairError, TunediffError, UsageError
from tunediff.pair.contract import Pair
from tunediff.pair.open import BACKENDS, open_pair
from tunediff.pair.toy import LEARNED, VOCABULARY, ToyPair
from tunediff.values import TOKEN_METRICS, Encoded, Generation, Item, Reply, Scores

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = factory.tiny_model(tmp_path_factory.mktemp("base"), "llama")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def lora(base: Path, folder: Path) -> Pair:
    return open_pair(base, factory.lora_adapter(folder, base), device="cpu")


def switched(base: Path, folder: Path) -> Pair:
    return open_pair(base, factory.lora_adapter(folder, base, dora=True), device="cpu")


def full(base: Path, folder: Path) -> Pair:
    return open_pair(base, factory.full_finetune(folder, base), device="cpu")


def toy(_base: Path, _folder: Path) -> Pair:
    return open_pair("toy", "toy:0.7")


def recorded(_base: Path, folder: Path) -> Pair:
    for name in ("base", "tuned"):
        rows = [
            {"id": item.id, "prompt": item.prompt, "reply": f"{name} {item.id} {k}", "sample": k}
            for item in PROMPTS
            for k in (0, 1)
        ]
        (folder / name).write_text("\n".join(map(json.dumps, rows)))
    return open_pair(f"recorded:{folder / 'base'}", f"recorded:{folder / 'tuned'}")


KINDS: tuple[Callable[[Path, Path], Pair], ...] = (lora, switched, full, toy)
ANSWERING = (*KINDS, recorded)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def pair(
    request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    return request.param(base, tmp_path_factory.mktemp("tuned"))


@pytest.fixture(scope="module", params=ANSWERING, ids=lambda kind: kind.__name__)
def answering(
    request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    return request.param(base, tmp_path_factory.mktemp("tuned"))


ITEMS = [
    Item("z", text="the quick brown fox jumps over a lazy dog"),
    Item("a", prompt="the quick brown ", reply="fox jumps"),
    Item("m", text="é 日本 and then it sleeps in warm sun"),
    Item("b", prompt="", reply="over a lazy dog"),
]


def numbers(scores: Scores) -> np.ndarray:
    return np.stack([getattr(scores, name) for name in TOKEN_METRICS])


PROMPTS = [
    Item("z", prompt="the quick brown "),
    Item("a", prompt="over a lazy dog", reply="and then"),
    Item("m", prompt="é 日本"),
]
GREEDY = Generation(max_new_tokens=6)


def test_every_backend_has_a_row_here(answering: Pair) -> None:
    assert set(BACKENDS) == {"hf", "toy", "recorded"}, "add the new backend to ANSWERING"
    assert answering.settings["backend"] in BACKENDS


def test_sides_and_certificate(answering: Pair) -> None:
    pair = answering
    assert pair.base.kind == ("base" if "scores" in pair.offers else "recorded")
    assert len({pair.base.fingerprint, pair.tuned.fingerprint}) == 2
    assert all(len(side.fingerprint) == 64 for side in (pair.base, pair.tuned))
    assert not pair.certificate.weights_equal
    assert pair.offers >= {"replies"}
    assert {check.passed for check in pair.certificate.checks} <= {True, None}


def test_settings_are_json_and_say_what_decides(answering: Pair) -> None:
    settings = dict(answering.settings)
    assert json.loads(json.dumps(settings)) == settings
    assert {"backend", "device", "dtype", "kernel", "fast_kernel", "threads"} <= set(settings)


def test_encoded_items(pair: Pair) -> None:
    for item, found in zip(ITEMS, pair.encode(ITEMS, None, False), strict=True):
        assert found.item_id == item.id
        assert found.ids.dtype == np.int64
        assert (np.diff(found.scored) > 0).all()
        assert 0 <= found.scored[0] <= found.scored[-1] < len(found.ids) - 1
        assert found.truncated == 0
        if item.text is not None:
            assert found.probe == len(found.ids) - 1
            assert len(found.scored) == len(found.ids) - 1
        else:
            assert found.probe == found.scored[0]
        assert 0 < found.bytes_scored <= len(item.shown.encode())


def test_of_a_reply_nothing_of_the_prompt_is_scored(pair: Pair) -> None:
    (found,) = pair.encode([Item("a", prompt="lazy dog:", reply="xyz")], None, False)
    assert "".join(pair.token_text(int(found.ids[t + 1])) for t in found.scored) == "xyz"
    assert found.bytes_scored == 3


def test_scores_come_in_order_and_shape(pair: Pair) -> None:
    asked = pair.encode(ITEMS, None, False)
    for item, scores in zip(asked, pair.score(asked), strict=True):
        assert scores.item_id == item.item_id
        assert scores.reason is None
        assert scores.positions.tolist() == item.scored.tolist()
        assert scores.targets.tolist() == item.ids[item.scored + 1].tolist()
        table = numbers(scores)
        assert table.shape == (len(TOKEN_METRICS), len(item.scored))
        assert table.dtype == np.float64
        assert np.isfinite(table).all()
        for name in TOKEN_METRICS:
            if name != "delta_p":
                assert (getattr(scores, name) >= 0).all(), name
        assert (scores.js <= math.log(2)).all()
        assert set(scores.top1_agreement.tolist()) <= {0.0, 1.0}
        assert (scores.bytes_scored, scores.probe_position) == (item.bytes_scored, item.probe)


def test_scores_agree_among_themselves(pair: Pair) -> None:
    for scores in pair.score(pair.encode(ITEMS, None, False)):
        difference = np.exp(-scores.nll_tuned) - np.exp(-scores.nll_base)
        np.testing.assert_allclose(scores.delta_p, difference, rtol=1e-9, atol=1e-15)
        vocabulary = scores.logit_l2**2 / scores.logit_mse
        np.testing.assert_allclose(vocabulary, vocabulary[0], rtol=1e-9)
        assert (scores.logit_mse_centred <= scores.logit_mse * (1 + 1e-9)).all()
        assert (scores.js <= (scores.kl_base_tuned + scores.kl_tuned_base) / 4 + 1e-12).all()


def test_the_probe_shows_the_likeliest(pair: Pair) -> None:
    for scores in pair.score(pair.encode(ITEMS, None, False)):
        for top in (scores.probe_top_base, scores.probe_top_tuned):
            ids, p = zip(*top, strict=True)
            assert len(set(ids)) == len(ids) == 10
            assert list(p) == sorted(p, reverse=True)
            assert 0 < sum(p) <= 1 + 1e-6
            assert all(isinstance(pair.token_text(i), str) for i in ids)
        at = np.flatnonzero(scores.positions == scores.probe_position)
        if len(at):  # a reply's probe is scored: its figures are those of that row
            assert scores.probe_logit_l2 == scores.logit_l2[at[0]]
            assert scores.probe_logit_mse == scores.logit_mse[at[0]]
        assert scores.probe_logit_l2 > 0


def test_a_text_that_is_too_long(pair: Pair) -> None:
    (whole,) = pair.encode(ITEMS[:1], None, False)
    with pytest.raises(InputError) as error:
        pair.encode(ITEMS[:1], 6, False)
    assert error.value.message == f"Item 'z' has {len(whole.ids)} tokens; at most 6 fit."
    assert "--allow-truncation" in error.value.hint
    (cut,) = pair.encode(ITEMS[:1], 6, True)
    assert cut.ids.tolist() == whole.ids[:6].tolist()
    assert (cut.truncated, cut.scored.tolist()) == (len(whole.ids) - 6, [0, 1, 2, 3, 4])
    # causal: what was cut off changes nothing before it
    short, long = (next(iter(pair.score([item]))) for item in (cut, whole))
    np.testing.assert_allclose(short.nll_tuned, long.nll_tuned[:5], rtol=1e-5)


def test_nothing_to_score(pair: Pair) -> None:
    with pytest.raises(InputError, match="Item 'a' has no scored position"):
        pair.encode([Item("a", prompt="the fox", reply="")], None, False)


def test_two_calls_are_equal(pair: Pair) -> None:
    asked = pair.encode(ITEMS, None, False)
    first, second = (list(pair.score(asked)) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert numbers(one).tobytes() == numbers(two).tobytes()
        assert one.probe_top_tuned == two.probe_top_tuned
    assert pair.noise_floor(asked) == pair.noise_floor(asked)


def test_items_can_be_asked_in_any_company(pair: Pair) -> None:
    asked = pair.encode(ITEMS, None, False)
    together = list(pair.score(asked))
    for item, scores in zip(asked, together, strict=True):
        (alone,) = pair.score([item])
        np.testing.assert_allclose(numbers(alone), numbers(scores), rtol=2e-4, atol=2e-6)
    assert list(pair.score([])) == []


def test_the_floor_covers_every_figure(pair: Pair) -> None:
    floor = pair.noise_floor(pair.encode(ITEMS, None, False))
    figures = {*TOKEN_METRICS, "delta_nll", "ppl_base", "ppl_tuned", "ppl_ratio", "logit_l2_last"}
    figures |= {"bits_per_byte_base", "bits_per_byte_tuned"}
    assert set(floor) == figures
    assert all(isinstance(v, float) and v > 0 and math.isfinite(v) for v in floor.values())


def test_a_run_goes_on_with_its_own_settings(pair: Pair) -> None:
    asked = pair.encode(ITEMS, None, False)
    before, settings = list(pair.score(asked)), dict(pair.settings)
    pair.continue_with(json.loads(json.dumps(settings)))
    assert dict(pair.settings) == settings
    for one, two in zip(before, pair.score(asked), strict=True):
        assert numbers(one).tobytes() == numbers(two).tobytes()


def test_speed_is_of_both_sides(pair: Pair) -> None:
    found = pair.speed(pair.encode(ITEMS, None, False))
    assert set(found) == {"base", "tuned"}
    assert all(value > 0 for value in found.values())


# --- replies


def test_prompts_hold_nothing_to_score(answering: Pair) -> None:
    found = answering.prompts(PROMPTS, None)
    assert [p.item_id for p in found] == [i.id for i in PROMPTS]
    for prompt in found:
        assert (prompt.ids.dtype, prompt.bytes_scored, len(prompt.scored)) == (np.int64, 0, 0)
        assert prompt.probe == len(prompt.ids) - 1


def test_replies_come_in_order_of_both_sides(answering: Pair) -> None:
    prompts = answering.prompts(PROMPTS, None)
    found = list(answering.generate(prompts, GREEDY))
    assert len(found) == len(prompts)
    for b, t in found:
        assert isinstance(b, Reply)
        assert isinstance(t, Reply)
        for reply in (b, t):
            if reply.ids is None:
                assert reply.stop == "recorded"
            else:
                assert len(reply.ids) <= GREEDY.max_new_tokens
                assert (len(reply.ids) == GREEDY.max_new_tokens) == (reply.stop == "length")
    assert any(b != t for b, t in found)
    assert list(answering.generate(prompts, GREEDY)) == found
    assert list(answering.generate(prompts[1:2], GREEDY)) == found[1:2]
    assert list(answering.generate(prompts[::-1], GREEDY)) == found[::-1]
    assert list(answering.generate(prompts, GREEDY, sides=("tuned",))) == [
        (None, t) for _, t in found
    ]
    assert list(answering.generate([], GREEDY)) == []


def test_samples_are_different_and_come_again(answering: Pair) -> None:
    prompts = answering.prompts(PROMPTS, None)
    generation = Generation(max_new_tokens=6, temperature=1.0)
    first, again, other = (
        list(answering.generate(prompts, generation, sample=k)) for k in (0, 0, 1)
    )
    assert first == again
    assert all(b != c and t != u for (b, t), (c, u) in zip(first, other, strict=True))


def test_a_reply_is_scored_as_it_was_made(pair: Pair) -> None:
    prompts = pair.prompts(PROMPTS, None)
    for prompt, both in zip(prompts, pair.generate(prompts, GREEDY), strict=True):
        for reply in both:
            assert reply is not None
            assert reply.ids
            asked = pair.continuation(prompt, reply.ids)
            (scores,) = pair.score([asked])
            assert scores.reason is None
            assert scores.targets.tolist() == list(reply.ids)
            assert scores.probe_position == prompt.probe
            # greedy: at its first token the side that made it finds no other likelier
        b, t = ((pair.continuation(prompt, reply.ids or ())) for reply in both if reply)
        (of_b,), (of_t,) = pair.score([b]), pair.score([t])
        assert of_b.nll_base[0] <= of_t.nll_base[0] + 1e-6
        assert of_t.nll_tuned[0] <= of_b.nll_tuned[0] + 1e-6
    with pytest.raises(InputError, match="a reply without tokens"):
        pair.continuation(prompts[0], [])


def test_candidates_are_what_either_side_would_go_on_with(pair: Pair) -> None:
    prompts = pair.prompts(PROMPTS, None)
    replies = list(pair.generate(prompts, GREEDY))
    for side in (0, 1):
        own = [both[side] for both in replies]
        asked = [pair.continuation(p, r.ids or ()) for p, r in zip(prompts, own, strict=True) if r]
        found = list(pair.candidates(asked, 5))
        assert [c.item_id for c in found] == [e.item_id for e in asked]
        for e, c, scores in zip(asked, found, pair.score(asked), strict=True):
            assert c.positions.tolist() == e.scored.tolist()
            assert c.base_ids.dtype == c.tuned_ids.dtype == np.int64
            ids, p = (c.base_ids, c.base_p) if side == 0 else (c.tuned_ids, c.tuned_p)
            assert ids.shape == p.shape == (len(e.scored), 5)
            # greedy: the likeliest is what was said, and as likely as it was scored
            assert ids[:, 0].tolist() == e.ids[e.scored + 1].tolist()
            nll = (scores.nll_base, scores.nll_tuned)[side]
            np.testing.assert_allclose(p[:, 0], np.exp(-nll), rtol=2e-4)
            assert (np.diff(p, axis=1) <= 0).all()
            assert all(len(set(row)) == 5 for row in ids.tolist())
            # as the probe has them
            top = (scores.probe_top_base, scores.probe_top_tuned)[side][:5]
            np.testing.assert_allclose(p[0], [share for _, share in top], rtol=2e-4)
    assert list(pair.candidates([], 5)) == []
    (alone,) = pair.candidates(asked[1:2], 5)
    np.testing.assert_allclose(alone.base_p, found[1].base_p, rtol=2e-4)


MIXED = "Aé日本 👩‍👩‍👧 e\u0301 \u200fש\x1b[31m\x00 two  blanks\n\n\tx"


def test_pieces_are_the_text_and_leave_characters_whole(pair: Pair) -> None:
    (asked,) = pair.encode([Item("a", text=MIXED)], None, False)
    ids = asked.ids.tolist()
    pieces = pair.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces).removeprefix("<s>") == MIXED
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    # each at its last token: what was said so far is never ahead of the tokens
    for k in range(1, len(ids)):
        before = "".join(pair.pieces(ids[:k])).rstrip("\N{REPLACEMENT CHARACTER}")
        assert before == "".join(pieces[:k])
    assert pair.pieces([]) == []


def test_pieces_of_broken_bytes_lose_nothing_else(pair: Pair) -> None:
    (asked,) = pair.encode([Item("a", text="日本x")], None, False)
    ids = asked.ids.tolist()
    torn = [*ids[:-3], ids[-1], *ids[-4:-2]]  # a character cut short, then one at the end
    text = "".join(pair.pieces(torn))
    assert text.removeprefix("<s>").startswith("日")
    assert "x" in text
    assert text.endswith("\N{REPLACEMENT CHARACTER}")
    assert len(pair.pieces(torn)) == len(torn)


def test_a_text_is_not_answered(pair: Pair) -> None:
    with pytest.raises(InputError, match="Item 't' is a text"):
        pair.prompts([Item("t", text="the fox")], None)
    with pytest.raises(InputError, match="at most 4 fit before a reply"):
        pair.prompts(PROMPTS, 4)


def test_settings_that_make_no_replies_are_refused(pair: Pair) -> None:
    with pytest.raises(UsageError, match="max_new_tokens is 0; it must be 1 or more"):
        list(pair.generate(pair.prompts(PROMPTS, None), Generation(max_new_tokens=0)))


def test_what_is_not_offered_is_refused(answering: Pair) -> None:
    if "scores" in answering.offers:
        return
    none = np.empty(0, np.int64)
    nothing = Encoded("a", none, none, -1, 0)
    for ask in (
        lambda: answering.encode(ITEMS, None, False),
        lambda: answering.score([nothing]),
        lambda: answering.continuation(nothing, [1]),
        lambda: answering.token_text(1),
        lambda: answering.candidates([nothing], 5),
        lambda: answering.pieces([1]),
    ):
        with pytest.raises(PairError, match="known by their text alone"):
            ask()
    assert dict(answering.noise_floor([])) == dict(answering.speed([])) == {}
    answering.continue_with(answering.settings)


# --- what only models have


def test_other_settings_are_taken_over(base: Path, tmp_path: Path) -> None:
    pair = lora(base, tmp_path)
    settings = dict(pair.settings) | {"kernel": "highest", "threads": 1, "budget": 33, "chunk": 5}
    pair.continue_with(settings)
    assert {k: pair.settings[k] for k in ("kernel", "threads", "budget", "chunk")} == {
        "kernel": "highest",
        "threads": 1,
        "budget": 33,
        "chunk": 5,
    }
    assert pair.settings["fast_kernel"] is False


def test_a_kernel_that_is_not_exact_here_is_refused(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = lora(base, tmp_path)
    monkeypatch.setattr("tunediff.scoring.precision.product_error", lambda *_: 1e-3)
    with pytest.raises(PairError, match="kernel 'medium', which is not exact on this machine"):
        pair.continue_with(dict(pair.settings) | {"kernel": "medium"})


def test_messages_go_through_the_bases_template(base: Path, tmp_path: Path) -> None:
    pair = lora(base, tmp_path)
    messages = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "the fox"})
    asked = [Item("t", text="the fox"), Item("m", messages=messages)]
    plain, found = pair.encode(asked, None, False)
    assert found.ids[0] == plain.ids[0] == factory.BOS
    assert (found.ids[1:] != factory.BOS).all()
    said = "".join(pair.token_text(int(i)) for i in found.ids[1:])
    assert said.startswith("user: hi\nassistant: the fox")
    scored = "".join(pair.token_text(int(found.ids[t + 1])) for t in found.scored)
    assert scored.strip() == "the fox"
    assert len(pair.settings["template"]) == 64


def test_no_template_no_messages(tmp_path: Path) -> None:
    base = factory.tiny_model(tmp_path / "base", "llama")
    pair = lora(base, tmp_path / "adapter")
    messages = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"})
    with pytest.raises(InputError, match="template"):
        pair.encode([Item("m", messages=messages)], None, False)
    assert pair.settings["template"] is None


def test_the_models_context_is_a_limit(base: Path, tmp_path: Path) -> None:
    pair = lora(base, tmp_path)
    long = Item("a", text="x" * 300)
    with pytest.raises(InputError, match="has 301 tokens; at most 256 fit"):
        pair.encode([long], None, False)
    (cut,) = pair.encode([long], None, True)
    assert (len(cut.ids), cut.truncated) == (256, 45)


# --- the toy's closed forms


def test_the_toys_replies() -> None:
    (prompt,) = ToyPair(0.5).prompts([Item("a", prompt="x")], None)
    generation = Generation(max_new_tokens=3, temperature=1.0)
    assert next(ToyPair(0.5).generate([prompt], GREEDY)) == (
        Reply(6 * "\0", (0,) * 6, "length"),
        Reply(6 * " ", (32,) * 6, "length"),
    )
    stopped = Generation(max_new_tokens=6, stop=("   ",))
    assert next(ToyPair(0.5).generate([prompt], stopped))[1] == Reply("", (32,) * 3, "stop_string")
    drawn = [next(ToyPair(3.0).generate([prompt], generation, sample=k)) for k in range(200)]
    share = [
        np.mean([np.isin(both[side].ids, LEARNED).mean() for both in drawn]) for side in (0, 1)
    ]
    e = math.exp(3.0) * len(LEARNED)
    truths = (len(LEARNED) / VOCABULARY, e / (e + VOCABULARY - len(LEARNED)))
    for found, true in zip(share, truths, strict=True):
        assert abs(found - true) < 4 * math.sqrt(true * (1 - true) / 600)


@pytest.mark.parametrize("strength", [1e-4, 0.1, 1.0, 3.0, -0.5, 0.0])
def test_the_toys_closed_forms(strength: float) -> None:
    pair = ToyPair(strength)
    asked = pair.encode(ITEMS, None, False)
    for item, scores in zip(asked, pair.score(asked), strict=True):
        z_b = np.zeros((len(item.scored), VOCABULARY))
        z_t = z_b.copy()
        z_t[:, LEARNED] = strength
        true = oracle.token_metrics(z_b, z_t, item.ids[item.scored + 1])
        for name in TOKEN_METRICS:
            # closed forms are sums of terms of opposite sign, of about 1e-17 each
            np.testing.assert_allclose(
                getattr(scores, name), true[name], rtol=1e-6, atol=1e-15, err_msg=name
            )
        for top, z in ((scores.probe_top_base, z_b), (scores.probe_top_tuned, z_t)):
            p = np.exp(z[0]) / np.exp(z[0]).sum()
            assert [x for _, x in top] == pytest.approx([p[i] for i, _ in top])
            assert sum(x for _, x in top) == pytest.approx(np.sort(p)[-10:].sum())


def test_a_toy_of_strength_0_is_equal_by_weights() -> None:
    assert ToyPair(0.0).certificate.weights_equal
    assert not ToyPair(1e-9).certificate.weights_equal


@pytest.mark.parametrize("name", ["toy:x", "toy:nan", "toy:inf"])
def test_no_such_toy(name: str) -> None:
    with pytest.raises(TunediffError, match="toy"):
        open_pair("toy", name)


def test_no_such_backend_or_dtype(base: Path) -> None:
    with pytest.raises(UsageError, match="The backend 'magic' is not one of hf, toy, recorded"):
        open_pair(base, base, backend="magic")
    with pytest.raises(UsageError, match="The dtype 'int8' is not one of float32"):
        open_pair(base, base, dtype="int8")
