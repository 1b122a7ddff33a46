"""Is an adapter at a strength what it says, and is the strength recommended the one to be had?"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import factory
from command import Said, command
from faults import contents
from passes import counted
from tunediff.errors import UnsupportedError, UsageError
from tunediff.findings.dial import STEP, choose_strength, dial_card, worth_measuring
from tunediff.findings.paired import Setting
from tunediff.findings.selection import halves
from tunediff.items.named import read_suites
from tunediff.pair import hf_open
from tunediff.pair.adapter import read_adapter
from tunediff.pair.hf import HfPair
from tunediff.pair.hf_dial import adapted, dialled
from tunediff.pair.open import open_pair
from tunediff.pair.rescale import require_new, write_rescaled
from tunediff.run.store import Run
from tunediff.run.variants import open_runs
from tunediff.scoring.packs import Pack
from tunediff.scoring.states import BaseStates
from tunediff.specimens import load
from tunediff.studies.dial import _name, measure_dial, parse_strengths
from tunediff.values import TOKEN_METRICS, Item, Row, Scores
from tunediff.weights.checkpoint import Checkpoint

BASE, FORGETFUL, NOOP, MERGED = (load.HERE / n for n in ("base", "forgetful", "noop", "merged"))
SUITES = [x for n in load.SUITES for x in ("--suite", f"{n}={load.suite(n)}")]
GRID = tuple(round(STEP * k, 2) for k in range(31))


def dial(*arguments: Any) -> Said:
    return command("dial", *arguments)


# --- the pair at a strength


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.tiny_model(tmp_path_factory.mktemp("base") / "base", "llama", layers=2)


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.lora_adapter(tmp_path_factory.mktemp("adapter") / "adapter", base, scale=0.1)


def opened(base: Path, adapter: Path, states: Path | None = None) -> HfPair:
    pair = open_pair(base, adapter, device="cpu")
    assert isinstance(pair, HfPair)
    if states is not None:
        pair.share_base(BaseStates(states))
    return pair


def scores(pair: HfPair) -> list[Scores]:
    items = [Item(f"t{k}", text=text) for k, text in enumerate(factory.texts(6))]
    return list(pair.score(pair.encode(items, None, False)))


def numbers(found: Sequence[Scores]) -> np.ndarray:
    return np.concatenate([np.stack([getattr(s, n) for n in TOKEN_METRICS], 1) for s in found])


def test_strength_1_is_the_adapter_to_the_bit(base: Path, adapter: Path, tmp_path: Path) -> None:
    pair = opened(base, adapter, tmp_path)
    same = dialled(pair, 1.0)
    assert numbers(scores(same)).tobytes() == numbers(scores(pair)).tobytes()
    assert same.tuned == pair.tuned
    assert same.certificate == pair.certificate


@pytest.mark.parametrize("shared", [False, True])
def test_strength_0_is_base_to_the_bit(
    base: Path, adapter: Path, shared: bool, tmp_path: Path
) -> None:
    pair = dialled(opened(base, adapter, tmp_path if shared else None), 0.0)
    for s in scores(pair):
        assert s.nll_base.tobytes() == s.nll_tuned.tobytes()
        assert not s.kl_base_tuned.any()
        assert not s.logit_mse.any()
        assert s.top1_agreement.all()
    assert pair.certificate.weights_equal
    checks = {c.name: c for c in pair.certificate.checks}
    assert checks["weights_differ"].passed is False
    assert "logits_differ" not in checks


def test_every_other_strength_is_another_model_of_its_own(base: Path, adapter: Path) -> None:
    pair = opened(base, adapter)
    some = next(iter(adapted(pair)))
    ways: tuple[dict[str, Any], ...] = (
        {"strength": 1.0}, {"strength": 0.5}, {"strength": 0.0}, {"off": [some]},
        {"off": list(adapted(pair))},
    )  # fmt: skip
    pairs = [dialled(pair, **way) for way in ways]
    prints = [p.tuned.fingerprint for p in pairs]
    assert len(set(prints)) == 4  # strength 0 is everything off
    assert prints[0] == pair.tuned.fingerprint
    assert prints[2] == prints[4]
    assert pairs[1].settings["dial"] == {"strength": 0.5, "off": []}
    assert pairs[3].settings["dial"] == {"strength": 1.0, "off": [some]}
    assert "dial" not in pair.settings
    assert "ΔW times 0.5 in 14 of 14 modules" in pairs[1].certificate.checks[-1].detail
    assert "ΔW times 1 in 13 of 14 modules" in pairs[3].certificate.checks[-1].detail
    # asked in any order, each answers as it did
    first = [numbers(scores(p)).tobytes() for p in pairs]
    assert [numbers(scores(p)).tobytes() for p in reversed(pairs)] == first[::-1]
    assert len(set(first)) == 4


def peft_logits(base: Path, adapter: Path, ids: torch.Tensor) -> torch.Tensor:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    with torch.no_grad():
        return model(input_ids=ids[None]).logits[0]


@pytest.mark.parametrize(
    "options",
    [{}, {"rslora": True}, {"patterns": True}, {"architecture": "gpt2"}],
    ids=["plain", "rslora", "patterns", "gpt2"],
)
@pytest.mark.parametrize("strength", [0.35, 1.5])
def test_what_is_written_gives_the_logits_of_the_dial_in_plain_peft(
    options: dict[str, Any], strength: float, tmp_path: Path
) -> None:
    given = dict(options)
    model = factory.tiny_model(tmp_path / "base", given.pop("architecture", "llama"), layers=2)
    patterns = given.pop("patterns", False)
    source = factory.lora_adapter(tmp_path / "adapter", model, scale=0.1, **given)
    if patterns:
        factory.edit_json(
            source / "adapter_config.json", alpha_pattern={"q_proj": 3, "up_proj": 20}
        )
    before = contents(source)
    write_rescaled(source, strength, tmp_path / "written")
    ids = torch.arange(3, 40)
    there = peft_logits(model, tmp_path / "written", ids)
    streams = dialled(opened(model, source), strength).engine.streams
    here = streams.logits(streams.one(Pack.of([ids], torch.device("cpu")), "tuned"), "tuned")
    whole = peft_logits(model, source, ids)
    assert (here - there).abs().max() < 1e-5 * there.abs().max()
    assert (there - whole).abs().max() > 1e-3  # another strength is another model
    assert contents(source) == before
    # and tunediff reads it as an adapter of this base, the weights being the bytes they were
    written = read_adapter(tmp_path / "written", Checkpoint.open(model))
    for a, b in zip(written.modules, read_adapter(source, Checkpoint.open(model)).modules,
                    strict=True):  # fmt: skip
        assert a.scale == pytest.approx(strength * b.scale, rel=1e-12)
        assert np.array_equal(a.b, b.b)


def test_a_whole_alpha_stays_a_whole_number(adapter: Path, tmp_path: Path) -> None:
    write_rescaled(adapter, 0.5, tmp_path / "half")
    alpha = json.loads((tmp_path / "half" / "adapter_config.json").read_text())["lora_alpha"]
    assert alpha == 4
    assert isinstance(alpha, int)
    with pytest.raises(UsageError, match="exists already"):
        write_rescaled(adapter, 0.5, tmp_path / "half")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["half"]


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    require_new(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(os, "mkdir", denied)
    with pytest.raises(UsageError, match="new cannot be made: Permission denied") as error:
        require_new(tmp_path / "new")
    assert error.value.hint == "Choose another --write."


@pytest.mark.parametrize("kind", ["dora", "modules_to_save", "full"])
def test_what_is_no_plain_lora_is_refused(kind: str, base: Path, tmp_path: Path) -> None:
    if kind == "full":
        tuned = factory.full_finetune(tmp_path / kind, base)
    else:
        given: dict[str, Any] = {"dora": True} if kind == "dora" else {kind: ["norm"]}
        tuned = factory.lora_adapter(tmp_path / kind, base, **given)
    with pytest.raises(UnsupportedError, match="only what a plain LoRA adds can be scaled") as said:
        dialled(opened(base, tuned), 0.5)
    assert "Give the LoRA adapter" in said.value.hint


# --- the choice


def row(axis: str, measure: str, k: int, effect: float) -> Row:
    return Row("v", measure, axis, axis, f"{axis}{k}", f"{axis}{k}", 0, None, None, effect, 1, None)


def point(strength: float, effects: Mapping[str, Sequence[float]]) -> Setting:
    """A run of closed form: the effect of each item, by quantity."""
    measures = {"drift": "kl_base_tuned"}
    named = {q: measures.get(q, "nll") for q in effects}
    axis = {"drift": "general"}
    record = {
        "identity": {
            "variant": f"strength-{strength:.9g}",
            "seed": 0,
            "measures": {
                "nll": {"unit": "nats/token", "direction": -1, "margin": 0.02, "pool": "mean"},
                "kl_base_tuned": {
                    "unit": "nats/token",
                    "direction": 0,
                    "margin": None,
                    "pool": "mean",
                },
            },
            "base": {"fingerprint": "b"},
            "tuned": {"fingerprint": f"{strength}"},
        },
        "found": {"paths": {"base": "b", "tuned": "t"}, "noise_floor": {"delta_nll": 1e-6}},
    }
    rows = {
        q: tuple(row(axis.get(q, q), named[q], k, e) for k, e in enumerate(own))
        for q, own in effects.items()
    }
    return Setting(f"strength-{strength:.9g}", record, named, rows)


ITEMS = np.random.default_rng(0).uniform(0.5, 1.5, 60)


def saturating(s: float) -> Setting:
    """A gain that saturates, a loss on general that is quadratic, and so is the drift."""
    return point(
        s,
        {
            "target": -(1 - np.exp(-3 * s)) * ITEMS,
            "general": 0.1 * s**2 * ITEMS,
            "drift": 0.2 * s**2 * ITEMS,
        },
    )


def searched(of: Any, given: Sequence[float]) -> dict[float, Setting]:
    points = {s: of(s) for s in given}
    while more := worth_measuring(points):
        assert not set(more) & set(points)
        points |= {s: of(s) for s in more}
    return points


def test_the_search_finds_the_best_admissible_strength_of_the_grid() -> None:
    grid = {s: saturating(s) for s in GRID}
    best = choose_strength(grid)
    points = searched(saturating, (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5))
    assert choose_strength(points) == best
    assert len(points) <= 7 + 3
    chooses = halves(saturating(1).rows["general"])[0]["general"]
    mean = np.mean([r.effect_sum for r in chooses])
    assert best == max(s for s in GRID if s**2 * mean <= 0.02)


@pytest.mark.parametrize("peak", [0.1, 0.4, 0.65, 1.0, 1.35])
def test_the_search_finds_a_peak_that_no_margin_stands_before(peak: float) -> None:
    def of(s: float) -> Setting:
        return point(s, {"target": -(1 - (s / peak - 1) ** 2) * ITEMS, "general": 0 * ITEMS})

    points = searched(of, (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5))
    assert choose_strength(points) == pytest.approx(peak)


@pytest.mark.parametrize("far", [100.0, 1e9])
def test_a_strength_far_off_costs_few_more(far: float) -> None:
    points = searched(saturating, (0, 1, far))
    assert choose_strength(points) == choose_strength({s: saturating(s) for s in GRID})
    assert len(points) <= 3 + 2 * math.log2(far / 0.05)


def test_where_every_strength_given_costs_too_much_smaller_ones_are_tried() -> None:
    points = searched(lambda s: saturating(4 * s), (0, 0.5, 1))
    assert 0 < choose_strength(points) < 0.25


def test_the_half_that_reports_has_no_say_in_the_choice() -> None:
    points = {s: saturating(s) for s in GRID}
    reports = {r.item for r in halves(points[1.0].rows["general"])[1]["general"]}

    def planted(p: Setting) -> Setting:
        rows = [
            replace(r, effect_sum=9 + (r.effect_sum or 0)) if r.item in reports else r
            for r in p.rows["general"]
        ]
        return replace(p, rows={**p.rows, "general": rows})

    worse = {s: planted(p) for s, p in points.items()}
    assert choose_strength(worse) == choose_strength(points)
    card = dial_card(worse, GRID)
    assert [(m["axis"], m["inside"]) for m in card["recommended"]["margins"]] == [("general", "no")]


def test_what_is_kept_is_of_the_half_that_did_not_choose() -> None:
    points = {s: saturating(s) for s in GRID}
    card = dial_card(points, GRID)
    found = card["recommended"]
    s = found["strength"]
    assert found["gain_kept"]["value"] == pytest.approx((1 - np.exp(-3 * s)) / (1 - np.exp(-3)))
    assert found["drift_kept"]["value"] == pytest.approx(s**2)
    held = halves(points[s].rows["target"])[1]["target"]
    effects = {e["quantity"]: e for e in found["effects"]}
    assert effects["target"]["value"] == pytest.approx(np.mean([r.effect_sum for r in held]))
    assert effects["target"]["groups"] == len(held)
    percent = round(100 * found["gain_kept"]["value"])
    assert card["sentence"].startswith(f"{s:g} keeps {percent} % of the gain at ")
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_without_target_items_the_general_ones_decide_and_it_is_said() -> None:
    card = dial_card({s: point(s, {"general": -s * ITEMS}) for s in (0.5, 1.0)}, (0.5, 1.0))
    assert card["axis"] == "general"
    assert card["judged"] == "no target items were asked, so gain is that on the general items"
    assert card["recommended"]["strength"] == 1
    assert card["sentence"].startswith("The adapter as it is (strength 1) keeps the most gain")
    card = dial_card({1.0: point(1.0, {"fluency": ITEMS})}, (1.0,))
    assert card["recommended"]["reason"].startswith("no target or general items with a reference")


def test_too_few_items_choose_nothing() -> None:
    card = dial_card({1.0: point(1.0, {"target": [-1.0]})}, (1.0,))
    assert card["recommended"]["strength"] is None
    assert "too few for two halves" in card["sentence"]


def test_a_loss_that_is_not_known_is_not_taken_for_none() -> None:
    points = {s: saturating(s) for s in (0.25, 0.5, 1.0)}
    known = choose_strength(points)
    silent = {
        s: replace(p, rows={**p.rows, "general": ()}) for s, p in points.items() if s == known
    }
    assert choose_strength({**points, **silent}) != known
    card = dial_card({**points, **silent}, (0.25, 0.5, 1.0))
    (said,) = (c for c in card["choice"] if c["strength"] == known)
    assert said["losses"]["general"]["loss"] is None
    assert said["admissible"] is False
    nothing = {s: replace(p, rows={**p.rows, "general": ()}) for s, p in points.items()}
    card = dial_card(nothing, (0.25, 0.5, 1.0))
    assert card["recommended"]["reason"] == "the items of general are too few for two halves"


def test_what_failed_at_one_strength_does_not_flatter_it() -> None:
    """Half of its general items failed, the worst of them: the rest has lost nothing."""
    points = {s: saturating(s) for s in (0.25, 0.5, 1.0)}
    known = choose_strength(points)
    left = [replace(r, effect_sum=0.0) for r in points[1.0].rows["general"][:30]]
    assert all(half["general"] for half in halves(left))
    flattered = replace(points[1.0], rows={**points[1.0].rows, "general": left})
    assert choose_strength({1.0: flattered}) == 1.0  # alone it would be chosen
    assert choose_strength({**points, 1.0: flattered}) == known < 1
    silent = replace(
        points[1.0], rows={**points[1.0].rows, "target": points[1.0].rows["target"][:30]}
    )
    assert choose_strength({**points, 1.0: silent}) == known


def test_openings_that_say_too_little_keep_no_strength_admissible() -> None:
    """The reason is the openings' own, and stands at each figure that there is none of."""
    thin = {"safety": "The openings have 1e-9 of base's probability."}
    points = {
        s: replace(point(s, {"target": -s * ITEMS, "safety": ()}), thin=thin) for s in (0.5, 1.0)
    }
    card = dial_card(points, (0.5, 1.0))
    assert card["recommended"]["reason"] == "The openings have 1e-9 of base's probability"
    assert not any(c["admissible"] for c in card["choice"])
    said = {c["quantity"]: c["reason"] for c in card["curve"]}
    assert said["safety"] == thin["safety"]


