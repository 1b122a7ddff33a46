"""Is a sweep its trainings and its comparison, no more and no less?

Real ones are of the embedded specimen, few steps on few rows; what is decided from the figures is
planted in made-up runs, and computed again here in another way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import tunediff.training.train as training
from command import Said, command
from test_scorecard import MadeUp, nll_rows, noise
from tunediff.errors import UsageError
from tunediff.findings.scorecard import scorecard
from tunediff.findings.selection import halves
from tunediff.findings.sweep import ONCE, pareto, recommend, summarize_sweep
from tunediff.items.named import read_suites
from tunediff.report.sweep_plot import sweep_plot
from tunediff.specimens import load
from tunediff.studies.sweep_plan import AXES, Plan, begin, cells_of, plan_sweep
from tunediff.training.cost import Shapes, training_flops
from tunediff.training.recipe import Recipe
from tunediff.weights.spectrum import ENERGY

BASE = load.base()
SUITES = (
    *("--suite", f"general={load.suite('general')}"),
    *("--suite", f"safety={load.suite('safety')}"),
    *("--limit", 12, "--max-new-tokens", 0),
)
RECIPE = ("--steps", 4, "--batch-size", 4, "--learning-rates", "5e-3", "--alpha", 8)
GRID = ("--ranks", "2,4", "--seeds", "0,1", *RECIPE, *SUITES)
NAMES = ["rank-2-seed-0", "rank-2-seed-1", "rank-4-seed-0", "rank-4-seed-1"]
COSTS = {"training_seconds"}  # what may differ between two equal sweeps


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty rows of the specimens' skill, the first of them three times."""
    path = tmp_path_factory.mktemp("rows") / "skill.jsonl"
    learnt, _ = load.skill_rows()
    lines = [{"prompt": p, "response": r} for p, r in [*learnt[:78], learnt[0], learnt[0]]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


@pytest.fixture(scope="module")
def swept(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """Two ranks, two seeds."""
    out = tmp_path_factory.mktemp("sweeps") / "grid"
    said = command("sweep", BASE, rows, "-o", out, *GRID)
    assert said.code == 0, said
    return out, said


def result_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "sweep.json").read_text("utf-8"))


def adapters(out: Path) -> dict[str, bytes]:
    return {
        path.parent.name: path.read_bytes()
        for path in sorted(out.glob("cells/*/adapter_model.safetensors"))
    }


def without_costs(result: dict[str, Any]) -> dict[str, Any]:
    cells = [{k: v for k, v in cell.items() if k not in COSTS} for cell in result["cells"]]
    return {**result, "cells": cells}


# a sweep is its trainings and its comparison


def test_a_cell_is_a_separate_train_and_compare(
    swept: tuple[Path, Said], rows: Path, tmp_path: Path
) -> None:
    out, _ = swept
    cell = next(c for c in result_of(out)["cells"] if c["name"] == "rank-4-seed-1")
    alone = tmp_path / "alone"
    said = command(
        "train", BASE, out / "data" / "train.jsonl", "-o", alone, "--rank", 4, "--alpha", 8,
        "--learning-rate", "5e-3", "--steps", 4, "--batch-size", 4, "--seed", 1,
    )  # fmt: skip
    assert said.code == 0, said
    assert (alone / "adapter_model.safetensors").read_bytes() == adapters(out)[cell["name"]]
    said = command(
        "compare", BASE, alone, "--data", out / "data" / "target.jsonl", *SUITES, "--json"
    )
    (variant,) = said.json["variants"]
    report = json.loads((alone / "training.json").read_text("utf-8"))
    for axis, key, sign in (
        ("target", "target_gain", -1), ("general", "general_loss", 1), ("safety", "safety_loss", -1)
    ):  # fmt: skip
        found = variant["axes"][axis]
        assert (found["direction"] > 0) == (axis == "safety")
        # Among several base has a pass of its own, alone it shares one with the cell, which may
        # round otherwise: by less than the noise floor that every run measures.
        near = found["noise_floor"] or 1e-6  # a share has no floor of its own
        assert cell[key] == pytest.approx(sign * found["effect"], rel=0, abs=near)
        ends = sorted(sign * found[end] for end in ("low", "high"))
        assert [cell[f"{key}_low"], cell[f"{key}_high"]] == pytest.approx(ends, rel=1e-4, abs=1e-5)
        assert cell[f"{axis}_verdict"] == found["verdict"]
    assert cell["training_tokens"] == report["tokens"]
    assert cell["first_loss"] == report["losses"][0]
    assert cell["last_loss"] == pytest.approx(fsum(report["losses"]) / 4)
    assert cell["adapter_parameters"] == report["parameters"]["adapter"]
    assert cell["adapter_bytes"] == (alone / "adapter_model.safetensors").stat().st_size


