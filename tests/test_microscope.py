"""Is every token shown with its own numbers and candidates, and are the worst spans the worst?"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import factory
import oracle
from comparison import AnsweringPair, asked, small_comparison
from faults import Disk, FakePair, Killed, contents, small_run, texts
from tunediff.errors import InputError, PairError, UsageError
from tunediff.findings import microscope
from tunediff.findings.microscope import Microscope, Reading, common_start, segments
from tunediff.pair.hf import HfPair
from tunediff.pair.hf_load import HfTokens
from tunediff.pair.open import open_pair
from tunediff.pair.toy import ToyPair
from tunediff.run import looking
from tunediff.run.comparing import compare
from tunediff.run.measuring import measure
from tunediff.run.store import Run
from tunediff.scoring import head
from tunediff.values import Candidates, Encoded, Generation, Item, Reply, Suite

SHORT = Generation(max_new_tokens=7)
ITEMS = (
    Item("emoji", prompt="the fox sees 👩‍👩‍👧 and é", reply=" 日本 owls e\u0301"),
    Item("plain", prompt="the quick brown fox", reply=" jumps over"),
    Item("alone", prompt="over a lazy dog and"),
    Item("text", text="then it sleeps in warm sun"),
)


def suite(*items: Item, name: str = "asked") -> Suite:
    return Suite(name, items, "h" * 64)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    base = factory.tiny_model(root / "base", layers=2)
    return base, factory.lora_adapter(root / "lora", base, scale=0.3)


def compared(folders: tuple[Path, Path], out: Path) -> Run:
    pair = open_pair(*folders, device="cpu")
    return compare(pair, [suite(*ITEMS)], out=out, generation=SHORT)


@pytest.fixture(scope="module")
def run(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return compared(folders, tmp_path_factory.mktemp("compared") / "run")


# every number beside its own token


def hold_against_float64(run: Run, folders: tuple[Path, Path]) -> int:
    """Every reading of a run against the network worked out in float64; how many tokens."""
    base, adapter = folders
    seen = 0
    for reading in Microscope.of(run).readings():
        ids = [token.id for token in reading.tokens]
        z = [oracle.llama_logits(base, ids, tuned) for tuned in (None, adapter)]
        p, q = (np.exp(side - np.logaddexp.reduce(side, axis=1)[:, None]) for side in z)
        wanted = oracle.token_metrics(z[0][:-1], z[1][:-1], np.array(ids[1:]))
        for at, token in enumerate(reading.tokens):
            if not token.scored:
                assert token.nll_base is token.kl is token.base is None
                continue
            for name in ("nll_base", "nll_tuned", "kl_base_tuned", "delta_p"):
                value = token.kl if name == "kl_base_tuned" else getattr(token, name)
                assert value == pytest.approx(wanted[name][at - 1], rel=2e-3, abs=2e-5)
            assert token.delta_logp == pytest.approx(
                math.log(q[at - 1, ids[at]] / p[at - 1, ids[at]]), abs=1e-3
            )
            for candidates, side in ((token.base, p), (token.tuned, q)):
                assert candidates is not None
                order = np.argsort(-side[at - 1], kind="stable")[:5]
                shares = [c.p for c in candidates]
                np.testing.assert_allclose(shares, side[at - 1, order], rtol=2e-3)
                own = [side[at - 1, c.token] for c in candidates]
                np.testing.assert_allclose(shares, own, rtol=2e-3)
            seen += 1
    return seen


def test_every_token_has_the_numbers_of_its_own_position(
    run: Run, folders: tuple[Path, Path]
) -> None:
    seen = hold_against_float64(run, folders)
    assert seen == len(run.tokens(replies=True)["item"]) > 60


def test_candidates_of_another_position_are_found_out(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = head.candidates

    def shifted(streams: Any, items: Any, wanted: Any, h_b: Any, h_t: Any, **more: Any) -> Any:
        return real(streams, items, wanted, h_b.roll(1, 0), h_t.roll(1, 0), **more)

    monkeypatch.setattr(head, "candidates", shifted)
    with pytest.raises(AssertionError):
        hold_against_float64(compared(folders, tmp_path / "run"), folders)


def hold_texts(run: Run, pair: HfPair) -> None:
    """Every text as the tokenizer reads it, and each scored token as its own bytes."""
    decode = pair.tokens.tokenizer.decode
    for reading in Microscope.of(run).readings():
        ids = [token.id for token in reading.tokens]
        assert reading.text == decode(ids)
        item = next(i for i in ITEMS if i.id == reading.item)
        if reading.of == "reference":
            assert reading.text == "<s>" + item.shown
        if item.prompt is not None:
            assert reading.prompt == "<s>" + item.prompt
        for tokens in reading.characters:  # of one character: together they read as it
            text = "".join(token.text for token in tokens)
            assert text == tokens[-1].text == decode([token.id for token in tokens])
        rows = run.tokens(replies=True)
        of = (rows["item"] == reading.item) & (rows["of"] == reading.of)
        scored = [token.id for token in reading.tokens if token.scored]
        assert scored == rows["token"][of].tolist()


def test_every_text_reads_as_it_was_read(run: Run, folders: tuple[Path, Path]) -> None:
    hold_texts(run, open_pair(*folders, device="cpu"))  # type: ignore[arg-type]


def test_a_text_shifted_by_one_token_is_found_out(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = HfPair.pieces

    def shifted(self: HfPair, ids: Sequence[int]) -> list[str]:
        found = real(self, ids)
        return [*found[1:], found[0]]

    monkeypatch.setattr(HfPair, "pieces", shifted)
    pair = open_pair(*folders, device="cpu")
    with pytest.raises(AssertionError):
        hold_texts(compared(folders, tmp_path / "run"), pair)  # type: ignore[arg-type]


def test_a_sentencepiece_tokenizer_loses_no_blank_and_no_byte(shared: Path) -> None:
    tokens = HfTokens(shared / "models" / "stories260K")
    text = "Once upon  a time 👩‍👧 日本 e\u0301\nThe end"
    ids, _ = tokens(text, special=True, parse_special=False)
    pieces = tokens.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == tokens.tokenizer.decode(ids)
    assert "".join(pieces).removeprefix("<s>").strip() == text
    assert pieces.count("") > 10  # bytes of characters that it has no token for


def test_texts_of_whom(run: Run) -> None:
    scope = Microscope.of(run)
    assert scope.items == tuple(("asked", i.id) for i in ITEMS)
    of: dict[str, set[str]] = {i.id: set() for i in ITEMS}
    for _, item, whose in scope.keys:
        of[item].add(whose)
    every = {"reference", "base", "tuned"}
    assert of == {
        "emoji": every, "plain": every, "alone": {"base", "tuned"}, "text": {"reference"}
    }  # fmt: skip
    assert scope.reading("asked", "alone") is None
    assert scope.reading("asked", "nobody") is None
    said = {line["item"]: line for line in run.replies()}
    for (suite_, item, whose), reading in zip(scope.keys, scope.readings(), strict=True):
        assert (reading.suite, reading.item, reading.of) == (suite_, item, whose)
        scored = [token for token in reading.tokens if token.scored]
        assert reading.count == len(scored)
        assert reading.kl == pytest.approx(sum(t.kl or 0.0 for t in scored))
        if whose != "reference":
            assert [t.id for t in scored] == said[item][whose]["ids"]
    # sums of the rows, which were made from float64
    for row in run.rows():
        whose = {"nll": "reference", "nll_of_base_reply": "base", "nll_of_tuned_reply": "tuned"}
        if row.measure in whose:
            reading = scope.reading(row.suite, row.item, whose[row.measure])  # type: ignore
            assert reading is not None
            assert (reading.nll_base, reading.nll_tuned) == pytest.approx(
                (row.base_sum, row.tuned_sum), rel=1e-6
            )


def test_references_alone_are_what_tokens_were_before(run: Run) -> None:
    tokens = run.tokens()
    assert set(tokens["of"]) == {"reference"}
    assert set(tokens["item"]) == {"emoji", "plain", "text"}
    assert len(run.tokens(replies=True)["of"]) > len(tokens["of"])


def test_first_replies_alone_are_kept(tmp_path: Path) -> None:
    run = small_comparison(tmp_path, samples=3, suites=asked()[:1])
    first = {line["item"]: line for line in run.replies() if line["sample"] == 0}
    for reading in Microscope.of(run).readings():
        if reading.of != "reference":
            said = [token.id for token in reading.tokens if token.scored]
            assert said == first[reading.item][reading.of]["ids"]


# which items are looked at


def looked_at(run: Run) -> set[tuple[str, str]]:
    return set(Microscope.of(run).looked_at)


def test_the_items_of_highest_kl_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "ITEMS", 3)
    run = small_comparison(tmp_path / "run")
    tokens = run.tokens(replies=True)
    means = {}
    for key in set(zip(tokens["suite"], tokens["item"], strict=True)):
        own = (tokens["suite"] == key[0]) & (tokens["item"] == key[1])
        means[key] = math.fsum(tokens["kl_base_tuned"][own].tolist()) / own.sum()
    order = sorted(means, key=lambda key: -means[key])
    scope = Microscope.of(run)
    assert scope.highest(len(order)) == order
    assert scope.looked_at == order[:3]
    named = [order[-1], order[0]]
    more = small_comparison(tmp_path / "more", look=named)
    assert looked_at(more) == {*order[:3], order[-1]}
    # all of an item's texts, at every scored position, five of either side
    for reading in scope.readings():
        looked = (reading.suite, reading.item) in order[:3]
        for token in reading.tokens:
            sides = [token.base, token.tuned]
            assert all(s is not None and len(s) == 5 for s in sides) == (looked and token.scored)
            assert all(s is None for s in sides) == (not (looked and token.scored))


def test_fifty_items_are_looked_at(tmp_path: Path) -> None:
    run = small_comparison(tmp_path, suites=[replace(asked(60)[2], name="many")])
    assert len(looked_at(run)) == looking.ITEMS == 50


def test_killed_after_every_operation_it_looks_at_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates in several parts, a fault in each of the operations that make them."""
    monkeypatch.setattr(looking, "ITEMS", 4)
    job: dict[str, Any] = {"suites": asked(3)[:1], "part_tokens": 70, "look": [("sums", "s0")]}
    with Disk() as disk:
        small_comparison(tmp_path / "whole", **job)
    whole = contents(tmp_path / "whole")
    assert len([name for name in whole if name.startswith("candidates")]) > 2
    first = next(k for k, (_, path) in enumerate(disk.trace) if path.endswith("candidates"))
    for k in range(first, len(disk.trace) + 1):
        folder = tmp_path / f"killed-{k}"
        with Disk(kill_at=k), pytest.raises(Killed):
            small_comparison(folder, **job)
        with Disk():
            small_comparison(folder, AnsweringPair(kernel="fast"), **job)
        assert contents(folder) == whole, f"killed after operation {k}, {disk.trace[k - 1]}"