def test_an_adapter_that_breaks_at_full_strength_is_weakened() -> None:
    thin = {"safety": "The openings have 1e-9 of tuned's probability."}
    points = {s: point(s, {"target": -s * ITEMS, "safety": 0 * ITEMS}) for s in (0.5, 1.0)}
    assert dial_card(points, (0.5, 1.0))["recommended"]["strength"] == 1.0
    broken = replace(points[1.0], rows={**points[1.0].rows, "safety": ()}, thin=thin)
    card = dial_card({**points, 1.0: broken}, (0.5, 1.0))
    assert card["recommended"]["strength"] == 0.5
    assert card["recommended"]["gain_kept"]["value"] == pytest.approx(0.5)


# --- the specimen whose truth is known


@pytest.fixture(scope="module")
def whole_grid(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Setting]:
    """The specimen that forgets, at every strength of the grid."""
    out = tmp_path_factory.mktemp("grid") / "runs"
    suites = read_suites([f"{n}={load.suite(n)}" for n in load.SUITES])
    measure_dial(str(BASE), str(FORGETFUL), suites, out, strengths=GRID, opening={})
    runs = open_runs(out)
    settings = [run.record["identity"]["settings"] for run in runs]
    assert all(s["base_once"] for s in settings)
    return {s["dial"]["strength"]: Setting.of(run) for s, run in zip(settings, runs, strict=True)}


