"""Does ``tunediff compare`` answer with a scorecard, keep what it says, and refuse bad input?"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from command import Said, command, environment, process, started
from faults import Disk, Killed, contents
from tunediff.findings.scorecard import scorecard
from tunediff.items.named import read_suites
from tunediff.pair.from_files import weigh
from tunediff.pair.hf import HfPair
from tunediff.report.tables import write_tables
from tunediff.run.store import Run
from tunediff.run.variants import open_runs
from tunediff.specimens import load
from tunediff.studies.compare import measure_compare
from tunediff.values import Generation

BASE = load.base()
SKILL, NOISE = (load.HERE / name for name in ("skill", "noise"))
SUITES = [x for n in ("target", "general") for x in ("--suite", f"{n}={load.suite(n)}")]
FEW = (*SUITES, "--limit", 8, "--max-new-tokens", 20)


def compare(*arguments: Any) -> Said:
    return command("compare", *arguments)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def promised(folder: Path) -> dict[str, bytes]:
    """What a killed run that went on has in common with one that was not; not the speed."""
    return {name: data for name, data in contents(folder).items() if "summary.json" not in name}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    folder = tmp_path_factory.mktemp("compare") / "run"
    return folder, compare(BASE, SKILL, *FEW, "--out", folder)


# the scorecard, the object, the files


def test_the_scorecard(kept: tuple[Path, Said]) -> None:
    folder, said = kept
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert lines[0] == "=== What changed ==="
    assert lines[3] == "asked  prompts raw; replies greedy, at most 20 tokens"
    assert any(line.startswith("target better · general ") for line in lines)
    assert any("exact match" in line and "better (lost" in line for line in lines)
    assert lines[-1] == f"Kept in {folder}: outputs.csv, metrics.csv, summary.json"
    assert all(len(line) <= 80 for line in lines[:-1])


def test_json_is_the_summary_and_nothing_else(kept: tuple[Path, Said]) -> None:
    folder, _ = kept
    before = promised(folder)
    said = compare(BASE, SKILL, *FEW, "--out", folder, "--json")
    assert said.code == 0
    assert said.json == json.loads((folder / "summary.json").read_bytes())
    assert said.err == ""
    assert promised(folder) == before
    assert said.json["schema_version"] == 1
    (variant,) = said.json["variants"]
    assert variant["name"] == "skill"
    assert set(variant["axes"]) == {"target", "general"}
    assert set(variant["measures"]) == {"target", "general"}
    assert variant["axes"]["target"]["verdict"] == "better"


def test_a_process_of_its_own_writes_nothing_else() -> None:
    said = process("compare", "toy", "toy:0.5", *FEW, "--json")
    assert said.code == 0, said.err
    assert said.json["variants"][0]["axes"]["target"]["verdict"] == "better"
    assert said.err == ""


def test_the_files_hold_what_was_said(kept: tuple[Path, Said]) -> None:
    folder, _ = kept
    run = Run.open(folder)
    outputs = pd.read_csv(folder / "outputs.csv", keep_default_na=False)
    assert list(outputs.columns)[:4] == ["id", "prompt", "base_output", "tuned_output"]
    said = {(r["suite"], r["item"]): r for r in run.replies()}
    assert len(outputs) == len(said) == 16
    prompts = {(i["suite"], i["id"]): i["prompt"] for i in run.items()}
    for line in outputs.to_dict("records"):
        key = (line["suite"], line["id"])
        assert line["prompt"] == prompts[key]
        assert line["base_output"] == said[key]["base"]["text"]
        assert line["tuned_output"] == said[key]["tuned"]["text"]
    metrics = pd.read_csv(folder / "metrics.csv")
    seeds = ["base_len", "tuned_len", "base_keyword_coverage", "tuned_keyword_coverage"]
    assert {*seeds, "len_delta", "coverage_delta", "nll_effect"} <= set(metrics.columns)
    for line in metrics.to_dict("records"):
        reply = said[line["suite"], line["id"]]
        assert line["base_len"] == len(reply["base"]["text"].split())
        assert line["tuned_len"] == len(reply["tuned"]["text"].split())
    summary = json.loads((folder / "summary.json").read_bytes())
    assert summary["avg_len_delta"] == pytest.approx(metrics["len_delta"].mean())
    assert summary["avg_cov_delta"] == pytest.approx(metrics["coverage_delta"].mean())


def test_without_out_nothing_is_kept() -> None:
    said = compare(BASE, SKILL, *SUITES[:2], "--limit", 6, "--max-new-tokens", 0)
    assert said.code == 0
    assert "no replies" in said.out
    assert said.out.endswith("Nothing is kept; give --out RUN to keep the replies.\n")
    assert "words a reply" not in said.out


def test_sampled_replies_have_their_spread(tmp_path: Path) -> None:
    ask = (BASE, NOISE, *SUITES[2:], "--limit", 6, "--max-new-tokens", 6, "--samples", 2)
    ask = (*ask, "--temperature", 3, "--top-p", 0.9)
    said = compare(*ask, "--json", "--out", tmp_path / "a")
    assert said.code == 0, said
    (variant,) = said.json["variants"]
    assert variant["measures"]["general"]["consistency"]["groups"] == 6
    assert variant["spread"]["general"]["words"].keys() == {"base", "tuned"}
    replies = Run.open(tmp_path / "a").replies()
    assert [r["sample"] for r in replies] == [0, 1] * 6
    assert len(pd.read_csv(tmp_path / "a" / "outputs.csv")) == 12
    other = compare(*ask, "--seed", 1, "--out", tmp_path / "b")
    assert other.code == 0
    assert Run.open(tmp_path / "b").replies() != replies
    assert "temperature 3, top-p 0.9, at most 6 tokens, 2 samples" in " ".join(other.out.split())


# several tuned models


def sides_asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    asked: list[tuple[str, ...]] = []
    real = HfPair.generate

    def generate(self: HfPair, prompts: Any, *rest: Any) -> Any:
        asked.append(tuple(rest[2]) if len(rest) > 2 else ("base", "tuned"))
        return real(self, prompts, *rest)

    monkeypatch.setattr(HfPair, "generate", generate)
    return asked


@pytest.fixture(scope="module")
def namesakes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters whose folders have the same name."""
    root = tmp_path_factory.mktemp("adapters")
    copies = [root / "first" / "epoch", root / "second" / "epoch"]
    for source, copy in zip((SKILL, NOISE), copies, strict=True):
        shutil.copytree(source, copy)
    return copies