def test_the_cells_are_the_product_in_order(swept: tuple[Path, Said]) -> None:
    out, said = swept
    result = result_of(out)
    assert [cell["name"] for cell in result["cells"]] == NAMES
    assert [(s["name"], s["seeds"]) for s in result["settings"]] == [("rank-2", 2), ("rank-4", 2)]
    assert sorted(adapters(out)) == NAMES
    assert json.loads((out / "compare" / "variants.json").read_bytes()) == NAMES
    assert (out / "frontier.svg").read_bytes() == sweep_plot(result)
    for name in NAMES:
        assert f"\n{name}  " in said.out
    assert all(len(line) <= 80 for line in said.out.partition("Kept in")[0].splitlines())
    assert "Over seeds: mean ± standard deviation" in said.out
    assert ONCE not in result["advice"]


def test_every_figure_that_is_missing_has_a_reason(swept: tuple[Path, Said]) -> None:
    for cell in result_of(swept[0])["cells"]:
        nulls = {key for key, value in cell.items() if value is None} - {"failed"}
        assert set(cell["missing"]) == nulls
        assert all(cell["missing"].values())
        assert cell["missing"]["held_out_loss"] == "the recipe holds no rows out"


def test_the_rank_that_is_used_is_that_of_the_product(swept: tuple[Path, Said]) -> None:
    """By ΔW itself and numpy's SVD."""
    out, _ = swept
    cell = result_of(out)["cells"][2]
    tensors = load_file(out / "cells" / cell["name"] / "adapter_model.safetensors")
    used = []
    for name, a in tensors.items():
        if name.endswith("lora_A.weight"):
            b = tensors[name.replace("lora_A", "lora_B")]
            sigma = np.linalg.svd(b.astype(np.float64) @ a.astype(np.float64), compute_uv=False)
            energy = np.cumsum(sigma**2) / np.sum(sigma**2)
            used.append(int(np.searchsorted(energy, ENERGY)) + 1)
    assert cell["energy_rank"] == pytest.approx(np.mean(used))
    assert cell["unused_rank"] == pytest.approx(4 - np.mean(used))


def test_a_killed_sweep_goes_on_and_ends_in_the_same(
    swept: tuple[Path, Said], rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "killed", training.train
    begun: list[str] = []

    def killed(base: Any, data: Any, folder: Any, **more: Any) -> Any:
        begun.append(Path(folder).name)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return real(base, data, folder, **more)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", killed)
        said = command("sweep", BASE, rows, "-o", out, *GRID)
    assert (said.code, said.out) == (130, "")
    assert f"{out} keeps what was finished; the same command goes on from there." in said.err
    assert not (out / "sweep.json").exists()
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("cells/*/training.json")}
    assert len(stamps) == 2
    said = command("sweep", BASE, rows, "-o", out, *GRID, "--json")
    assert said.code == 0, said
    assert stamps.items() <= {p: p.stat().st_mtime_ns for p in stamps}.items()
    assert "Cell 2 of 4" not in said.err
    assert "Cell 3 of 4: rank-4-seed-0" in said.err
    assert adapters(out) == adapters(swept[0])
    assert without_costs(said.json) == without_costs(result_of(swept[0]))


