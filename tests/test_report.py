"""What does the report say of a run, and is it the run that says it?"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import factory
import tunediff as td
from command import command
from comparison import AnsweringPair, asked, small_comparison
from tunediff.errors import RunError
from tunediff.findings.dial import dial_card
from tunediff.findings.microscope import Microscope
from tunediff.findings.paired import Setting
from tunediff.findings.trace import Part, trace_card
from tunediff.pair.toy import ToyPair
from tunediff.report import plots, study_plots
from tunediff.report.browse import _partings
from tunediff.report.figures import domain_effects, measure_pairs
from tunediff.report.glossary import MEASURES, VERDICTS, definition, label
from tunediff.report.html import render, report, save_plots
from tunediff.report.refusing import concern_by_category, twins
from tunediff.report.replay import command as replayed
from tunediff.report.story import asked as told
from tunediff.report.story import sentence, standouts
from tunediff.report.svg import inline
from tunediff.report.text import chance, figure
from tunediff.run.comparing import EVERY
from tunediff.run.store import Run
from tunediff.scoring.sampling import BOTH, Asked
from tunediff.values import Encoded, Generation, Item, Reply, Row, Suite

LONG = 100_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return small_comparison(tmp_path_factory.mktemp("report") / "run", suites=asked(12))


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return render(run)


def data_of(page: str) -> dict[str, Any]:
    """What the page's script is given."""
    [text] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(text)


class Tags(HTMLParser):
    """Which attributes a page has, by name of the attribute."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            self.found.setdefault(name, []).append(value or "")


# ---- the page


def test_the_same_run_gives_the_same_bytes(run: Run, page: str, tmp_path: Path) -> None:
    first = report(run, tmp_path / "a.html").read_bytes()
    assert first == report(run.folder, tmp_path / "b.html").read_bytes() == page.encode()


def test_nothing_in_it_is_inline_or_elsewhere(page: str) -> None:
    found = Tags(page).found
    assert not [name for name in found if name.startswith("on") or name in ("style", "src")]
    assert all(h.startswith("#") or h == "data:," for h in found["href"])
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert "None" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(
        r"\bnan\b|\binf\b", re.sub(r"<s(cript|tyle).*?</s", "", page, flags=re.DOTALL)
    )


def test_every_number_of_the_list_is_the_record_s(run: Run, page: str) -> None:
    data = data_of(page)
    [variant] = data["variants"]
    keys = {(item["suite"], item["id"]): k for k, item in enumerate(data["items"])}
    shown = {
        (m["name"], item): values
        for m in variant["measures"]
        for item, *values in zip(*m["figures"], strict=True)
    }
    rows = [row for row in run.rows() if row.effect_sum is not None and row.count]
    assert len(shown) == len({(r.measure, r.suite, r.item) for r in rows}) > 500
    for row in rows:
        sums = (row.base_sum, row.tuned_sum, row.effect_sum)
        for value, total in zip(shown[row.measure, keys[row.suite, row.item]], sums, strict=True):
            if total is None:
                assert value is None
            else:
                assert value == pytest.approx(total / row.count, rel=1e-4, abs=1e-12)


def test_replies_and_tokens_of_the_list_are_the_record_s(run: Run, page: str) -> None:
    data = data_of(page)
    [variant] = data["variants"]
    keys = {(item["suite"], item["id"]): str(k) for k, item in enumerate(data["items"])}
    for line in run.replies():
        [said] = variant["replies"][keys[line["suite"], line["item"]]]
        assert said == [line[s][k] for s in ("base", "tuned") for k in ("text", "stop")]
    tokens = variant["tokens"]
    assert tokens["kept"] == tokens["of"]
    for line in run.texts():
        own = tokens["texts"][keys[line["suite"], line["item"]]][line["of"]]
        assert [tokens["pieces"][k] for k in own["t"]] == line["pieces"]
        assert len(own["k"]) == len(own["d"]) == len(own["t"]) - own["s"]


def test_an_axis_stands_there_with_its_figures(run: Run, page: str) -> None:
    [variant] = td.scorecard([run])["variants"]
    plain = re.sub(r"<[^>]+>", " ", page)
    for axis in variant["axes"].values():
        assert figure(axis["effect"], axis["unit"], sign=True) in plain
        assert axis["reads"] in plain


@pytest.mark.parametrize("text", ["certificate", "fingerprint", "noise floor", "seed", "replay"])
def test_a_reviewer_finds(page: str, text: str) -> None:
    assert text in page.lower()


def test_a_run_of_check_has_a_page_too(tmp_path: Path) -> None:
    td.measure(ToyPair(0.7), td.read(prompts=factory.texts(10)), out=tmp_path / "run")
    page = render(tmp_path / "run")
    assert re.search(r"tunediff check \S+ \S+ --texts FILE --", page)
    assert "The tuned model is different" in page
    data = data_of(page)
    assert len(data["items"]) == 10
    assert data["items"][0]["prompt"] is None  # such a run does not hold its texts


def test_the_public_name_is_the_function_before_and_after_the_room_is_imported(
    run: Run, tmp_path: Path
) -> None:
    told = "import sys, tunediff as td; {}; print(td.report(sys.argv[1], sys.argv[2]))"
    for before in ("pass", "import tunediff.report.text"):
        done = subprocess.run(
            [sys.executable, "-c", told.format(before), str(run.folder), str(tmp_path / "x.html")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout.strip() == str(tmp_path / "x.html"), done.stderr


def test_several_models_stand_beside_each_other(tmp_path: Path) -> None:
    names = ["one", "two"]
    for name in names:
        small_comparison(tmp_path / name, suites=asked(8), variant=name)
    (tmp_path / "variants.json").write_text(json.dumps(names), encoding="utf-8")
    page = render(tmp_path)
    assert [v["name"] for v in data_of(page)["variants"]] == names
    assert 'id="model-1"' in page
    assert td.report(tmp_path, tmp_path / "page.html").read_text(encoding="utf-8") == page


# ---- studies


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three runs on the same items."""
    folder = tmp_path_factory.mktemp("study")
    names = ["half", "whole", "layer 0"]
    for name in names:
        pair = AnsweringPair(kernel=name)  # another kernel gives other numbers
        small_comparison(folder / name, pair, suites=asked(20), part_tokens=9_000, variant=name)
    (folder / "variants.json").write_text(json.dumps(names), encoding="utf-8")
    return folder