def test_candidates_that_are_lost_are_made_again(tmp_path: Path) -> None:
    small_comparison(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "candidates" / "part-00000.parquet").unlink()
    with pytest.raises(Exception, match="is not finished") as error:
        Run.open(tmp_path)
    assert "Run the same command" in str(error.value.hint)  # type: ignore
    pair = AnsweringPair(kernel="fast")
    small_comparison(tmp_path, pair)
    assert contents(tmp_path) == before
    assert pair.asked == []
    assert pair.answered == []


def test_other_items_to_look_at_are_another_run(tmp_path: Path) -> None:
    small_comparison(tmp_path)
    with pytest.raises(Exception, match="these differ: look"):
        small_comparison(tmp_path, look=[("sums", "s0")])


def test_a_pair_that_mixes_up_candidates_is_an_error(tmp_path: Path) -> None:
    class Mixed(AnsweringPair):
        def candidates(self, items: Sequence[Encoded], count: int) -> Any:
            found: list[Candidates] = list(super().candidates(items, count))
            yield from found[::-1]

    with pytest.raises(PairError, match="was asked for the candidates of item"):
        small_comparison(tmp_path, Mixed())


def test_what_cannot_be_scored_is_not_looked_at(tmp_path: Path) -> None:
    class Added(AnsweringPair):
        def generate(self, prompts: Sequence[Encoded], *rest: Any, **more: Any) -> Any:
            for base, tuned in super().generate(prompts, *rest, **more):
                assert tuned is not None
                yield base, replace(tuned, ids=(*(tuned.ids or ()), 300))

        def continuation(self, prompt: Encoded, reply_ids: Sequence[int]) -> Encoded:
            if max(reply_ids) >= 300:
                raise InputError("The token id 300 is not known to both.", "A hint.")
            return super().continuation(prompt, reply_ids)

    scope = Microscope.of(small_comparison(tmp_path, Added(bad="s1"), suites=asked()[:1]))
    assert {of for _, _, of in scope.keys} == {"reference", "base"}
    assert ("sums", "s1") in scope.items
    assert ("sums", "s1") not in {key[:2] for key in scope.keys}
    # an empty reply has no text, and the item's others are there
    run = small_comparison(tmp_path / "empty", suites=asked()[3:])
    scope = Microscope.of(run)
    assert scope.reading("open", "w1", "base") is None
    assert scope.reading("open", "w2", "base") is not None
    parting = scope.parting("open", "w1")
    assert parting is not None
    assert (parting.part, parting.token, parting.base) == (False, None, "")


