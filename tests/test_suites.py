"""Do names and paths mean the suites they should, and are the built-in ones without a fault?"""

import ast
import json
import operator
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunediff.errors import InputError, UsageError
from tunediff.items import named
from tunediff.items.named import BUILT_IN, read_suites
from tunediff.items.read import content_hash, read
from tunediff.values import Constraint, Item


def put(folder: Path, name: str, *rows: object) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refused(kind: type[Exception], *specs: str, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        read_suites(specs, **options)
    return str(caught.value)


ROW = {"prompt": "p", "reply": "r"}

# names and paths


def test_suites_come_in_the_order_given_and_data_first(tmp_path):
    mine = put(tmp_path, "a.jsonl", ROW, {"prompt": "q", "reply": "r", "id": "own"})
    suites = read_suites(["writing", f"mine={mine}"], data=mine)
    assert [suite.name for suite in suites] == ["data", "writing", "mine"]
    assert [{item.axis for item in suite.items} for suite in suites] == [
        {"target"},
        {"fluency"},
        {"general"},
    ]
    assert [item.id for item in suites[2].items] == ["0", "own"]
    assert read_suites() == ()


def test_a_path_may_hold_an_equals_sign_and_a_built_in_name_a_path(tmp_path):
    path = put(tmp_path / "a=b", "k=1.jsonl", ROW)
    [suite] = read_suites([f"knowledge={path}"])
    assert (suite.name, [item.prompt for item in suite.items]) == ("knowledge", ["p"])


def test_a_folder_is_its_readable_files_by_name(tmp_path):
    put(tmp_path, "b.jsonl", ROW, ROW)
    put(tmp_path, "a.jsonl", {"text": "t"})
    for beside in ("README.txt", "LICENSE.txt", "notes.md", ".hidden.jsonl", "licence.txt"):
        (tmp_path / beside).write_text("not a row")
    put(tmp_path / "below", "c.jsonl", ROW)
    [suite] = read_suites([f"mine={tmp_path}"])
    assert [item.id for item in suite.items] == ["a.jsonl:0", "b.jsonl:0", "b.jsonl:1"]
    [one] = read_suites([f"mine={tmp_path / 'below'}"])
    assert [item.id for item in one.items] == ["c.jsonl:0"], "one file in a folder too"
    [data] = read_suites(data=tmp_path / "below")
    assert [(item.id, item.axis) for item in data.items] == [("c.jsonl:0", "target")]


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "README.jsonl").write_text("{}")
    assert "holds no file that ends in .txt, .jsonl" in refused(InputError, f"mine={tmp_path}")
    put(tmp_path, "a.jsonl", ROW)
    assert "holds no file that ends in .csv" in refused(InputError, f"mmlu={tmp_path}")