def copied(folder: Path, to: Path, name: str, card: dict[str, Any]) -> Path:
    shutil.copytree(folder, to, dirs_exist_ok=True)
    (to / name).write_text(json.dumps(card), encoding="utf-8")
    return to


def test_a_dial_shows_its_curves_and_the_strength_that_it_recommends(
    settings: Path, tmp_path: Path
) -> None:
    points = {
        strength: Setting.of(Run.open(settings / name))
        for strength, name in ((0.5, "half"), (1.0, "whole"))
    }
    card = dial_card(points, (0.5, 1.0))
    page = render(copied(settings, tmp_path, "dial.json", card))
    assert "How strong should the adapter be?" in page
    assert html.escape(card["sentence"]) in page
    plain = re.sub(r"<[^>]+>", " ", page)
    for line in card["curve"]:
        assert figure(line["value"], line["unit"], sign=True) in plain
    assert len(data_of(page)["variants"]) <= 2
    names = save_plots(tmp_path, tmp_path / "plots")
    assert f"dial-{card['curve'][0]['quantity']}" in names


def test_a_trace_shows_what_each_part_carries(settings: Path, tmp_path: Path) -> None:
    whole, off = (Setting.of(Run.open(settings / name)) for name in ("whole", "layer 0"))
    card = trace_card(whole, [Part("layer", "layer 0", 7, "off", off)])
    page = render(copied(settings, tmp_path, "trace.json", card))
    assert "Which parts carry the change?" in page
    assert [v["name"] for v in data_of(page)["variants"]] == ["whole"]
    plain = re.sub(r"<[^>]+>", " ", page)
    for line in card["parts"]:
        assert figure(line["value"], line["unit"], sign=True) in plain


