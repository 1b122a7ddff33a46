"""Are the right things asked, and is whatever is wrong with an input said with its place?"""

import csv
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunediff.errors import InputError, UsageError
from tunediff.items import bounds
from tunediff.items.read import content_hash, read
from tunediff.values import Item


def put(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def refused(*sources, **options) -> str:
    with pytest.raises(InputError) as caught:
        read(*sources, **options)
    assert caught.value.hint.endswith((".", "”", '"')), "every refusal has a way out"
    return caught.value.message


# what is read


def test_prompts_are_texts_with_ids_of_their_own():
    suite = read(prompts=["one", "two"], axis="general")
    assert [(i.id, i.text, i.axis, i.group) for i in suite.items] == [
        ("prompt-1", "one", "general", None),
        ("prompt-2", "two", "general", None),
    ]
    assert suite.name == "prompts"


def test_jsonl_reads_every_form_and_alias(tmp_path):
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = [
        {"text": "t", "id": 7, "axis": "safety", "group": 3, "note": [1, None]},
        {"prompt": "p", "reply": "r"},
        {"prompt": "p", "response": "r", "text": None},
        {"prompt": "p", "completion": "r"},
        {"messages": messages},
    ]
    path = put(tmp_path, "a.jsonl", "\n\r\n".join(map(json.dumps, rows)))
    items = read(path).items
    assert items[0] == Item("7", text="t", axis="safety", group="3", source="a.jsonl:1")
    assert [(i.prompt, i.reply) for i in items[1:4]] == [("p", "r")] * 3
    assert items[4].messages == tuple(messages)
    assert [i.id for i in items] == ["7", "1", "2", "3", "4"]
    assert [i.source for i in items[1:]] == [f"a.jsonl:{n}" for n in (3, 5, 7, 9)]


def test_txt_is_one_text_kept_to_the_byte_but_for_one_newline(tmp_path):
    raw = "\ufeff  one\r\n\ttwo\x00\u2028 \n\n"
    assert read(put(tmp_path, "a.txt", raw)).items[0].text == "  one\r\n\ttwo\x00\u2028 \n"


@pytest.mark.parametrize("end", ["", "\n", "<|endoftext|>", "\n<|endoftext|>\n", "<|endoftext|>\n"])
@pytest.mark.parametrize("start", ["", "<|endoftext|>\n"])
def test_txt_splits_at_markers_which_may_begin_and_end_the_file(tmp_path, start, end):
    body = "one\n<|endoftext|>\ntwo<|endoftext|> three\n\r\n<|endoftext|>\r\n\nfour"
    items = read(put(tmp_path, "a.txt", start + body + end)).items
    assert [i.text for i in items] == ["one", "two", " three\n", "\nfour"]
    first = 2 if start else 1
    assert [i.source for i in items] == [f"a.txt:{first + n}" for n in (0, 2, 2, 5)]


def test_csv_keeps_line_ends_inside_quotes_and_drops_those_of_rows(tmp_path):
    path = put(tmp_path, "a.CSV", '\ufefftext,id\r\n"a\r\nb, ""c""\n",x\r\n\r\n=1+1,\r\n')
    items = read(path).items
    assert [(i.text, i.id, i.source) for i in items] == [
        ('a\r\nb, "c"\n', "x", "a.CSV:2"),
        ("=1+1", "1", "a.CSV:6"),
    ]
    assert csv.field_size_limit() == 131072, "the process's own limit is put back"


def test_json_list_names_the_line_of_each_element(tmp_path):
    path = put(tmp_path, "a.json", '\n[ {"text": "a"},\n\n {"text":\n "b"} ]\n')
    assert [(i.text, i.source) for i in read(path).items] == [("a", "a.json:2"), ("b", "a.json:4")]
    assert "a.json is empty" in refused(put(tmp_path, "a.json", " []"))


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b'\n {"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
        (b"plain {\n", ["plain {"]),
        (b"a<|endoftext|>b", ["a", "b"]),
    ],
)
def test_standard_input_is_jsonl_or_plain_text(monkeypatch, data, texts):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))
    suite = read("-")
    assert [i.text for i in suite.items] == texts
    assert suite.name == "stdin"
    assert suite.items[0].source.startswith("stdin:")


