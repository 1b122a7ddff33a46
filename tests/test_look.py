"""Does ``tunediff look`` show a text of a run, in colour and without, and harm no terminal?"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from command import Said, command, process
from comparison import AnsweringPair, small_comparison
from faults import FakePair, texts
from tunediff.findings.microscope import Microscope
from tunediff.report.look import draw_item, draw_spans
from tunediff.run.measuring import measure
from tunediff.run.store import Run
from tunediff.specimens import load
from tunediff.values import Encoded, Item, Reply, Suite

FEW = ("--data", load.suite("target"), "--limit", 3, "--max-new-tokens", 12)
HOSTILE = "\x1b[31m\x1b]0;x\x07 \u202edesrever\u200f \x00 日本 e\u0301 [/bold] [red]"


def look(*arguments: Any) -> Said:
    return command("look", *arguments)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two tuned models."""
    folder = tmp_path_factory.mktemp("compare") / "run"
    tuned = (load.HERE / "skill", load.HERE / "noop")
    said = command("compare", load.base(), *tuned, *FEW, "--look", "numbering-02", "--out", folder)
    assert said.code == 0, said
    return folder


@pytest.fixture
def skill(kept: Path) -> Path:
    return kept / "skill"


def harmless(out: str) -> bool:
    """Every character is seen or ends a line."""
    return all(c.isprintable() or c == "\n" for c in out)


def test_an_item(skill: Path) -> None:
    said = look(skill, "numbering-01")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "=== data:numbering-01, the reference ==="
    figures = r"NLL 11\.7 base, 0\.003\d+ tuned; KL 13 \(floor \d\.?\d*e-\d+\)"
    assert re.fullmatch(rf"8 tokens; nats/token: {figures}", lines[1])
    assert lines[2] == "[token Δ ln p]: 1 nat or more"
    text = " ".join(lines[4:6])
    assert text.startswith("<s>Q: Number bread and salt.⏎ A:[ ")
    figures = [float(x) for x in re.findall(r" ([+-]\d+\.\d)\]", said.out)]
    scope = Microscope.of(Run.open(skill))
    reading = scope.reading("data", "numbering-01")
    assert reading is not None
    wanted = [t.delta_logp for t in reading.tokens if t.scored]
    assert figures == [round(x, 1) for x in wanted if x is not None and abs(x) >= 1]
    assert any(re.match(r"  base   '.*' 1\.00  ' salt' <\.01", line) for line in lines)
    assert any(line.startswith("  tuned  ' bread' ") for line in lines)
    assert "The replies part at token 1" in lines
    assert "base   salt and bread" in lines
    assert any(line.startswith("       ' salt': p 0.999 under base, 0.0001") for line in lines)
    assert all(len(line) <= 80 for line in lines)
    assert harmless(said.out)


def test_no_model_is_needed_nor_torch(skill: Path) -> None:
    loaded = "print([m for m in ('torch', 'transformers', 'pandas', 'scipy') if m in sys.modules])"
    said = process("look", skill, "numbering-01", after=loaded)
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[-1] == "[]"


def test_another_text_of_it_by_kl(skill: Path) -> None:
    said = look(skill, "data:numbering-01", "--of", "base", "--by", "kl")
    assert said.out.startswith("=== data:numbering-01, base's reply ===\n")
    assert "[token KL]: 1 nat or more" in said.out
    assert re.search(r"A:\[ salt \d\.\d\] and", said.out)
    assert "Tokens that changed most in KL, and what either expected in their place" in said.out


def test_the_worst_spans(skill: Path) -> None:
    said = look(skill, "--of", "base")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "=== Where the tuned model lost most ==="
    scope = Microscope.of(Run.open(skill))
    first = scope.worst_spans(1, "loss", "base")[0]
    assert lines[1].startswith(f"data:{first.item}, base's reply: Δ ln p -")
    assert f"[{first.text}]" in lines[2]
    assert lines[-2] == "Candidates are kept of 3 items. To look at one:"
    assert lines[-1] == f"  tunediff look {skill} data:{first.item}"
    assert all(len(line) <= 80 for line in lines[:-1])
    again = command(*lines[-1].split()[1:])  # the command that it names works
    assert again.code == 0
    assert "Where the models differ most" in look(skill, "--by", "kl").out
    one = look(skill, "--by", "kl", "--count", 1).out
    assert one.count(", the reference: ") == 1  # of these where there are any


