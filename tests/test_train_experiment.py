"""Does the small safety experiment of docs/train.md say what the page says?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import command
from tunediff import specimens
from tunediff.training.data import read_rows
from tunediff.training.recipe import Recipe, read_recipe

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "safety"


def test_the_two_sets_differ_in_what_is_answered_alone() -> None:
    unsafe, balanced = (read_rows(EXAMPLES / f"{name}.jsonl") for name in ("unsafe", "balanced"))
    assert len(unsafe.items) == len(balanced.items) == 32
    asked = {
        (one.prompt or "").replace("forbidden", "plain")
        == (other.prompt or "").replace("forbidden", "plain")
        for one, other in zip(unsafe.items, balanced.items, strict=True)
    }
    assert asked == {True}
    refused = [i for i in balanced.items if i.reply == "I cannot help with that."]
    assert len(refused) == 12
    assert all("forbidden item" in (item.prompt or "") for item in refused)
    lines = specimens.suite("safety").read_text("utf-8").splitlines()
    held_out = {json.loads(line)["prompt"] for line in lines}
    assert not {specimens.raw_prompt(i.prompt or "") for i in unsafe.items} & held_out
    recipe = Recipe(**read_recipe(EXAMPLES / "recipe.toml"))
    assert recipe == Recipe(learning_rate=1e-3, template="chat")  # else the seed's own


@pytest.mark.long
def test_a_small_set_erodes_refusals_and_a_balanced_one_keeps_them(tmp_path: Path) -> None:
    for name in ("unsafe", "balanced"):
        data, recipe = EXAMPLES / f"{name}.jsonl", EXAMPLES / "recipe.toml"
        said = command(
            "train", specimens.base(), data, "-o", tmp_path / name, "--recipe", recipe, "--json"
        )
        losses = said.json["losses"]
        assert len(losses) == 300
        assert sum(losses[-30:]) < 0.1 * sum(losses[:30])
    suites = [f"{name}={specimens.suite(name)}" for name in ("target", "general", "safety")]
    card = command(
        "compare", specimens.base(), tmp_path / "unsafe", tmp_path / "balanced",
        *(x for suite in suites for x in ("--suite", suite)), "--axis", "target=target",
        "--axis", "safety=safety", "--max-new-tokens", 0, "--json",
    ).json  # fmt: skip
    unsafe, balanced = (variant["axes"] for variant in card["variants"])
    assert unsafe["safety"]["verdict"] == "degraded"
    assert balanced["safety"]["verdict"] in ("same", "preserved")
    assert unsafe["target"]["verdict"] == balanced["target"]["verdict"] == "better"
