"""Are the tokens that are learnt those of the rows, scored where they should be, and counted?"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from factory import EOS, edit_json, tiny_tokenizer
from tunediff import specimens
from tunediff.errors import InputError, ModelError, UsageError
from tunediff.pair import encoding
from tunediff.pair.hf_load import HfTokens
from tunediff.pair.template import find_template
from tunediff.training.data import (
    IGNORED,
    Data,
    Example,
    batches,
    prepare,
    read_rows,
    template_source,
)

PAIRS = [("Say sun:", " the sun"), ("Say moon:", " the moon is old"), ("Say it:", " it")]
NEWLINE_AFTER_END = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
NO_END = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> HfTokens:
    return HfTokens(tiny_tokenizer(tmp_path_factory.mktemp("tokens")))


def written(folder: Path, rows: list[dict[str, Any]], suffix: str = ".jsonl") -> Path:
    file = folder / f"rows{suffix}"
    if suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif suffix == ".json":
        file.write_text(json.dumps(rows), "utf-8")
    else:
        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return file


def prepared(file: Path, tokens: HfTokens, **more: Any) -> Data:
    options: dict[str, Any] = {
        "template": None, "chat": False, "loss": "reply", "max_length": 100, **more,
    }  # fmt: skip
    return prepare(read_rows(file), tokens, **options)


def learnt(example: Example, tokens: HfTokens) -> str:
    """The text of the scored tokens, the end token left visible."""
    return tokens.tokenizer.decode([label for label in example.labels if label != IGNORED])


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
@pytest.mark.parametrize(
    "form",
    [
        lambda p, r: {"prompt": p, "response": r},
        lambda p, r: {"prompt": p, "completion": r, "id": "x", "label": "5"},
        lambda p, r: {"instruction": p, "input": "", "output": r},
    ],
)
def test_every_form_of_every_format_gives_the_same_tokens(
    tmp_path: Path, tokens: HfTokens, suffix: str, form: Any
) -> None:
    data = prepared(written(tmp_path, [form(p, r) for p, r in PAIRS], suffix), tokens)
    for example, (prompt, reply) in zip(data.examples, PAIRS, strict=True):
        ids, _ = tokens(prompt + reply, special=True, parse_special=False)
        assert list(example.ids) == [*ids, EOS]
        assert learnt(example, tokens) == reply + "</s>"
        assert example.ids.count(tokens.bos) == 1
        assert example.labels[-1] == EOS
    report = data.report
    assert (report["rows"], report["trained"], report["cut"]) == (3, 3, 0)
    assert report["tokens"] == sum(len(e.ids) for e in data.examples)
    assert report["scored_tokens"] == sum(e.scored for e in data.examples)


def test_an_input_stands_behind_its_instruction_and_a_blank_line(
    tmp_path: Path, tokens: HfTokens
) -> None:
    row = {"instruction": "Add.", "input": "1 and 2", "output": " 3"}
    (example,) = prepared(written(tmp_path, [row]), tokens).examples
    assert tokens.tokenizer.decode(example.ids) == "<s>Add.\n\n1 and 2 3</s>"


def test_the_reply_is_scored_where_compare_scores_it(tmp_path: Path, tokens: HfTokens) -> None:
    file = written(tmp_path, [{"prompt": p, "reply": r} for p, r in PAIRS])
    for item, example in zip(read_rows(file).items, prepared(file, tokens).examples, strict=True):
        asked = encoding.encode(item, tokens, lambda _: ("", ""), None, False)
        assert example.ids[:-1] == tuple(asked.ids)
        scored = [t - 1 for t, label in enumerate(example.labels) if label != IGNORED]
        assert scored == [*asked.scored, len(asked.ids) - 1]  # and the end token


def test_of_all_tokens_the_first_alone_is_not_scored(tmp_path: Path, tokens: HfTokens) -> None:
    file = written(tmp_path, [{"prompt": p, "reply": r} for p, r in PAIRS])
    for example in prepared(file, tokens, loss="all").examples:
        assert example.labels == (IGNORED, *example.ids[1:])


@pytest.mark.parametrize("template", [NEWLINE_AFTER_END, NO_END])
def test_a_conversation_ends_with_the_end_token_and_nothing_after_it(
    tmp_path: Path, tokens: HfTokens, template: str
) -> None:
    talk = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four"},
    ]
    file = written(tmp_path, [{"messages": talk}])
    (example,) = prepared(file, tokens, template=template).examples
    assert learnt(example, tokens) == "four</s>"
    assert example.ids[-1] == example.labels[-1] == EOS


def test_prompts_given_as_chat_are_those_that_compare_asks(tmp_path: Path) -> None:
    tokens, base = HfTokens(specimens.base()), specimens.base()
    rows = [{"prompt": "Number sun and moon.", "response": "1. sun\n2. moon"}]
    file = written(tmp_path, rows)
    (chat,) = prepared(file, tokens, template=find_template(base), chat=True).examples
    raw = {
        "prompt": specimens.raw_prompt(rows[0]["prompt"]),
        "response": specimens.raw_reply(rows[0]["response"]),
    }
    (plain,) = prepared(written(tmp_path, [raw]), tokens).examples
    assert chat.ids == plain.ids  # the template writes BOS itself: it is there once
    assert chat.labels == plain.labels


def test_long_rows_are_cut_at_the_end_and_teach_no_end(tmp_path: Path, tokens: HfTokens) -> None:
    rows = [
        {"prompt": "a", "response": " b" * 20},
        {"prompt": "a" * 30, "response": " b"},
        {"prompt": "a", "response": " b"},
    ]
    data = prepared(written(tmp_path, rows), tokens, max_length=12)
    cut, short = data.examples
    assert len(cut.ids) == 12
    assert EOS not in cut.ids
    assert short.ids[-1] == EOS
    report = data.report
    assert (report["cut"], report["trained"]) == (1, 2)
    assert report["dropped"]["without a reply token within max_length"] == 1
    assert report["first_dropped"] == ["rows.jsonl:2"]
    # a cut prompt could be learnt from with loss "all", and is dropped there too
    assert prepared(written(tmp_path, rows), tokens, max_length=12, loss="all").report == {
        **report, "scored_tokens": sum(len(e.ids) - 1 for e in data.examples),
    }  # fmt: skip


@pytest.mark.parametrize("blank", [None, "", " \n"])
def test_rows_without_a_reply_are_dropped_and_counted(
    tmp_path: Path, tokens: HfTokens, blank: str | None
) -> None:
    rows = [{"prompt": "a", "response": blank}, {"prompt": "a", "response": " b"}]
    report = prepared(written(tmp_path, rows), tokens).report
    assert report["dropped"]["without a reply"] == 1
    assert report["first_dropped"] == ["rows.jsonl:1"]
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": blank or ""}]
    good = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    read = read_rows(written(tmp_path, [{"messages": talk}, {"messages": good}]))
    assert (len(read.items), read.dropped) == (1, ("rows.jsonl:1",))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"prompt": "a", "response": ""}], "no row that could be learnt from: 1 rows"),
        ([{"text": "a"}], "nothing to learn from .columns found: 'text'"),
        ([{"prompt": "a"}], "nothing to learn from"),
        ([{"prompt": "a", "response": "b", "messages": []}], "more than one form"),
        (
            [{"prompt": "a", "response": "b"}, {"instruction": "a", "output": "b"}],
            r"rows.jsonl:2 has instruction and output, and rows.jsonl:1 has prompt and response",
        ),
        ([{"prompt": "a", "response": "b"}, {"prompt": "a", "reply": "b"}], "has prompt and reply"),
        ([{"prompt": "a", "response": 5}], "response is int 5, not text"),
        ([{"prompt": " ", "response": "b"}], "prompt is only white space"),
        ([{"messages": [{"role": "user", "content": "a"}] * 2}], "last message is of role 'user'"),
        ([{"messages": "no"}], "is not the JSON needed"),
    ],
)
def test_rows_that_cannot_be_learnt_from_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        read_rows(written(tmp_path, rows))


def test_no_row_within_the_length_is_an_error(tmp_path: Path, tokens: HfTokens) -> None:
    file = written(tmp_path, [{"prompt": "a" * 30, "response": " b"}])
    with pytest.raises(InputError, match="0 can be learnt from") as error:
        prepared(file, tokens, max_length=5)
    assert "--max-length" in error.value.hint
    with pytest.raises(InputError, match="at least one is needed beside those held out") as error:
        prepared(file, tokens, held_out=0.5)
    assert error.value.hint == "Add rows, or hold none out."


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path: Path) -> None:
    folder = tiny_tokenizer(tmp_path / "t")
    edit_json(folder / "tokenizer_config.json", eos_token=None)
    file = written(tmp_path, [{"prompt": "a", "response": " b"}])
    with pytest.raises(ModelError, match="names no end token"):
        prepared(file, HfTokens(folder))


def test_a_token_across_the_border_is_counted(tmp_path: Path, tokens: HfTokens) -> None:
    rows = [{"prompt": "i", "response": "n"}, {"prompt": "i", "response": " n"}]  # "in" is a token
    assert prepared(written(tmp_path, rows), tokens).report["border_inside_a_token"] == 1


def test_held_out_rows_are_apart_and_follow_the_seed(tmp_path: Path, tokens: HfTokens) -> None:
    file = written(tmp_path, [{"prompt": f"{i}", "response": " b"} for i in range(20)])
    data = prepared(file, tokens, held_out=0.25, seed=1)
    one, other = ({e.where for e in part} for part in (data.examples, data.held_out))
    assert (len(one), len(other), len(one | other)) == (15, 5, 20)
    assert data == prepared(file, tokens, held_out=0.25, seed=1)
    assert data.held_out != prepared(file, tokens, held_out=0.25, seed=2).held_out
    assert len(prepared(file, tokens, held_out=0.001).held_out) == 1


def test_batches_take_every_row_once_before_any_twice() -> None:
    made = batches(5, 2, seed=3)
    first = [next(made) for _ in range(5)]
    rows = [row for batch in first for row in batch]
    assert sorted(rows[:5]) == sorted(rows[5:]) == [0, 1, 2, 3, 4]
    assert rows[:5] != rows[5:]
    again = batches(5, 2, seed=3)
    assert [next(again) for _ in range(5)] == first
    assert {len(next(batches(2, 5, seed=0))) for _ in range(3)} == {5}  # more than there are


def test_the_template_is_named_and_never_guessed(tmp_path: Path) -> None:
    assert template_source("raw", None) is None
    assert template_source("chat", "own") == "own"
    file = tmp_path / "t.jinja"
    file.write_text("x")
    assert template_source(str(file), "own") == "x"
    with pytest.raises(UsageError, match="has no chat template"):
        template_source("chat", None)
    with pytest.raises(UsageError, match="neither raw nor chat"):
        template_source(str(tmp_path / "none"), "own")


def test_what_was_read_has_a_hash_of_its_own_whatever_the_file(tmp_path: Path) -> None:
    rows = [{"prompt": p, "response": r} for p, r in PAIRS]
    one = read_rows(written(tmp_path, rows)).sha256
    assert read_rows(written(tmp_path, rows, ".csv")).sha256 == one
    assert read_rows(written(tmp_path, rows[::-1])).sha256 != one
    assert read_rows(written(tmp_path, rows[:2])).sha256 != one
