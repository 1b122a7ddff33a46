"""Is a group's part what is lost without it, and is it said where parts do not add up?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import factory
from command import Said, command
from passes import counted
from test_dial import point
from tunediff.findings.paired import Setting
from tunediff.findings.selection import halves
from tunediff.findings.trace import Part, Way, trace_card
from tunediff.pair.hf import HfPair
from tunediff.pair.hf_dial import adapted, dialled
from tunediff.pair.open import open_pair
from tunediff.run.store import Run
from tunediff.run.variants import open_runs
from tunediff.scoring.packs import Pack
from tunediff.specimens import load
from tunediff.studies.trace import _groups

BASE, FORGETFUL, NOOP, MERGED = (load.HERE / n for n in ("base", "forgetful", "noop", "merged"))
SUITES = [x for n in load.SUITES for x in ("--suite", f"{n}={load.suite(n)}")]
FEW = (*SUITES, "--limit", 10)
ITEMS = np.random.default_rng(1).normal(1, 0.2, 40)


def trace(*arguments: Any) -> Said:
    return command("trace", *arguments)


# --- the models


def logits(pair: HfPair, ids: torch.Tensor) -> torch.Tensor:
    streams = pair.engine.streams
    pack = Pack.of([ids], torch.device("cpu"))
    return streams.logits(streams.one(pack, "tuned"), "tuned").clone()


def test_a_layer_off_is_an_adapter_that_never_had_it(tmp_path: Path) -> None:
    base = factory.tiny_model(tmp_path / "base", "llama", layers=2)
    # the same random factors: a layer's are drawn before those of the next
    both, first = (
        factory.lora_adapter(tmp_path / f"{n}", base, scale=0.1, layers=range(n)) for n in (2, 1)
    )
    pair, only = (open_pair(base, adapter, device="cpu") for adapter in (both, first))
    assert isinstance(pair, HfPair)
    assert isinstance(only, HfPair)
    second = {name for name, layer in adapted(pair).items() if layer == 1}
    ids = torch.arange(3, 40)
    assert torch.equal(logits(dialled(pair, off=second), ids), logits(only, ids))
    assert not torch.equal(logits(pair, ids), logits(only, ids))
    everything = logits(dialled(pair, off=set(adapted(pair))), ids)
    streams = pair.engine.streams
    pack = Pack.of([ids], torch.device("cpu"))
    assert torch.equal(everything, streams.logits(streams.one(pack, "base"), "base"))


def test_groups_are_layers_and_kinds_and_the_head() -> None:
    modules = {"m.layers.1.a.q": 1, "m.layers.0.a.q": 0, "m.layers.0.b.up": 0, "lm_head": None}
    assert _groups(modules) == {
        "layer": {
            "layer 0": {"m.layers.0.a.q", "m.layers.0.b.up"},
            "layer 1": {"m.layers.1.a.q"},
            "head": {"lm_head"},
        },
        "module": {
            "q": {"m.layers.0.a.q", "m.layers.1.a.q"},
            "up": {"m.layers.0.b.up"},
            "lm_head": {"lm_head"},
        },
    }


# --- the figures


def setting(target: np.ndarray, general: np.ndarray) -> Setting:
    return point(1.0, {"target": target, "general": general})


def parts(effects: Mapping[str, tuple[np.ndarray, np.ndarray]], way: Way = "off") -> list[Part]:
    return [Part("layer", name, 7, way, setting(*own)) for name, own in effects.items()]


def figure(card: Mapping[str, Any], key: str, quantity: str) -> list[Mapping[str, Any]]:
    return [line for line in card[key] if line["quantity"] == quantity]


def test_parts_that_add_up_are_not_said_not_to() -> None:
    whole = setting(-3 * ITEMS, 0.5 * ITEMS)
    card = trace_card(
        whole,
        parts({"layer 0": (-1 * ITEMS, 0.4 * ITEMS), "layer 1": (-2 * ITEMS, 0.1 * ITEMS)}),
    )
    for line, value in zip(figure(card, "parts", "target"), (-2, -1), strict=True):
        assert line["value"] == pytest.approx(value * ITEMS.mean())
        assert line["low"] < line["value"] < line["high"]
        assert line["share"] == pytest.approx(value / -3)
    assert [x["adds_up"] for x in card["additivity"]] == [True, True]
    (added,) = figure(card, "additivity", "target")
    assert added["sum"] == pytest.approx(added["whole"])
    assert card["sentences"] == [
        "Without layer 0, 67 % of the effect on target is lost, the most of any layer (one half of "
        "the items chose it, the figure is of the other)."
    ]
    assert json.loads(json.dumps(card, allow_nan=False)) == card


@pytest.mark.parametrize(("size", "told"), [(0.001, False), (0.1, True)])
def test_shares_are_of_an_effect_beyond_its_margin(size: float, told: bool) -> None:
    """A part is easily many times a whole that is next to nothing."""
    whole, off = setting(-size * ITEMS, 0 * ITEMS), setting(10 * size * ITEMS, 0 * ITEMS)
    card = trace_card(whole, [Part("layer", "layer 0", 7, "off", off)])
    (line,) = figure(card, "parts", "target")
    assert (line["share"] is not None) is told
    assert any("of the effect on target is lost" in x for x in card["sentences"]) is told


@pytest.mark.parametrize(
    ("way", "left", "why"),
    [
        ("off", 2.5, "stand in for each other"),  # each loss is 0.5, of 3
        ("off", 0.5, "need each other"),  # each is 2.5
        ("alone", 2.5, "stand in for each other"),
        ("alone", 0.5, "need each other"),
    ],
)
def test_parts_that_do_not_add_up_are_said_not_to(way: Way, left: float, why: str) -> None:
    noise = np.random.default_rng(2).normal(0, 0.05, (2, 40))
    whole = setting(-3 * ITEMS, 0 * ITEMS)
    runs = {f"layer {k}": (-left * ITEMS + noise[k], 0 * ITEMS) for k in range(2)}
    card = trace_card(whole, parts(runs, way))
    (added,) = figure(card, "additivity", "target")
    carried = [own if way == "alone" else -3 * ITEMS - own for own, _ in runs.values()]
    assert added["adds_up"] is False
    assert added["value"] == pytest.approx((sum(carried) + 3 * ITEMS).mean())
    assert added["low"] < added["value"] < added["high"]
    assert added["sum"] == pytest.approx(sum(carried).mean())
    assert why in card["sentences"][-1]
    assert "do not add up: they sum to" in card["sentences"][-1]
    assert all("general" not in sentence for sentence in card["sentences"])


def test_few_items_do_not_say_that_parts_fail_to_add_up() -> None:
    few = np.array([1.0, 2.0, 3.0])
    card = trace_card(setting(-few, few), parts({"layer 0": (0 * few, few)}))
    assert [x["adds_up"] for x in card["additivity"]] == [None, None]


def test_what_a_wide_interval_leaves_open_is_not_said_to_add_up() -> None:
    whole, noise = setting(-3 * ITEMS, 0 * ITEMS), np.random.default_rng(3).normal(0, 2, 40)
    card = trace_card(whole, parts({"layer 0": (noise - noise.mean(), 0 * ITEMS)}))
    (added,) = figure(card, "additivity", "target")
    assert added["low"] < 0 < added["high"]
    assert added["adds_up"] is None


def test_the_half_of_the_items_that_chooses_a_part_does_not_say_how_much_it_is() -> None:
    whole = setting(-3 * ITEMS, 0 * ITEMS)
    chooses, reports = ({r.item for r in half["target"]} for half in halves(whole.rows["target"]))
    names_ = [r.item for r in whole.rows["target"]]
    # the one looks best where it is chosen alone: there nothing is left, elsewhere two thirds
    lucky = np.where([name in chooses for name in names_], 0.0, -2 * ITEMS)
    card = trace_card(whole, parts({"lucky": (lucky, 0 * ITEMS), "sound": (-1 * ITEMS, 0 * ITEMS)}))
    assert card["sentences"][0].startswith("Without lucky, 33 % of the effect on target is lost")
    assert chooses.isdisjoint(reports)


def test_an_item_without_a_figure_in_one_run_is_left_out_of_all() -> None:
    whole = setting(-3 * ITEMS, ITEMS)
    one, other = parts({"layer 0": (-1 * ITEMS, ITEMS), "layer 1": (-2 * ITEMS, ITEMS)})
    lost = replace(one.setting, rows={**one.setting.rows, "target": one.setting.rows["target"][1:]})
    card = trace_card(whole, [replace(one, setting=lost), other])
    (total,) = figure(card, "whole", "target")
    assert total["left_out"] == 1
    assert total["value"] == pytest.approx(-3 * ITEMS[1:].mean())
    (added,) = figure(card, "additivity", "target")
    assert added["value"] == pytest.approx(0, abs=1e-12)


# --- the command


def names(card: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return list(dict.fromkeys((p["by"], p["group"], p["way"]) for p in card["parts"]))


def test_the_command_traces_the_specimen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    passes = counted(monkeypatch)
    out = tmp_path / "runs"
    said = trace(BASE, FORGETFUL, *FEW, "--by", "layer", "--alone", "--out", out)
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert lines[0] == "=== Which parts carry the change? ==="
    assert all(len(line) <= 80 for line in lines[3:] if str(tmp_path) not in line)
    card = json.loads((out / "trace.json").read_bytes())
    layers = [f"layer {k}" for k in range(4)]
    assert names(card) == [("layer", n, way) for way in ("off", "alone") for n in layers]
    runs = {run.folder.name: run for run in open_runs(out)}
    assert list(runs)[:2] == ["whole", "without-layer-0"]
    assert len(runs) == 9
    base = [ids for side, ids in passes if side == "base"]
    assert len(base) == len(set(base))
    assert len(passes) == 10 * len(base)

    def pooled(run: Run) -> float:
        rows = [r for r in run.rows() if r.axis == "target" and r.measure == "nll"]
        return sum(r.effect_sum or 0 for r in rows) / sum(r.count for r in rows)

    (first, *_) = (p for p in card["parts"] if p["quantity"] == "target")
    expected = pooled(runs["whole"]) - pooled(runs["without-layer-0"])
    assert first["value"] == pytest.approx(expected)
    off = runs["only-layer-0"].record["identity"]["settings"]["dial"]["off"]
    assert len(off) == 21
    assert any("do not add up" in sentence for sentence in card["sentences"])
    # going on with it asks nobody anything
    before = len(passes)
    again = trace(BASE, FORGETFUL, *FEW, "--by", "layer", "--alone", "--out", out, "--json")
    assert again.json == card
    assert len(passes) == before


@pytest.mark.parametrize(
    ("pair", "arguments", "says"),
    [
        ((BASE, NOOP), (), "there is no part to switch off"),
        ((BASE, MERGED), (), "only what a plain LoRA adds"),
        (("toy", "toy:1"), (), "only what a plain LoRA adds"),
        ((BASE, FORGETFUL), ("--by", "head"), "'head' is not one of"),
    ],
)
def test_what_cannot_be_traced_is_refused(
    pair: Sequence[Any], arguments: Sequence[str], says: str, tmp_path: Path
) -> None:
    error = trace(*pair, *FEW, *arguments, "--json", "--out", tmp_path / "runs").error
    assert says in error["message"]
    assert error["hint"]
    assert not (tmp_path / "runs").exists()
