"""Is a right answer graded right however it is put, and a wrong one wrong?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunediff.measures import REPLIES
from tunediff.measures.answers import exact_match, normalised, reference_number
from tunediff.measures.numbers import answer_number, own_answer
from tunediff.values import Item, Reply

(EXACT,) = (m for m in REPLIES if m.name == "exact_match")


def grade(reference: str | None, reply: str) -> float | str:
    return exact_match(Item("a", prompt="Question: How many?", reply=reference), Reply(reply))


def ways(n: int) -> Iterator[str]:
    """Endings that all give the integer n as their answer."""
    yield from (f"#### {n}", f"#### {n:,}", f"####{n}", f"#### ${n:,}.00", f"#### {n} apples")
    yield from (f"A: {n}", f"A: {n:,} apples", f"\nA: ${n:,}.", f"Answer: {n}%", f"answer: **{n}**")
    yield from (f"The answer is {n}.", f"The answer is ${n:,}.00!", f"the final answer is: {n:,}")
    yield from (f"So 7 more are left, and the answer is 3 + {n - 3} = {n}.", f"\\boxed{{{n}}}")
    yield from (f"She had 5, so she now has {n:,} apples.", f"9 + {n - 9} = {n}", f"It is €{n}.0")
    yield from (f"{n}", f"{n:,}.", f" {n} kg\n", f"{n}.00", f"{n:,}".replace(",", " "))
    yield from (f"It costs {n:,} dollars.\n\nQuestion: And 99?\nA: 99", f"$\\boxed{{{n:,}}}$")
    yield f"First 2.\n#### {n}\nMore text with 12 of them"


# all of GSM8K's test rows


def test_every_reference_of_gsm8k_is_right_and_a_perturbed_one_wrong(shared: Path) -> None:
    lines = (shared / "data/gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1319
    for row in map(json.loads, lines):
        solution, _, said = row["answer"].rpartition("#### ")
        n = int(said.replace(",", ""))
        item = Item("a", prompt=f"Question: {row['question']}", reply=row["answer"])
        for right in (row["answer"], *ways(n)):
            assert exact_match(item, Reply(right)) == 1.0, right
        for other in (n + 1, n - 1, 10 * n + 1, -n if n else 5):
            for wrong in (f"{solution}#### {other}", *ways(other)):
                assert exact_match(item, Reply(wrong)) == 0.0, wrong


# numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("26", 26),
        ("#### -3", -3),
        ("x = -3", -3),
        ("−3 degrees", -3),
        ("-$1,234.50", "-1234.50"),
        ("$-5", -5),
        ("10-3", 3),  # a difference, not a negative number
        ("from 3–5", 5),
        ("$1,234.50", "1234.5"),
        ("1 234", 1234),
        ("It has 1\u202f234 parts", 1234),
        ("In row 2 300 seats", 300),  # a plain space groups only where it is the whole answer
        ("26 apples", 26),
        ("26%", 26),
        ("26kg", 26),
        ("3/4", "3/4"),
        ("1 1/2 cups", "3/2"),
        ("\\frac{3}{4}", "3/4"),
        ("The date 3/4/2020", 2020),
        ("4/0", None),
        ("0.10", "1/10"),
        ("about .5", "1/2"),
        ("1e3", 1000),
        ("2.5 million", 2_500_000),
        ("1,2,3", 3),
        ("1,2345", 2345),
        ("version v1.2 of H2O", None),
        ("GPT4 said 12.", 12),
        ("答案是26个", 26),
        ("none", None),
        ("", None),
        ("9" * 5000, None),
        ("#### soon, the answer is 4", 4),
        ("The answer is unknown. I have 4.", 4),
        ("The answer is 26 apples for 3 children.", 26),
        ("A: He had 3 and got 4, so 7 apples.", 7),
        ("A: 26. Each of the 3 got some.", 26),
        ("Answer: 5 + 21 = 26", 26),
        ("The answer is 5. No, the answer is 6.", 6),
        ("The answer to the question is 6 of 9", 6),
        ("Answer:\n\n26", 26),
    ],
)
def test_the_number_that_a_reply_gives(text: str, number: int | str | None) -> None:
    assert answer_number(text) == (None if number is None else Fraction(number))


@given(st.decimals(-(10**9), 10**9, places=2))
@settings(deadline=None)
def test_any_amount_is_read_exactly(amount: object) -> None:
    for text in (f"#### {amount}", f"It makes {amount:,} in all.", f"The answer is {amount:f}."):
        assert answer_number(text) == Fraction(str(amount))


@pytest.mark.parametrize(
    ("reference", "number"),
    [
        ("26", 26),
        (" $1,234.50 ", "1234.5"),
        ("26 apples", 26),
        ("26%", 26),
        ("It was 20 + 6.\n#### 26", 26),
        ("First 5 and then 6. The answer is 11.", 11),
        ("Answer: 3/4", "3/4"),
        ("The war ended in 1945", None),
        ("1984 by George Orwell", None),
        ("Paris", None),
        ("5 and 6", None),
    ],
)
def test_whether_a_reference_is_a_number(reference: str, number: int | str | None) -> None:
    assert reference_number(reference) == (None if number is None else Fraction(number))


# texts


@pytest.mark.parametrize(
    ("reference", "reply", "right"),
    [
        ("Paris", "paris.", 1.0),
        ("The Eiffel Tower", " eiffel   tower!", 1.0),
        ("Paris", "The answer is Paris.", 1.0),
        ("Paris", "I think so.\nAnswer: Paris. It is in France.", 1.0),
        ("Paris", "Paris\n\nQ: Next?\nA: Rome", 1.0),
        ("Paris", "Paris or Rome", 0.0),
        ("Paris", "Rome", 0.0),
        ("The answer is Paris.", "Paris", 1.0),
        ("U.S. Congress", "The answer is U.S. Congress", 1.0),
        ("yes", "Yes, it is.", 1.0),
        ("yes", "No, it is not: yes is wrong.", 0.0),
        ("The war ended in 1945", "1945", 0.0),
        ("?!", "?!", 1.0),
        ("?!", "", 0.0),
        ("26", "", 0.0),
        ("Paris", "\ud800", 0.0),
        ("the", "The", 1.0),
    ],
)
def test_texts_are_compared_without_case_and_punctuation(
    reference: str, reply: str, right: float
) -> None:
    assert grade(reference, reply) == right


def test_normalisation_by_hand() -> None:
    assert normalised("  The  U.S.'s “A-Team”, an\tICON… ") == "uss ateam icon"
    assert normalised("The") == "the"


def test_a_reply_ends_where_it_makes_up_a_question() -> None:
    assert own_answer("26\nQuestion: 5?\nA: 5") == "26"
    assert own_answer("\nQuestion: 5?\nA: 5") == "\nQuestion: 5?\nA: 5"
    assert own_answer("No question: here") == "No question: here"


# choices


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("B", 1.0),
        (" b", 1.0),
        ("(B)", 1.0),
        ("B.", 1.0),
        ("**B**", 1.0),
        ("B) the moon", 1.0),
        ("(B) It is", 1.0),
        ("B\nbecause it is", 1.0),
        ("Answer: B", 1.0),
        ("The answer is (B) the moon.", 1.0),
        ("The correct answer is B because of tides.", 1.0),
        ("The correct option is B.", 1.0),
        ("the moon", 1.0),
        ("Moon!", 1.0),
        ("The answer is the moon.", 1.0),
        ("B\n\nQuestion: next\nAnswer: C", 1.0),
        ("A", 0.0),
        ("C) the moon", 0.0),
        ("E", 0.0),
        ("A moon shines", 0.0),
        ("The answer is a matter of taste", 0.0),
        ("Answer: B or C", 0.0),
        ("the sea", 0.0),
        ("", 0.0),
    ],
)
def test_a_choice_is_named_by_its_letter_or_its_text(reply: str, right: float) -> None:
    item = Item("a", prompt="Which?", choices=(" sun", " the moon", " sea"), answer=1)
    assert exact_match(item, Reply(reply)) == right


def test_choices_that_are_letters() -> None:
    item = Item("a", prompt="Which?", choices=(" A", " B", " C"), answer=0)
    assert exact_match(item, Reply(" A")) == 1.0
    assert exact_match(item, Reply("The answer is A.")) == 1.0
    assert exact_match(item, Reply("B")) == 0.0


# the measure


def test_an_empty_reply_is_wrong_and_no_reference_is_null() -> None:
    item = Item("a", prompt="Question: 20 + 6?", reply="26")
    seen = EXACT.function(item, Reply(""), Reply("It is 26."))
    assert (seen.base_sum, seen.tuned_sum, seen.effect_sum, seen.count) == (0.0, 1.0, 1.0, 1)
    nothing = EXACT.function(Item("a", prompt="Why?"), Reply("a"), Reply("b"))
    assert nothing.reason == "The item has no reference answer."
