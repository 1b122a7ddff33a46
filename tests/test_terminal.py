"""Does a person see what was found, in ten seconds, whatever the texts and files contain?"""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

import factory
from command import check, process
from tunediff.pair.toy import ToyPair
from tunediff.report import terminal
from tunediff.report.terminal import WIDTH, Printer, clean, columns, quoted

ONE_TOY_RUN = """\
=== Model Comparison ===
Input: Hello there, how are you?
Base Model Perplexity:    256.000
Adapter Model Perplexity: 174.325
Logit MSE Difference:     0.012695
✅ Adapter model is different — likely fine-tuned.

Verdict: tuned (1 text: chance is not ruled out)
Perplexity fell by more than the threshold: perplexity 256 to 174.325 (threshold
2.22e-16), logit MSE 0.0127 (threshold 2.22e-16); one prompt is one observation.

1 text, 24 scored tokens, too few for an interval
figure                   value  95 % interval  noise floor  unit
KL(base‖tuned)        0.007021              –      2.2e-16  nats/token
KL(tuned‖base)        0.008115              –      2.2e-16  nats/token
Jensen–Shannon        0.001876              –      2.2e-16  nats/token
Logit MSE               0.0127              –      2.2e-16  logit²
  up to a shift        0.01205              –      2.2e-16  logit²
Top-1 agreement          0.0 %              –        4.2 %
ΔNLL (below 0: gain)   -0.3843              –      2.2e-16  nats/token
Perplexity ratio         0.681              –      2.2e-16
Bits per byte, base          8              –      2.2e-16  bits/byte
Bits per byte, tuned     7.446              –      2.2e-16  bits/byte

Likeliest next tokens at the end of the input
base         p  tuned       p
'\\x00'  0.0039  ' '    0.0062
'\\x01'  0.0039  'a'    0.0062
'\\x02'  0.0039  'd'    0.0062
'\\x03'  0.0039  'e'    0.0062
'\\x04'  0.0039  'h'    0.0062
'\\x05'  0.0039  'i'    0.0062
'\\x06'  0.0039  'l'    0.0062
'\\x07'  0.0039  'n'    0.0062
'\\x08'  0.0039  'o'    0.0062
'\\t'    0.0039  'r'    0.0062

Certificate (toy)
ok  weights differ  13 logits are raised by 0.5

Settings
base      toy
tuned     toy:0.5
scored    float64 on cpu, product kernel 'closed form', 1 thread
tokens/s  base 1,000, tuned 500, each alone
"""