def test_paths_that_are_no_files_are_refused(tmp_path):
    assert "There is no file" in refused(InputError, f"mine={tmp_path / 'none.jsonl'}")
    assert "cannot be read" in refused(InputError, "mine=a\0b.jsonl")
    assert "File name too long" in refused(InputError, "gsm8k=" + "a" * 5000)
    os.mkfifo(tmp_path / "pipe.csv")
    assert "not a regular file" in refused(InputError, f"mmlu={tmp_path / 'pipe.csv'}")


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        (["knowlege"], "no built-in suite 'knowlege'. Did you mean knowledge? Built in are instr"),
        (["Writing"], "Did you mean writing?"),
        (["gsm8"], "Did you mean gsm8k?"),
        (
            ["zzz"],
            "no built-in suite 'zzz'. Built in are instructions, knowledge, reasoning, safety,",
        ),
        (["test.jsonl"], "for a file of yours write NAME=PATH"),
        (["mmlu"], "The suite mmlu is read from a file of yours, and no path was given. Write mml"),
        (["=a.jsonl"], "lacks a name or a path"),
        (["a="], "lacks a name or a path"),
        (["writing", "writing"], "The suite 'writing' is given twice"),
        (["writing", "writing=a.jsonl"], "The suite 'writing' is given twice"),
        (["\x1b[31m"], r"no built-in suite '\x1b[31m'"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_a_way_out(specs, words):
    assert words in refused(UsageError, *specs)


def test_data_is_a_name_too(tmp_path):
    path = put(tmp_path, "a.jsonl", ROW)
    assert "'data' is given twice" in refused(UsageError, f"data={path}", data=path)


# axes


def test_an_axis_is_the_rows_own_then_the_suites_then_the_default(tmp_path):
    path = put(tmp_path, "a.jsonl", ROW, {**ROW, "axis": "safety"})
    [data, suite] = read_suites([f"mine={path}"], data=path, axes=["mine=fluency", "data=general"])
    assert [item.axis for item in suite.items] == ["fluency", "safety"]
    assert [item.axis for item in data.items] == ["general", "safety"]


def test_a_labelled_prompt_is_of_safety_unless_an_axis_was_given(tmp_path):
    path = put(tmp_path, "a.jsonl", {"prompt": "How?", "label": "refuse"}, ROW)
    assert [i.axis for i in read_suites([f"mine={path}"])[0].items] == ["safety", "general"]
    [chosen] = read_suites([f"mine={path}"], axes=["mine=target"])
    assert [item.axis for item in chosen.items] == ["target", "target"]


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (["mine=savety"], "The axis 'savety' of the suite 'mine' is not one of target, general, s"),
        (["mine=savety"], "Did you mean safety?"),
        (["mine="], "The axis '' of the suite 'mine'"),
        (["safety"], "The axis 'safety' names no suite. Write NAME=AXIS."),
        (["mina=safety"], "'mina', which is not asked. Did you mean mine? Asked are: 'mine'"),
        (["mine=safety", "mine=safety"], "The axis of 'mine' is given twice"),
    ],
)
def test_an_axis_that_means_nothing_is_refused(tmp_path, axes, words):
    path = put(tmp_path, "a.jsonl", ROW)
    assert words in refused(UsageError, f"mine={path}", axes=axes)


def test_an_axis_that_no_row_takes_is_refused():
    message = refused(UsageError, "writing", axes=["writing=general"])
    assert "Every row of the suite 'writing' names its own axis" in message
    assert read_suites(["writing"], axes=["writing=fluency"]) == read_suites(["writing"])


# limits


def test_a_limit_takes_the_first_items_of_each_suite(tmp_path):
    path = put(tmp_path, "a.jsonl", *[{"text": f"t{n}"} for n in range(5)])
    [mine, writing] = read_suites([f"mine={path}", "writing"], limit=3)
    assert [item.id for item in mine.items] == ["0", "1", "2"]
    assert len(writing.items) == 3
    assert mine.content_hash == content_hash(mine.items)
    assert mine.content_hash != read_suites([f"mine={path}"])[0].content_hash
    assert len(read_suites([f"mine={path}"], limit=9)[0].items) == 5
    for limit in (0, -1):
        assert f"The limit is {limit}" in refused(UsageError, "writing", limit=limit)


def test_what_lies_behind_the_limit_is_checked_too(tmp_path):
    path = put(tmp_path, "a.jsonl", ROW, {"prompt": "p", "reply": ""})
    assert "a.jsonl:2: reply is empty" in refused(InputError, f"mine={path}", limit=1)
    twice = put(tmp_path, "b.jsonl", {**ROW, "id": "x"}, {**ROW, "id": "x"})
    assert "The id 'x' occurs twice: b.jsonl:1 and b.jsonl:2" in refused(
        InputError, f"mine={twice}", limit=1
    )


# what a reply is held against