def test_several_files_name_their_rows_by_file(tmp_path):
    (tmp_path / "b").mkdir()
    one, two = put(tmp_path, "a.txt", "one"), put(tmp_path, "b.txt", "two")
    assert [i.id for i in read(one, two, prompts=["x"]).items] == ["a.txt:0", "b.txt:0", "prompt-1"]
    assert read(one, two).name == "a+b"
    same = put(tmp_path / "b", "a.txt", "three")
    assert [i.id for i in read(one, same).items] == [f"{one}:0", f"{same}:0"]
    assert "occurs twice" in refused(one, one)


def test_ids_with_control_characters_are_data(tmp_path):
    path = put(tmp_path, "a.jsonl", '{"id": "\\u001b[31m\\n\\u0000", "text": "t"}')
    assert read(path).items[0].id == "\x1b[31m\n\x00"
    again = put(tmp_path, "b.jsonl", path.read_text() + "\n" + path.read_text())
    assert "\x1b" not in refused(again), "but a message never sends them to a terminal"


def test_a_blank_system_message_and_an_earlier_reply_are_valid(tmp_path):
    talk = [
        {"role": "system", "content": ""},
        {"role": "user", "content": "a", "name": None},
        {"role": "assistant", "content": "b"},
    ]
    item = read(put(tmp_path, "a.jsonl", json.dumps({"messages": talk}))).items[0]
    assert item.messages is not None
    assert item.messages[1] == {"role": "user", "content": "a"}
    assert item.shown == "\na\nb"


# what is refused

