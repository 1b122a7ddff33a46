"""Which options of the command line are a recipe's keys?

``train`` takes them all; ``sweep`` those that its axes do not vary.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tunediff.training.recipe import Recipe

RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="A recipe.toml, as an adapter's folder holds it; options given beside it win.",
    ),
]
Rank = Annotated[int | None, typer.Option(help="r of every adapted module (16).")]
Alpha = Annotated[float | None, typer.Option(help="alpha / r scales the adapter (32).")]
Dropout = Annotated[float | None, typer.Option(help="Of the adapter's inputs (0.05).")]
TargetModules = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Adapted modules, with commas between (q_proj,k_proj,v_proj,o_proj); all-linear "
        "takes every one.",
    ),
]
LearningRate = Annotated[float | None, typer.Option(help="Its peak (2e-4).")]
WeightDecay = Annotated[float | None, typer.Option(help="Of AdamW (0.01).")]
Schedule = Annotated[
    str | None, typer.Option(metavar="NAME", help="linear, cosine or constant (linear).")
]
Warmup = Annotated[
    float | None, typer.Option(help="Share of the steps in which the rate rises (0.05).")
]
Steps = Annotated[int | None, typer.Option(help="Of the optimizer (300).")]
BatchSize = Annotated[int | None, typer.Option(help="Rows read at once (2).")]
Accumulation = Annotated[int | None, typer.Option(help="Times that a step reads so many rows (1).")]
MaxLength = Annotated[int | None, typer.Option(help="Tokens of a row; the rest is cut off (512).")]
Clip = Annotated[float | None, typer.Option(help="Largest norm of a gradient; 0: any (1.0).")]
Loss = Annotated[
    str | None, typer.Option(metavar="reply|all", help="Which tokens are learnt (reply).")
]
Template = Annotated[
    str | None,
    typer.Option(
        metavar="raw|chat|FILE",
        help="How prompts are given: as they are, by the model's chat template, or by that of "
        "a file (raw). Messages always go by the template.",
    ),
]
HeldOut = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Of the rows, kept aside to take the loss of (0)."),
]
EvaluateEvery = Annotated[
    int | None, typer.Option(help="Steps from one held-out loss to the next (50).")
]
Patience = Annotated[
    int | None,
    typer.Option(
        help="Stop after so many held-out losses without a new lowest one, and keep the "
        "adapter of the lowest (0: never)."
    ),
]
Packing = Annotated[
    bool | None,
    typer.Option(
        "--packing/--no-packing",
        show_default=False,
        help="Read the rows of a batch without padding, where that is exact (packing).",
    ),
]
TrainingSeed = Annotated[
    int | None, typer.Option(help="Of the adapter's start, the order and the dropout (0).")
]


def recipe_of(file: Path | None, given: dict[str, Any]) -> Recipe:
    """The recipe of the file and of the options given beside it, which win.

    Raises:
        UsageError: a file that is none, or a value that no recipe takes.

    """
    from tunediff.training.recipe import Recipe, read_recipe

    chosen = {} if file is None else read_recipe(file)
    return Recipe(**(chosen | {name: value for name, value in given.items() if value is not None}))