def test_the_specimens_drift_does_not_fall(whole_grid: dict[float, Setting]) -> None:
    card = dial_card(whole_grid, GRID)
    drift = [c for c in card["curve"] if c["quantity"] == "drift" and c["strength"] <= 1]
    assert len(drift) == 21
    for before, after in itertools.pairwise(drift):
        assert after["high"] >= before["low"]
        assert after["value"] >= before["value"]


def test_the_specimens_strength_is_as_good_as_the_best_of_the_grid(
    whole_grid: dict[float, Setting],
) -> None:
    points = searched(whole_grid.__getitem__, (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5))
    assert len(points) <= 10
    found, best = (dial_card(p, GRID)["recommended"] for p in (points, whole_grid))
    gain, bound = (
        next(e for e in r["effects"] if e["quantity"] == "target") for r in (found, best)
    )
    assert bound["low"] <= gain["value"] <= bound["high"]
    assert found["drift_kept"]["high"] < 0.5
    assert found["gain_kept"]["low"] > 0.5


# --- the command


FEW = (*SUITES, "--limit", 24, "--strengths", "0,0.3,1")


@dataclass(frozen=True)
class Kept:
    """A dial that was kept: where, what was said, who read what, how often models were opened."""

    folder: Path
    said: Said
    passes: Sequence[tuple[str, bytes]]
    opened: int


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("dial") / "runs"
    opened: list[object] = []
    load_model = hf_open.load_model
    with pytest.MonkeyPatch.context() as patch:
        passes = counted(patch)
        patch.setattr(hf_open, "load_model", lambda *a: opened.append(a) or load_model(*a))
        said = dial(BASE, FORGETFUL, *FEW, "--out", folder, "--write", folder.parent / "written")
    return Kept(folder, said, passes, len(opened))


