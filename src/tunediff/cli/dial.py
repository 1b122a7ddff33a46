"""``tunediff dial BASE ADAPTER``: how strong should the adapter be?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunediff.cli import options
from tunediff.cli.study import say, studying


def dial(
    base: options.Base,
    adapter: options.Lora,
    suite: options.Suites = None,
    data: options.Data = None,
    axis: options.Axes = None,
    limit: options.Limit = None,
    template: options.Template = None,
    strengths: Annotated[
        str,
        typer.Option("--strengths", metavar="S,S,...", help="What ΔW is multiplied with."),
    ] = "0,0.25,0.5,0.75,1,1.25,1.5",
    write: Annotated[
        Path | None,
        typer.Option(
            "--write", metavar="FOLDER", help="Save the adapter at the strength recommended."
        ),
    ] = None,
    max_new_tokens: options.NewTokens = 0,
    as_json: options.AsJson = False,
    out: options.Kept = None,
    max_length: options.MaxLength = None,
    allow_truncation: options.AllowTruncation = False,
    dtype: options.Dtype = "float32",
    device: options.Device = "auto",
    seed: options.Seed = 0,
    download: options.Download = False,
    revision: options.Revision = None,
) -> int:
    """How strong should the adapter be?

    Base is compared with base + S · ΔW at every strength S, without retraining or reloading; base
    is read once. Around the best strength more are measured, in steps of 0.05. Half of the groups
    choose the strength that keeps the most gain inside the margins; the other half says what it
    keeps.

    Exit codes: 0 done, 1 nothing to --write since no strength is recommended, 2 bad input or a
    refused pair, 70 a fault of tunediff itself, 130 interrupted.
    """
    from tunediff.pair.rescale import require_new, write_rescaled
    from tunediff.report.dial import draw
    from tunediff.studies.compare import suites_or_built_in
    from tunediff.studies.dial import CARD, measure_dial, parse_strengths

    asked = parse_strengths(strengths)
    if write is not None:
        require_new(write)
    suites = suites_or_built_in(suite or (), options.one_file(data), axis or (), limit, False)
    opening = {"dtype": dtype, "device": device, "download": download, "revision": revision}
    with studying(out, as_json, template, max_new_tokens, opening) as (folder, told):
        card = measure_dial(
            base,
            adapter,
            suites,
            folder,
            strengths=asked,
            seed=seed,
            max_length=max_length,
            allow_truncation=allow_truncation,
            **told,
        )
    strength = card["recommended"]["strength"]
    card["written"] = None
    if write is not None and strength is not None:
        write_rescaled(Path(card["adapter"]["path"]), strength, write)
        card["written"] = {"path": str(write), "strength": strength}
    say(card, out, CARD, as_json, draw)
    return 1 if write is not None and strength is None else 0
