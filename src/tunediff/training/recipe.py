"""What decides an adapter, beside its base, its data and the machine?

The default is the recipe of the document that asked for this command: r = 16, alpha = 32, dropout
0.05 on the attention's projections, AdamW at 2e-4 with a linear schedule, 300 steps of 2 rows.
A recipe lies on disk as a flat TOML file; every key is a field of :class:`Recipe`, and an option of
``tunediff train``.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tunediff.errors import UsageError
from tunediff.items.bounds import shown

ALL_LINEAR = "all-linear"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an adapter is trained.

    ``alpha`` / ``rank`` scales the adapter; ``dropout`` is that of its inputs (what the base drops
    out by itself stays off). ``target_modules``: the last parts of the adapted modules' names, or
    "all-linear". ``learning_rate``: the peak, reached after a share ``warmup`` of the steps; from
    there "linear" falls to 0 in a line, "cosine" in half a wave, "constant" stays. A step reads
    ``batch_size`` rows ``accumulation`` times. ``clip``: the largest norm of a step's gradient; 0
    leaves it as it is. ``loss``: the mean NLL of the reply's tokens, or of all tokens but the
    first. ``template``: as in ``compare``. ``held_out``: the share of rows that are kept aside, of
    which the loss is taken every ``evaluate_every`` steps; after ``patience`` of these without a
    new lowest one training stops, and the adapter of the lowest is kept (0: neither).
    ``packing``: rows of a batch stand behind one another where that is exact; False pads them.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = 0.05
    steps: int = 300
    batch_size: int = 2
    accumulation: int = 1
    max_length: int = 512
    clip: float = 1.0
    loss: Literal["reply", "all"] = "reply"
    template: str = "raw"
    held_out: float = 0.0
    evaluate_every: int = 50
    patience: int = 0
    packing: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _as(field.default, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            fits, needed = _RULES[field.name]
            if type(value) is not type(field.default) or not fits(value):
                raise UsageError(
                    f"The recipe's {field.name} is {shown(value)}; needed is {needed}.",
                    f"The default is {shown(field.default)}.",
                )
        if self.patience and not self.held_out:
            raise UsageError(
                f"The recipe's patience is {self.patience}, and no rows are held out that could "
                "tell when to stop.",
                "Give held_out, such as 0.1.",
            )

    @property
    def warmup_steps(self) -> int:
        """Steps of the rising learning rate."""
        return round(self.warmup * self.steps)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**asdict(self), "target_modules": list(self.target_modules)}


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "rank": (lambda n: 1 <= n <= 4096, "a whole number from 1 to 4096"),
    "alpha": (lambda x: 0 < x < math.inf, "a number above 0"),
    "dropout": (lambda x: 0 <= x < 1, "a number from 0 to below 1"),
    "target_modules": (
        lambda names: bool(names) and all(isinstance(n, str) and n for n in names),
        "a list of at least one module's name",
    ),
    "learning_rate": (lambda x: 0 < x < math.inf, "a number above 0"),
    "weight_decay": (lambda x: 0 <= x < math.inf, "a number of at least 0"),
    "schedule": (lambda s: s in ("linear", "cosine", "constant"), "linear, cosine or constant"),
    "warmup": (lambda x: 0 <= x <= 1, "a share of the steps, from 0 to 1"),
    "steps": (lambda n: n >= 1, "a whole number of at least 1"),
    "batch_size": (lambda n: n >= 1, "a whole number of at least 1"),
    "accumulation": (lambda n: n >= 1, "a whole number of at least 1"),
    "max_length": (lambda n: n >= 2, "a whole number of at least 2"),
    "clip": (lambda x: 0 <= x < math.inf, "a number of at least 0"),
    "loss": (lambda s: s in ("reply", "all"), "reply or all"),
    "template": (bool, "raw, chat or the path of a template"),
    "held_out": (lambda x: 0 <= x <= 0.5, "a share of the rows, from 0 to 0.5"),
    "evaluate_every": (lambda n: n >= 1, "a whole number of at least 1"),
    "patience": (lambda n: n >= 0, "a whole number of at least 0"),
    "packing": (lambda _: True, "true or false"),
    "seed": (lambda n: 0 <= n < 2**32, "a whole number from 0 to 2^32 - 1"),
}


def read_recipe(path: Path | str) -> dict[str, Any]:
    """The fields that a recipe file gives.

    Raises:
        UsageError: no such file, no TOML, or a key that no recipe has.

    """
    try:
        given = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The recipe {path} cannot be read: {error}.",
            "Give a TOML file of keys and values, such as rank = 16.",
        ) from None
    names = [field.name for field in dataclasses.fields(Recipe)]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            raise UsageError(
                f"{path} has the key {shown(name)}, which no recipe has."
                + (f" Did you mean {near[0]}?" if near else ""),
                f"The keys are {', '.join(names)}.",
            )
    return given


def recipe_toml(recipe: Recipe) -> str:
    """The recipe as a file that :func:`read_recipe` reads."""
    lines = ["# A recipe of tunediff train: tunediff train BASE DATA -o ADAPTER --recipe THIS"]
    # of strings, lists of them, numbers, true and false JSON's form is TOML's
    lines += [f"{name} = {json.dumps(value)}" for name, value in recipe.as_dict().items()]
    return "\n".join(lines) + "\n"


def _as(default: Any, value: Any) -> Any:
    """A whole number where a float is meant, or a list or single name where a tuple is, as that.

    Anything else as it came: true is no number, and "16" is none.
    """
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, tuple):
        return (value,) if isinstance(value, str) else tuple(value) if _is_list(value) else value
    return value


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)
