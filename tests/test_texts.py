"""Do the measures of one reply say what docs/definitions.md says, whatever the reply is?"""

from __future__ import annotations

import math
import pickle
import re
import time
from collections.abc import Callable
from itertools import combinations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tunediff.measures import ALL, CHOICES, OPENINGS, REPLIES, SAMPLES, TOKENS
from tunediff.measures.consistency import consistency
from tunediff.measures.coverage import keyword_coverage
from tunediff.measures.format import asks_code, asks_list, gives_code, gives_json, gives_list
from tunediff.measures.language import language_kept
from tunediff.measures.pairs import both_sides
from tunediff.measures.repetition import (
    DEGENERATE,
    REPETITION,
    degenerate,
    distinct,
    longest_repeated_span,
    repetition,
)
from tunediff.measures.specificity import code_spans, names, numbers
from tunediff.measures.text import asked, dominant_script, reference, units
from tunediff.values import Constraint, Item, Observation, Reply

BY_NAME = {m.name: m for m in ALL}
ASKED = Item("a", prompt="Describe the river in one word.", reply="Wide")
# few letters make many repeats; the last two are a lone surrogate and a control character
FEW = st.lists(st.sampled_from("ab"), max_size=40).map(" ".join)
ANY = st.text(alphabet=st.characters(), max_size=80) | st.text(
    "ab \n`*#=-1,.$/\ud800\x1b", max_size=80
)


def test_the_measures_are_named_once_and_none_is_missing() -> None:
    assert [m.name for m in REPLIES] == [
        "words",
        "tokens",
        "keyword_coverage",
        "specificity",
        "specificity_numbers",
        "specificity_names",
        "specificity_code",
        "instruction_adherence",
        "format_list",
        "format_code",
        "format_json",
        "repetition",
        "longest_repeated_span",
        "distinct_1",
        "distinct_2",
        "distinct_3",
        "degenerate",
        "language_kept",
        "exact_match",
        "refused",
        "refused_by_words",
        "over_refusal",
        "over_refusal_by_words",
        "refusal_disagreement",
    ]
    assert ALL == (*TOKENS, *REPLIES, *SAMPLES, *CHOICES, *OPENINGS)
    assert len(BY_NAME) == len(ALL)
    assert {m.needs for m in REPLIES} == {("replies",)}
    assert {m.needs for m in SAMPLES} == {("samples",)}
    assert {m.needs for m in CHOICES} == {("choices",)}


def test_directions_and_margins_are_those_stated_before_the_run() -> None:
    ours = (*REPLIES, *SAMPLES, *CHOICES)
    assert {m.name: m.direction for m in ours if m.direction} == {
        "instruction_adherence": 1,
        "format_list": 1,
        "format_code": 1,
        "format_json": 1,
        "repetition": -1,
        "longest_repeated_span": -1,
        "degenerate": -1,
        "language_kept": 1,
        "exact_match": 1,
        "refused": 1,
        "refused_by_words": 1,
        "over_refusal": -1,
        "over_refusal_by_words": -1,
        "choice_accuracy": 1,
        "choice_accuracy_normalised": 1,
        "choice_logprob": 1,
        "choice_brier": -1,
    }
    shares = {m.name: m.margin for m in ours if m.unit == "share"}
    # two scorers that disagree say nothing of a model, so that nothing is too much
    assert shares.pop("refusal_disagreement") is None
    assert set(shares.values()) == {0.02}
    assert REPETITION.margin == 0.02
    assert DEGENERATE.direction == -1


def test_measures_can_be_sent_to_another_process() -> None:
    for measure in ALL:
        assert pickle.loads(pickle.dumps(measure)).name == measure.name


# both sides


def test_the_effect_is_tuned_minus_base() -> None:
    observe = both_sides(lambda item, reply: float(len(reply)))
    assert observe(ASKED, "abc", "a") == Observation(3.0, 1.0, -2.0, 1)


@pytest.mark.parametrize(
    ("base", "tuned", "reason"),
    [
        ("", "x", "Base side: no text."),
        ("x", "", "Tuned side: no text."),
        ("", "", "No text."),
        ("", "?", "Base side: no text. Tuned side: odd."),
    ],
)
def test_a_reason_names_the_side_that_has_no_figure(base: str, tuned: str, reason: str) -> None:
    def of_one(item: Item, text: str) -> float | str:
        return {"": "No text.", "?": "Odd."}.get(text, 1.0)

    assert both_sides(of_one)(ASKED, base, tuned) == Observation(None, None, None, 0, reason)


# length, coverage, specificity