def test_a_run_of_check_has_its_texts(tmp_path: Path) -> None:
    small_run(tmp_path)
    scope = Microscope.of(Run.open(tmp_path))
    assert {of for _, _, of in scope.keys} == {"reference"}
    assert scope.looked_at == []
    for item in texts(5).items:
        reading = scope.reading("texts", item.id)
        assert reading is not None
        assert reading.text == item.text
        assert reading.tokens[1].base is None
    bad = measure(FakePair(bad="i2"), texts(), out=tmp_path / "bad")
    assert Microscope.of(bad).reading("texts", "i2") is None
    assert ("texts", "i2") in Microscope.of(bad).items


def test_recorded_replies_have_no_tokens(tmp_path: Path) -> None:
    for name, reply in (("a", "the same start, then"), ("b", "the same start. Then")):
        line = {"id": "x", "prompt": "Say", "reply": reply}
        (tmp_path / name).write_text(json.dumps(line) + "\n")
    pair = open_pair(f"recorded:{tmp_path / 'a'}", f"recorded:{tmp_path / 'b'}")
    run = compare(pair, [suite(*pair.items())], out=tmp_path / "run", generation=SHORT)  # type: ignore
    scope = Microscope.of(run)
    assert scope.keys == ()
    assert scope.worst_spans() == []
    parting = scope.parting("asked", "x")
    assert parting is not None
    assert (parting.part, parting.token) == (True, None)
    assert (parting.common, parting.base, parting.tuned) == ("the same start", ", then", ". Then")


