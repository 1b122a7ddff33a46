"""Which tokens does a model read, which are scored, and how many bytes do those stand for?"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, processors

import factory
from tunediff.errors import InputError, PairError
from tunediff.pair import encoding
from tunediff.pair.encoding import Spans, encode, encode_bytes, spans
from tunediff.pair.hf_load import HfTokens
from tunediff.pair.open import open_pair
from tunediff.values import Encoded, Item

EMOJI = "🦊"


def never(item: Item) -> tuple[str, str]:
    raise AssertionError(f"{item.id} needs no template")


def chat(item: Item) -> tuple[str, str]:
    """A template: BOS once, Q and A lines, EOS behind the reply."""
    assert item.messages is not None
    lines = [f"{m['role'][0].upper()}: {m['content']}" for m in item.messages]
    context = "<s>" + "\n".join(lines[:-1]) + "\nA: "
    return context, context + item.messages[-1]["content"] + "</s>"


@pytest.fixture(scope="module")
def with_bos(tmp_path_factory: pytest.TempPathFactory) -> HfTokens:
    return HfTokens(factory.tiny_tokenizer(tmp_path_factory.mktemp("bos")))


@pytest.fixture(scope="module")
def without_bos(tmp_path_factory: pytest.TempPathFactory) -> HfTokens:
    return HfTokens(factory.tiny_tokenizer(tmp_path_factory.mktemp("plain"), add_bos=False))


@pytest.fixture(scope="module")
def stories(shared: Path) -> HfTokens:
    return HfTokens(shared / "models/stories260K")


def tokens_of(tokens: HfTokens, folder: Path, **parts: object) -> HfTokens:
    """The same tokenizer with some parts of its file replaced."""
    whole = json.loads(tokens.serialised) | parts
    factory.tiny_tokenizer(folder)
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    return HfTokens(folder)


def encoded(
    item: Item, tokens: HfTokens, max_length: int | None = None, cut: bool = False
) -> Encoded:
    return encode(item, tokens, chat if item.messages else never, max_length, cut)


def scored_pieces(found: Encoded, tokens: HfTokens) -> list[str]:
    return tokens.tokenizer.convert_ids_to_tokens(found.ids[found.scored + 1].tolist())


def text(said: str) -> Item:
    return Item("a", text=said)


def reply(prompt: str, said: str) -> Item:
    return Item("a", prompt=prompt, reply=said)


def talk(*contents: str, source: str = "") -> Item:
    roles = ("user", "assistant") * len(contents)
    messages = tuple({"role": r, "content": c} for r, c in zip(roles, contents, strict=False))
    return Item("a", messages=messages, source=source)


# --- plain texts and BOS


def test_bos_is_context_and_never_scored(with_bos: HfTokens) -> None:
    found = encoded(text("the fox"), with_bos)
    assert found.ids[0] == with_bos.bos
    assert (found.ids[1:] != with_bos.bos).all()
    assert scored_pieces(found, with_bos) == ["the", "Ġ", "f", "ox"]
    assert found.scored.tolist() == [0, 1, 2, 3]
    assert (found.probe, found.bytes_scored, found.truncated) == (4, 7, 0)


def test_without_bos_the_first_token_is_context(without_bos: HfTokens) -> None:
    found = encoded(text("the fox"), without_bos)
    assert scored_pieces(found, without_bos) == ["Ġ", "f", "ox"]
    assert (found.scored.tolist(), found.bytes_scored) == ([0, 1, 2], 4)


@pytest.mark.parametrize(
    "item", [text("<s>the fox</s>"), reply("<s>", "the fox </s>"), reply("a", "b<s>")]
)
def test_special_token_text_in_data_is_text(with_bos: HfTokens, item: Item) -> None:
    found = encoded(item, with_bos)
    assert (found.ids[1:] > 1).all()
    assert with_bos.tokenizer.decode(found.ids[1:].tolist()) == item.shown


def test_two_bos_are_refused(with_bos: HfTokens, tmp_path: Path) -> None:
    twice = tokens_of(with_bos, tmp_path)
    twice.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> <s> $A", special_tokens=[("<s>", 0)]
    )
    with pytest.raises(InputError, match=r"Item 'a' begins with two BOS tokens \(id 0\)\."):
        encoded(text("the fox"), twice)
    item = talk("hi", "yes", source="chat.jsonl:3")
    with pytest.raises(InputError, match=r"Item 'a' \(chat\.jsonl:3\) begins with two BOS"):
        encode(item, with_bos, lambda i: tuple("<s>" + x for x in chat(i)), None, False)
    # the tokenizer's own BOS does not come on top of the template's
    assert encoded(talk("hi", "yes"), with_bos).ids[:2].tolist() != [0, 0]


def test_an_eos_that_the_tokenizer_adds_has_no_bytes(with_bos: HfTokens) -> None:
    raw = with_bos.tokenizer.backend_tokenizer
    before = raw.post_processor
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    try:
        whole = encoded(text("the fox"), with_bos)
        part = encoded(reply("the", " fox"), with_bos)
    finally:
        raw.post_processor = before
    assert scored_pieces(whole, with_bos) == ["the", "Ġ", "f", "ox", "</s>"]
    assert whole.bytes_scored == 7
    assert part.bytes_scored == 4


# --- prompt and reply


def test_a_reply_is_scored_by_its_characters(with_bos: HfTokens) -> None:
    found = encoded(reply("the fox ", "sleeps"), with_bos)
    # "Ġs" is one token of both: it is the reply's, and so are its two bytes
    assert scored_pieces(found, with_bos) == ["Ġs", "l", "e", "e", "p", "s"]
    assert found.bytes_scored == len(" sleeps")
    assert found.probe == found.scored[0]
    assert found.ids.tolist() == encoded(text("the fox sleeps"), with_bos).ids.tolist()


def test_a_token_across_the_border_is_the_replys(with_bos: HfTokens) -> None:
    found = encoded(reply("in th", "e sun"), with_bos)
    assert scored_pieces(found, with_bos) == ["the", "Ġs", "un"]
    # tokenized apart, another reply would have been scored: the trap of lm-evaluation-harness
    apart = [with_bos("e sun", special=False, parse_special=False)[0]]
    assert apart[0] != found.ids[found.scored + 1].tolist()


def test_a_border_between_tokens(with_bos: HfTokens) -> None:
    found = encoded(reply("in the", " sun"), with_bos)
    assert scored_pieces(found, with_bos) == ["Ġs", "un"]
    assert (found.scored.tolist(), found.bytes_scored) == ([3, 4], 4)


def test_an_empty_prompt(with_bos: HfTokens, without_bos: HfTokens) -> None:
    assert scored_pieces(encoded(reply("", "the ox"), with_bos), with_bos) == ["the", "Ġ", "ox"]
    assert scored_pieces(encoded(reply("", "the ox"), without_bos), without_bos) == ["Ġ", "ox"]


# --- bytes


@pytest.mark.parametrize(
    "said",
    ["naïve", f"a{EMOJI}b", f"{EMOJI}{EMOJI}", "日本語 the", "é", "\u0301x", "a\r\n\tb  ", " the"],
)
def test_bytes_of_a_whole_text_are_its_utf8(with_bos: HfTokens, said: str) -> None:
    found = encoded(text(said), with_bos)
    assert found.bytes_scored == len(said.encode())
    assert len(found.scored) == len(found.ids) - 1


@pytest.mark.parametrize("border", range(8))
def test_bytes_of_a_reply_are_its_own(with_bos: HfTokens, border: int) -> None:
    said = f"né{EMOJI}日x é{EMOJI}"
    found = encoded(reply(said[:border], said[border:]), with_bos)
    assert found.bytes_scored == len(said[border:].encode())
    assert len(found.scored) == found.bytes_scored, "no merges here: a token is a byte"


@pytest.mark.parametrize("trim", [False, True], ids=["whole offsets", "trimmed offsets"])
@pytest.mark.parametrize(
    ("prompt", "said"),
    [("the", "  fox"), ("the ", "\n\n fox "), ("the fox", " "), ("", " fox"), (" ", "fox  ")],
)
def test_offsets_that_leave_blanks_out(
    with_bos: HfTokens, tmp_path: Path, trim: bool, prompt: str, said: str
) -> None:
    # GPT-NeoX's and others' post-processors trim a token's blanks from its offsets
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": trim,
        "use_regex": True,
    }
    other = tokens_of(with_bos, tmp_path, post_processor=level)
    whole = other(prompt + said, special=True, parse_special=False)[0]
    kept = other(prompt, special=True, parse_special=False)[0]
    assert whole[: len(kept)] == kept, "the border lies between two tokens"
    found = encoded(reply(prompt, said), other)
    first = max(1, len(kept))
    assert found.scored.tolist() == list(range(first - 1, len(whole) - 1))
    missing = 0 if kept else len(other.tokenizer.decode(whole[:1]))
    assert found.bytes_scored == len(said) - missing


def test_metaspace_tokens(stories: HfTokens) -> None:
    found = encoded(text("Once upon a time"), stories)
    assert scored_pieces(found, stories) == ["▁Once", "▁upon", "▁a", "▁time"]
    assert found.bytes_scored == 16  # the blank that the tokenizer prepends is not the text's
    part = encoded(reply("Once upon", " a time"), stories)
    assert scored_pieces(part, stories) == ["▁a", "▁time"]
    assert part.bytes_scored == 7
    said = f"né {EMOJI} 日"
    assert encoded(text(said), stories).bytes_scored == len(said.encode())
    for border in range(len(said)):
        found = encoded(reply(said[:border], said[border:]), stories)
        assert found.bytes_scored >= len(said[border:].encode())


# --- length


@pytest.mark.parametrize("limit", [2, 3, 4, 5])
def test_cutting_keeps_the_first_tokens(with_bos: HfTokens, limit: int) -> None:
    whole = encoded(text("the fox"), with_bos)  # five tokens
    found = encoded(text("the fox"), with_bos, limit, cut=True)
    assert found.ids.tolist() == whole.ids[:limit].tolist()
    assert found.truncated == 5 - limit
    assert found.scored.tolist() == list(range(limit - 1))
    assert found.bytes_scored == (3, 4, 5, 7)[limit - 2]
    assert found.probe == limit - 1


def test_a_long_text_is_refused_unless_it_may_be_cut(with_bos: HfTokens) -> None:
    with pytest.raises(InputError) as error:
        encoded(text("the fox"), with_bos, 4)
    assert error.value.message == "Item 'a' has 5 tokens; at most 4 fit."
    assert "--allow-truncation" in error.value.hint
    assert encoded(text("the fox"), with_bos, 5).truncated == 0


@pytest.mark.parametrize(
    ("item", "limit"),
    [
        (text(""), None),
        (text("the fox"), 1),
        (reply("the fox", ""), None),
        (reply("the fox", " sleeps"), 5),
        (reply("", ""), None),
    ],
)
def test_an_item_without_a_scored_position_is_refused(
    with_bos: HfTokens, item: Item, limit: int | None
) -> None:
    with pytest.raises(InputError, match=r"Item 'a' has no scored position: \d tokens?, none of"):
        encoded(item, with_bos, limit, cut=True)


def test_one_token_without_bos_cannot_be_scored(without_bos: HfTokens) -> None:
    for said in ("the", ""):
        with pytest.raises(InputError, match="has no scored position"):
            encoded(text(said), without_bos)


def test_one_token_after_bos_can(with_bos: HfTokens) -> None:
    found = encoded(text("the"), with_bos)
    assert (found.scored.tolist(), found.probe, found.bytes_scored) == ([0], 1, 3)


# --- messages


def test_of_messages_the_last_is_scored(with_bos: HfTokens) -> None:
    found = encoded(talk("the fox", "in the sun"), with_bos)
    assert found.ids[0] == with_bos.bos
    # the template's EOS ends the reply, so it is scored with it
    assert "".join(scored_pieces(found, with_bos)).replace("Ġ", " ") == "in the sun</s>"
    assert found.bytes_scored == len("in the sun</s>")
    assert found.probe == found.scored[0]


def test_special_tokens_inside_a_message_are_refused(with_bos: HfTokens) -> None:
    for contents in (("a </s> b", "c"), ("a", "b<s>")):
        with pytest.raises(InputError, match=r"the special token '(<s>|</s>)' inside a"):
            encoded(talk(*contents), with_bos)


def test_every_special_token_counts_not_only_the_named_ones(
    with_bos: HfTokens, tmp_path: Path
) -> None:
    # a control token that tokenizer_config.json does not name is parsed all the same
    raw = Tokenizer.from_str(with_bos.serialised)
    raw.add_special_tokens(["<|turn|>"])
    factory.tiny_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(raw.to_str())
    tokens = HfTokens(tmp_path)
    parsed, _ = tokens("a<|turn|>", special=False, parse_special=True)
    assert len(parsed) == 2, "or this tests nothing"
    with pytest.raises(InputError, match=r"special token '<\|turn\|>' inside a message"):
        encoded(talk("a <|turn|> b", "c"), tokens)
    assert len(encoded(text("a<|turn|>"), tokens).ids) > 5


# --- two tokenizers


def bytes_of(item: Item, both: tuple[HfTokens, HfTokens]) -> tuple[Encoded, Encoded]:
    sides = encode_bytes(item, both, never, None)
    for side in sides:
        assert (side.scored >= 0).all()
        assert (side.scored < len(side.ids) - 1).all()
    assert sides[0].bytes_scored == sides[1].bytes_scored
    return sides


def test_both_sides_start_at_the_same_byte(with_bos: HfTokens, without_bos: HfTokens) -> None:
    base, tuned = bytes_of(text("the fox"), (with_bos, without_bos))
    assert scored_pieces(base, with_bos) == scored_pieces(tuned, without_bos) == ["Ġ", "f", "ox"]
    assert base.bytes_scored == 4


def test_a_character_of_several_tokens_is_scored_whole_or_not(
    with_bos: HfTokens, without_bos: HfTokens
) -> None:
    # without BOS the first quarter of the emoji is context: the whole emoji must be, on both sides
    base, tuned = bytes_of(text(f"{EMOJI}ab"), (with_bos, without_bos))
    assert scored_pieces(base, with_bos) == scored_pieces(tuned, without_bos) == ["a", "b"]
    assert base.bytes_scored == 2
    with pytest.raises(InputError, match="no character at which both tokenizers start"):
        encode_bytes(text(EMOJI), (with_bos, without_bos), never, None)


def test_blanks_left_out_of_offsets_do_not_move_the_start(
    with_bos: HfTokens, tmp_path: Path
) -> None:
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    trimmed = tokens_of(with_bos, tmp_path, post_processor=level)
    base, tuned = bytes_of(text("the the ox"), (with_bos, trimmed))
    assert scored_pieces(base, with_bos) == scored_pieces(tuned, trimmed) == ["Ġ", "the", "Ġ", "ox"]
    assert base.bytes_scored == 7


def test_a_limit_holds_for_both_sides(with_bos: HfTokens, without_bos: HfTokens) -> None:
    for both in ((with_bos, without_bos), (without_bos, with_bos)):
        with pytest.raises(InputError, match="has 5 tokens; at most 4 fit"):
            encode_bytes(text("the fox"), both, never, 4)


def test_bits_per_byte_of_two_unrelated_models(shared: Path) -> None:
    folders = [shared / "models" / name for name in ("stories260K", "aidreams260K")]
    with pytest.raises(PairError) as error:
        open_pair(*folders, device="cpu")
    assert "--bits-per-byte-only" in error.value.hint
    pair = open_pair(*folders, device="cpu", bits_per_byte_only=True)
    assert pair.offers == {"nll"}
    items = [
        text("Once upon a time, there was a little girl named Lily."),
        reply("One day a big dog", f" saw the naïve {EMOJI} in the park."),
    ]
    found = list(pair.score(pair.encode(items, None, False)))
    for item, scores in zip(items, found, strict=True):
        start = 0 if item.prompt is None else len(item.prompt)
        assert scores.bytes_scored == len(item.shown[start:].encode())
        for folder, nll in zip(folders, (scores.nll_base, scores.nll_tuned), strict=True):
            assert math.fsum(nll) == pytest.approx(direct_nll(folder, item.shown, start), rel=1e-5)
        assert len(scores.kl_base_tuned) == 0
    with pytest.raises(PairError, match="does not go with --bits-per-byte-only"):
        pair.encode(items, 10, True)
    floor = pair.noise_floor(pair.encode(items, None, False))
    assert set(floor) == {"bits_per_byte_base", "bits_per_byte_tuned"}
    assert all(0 < value < 1e-5 for value in floor.values())


def direct_nll(folder: Path, said: str, start: int) -> float:
    """ΣNLL of the characters from ``start`` on, by transformers in float64."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    batch = tokenizer(said, return_tensors="pt", return_offsets_mapping=True)
    offsets = batch.pop("offset_mapping")[0]
    with torch.inference_mode():
        log_p = model(**batch).logits[0].log_softmax(1)
    ids = batch["input_ids"][0]
    nll = -log_p[:-1].gather(1, ids[1:, None])[:, 0]
    return float(nll[offsets[1:, 0] >= start].sum())