def test_lengths_count_words_and_ids() -> None:
    base, tuned = Reply("one  two\nthree", ids=(5, 6, 7, 8)), Reply("", ids=())
    assert BY_NAME["words"].function(ASKED, base, tuned) == Observation(3.0, 0.0, -3.0, 1)
    assert BY_NAME["tokens"].function(ASKED, base, tuned) == Observation(4.0, 0.0, -4.0, 1)


def test_recorded_text_has_no_tokens() -> None:
    seen = BY_NAME["tokens"].function(ASKED, Reply("a", ids=(1,)), Reply("a"))
    assert seen.effect_sum is None
    assert seen.reason == "Tuned side: only the text of the reply is known, not its tokens."


@pytest.mark.parametrize(
    ("prompt", "reply", "share"),
    [
        ("Tell me about the Deep sea, the sea bed", "the deep BED tells", 1 / 3),
        ("Tell me about rivers", "tell me ABOUT Rivers.", 1.0),  # an echo has it all
        ("Name four words", "", 0.0),
        ("word2vec and café tables", "word tables caf", 2 / 2),  # [A-Za-z]+ cuts both
    ],
)
def test_keyword_coverage_by_hand(prompt: str, reply: str, share: float) -> None:
    assert keyword_coverage(Item("a", prompt=prompt), Reply(reply)) == share


def test_no_keyword_is_null_where_the_seed_has_zero() -> None:
    seen = BY_NAME["keyword_coverage"].function(Item("a", prompt="Is it so?"), Reply(""), Reply(""))
    assert seen.reason == "The prompt has no word of more than three letters."


def test_messages_have_a_prompt_and_a_reference() -> None:
    turns = ({"role": "user", "content": "Name fish"}, {"role": "assistant", "content": "cod"})
    item = Item("a", messages=turns)
    assert (asked(item), reference(item)) == ("Name fish", "cod")
    assert (asked(Item("a", text="t")), reference(Item("a", text="t"))) == ("", None)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("It has 3 legs, 1,234.50 hairs and left at 12:30.", (3, 0, 0)),
        ("We met Anna Berg in New York. Then he left with Tom.", (0, 3, 0)),
        ("The cat. I'm sure I saw it:\nDogs too.", (0, 0, 0)),
        ("Call `f(1)` and\n```\nx = 2\ny = Paris\n```\nthen 4", (1, 0, 2)),
        ("so ``` never closed 5 Rome", (0, 0, 1)),
        ("", (0, 0, 0)),
    ],
)
def test_the_parts_of_specificity_by_hand(text: str, parts: tuple[int, int, int]) -> None:
    assert (numbers(text), names(text), code_spans(text)) == parts
    if text:
        seen = [BY_NAME[n].function(ASKED, Reply(text), Reply("x")).base_sum or 0.0 for n in PARTS]
        assert seen[0] == pytest.approx(sum(parts) / len(text.split()))
        assert seen[0] == pytest.approx(sum(seen[1:]))


PARTS = ("specificity", "specificity_numbers", "specificity_names", "specificity_code")


# repetition


def slow_repetition(words: list[str], n: int) -> float:
    inside = [False] * len(words)
    for i in range(len(words) - n + 1):
        if any(words[j : j + n] == words[i : i + n] for j in range(i)):
            inside[i : i + n] = [True] * n
    return sum(inside) / len(words)


def slow_longest(words: list[str]) -> int:
    spans = [
        length
        for i, j in combinations(range(len(words)), 2)
        for length in range(1, len(words) - j + 1)
        if words[i : i + length] == words[j : j + length]
    ]
    return max(spans, default=0)