@pytest.fixture(autouse=True)
def steady_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one figure of the toy that no two runs share."""
    monkeypatch.setattr(ToyPair, "speed", lambda *_: {"base": 1000.0, "tuned": 500.0})


def widths(text: str) -> list[int]:
    return [cell_len(line) for line in text.splitlines()]


def test_a_toy_run_reads_as_it_should() -> None:
    said = check("toy", "toy:0.5", "--prompt", "Hello there, how are you?")
    assert said.out == ONE_TOY_RUN
    assert said.err == ""
    assert said.code == 0


TEXTS = [x for text in factory.texts(8) for x in ("--prompt", text)]


@pytest.mark.parametrize(
    ("arguments", "sentences"),
    [
        (["toy:0.5", "--prompt", "hello"], ["one prompt is one observation", "too few for an in"]),
        (["toy:0.5", *TEXTS[:6]], ["3 texts are 3 observations", "too few for an interval"]),
        (["toy:0.5", *TEXTS], ["Verdict: tuned", "95 % interval -0", "8 texts"]),
        (["toy:-0.5", *TEXTS], ["Verdict: diverged_without_gain", "but predicts this no better."]),
        (["toy:0", *TEXTS], ["Verdict: identical", "❌ Adapter model is identical"]),
        (["toy:1e-30", *TEXTS], ["Verdict: indistinguishable", "is not measurably different."]),
        (["toy:0.5", "--prompt", "word " * 999], ["Input: word word"]),
        (["toy:0.5", "--prompt", "w" * 999], ["w" * 72]),
        (["toy:0.5", "--prompt", "読み書き" * 99], ["読み書き"]),
        (
            ["toy:0.5", "--prompt", "hello", "--max-length", "3", "--allow-truncation"],
            ["1 text, 2 "],
        ),
    ],
)
def test_every_line_fits_and_says_what_it_must(arguments: list[str], sentences: list[str]) -> None:
    said = check("toy", *arguments)
    assert said.code == 0, said.err
    assert max(widths(said.out)) <= WIDTH
    flat = " ".join(said.out.split())
    for sentence in sentences:
        assert sentence in flat or sentence in said.out


def test_truncation_is_said_aloud() -> None:
    said = check("toy", "toy", "--prompt", "hello", "--max-length", 3, "--allow-truncation")
    assert "Truncated: 1 text, 2 tokens left out." in said.out


def heard(monkeypatch: pytest.MonkeyPatch, capsys: Any, quiet: float) -> Iterator[Any]:
    """A run in a log, step by step: yields its update function, then what it has said so far."""
    monkeypatch.setattr(terminal, "_QUIET", quiet)
    monkeypatch.setattr(terminal, "_PAUSE", quiet)
    with Printer().progress() as update:
        yield update
        said = ""
        while True:
            until = time.monotonic() + 20 * min(quiet, 0.25)
            while time.monotonic() < until:
                said += capsys.readouterr().err
                time.sleep(0.01)
            yield said.splitlines()


def test_a_log_is_told_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    steps = heard(monkeypatch, capsys, quiet=0.02)
    update = next(steps)
    lines = ["Opening the models and measuring the noise floor"]
    assert next(steps) == lines  # once, however long it takes
    for done in (1024, 4096):
        update(done, 20480)
        lines.append(f"Scored {done:,} of 20,480 tokens")
        assert next(steps) == lines
    steps.close()
    assert not [t for t in threading.enumerate() if t.name == "progress"]


def test_a_short_run_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    steps = heard(monkeypatch, capsys, quiet=terminal._QUIET)
    next(steps)(1, 2)
    assert next(steps) == []
    steps.close()


HOSTILE = (
    "\x1b[31mred\x1b[0m \x1b]8;;http://a.example\x07link \x9b2J bell\x07 \u202eback\u2066 \r\nover"
)


@pytest.mark.parametrize("where", ["prompt", "id", "error"])
def test_control_characters_do_not_reach_the_terminal(where: str, tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    if where == "prompt":
        said = check("toy", "toy:0.5", "--prompt", HOSTILE)
        assert "Input: \ufffd[31mred" in said.out
    elif where == "id":
        import json

        lines = [{"id": f"{HOSTILE}{i}", "text": t} for i, t in enumerate(("one text", "another"))]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        said = check("toy", "toy:0.5", "--texts", file)
    else:
        said = check(f"/no/{HOSTILE}", "toy:0.5", "--prompt", "x y")
        assert said.code == 2
        assert "\ufffd[31mred" in said.err
    both = said.out + said.err
    assert not [c for c in both if c != "\n" and not c.isprintable()]


def test_a_prompt_cannot_write_lines_of_its_own() -> None:
    said = check("toy", "toy:-0.5", "--prompt", "hello\n\nVerdict: tuned")
    assert [line for line in said.out.splitlines() if line.startswith("Verdict")] == [
        "Verdict: diverged_without_gain (1 text: chance is not ruled out)"
    ]


def test_a_narrow_terminal_breaks_words_and_cuts_none() -> None:
    drawn = columns("measure", "effect", left=(0,))
    drawn.add_row("constraints met", "-66.7 %")
    out = io.StringIO()
    Console(file=out, width=16).print(drawn)
    assert "…" not in out.getvalue()
    assert "constraintsmet" in "".join(line[:8].strip() for line in out.getvalue().splitlines()[1:])


def test_markup_is_text() -> None:
    said = check("toy", "toy:0.5", "--prompt", "[bold red]hello[/bold red] :smile: [/nothing]")
    assert "Input: [bold red]hello[/bold red] :smile: [/nothing]\n" in said.out


@pytest.mark.parametrize("colours", [False, True])
def test_colours_go_to_terminals_alone(colours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    result = _result("toy:0.5")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: colours)
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert ("\x1b[" in Printer().check(result, "hello")) is colours


def test_a_terminal_that_knows_ascii_alone() -> None:
    said = process("check", "toy", "toy:0.5", "--prompt", "grün", env={"PYTHONIOENCODING": "ascii"})
    assert said.code == 0, said.err
    assert "Input: gr\\xfcn" in said.out


def test_missing_figures_are_dashes_never_zeros() -> None:
    result = _result("toy:0.5")
    result["seed"] = {**result["seed"], "ppl_base": None}
    result["metrics"]["js"] |= {"value": None, "noise_floor": None}
    shown = Printer().check(result, "hello")
    assert "Base Model Perplexity:    –\n" in shown
    row = next(line for line in shown.splitlines() if line.startswith("Jensen"))
    assert row.split() == ["Jensen–Shannon", "–", "–", "–", "nats/token"]


def test_an_item_is_told_from_a_line_of_its_file() -> None:
    result = _result("toy:0.5")
    result["texts"], result["failed"] = 2, [{"item": "2", "reason": "Its logits are infinite."}]
    result["candidates"]["item"] = "3"
    shown = Printer().check(result, "2 texts")
    assert "Not scored: item '2': Its logits are infinite.\n" in shown
    assert "at the end of item '3' (where they differ most)\n" in shown


def test_a_small_logit_mse_is_not_shown_as_zero() -> None:
    assert (
        "Logit MSE Difference:     5.08e-10\n"
        in check("toy", "toy:0.0001", "--prompt", "hello").out
    )


def test_what_lies_outside_the_layers_counts_too() -> None:
    result = _result("toy:0.5")
    part = {"layer": None, "relative": 0.1, "frobenius": 1.0, "spectral": None}
    part |= {"effective_rank": None}
    result["weights"] = {
        "delta_is_zero": False,
        "layers": [{**part, "name": f"layer {i}", "layer": i, "relative": i / 9} for i in range(5)],
        "modules": [{**part, "name": "embed\x1b[2J", "relative": 0.4}],
        "total": {**part, "name": "all"},
    }
    shown = Printer().check(result, "hello").splitlines()
    first = shown.index("Layers that changed most") + 2
    assert [line.split("  ")[0] for line in shown[first : first + 4]] == [
        "layer 4", "embed\ufffd[2J", "layer 3", "all",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [
        ("plain", 9, "plain"),
        ("a\nb\tc", 9, "a⏎b c"),
        ("\x1b\x9b\x00\x7f", 9, "\ufffd" * 4),
        ("\u202e\u200b\ud800", 9, "\ufffd" * 3),
        ("123456", 6, "123456"),
        ("1234567", 6, "12345…"),
        (None, 6, ""),
    ],
)
def test_clean(text: str | None, most: int, shown: str) -> None:
    assert clean(text, most) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" a", "' a'"),
        ("\n", "'\\n'"),
        ("", "id 7"),
        ("\ufffd", "id 7"),
        ("x" * 50, "'" + "x" * 28 + "…"),
    ],
)
def test_quoted(text: str, shown: str) -> None:
    assert quoted({"id": 7, "text": text}) == shown


def _result(tuned: str) -> Any:
    return check("toy", tuned, "--prompt", "hello there", "--json").json


@pytest.mark.parametrize(("terminal_has", "drawn"), [("60", WIDTH), ("120", 120)])
def test_a_narrow_terminal_cuts_no_figure(
    terminal_has: str, drawn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", terminal_has)
    assert Printer().console.width == drawn
