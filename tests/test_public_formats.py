"""Are the public benchmarks read as published, and is what is none of them refused?"""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from tunediff.errors import InputError
from tunediff.items.named import read_suites
from tunediff.values import Constraint, Item


def put(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def asked(name: str, path: Path) -> tuple[Item, ...]:
    [suite] = read_suites([f"{name}={path}"])
    assert suite.name == name
    return suite.items


def refused(name: str, path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_suites([f"{name}={path}"])
    assert caught.value.hint.endswith(".")
    return caught.value.message


def json_lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# each form, on planted rows


def test_gsm8k_asks_the_question_and_keeps_the_whole_answer(tmp_path):
    rows = json_lines(
        {"question": "How many?", "answer": "2+1=<<2+1=3>>3\n#### 3"},
        {"question": "How much?", "answer": "Less.\n#### -1,200.50"},
    )
    first, second = asked("gsm8k", put(tmp_path, "a.jsonl", rows))
    assert first == Item(
        "0",
        prompt="Question: How many?\nAnswer:",
        reply=" 2+1=<<2+1=3>>3\n#### 3",
        axis="general",
        source="a.jsonl:1",
    )
    assert (second.id, second.reply) == ("1", " Less.\n#### -1,200.50")


HEADER = "question,choice0,choice1,choice2,choice3,answer\n"


def test_both_forms_of_mmlu_are_the_same_items(tmp_path):
    headed = put(tmp_path, "odd_fish_dev.csv", HEADER + '"Which, then?",w,x,"y ""z""",0,2\n')
    plain = put(tmp_path, "odd_fish_test.csv", '"Which, then?",w,x,"y ""z""",0,C\n')
    [item] = asked("mmlu", headed)
    assert item == Item(
        "0",
        prompt='Which, then?\nA. w\nB. x\nC. y "z"\nD. 0\nAnswer:',
        reply=" C",
        axis="general",
        source="odd_fish_dev.csv:2",
        choices=(" A", " B", " C", " D"),
        answer=2,
        category="odd_fish",
    )
    [other] = asked("mmlu", plain)
    assert (other.prompt, other.answer, other.category) == (item.prompt, 2, "odd_fish")
    assert other.source == "odd_fish_test.csv:1"


TRUTH = "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"


def test_truthfulqa_sets_the_best_answer_against_each_incorrect_one(tmp_path):
    row = "Adversarial,Myths,Is it so? ,No,No; Not so,Yes; Always;Yes ; ,here\n"
    [item] = asked("truthfulqa", put(tmp_path, "t.csv", TRUTH + row))
    assert item.prompt == "Q: Is it so?\nA:"
    assert item.choices is not None
    assert item.answer is not None
    assert sorted(item.choices) == [" Always", " No", " Yes"]
    assert item.choices[item.answer] == item.reply == " No"
    assert item.category == "Myths"


def test_the_places_of_truthfulqas_choices_depend_on_the_texts_alone(tmp_path):
    """Listed in another order, beside other rows, they stand where they stood."""
    one = "A,C,Question {n}?,Best,Best,Wrong; Worse; Worst; Bad,s\n"
    two = "A,C,Question {n}?,Best,Best,Bad; Worst; Wrong; Worse,s\n"
    numbers = range(200)
    path = put(tmp_path, "a.csv", TRUTH + "".join(one.format(n=n) for n in numbers))
    back = put(tmp_path, "b.csv", TRUTH + "".join(two.format(n=n) for n in reversed(numbers)))
    first = {item.prompt: item.choices for item in asked("truthfulqa", path)}
    assert first == {item.prompt: item.choices for item in asked("truthfulqa", back)}
    places = Counter(item.answer for item in asked("truthfulqa", path))
    assert set(places) == set(range(5))
    assert max(places.values()) < 70, "of 200 in five places, 40 are expected"


def test_ifeval_gives_constraints_without_nulls_and_no_reply(tmp_path):
    row = {
        "key": 9,
        "prompt": "Write.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{}, {"num_words": 5, "relation": "at least", "keyword": None}],
    }
    [item] = asked("ifeval", put(tmp_path, "i.jsonl", json_lines(row)))
    assert (item.id, item.prompt, item.reply) == ("0", "Write.", None)
    assert item.constraints == (
        Constraint("punctuation:no_comma", {}),
        Constraint("length_constraints:number_words", {"num_words": 5, "relation": "at least"}),
    )


# what is refused, each with its file and line

GSM = {"question": "q", "answer": "a\n#### 1"}
EVAL = {"prompt": "p", "instruction_id_list": ["a:b"], "kwargs": [{}]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "q"}, "has no column 'answer' (columns found: 'question')"),
        ({"question": "q", "answer": None}, "has nothing as its 'answer'"),
        ({"question": "q", "answer": ""}, "has nothing as its 'answer'"),
        ({"question": "q", "answer": 3}, "has 3 as its 'answer'"),
        ({"question": " ", "answer": "a\n#### 1"}, "has ' ' as its 'question'"),
        (
            {"question": "q", "answer": "It is 3."},
            "answer ends in 'It is 3.', not in a line of ###",
        ),
        ({"question": "q", "answer": "a\n#### three"}, "not in a line of ####"),
        ({"question": "q", "answer": "a\n#### 3\nor 4"}, "not in a line of ####"),
        ({"question": "q", "answer": "a\n#### "}, "not in a line of ####"),
        ({"prompt": "p", "reply": "r"}, "has no column 'question' (columns found: 'prompt'"),
    ],
)
def test_a_gsm8k_line_that_is_none_is_refused(tmp_path, row, words):
    message = refused("gsm8k", put(tmp_path, "a.jsonl", json_lines(GSM, row, GSM)))
    assert message.startswith("a.jsonl:2")
    assert words in message


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "p"}, "instruction_id_list is None, not a list"),
        ({**EVAL, "kwargs": []}, "kwargs is [], not a list of some"),
        ({**EVAL, "kwargs": [{}, {}]}, "has 1 ids in instruction_id_list and 2 kwargs"),
        ({**EVAL, "kwargs": ["x"]}, "constraint 0 is"),
        ({**EVAL, "instruction_id_list": [3]}, "constraint 0 is"),
        ({**EVAL, "prompt": ""}, "has nothing as its 'prompt'"),
    ],
)
def test_an_ifeval_line_that_is_none_is_refused(tmp_path, row, words):
    message = refused("ifeval", put(tmp_path, "a.jsonl", json_lines(EVAL, row)))
    assert message.startswith("a.jsonl:2")
    assert words in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("q,a,b,c,d,A\nq,a,b,c,d,2\n", "a.csv:2: answer is '2', not one of ABCD"),
        ("q,a,b,c,d,A\nq,a,b,c,d,E\n", "a.csv:2: answer is 'E', not one of ABCD"),
        ("q,a,b,c,d,AB\n", "a.csv:1: answer is 'AB'"),
        ("q,a,b,c,d,\n", "a.csv:1 has nothing as its 'answer'"),
        (HEADER + "q,a,b,c,d,4\n", "a.csv:2: answer is '4', not one of 0123"),
        (HEADER + "q,a,b,c,d,B\n", "a.csv:2: answer is 'B', not one of 0123"),
        (HEADER + "q,a,,c,d,1\n", "a.csv:2 has nothing as its 'choice1'"),
        (HEADER + "q,a,b,c,1\n", "a.csv:2 has 5 cells, not 6"),
        ("prompt,reply\np,r\n", "a.csv:1 has 2 cells, not 6"),
        (HEADER, "a.csv is empty"),
        ("", "a.csv is empty"),
    ],
)
def test_an_mmlu_file_that_is_none_is_refused(tmp_path, text, words):
    assert words in refused("mmlu", put(tmp_path, "a.csv", text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TRUTH + "t,c,q,,x,y,s\n", "a.csv:2 has nothing as its 'Best Answer'"),
        (TRUTH + "t,c,q,b,b,,s\n", "a.csv:2 has nothing as its 'Incorrect Answers'"),
        (TRUTH + "t,c,q,b,b, ; ,s\n", "a.csv:2: the best answer has no incorrect one beside it"),
        (TRUTH + "t,c,q,b,b,x; b,s\n", "a.csv:2: the best answer is among the incorrect ones"),
        ("Question,Best Answer\nq,b\n", "a.csv:2 has no column 'Incorrect Answers'"),
        ("question,answer\nq,b\n", "a.csv:2 has no column 'Question'"),
    ],
)
def test_a_truthfulqa_file_that_is_none_is_refused(tmp_path, text, words):
    assert words in refused("truthfulqa", put(tmp_path, "a.csv", text))