def slow_loop(text: str) -> bool:
    """Every block length, compared character by character from the end."""
    for period in range(1, len(text) // 3 + 1):
        length = period
        while length < len(text) and text[-1 - length] == text[-1 - length + period]:
            length += 1
        if length >= 3 * period and length >= 50:
            return True
        if length >= 10 * period and length >= 30 and text[len(text) - period :].strip(" -"):
            return True
    return False


@given(FEW)
@settings(deadline=None)
def test_repetition_equals_a_slow_count(text: str) -> None:
    words = text.split()
    if not words:
        assert isinstance(repetition(ASKED, Reply(text)), str)
        return
    assert repetition(ASKED, Reply(text)) == slow_repetition(words, 4)
    assert longest_repeated_span(ASKED, Reply(text)) == slow_longest(words)
    for n in (1, 2, 3):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        if grams:
            assert distinct(n, ASKED, Reply(text)) == len(set(grams)) / len(grams)
        else:
            assert distinct(n, ASKED, Reply(text)) == f"The reply has fewer than {n} words."


@given(st.lists(st.sampled_from(["一", "二", "三"]), min_size=1, max_size=50).map("".join))
@settings(deadline=None)
def test_text_without_spaces_is_counted_in_characters(text: str) -> None:
    assert units(text) == (list(text), 8)
    assert repetition(ASKED, Reply(text)) == slow_repetition(list(text), 8)
    assert longest_repeated_span(ASKED, Reply(text)) == slow_longest(list(text))


def test_a_rule_of_dashes_is_no_loop_and_a_short_one_of_words_is() -> None:
    assert degenerate(ASKED, Reply("A list\n" + "-" * 40)) == 0
    assert degenerate(ASKED, Reply("Class is" + " 10 x" * 10)) == 1
    assert degenerate(ASKED, Reply("drum " * 8)) == 0


@given(
    st.text("xyz", max_size=9),
    st.text("ab -", min_size=1, max_size=30),
    st.integers(0, 12),
    st.text("ab", max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_a_loop_is_found_as_by_a_slow_search(
    before: str, block: str, copies: int, after: str
) -> None:
    text = before + block * copies + after
    assert degenerate(ASKED, Reply(text)) == slow_loop(text)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("a a a a a", 4 / 5),
        ("a b c d", 0.0),
        ("a b c d x a b c d", 4 / 9),
        ("one two three four five", 0.0),
    ],
)
def test_repetition_by_hand(text: str, share: float) -> None:
    assert repetition(ASKED, Reply(text)) == share


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        ("Once upon a time " + "the cat sat on the mat. " * 3, 1.0),
        ("Once upon a time " + "the cat sat on the mat. " * 3 + "the cat s", 1.0),
        ("Once upon a time " + "the cat sat on the mat. " * 3 + "The end.", 0.0),
        ("the cat sat on the mat. " * 2, 0.0),
        ("ha ha ha", 0.0),
        ("!" * 49, 0.0),
        ("!" * 50, 1.0),
        ("很好。" * 20, 1.0),
        ("", 0.0),
    ],
)
def test_loops_by_hand(text: str, loop: float) -> None:
    assert degenerate(ASKED, Reply(text)) == loop


def test_a_reply_of_no_words_has_no_repetition_but_no_loop_either() -> None:
    for name in ("repetition", "longest_repeated_span", "distinct_1"):
        seen = BY_NAME[name].function(ASKED, Reply("a b"), Reply(" \n"))
        assert seen.reason == "Tuned side: the reply has no words."
    assert DEGENERATE.function(ASKED, Reply("a"), Reply("")).effect_sum == 0.0


# consistency, language, format


def test_consistency_is_the_mean_over_all_pairs() -> None:
    texts = ["the red fox", "The Red dog", "blue"]
    sets = [set(text.lower().split()) for text in texts]
    pairs = [(0, 1), (0, 2), (1, 2)]
    by_hand = sum(len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i, j in pairs) / 3
    seen = consistency(ASKED, [Reply(text) for text in texts])
    assert seen == pytest.approx(by_hand)
    assert seen == pytest.approx((2 / 4) / 3)


@pytest.mark.parametrize(
    ("texts", "share"),
    [(["", ""], 1.0), (["a b", "b a a"], 1.0), (["a", ""], 0.0), (["天地人", "天地山"], 1 / 3)],
)
def test_consistency_of_odd_replies(texts: list[str], share: float) -> None:
    assert consistency(ASKED, [Reply(text) for text in texts]) == pytest.approx(share)


def test_one_sample_says_nothing_of_consistency() -> None:
    (measure,) = SAMPLES
    seen = measure.function(ASKED, [Reply("a")], [Reply("a"), Reply("b")])
    assert seen.reason == "Base side: consistency needs at least two samples of one prompt."


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello мир", "LATIN"),
        ("Привет, world!", "CYRILLIC"),
        ("天地玄黄", "CJK"),
        ("東京は日本の首都", "KANA"),
        ("안녕", "HANGUL"),
        ("𝐁𝐨𝐥𝐝 Ｆｕｌｌ", "LATIN"),
        ("`print(x)` да", "CYRILLIC"),
        ("12 + 3!", None),
        ("", None),
    ],
)
def test_the_script_of_most_letters(text: str, script: str | None) -> None:
    assert dominant_script(text) == script


def test_language_is_kept_or_lost_or_not_asked_for() -> None:
    russian = Item("a", prompt="Расскажи о реке")
    assert language_kept(russian, Reply("Река широкая")) == 1.0
    assert language_kept(russian, Reply("The river is wide")) == 0.0
    assert language_kept(russian, Reply("12")) == "The reply has no letters."
    assert language_kept(Item("a", prompt="1 + 1"), Reply("two")) == "The prompt has no letters."
    for prompt in ("Translate: good day", "Say hello in Greek."):
        assert "names a language" in str(language_kept(Item("a", prompt=prompt), Reply("Γεια")))
    named = (Constraint("language:response_language", {"language": "th"}),)
    assert isinstance(language_kept(Item("a", prompt="Hi", constraints=named), Reply("x")), str)