FULL = {
    "prompt": "p",
    "choices": [" a", " b"],
    "answer": 1,
    "label": "comply",
    "category": "c",
    "constraints": [
        {"kind": "punctuation:no_comma"},
        {"kind": "keywords:existence", "details": {"keywords": ["x"], "none": None}},
    ],
    "check": "1 + 1",
}
FIELDS: dict[str, Any] = {
    "choices": (" a", " b"),
    "answer": 1,
    "label": "comply",
    "category": "c",
    "constraints": (
        Constraint("punctuation:no_comma"),
        Constraint("keywords:existence", {"keywords": ["x"]}),
    ),
}


def test_what_a_reply_is_held_against_is_read_from_every_format(tmp_path):
    lines = put(tmp_path, "a.jsonl", FULL)
    (tmp_path / "a.json").write_text(json.dumps([FULL]))
    cells = {k: v if isinstance(v, str) else json.dumps(v) for k, v in FULL.items()}
    quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells.values()]
    (tmp_path / "a.csv").write_text(",".join(cells) + "\n" + ",".join(quoted) + "\n")
    pq.write_table(pa.Table.from_pylist([FULL]), tmp_path / "a.parquet")
    expected = Item("0", prompt="p", reply=" b", axis="safety", **FIELDS)
    for path in (lines, tmp_path / "a.json", tmp_path / "a.csv", tmp_path / "a.parquet"):
        [suite] = read_suites([f"mine={path}"])
        assert replace(suite.items[0], source="") == expected
        assert suite.content_hash == content_hash([expected])


def test_a_reply_of_its_own_stays_beside_choices_and_an_answer_alone_is_some_column(tmp_path):
    rows = [{**FULL, "reply": " b, since"}, {**ROW, "answer": "forty"}]
    [suite] = read_suites([f"mine={put(tmp_path, 'a.jsonl', *rows)}"])
    assert [(item.reply, item.answer) for item in suite.items] == [(" b, since", 1), ("r", None)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": None}, "has choices but no answer; needed is the right choice's number, from"),
        ({"answer": 2}, "answer is 2; needed is the right choice's number, from 0 to 1"),
        ({"answer": -1}, "answer is -1"),
        ({"answer": True}, "answer is True"),
        ({"answer": 1.0}, "answer is 1.0"),
        ({"answer": "b"}, "answer is 'b'"),
        ({"choices": [" a"]}, "not a list of two"),
        ({"choices": [" a", 3]}, "not a list of two"),
        ({"choices": {"a": 1}}, "not a list of two"),
        ({"choices": " a; b"}, "choices is not the JSON needed"),
        ({"choices": [" a", " a"]}, "the choice ' a' occurs twice"),
        ({"choices": [" a", " "]}, "choice 1 is only white space"),
        ({"choices": [" a", "\ud800"]}, "choice 1 holds U+D800"),
        ({"prompt": None, "text": "t"}, "has choices but no prompt"),
        ({"label": "safe"}, "label is 'safe', not refuse or comply"),
        ({"label": ["refuse"]}, "label is ['refuse'], not refuse or comply"),
        ({"category": [1]}, "category is list [1]"),
        ({"category": ""}, "category is empty"),
        ({"constraints": []}, "constraints is []"),
        ({"constraints": "no commas"}, "constraints is not the JSON needed"),
        ({"constraints": ["no_comma"]}, "constraint 0 is 'no_comma'"),
        ({"constraints": [{"details": {}}]}, "constraint 0 is {'details': {}}"),
        ({"constraints": [{"kind": " "}]}, "constraint 0 is {'kind': ' '}"),
        ({"constraints": [{"kind": "a", "details": [1]}]}, "constraint 0 is {'kind': 'a', 'deta"),
        ({"constraints": [{"kind": "a", "kwargs": {}}]}, "constraint 0 is {'kind': 'a', 'kwar"),
        ({"constraints": [{"kind": "a", "details": {"k": "\udfff"}}]}, "constraint 0: it holds U+"),
    ],
)
def test_an_answer_that_cannot_be_held_against_is_refused(tmp_path, change, words):
    path = put(tmp_path, "a.jsonl", FULL, {**FULL, **change})
    message = refused(InputError, f"mine={path}")
    assert message.startswith("a.jsonl:2")
    assert words in message