def test_base_is_read_once_and_nothing_is_loaded_again(kept: Kept) -> None:
    base, tuned = ([ids for s, ids in kept.passes if s == side] for side in ("base", "tuned"))
    assert kept.opened == 1
    assert len(base) + len(tuned) == len(kept.passes)
    assert len(set(base)) == len(base) > 0
    assert sorted(tuned) == sorted(base * len(open_runs(kept.folder)))


def test_the_command_says_and_keeps_it(kept: Kept) -> None:
    folder, said = kept.folder, kept.said
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert lines[0] == "=== How strong should the adapter be? ==="
    # folders are as long as they are
    assert all(len(line) <= 80 for line in lines[3:] if str(folder.parent) not in line)
    card = json.loads((folder / "dial.json").read_bytes())
    assert card["sentence"] in lines
    strength = card["recommended"]["strength"]
    assert card["written"] == {"path": str(folder.parent / "written"), "strength": strength}
    (marked,) = (line for line in lines if line.endswith("◄"))
    assert marked.split()[0] == f"{strength:g}"
    names = [run.folder.name for run in open_runs(folder)]
    assert names[:3] == ["strength-0", "strength-0.3", "strength-1"]
    assert sorted(names) == sorted(p.name for p in folder.iterdir() if p.is_dir())
    at = {(c["strength"], c["quantity"]): c["value"] for c in card["curve"]}
    assert at[0.0, "target"] == at[0.0, "drift"] == 0
    zero, one = (Run.open(folder / f"strength-{s}").record for s in (0, 1))
    assert zero["found"]["certificate"]["weights_equal"] is True
    assert one["identity"]["tuned"]["fingerprint"] == card["adapter"]["fingerprint"]
    written = read_adapter(folder.parent / "written", Checkpoint.open(BASE))
    assert written.modules[0].alpha == pytest.approx(16 * strength)