OK = '{"text": "fine"}\n'
FORMS = "columns found: "
MESSAGES = {"role": "user", "content": "q"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"question": "q", "answer": "a"}', f"nothing to ask ({FORMS}'question', 'answer')"),
        ("{}", f"nothing to ask ({FORMS}none)"),
        ('{"text": null, "id": 1}', f"nothing to ask ({FORMS}'text' (empty), 'id')"),
        ('{"text": "t", "prompt": "p"}', f"more than one form ({FORMS}'text', 'prompt')"),
        ('{"text": "t", "reply": "r"}', "more than one form"),
        ('{"messages": [], "completion": "r"}', "more than one form"),
        ('{"prompt": "p", "reply": "r", "response": "r"}', "more than one reply"),
        ('{"prompt": "p"}', "has a prompt but no reply"),
        ('{"response": "p"}', "has a reply but no prompt"),
        ('{"text": ""}', "text is empty"),
        ('{"text": " \\n"}', "text is only white space"),
        ('{"prompt": "p", "reply": ""}', "reply is empty"),
        ('{"prompt": "", "completion": "r"}', "prompt is empty"),
        ('{"text": 3}', "text is int 3, not text"),
        ('{"prompt": ["p"], "reply": "r"}', "prompt is list ['p'], not text"),
        ('{"text": "t", "id": 1.0}', "id is float 1.0"),
        ('{"text": "t", "id": true}', "id is bool True"),
        ('{"text": "t", "id": ""}', "id is empty"),
        ('{"text": "t", "group": [1]}', "group is list [1]"),
        ('{"text": "t", "axis": "speed"}', "axis is 'speed', not one of target, general, safety"),
        ('{"text": "t", "axis": ["target"]}', "axis is ['target']"),
        ('{"text": "a\\ud800"}', "text holds U+D800 at character 1"),
        ('{"text": "t", "id": "\\udfff"}', "id holds U+DFFF"),
        ('{"text": NaN}', "NaN is not a JSON value"),
        ('{"text": "t", "x": [-Infinity]}', "-Infinity is not a JSON value"),
        ('{"text": "t", "text": "u"}', "the key 'text' occurs twice"),
        ('{"text": "t", "x": {"a": 1, "a": 1}}', "the key 'a' occurs twice"),
        ('{"text": "t"', "Expecting ',' delimiter (column 13)"),
        ('{"text": "t"} {}', "Extra data"),
        ('["text"]', "holds ['text'], not a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"x": ' + "1" * 5000 + "}", "Exceeds the limit"),
        ('{"messages": "hello"}', "is not the JSON needed"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "two messages or more"),
        ('{"messages": {"role": "user"}}', "two messages or more"),
        ('{"messages": ["a", "b"]}', "message 0 is 'a', not {role, content}"),
        (json.dumps({"messages": [MESSAGES, MESSAGES]}), "last message is of role 'user'"),
        (
            json.dumps({"messages": [MESSAGES, {"role": "assistant", "content": ""}]}),
            "the last message's content is empty",
        ),
        (
            json.dumps({"messages": [{**MESSAGES, "tool_calls": []}, MESSAGES]}),
            "message 0 has 'role', 'content', 'tool_calls'",
        ),
        (
            json.dumps({"messages": [MESSAGES, {"role": "assistant", "content": None}]}),
            "message 1 has 'role'",
        ),
        (
            json.dumps({"messages": [MESSAGES, {"role": "assistant", "content": [1]}]}),
            "both text, and nothing else",
        ),
        ('{"messages": [{"role": "user", "content": "\\ud9ab"}, {}]}', "content holds U+D9AB"),
    ],
)
def test_a_row_that_cannot_be_asked_is_refused_with_file_and_line(tmp_path, row, words):
    message = refused(put(tmp_path, "bad.jsonl", OK + row + "\n" + OK))
    assert message.startswith("bad.jsonl:2")
    assert words in message
    assert len(message) < 500
    in_list = f"[{OK},\n{row}]"
    assert "bad.json:" in refused(put(tmp_path, "bad.json", in_list))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv", "text,id\na\n", "a.csv:2 has 1 cells; the header has 2 columns"),
        ("a.csv", 'text\n"a\nb', "a.csv:2 is not CSV: unexpected end of data"),
        ("a.csv", "text,text\na,b\n", "a.csv:1 names the column 'text' twice"),
        ("a.csv", "text\n", "a.csv is empty"),
        ("a.csv", "text,id\n,3\n", "a.csv:2 has nothing to ask (columns found: 'text' (empty)"),
        ("a.csv", "text;id\na;3\n", "columns found: 'text;id'"),
        ("a.csv", 'messages\n"[{]"\n', "a.csv:2: messages is not the JSON needed"),
        ("a.json", '{"text": "a"}', "a.json:1 does not begin a JSON list"),
        ("a.json", '[{"text": "a"}\n{"text": "b"}]', "a.json:2 is not JSON: after an element"),
        ("a.json", '[{"text": "a"}', "came the end of the file"),
        ("a.json", '[{"text": "a"},]', "a.json:1 is not the JSON needed"),
        ("a.json", '[{"text": "a"}]\n[]', "a.json:2 goes on after the JSON list"),
        ("a.txt", "", "a.txt is empty"),
        ("a.txt", "\ufeff \n", "a.txt is empty"),
        ("a.txt", "a\n<|endoftext|>\n\n<|endoftext|>\nb", "a.txt:3: text is empty"),
        ("a.txt", b"fine\nna\xefve", "a.txt:2 is not UTF-8: byte 0xef at byte offset 7"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}', "a.jsonl:2 is not UTF-8: byte 0xff at"),
        ("a.csv", b"text\nok\n\xc0\xaf\n", "a.csv:3 is not UTF-8"),
        ("a.txt", "a".encode("utf-16"), "a.txt:1 is not UTF-8"),
        ("a.jsonl", "", "a.jsonl is empty"),
        ("a.parquet", "PAR1 nothing PAR1", "a.parquet is not a readable Parquet file"),
        ("a.parquet", "", "a.parquet is not a readable Parquet file"),
        ("a.md", "text", "a.md ends in '.md', a kind of file that is not read"),
        ("a", "text", "ends in ''"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_place(tmp_path, name, data, words):
    assert words in refused(put(tmp_path, name, data))


def test_duplicate_ids_are_refused_with_both_lines(tmp_path):
    rows = ['{"id": 1, "text": "a"}', '{"id": "2", "text": "b"}', '{"id": "1", "text": "c"}']
    path = put(tmp_path, "a.jsonl", "\n".join(rows))
    assert refused(path) == "The id '1' occurs twice: a.jsonl:1 and a.jsonl:3."
    given_and_default = put(tmp_path, "b.jsonl", '{"id": 1, "text": "a"}\n{"text": "b"}')
    assert "b.jsonl:1 and b.jsonl:2" in refused(given_and_default)
    clash = put(tmp_path, "c.jsonl", '{"id": "prompt-1", "text": "a"}')
    assert "c.jsonl:1 and prompt 1" in refused(clash, prompts=["b"])


def test_paths_that_are_no_files_are_refused(tmp_path):
    assert "There is no file" in refused(tmp_path / "none.jsonl")
    assert "is a folder" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.txt")
    assert "not a regular file" in refused(tmp_path / "pipe.txt")
    assert "cannot be read" in refused("a\0b.txt")
    assert "File name too long" in refused("a" * 5000)


def test_caps_on_line_field_and_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tunediff.items.bounds.FIELD_LIMIT", 20)
    monkeypatch.setattr("tunediff.items.formats.FIELD_LIMIT", 20)
    monkeypatch.setattr("tunediff.items.bounds.LINE_LIMIT", 100)
    monkeypatch.setattr("tunediff.items.formats.LINE_LIMIT", 100)
    assert read(put(tmp_path, "a.txt", "é" * 10)).items, "at the limit is within it"
    assert "text has 22 bytes; at most 20" in refused(put(tmp_path, "a.txt", "é" * 11))
    named = put(tmp_path, "i.jsonl", json.dumps({"text": "t", "id": "i" * 21}))
    assert "id has 21 bytes" in refused(named)
    long = OK + '{"text": "t", "x": "' + "é" * 45 + '"}'
    assert "a.jsonl:2 is a line of 112 bytes; at most 100" in refused(
        put(tmp_path, "a.jsonl", long)
    )
    assert "field larger than" in refused(put(tmp_path, "a.csv", "text\n" + "a" * 21))
    many = "a," * 60
    assert "a.csv:2 is a line of 121 bytes" in refused(put(tmp_path, "a.csv", f"text\n{many}\n"))
    monkeypatch.setattr("tunediff.items.read.FILE_LIMIT", 30)
    assert "more than 30 bytes" in refused(put(tmp_path, "a.jsonl", OK * 2))


def test_the_caps_themselves():
    assert (bounds.LINE_LIMIT, bounds.FIELD_LIMIT) == (16 * 2**20, 8 * 2**20)


def test_prompts_are_checked_like_rows(tmp_path):
    assert "prompt 2: text is empty" in refused(prompts=["a", ""])
    assert "prompt 1: text holds U+DCFF" in refused(prompts=["\udcff"])


def test_wrong_calls_are_usage_errors():
    with pytest.raises(UsageError, match="nothing to ask"):
        read()
    with pytest.raises(UsageError, match="'speed' is not one of"):
        read(prompts=["a"], axis="speed")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="one string"):
        read(prompts="abc")