@pytest.mark.parametrize(
    ("asks", "yes", "no"),
    [
        (asks_list, "Give me a list of rivers.", "Who is on the guest list?"),
        (asks_list, "List three rivers.", "Tell me of a river."),
        (asks_list, "Explain tides in bullet points.", "What does the bullet train cost?"),
        (asks_code, "Write a Python function that adds.", "Write a story about a python."),
        (asks_code, "Create a script in Bash that waits.", "Create a training program for cats."),
        (gives_list, "Sure:\n- one\n- two", "one, two - three"),
        (gives_list, "1. one\n2) two", "1. one only"),
        (gives_code, "```\nx\n```", "no code"),
        (gives_code, "def f(x):\n    return x", "define f of x"),
        (gives_json, '{"a": 1}', "{a: 1}"),
        (gives_json, 'Here:\n```json\n{"a": [1]}\n```', "5"),
        (gives_json, 'Here it is: {"a": 1} done', "[" * 5000),
    ],
)
def test_forms_asked_for_and_given(asks: Callable[[str], bool], yes: str, no: str) -> None:
    assert asks(yes)
    assert not asks(no)


def test_a_form_that_was_not_asked_for_is_null() -> None:
    item = Item("a", prompt="Give me a list of rivers as JSON.")
    base, tuned = Reply("Nile, Rhine"), Reply('["Nile", "Rhine"]')
    assert BY_NAME["format_json"].function(item, base, tuned).effect_sum == 1.0
    assert BY_NAME["format_list"].function(item, base, tuned).effect_sum == 0.0
    seen = BY_NAME["format_code"].function(item, base, tuned)
    assert (seen.effect_sum, seen.reason) == (None, "The prompt does not ask for code.")


# whatever a model writes is data


@given(prompt=ANY, right=ANY, base=ANY, tuned=ANY)
@example("", "", "", "")
@example("\ud800 in JSON", "#### \udfff", "\x1b[31m\x00", "\ud800" * 60)
@settings(max_examples=300, deadline=None)
def test_no_text_makes_a_measure_raise(prompt: str, right: str, base: str, tuned: str) -> None:
    items = (
        Item("a", prompt=prompt, reply=right),
        Item("b", prompt=prompt, choices=(right, "x"), answer=0),
    )
    for item in items:
        for measure in (*REPLIES, *SAMPLES):
            a, b = Reply(base, ids=(1, 2)), Reply(tuned, ids=())
            sides = ([a, b], [b, a]) if measure.needs == ("samples",) else (a, b)
            seen = measure.function(item, *sides)
            assert seen.reason is None or re.match(r"[A-Z].*\.\Z", seen.reason), seen
            assert (seen.effect_sum is None) == (seen.reason is not None)
            if seen.effect_sum is not None:
                assert seen.base_sum is not None
                assert seen.tuned_sum is not None
                assert math.isfinite(seen.effect_sum)
                assert seen.effect_sum == seen.tuned_sum - seen.base_sum
                assert seen.count >= 1
                swapped = measure.function(item, *reversed(sides))
                assert swapped.effect_sum == -seen.effect_sum
                if measure.unit == "share":
                    assert 0 <= seen.base_sum <= seen.count


HUGE = {
    "one letter": "a",
    "words": "the cat sat. ",
    "line ends": "\n",
    "blank lines": "\n \n",
    "commas": ",234",
    "fractions": "1/",
    "marks": "the answer is ",
    "colons": "\nA:",
    "questions": "x\nQ",
    "fences": "```\n",
    "ticks": "`a",
    "braces": '{"a":',
    "brackets": "[",
    "stars": "*a ",
    "stops": ".",
    "quoted": '!"',
    "names": "Ab ",
    "Han": "中",
    "surrogates": "\ud800",
}


@pytest.mark.parametrize("part", HUGE.values(), ids=HUGE)
def test_a_huge_reply_or_prompt_does_not_hang(part: str) -> None:
    text = (part * (150_000 // len(part) + 1))[:150_000] + "x"
    began = time.process_time()
    for item, reply in ((ASKED, Reply(text)), (Item("a", prompt=text, reply=text), Reply("1"))):
        for measure in REPLIES:
            measure.function(item, reply, Reply("x"))
    # linear: a second or two; one quadratic pattern: minutes
    assert time.process_time() - began < 20