def test_going_on_ends_in_the_same_bytes(kept: Kept, tmp_path: Path) -> None:
    folder = kept.folder
    before = contents(folder)
    copy = tmp_path / "runs"
    shutil.copytree(folder, copy)
    names = [p.name for p in copy.iterdir() if p.is_dir()]
    shutil.rmtree(copy / names[-1])  # one had not begun, and of the others parts are lost
    for name in names[:-1]:
        for part in sorted((copy / name / "rows").iterdir())[::2]:
            part.unlink()
    (copy / "variants.json").write_text(json.dumps(["strength-0", "strength-0.3", "strength-1"]))
    said = dial(BASE, FORGETFUL, *FEW, "--out", copy, "--json")
    assert said.code == 0, said
    after = contents(copy)
    cards = [json.loads(c.pop("dial.json")) for c in (before, after)]
    assert before == after
    assert cards[1] == {**cards[0], "written": None} == said.json


def test_other_strengths_do_not_go_into_the_folder(
    kept: Kept,
) -> None:
    asked = (*SUITES, "--limit", 24, "--strengths", "0.5,1", "--out", kept.folder, "--json")
    assert "belongs to another run" in dial(BASE, FORGETFUL, *asked).error["message"]


def test_an_adapter_of_nothing_has_no_strength_to_write(tmp_path: Path) -> None:
    asked = (*SUITES, "--limit", 8, "--strengths", "0.5")
    said = dial(BASE, NOOP, *asked, "--write", tmp_path / "written")
    assert said.code == 1
    assert "No strength is recommended: no strength gains on target" in said.out
    assert not (tmp_path / "written").exists()
    assert "Nothing is kept" in said.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--strengths", "0,a"], "is not a list of numbers"),
        (["--strengths", ""], "is not a list of numbers"),
        (["--strengths=-0.5,1"], "negative or not finite"),
        (["--strengths", "nan"], "negative or not finite"),
        (["--strengths", "inf"], "negative or not finite"),
        (["--strengths", "1,100.1"], "a number above 100"),
        (["--strengths", "1,1.0"], "names a strength twice"),
        (["--strengths", ",".join(map(str, range(51)))], "51 strengths; at most 50"),
        (["--write", "."], "exists already"),
        (["--write", "nowhere/at/all"], "is not a folder"),
        (["--template", "both"], "given in one way"),
        (["--data", "a", "--data", "b"], "--data came 2 times"),
    ],
)
def test_bad_input_is_refused_in_words(arguments: list[str], says: str, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    error = dial(BASE, FORGETFUL, *arguments, "--json", "--out", out).error
    assert says in error["message"]
    assert error["hint"]
    assert not out.exists()


@pytest.mark.parametrize("pair", [(BASE, MERGED), ("toy", "toy:1")])
def test_a_pair_that_cannot_be_dialled_is_refused(pair: tuple[Any, Any], tmp_path: Path) -> None:
    error = dial(*pair, *FEW, "--json", "--out", tmp_path / "runs").error
    assert error["code"] == "unsupported"
    assert "only what a plain LoRA adds" in error["message"]
    assert not (tmp_path / "runs").exists()


def test_strengths_are_read_as_they_are_written() -> None:
    assert parse_strengths("0, 0.25,1.5") == (0, 0.25, 1.5)
    names = [_name(s) for s in parse_strengths("1,1.000001,0.05,12.345678")]
    assert names == ["strength-1", "strength-1.000001", "strength-0.05", "strength-12.345678"]