def test_parquet_refuses_what_is_not_text(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", None], "other": [b"x", b"y"]}), path)
    assert "a.parquet:row 1 has nothing to ask (columns found: 'text' (empty), 'other')" in (
        refused(path)
    )
    pq.write_table(pa.table({"text": [b"bytes"]}), path)
    assert "a.parquet:row 0: text is bytes" in refused(path)
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    pq.write_table(pa.table({"text": bad}), path)
    assert "is not UTF-8" in refused(path)
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert "is empty" in refused(path)


# the same rows in another format are the same items

CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXT = st.text(CHARACTERS, min_size=1, max_size=12).filter(lambda t: t.strip())
NAME = st.text(CHARACTERS, min_size=1, max_size=6)
TALK = st.tuples(st.text(CHARACTERS, max_size=6), TEXT).map(
    lambda t: [{"role": "user", "content": t[0]}, {"role": "assistant", "content": t[1]}]
)
ROW = st.one_of(
    st.fixed_dictionaries({"text": TEXT}),
    st.fixed_dictionaries({"prompt": TEXT, "reply": TEXT}),
    st.fixed_dictionaries({"messages": TALK}),
).flatmap(
    lambda form: st.fixed_dictionaries(
        {key: st.just(value) for key, value in form.items()},
        optional={"axis": st.sampled_from(["safety", "general"]), "group": NAME},
    )
)
ROWS = st.dictionaries(NAME, ROW, min_size=1, max_size=5).map(
    lambda rows: [{"id": name, **row} for name, row in rows.items()]
)


def write_formats(rows: list[dict], folder: Path) -> list[Path]:
    columns = sorted({column for row in rows for column in row})
    paths = [folder / f"rows.{suffix}" for suffix in ("jsonl", "json", "csv", "parquet")]
    paths[0].write_bytes(b"\r\n".join(json.dumps(row, ensure_ascii=False).encode() for row in rows))
    paths[1].write_text(json.dumps(rows, indent=1))
    with paths[2].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        for row in rows:
            cells = {k: json.dumps(v) if k == "messages" else v for k, v in row.items()}
            writer.writerow(cells)
    table = {column: [row.get(column) for row in rows] for column in columns}
    pq.write_table(pa.table(table), paths[3])
    return paths


@settings(max_examples=60, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_every_format_yields_the_same_items_and_hash(rows, rng: random.Random):
    with tempfile.TemporaryDirectory() as folder:
        suites = [read(path) for path in write_formats(rows, Path(folder))]
        assert len({suite.content_hash for suite in suites}) == 1
        bare = [tuple(replace(item, source="") for item in suite.items) for suite in suites]
        assert bare[0] == bare[1] == bare[2] == bare[3]
        assert [item.id for item in bare[0]] == [row["id"] for row in rows]

        shuffled = rng.sample(rows, len(rows))
        again = read(write_formats(shuffled, Path(folder))[0]).items
        assert sorted((replace(i, source="") for i in again), key=lambda i: i.id) == sorted(
            bare[0], key=lambda i: i.id
        )


BASE = Item("1", prompt="p", reply="r", group="g")


@pytest.mark.parametrize(
    "changed",
    [
        replace(BASE, id="2"),
        replace(BASE, axis="safety"),
        replace(BASE, group=None),
        replace(BASE, prompt="p ", reply="r"),
        replace(BASE, prompt="pr", reply=""),
        Item("1", text="pr", group="g"),
        Item("1", messages=({"role": "p", "content": "r"},), group="g"),
    ],
)
def test_the_hash_changes_with_anything_asked(changed):
    assert content_hash([BASE]) != content_hash([changed])
    assert content_hash([BASE]) == content_hash([replace(BASE, source="elsewhere:9")])


def test_the_hash_is_the_same_in_another_process(tmp_path):
    row = {"messages": [MESSAGES, {"content": "é", "role": "assistant"}]}
    path = put(tmp_path, "a.jsonl", json.dumps(row))
    code = f"from tunediff.items.read import read; print(read({str(path)!r}).content_hash)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == read(path).content_hash


@pytest.mark.shared
def test_real_files(shared):
    stories = read(shared / "data/texts/tinystories_sample.txt").items
    assert len(stories) == 5
    assert all(s.text and s.text.lstrip().startswith(("Once", "One")) for s in stories[:2])
    articles = read(shared / "data/texts/wiki_demo.txt").items
    assert len(articles) == 1
    assert "columns found: 'question', 'answer'" in refused(shared / "data/gsm8k/test.jsonl")
    assert "TruthfulQA.csv:2 has nothing to ask" in refused(
        shared / "data/truthfulqa/TruthfulQA.csv"
    )