def test_prompts_have_an_answer_all_or_none(tmp_path):
    bare = put(tmp_path, "bare.jsonl", {"prompt": "p"}, {"prompt": "q"}, {"text": "t"})
    assert [item.reply for item in read_suites([f"mine={bare}"])[0].items] == [None] * 3
    for held in (ROW, FULL, {"prompt": "p", "label": "refuse"}):
        mixed = put(tmp_path, "mixed.jsonl", held, {"prompt": "p"}, {"text": "t"})
        message = refused(InputError, f"mine={mixed}")
        assert message.startswith("mixed.jsonl:2 has a prompt without an answer")
        assert "(1 of 2 have none)" in message


def test_check_reads_what_it_read_before(tmp_path):
    """Foreign columns of the same names are left alone, and a prompt alone is still refused."""
    odd = {**ROW, "label": 1, "category": [2], "choices": "x", "constraints": 3, "answer": "a"}
    [item] = read(put(tmp_path, "a.jsonl", odd)).items
    assert item == Item("0", prompt="p", reply="r", source="a.jsonl:1")
    with pytest.raises(InputError, match="has a prompt but no reply"):
        read(put(tmp_path, "b.jsonl", {"prompt": "p"}))


BASE = Item("1", prompt="p", reply="r", group="g", axis="target")
RECORDED = "04af6e9438e5e03cd201367e541b26a9d155e7d00968124893ef141ae2f3ccee"


def test_the_hash_of_an_item_without_an_answer_is_the_one_that_it_had():
    assert content_hash([BASE]) == RECORDED


def test_the_hash_changes_with_anything_that_a_reply_is_held_against():
    hashes = {content_hash([BASE])}
    hashes |= {content_hash([replace(BASE, **{name: value})]) for name, value in FIELDS.items()}
    hashes.add(content_hash([replace(BASE, answer=0)]))
    hashes.add(content_hash([replace(BASE, label="refuse")]))
    hashes.add(content_hash([replace(BASE, category="comply")]))
    hashes.add(content_hash([replace(BASE, constraints=FIELDS["constraints"][:1])]))
    assert len(hashes) == 10


# the built-in suites


def rows_of(name: str) -> list[dict[str, Any]]:
    path = Path(named.__file__).parent / "suites" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def items_of(name: str) -> tuple[Item, ...]:
    return read_suites([name])[0].items


def test_every_data_file_is_a_built_in_suite():
    folder = Path(named.__file__).parent / "suites"
    assert {path.name for path in folder.iterdir()} == {f"{name}.jsonl" for name in BUILT_IN}


@pytest.mark.parametrize(
    ("name", "least", "axis", "categories"),
    [
        ("instructions", 60, "general", 8),
        ("knowledge", 80, "general", 8),
        ("reasoning", 60, "general", 8),
        ("safety", 120, "safety", 6),
        ("writing", 30, "fluency", 5),
    ],
)
def test_each_suite_is_large_varied_and_plain(name, least, axis, categories):
    items, rows = items_of(name), rows_of(name)
    assert len(items) == len(rows) >= least
    assert {item.axis for item in items} == {axis}
    assert len({item.category for item in items}) >= categories
    assert min(Counter(item.category for item in items).values()) >= 3
    for item, row in zip(items, rows, strict=True):
        assert item.id == row["id"]
        assert re.fullmatch(r"[a-z-]+-\d+", item.id)
        text = item.shown
        assert text.isascii()
        assert "  " not in re.sub(r"\n *", "\n", text)
        assert item.prompt is not None
        assert item.prompt == item.prompt.strip()
        assert (item.reply is None) == (name == "writing")
        if item.reply is not None:
            assert item.reply[0] in " \n", "it continues the prompt"
            assert item.reply == item.reply.rstrip()
            assert item.reply[1] not in " \n"