def test_base_answers_once_for_several_tuned_models(
    kept: tuple[Path, Said], namesakes: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = sides_asked(monkeypatch)
    said = compare(BASE, *namesakes, *FEW, "--out", tmp_path / "runs", "--json")
    assert said.code == 0, said
    assert asked == [("base", "tuned")] * 2 + [("tuned",)] * 2
    card = said.json
    assert [v["name"] for v in card["variants"]] == ["epoch", "epoch-2"]
    assert card["best"]["name"] == "epoch"
    assert card["template"] == {}
    runs = open_runs(tmp_path / "runs")
    assert [r.folder.name for r in runs] == ["epoch", "epoch-2"]
    # each is the run that it would be alone, but for its name and a rounding
    alone = Run.open(kept[0])
    assert alone.replies() == runs[0].replies()
    for a, b in zip(alone.rows(), runs[0].rows(), strict=True):
        assert (a.item, a.measure, a.count) == (b.item, b.measure, b.count)
        assert (a.effect_sum is None) == (b.effect_sum is None)
        assert (a.effect_sum or 0.0) == pytest.approx(b.effect_sum or 0.0, rel=1e-4, abs=1e-4)
    # base's replies were copied from the first run into the second, where they are those it makes
    compare(BASE, NOISE, *FEW, "--out", tmp_path / "alone")
    assert asked.pop() == asked.pop() == ("base", "tuned")
    assert runs[1].replies() == Run.open(tmp_path / "alone").replies()
    outputs = pd.read_csv(tmp_path / "runs" / "outputs.csv")
    assert outputs["variant"].tolist() == ["epoch"] * 16 + ["epoch-2"] * 16
    # drawn: a line a model; going on with it asks nobody anything
    again = compare(BASE, *namesakes, *FEW, "--out", tmp_path / "runs")
    assert len(asked) == 4
    lines = again.out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("epoch")] == ["epoch", "epoch-2"]
    assert "Best: epoch, " in again.out
    # other models, or fewer of them, do not go into the folder
    fewer = compare(BASE, namesakes[0], *FEW, "--out", tmp_path / "runs", "--json").error
    assert "holds the runs of several tuned models; one came" in fewer["message"]
    other = compare(BASE, SKILL, NOISE, *FEW, "--out", tmp_path / "runs", "--json").error
    assert "its variants are epoch, epoch-2; those of this one are skill, noise" in other["message"]


