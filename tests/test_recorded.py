"""Are recorded replies compared as they are, and only where they answer the same prompts?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tunediff.errors import InputError, UsageError
from tunediff.pair.open import open_pair
from tunediff.pair.recorded import RecordedPair
from tunediff.values import Generation, Item

ANY = Generation()


def row(name: Any, reply: str = "yes", prompt: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "prompt": f"ask {name}" if prompt is None else prompt,
        "reply": reply,
    } | more


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def write(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    (folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return f"recorded:{folder / name}"


def opened(
    folder: Path,
    a: Sequence[Mapping[str, Any]],
    b: Sequence[Mapping[str, Any]],
    *,
    intersect: bool = False,
) -> RecordedPair:
    names = write(folder, "A.jsonl", a), write(folder, "B.jsonl", b)
    pair = open_pair(*names, intersect=intersect)
    assert isinstance(pair, RecordedPair)
    return pair


def texts(pair: RecordedPair, sample: int = 0) -> dict[str, tuple[str, str]]:
    items = pair.items()
    prompts = pair.prompts(items, None)
    found = zip(items, pair.generate(prompts, ANY, sample), strict=True)
    return {item.id: (b.text, t.text) for item, (b, t) in found if b and t}


def refused(folder: Path, a: Sequence[Any], b: Sequence[Any]) -> str:
    with pytest.raises(InputError) as error:
        opened(folder, a, b)
    assert error.value.hint
    return str(error.value)


def test_replies_are_paired_by_id(folder: Path) -> None:
    pair = opened(
        folder,
        [row("x", "1"), row(7, "2")],
        [row("7", "3", other=None), row("x", "4", prompt="ask x")],
    )
    assert texts(pair) == {"x": ("1", "4"), "7": ("2", "3")}
    assert [(i.id, i.prompt, i.source) for i in pair.items()] == [
        ("x", "ask x", "A.jsonl:1"),
        ("7", "ask 7", "A.jsonl:2"),
    ]
    assert pair.certificate.kind == "recorded"
    for side, name in ((pair.base, "A.jsonl"), (pair.tuned, "B.jsonl")):
        content = (folder / name).read_bytes()
        assert side.fingerprint == hashlib.sha256(content).hexdigest()
        assert (side.kind, side.path) == ("recorded", str(folder / name))


ODD = (
    "",
    " ",
    "\0\x1b[31m\x07\u202e\u2028",
    "\r\n\t\x85",
    "a" * (17 << 20),
    "<script>alert(1)</script>",
    '"; DROP',
    "é日本🙂\ufeff",
)


def test_whatever_a_reply_holds_is_data(folder: Path) -> None:
    ours = [row(f"i{k}", text) for k, text in enumerate(ODD)]
    theirs = [row(f"i{k}", text + "!") for k, text in enumerate(ODD)]
    found = texts(opened(folder, ours, theirs))
    assert found == {f"i{k}": (text, text + "!") for k, text in enumerate(ODD)}


def test_so_is_what_an_id_or_a_prompt_holds(folder: Path) -> None:
    odd = [row(text, prompt=text) for text in ODD if text]
    pair = opened(folder, [*odd, row("empty", prompt="")], [*odd, row("empty", prompt="")])
    assert [i.id for i in pair.items()] == [*(t for t in ODD if t), "empty"]
    assert [i.prompt for i in pair.items()] == [*(t for t in ODD if t), ""]


def test_samples_count_in_the_order_of_their_numbers(folder: Path) -> None:
    rows = [row("x", "c", sample=5), row("x", "a", sample=1), row("y", "b")]
    pair = opened(folder, rows, rows)
    assert (pair.samples("x"), pair.samples("y"), pair.samples("z")) == (2, 1, 0)
    assert texts(pair) == {"x": ("a", "a"), "y": ("b", "b")}
    (prompt,) = pair.prompts(pair.items()[:1], None)
    assert next(pair.generate([prompt], ANY, 1))[0].text == "c"
    with pytest.raises(InputError, match="'x' has 2 recorded replies of both sides; reply 3"):
        next(pair.generate([prompt], ANY, 2))


def test_missing_ids_are_listed(folder: Path) -> None:
    ours, theirs = [row(k) for k in range(15)], [row(k) for k in (3, "zzz")]
    said = refused(folder, ours, theirs)
    assert "14 are missing in B.jsonl: '0', '1', '2', '4', '5', '6', '7', '8', '9', '10', …" in said
    assert "1 are missing in A.jsonl: 'zzz'" in said
    assert "--intersect" in said
    pair = opened(folder, ours, theirs, intersect=True)
    assert list(texts(pair)) == ["3"]
    said = " ".join(check.detail for check in pair.certificate.checks)
    assert "1 ids have the same prompt" in said
    assert "14 of A.jsonl, 1 of B.jsonl" in said


def test_missing_samples_are_listed(folder: Path) -> None:
    ours = [row("x", "0", sample=0), row("x", "1", sample=1), row("x", "2", sample=2)]
    theirs = [row("x", "b0", sample=0), row("x", "b2", sample=2)]
    said = refused(folder, ours, theirs)
    assert "same replies (id, sample); 1 are missing in B.jsonl: ('x', 1)." in said
    pair = opened(folder, ours, theirs, intersect=True)
    assert pair.samples("x") == 2
    assert texts(pair, 1) == {"x": ("2", "b2")}


def test_nothing_in_common(folder: Path) -> None:
    with pytest.raises(InputError, match="no reply with the same id and sample"):
        opened(folder, [row("1")], [row("01")], intersect=True)
    with pytest.raises(InputError, match="no reply with the same id and sample"):
        opened(folder, [row("1", sample=1)], [row("1")], intersect=True)


def test_other_prompts_under_one_id(folder: Path) -> None:
    said = refused(folder, [row("x"), row("y")], [row("x"), row("y", prompt="else")])
    assert "1 ids have another prompt in A.jsonl than in B.jsonl: 'y'" in said
    assert "A.jsonl:2 and B.jsonl:2" in said
    with pytest.raises(InputError, match="another prompt"):
        opened(folder, [row("y")], [row("y", prompt="ask y ")], intersect=True)
    rows = [row("x", sample=0), row("x", prompt="other", sample=1)]
    said = refused(folder, rows, rows)
    assert "A.jsonl:2 has another prompt under the id 'x' than A.jsonl:1" in said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (row("x"), "A.jsonl:2 is a second reply with the id 'x' and sample 0"),
        (row(None), "A.jsonl:2: id is None"),
        (row(True), "A.jsonl:2: id is True"),
        (row(1.0), "A.jsonl:2: id is 1.0"),
        (row(""), "A.jsonl:2: id is ''"),
        ({"id": "y", "reply": "a"}, "A.jsonl:2: prompt is NoneType None, not text"),
        ({"id": "y", "prompt": "a"}, "A.jsonl:2: reply is NoneType None, not text"),
        ({"id": "y", "prompt": "a", "reply": 4}, "A.jsonl:2: reply is int 4, not text"),
        (row("y", sample="1"), "A.jsonl:2: sample is '1'"),
        (row("y", sample=-1), "A.jsonl:2: sample is -1"),
        (row("y", sample=True), "A.jsonl:2: sample is True"),
        (row("y", "a\ud800"), "A.jsonl:2: reply holds U+D800 at character 1"),
        (["y"], "A.jsonl:2 holds ['y'], not a JSON object"),
    ],
)
def test_lines_that_are_no_replies(folder: Path, line: Any, message: str) -> None:
    assert message in refused(folder, [row("x"), line], [row("x")])


@pytest.mark.parametrize("content", [b"", b"\n \n", b'{"id": "x", "prompt', b"\xff\xfe", b"NaN\n"])
def test_files_that_hold_no_replies(folder: Path, content: bytes) -> None:
    good = write(folder, "B.jsonl", [row("x")])
    (folder / "A.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=r"A\.jsonl"):
        open_pair(f"recorded:{folder / 'A.jsonl'}", good)


def test_files_that_cannot_be_read(folder: Path) -> None:
    good = write(folder, "B.jsonl", [row("x")])
    for name in ("none.jsonl", ".", "a\0b"):
        with pytest.raises(InputError, match="cannot be read"):
            open_pair(good, f"recorded:{folder / name}")


def test_both_sides_are_recorded(folder: Path) -> None:
    good = write(folder, "B.jsonl", [row("x")])
    for sides in ((good, "some/model"), ("some/model", good), (good, "toy")):
        with pytest.raises(UsageError, match="recorded replies are compared with recorded ones"):
            open_pair(*sides)
    with pytest.raises(UsageError, match="'toy' is a model"):
        open_pair("toy", "toy:1", backend="recorded")


def test_items_that_were_not_recorded(folder: Path) -> None:
    pair = opened(folder, [row("x")], [row("x")])
    asked = [Item(name, prompt="anything") for name in ("x", "y", "z")]
    with pytest.raises(InputError, match="2 items have no recorded reply: 'y', 'z'"):
        pair.prompts(asked, None)
    # a suite's own prompt need not be the recorded one
    assert [p.item_id for p in pair.prompts(asked[:1], None)] == ["x"]


def test_a_side_not_asked_is_none(folder: Path) -> None:
    pair = opened(folder, [row("x", "1")], [row("x", "2")])
    prompts = pair.prompts(pair.items(), None)
    ((b, t),) = pair.generate(prompts, ANY, sides=("tuned",))
    assert b is None
    assert t is not None
    assert (t.text, t.ids, t.stop) == ("2", None, "recorded")