# where replies part


class Said(AnsweringPair):
    """A pair whose replies are given."""

    def __init__(self, base: Reply, tuned: Reply) -> None:
        super().__init__()
        self.said = base, tuned

    def generate(self, prompts: Sequence[Encoded], *_: Any, **__: Any) -> Any:
        for _prompt in prompts:
            yield self.said


def spoken(text: str, stop: Any = "end") -> Reply:
    return Reply(text, tuple(text.encode()), stop)


@pytest.mark.parametrize(
    ("base", "tuned", "token", "common"),
    [
        (spoken("a nice day"), spoken("a night"), 4, "a ni"),
        (spoken("a day"), spoken("a day out"), 5, "a day"),
        (spoken("a day"), spoken("a day"), None, "a day"),
        (spoken("a day"), spoken("a day", "length"), 5, "a day"),  # the other would go on
        (spoken(""), spoken("x"), 0, ""),
        # two characters that begin with the same bytes
        (spoken("日本"), spoken("日末"), 5, "日"),
    ],
)
def test_replies_part_at_the_first_token_that_differs(
    base: Reply, tuned: Reply, token: int | None, common: str, tmp_path: Path
) -> None:
    run = small_comparison(tmp_path, Said(base, tuned), suites=[suite(Item("q", prompt="Say"))])
    parting = Microscope.of(run).parting("asked", "q")
    assert parting is not None
    assert (parting.part, parting.token, parting.common) == (token is not None, token, common)
    assert (common + parting.base, common + parting.tuned) == (base.text, tuned.text)
    assert Microscope.of(run).parting("asked", "other") is None


def test_a_common_start() -> None:
    assert [common_start(*both) for both in (("", "a"), ("ab", "ac"), ("ab", "abc"))] == [0, 1, 2]


# the worst spans


def by_brute_force(texts: Sequence[np.ndarray], count: int) -> list[tuple[int, int, int]]:
    """The definition: of all segments the one of largest sum, then left and right of it."""
    found = []

    def look(text: int, low: int, high: int) -> None:
        every = [
            (-math.fsum(texts[text][a:b]), b, -a)
            for a in range(low, high)
            for b in range(a + 1, high + 1)
        ]
        if every and (best := min(every))[0] < 0:
            start, stop = -best[2], best[1]
            found.append((best[0], text, start, stop))
            look(text, low, start)
            look(text, stop, high)

    for text, scores in enumerate(texts):
        look(text, 0, len(scores))
    return [tuple(rest) for _, *rest in sorted(found)[:count]]  # type: ignore