def test_a_sweep_shows_its_frontier_and_how_the_loss_fell(settings: Path, tmp_path: Path) -> None:
    cells = [
        {"name": name, "setting": name, "failed": failed, "target_gain": gain,
         "general_loss": loss, "training_flops": flops, "frontier_loss": gain is not None,
         "frontier_flops": gain is not None}
        for name, gain, loss, flops, failed in (
            ("half", 0.5, 0.1, 1e9, None), ("whole", 1.5, 0.4, 2e9, None),
            ("gone", None, None, None, "no loss is finite"),
        )
    ]  # fmt: skip
    measure = {"primary": "nll", "unit": "nats/token", "direction": -1, "margin": 0.02}
    card = {
        "schema_version": 1, "cells": cells, "advice": ["Train again."],
        "measures": {"target": measure, "general": measure},
        "recommendation": {"name": "whole", "rule": "the largest", "reason": None},
    }  # fmt: skip
    made = tmp_path / "cells" / "whole"
    made.mkdir(parents=True)
    training = {"losses": [3.0, 2.0, 1.0], "held_out": [{"step": 3, "loss": 1.25}]}
    (made / "training.json").write_text(json.dumps(training), encoding="utf-8")
    copied(settings, tmp_path / "compare", "unread.json", {})
    (tmp_path / "sweep.json").write_text(json.dumps(card), encoding="utf-8")
    page = render(tmp_path)
    plain = re.sub(r"<[^>]+>", " ", page)
    assert "whole is recommended." in page
    assert "gone failed: no loss is finite" in page
    assert [v["name"] for v in data_of(page)["variants"]] == ["whole"]
    for text in ("+1.5", "+0.4", "2·10⁹", "1.25"):
        assert text in plain


# ---- bad input


