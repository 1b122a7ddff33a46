"""Which options do several commands have in common?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunediff.errors import UsageError

Suites = Annotated[
    list[str] | None,
    typer.Option(
        "--suite",
        metavar="NAME[=PATH]",
        help="A built-in suite (instructions, knowledge, reasoning, safety, writing), or a "
        "file or folder. The NAMEs gsm8k, mmlu, truthfulqa, ifeval and xstest read those formats. "
        "Repeatable. Default: every built-in one, where no --data is given.",
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="FILE",
        help="Your own target set: rows of prompt and reference; the training file works.",
    ),
]
Axes = Annotated[
    list[str] | None,
    typer.Option(
        "--axis",
        metavar="NAME=AXIS",
        help="A suite's axis: target, general, safety or fluency. Default: general, but safety for "
        "a prompt with a label. Repeatable.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", metavar="N", min=1, help="Only the first N items of each suite: a look."
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option("--max-length", min=2, help="Token ids an item. Default: the context."),
]
AllowTruncation = Annotated[
    bool, typer.Option("--allow-truncation", help="Keep the first tokens of longer items.")
]
Dtype = Annotated[str, typer.Option("--dtype", help="float32, bfloat16 or float16, of both sides.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the sampling and the resampling.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch hub names that are not local.")]
Revision = Annotated[str | None, typer.Option("--revision", help="Of BASE on the hub.")]

# of a study, which dials one adapter
Base = Annotated[str, typer.Argument(metavar="BASE", help="Base model: a folder, or a hub name.")]
Lora = Annotated[str, typer.Argument(metavar="ADAPTER", help="The folder of a plain LoRA adapter.")]
Template = Annotated[
    str | None,
    typer.Option(
        "--template",
        metavar="raw|chat|FILE",
        help="How prompts are given: as they are, by the model's chat template, or by that of a "
        "file. Default: raw.",
    ),
]
NewTokens = Annotated[
    int,
    typer.Option(
        "--max-new-tokens", min=0, help="Greedy replies of so many tokens. 0: none are made."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Kept = Annotated[
    Path | None,
    typer.Option("--out", metavar="FOLDER", help="Keep the runs here; go on where they stopped."),
]


def one_file(data: list[str] | None) -> str | None:
    """The target set.

    Raises:
        UsageError: several came.

    """
    if data and len(data) > 1:
        raise UsageError(
            f"--data came {len(data)} times; it is one file or folder.",
            "Give the others as --suite NAME=PATH --axis NAME=target.",
        )
    return data[0] if data else None


def one_template(template: str | None) -> str | None:
    """How prompts are given, of a study that asks in one way.

    Raises:
        UsageError: "both" came.

    """
    if template == "both":
        raise UsageError(
            "--template both came; here prompts are given in one way.", "Give raw or chat."
        )
    return template