def test_no_prompt_occurs_twice_in_any_suite():
    prompts = [item.prompt for name in BUILT_IN for item in items_of(name)]
    bare = [re.sub(r"\W+", " ", prompt.lower()) for prompt in prompts if prompt]
    assert len(set(bare)) == len(bare) == len(prompts)
    for name in BUILT_IN:
        replies = [item.reply for item in items_of(name) if item.reply and item.choices is None]
        free = [reply for reply in replies if "My answer is" not in reply]
        assert len(set(free)) == len(free)


def test_knowledge_hides_its_answers():
    """Neither the place nor the length of the right answer may tell more than chance."""
    items = items_of("knowledge")
    fields: dict[str | None, list[int]] = {}
    longest = 0.0
    for item in items:
        assert item.choices is not None
        assert item.answer is not None
        assert len(item.choices) == len({c.lower() for c in item.choices}) == 4
        assert all(c[0] == " " and c[1] != " " and c[-1] not in " ." for c in item.choices)
        assert item.reply == item.choices[item.answer]
        assert item.prompt is not None
        assert re.fullmatch(r"Question: [A-Z][^?]+\?\nAnswer:", item.prompt)
        fields.setdefault(item.category, []).append(item.answer)
        lengths = [len(c) for c in item.choices]
        if lengths[item.answer] == max(lengths):
            longest += 1 / lengths.count(max(lengths))
    assert all(Counter(answers) == Counter([0, 1, 2, 3] * 2) for answers in fields.values())
    orders = [tuple(answers) for answers in fields.values()]
    assert len(set(orders)) > 6, "the order of the places differs from field to field"
    assert longest / len(items) < 0.4


OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def value_of(expression: str) -> float:
    def walk(node: ast.AST) -> float:
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](walk(node.left), walk(node.right))
        assert isinstance(node, ast.Constant), ast.dump(node)
        return node.value

    return walk(ast.parse(expression, mode="eval").body)


EQUATION = re.compile(r"((?:\d[\d.]* [-+*/] )+\d(?:[\d.]*\d)?) = (\d(?:[\d.]*\d)?)")


def test_reasoning_ends_with_the_number_that_its_check_gives():
    equations = 0
    for item, row in zip(items_of("reasoning"), rows_of("reasoning"), strict=True):
        assert item.reply is not None
        worked, _, last = item.reply.rpartition(" The answer is ")
        assert re.fullmatch(r"\d+(\.\d+)?\.", last), item.id
        assert float(last[:-1]) == pytest.approx(value_of(row["check"])), item.id
        assert "####" not in item.reply
        found = EQUATION.findall(worked)
        assert len(found) == worked.count("="), item.id
        for left, right in found:
            assert value_of(left) == pytest.approx(float(right)), (item.id, left)
        equations += len(found)
    assert equations > 100


def test_reasoning_answers_are_no_habit():
    answers = Counter((item.reply or "").rsplit(" ", 1)[1] for item in items_of("reasoning"))
    assert max(answers.values()) <= 4
    assert len(answers) > 40


def test_writing_breaks_off_and_orders_nothing():
    for item in items_of("writing"):
        assert item.prompt is not None
        assert item.prompt[-1].isalpha(), "it breaks off inside a sentence"
        first = item.prompt.split()[0]
        assert first not in {"Write", "Describe", "Tell", "Explain", "Give", "Name", "List", "Make"}
        assert not re.search(r"\b(please|write|tell me|story about)\b", item.prompt.lower()), (
            item.id
        )


# the constraints of `instructions`: each kind in our own words, apart from the measure's


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def sentences(text: str) -> int:
    return len(re.findall(r"[.!?](?=\s|$)", text))