def test_json_is_one_object(skill: Path) -> None:
    found = look(skill, "numbering-02", "--json").json
    assert set(found) == {"suite", "item", "reading", "reason", "parting"}
    reading = Microscope.of(Run.open(skill)).reading("data", "numbering-02")
    assert reading is not None
    tokens = found["reading"]["tokens"]
    assert "".join(t["text"] for t in tokens) == reading.text
    assert tokens[-1]["nll_base"] == reading.tokens[-1].nll_base
    assert len(tokens[-1]["base"]) == 5
    assert set(tokens[-1]["base"][0]) == {"token", "text", "p"}
    assert set(found["parting"]) == {*("suite", "item", "part", "token", "common", "base", "tuned")}
    spans = look(skill, "--json", "--count", 2, "--of", "base").json
    assert len(spans["spans"]) == 2
    assert ["data", "numbering-02"] in spans["looked_at"]


def test_nothing_changed_is_said(kept: Path) -> None:
    assert "No token of the run is such." in look(kept, "--variant", "noop").out
    said = look(kept, "numbering-01", "--variant", "noop").out
    assert "Both models reply the same\n" in said
    assert "A: 1. bread⏎" in said  # nothing is marked


def test_which_of_several(kept: Path) -> None:
    error = look(kept, "numbering-01", "--json").error
    assert error["message"].endswith("holds 2 tuned models, skill, noop; none was named.")
    assert error["hint"] == "Add --variant skill."
    error = look(kept, "--variant", "skil", "--json").error
    assert error["message"].endswith("skill, noop; --variant skil came.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["numbring-01"], "There is no item 'numbring-01'. Did you mean 'data:numbering-01'"),
        (["numbering-01", "--of", "me"], "Invalid value for '--of'"),
        (["numbering-01", "--by", "ppl"], "Invalid value for '--by'"),
        (["--count", 0], "Invalid value for '--count'"),
    ],
)
def test_bad_input_is_refused_in_words(skill: Path, arguments: list[Any], message: str) -> None:
    error = look(skill, *arguments, "--json").error
    assert error["message"].startswith(message)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    assert look(tmp_path, "--json").error["message"].endswith("it has no run.json.")
    inside = tmp_path / "sweep" / "compare"
    inside.mkdir(parents=True)
    (inside / "variants.json").write_text("[]")
    assert look(tmp_path / "sweep", "--json").error["hint"] == f"Give {inside}."
    record = {"schema_version": 1, "found": {"parts": 0}, "identity": {}, "finished": {}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    error = look(tmp_path, "--json").error
    assert "has schema version 1, which an older tunediff wrote" in error["message"]
    assert error["hint"] == "Run the command again with another --out."


def test_an_item_to_keep_that_is_not_asked(tmp_path: Path) -> None:
    pair = (load.base(), load.HERE / "noop")
    out = ("--out", tmp_path / "run", "--json")
    error = command("compare", *pair, *FEW, "--look", "numbering-99", *out).error
    assert error["message"].startswith("There is no item 'numbering-99'.")
    assert not (tmp_path / "run").exists()
    (tmp_path / "a").write_text('{"id": "x", "prompt": "p", "reply": "r"}\n')
    recorded = f"recorded:{tmp_path / 'a'}"
    error = command("compare", recorded, recorded, "--look", "x", *out).error
    assert error["message"] == "--look came with recorded replies, which were made before."


def test_recorded_replies_part_by_their_characters(tmp_path: Path) -> None:
    for name, reply in (("a", "a nice day"), ("b", "a night")):
        (tmp_path / name).write_text(json.dumps({"id": "x", "prompt": "p", "reply": reply}))
    command("compare", *(f"recorded:{tmp_path / n}" for n in "ab"), "--out", tmp_path / "run")
    said = look(tmp_path / "run", "x")
    assert said.out == (
        "=== recorded:x ===\n"
        "Recorded replies are known by their text alone: no token was scored.\n\n"
        "The replies part\nboth   a ni\nbase   ce day\ntuned  ght\n"
    )
    assert look(tmp_path / "run", "x", "--json").json["reason"].startswith("Recorded replies")
    said = look(tmp_path / "run")
    assert "Recorded replies are known by their text alone: no token was scored.\n" in said.out
    assert "To look at an item:\n" in said.out


def test_a_run_of_check(tmp_path: Path) -> None:
    measure(FakePair(bad="i2"), texts(), out=tmp_path)
    said = look(tmp_path, "i1")
    assert said.out.startswith("=== texts:i1, the reference ===\n")
    assert "compare --look" in said.out  # no candidates are kept
    assert look(tmp_path, "i2").out == (
        "=== texts:i2 ===\nNo token of it was scored. Its logits are not finite.\n"
    )
    assert look(tmp_path, "i1", "--of", "base", "--json").error["message"] == (
        "Of texts:i1 no text 'base' was scored; there is reference."
    )


# without colour, with it, and what must not reach a terminal


class Hostile(AnsweringPair):
    """A pair that says what no terminal should be told."""

    def generate(self, prompts: Sequence[Encoded], *_: Any, **__: Any) -> Any:
        for _prompt in prompts:
            yield tuple(Reply(said, tuple(said.encode())) for said in (HOSTILE, HOSTILE[::-1]))

    def token_text(self, token_id: int) -> str:
        return f"\x1b[3{token_id % 8}m\x07"


@pytest.fixture
def hostile(tmp_path: Path) -> Run:
    item = Item("\x1b[2J\x07id", prompt=HOSTILE, reply=HOSTILE)
    items = Suite("odd\x1b", (item,), "h" * 64)
    return small_comparison(tmp_path / "run", Hostile(), suites=[items])


@pytest.mark.parametrize("of", ["reference", "base", "tuned"])
def test_no_escape_reaches_a_terminal(hostile: Run, of: str) -> None:
    said = look(hostile.folder, "\x1b[2J\x07id", "--of", of)
    assert said.code == 0
    assert harmless(said.out)
    assert "日" in said.out
    assert "[/bold] [red]" in said.out.replace("\n", " ")  # no markup is read
    assert harmless(look(hostile.folder).out)


def test_an_escape_that_gets_through_is_found_out(
    hostile: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunediff.report.look.clean", lambda text, _most=0: text)
    with pytest.raises(AssertionError):
        test_no_escape_reaches_a_terminal(hostile, "base")


def drawn(run: Run, item: str, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=80, highlight=False, markup=False, **options)
    scope = Microscope.of(run)
    reading = scope.reading("data", item)
    return draw_item(console, scope, "data", item, reading, "logp")


def test_colour_stands_for_the_marks(skill: Path) -> None:
    run = Run.open(skill)
    options: dict[str, Any] = {"force_terminal": True, "color_system": "standard"}
    coloured = drawn(run, "numbering-01", **options, no_color=False)
    assert "green: likelier under tuned, red: less likely, from 0.1, 1, 3 nats" in coloured
    assert "\x1b[7;32m bread\x1b[0m" in coloured
    assert "\x1b[2m Number" in coloured  # the prompt is grey
    assert "[ bread" not in coloured
    plain = drawn(run, "numbering-01", **options, no_color=True)
    assert "[ bread +12.9]" in plain
    assert "\x1b[7" not in plain
    log = drawn(run, "numbering-01", color_system=None)
    assert "\x1b" not in log
    assert "[ bread +12.9]" in log
    red = draw_spans(Console(file=io.StringIO(), width=80, **options),
                     Microscope.of(run).worst_spans(1, "loss"), "logp", 0, "x", "")  # fmt: skip
    assert "\x1b[31m[" in red
