"""Is a recipe what its file says, and is a wrong one refused in words?"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from tunediff.errors import UsageError
from tunediff.training.recipe import _RULES, Recipe, read_recipe, recipe_toml


def test_the_default_is_the_recipe_that_was_asked_for() -> None:
    recipe = Recipe()
    assert (recipe.rank, recipe.alpha, recipe.dropout) == (16, 32, 0.05)
    assert recipe.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert (recipe.learning_rate, recipe.weight_decay, recipe.schedule) == (2e-4, 0.01, "linear")
    assert (recipe.batch_size, recipe.steps, recipe.max_length) == (2, 300, 512)
    assert (recipe.clip, recipe.loss, recipe.warmup_steps) == (1.0, "reply", 15)


def test_a_recipe_is_the_same_after_its_file(tmp_path: Path) -> None:
    recipe = Recipe(
        rank=3, alpha=6, target_modules=("a", "b"), template='odd "name"\n.jinja', packing=False,
        held_out=0.25, patience=2, learning_rate=1e-7,
    )  # fmt: skip
    file = tmp_path / "recipe.toml"
    file.write_text(recipe_toml(recipe), "utf-8")
    assert set(tomllib.loads(recipe_toml(recipe))) == {f.name for f in dataclasses.fields(Recipe)}
    assert Recipe(**read_recipe(file)) == recipe


def test_every_field_has_a_rule() -> None:
    assert list(_RULES) == [field.name for field in dataclasses.fields(Recipe)]


def test_whole_numbers_and_lists_are_taken_where_a_float_or_a_tuple_is_meant() -> None:
    recipe = Recipe(alpha=8, clip=2, target_modules=["q_proj"])  # type: ignore[arg-type]
    assert recipe == Recipe(alpha=8.0, clip=2.0, target_modules=("q_proj",))
    assert Recipe(target_modules="all-linear").target_modules == ("all-linear",)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rank", 0), ("rank", True), ("rank", 1.5), ("rank", "16"), ("alpha", 0), ("alpha", True),
        ("alpha", float("nan")), ("dropout", 1.0), ("dropout", -0.1), ("target_modules", ()),
        ("target_modules", [1]), ("target_modules", 5), ("learning_rate", 0.0),
        ("learning_rate", float("inf")), ("weight_decay", -1.0), ("schedule", "step"),
        ("warmup", 1.1), ("steps", 0), ("batch_size", 0), ("accumulation", 0), ("max_length", 1),
        ("clip", -1.0), ("loss", "prompt"), ("template", ""), ("held_out", 0.6),
        ("evaluate_every", 0), ("patience", -1), ("packing", 1), ("seed", -1), ("seed", 2**32),
    ],
)  # fmt: skip
def test_a_value_out_of_range_or_of_another_type_is_refused(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"The recipe's {field} is .*; needed is") as error:
        Recipe(**{field: value})  # type: ignore[arg-type]
    assert "The default is" in error.value.hint


def test_patience_without_held_out_rows_is_refused() -> None:
    with pytest.raises(UsageError, match="no rows are held out"):
        Recipe(patience=2)


def test_an_unknown_key_is_refused_with_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text("learnin_rate = 1.0\n")
    with pytest.raises(UsageError, match=r"'learnin_rate'.*Did you mean learning_rate"):
        read_recipe(file)


@pytest.mark.parametrize("content", ["rank = ", "[a]\nrank = 1", "rank = 1\nrank = 2"])
def test_a_file_that_is_no_flat_toml_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "r.toml"
    file.write_text(content)
    with pytest.raises(UsageError):
        read_recipe(file)
    with pytest.raises(UsageError, match="cannot be read"):
        read_recipe(tmp_path / "none.toml")