def within(found: int, relation: str, bound: int) -> bool:
    return found >= bound if relation == "at least" else found < bound


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def paragraph(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = text.strip().split("\n\n")
    return len(parts) == num_paragraphs and (
        words(parts[nth_paragraph - 1])[:1] == [first_word.capitalize()]
    )


def two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    return len(parts) == 2 and parts[0] != parts[1] and all(parts)


def letters(text: str, letter: str, let_relation: str, let_frequency: int) -> bool:
    return within(text.lower().count(letter), let_relation, let_frequency)


def capitals(text: str, capital_relation: str, capital_frequency: int) -> bool:
    return within(sum(w.isupper() for w in words(text)), capital_relation, capital_frequency)


HELD: dict[str, Callable[..., bool]] = {
    "keywords:existence": lambda t, keywords: all(k.lower() in t.lower() for k in keywords),
    "keywords:forbidden_words": lambda t, forbidden_words: (
        not any(re.search(rf"\b{w}\b", t, re.I) for w in forbidden_words)
    ),
    "keywords:frequency": lambda t, keyword, relation, frequency: within(
        t.lower().count(keyword), relation, frequency
    ),
    "keywords:letter_frequency": letters,
    "length_constraints:number_words": lambda t, relation, num_words: within(
        len(words(t)), relation, num_words
    ),
    "length_constraints:number_sentences": lambda t, relation, num_sentences: within(
        sentences(t), relation, num_sentences
    ),
    # a kind of this project's: paragraphs between blank lines
    "length_constraints:number_blocks": lambda t, relation, num_paragraphs: (
        relation == "exactly" and len(re.split(r"\n\s*\n", t.strip())) == num_paragraphs
    ),
    "length_constraints:number_paragraphs": lambda t, num_paragraphs: (
        len(t.split("\n***\n")) == num_paragraphs
        and t.count("***") == num_paragraphs - 1
        and "\n\n" not in t
    ),
    "length_constraints:nth_paragraph_first_word": paragraph,
    "detectable_content:number_placeholders": lambda t, num_placeholders: (
        len(re.findall(r"\[\w+\]", t)) >= num_placeholders
    ),
    "detectable_content:postscript": lambda t, postscript_marker: f"\n{postscript_marker} " in t,
    "detectable_format:number_bullet_lists": lambda t, num_bullets: (
        sum(line.startswith("* ") for line in t.split("\n")) == num_bullets
    ),
    "detectable_format:constrained_response": lambda t: (
        t.strip() in {"My answer is yes.", "My answer is no.", "My answer is maybe."}
    ),
    "detectable_format:number_highlighted_sections": lambda t, num_highlights: (
        len(re.findall(r"\*[^*\n]+\*", t)) >= num_highlights
    ),
    "detectable_format:multiple_sections": lambda t, section_spliter, num_sections: (
        re.findall(rf"^{section_spliter} (\d)$", t, re.M)
        == [str(n + 1) for n in range(num_sections)]
    ),
    "detectable_format:json_format": is_json,
    "detectable_format:title": lambda t: bool(re.search(r"<<[^>\s][^>]*>>", t)),
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": lambda t, prompt_to_repeat: (
        t.strip().startswith(prompt_to_repeat) and len(t.strip()) > len(prompt_to_repeat)
    ),
    "startend:end_checker": lambda t, end_phrase: t.endswith(" " + end_phrase),
    "startend:quotation": lambda t: len(t.strip()) > 2 and t.strip()[0] == t.strip()[-1] == '"',
    "change_case:english_capital": str.isupper,
    "change_case:english_lowercase": str.islower,
    "change_case:capital_word_frequency": capitals,
    "punctuation:no_comma": lambda t: "," not in t,
}


def unmet(item: Item, reply: str) -> list[str]:
    found = item.constraints or ()
    return [one.kind for one in found if not HELD[one.kind](reply, **one.details)]


def test_each_reference_meets_its_constraints():
    items = [item for item in items_of("instructions") if item.constraints]
    assert len(items) >= 60
    for item in items:
        assert item.reply is not None
        assert unmet(item, item.reply) == [], item.id
    assert {one.kind for item in items for one in item.constraints or ()} == set(HELD)