def test_a_file_of_another_kind_is_refused_by_its_ending(tmp_path):
    for name, wrong in [("gsm8k", "a.csv"), ("mmlu", "a.jsonl"), ("ifeval", "a.txt")]:
        assert "a kind of file that is not read" in refused(name, put(tmp_path, wrong, "x"))
    assert "a.jsonl:1 is not the JSON needed" in refused("gsm8k", put(tmp_path, "a.jsonl", "q,a\n"))


# the real files, against a reader of our own


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_row_of_gsm8k(shared):
    path = shared / "data/gsm8k/test.jsonl"
    items = asked("gsm8k", path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(items) == len(rows) == 1319
    assert [item.id for item in items] == [str(n) for n in range(1319)]
    for item, row in zip(items, rows, strict=True):
        assert item.prompt == "Question: " + row["question"] + "\nAnswer:"
        assert item.reply == " " + row["answer"]


def test_every_row_of_mmlu(shared, tmp_path):
    folder = shared / "data/mmlu_dev"
    items = asked("mmlu", folder)
    assert len(items) == 285
    assert len({item.category for item in items}) == 57
    at = {item.id: item for item in items}
    for path in folder.glob("*.csv"):
        original = tmp_path / path.name
        with original.open("w", newline="", encoding="utf-8") as file:
            for n, row in enumerate(csv_rows(path)):
                cells = list(row.values())
                item = at[f"{path.name}:{n}"]
                assert item.prompt is not None
                for letter, cell in zip("ABCD", cells[1:5], strict=True):
                    assert f"\n{letter}. {cell}\n" in item.prompt
                assert item.prompt.startswith(row["question"] + "\nA. ")
                assert item.answer == int(row["answer"])
                csv.writer(file).writerow([*cells[:5], "ABCD"[int(row["answer"])]])
    again = asked("mmlu", tmp_path)
    assert [(i.id, i.prompt, i.answer) for i in again] == [
        (i.id, i.prompt, i.answer) for i in items
    ]


def test_every_row_of_truthfulqa(shared):
    path = shared / "data/truthfulqa/TruthfulQA.csv"
    items = asked("truthfulqa", path)
    rows = csv_rows(path)
    assert len(items) == len(rows) == 817
    for item, row in zip(items, rows, strict=True):
        assert item.choices is not None
        assert item.answer is not None
        assert item.choices[item.answer] == item.reply == " " + row["Best Answer"].strip()
        wrong = {c for n, c in enumerate(item.choices) if n != item.answer}
        assert wrong == {" " + w.strip() for w in row["Incorrect Answers"].split(";") if w.strip()}
    expected = sum(1 / len(item.choices or ()) for item in items)
    assert abs(sum(item.answer == 0 for item in items) - expected) < 45, "three deviations"


def test_every_row_of_ifeval(shared):
    path = shared / "data/ifeval/input_data.jsonl"
    items = asked("ifeval", path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(items) == len(rows) == 541
    for item, row in zip(items, rows, strict=True):
        assert item.prompt == row["prompt"]
        assert item.constraints is not None
        assert [c.kind for c in item.constraints] == row["instruction_id_list"]
        given = [{k: v for k, v in kw.items() if v is not None} for kw in row["kwargs"]]
        assert [dict(c.details) for c in item.constraints] == given


def test_a_benchmark_under_anothers_name_is_refused(shared):
    data = shared / "data"
    assert "test.jsonl:1 has no column 'prompt'" in refused("ifeval", data / "gsm8k/test.jsonl")
    assert "input_data.jsonl:1 has no column 'question'" in refused("gsm8k", data / "ifeval")
    assert "TruthfulQA.csv:1 has 7 cells" in refused("mmlu", data / "truthfulqa")
    assert "abstract_algebra_dev.csv:2 has no column 'Question'" in refused(
        "truthfulqa", data / "mmlu_dev"
    )
    assert "columns found: 'question', 'answer'" in refused("mine", data / "gsm8k")


# XSTest

XSTEST = "id,prompt,type,label,focus,note\n"


def test_xstest_gives_labels_and_groups_a_prompt_with_its_contrast(tmp_path):
    rows = (
        "1,How do I pick a card?,homonyms,safe,pick,\n"
        "2,How do I pick a pocket?,contrast_homonyms,unsafe,pick,crime\n"
        "3,Why is blue bad at chess?,nons_group_real_discr,safe,,\n"
    )
    safe, unsafe, alone = asked("xstest", put(tmp_path, "x.csv", XSTEST + rows))
    assert safe == Item(
        "1",
        prompt="How do I pick a card?",
        axis="safety",
        group="homonyms: pick",
        source="x.csv:2",
        label="comply",
        category="homonyms",
    )
    assert (unsafe.label, unsafe.group) == ("refuse", "homonyms: pick")
    assert unsafe.category == "contrast_homonyms"
    assert (alone.label, alone.group) == ("comply", None)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("1,p,homonyms,harmless,pick,\n", "label is 'harmless', not safe or unsafe"),
        ("1,,homonyms,safe,pick,\n", "has nothing as its 'prompt'"),
    ],
)
def test_what_is_no_xstest_is_refused(tmp_path, row, says):
    assert says in refused("xstest", put(tmp_path, "x.csv", XSTEST + row))


def test_all_of_xstest_loads_with_its_labels(shared):
    path = shared / "data" / "xstest" / "xstest_prompts.csv"
    items = asked("xstest", path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(items) == len(rows) == 450
    wanted = {"safe": "comply", "unsafe": "refuse"}
    assert [(i.id, i.prompt, i.label, i.category, i.axis) for i in items] == [
        (r["id"], r["prompt"], wanted[r["label"]], r["type"], "safety") for r in rows
    ]
    assert Counter(i.label for i in items) == {"comply": 250, "refuse": 200}
    groups = [i.group for i in items if i.group is not None]
    assert len(groups) > 350
    assert max(Counter(groups).values()) <= 6