# --- which tokenizers are equal


def test_equal_tokenizers_in_other_words(with_bos: HfTokens) -> None:
    raw = Tokenizer.from_str(with_bos.serialised)
    raw.enable_padding(length=7)
    raw.enable_truncation(5)
    ours, theirs = (encoding.tokenizer_identity(x) for x in (with_bos.serialised, raw.to_str()))
    assert encoding.tokenizer_differences(ours, theirs) == []


def test_each_difference_has_its_name(with_bos: HfTokens, without_bos: HfTokens) -> None:
    def differences(change: str) -> list[str]:
        raw = Tokenizer.from_str(with_bos.serialised)
        if change == "added":
            raw.add_tokens(["<more>"])
        elif change == "special":
            whole = json.loads(raw.to_str())
            whole["added_tokens"][1]["content"] = "<end>"
            return between(with_bos.serialised, json.dumps(whole))
        return between(with_bos.serialised, raw.to_str())

    def between(ours: str, theirs: str) -> list[str]:
        return encoding.tokenizer_differences(
            encoding.tokenizer_identity(ours), encoding.tokenizer_identity(theirs)
        )

    assert differences("added") == ["added_tokens"]
    assert differences("special") == ["special_tokens"]
    assert between(with_bos.serialised, without_bos.serialised) == ["post_processor"]
    lost = json.loads(with_bos.serialised)
    lost["model"]["merges"].pop()
    assert between(with_bos.serialised, json.dumps(lost)) == ["model"]


def test_spans_are_what_was_tokenized(with_bos: HfTokens) -> None:
    found = spans(reply("the", " fox"), with_bos, never)
    assert isinstance(found, Spans)
    assert (found.text, found.context) == ("the fox", 3)
    assert found.scorable.tolist() == [False, False, True, True, True]
    assert np.diff(found.offsets[1:], axis=1).min() > 0


def test_a_token_is_shown_as_it_reads_behind_another(stories: HfTokens, with_bos: HfTokens) -> None:
    ids, _ = stories("Once upon", special=False, parse_special=False)
    assert [stories.text_of(i) for i in ids] == [" Once", " upon"]
    ids, _ = with_bos("the sun", special=False, parse_special=False)
    assert [with_bos.text_of(i) for i in ids] == ["the", " s", "un"]