def test_each_constraint_can_be_missed():
    """Some other item's reference misses it, or it would say nothing of a reply."""
    items = [item for item in items_of("instructions") if item.constraints]
    planted = " *\n\nTHE WORD, sour cold White dark fast\n***\n* b\n***\n* c\n***\n" + " tie" * 99
    others = [item.reply or "" for item in items] + [planted, " Coffee" * 2, " BIG BIG"]
    for item in items:
        missed = {kind for reply in others for kind in unmet(item, reply)}
        assert missed == {one.kind for one in item.constraints or ()}, item.id


def test_what_a_constraint_asks_for_stands_in_its_prompt():
    """Numbers, words and phrases of the details are said in the prompt."""
    digits = {2: "two", 3: "three"}
    for item in items_of("instructions"):
        assert item.prompt is not None
        if item.category == "seed":
            continue
        prompt = item.prompt.lower()
        for one in item.constraints or ():
            for name, value in one.details.items():
                for part in value if isinstance(value, list) else [value]:
                    if name in {"nth_paragraph", "relation", "let_relation", "capital_relation"}:
                        said = {1: "first", 2: "second", "less than": "fewer than"}.get(part, part)
                    else:
                        said = str(part)
                    assert said.lower() in prompt or digits.get(part, "?") in prompt, item.id


def test_the_five_prompts_of_the_seed_document_are_asked(shared):
    seeds = [path.read_text() for path in sorted((shared / "seeds").glob("*.txt"))]
    [seed] = [text for text in seeds if text.startswith("# Project 17")]
    [block] = re.findall(r"^prompts = \[\n(.*?)^\]", seed, re.M | re.S)
    theirs = ast.literal_eval(f"[{block}]")
    assert len(theirs) == 5
    ours = [item.prompt for item in items_of("instructions") if item.category == "seed"]
    assert ours == theirs


def test_the_python_function_of_a_reference_computes_fibonacci_numbers():
    [reply] = [i.reply for i in items_of("instructions") if i.prompt and "Fibonacci" in i.prompt]
    [code] = re.findall(r"```python\n(.*?)```", reply or "", re.S)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert [scope["fibonacci"](n) for n in range(8)] == [0, 1, 1, 2, 3, 5, 8, 13]


def test_nothing_of_the_public_data_is_in_the_suites(shared):
    """No run of eight words is shared with a public benchmark's files."""
    ours: set[tuple[str, ...]] = set()
    for name in BUILT_IN:
        for item in items_of(name):
            if item.category != "seed":
                tokens = words(item.shown.lower())
                ours |= {tuple(tokens[n : n + 8]) for n in range(len(tokens) - 7)}
    assert len(ours) > 3000
    form = "answer with exactly one of these my answer is yes my answer is no my answer is maybe"
    ours -= {tuple(form.split()[n : n + 8]) for n in range(len(form.split()) - 7)}
    for path in (shared / "data").rglob("*"):
        if path.suffix in {".jsonl", ".csv", ".json", ".txt"}:
            tokens = words(path.read_text(encoding="utf-8").lower())
            shared_runs = ours.intersection(zip(*(tokens[n:] for n in range(8)), strict=False))
            assert not shared_runs, path.name


def test_instruction_data_is_a_target_set(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Say hi.", "input": "", "output": "Hi."},
        {"instruction": "Add.", "input": "2 and 3", "output": "5"},
    ]
    file = tmp_path / "train.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    (suite,) = read_suites(data=file)
    assert [(i.prompt, i.reply) for i in suite.items] == [
        ("Say hi.", "Hi."),
        ("Add.\n\n2 and 3", "5"),
    ]
    with pytest.raises(InputError, match="has nothing to ask"):
        read(file)  # `check` takes texts as they are scored, and guesses no form