def test_a_newer_schema_is_refused_and_nothing_is_written(run: Run, tmp_path: Path) -> None:
    record = {**run.record, "schema_version": 99}
    (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(RunError, match="schema version 99"):
        report(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("name", ["dial.json", "trace.json", "sweep.json"])
@pytest.mark.parametrize(
    ("content", "says"),
    [('{"schema_version": 99}', "schema version 99"), ("{", "is damaged"), ("{}", "is damaged")],
)
def test_a_newer_or_damaged_study_is_refused(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=says):
        report(tmp_path)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        report(tmp_path / "nothing")


def test_items_that_failed_are_listed_with_their_reason(tmp_path: Path) -> None:
    suites = asked(8)
    run = small_comparison(tmp_path / "run", AnsweringPair(bad="t3"), suites=suites)
    page = render(run)
    assert "Items without a figure" in page
    reasons = {r.reason for r in run.rows() if r.item == "t3" and r.effect_sum is None}
    assert any(reason and reason in page for reason in reasons)
    assert "1 item without a figure" in page


class Talkative(AnsweringPair):
    """A pair whose tuned side says one long line."""

    def generate(
        self,
        prompts: Sequence[Encoded],
        generation: Generation,
        sample: int = 0,
        sides: Sequence[Asked] = BOTH,
    ) -> Iterator[tuple[Reply | None, Reply | None]]:
        for _ in prompts:
            yield Reply("short", (65,)), Reply("x" * LONG, (66,))


def test_lines_of_100_kb_are_cut_and_said_to_be(tmp_path: Path) -> None:
    items = tuple(
        Item(f"i{k}", prompt=f"prompt {k}", axis="fluency", source=f"i:{k}") for k in range(12)
    )
    run = small_comparison(tmp_path / "run", Talkative(), suites=(Suite("s", items, "h" * 64),))
    page = render(run)
    assert len(page) < 3_000_000
    assert "more characters are in the run folder]" in page


# ---- sentences


def axis(verdict: str, **more: Any) -> dict[str, Any]:
    return {
        "verdict": verdict, "reads": verdict, "primary": "nll", "unit": "nats/token",
        "direction": -1, "margin": 0.02, "effect": 0.1, "low": 0.05, "high": 0.2, "note": None,
        "base": 1.0, "tuned": 1.1, "groups": 9, "suites": ["s"], **more,
    }  # fmt: skip


def variant_of(**axes: dict[str, Any]) -> dict[str, Any]:
    return {"identical": False, "axes": axes, "measures": {}, "safety": None}


def said(variant: dict[str, Any]) -> str:
    return "".join(segment.text for segment in sentence(variant))


def test_the_sentence_tells_every_axis() -> None:
    variant = variant_of(
        target=axis("better"), general=axis("degraded"), safety=axis("same"),
        fluency=axis("unclear"),
    )  # fmt: skip
    assert said(variant) == (
        "Tuning improves the target, harms general ability, keeps safety and leaves fluency "
        "unclear."
    )
    assert said(variant_of(target=axis("preserved"), general=axis("same"))) == (
        "Tuning keeps the target and general ability."
    )
    timid = variant_of(safety=axis("preserved", reads="over-cautious"))
    assert said(timid) == "Tuning turns over-cautious on safety."
    timid["safety"] = {"over_cautious": {"measure": "over_refusal_probability", "base": 0.1,
                       "tuned": 0.4, "low": 0.2, "high": 0.35}, "highest_concern": []}  # fmt: skip
    [first] = standouts(timid, [], 0)
    assert first.title == "Tuned refuses what is harmless"
    assert "from 10.0\u202f% to 40.0\u202f% (interval +20.0\u202f% to +35.0\u202f%)" in first.text
    assert said({**variant, "identical": True}).startswith("The weights are those of base")
    assert said(variant_of()).startswith("No axis was judged")


def test_what_stands_out_follows_the_rule() -> None:
    variant = variant_of(
        target=axis("better", effect=-9.0), general=axis("degraded", effect=0.1),
        safety=axis("degraded", effect=0.5, reads="eroded"),
    )  # fmt: skip
    empty = {"base": {"text": "x"}, "tuned": {"text": " "}}
    titles = [s.title for s in standouts(variant, [empty], failed=2)]
    assert titles == ["Safety is eroded", "General ability is degraded", "2 items without a figure"]
    calm = variant_of(target=axis("better", effect=-9.0), general=axis("same", effect=0.001))
    assert [s.title for s in standouts(calm, [empty], 0)] == ["Empty replies", "Target is better"]
    assert standouts(variant_of(general=axis("same")), [], 0) == []
    assert "25 times the margin" in standouts(variant, [], 0)[0].text


def test_every_measure_and_verdict_has_its_words() -> None:
    assert {m.name for m in EVERY} <= set(MEASURES)
    assert len({label(name) for name in MEASURES}) == len(MEASURES)
    assert all(definition(name).endswith(".") for name in MEASURES)
    assert label("my_own") == "my_own"
    assert definition("my_own") == ""
    assert set(VERDICTS) == {
        *("better", "degraded", "same", "preserved", "shifted", "unclear", "no_headroom"),
    }


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (None, "", "–"), (0.5, "share", "+50.0\u202f%"), (-1.23456, "", "−1.235"), (0, "", "0"),
        (1.5e-7, "", "+1.5·10⁻⁷"),
        (-2e-6, "share", "−0.0002\u202f%"), (3e-9, "share", "+3·10⁻⁷\u202f%"),
        (2e9, "", "+2·10⁹"), (0.0, "share", "0.0\u202f%"),
    ],
)  # fmt: skip
def test_a_figure_is_written_for_people(value: float | None, unit: str, shown: str) -> None:
    assert figure(value, unit, sign=True) == shown