def test_the_segments_are_those_of_all_segments() -> None:
    generator = np.random.default_rng(5)
    for trial in range(60):
        texts = [
            np.round(generator.normal(-0.3, 1.0, size=generator.integers(0, 12)) * 4) / 4
            for _ in range(trial % 4 + 1)
        ]
        for count in (1, 3, 50):
            assert segments(texts, count) == by_brute_force(texts, count)
    assert segments([np.full(4, -1.0), np.empty(0)], 3) == []


def test_a_segment_that_is_one_too_long_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = microscope._best

    def longer(scores: np.ndarray) -> Any:
        best = real(scores)
        return best and (best[0], best[1], min(best[2] + 1, len(scores)))

    monkeypatch.setattr(microscope, "_best", longer)
    with pytest.raises(AssertionError):
        test_the_segments_are_those_of_all_segments()


def test_worst_spans_say_what_was_summed_and_where(run: Run) -> None:
    scope = Microscope.of(run)
    every = {key: scope.reading(*key) for key in scope.keys}
    tokens = run.tokens(replies=True)
    mean = tokens["kl_base_tuned"].astype(np.float64).mean()
    for by in ("kl", "loss"):
        spans = scope.worst_spans(6, by)  # type: ignore[arg-type]
        assert len(spans) == 6
        surplus = []
        for span in spans:
            reading = every[span.suite, span.item, span.of]
            assert isinstance(reading, Reading)
            own = reading.tokens[span.start : span.stop]
            assert all(token.scored for token in own)
            assert span.kl == pytest.approx(math.fsum(t.kl or 0.0 for t in own))
            assert span.loss == pytest.approx(-math.fsum(t.delta_logp or 0.0 for t in own))
            assert span.text == "".join(t.text for t in own)
            whole = span.before + span.text + span.after
            assert whole in reading.text
            assert len(span.before) <= 60 >= len(span.after)
            surplus.append(span.kl - mean * len(own) if by == "kl" else span.loss)
        assert surplus == sorted(surplus, reverse=True)
        assert surplus[-1] > 0
        for one, other in itertools.combinations(spans, 2):  # none overlap
            apart = one.stop <= other.start or other.stop <= one.start
            assert (one.suite, one.item, one.of) != (other.suite, other.item, other.of) or apart
    (worst,) = scope.worst_spans(1, "kl", "reference")
    assert worst.of == "reference"


def test_a_reply_that_says_the_reference_is_listed_once(tmp_path: Path) -> None:
    same = Said(spoken(" nine"), spoken(" ten"))
    items = suite(Item("q", prompt="Say", reply=" nine"))
    spans = Microscope.of(small_comparison(tmp_path, same, suites=[items])).worst_spans(99)
    assert "reference" in {span.of for span in spans}
    assert "base" not in {span.of for span in spans}


def test_nothing_below_the_noise_floor_is_a_span(tmp_path: Path) -> None:
    run = compare(ToyPair(1e-18), [suite(*ITEMS[:2])], out=tmp_path, generation=None)
    assert Microscope.of(run).worst_spans() == []
    assert Microscope.of(run).worst_spans(by="loss") == []


# naming an item

KNOWN = [("a", "x"), ("a", "y:z"), ("b", "x"), ("b", "harbour")]


def test_an_item_is_found_by_its_id_or_with_its_suite() -> None:
    assert looking.find_item("y:z", KNOWN) == ("a", "y:z")
    assert looking.find_item("a:y:z", KNOWN) == ("a", "y:z")
    assert looking.find_item("b:x", KNOWN) == ("b", "x")
    with pytest.raises(UsageError, match="2 suites have an item 'x': 'a:x', 'b:x'") as error:
        looking.find_item("x", KNOWN)
    assert error.value.hint == "Name one of them, such as a:x."
    with pytest.raises(UsageError, match=r"no item 'harbor'\. Did you mean 'b:harbour'") as error:
        looking.find_item("harbor", KNOWN)
    assert error.value.hint == "The items are 'a:x', 'a:y:z', 'b:x', 'b:harbour'."
    many = [("s", str(k)) for k in range(20)]
    with pytest.raises(UsageError) as error:
        looking.find_item("nothing like it", many)
    assert error.value.hint.endswith("'s:7' and 12 more.")


def test_characters_keep_every_token(run: Run) -> None:
    for reading in Microscope.of(run).readings():
        assert list(itertools.chain(*reading.characters)) == list(reading.tokens)
        assert all(len(tokens) == 1 or tokens[0].text == "" for tokens in reading.characters)
    assert any(len(tokens) > 1 for r in Microscope.of(run).readings() for tokens in r.characters)
