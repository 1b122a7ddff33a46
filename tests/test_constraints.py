"""Are constraints checked as their names say, and found in a prompt only where they are meant?"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tunediff.measures import REPLIES
from tunediff.measures.constraints import CHECKERS, OWN_SCRIPT, count_sentences, met, unchecked
from tunediff.measures.prompted import asks_json, found_in
from tunediff.values import Constraint, Item, Reply

(ADHERENCE,) = (m for m in REPLIES if m.name == "instruction_adherence")
AT_LEAST, LESS = "at least", "less than"

# kind, details, a reply that meets it, one that does not
PAIRS: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "change_case:capital_word_frequency",
        {"capital_relation": LESS, "capital_frequency": 2},
        "One NASA launch",
        "NASA and ESA",
    ),
    ("change_case:english_capital", {}, "ALL GOOD, 2 OF US.", "ALL GOOd"),
    ("change_case:english_capital", {}, "YES", "ДА"),
    ("change_case:english_lowercase", {}, "all good, 2 of us.", "All good"),
    ("change_case:english_lowercase", {}, "x", "123"),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Name a fish."},
        "name a fish.\nCod",
        "Cod. Name a fish.",
    ),
    ("combination:two_responses", {}, "one\n******\ntwo", "one\n******\none"),
    ("combination:two_responses", {}, "******one******two******", "one ****** two ****** three"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] to [b c]", "[a] ["),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. More", "Bye PS"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "a\np. p. s: b", "P.S. b"),
    ("detectable_format:constrained_response", {}, "So: My answer is no.", "My answer is not"),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', 'Here: {"a": 1}'),
    ("detectable_format:json_format", {}, ' [1, "b"] ', "{'a': 1}"),
    ("detectable_format:json_format", {}, "{}", "5"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "PART", "num_sections": 2},
        "PART 1\na\nPART 2\nb",
        "PART 1\na\nPART two",
    ),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n* b\n* c"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "a\n  - b", "**bold** a"),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        "*one* and **two**",
        "*one* and ** **",
    ),
    ("detectable_format:title", {}, "<<Rivers>>\nLong", "<< >> Rivers"),
    ("keywords:existence", {"keywords": ["sun", "Moon"]}, "The moon and SUN", "the sun"),
    ("keywords:existence", {"keywords": ["c++"]}, "use C++", "use c"),
    ("keywords:forbidden_words", {"forbidden_words": ["sun"]}, "Sunday", "the Sun."),
    (
        "keywords:frequency",
        {"keyword": "sea", "relation": AT_LEAST, "frequency": 2},
        "Sea to sea",
        "sea",
    ),
    (
        "keywords:letter_frequency",
        {"letter": "e", "let_relation": LESS, "let_frequency": 2},
        "Evil cat",
        "eel",
    ),
    (
        "keywords:letter_frequency",
        {"letter": "!", "let_relation": AT_LEAST, "let_frequency": 2},
        "Oh! No!",
        "Oh!",
    ),
    ("language:response_language", {"language": "th"}, "สวัสดี", "hello"),
    ("language:response_language", {"language": "ko"}, "안녕 OK", ""),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "One.\n\nThen, two.",
        "Then one.\n\nTwo.",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a***b***", "a******b"),
    (
        "length_constraints:number_sentences",
        {"relation": LESS, "num_sentences": 3},
        "Dr. Lee left at 3.15 p.m. today. So?",
        "A b. C d. E f",
    ),
    (
        "length_constraints:number_words",
        {"relation": AT_LEAST, "num_words": 3},
        "don't go there",
        "well-known fact",
    ),
    ("punctuation:no_comma", {}, "none; here", "one, here"),
    ("startend:end_checker", {"end_phrase": "Any more?"}, 'So. "any more?" ', "Any more? No"),
    ("startend:quotation", {}, ' "all of it" ', '"only" this'),
    ("startend:quotation", {}, '""', '"'),
    (
        "detectable_format:list",
        {"marker": "number", "relation": "exactly", "num_items": 2},
        "1. a\n2) b",
        "1. a\n- b",
    ),
    (
        "length_constraints:number_blocks",
        {"relation": "at most", "num_paragraphs": 2},
        "a\nb\n \nc",
        "a\n\nb\n\nc",
    ),
    (
        "length_constraints:number_lines",
        {"relation": "more than", "num_lines": 1},
        "a\n\nb",
        "a\n\n",
    ),
    ("startend:one_of", {"options": ["yes", "no"]}, "**Yes**, it is", "Maybe yes"),
    ("startend:start_checker", {"start_phrase": "Dear Sir"}, '"dear sir, hello', "Hello Dear Sir"),
]


@pytest.mark.parametrize(("kind", "details", "yes", "no"), PAIRS)
def test_a_reply_that_meets_it_and_one_that_does_not(
    kind: str, details: dict[str, Any], yes: str, no: str
) -> None:
    constraint = Constraint(kind, details)
    assert unchecked(constraint) is None
    assert met(constraint, yes) is True
    assert met(constraint, no) is False
    assert met(constraint, "\ud800\x00") in (True, False)
    assert met(constraint, "") in (True, False)


def test_every_kind_has_such_a_pair() -> None:
    assert {kind for kind, *_ in PAIRS} == set(CHECKERS)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        ("...", 0),
        ("One", 1),
        ("One. Two! Three? Four", 4),
        ("It costs 3.50 now. Good.", 2),
        ("J. R. Smith met Mrs. Hall, e.g. at noon.", 1),
        ("It was 1999. Then came 2000.", 2),
        ("1. Eat.\n2. Sleep.", 2),
        ('He said "Go." She went.', 2),
        ("Title\n\nBody text.", 2),
        ("什么？好。", 2),
        ("Wait... what?!", 2),
    ],
)
def test_sentences_by_hand(text: str, sentences: int) -> None:
    assert count_sentences(text) == sentences


@pytest.mark.parametrize(
    ("kind", "details", "says"),
    [
        ("keywords:rhymes", {}, "not one that is checked here"),
        ("length_constraints:number_words", {"num_words": 5}, "without a usable relation"),
        (
            "length_constraints:number_words",
            {"relation": "around", "num_words": True},
            "without a usable relation and num_words",
        ),
        ("keywords:existence", {"keywords": "sun"}, "without a usable keywords"),
        ("punctuation:no_comma", {"commas": 1}, "the detail 'commas', which it does not have"),
        ("language:response_language", {"language": "de"}, "asks for 'de', which shares"),
    ],
)
def test_what_cannot_be_checked_is_said_by_name(
    kind: str, details: dict[str, Any], says: str
) -> None:
    why = met(Constraint(kind, details), "text")
    assert isinstance(why, str)
    assert repr(kind) in why
    assert says in why


# the measure


def test_adherence_counts_constraints_so_that_pools_are_exact() -> None:
    given = (
        Constraint("punctuation:no_comma"),
        Constraint("startend:quotation"),
        Constraint("language:response_language", {"language": "fr"}),
    )
    item = Item("a", prompt="Answer in one sentence.", constraints=given)
    seen = ADHERENCE.function(item, Reply('"a, b"'), Reply('"a b"'))
    assert (seen.base_sum, seen.tuned_sum, seen.effect_sum, seen.count) == (1.0, 2.0, 1.0, 2)


def test_adherence_without_a_checkable_constraint_is_null_with_the_reason() -> None:
    french = (Constraint("language:response_language", {"language": "fr"}),)
    seen = ADHERENCE.function(Item("a", prompt="Hi", constraints=french), Reply("x"), Reply("y"))
    assert seen.effect_sum is None
    assert "'fr', which shares its script" in str(seen.reason)
    seen = ADHERENCE.function(Item("a", prompt="Tell me of the sea."), Reply("x"), Reply("y"))
    assert seen.reason == "No checkable constraint was found in the prompt."


def test_adherence_finds_the_constraints_of_a_prompt() -> None:
    item = Item("a", prompt="Describe the sea in one sentence and do not use the letter e.")
    seen = ADHERENCE.function(item, Reply("Blue. Deep."), Reply("A vast body of salt."))
    assert (seen.base_sum, seen.tuned_sum, seen.count) == (0.0, 2.0, 2)


# constraints in plain words


def said(prompt: str) -> list[tuple[str, dict[str, Any]]]:
    return [(c.kind.partition(":")[2], dict(c.details)) for c in found_in(prompt)]


def words(relation: str, n: int) -> tuple[str, dict[str, Any]]:
    return "number_words", {"relation": relation, "num_words": n}


def sentences(relation: str, n: int) -> tuple[str, dict[str, Any]]:
    return "number_sentences", {"relation": relation, "num_sentences": n}


def bullets(relation: str, n: int, marker: str = "bullet") -> tuple[str, dict[str, Any]]:
    return "list", {"marker": marker, "relation": relation, "num_items": n}


@pytest.mark.parametrize(
    ("prompt", "constraints"),
    [
        ("Describe rain in 50 words or fewer.", [words("at most", 50)]),
        ("Use at most 1,200 words.", [words("at most", 1200)]),
        ("Write an essay of at least 300 words.", [words("at least", 300)]),
        ("Write a 300+ word essay.", [words("at least", 300)]),
        ("Do not use more than 50 words.", [words("at most", 50)]),
        ("Never write fewer than ten words.", [words("at least", 10)]),
        ("Use no more than 50 words.", [words("at most", 50)]),
        ("Answer in under twenty words.", [words("less than", 20)]),
        ("Answer in three words.", [words("exactly", 3)]),
        ("Write between 20 and 30 words.", [words("at least", 20), words("at most", 30)]),
        ("Explain tides in three sentences.", [sentences("exactly", 3)]),
        ("Explain tides in 2-3 sentences.", [sentences("at least", 2), sentences("at most", 3)]),
        ("Please write two short sentences about tides.", [sentences("exactly", 2)]),
        ("Give me a three-sentence summary.", [sentences("exactly", 3)]),
        (
            "Write exactly two paragraphs.",
            [("number_blocks", {"relation": "exactly", "num_paragraphs": 2})],
        ),
        ("Write a four-line poem.", [("number_lines", {"relation": "exactly", "num_lines": 4})]),
        ("Use exactly 3 bullet points.", [bullets("exactly", 3)]),
        ("Answer as a bulleted list.", [bullets("at least", 1)]),
        ("Answer as a numbered list.", [bullets("at least", 1, "number")]),
        ("Return the result as JSON.", [("json_format", {})]),
        ("Give three rivers in JSON format.", [("json_format", {})]),
        ("Your reply must contain 'blue'.", [("existence", {"keywords": ("blue",)})]),
        (
            'Include the words "sun", "moon" and "sea".',
            [("existence", {"keywords": ("sun", "moon", "sea")})],
        ),
        ("Be sure to mention the word tide.", [("existence", {"keywords": ("tide",)})]),
        (
            "Use the word tide at least 3 times.",
            [("frequency", {"keyword": "tide", "relation": "at least", "frequency": 3})],
        ),
        ("Do not use the word sea.", [("forbidden_words", {"forbidden_words": ("sea",)})]),
        ('Write it without saying "sea".', [("forbidden_words", {"forbidden_words": ("sea",)})]),
        ('The word "sea" must not appear.', [("forbidden_words", {"forbidden_words": ("sea",)})]),
        ("The word sea cannot appear.", [("forbidden_words", {"forbidden_words": ("sea",)})]),
        (
            "Don't use the letter e.",
            [
                (
                    "letter_frequency",
                    {"letter": "e", "let_relation": "less than", "let_frequency": 1},
                )
            ],
        ),
        ("Do not use any commas.", [("no_comma", {})]),
        ("Answer in capital letters.", [("english_capital", {})]),
        ("Write it in all lowercase.", [("english_lowercase", {})]),
        ("Write it without using capital letters.", [("english_lowercase", {})]),
        ('End your reply with "Good night".', [("end_checker", {"end_phrase": "Good night"})]),
        ("End with a question.", [("end_checker", {"end_phrase": "?"})]),
        ("Begin with the word 'Once'.", [("start_checker", {"start_phrase": "Once"})]),
        ("Is it so? Answer yes or no.", [("one_of", {"options": ("yes", "no")})]),
    ],
)
def test_plain_words_are_understood(
    prompt: str, constraints: list[tuple[str, dict[str, Any]]]
) -> None:
    assert said(prompt) == constraints


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "Combine these two sentences into a poem.",
        "Write a poem of about 50 words.",
        "Explain it in 50 words.",
        'Rewrite this: "Answer in three sentences."',
        "```\n# write two sentences\n```\nWhat does this do?",
        "Each paragraph has at least 3 sentences.",
        "How do I parse dates in JSON?",
        "What does the word count mean?",
        "Explain why commas matter.",
        "Name the first letter of the word sea.",
        "Write titles in capital letters.",
        "Who sang in all the three lines?",
        'Do they end with "s" or start with "t"?',
        "Include at least 5 words in capital letters.",
        'Each line should start with "Oh".',
        'Include the word "sea" or "lake".',
        "Write a two-sentence hook for a story in five sentences.",
        'Do not end with "Good night".',
        "Don't answer yes or no.",
        "The word sea may appear.",
        "Write exactly two paragraphs, divided by ***.",
        "Do not write in capital letters.",
        "Answer without using bullet points.",
        "Do not reply in JSON.",
        "Please do not answer in one sentence.",
        "Avoid writing exactly three sentences.",
    ],
)
def test_what_is_not_clearly_a_demand_is_left_alone(prompt: str) -> None:
    assert said(prompt) == []


def test_json_is_asked_for_or_only_spoken_of() -> None:
    assert asks_json("Reply with the names as a JSON array.")
    assert not asks_json("Explain the JSON format.")


# IFEval's own file


def ifeval(shared: Path) -> list[tuple[str, tuple[Constraint, ...]]]:
    lines = (shared / "data/ifeval/input_data.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        (
            row["prompt"],
            tuple(
                Constraint(kind, {k: v for k, v in details.items() if v is not None})
                for kind, details in zip(row["instruction_id_list"], row["kwargs"], strict=True)
            ),
        )
        for row in map(json.loads, lines)
    ]


def test_every_instruction_of_ifeval_is_covered_or_null_by_name(shared: Path) -> None:
    rows = ifeval(shared)
    kinds = {c.kind for _, constraints in rows for c in constraints}
    assert len(kinds) == 25
    assert kinds <= set(CHECKERS)
    uncovered = Counter(
        c.details["language"] for _, constraints in rows for c in constraints if unchecked(c)
    )
    assert set(uncovered) & set(OWN_SCRIPT) == set()
    assert sum(uncovered.values()) < 25  # languages that share a script, of 834 instructions


def test_no_instruction_of_ifeval_raises_on_any_reply(shared: Path) -> None:
    for prompt, constraints in ifeval(shared):
        for reply in ("", prompt, "A B.\n\n* c\n***\n******\nP.S. [d] <<e>> *f* \ud800"):
            seen = ADHERENCE.function(
                Item("a", prompt=prompt, constraints=constraints), Reply(reply), Reply("x")
            )
            assert (seen.effect_sum is None) == (seen.reason is not None)
            if seen.effect_sum is None:
                assert "language:response_language" in str(seen.reason)


def test_what_is_found_in_prompts_agrees_with_ifevals_labels(shared: Path) -> None:
    # kinds that IFEval's labels are complete for, but for a few prompts that ask unlabelled
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    there: Counter[str] = Counter()
    kinds = {kind for kind in CHECKERS if kind.partition(":")[0] != "startend"} | {
        "startend:end_checker"
    }
    for prompt, constraints in ifeval(shared):
        labels = {c.kind for c in constraints}
        there.update(labels)
        for kind in {c.kind for c in found_in(prompt)} & kinds:
            if kind in ("detectable_format:list", "length_constraints:number_lines"):
                continue  # not IFEval's
            if kind == "length_constraints:number_blocks":
                right[kind] += "length_constraints:nth_paragraph_first_word" in labels
                continue
            (right if kind in labels else wrong)[kind] += 1
    assert sum(right.values()) > 300
    assert sum(wrong.values()) / sum(right.values()) < 0.04, wrong
    for kind in ("punctuation:no_comma", "length_constraints:number_words"):
        assert right[kind] >= 0.85 * there[kind]


def test_references_of_an_instruction_set_meet_what_their_prompts_state(shared: Path) -> None:
    # people wrote both, so a reference that misses means a demand that was misread
    path = shared / "data/instructions/alpaca_en_demo.json"
    kept: list[bool | str] = []
    for row in json.loads(path.read_text(encoding="utf-8")):
        found = found_in(f"{row['instruction']}\n{row.get('input', '')}")
        kept.extend(met(constraint, row["output"]) for constraint in found)
    assert len(kept) >= 25
    assert sum(answer is True for answer in kept) >= 0.95 * len(kept)