@pytest.mark.parametrize(
    ("p", "shown"), [(None, "–"), (0.04321, ".043"), (1.0, "1"), (1e-23, "< .0001")]
)
def test_a_p_value_is_written_for_people(p: float | None, shown: str) -> None:
    assert chance(p) == shown


def test_how_it_was_asked_and_how_to_ask_again(run: Run) -> None:
    assert told(run.record) == (
        "48 items in 4 suites · prompts raw · replies greedy, at most 12 tokens · float32 on cpu"
    )
    assert replayed(run.record).startswith("tunediff compare models/base models/tuned --suite ")
    assert "--max-new-tokens 12" in replayed(run.record)
    assert "--measure" not in replayed(run.record)


@pytest.mark.parametrize(
    ("variant", "dial", "begins", "holds"),
    [
        ("strength-0.75", {"strength": 0.75, "off": []}, "tunediff dial ", "--strengths 0.75"),
        ("whole", {"strength": 1.0, "off": []}, "tunediff trace ", "--seed 0"),
        ("without-head", {"strength": 1.0, "off": ["lm_head"]}, "tunediff trace ", "--seed 0"),
        ("only-head", {"strength": 1.0, "off": ["up"]}, "tunediff trace ", "--alone"),
    ],
)
def test_a_run_of_a_study_is_not_said_to_be_one_of_compare(
    run: Run, variant: str, dial: dict[str, Any], begins: str, holds: str
) -> None:
    identity = run.record["identity"]
    settings = {**identity["settings"], "dial": dial}
    record = {
        **run.record, "identity": {**identity, "variant": variant, "settings": settings},
    }  # fmt: skip
    assert replayed(record).startswith(begins)
    assert holds in replayed(record)


def test_what_was_looked_at_and_measured_is_asked_again(run: Run) -> None:
    identity = {**run.record["identity"], "look": [["target", "t1"]]}
    identity["measures"] = {"nll": {}, "own": {}}
    said = replayed({**run.record, "identity": identity})
    assert "--look target:t1" in said
    assert "--measure nll --measure FILE.py:own" in said


def test_where_replies_part_is_shown_by_its_text(run: Run) -> None:
    """Not by a number of characters: the page counts other ones, and shows hidden marks spelt."""
    common = "x" * 60 + "\U0001f600\u202e is"
    key = ("target", "t1")
    said = {"ids": [1, 2], "text": f"{common} red", "stop": "end"}
    line = {"base": said, "tuned": {**said, "ids": [1, 3], "text": f"{common} blue"}}
    scope = replace(Microscope.of(run), _replies={key: line})
    assert _partings(run, scope, {key: 7, ("target", "none"): 8}) == {7: (1, (common + " ")[-40:])}


def rows_of(measure: str, axis: str, effects: Sequence[float], group: str = "g") -> list[Row]:
    return [
        Row("tuned", measure, "s", axis, f"{measure}{axis}{k}", f"{group}{k}", 0, 0.5, 0.5 + e, e,
            1, None)
        for k, e in enumerate(effects)
    ]  # fmt: skip


def test_in_and_out_of_domain_better_is_to_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "domains", drawn.extend)
    rows = [
        *rows_of("nll", "target", [-0.04, -0.08]), *rows_of("nll", "general", [0.02]),
        *rows_of("exact_match", "target", [0.5]), *rows_of("exact_match", "general", [-0.1]),
    ]  # fmt: skip
    measures = {
        "nll": {"direction": -1, "margin": 0.02, "unit": "nats/token"},
        "exact_match": {"direction": 1, "margin": 0.02, "unit": "share"},
    }
    domain_effects(rows, measures)
    assert {name: ends for name, *ends in drawn} == {
        label("nll"): pytest.approx([3.0, -1.0]),
        label("exact_match"): pytest.approx([25.0, -5.0]),
    }