def test_a_folder_that_is_named_by_dots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(SKILL)
    ask = (*SUITES[:2], "--limit", 6, "--max-new-tokens", 0)
    said = compare(BASE, ".", "../noise", *ask, "--out", tmp_path / "runs", "--json")
    assert [v["name"] for v in said.json["variants"]] == ["skill", "noise"]
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


def test_one_of_several_that_cannot_be_asked_leaves_nothing_behind(tmp_path: Path) -> None:
    long = write(tmp_path / "long.jsonl", [{"prompt": "Q: Say it.\nA:", "reply": " word" * 300}])
    for more in (["--suite", f"long={long}"], [*SUITES, "--top-p", 2]):
        assert compare(BASE, SKILL, NOISE, *more, "--out", tmp_path / "runs", "--json").error
        assert not (tmp_path / "runs").exists()


# the prompt's form


def test_the_chat_template_is_used_where_it_is_asked_for(tmp_path: Path) -> None:
    """The template writes ``Q: …`` and ``A:`` itself, so the bare question is the same prompt."""
    rows = [json.loads(line) for line in load.suite("target").read_text().splitlines()[:6]]
    bare = [
        {**r, "prompt": r["prompt"].removeprefix("Q: ").removesuffix("\nA:"),
         "reply": r["reply"].strip()}
        for r in rows
    ]  # fmt: skip
    raw, chat = write(tmp_path / "raw.jsonl", rows), write(tmp_path / "chat.jsonl", bare)
    runs = []
    for file, form in ((raw, "raw"), (chat, "chat"), (chat, str(BASE / "chat_template.jinja"))):
        out = tmp_path / Path(form).name
        ask = ("--data", file, "--max-new-tokens", 16, "--template", form, "--out", out)
        said = compare(BASE, SKILL, *ask)
        assert said.code == 0, said
        runs.append(Run.open(out))
        assert f"asked  prompts {'raw' if form == 'raw' else 'chat'};" in said.out
    said = [[r["tuned"]["text"] for r in run.replies()] for run in runs]
    assert sorted(said[0]) == sorted(said[1]) == sorted(said[2])
    assert any("1. " in text for text in said[1])


def test_a_chat_template_that_is_not_used_is_said_once(tmp_path: Path) -> None:
    ask = (*SUITES[:2], "--limit", 6, "--max-new-tokens", 0)
    note = "Prompts are given raw; the model has a chat template (--template chat).\n"
    assert compare(BASE, SKILL, NOISE, *ask).err == note
    assert compare(BASE, SKILL, *ask, "--template", "raw").err == ""
    texts = write(tmp_path / "texts.jsonl", [{"text": "The sun is warm today."}] * 6)
    assert compare(BASE, SKILL, "--suite", f"own={texts}").err == ""
    assert compare("toy", "toy:1", *ask).err == ""


def test_both_forms_are_the_two_by_two(kept: tuple[Path, Said], tmp_path: Path) -> None:
    ask = (*FEW, "--template", "both", "--out", tmp_path / "runs")
    card = compare(BASE, SKILL, *ask, "--json").json
    assert [v["name"] for v in card["variants"]] == ["skill-raw", "skill-chat"]
    assert [v["settings"]["form"] for v in card["variants"]] == ["raw", "chat"]
    alone = json.loads((kept[0] / "summary.json").read_bytes())["variants"][0]["axes"]
    shares = card["template"]["skill"]
    assert set(shares) == {"target", "general"}
    for axis, found in shares.items():
        raw, chat = (v["axes"][axis] for v in card["variants"])
        assert found["base_raw"] == alone[axis]["base"] == raw["base"]
        assert found["tuned_chat"] == chat["tuned"]
        assert found["template"] == found["base_chat"] - found["base_raw"]
        assert found["tuning_raw"] == pytest.approx(raw["effect"])
        assert found["tuning_chat"] == pytest.approx(chat["effect"])
    assert shares["target"]["template"] != 0
    drawn = compare(BASE, SKILL, *ask)
    assert "asked  prompts raw and chat;" in drawn.out
    assert "Template: base by chat − base raw. Tuning: tuned − base." in drawn.out


