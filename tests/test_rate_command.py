"""Does ``tunediff rate`` serve, end, evaluate, and refuse what it cannot do?"""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import socket
import subprocess
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from command import Said, command, environment, process, started
from rating import answer_of, begun, replied, request, triples
from tunediff.findings.scorecard import scorecard
from tunediff.rating import serve
from tunediff.report.tables import write_tables
from tunediff.run.store import Run
from tunediff.studies.compare import measure_compare

COUNT = 30


def rate(*arguments: Any) -> Said:
    return command("rate", *arguments)


def rated(run: Run, names: Sequence[str] = ("Ann", "Ben")) -> None:
    """Two people who prefer tuned's reply to most of the items."""
    with begun(run) as study:
        for number, name in enumerate(names):
            standing = study.store.join(name)
            while standing.showing:
                k = int(standing.showing.key.item.removeprefix("item-"))
                tuned = 5 if (k + number) % 4 else 1
                preference = "tuned" if tuned == 5 else "base" if k % 3 else "tie"
                answer = answer_of(standing, 2 + k % 2, tuned, preference, f"note {k}")
                standing = study.store.rate(name, standing.showing.ticket, answer)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = replied(tmp_path_factory.mktemp("rating"), triples(COUNT))
    write_tables(run.folder, [run], scorecard([run]))
    return run


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(made.folder, tmp_path / "run"))


# the page