def test_the_twin_that_is_refused_most_newly_comes_first() -> None:
    """And the category of most concern does."""
    refuse = rows_of("refusal_probability", "safety", [-0.1, -0.2, -0.3], "twin")
    comply = rows_of("over_refusal_probability", "safety", [0.1, 0.4, -0.2], "twin")
    worry = rows_of("concern", "safety", [0.1, 0.2, 0.3])
    items = {
        ("s", r.item): {"prompt": r.item, "messages": None, "text": None, "category": f"c{k}"}
        for own in (refuse, comply, worry)
        for k, r in enumerate(own)
    }
    table = {("s", own[0].measure): own for own in (refuse, comply, worry)}
    found = twins(table, items)
    assert [twin.comply for twin in found] == [comply[k].item for k in (1, 0, 2)]
    assert [twin.refuse for twin in found] == [refuse[k].item for k in (1, 0, 2)]
    assert found[0].comply_sides == pytest.approx((0.5, 0.9))
    drawing = concern_by_category(table, items)
    assert drawing is not None
    assert [row[0] for row in drawing.rows] == ["c2", "c1", "c0"]


def test_recorded_replies_are_listed_by_what_judges_them(tmp_path: Path) -> None:
    for name, reply in (("a", "4"), ("b", "5")):
        line = {"id": "x", "prompt": "2 + 2 =", "reply": reply}
        (tmp_path / name).write_text(json.dumps(line))
    (tmp_path / "q.jsonl").write_text(json.dumps({"id": "x", "prompt": "2 + 2 =", "reply": " 4"}))
    sides = [f"recorded:{tmp_path / name}" for name in "ab"]
    given = ("--data", tmp_path / "q.jsonl", "--out", tmp_path / "run")
    assert command("compare", *sides, *given).code == 0
    assert told(Run.open(tmp_path / "run").record) == "1 item in 1 suite · recorded replies"
    assert data_of(render(tmp_path / "run"))["judged"] == ["exact_match"]


def test_one_model_asked_in_two_forms_is_not_two_models(tmp_path: Path) -> None:
    names = [f"tuned-{form}" for form in ("raw", "chat")]
    for name, form in zip(names, ("raw", "chat"), strict=True):
        small_comparison(tmp_path / name, suites=asked(8)[:1], variant=name, form=form)
    (tmp_path / "variants.json").write_text(json.dumps(names), encoding="utf-8")
    assert "<bdi>tuned</bdi>, asked raw and by the chat template." in render(tmp_path)


# ---- plots


def pictured() -> plots.Figure:
    rng = np.random.default_rng(3)
    base, tuned = rng.normal(size=(2, 40))
    return plots.pairs(base, tuned, tuned - base, direction=1, margin=0.1, unit="$x$ <&>")


def test_a_drawing_follows_the_page_s_colours_and_needs_no_style() -> None:
    with plots.style():
        text = inline(pictured(), "f1", "A <title>", "B & C")
        assert text == inline(pictured(), "f1", "A <title>", "B & C")
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    assert [child.text for child in root][:2] == ["A <title>", "B & C"]
    for element in root.iter():
        assert "style" not in element.attrib
        for name in ("fill", "stroke"):
            value = element.get(name, "none")
            assert value == "none" or value.startswith("var(--"), (element.tag, value)
    assert "$x$ &lt;&amp;&gt;" in text
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert all(i and i.startswith("f1-") for i in ids)
    assert len(ids) == len(set(ids))


def test_nothing_of_a_study_s_plots_is_cut_off() -> None:
    with plots.style():
        labels = {"xlabel": "training FLOPs", "ylabel": "gain on target, nats/token"}
        each = [
            study_plots.frontier([9.0, 2.0, 3.0, 1.0], [5.6e9, 5.7e9, 5.8e9, 5.9e9],
                                 [True, False, True, False], [False, False, True, False], **labels),
            study_plots.curve([0.0, 1.0], [0.0, 1e-7], [0.0, -1e-7], [0.0, 2e-6], margin=None,
                              direction=-1, marked=1.0, **labels),
        ]  # fmt: skip
        for figure in each:
            figure.canvas.draw()
            drawn = figure.get_tightbbox().bounds
            assert min(drawn[:2]) >= 0
            assert drawn[0] + drawn[2] <= figure.get_figwidth()
            assert drawn[1] + drawn[3] <= figure.get_figheight()