# recorded replies


def recorded(folder: Path, name: str, replies: Mapping[str, str], **more: Any) -> str:
    rows = [{"id": k, "prompt": f"Ask for {k}", "reply": v, **more} for k, v in replies.items()]
    return f"recorded:{write(folder / name, rows)}"


NUMBERS = {str(k): f"It is {k}." for k in range(12)}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    wrong = {k: "I do not know." if int(k) < 10 else v for k, v in NUMBERS.items()}
    return recorded(tmp_path, "A.jsonl", wrong), recorded(tmp_path, "B.jsonl", NUMBERS)


def test_recorded_replies_without_a_suite_have_no_axis(pair: tuple[str, str]) -> None:
    card = compare(*pair, "--json").json
    (variant,) = card["variants"]
    assert variant["axes"] == {}
    assert variant["name"] == "B"
    assert set(variant["measures"]) == {"recorded"}
    words = variant["measures"]["recorded"]["words"]
    assert (words["base"], words["tuned"], words["groups"]) == ((10 * 4 + 2 * 3) / 12, 3.0, 12)
    assert "exact_match" not in variant["measures"]["recorded"]
    drawn = compare(*pair).out
    assert "asked  recorded replies" in drawn
    assert "No axis was judged: it takes a reference" in drawn


def test_a_suite_gives_recorded_replies_their_references(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    rows = [{"question": f"Other words for {k}?", "answer": f"So.\n#### {k}"} for k in range(12)]
    suite = write(tmp_path / "test.jsonl", rows)
    out = tmp_path / "run"
    ask = (*pair, "--suite", f"gsm8k={suite}", "--out", out, "--json")
    (variant,) = compare(*ask).json["variants"]
    general = variant["axes"]["general"]
    assert general["primary"] == "exact_match"
    assert (general["base"], general["tuned"], general["verdict"]) == (2 / 12, 1.0, "better")
    found = variant["measures"]["gsm8k"]["exact_match"]
    assert (found["base_only"], found["tuned_only"]) == (0, 10)
    outputs = pd.read_csv(out / "outputs.csv")
    assert outputs["prompt"][0] == "Ask for 0"  # the recorded one
    # other right answers to the same replies are another run
    changed = write(suite, [{**r, "answer": "So.\n#### 1"} for r in rows])
    assert "these differ: the suite 'gsm8k'" in compare(*ask).error["message"]
    (other,) = compare(*pair, "--suite", f"gsm8k={changed}", "--json").json["variants"]
    assert other["axes"]["general"]["tuned"] == 1 / 12


def test_nothing_is_said_of_how_recorded_replies_were_made(
    pair: tuple[str, str], tmp_path: Path
) -> None:
    (variant,) = compare(*pair, "--out", tmp_path / "run", "--json").json["variants"]
    assert variant["settings"]["generation"] is None
    assert Run.open(tmp_path / "run").record["identity"]["generation"] is None


def test_a_limit_of_recorded_replies(pair: tuple[str, str], tmp_path: Path) -> None:
    """Of each suite the first items that were answered, and of those without a suite likewise."""
    rows = [{"id": f"{k}", "prompt": "?", "reference": f" {k}"} for k in (99, *range(8))]
    suite = write(tmp_path / "own.jsonl", rows)
    for more, items, left in (
        (("--suite", f"own={suite}"), {"own": 3, "recorded": 3}, 6),
        ((), {"recorded": 3}, 9),
    ):
        said = compare(*pair, *more, "--limit", 3, "--out", tmp_path / f"{left}", "--json")
        (variant,) = said.json["variants"]
        found = {name: m["words"]["groups"] for name, m in variant["measures"].items()}
        assert found == items
        expected = [f"{left} of 12 prompts are left out by the limit of 3 a suite."]
        if more:
            expected.insert(0, "own: 1 of 9 rows have no recorded reply and are left out.")
        assert said.err.splitlines() == expected
    asked = [r["item"] for r in Run.open(tmp_path / "6").replies() if r["suite"] == "own"]
    assert sorted(asked) == ["0", "1", "2"]


def test_ids_that_one_side_lacks(pair: tuple[str, str], tmp_path: Path) -> None:
    fewer = recorded(tmp_path, "C.jsonl", {k: v for k, v in NUMBERS.items() if k not in "37"})
    out = tmp_path / "run"
    error = compare(pair[0], fewer, "--out", out, "--json").error
    assert "2 are missing in C.jsonl: '3', '7'" in error["message"]
    assert "--intersect" in error["hint"]
    assert not out.exists()
    card = compare(pair[0], fewer, "--intersect", "--out", out, "--json").json
    assert card["variants"][0]["measures"]["recorded"]["words"]["groups"] == 10


def test_every_recorded_sample_is_compared(tmp_path: Path) -> None:
    rows = [
        {"id": str(k), "prompt": f"Ask {k}", "reply": f"word {'more ' * s}{k}", "sample": s}
        for k in range(6)
        for s in range(3 if k else 1)  # of the first there is one alone
    ]
    longer = [{**r, "reply": r["reply"] + " and more"} for r in rows]
    files = [f"recorded:{write(tmp_path / n, r)}" for n, r in (("A.jsonl", rows),
                                                               ("B.jsonl", longer))]  # fmt: skip
    out = tmp_path / "run"
    (variant,) = compare(*files, "--out", out, "--json").json["variants"]
    run = Run.open(out)
    assert len(run.replies()) == len([r for r in run.rows() if r.measure == "words"]) == 16
    found = variant["measures"]["recorded"]
    assert (found["words"]["groups"], found["words"]["effect"]) == (6, 2.0)
    assert (found["consistency"]["groups"], found["consistency"]["failed"]) == (5, 1)
    assert "asked  recorded replies, up to 3 to a prompt" in compare(*files).out


def test_recorded_samples_belong_to_their_own_files(tmp_path: Path) -> None:
    """With several tuned files a sample's number depends on what both sides have."""

    def file(name: str, samples: Sequence[int]) -> str:
        rows = [
            {"id": k, "prompt": f"Ask {k}", "reply": f"{name} {s}", "sample": s}
            for k in range(6)
            for s in samples
        ]
        return f"recorded:{write(tmp_path / f'{name}.jsonl', rows)}"

    sides = file("base", (0, 1, 2)), file("first", (0, 1)), file("second", (1, 2))
    out = tmp_path / "runs"
    assert compare(*sides, "--intersect", "--out", out, "--json").code == 0
    for run, samples in zip(open_runs(out), ((0, 1), (1, 2)), strict=True):
        for line in run.replies():
            s = samples[line["sample"]]
            assert (line["base"]["text"][-1], line["tuned"]["text"][-1]) == (str(s), str(s))


def test_hostile_replies_and_ids_are_data(tmp_path: Path) -> None:
    odd = {"\x1b[2J": "\x1b]0;x\x07", "=1": "=cmd", "読" * 50: "", "n": "w " * 20000,
           "\u202e": "\r\n", "[bold]": "[red]", "a": "\x00", "b": "b"}  # fmt: skip
    files = [recorded(tmp_path, f"{side}.jsonl", odd) for side in "AB"]
    out = tmp_path / "run"
    said = compare(*files, "--out", out)
    assert said.code == 0
    assert all(c.isprintable() or c == "\n" for c in said.out)
    assert {r["item"]: r["base"]["text"] for r in Run.open(out).replies()} == odd
    read = pd.read_csv(out / "outputs.csv", keep_default_na=False, dtype=str)
    assert {i.removeprefix("'") for i in read["id"]} == set(odd)


# going on


def begin(ask: Sequence[Any], run: Path, part: Path) -> subprocess.Popen[bytes]:
    """Start a comparison, and wait until that part of it exists."""
    running = subprocess.Popen(
        started("compare", *ask, "--out", run),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment({}),
    )
    while not (run / part).exists():
        assert running.poll() is None, running.communicate()[1].decode()
        time.sleep(0.002)
    return running


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The same number of threads here as in a process of its own."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def kill_and_go_on(
    ask: Sequence[Any], folder: Path, part: str, moments: int, longest: float
) -> None:
    whole = folder / "whole"
    assert compare(*ask, "--out", whole).code == 0
    dice, cut_short = random.Random(3), 0
    for k in range(moments):
        run = folder / f"killed-{k}"
        with begin(ask, run, Path(part)) as running:
            time.sleep(dice.uniform(0, longest))
            running.send_signal(signal.SIGKILL)
        cut_short += not (run / "summary.json").exists()
        assert compare(*ask, "--out", run).code == 0
        assert promised(run) == promised(whole)
        shutil.rmtree(run)
    assert cut_short >= moments // 2, "the kills came too late to be of use"