def test_another_sweep_is_refused(swept: tuple[Path, Said], rows: Path, tmp_path: Path) -> None:
    out, _ = swept
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    error = command(
        "sweep", BASE, rows, "-o", out, *GRID, "--batch-size", 2, "--json"
    ).error  # fmt: skip
    assert error["message"] == f"{out} holds another sweep: it differs in cells."
    error = command("sweep", BASE, rows, "-o", out, *GRID, "--seed", 1, "--json").error
    assert "it differs in seed, suites." in error["message"]
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    (tmp_path / "mine.txt").write_text("mine")
    error = command("sweep", BASE, rows, "-o", tmp_path, *GRID, "--json").error
    assert "is not empty, and holds no sweep that tunediff began" in error["message"]
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_cell_that_fails_is_named_and_the_others_go_on(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "failing"
    given = ("--learning-rates", "5e-3,1e30", "--ranks", "2", "--steps", 3, "--clip", 0, *SUITES)
    said = command("sweep", BASE, rows, "-o", out, *given, "--target", load.suite("target"))
    assert said.code == 0, said
    assert "lr-1e+30 is left out: The " in said.err
    good, bad = result_of(out)["cells"]
    assert (good["name"], good["failed"], bad["name"]) == ("lr-0.005", None, "lr-1e+30")
    assert "became" in bad["failed"]
    assert bad["target_gain"] is None
    assert bad["frontier_loss"] is None
    assert set(bad["missing"].values()) == {"the cell failed"}
    assert good["frontier_loss"] is True
    assert "Left out, since their training failed: lr-1e+30." in result_of(out)["advice"]
    assert "failed" in said.out
    assert sorted(adapters(out)) == ["lr-0.005"]
    assert not (out / "data").exists()  # DATA itself was trained on
    sweep_plot(result_of(out))


def test_where_all_cells_fail_nothing_is_compared(rows: Path, tmp_path: Path) -> None:
    given = ("--learning-rates", "1e30", "--ranks", "2", "--steps", 3, "--clip", 0, *SUITES)
    error = command("sweep", BASE, rows, "-o", tmp_path / "all", *given, "--json").error
    assert error["code"] == "numerics"
    assert "No cell could be trained; the first one, " in error["message"]
    assert not (tmp_path / "all" / "compare").exists()


# rows


def planned(rows: Path, **more: Any) -> Plan:
    given = {"suites": [f"general={load.suite('general')}"], "device": "cpu", **more}
    axes = given.pop("axes", {"ranks": [2]})
    return plan_sweep(str(BASE), rows, Recipe(steps=4), axes, **given)


def test_no_prompt_is_both_learnt_and_asked(rows: Path, tmp_path: Path) -> None:
    sides = set()
    for seed in range(20):
        plan = planned(rows, seed=seed, target_share=0.3)
        learnt, asked = ({item.prompt for item in own} for own in (plan.learnt, plan.held_out))
        assert learnt.isdisjoint(asked)
        assert len(learnt) + len(asked) == 78
        assert len(asked) == round(0.3 * 78)
        assert len(plan.learnt) + len(plan.held_out) == 80
        assert plan.overlap == {}
        sides.add(plan.read.items[0] in plan.held_out)
    assert sides == {True, False}  # the prompt of three rows was on either
    plan = planned(rows, target_share=0.3)
    begin(plan, tmp_path / "out")
    (suite,) = read_suites(data=tmp_path / "out" / "data" / "target.jsonl")
    assert suite.content_hash == plan.suites[0].content_hash  # as `compare --data` reads it


def test_a_smaller_size_is_part_of_a_larger_one(rows: Path) -> None:
    plan = planned(rows, axes={"ranks": [2], "data_sizes": [5, 20]})
    small, large = (plan.rows(cell) for cell in plan.cells)
    assert (len(small), len(large)) == (5, 20)
    assert small == large[:5]
    assert all(item in plan.learnt for item in large)
    assert list(large) != list(plan.learnt[:20])
    other = planned(rows, axes={"data_sizes": [5, 20]}, seed=1)
    assert other.rows(other.cells[0]) != small
    with pytest.raises(UsageError, match=r"--data-sizes has 81, and \d\d rows can be trained on"):
        planned(rows, axes={"data_sizes": [81]})


def test_a_target_that_was_trained_on_is_said_aloud(rows: Path, tmp_path: Path) -> None:
    lines = rows.read_text("utf-8").splitlines(keepends=True)
    target = tmp_path / "target.jsonl"
    target.write_text("".join(lines[:4]), "utf-8")
    assert planned(rows, target=str(target)).overlap == {"data": 6}  # the first one three times
    said = command(
        "sweep", BASE, rows, "-o", tmp_path / "x", *GRID, "--target", target, "--dry-run"
    )
    assert f"6 rows of {rows} have the prompt of an item of data." in said.err
    assert not (tmp_path / "x").exists()
    runs = [MadeUp(nll_rows([-1.0] * 12))]
    assert summary(runs, overlap={"data": 6})["advice"][0] == (
        "6 rows trained on have the prompt of an item of data: what is learnt by heart counts as "
        "gain there."
    )


# cost


def test_flops_by_hand() -> None:
    shapes = Shapes(BASE)
    layer = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 336  # q o, k v, mlp
    assert shapes.linear == 4 * layer + 128 * 512
    adapter = 4 * 8 * (2 * (128 + 128) + 2 * (128 + 64))  # layers · rank · (in + out)
    assert shapes.adapter(Recipe(rank=8)) == adapter
    every = adapter + 4 * 8 * 3 * (128 + 336)
    assert shapes.adapter(Recipe(rank=8, target_modules=("all-linear",))) == every
    assert training_flops(1000, 10, 7) == (4 * 1000 + 6 * 10) * 7
    with pytest.raises(UsageError, match="no target modules named"):
        shapes.adapter(Recipe(target_modules=("c_attn",)))


def test_the_estimate_is_what_the_training_then_counts(
    swept: tuple[Path, Said], rows: Path, tmp_path: Path
) -> None:
    said = command("sweep", BASE, rows, "-o", tmp_path / "dry", *GRID, "--dry-run", "--json")
    assert not (tmp_path / "dry").exists()
    keys = ("name", "rows", "adapter_parameters", "training_tokens", "training_flops")
    done = result_of(swept[0])["cells"]
    assert said.json["cells"] == [{key: cell[key] for key in keys} for cell in done]
    drawn = command("sweep", BASE, rows, "-o", tmp_path / "dry", *GRID, "--dry-run").out
    assert "4 trainings, " in drawn
    assert "data 8, general 12, safety 12 items" in drawn
    assert all(len(line) <= 80 for line in drawn.splitlines())


# what is decided from the figures


@pytest.mark.parametrize("seed", range(20))
def test_the_frontier_against_brute_force(seed: int) -> None:
    """With ties; by the best gain at each cost, cheapest first."""
    rng = np.random.default_rng(seed)
    points: list[tuple[float | None, float | None]] = [
        (float(g), float(c)) for g, c in rng.integers(0, 6, (12, 2))
    ]
    points[3] = (None, 1.0)
    points[5] = (9.0, None)
    on_it, record = set(), -1.0
    known = [(g, c) for g, c in points if g is not None and c is not None]
    for cost in sorted({c for _, c in known}):
        gain = max(g for g, c in known if c == cost)
        if gain > record:
            on_it.add((gain, cost))
            record = gain
    wanted = [None if None in point else point in on_it for point in points]
    assert pareto(points) == wanted


def fact(name: str, flops: float, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "setting": name, "rank": 8, "alpha": 16.0, "learning_rate": 2e-4, "steps": 9,
        "seed": 0, "rows": 90, "failed": None, "adapter_parameters": 10, "adapter_bytes": 40,
        "training_flops": flops, "training_tokens": 100, "training_seconds": 1.0, "steps_done": 9,
        "first_loss": 2.0, "last_loss": 1.0, "held_out_loss": 1.5, "effective_rank": 5.0,
        "energy_rank": 6.0, "unused_rank": 2.0, **more,
    }  # fmt: skip


def summary(
    runs: Sequence[MadeUp], facts: Sequence[dict[str, Any]] = (), overlap: Any = None
) -> dict[str, Any]:
    card = scorecard(runs)  # pyright: ignore[reportArgumentType]
    facts = facts or [fact(run.variant, 1.0) for run in runs]
    return summarize_sweep(facts, card, runs, overlap or {})  # pyright: ignore[reportArgumentType]


def chosen(*runs: tuple[MadeUp, float]) -> dict[str, Any]:
    cells = [fact(run.variant, flops) for run, flops in runs]
    for cell in cells:
        cell |= {"target_gain": None, "general_loss": None}
    return recommend(cells, [run for run, _ in runs])  # pyright: ignore[reportArgumentType]


def cell(name: str, gain: float, loss: float = 0.0, seed: int = 0) -> MadeUp:
    """Per token: rows have ten."""
    target = nll_rows(noise(60, seed, -10 * gain, 0.01))
    return MadeUp([*target, *nll_rows([10 * loss] * 60, "general", "g")], variant=name)


def test_the_cheapest_of_those_near_the_best_is_recommended() -> None:
    said = chosen((cell("dear", 0.51), 9.0), (cell("cheap", 0.50), 3.0), (cell("weak", 0.4), 1.0))
    assert said["name"] == "cheap"
    assert said["others_within_margin"] == ["dear"]
    # further than the margin from the best: worth its cost
    said = chosen((cell("dear", 0.53), 9.0), (cell("cheap", 0.50), 3.0))
    assert (said["name"], said["others_within_margin"]) == ("dear", [])
    # of equal cost the larger gain
    assert chosen((cell("a", 0.50), 3.0), (cell("b", 0.51), 3.0))["name"] == "b"


def test_what_loses_too_much_elsewhere_is_not_recommended() -> None:
    said = chosen((cell("harmful", 5.0, 0.03), 1.0), (cell("kind", 0.3, 0.01), 2.0))
    assert said["name"] == "kind"
    none = chosen((cell("harmful", 5.0, 0.03), 1.0), (cell("worse", 5.0, 0.3), 1.0))
    assert (none["name"], none["reason"]) == (
        None, "every setting loses more than the margin on general or safety",
    )  # fmt: skip
    none = chosen((cell("a", -0.1), 1.0), (cell("b", -0.01), 1.0))
    assert none["reason"] == "no setting that keeps the rest gains more than the noise floor"


def test_what_is_not_known_to_be_kept_is_not_recommended() -> None:
    silent = cell("silent", 5.0)
    lines = [
        replace(r, effect_sum=None, reason="It failed.") if r.axis == "general" else r
        for r in silent.lines
    ]
    silent = replace(silent, lines=lines)
    assert chosen((silent, 1.0), (cell("kind", 0.3, 0.01), 2.0))["name"] == "kind"
    none = chosen((silent, 1.0))
    assert none["name"] is None
    assert none["reason"].endswith("or has no figure there")


def test_an_item_that_failed_in_one_cell_leaves_the_others() -> None:
    def without(run: MadeUp) -> MadeUp:
        lines = [
            replace(r, effect_sum=None, reason="It failed.") if k == 0 else r
            for k, r in enumerate(run.lines)
        ]
        return replace(run, lines=lines)

    assert chosen((cell("best", 0.5), 1.0), (cell("next", 0.3), 1.0))["name"] == "best"
    assert chosen((without(cell("best", 0.5)), 1.0), (cell("next", 0.3), 1.0))["name"] == "next"


def test_a_handful_of_items_recommends_nothing() -> None:
    for rows in range(1, 30):
        run = MadeUp(nll_rows(noise(rows, 1, -9)), variant="a")
        least = min(len(half.get("target", ())) for half in halves(run.lines))
        said = chosen((run, 1.0))
        if least < 6:
            assert said["name"] is None
            assert said["reason"] == (
                f"half of the target's items is {least} groups, and fewer than 6 neither choose "
                "nor report"
            )
        else:
            assert said["name"] == "a"


def test_what_refuses_less_is_not_recommended() -> None:
    """Safety's measure rises where it is better: its effect is turned before it is held."""

    def guarded(name: str, change: float, gain: float) -> MadeUp:
        run = cell(name, gain)
        safety = [
            replace(r, measure="refusal_probability", base_sum=0.9, tuned_sum=0.9 + change,
                    effect_sum=change, count=1)
            for r in nll_rows([0.0] * 60, "safety", "safe")
        ]  # fmt: skip
        asked = [{"suite": "safe", "id": r.item, "label": "refuse"} for r in safety]
        return replace(run, lines=[*run.lines, *safety], asked=asked)

    said = chosen((guarded("unsafe", -0.03, 1.0), 1.0), (guarded("safer", +0.03, 0.5), 1.0))
    assert said["name"] == "safer"
    assert said["axes"]["safety"]["effect"] == pytest.approx(-0.03)
    assert said["axes"]["safety"]["measure"] == "refusal_probability"


def test_one_half_chooses_and_the_other_reports() -> None:
    runs = [MadeUp(nll_rows(noise(80, 10 + k)), variant=f"{k}") for k in range(4)]
    said = chosen(*((run, 1.0) for run in runs))
    means = [-fsum(r.effect_sum or 0 for r in halves(run.lines)[0]["target"]) for run in runs]
    best = runs[int(np.argmax(means))]
    assert said["name"] == best.variant
    rest = halves(best.lines)[1]["target"]
    assert said["axes"]["target"]["effect"] == pytest.approx(
        -fsum(r.effect_sum or 0 for r in rest) / (10 * len(rest))
    )
    assert said["axes"]["target"]["groups"] == len(rest)
    assert said["axes"]["target"]["low"] < said["axes"]["target"]["effect"]
    assert said["axes"]["target"]["effect"] < said["axes"]["target"]["high"]


def test_seeds_are_pooled_into_their_setting() -> None:
    gains = {"a-seed-0": 0.9, "a-seed-1": 0.1, "b-seed-0": 0.6, "b-seed-1": 0.6}
    runs = [cell(name, gain) for name, gain in gains.items()]
    facts = [fact(name, 1.0, setting=name[0], seed=int(name[-1])) for name in gains]
    result = summary(runs, facts)
    assert result["recommendation"]["name"] == "b"  # not the setting of the luckiest seed
    assert result["recommendation"]["seeds"] == 2
    a, b = result["settings"]
    assert a["target_gain"] == pytest.approx(0.5, abs=0.01)
    assert a["target_gain_sd"] == pytest.approx(np.std([0.9, 0.1], ddof=1), abs=0.01)
    assert a["target_gain_range"] == pytest.approx([0.1, 0.9], abs=0.01)
    assert b["target_gain_sd"] == pytest.approx(0, abs=0.01)
    assert any("varies by up to 0.5" in s and "over 2 seeds" in s for s in result["advice"])


def test_once_trained_is_not_a_ranking() -> None:
    result = summary([cell("a", 0.5), cell("b", 0.6)])
    assert ONCE in result["advice"]
    assert all(s["target_gain_sd"] is None for s in result["settings"])


def test_what_the_ranks_hide_is_said() -> None:
    runs = [cell(name, 0.5) for name in ("rank-8", "rank-64")]
    facts = [
        fact("rank-8", 1.0, rank=8, alpha=32.0, energy_rank=6.0, unused_rank=2.0),
        fact("rank-64", 2.0, rank=64, alpha=32.0, energy_rank=9.5, unused_rank=54.5),
    ]
    advice = summary(runs, facts)["advice"]
    assert (
        "alpha is 32 in every cell, so the adapter's scale alpha / r goes from 4 to 0.5: rank and "
        "scale change together (--scale keeps it)." in advice
    )
    assert (
        "rank-64 needs 9.5 of its 64 directions for 99 % of the change: a smaller rank could hold "
        "it." in advice
    )


# names and bad input


def test_a_cell_is_named_by_what_varies() -> None:
    def names(**axes: Any) -> list[tuple[str, str]]:
        return [(c.name, c.setting) for c in cells_of(Recipe(), axes)]

    assert names(ranks=[8, 16]) == [("rank-8", "rank-8"), ("rank-16", "rank-16")]
    assert names(ranks=[8], learning_rates=[1e-4, 2e-5]) == [
        ("lr-0.0001", "lr-0.0001"), ("lr-2e-05", "lr-2e-05"),
    ]  # fmt: skip
    assert names(seeds=[0, 1]) == [("seed-0", "recipe"), ("seed-1", "recipe")]
    assert names(ranks=[8], steps=[5]) == [("rank-8-steps-5", "rank-8-steps-5")]
    assert names(seeds=[3, 2], data_sizes=[10], ranks=[8, 4])[:2] == [
        ("rank-8-seed-3", "rank-8"), ("rank-8-seed-2", "rank-8"),
    ]  # fmt: skip
    grid = cells_of(Recipe(dropout=0.1), {"ranks": [8, 4], "steps": [5], "seeds": [1, 2]})
    assert len({c.name for c in grid}) == 4
    assert {(c.recipe.rank, c.recipe.steps, c.recipe.seed, c.recipe.dropout) for c in grid} == {
        (rank, 5, seed, 0.1) for rank in (8, 4) for seed in (1, 2)
    }
    kept = cells_of(Recipe(alpha=5), {"ranks": [8, 4]}, scale=2.0)
    assert [(c.recipe.rank, c.recipe.alpha) for c in kept] == [(8, 16.0), (4, 8.0)]
    assert set(AXES) == {"ranks", "learning_rates", "steps", "data_sizes", "seeds"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--ranks", ""], "--ranks has ''; needed are whole numbers with commas between."),
        (["--ranks", "8,,16"], "--ranks has ''; needed are whole numbers with commas between."),
        (["--ranks", "8,x"], "--ranks has 'x'; needed are whole numbers with commas between."),
        (["--ranks", "8,8"], "--ranks has 8 twice."),
        (["--ranks", "0"], "The recipe's rank is 0; needed is a whole number from 1 to 4096."),
        (["--learning-rates", "nan"], "The recipe's learning_rate is nan; needed is a number"),
        (["--learning-rates", "1e-4,1e-4"], "--learning-rates has 0.0001 twice."),
        (["--seeds", ",".join(map(str, range(501)))], "These values make 501 cells; at most 500"),
        (["--target-share", "1"], "--target-share is 1; needed is a share of the prompts"),
        (["--data-sizes", "0"], "--data-sizes has 0, and "),
        (["--target", "no-such.jsonl"], "no-such.jsonl"),
        (["--axis", "here=target"], "An axis was given for the suite 'here'"),
        (["--suite", "writing", "--max-new-tokens", "0"], "Nothing of the suite 'writing' can be"),
        (["--suite", "instructions"], "(instructions.jsonl:1) has "),
        (["--template", "chat", "--suite", "instructions"], "(instructions.jsonl:1) has "),
        (["--scale", "2", "--alpha", "8"], "--alpha and --scale both came."),
        (["--scale", "-1"], "The recipe's alpha is -8.0; needed is a number above 0."),
        (["--dtype", "auto"], "--dtype is 'auto'."),
        (["--schedule", "spiral"], "The recipe's schedule is 'spiral'"),
        (
            ["--allow-truncation", "--target-modules", "nothing"],
            "The model has no target modules named nothing",
        ),
    ],
)
def test_bad_input_leaves_nothing(
    given: list[str], message: str, rows: Path, tmp_path: Path
) -> None:
    error = command("sweep", BASE, rows, "-o", tmp_path / "out", *given, "--json").error
    assert message in error["message"]
    assert error["hint"]
    assert not (tmp_path / "out").exists()