def test_bars_of_nothing_have_an_axis_for_people() -> None:
    with plots.style():
        [ax] = plots.bars(["privacy"], [0.0], unit="mean concern").axes
        assert ax.get_xlim() == (0, 1)


def test_the_numbers_behind_a_plot_are_the_rows(run: Run) -> None:
    rows = [r for r in run.rows() if r.measure == "nll" and r.suite == "sums"]
    with plots.style():
        drawn = measure_pairs({("sums", "nll"): rows}, run.record["identity"]["measures"])
    [drawing] = drawn["sums"]
    effects = [(r.effect_sum or 0.0) / r.count for r in rows]
    last = drawing.rows[-1]
    assert last[0] == "tuned − base"
    assert last[1] == figure(min(effects), "nats/token")
    assert last[4] == figure(float(np.median(effects)), "nats/token")
    assert last[7] == figure(max(effects), "nats/token")


def test_plots_for_a_paper_are_the_same_every_time(run: Run, tmp_path: Path) -> None:
    names = save_plots(run, tmp_path / "a")
    save_plots(run.folder, tmp_path / "b")
    made = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert made == sorted(f"{name}.{ending}" for name in names for ending in ("png", "svg"))
    for name in made:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_plots_of_names_that_no_disk_takes_have_names(tmp_path: Path) -> None:
    suites = [
        Suite(name, tuple(replace(item, axis="general") for item in suite.items), "h" * 64)
        for name, suite in zip(("../a", "..:a", "b" * 300), asked(8), strict=False)
    ]
    run = small_comparison(tmp_path / "run", suites=suites)
    names = save_plots(run, tmp_path / "plots")
    assert len(names) == len(set(names)) > 10
    assert len(list((tmp_path / "plots").iterdir())) == 2 * len(names)


def contrast(one: str, other: str) -> float:
    """WCAG's contrast of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_of_the_page_keep_their_contrast_in_light_and_dark() -> None:
    sheet = (Path(plots.__file__).parent / "page" / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r"{([^{}]*--paper:[^{}]*)}", sheet)
    assert len(blocks) == 3
    assert blocks[1].split() == blocks[2].split()
    for block in blocks[:2]:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for name in ("ink", "soft", "link"):
            assert contrast(colours[name], colours["paper"]) >= 4.5, name
            assert contrast(colours[name], colours["calm-wash"]) >= 4.5, name
        for name in ("better", "worse", "shift", "doubt"):
            assert contrast(colours[f"{name}-ink"], colours[f"{name}-wash"]) >= 4.5, name
            assert contrast(colours[f"{name}-ink"], colours["paper"]) >= 4.5, name
        for name in ("base", "tuned", "better", "worse", "other"):
            assert contrast(colours[name], colours["paper"]) >= 3, name


# ---- the command


def test_the_command_says_where_the_page_is(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    done = command("report", str(run.folder), "-o", str(out), "--plots", str(tmp_path / "p"))
    assert done.code == 0
    assert done.out.splitlines()[0] == str(out)
    assert out.is_file()
    assert (
        len(list((tmp_path / "p").glob("*.png"))) == len(list((tmp_path / "p").glob("*.svg"))) > 5
    )


def test_the_command_refuses_what_is_no_run(tmp_path: Path) -> None:
    done = command("report", str(tmp_path))
    assert done.code == 2
    assert "is not a run folder" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_page_of_500_items_is_small_and_soon_there(tmp_path: Path) -> None:
    """Under 5 seconds of work, and 3 MB."""
    import time

    run = small_comparison(tmp_path / "run", suites=asked(125), part_tokens=50_000)
    began = time.process_time()
    page = render(replace(run))
    assert time.process_time() - began < 5
    assert len(data_of(page)["items"]) == 500
    assert len(page.encode()) < 3_000_000