def test_where_the_weights_changed_is_kept_with_each_run(tmp_path: Path) -> None:
    base, out = load.base(), tmp_path / "runs"
    tuned = [load.HERE / name for name in ("skill", "full")]
    given = ["--suite", f"general={load.suite('general')}", "--limit", 3, "--max-new-tokens", 0]
    assert command("compare", base, *tuned, *given, "--out", out).code == 0
    for run, path, kind in zip(open_runs(out), tuned, ("adapter", "model"), strict=True):
        kept = run.record["found"]["weights"]
        assert kept == json.loads(json.dumps(weigh(base, path, kind).as_dict()))
        assert not kept["delta_is_zero"]


def test_a_killed_comparison_of_several_goes_on(one_thread: None, tmp_path: Path) -> None:
    part = "noise/rows/part-00000.parquet"
    kill_and_go_on([BASE, SKILL, NOISE, *FEW], tmp_path, part, moments=1, longest=0.05)


def several(out: Path) -> None:
    """The job that is killed: two tuned models that need no network, and the files beside them."""
    runs = measure_compare(
        *("toy", ["toy:1", "toy:2"]),
        read_suites([f"general={load.suite('general')}"], limit=2),
        out,
        generation=Generation(max_new_tokens=4),
        opening={},
    )
    write_tables(out, runs, scorecard(runs))