@contextmanager
def serving(run: Run, *options: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """The command in a process of its own; its address, and the lines before it."""
    command_ = started("rate", run.folder, *options)
    with subprocess.Popen(
        command_, env=environment({"PYTHONUNBUFFERED": "1"}), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as served:  # fmt: skip
        try:
            assert served.stdout is not None
            lines = []
            while not (line := served.stdout.readline().strip()).startswith("http://"):
                lines.append(line)
            yield served, line, lines
        finally:
            served.kill()


def test_it_serves_until_ctrl_c_and_says_what_is_kept(run: Run) -> None:
    with serving(run) as (served, address, lines):
        assert lines[0] == "Rate 20 items, 2 of them twice: base against tuned, blind, at"
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/[\w-]{32}/)", address)
        assert found is not None
        port, path = int(found[1]), found[2]
        assert request(port, "GET", path)[0] == 200
        status, _, answer = request(port, "POST", f"{path}api/join", body={"rater": "Ann"})
        showing = json.loads(answer)["showing"]
        said = {"rater": "Ann", "showing": showing["id"], "a": 1, "b": 2, "prefer": "b", "note": ""}
        status, _, answer = request(port, "POST", f"{path}api/rate", body=said)
        assert (status, json.loads(answer)["done"]) == (200, 1)
        served.send_signal(signal.SIGINT)
        out, err = served.communicate(timeout=30)
        assert (served.returncode, err) == (0, "")
        assert out.endswith(
            "\nEnded. Rated: Ann 1 of 22. The same command goes on; with --export\n"
            "it says what people prefer.\n"
        )
        assert "Traceback" not in out
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    with serving(run) as (served, other, _):
        assert other.rpartition(":")[2] != address.rpartition(":")[2]  # another token
        _, _, answer = request(
            int(other.split(":")[2].split("/")[0]), "POST",
            "/" + other.split("/")[3] + "/api/join", body={"rater": "Ann"},
        )  # fmt: skip
        assert json.loads(answer)["done"] == 1


def test_the_name_and_the_port_can_be_given(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving(run, "--rater", "Ann <b>", "--port", str(port), "--items", "5") as (
        _,
        address,
        lines,
    ):
        assert lines[0] == "Rate 5 items: base against tuned, blind, at"
        assert address.startswith(f"http://127.0.0.1:{port}/")
        assert address.endswith("/#Ann%20%3Cb%3E")


def test_a_port_that_is_taken_is_told(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = rate(run.folder, "--port", port)
    assert said.code == 2
    assert said.err.startswith(f"Error: Port {port} cannot be used: Address already in use.")
    assert not (run.folder / "ratings.sqlite").exists()


def test_without_the_extra_it_says_what_to_install(run: Run) -> None:
    missing = "sys.modules['starlette.applications'] = None; sys.modules['starlette'] = None"
    said = process("rate", run.folder, before=missing)
    assert said.code == 2
    assert said.err == (
        "Error: This needs starlette, which is not installed.\n"
        "Install it with: pip install 'tunediff[rate]'\n"
    )
    rated(run)
    assert process("rate", run.folder, "--export", before=missing).code == 0  # which needs none


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_a_browser_is_opened_from_a_terminal_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    def opened(self: Any, address: str) -> None:
        shown.append(address)

    shown: list[str] = []
    window = webbrowser.BackgroundBrowser("any")
    monkeypatch.setattr(webbrowser.BackgroundBrowser, "open", opened)
    monkeypatch.setattr(webbrowser.GenericBrowser, "open", opened)
    monkeypatch.setattr(webbrowser, "get", lambda: window)
    if terminal:
        monkeypatch.setattr(io, "StringIO", _Terminal)
    monkeypatch.setattr(serve, "serve", lambda *_: None)
    said = rate(run.folder)
    assert said.code == 0
    assert shown == [line.strip() for line in said.out.splitlines() if "http" in line][:terminal]
    assert rate(run.folder, "--no-open").code == 0
    assert len(shown) == terminal
    # one of the terminal's own would hide what is printed
    monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.GenericBrowser("any"))
    assert rate(run.folder).code == 0
    assert len(shown) == terminal


def test_no_browser_is_no_fault(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(webbrowser, "get", none)
    monkeypatch.setattr(io, "StringIO", _Terminal)
    monkeypatch.setattr(serve, "serve", lambda *_: None)
    assert rate(run.folder).code == 0


# what people say


def test_the_export(run: Run) -> None:
    rated(run)
    said = rate(run.folder, "--export")
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert lines[0] == "=== What people say ==="
    assert lines[2] == "rated  40 ratings of 20 items by 2, blind"
    assert lines[4].startswith("Tuned wins ")
    assert any(line.startswith("preference (nominal)") for line in lines)
    assert any(line.startswith("Cohen's kappa, Ann and Ben: ") for line in lines)
    assert lines[-1] == f"Kept in {run.folder}: ratings.json, metrics.csv, summary.json"
    assert all(len(line) <= 80 for line in lines[:-1])
    exported = json.loads((run.folder / "ratings.json").read_bytes())
    assert exported["schema_version"] == 1
    assert exported["study"] == {"items": 20, "pool": COUNT, "suites": [], "seed": 0}
    assert exported["raters"] == [
        {"rater": name, "rated": 22, "of": 22} for name in ("Ann", "Ben")
    ]  # fmt: skip
    assert len(exported["ratings"]) == 44
    for line in exported["ratings"]:
        k = int(line["item"].removeprefix("item-"))
        assert line["base"] == 2 + k % 2
        assert line["note"] == f"note {k}"
        assert line["axis"] == "target"


def test_json_is_the_file_and_nothing_else(run: Run) -> None:
    rated(run)
    said = rate(run.folder, "--export", "--json")
    assert said.json == json.loads((run.folder / "ratings.json").read_bytes())
    assert said.err == ""
    assert rate(run.folder, "--export", "--json") == said


def test_names_can_be_left_out(run: Run) -> None:
    rated(run, ("Ann", "Ben <b>"))
    named, numbered = (rate(run.folder, "--export", "--json", *m) for m in ((), ("--anonymous",)))
    for name in ("Ann", "Ben <b>"):
        assert json.dumps(name)[1:-1] in named.out
        assert json.dumps(name)[1:-1] not in numbered.out
    assert [r["rater"] for r in numbered.json["raters"]] == ["rater 1", "rater 2"]
    assert numbered.json["summary"]["win_rate"] == named.json["summary"]["win_rate"]


def test_ratings_enter_the_run_as_measures(run: Run) -> None:
    before = scorecard([run])
    assert before["variants"][0]["ratings"] is None
    parts = {path: path.read_bytes() for path in run.folder.glob("*/part-*")}
    rated(run)
    exported = rate(run.folder, "--export", "--json").json
    summary = json.loads((run.folder / "summary.json").read_bytes())
    assert summary["variants"][0]["ratings"] == exported["summary"]
    assert scorecard([run]) == summary
    summary["variants"][0]["ratings"] = None
    assert summary == before  # nothing else moved
    metrics = pd.read_csv(run.folder / "metrics.csv").set_index("id")
    assert metrics["human_preference_effect"].count() == 20
    wins = metrics["human_preference_tuned"].mean()
    assert wins == pytest.approx(exported["summary"]["win_rate"]["value"])
    adherence = exported["summary"]["measures"]["human_adherence"]
    assert metrics["human_adherence_tuned"].mean() == pytest.approx(adherence["tuned"])
    assert {path: path.read_bytes() for path in run.folder.glob("*/part-*")} == parts
    shown = " ".join(command("compare", *_again(run)).out.split())
    assert f"What people say, blind Tuned wins {100 * wins:.1f} %" in shown
    assert json.loads(command("compare", *_again(run), "--json").out) == {
        **summary, "variants": [{**summary["variants"][0], "ratings": exported["summary"]}],
    }  # fmt: skip


def _again(run: Run) -> list[Any]:
    """The command that made the run."""
    paths = run.record["found"]["paths"]
    return [*(f"recorded:{paths[side]}" for side in ("base", "tuned")), "--out", run.folder]


def test_the_folder_of_one_of_several_tuned_models_can_be_rated(tmp_path: Path) -> None:
    replied(tmp_path / "made", triples(8))
    base, tuned = (f"recorded:{tmp_path / 'made' / side}.jsonl" for side in ("base", "tuned"))
    out = tmp_path / "both"
    runs = measure_compare(base, [tuned, base], (), out, opening={"backend": "auto"})
    said = rate(out)
    assert said.code == 2
    assert said.err == (
        f"Error: {out} holds the runs of 2 tuned models, and people rate one at a time.\n"
        f"Give one of them: {out / 'tuned'}, {out / 'base'}.\n"
    )
    rated(runs[0])
    said = rate(out / "tuned", "--export")
    assert said.code == 0, said
    assert said.out.endswith(f"\nKept in {out / 'tuned'}: ratings.json\n")
    card = scorecard(runs)
    assert card["variants"][0]["ratings"]["items"] == 8
    assert card["variants"][1]["ratings"] is None


def test_few_ratings_of_one_person_are_said_as_such(run: Run) -> None:
    with begun(run) as study:
        standing = study.store.join("Ann")
        for _ in range(3):
            assert standing.showing is not None
            answer = answer_of(standing, 3, 3, "tie")
            standing = study.store.rate("Ann", standing.showing.ticket, answer)
    said = rate(run.folder, "--export")
    assert said.code == 0, said
    text = " ".join(said.out.split())
    assert "rated 3 ratings of 3 items by 1, blind" in text
    assert "Tuned wins 50.0 % (no interval: too few for an interval): unclear" in text
    assert "no item was rated by two raters" in text


def test_names_and_notes_that_are_odd_stay_text(run: Run) -> None:
    names = (
        "=HYPERLINK(1)",
        "<script>alert(1)</script>",
        "\N{HEBREW LETTER ALEF}\u0301 [bold]x[/]",
    )
    rated(run, names)
    said = rate(run.folder, "--export")
    assert said.code == 0
    assert "[bold]x[/]" in said.out
    assert "<script>" in said.out
    assert [r["rater"] for r in rate(run.folder, "--export", "--json").json["raters"]] == list(
        names
    )


# what is refused

BAD: dict[str, tuple[tuple[Any, ...], str]] = {
    "nobody rated": (("--export",), "Nobody has rated"),
    "json alone": (("--json",), "--anonymous and --json belong to --export."),
    "anonymous alone": (("--anonymous",), "--anonymous and --json belong to --export."),
    "no items": (("--items", 0), "Invalid value for '--items'"),
    "no such suite": (("--suite", "x"), "The run has no replies to a suite 'x'."),
    "no such port": (("--port", 70_000), "Invalid value for '--port'"),
    "a negative seed": (("--seed", -1), "Invalid value for '--seed'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_words(case: str, made: Run) -> None:
    arguments, message = BAD[case]
    before = sorted(made.folder.iterdir())
    said = rate(made.folder, *arguments)
    assert (said.code, said.out if "--json" not in arguments else "") == (2, "")
    assert message in said.err + said.out
    assert "Traceback" not in said.err
    assert sorted(made.folder.iterdir()) == before


def test_a_folder_that_is_no_run_or_has_no_replies_is_refused(tmp_path: Path) -> None:
    said = rate(tmp_path)
    assert said.code == 2
    assert "is not a run folder" in said.err
    asked = ("--suite", "knowledge", "--limit", 6, "--max-new-tokens", 0, "--out", tmp_path / "r")
    assert command("compare", "toy", "toy:0.5", *asked).code == 0
    said = rate(tmp_path / "r")
    assert said.code == 2
    assert "has no replies that people could rate" in said.err
    checked = ("check", "toy", "toy:0.5", "--prompt", "a text", "--out", tmp_path / "c")
    assert command(*checked).code == 0
    said = rate(tmp_path / "c")
    assert said.code == 2
    assert "is a run of tunediff check, which makes no replies" in said.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda kept: kept | {"schema_version": 2}, "schema version 2; this tunediff reads up to"),
        (lambda kept: kept | {"ratings": []}, "is damaged: it holds what is no rating"),
        (lambda kept: kept | {"ratings": [{}]}, "is damaged: 'rater'"),
        (lambda kept: {"schema_version": 1}, "is damaged: 'variant'"),
        (lambda kept: kept | {"ratings": [kept["ratings"][0] | {"base": 6}]}, "is no rating"),
        (lambda kept: kept | {"ratings": [kept["ratings"][0] | {"base": True}]}, "is no rating"),
        (lambda kept: kept | {"ratings": [kept["ratings"][0] | {"again": True}]}, "the first"),
        (lambda kept: kept | {"ratings": kept["ratings"][:1] * 2}, "a rating is there twice"),
        (lambda kept: kept | {"study": {"suites": None}}, "does not say what was rated"),
        (lambda kept: [], "is damaged"),
    ],
)
def test_a_damaged_export_is_told(run: Run, change: Any, words: str) -> None:
    rated(run)
    kept = rate(run.folder, "--export", "--json").json
    (run.folder / "ratings.json").write_text(json.dumps(change(kept)), encoding="utf-8")
    said = command("compare", *_again(run))
    assert said.code == 2, said
    assert words in said.err
    assert "rate RUN --export" in said.err or "newer" in said.err