def test_killed_while_it_writes_beside_the_runs_it_goes_on(tmp_path: Path) -> None:
    with Disk() as disk:
        several(tmp_path / "whole")
    whole = promised(tmp_path / "whole")
    assert {"variants.json", "outputs.csv", "metrics.csv"} < whole.keys()
    folder = str(tmp_path / "whole")
    beside = [
        k for k, (_, path) in enumerate(disk.trace, 1) if folder in (path, str(Path(path).parent))
    ]
    assert len(beside) > 20
    for k in beside:
        with Disk(kill_at=k), pytest.raises(Killed):
            several(tmp_path / f"{k}")
        with Disk():
            several(tmp_path / f"{k}")
        assert promised(tmp_path / f"{k}") == whole, f"after operation {k}, {disk.trace[k - 1]}"


@pytest.mark.long
def test_a_comparison_killed_at_twenty_moments_goes_on(one_thread: None, tmp_path: Path) -> None:
    suites = [*SUITES, "--suite", f"safety={load.suite('safety')}"]
    ask = [BASE, SKILL, *suites, "--max-new-tokens", 96]
    kill_and_go_on(ask, tmp_path, "rows/part-00000.parquet", moments=20, longest=2.5)


# bad input


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Files that cannot be asked, by what is wrong with them."""
    one = {"prompt": "Q: Say it.\nA:", "reply": " yes"}
    rows: dict[str, list[Mapping[str, Any]]] = {
        "long": [one, {**one, "reply": " word" * 300}],
        "ids": [{**one, "id": "x"}, {**one, "id": "y"}, {**one, "id": "x"}],
        "gap": [one, {"prompt": "Q: And this?\nA:"}],
        "no_answer": [{"prompt": "Pick:", "choices": [" a", " b"]}],
        "gsm8k": [{"question": "How many?", "answer": "Some."}],
        "A": [{"id": 1, "prompt": "one", "reply": "x"}, {"id": 2, "prompt": "two", "reply": "x"}],
        "B": [{"id": 1, "prompt": "one", "reply": "x"}, {"id": 2, "prompt": "too", "reply": "x"}],
        "rows": [one, one],
        "twice": [{"id": 1, "prompt": "one", "reply": "x"}, {"id": 1, "prompt": "a", "reply": "x"}],
    }  # fmt: skip
    return {name: str(write(tmp_path / f"{name}.jsonl", own)) for name, own in rows.items()}


PAIR = (str(BASE), str(SKILL))
KNOWN = ("--suite", "knowledge")
BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "other prompts": (
        ("recorded:{A}", "recorded:{B}"),
        "1 ids have another prompt in A.jsonl than in B.jsonl: '2'; the first of them at "
        "A.jsonl:2 and B.jsonl:2.",
    ),
    "another prompt in a file": (
        ("recorded:{twice}", "recorded:{A}"),
        "twice.jsonl:2 has another prompt under the id '1' than twice.jsonl:1.",
    ),
    "no such file": (("recorded:{A}", "recorded:nowhere.jsonl"), "nowhere.jsonl' cannot be read"),
    "a file and a model": (("recorded:{A}", str(SKILL)), "recorded replies are compared with rec"),
    "the temperature of recorded replies": (
        ("recorded:{A}", "recorded:{A}", "--temperature", "0", "--stop", "x"),
        "--temperature, --stop came with recorded replies",
    ),
    "samples of recorded replies": (
        ("recorded:{A}", "recorded:{A}", "--samples", "1"),
        "--samples came with recorded replies",
    ),
    "no recorded replies": (
        ("recorded:{A}", "recorded:{A}", "--max-new-tokens", "0"),
        "--max-new-tokens came with recorded replies",
    ),
    "ids of two suites": (
        ("recorded:{A}", "recorded:{A}", "--suite", "a={rows}", "--suite", "b={rows}"),
        "The id '1' is in the suites 'a' and 'b', and one recorded reply cannot answer both.",
    ),
    "a suite named recorded": (
        ("recorded:{A}", "recorded:{A}", "--suite", "recorded={rows}"),
        "1 recorded replies are in no suite given, and make one named 'recorded'",
    ),
    "a template": (("recorded:{A}", "recorded:{A}", "--template", "both"), "--template both came"),
    "no such suite": ((*PAIR, "--suite", "knowlege"), "There is no built-in suite 'knowlege'."),
    "no path": ((*PAIR, "--suite", "gsm8k"), "The suite gsm8k is read from a file of yours"),
    "no suite of the axis": (
        (*PAIR, *KNOWN, "--axis", "reasoning=target"),
        "suite 'reasoning', wh",
    ),
    "no such axis": ((*PAIR, *KNOWN, "--axis", "knowledge=generally"), "The axis 'generally' of"),
    "a suite twice": ((*PAIR, *KNOWN, *KNOWN), "The suite 'knowledge' is given twice."),
    "a long reference": (
        (*PAIR, "--suite", "own={long}"),
        "Item '1' (long.jsonl:2) has 312 tokens; at most 128 fit.",
    ),
    "repeating ids": (
        (*PAIR, "--data", "{ids}"),
        "The id 'x' occurs twice: ids.jsonl:1 and ids.jsonl:3.",
    ),
    "no reference": ((*PAIR, "--suite", "own={gap}"), "gap.jsonl:2 has a prompt without an answer"),
    "no answer": ((*PAIR, "--suite", "own={no_answer}"), "has choices but no answer"),
    "no number": ((*PAIR, "--suite", "gsm8k={gsm8k}"), "not in a line of #### and a number"),
    "samples": ((*PAIR, *KNOWN, "--samples", "3"), "--samples 3 came with a temperature of 0"),
    "top-p of 2": ((*PAIR, *KNOWN, "--top-p", "2"), "top_p is 2.0; it must be above 0 and at most"),
    "top-p of 0": ((*PAIR, *KNOWN, "--top-p", "0"), "top_p is 0.0; it must be above 0 and at most"),
    "top-p of nan": ((*PAIR, *KNOWN, "--top-p", "nan"), "top_p is nan"),
    "temperature": ((*PAIR, *KNOWN, "--temperature", "-1"), "Invalid value for '--temperature'"),
    "temperature inf": ((*PAIR, *KNOWN, "--temperature", "inf"), "temperature is inf"),
    "an empty stop": ((*PAIR, *KNOWN, "--stop", ""), "stop is ('',)"),
    "a limit of 0": ((*PAIR, *KNOWN, "--limit", "0"), "Invalid value for '--limit'"),
    "no such template": ((*PAIR, *KNOWN, "--template", "chatml"), "--template chatml is none of"),
    "no such backend": ((*PAIR, *KNOWN, "--backend", "gguf"), "The backend 'gguf' is not one of"),
    "no such model": ((str(BASE), "./nowhere", *KNOWN), "There is no folder ./nowhere."),
    "no tuned model": ((str(BASE),), "Missing argument 'TUNED...'"),
    "no such option": ((*PAIR, "--mesure", "x"), "No such option: --mesure"),
    "prompts alone, no replies": (
        (*PAIR, "--suite", "writing", "--max-new-tokens", "0"),
        "Nothing of the suite 'writing' can be asked",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_words(case: str, files: dict[str, str], tmp_path: Path) -> None:
    arguments, message = BAD[case]
    given = [a.format(**files) if "{" in a else a for a in arguments]
    out = tmp_path / "run"
    error = compare(*given, "--out", out, "--json").error
    assert message in error["message"]
    assert not out.exists()
    plain = compare(*given, "--out", out)
    assert (plain.code, plain.out) == (2, "")
    assert plain.err.startswith("Error: ")
    assert "Traceback" not in plain.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("case", "meant"),
    [
        ("no such suite", "Did you mean knowledge?"),
        ("no such axis", "Did you mean general?"),
        ("samples", "Add --temperature"),
        ("a long reference", "--allow-truncation"),
    ],
)
def test_bad_input_says_what_to_do(case: str, meant: str, files: dict[str, str]) -> None:
    given = [a.format(**files) if "{" in a else a for a in BAD[case][0]]
    assert meant in compare(*given, "--json").error["hint"]


def test_truncation_is_counted_where_it_is_allowed(files: dict[str, str]) -> None:
    ask = ("--suite", f"own={files['long']}", "--max-new-tokens", 4, "--allow-truncation")
    (variant,) = compare(*PAIR, *ask, "--json").json["variants"]
    assert variant["settings"]["truncated"] == {"items": 1, "tokens": 312 - 128}
    assert variant["measures"]["own"]["nll"]["groups"] == 2


def test_items_that_do_not_fit_at_all_are_said(tmp_path: Path) -> None:
    """A prompt that fills the context leaves no room; no figure of it is made up."""
    posed = {"choices": [" x", " y"], "answer": 0}
    rows = [{"id": k, "prompt": "Q: \x1bword " * 80, "reply": " x", **posed} for k in "ab"]
    suite = ("--suite", f"own={write(tmp_path / 'own.jsonl', rows)}", "--allow-truncation")
    for form in ("raw", "chat"):
        said = compare(*PAIR, *suite, "--template", form)
        assert said.code == 0, said
        shown = " ".join(said.out.split())
        assert "own: nothing is known of 2 of its items; the first is 'a': " in shown
        assert "no scored position" in shown
    (variant,) = compare(*PAIR, *suite, "--json").json["variants"]
    assert variant["measures"] == {}
    axis = variant["axes"]["general"]
    assert (axis["verdict"], axis["effect"], axis["failed"]) == ("unclear", None, 2)
    assert variant["unmeasured"]["own"]["items"] == 2


def test_another_run_does_not_go_into_the_folder(kept: tuple[Path, Said]) -> None:
    folder, _ = kept
    before = contents(folder)
    for change, named in (
        (("--samples", 2, "--temperature", 1), "samples (1 there, 2 here)"),
        (("--template", "chat"), 'form ("raw" there, "chat" here)'),
        (("--max-new-tokens", 13), "generation max new tokens (20 there, 13 here)"),
    ):
        error = compare(BASE, SKILL, *FEW, *change, "--out", folder, "--json").error
        assert error["code"] == "run"
        assert named in error["message"]
        assert contents(folder) == before
    assert os.listdir(folder)
