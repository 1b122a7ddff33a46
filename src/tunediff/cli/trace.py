"""``tunediff trace BASE ADAPTER``: which layers and kinds of modules carry the change?"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tunediff.cli import options
from tunediff.cli.study import say, studying


class By(StrEnum):
    """How the adapter is cut into groups."""

    layer = "layer"
    module = "module"
    both = "both"


def trace(
    base: options.Base,
    adapter: options.Lora,
    suite: options.Suites = None,
    data: options.Data = None,
    axis: options.Axes = None,
    limit: options.Limit = None,
    template: options.Template = None,
    by: Annotated[
        By, typer.Option("--by", help="Switch off every layer, every kind of module, or both.")
    ] = By.both,
    alone: Annotated[
        bool, typer.Option("--alone", help="Ask each group on alone too: twice the passes.")
    ] = False,
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
    """Which layers and kinds of modules carry the change?

    The adapter is switched off layer by layer and kind by kind (q_proj, up_proj ...), without
    reloading; base is read once. What is lost without a group is its part of the effect on target,
    general and safety. The parts are added up against the whole, and it is said where they do not.

    Exit codes: 0 done, 2 bad input or a refused pair, 70 a fault of tunediff itself, 130
    interrupted.
    """
    from tunediff.report.trace import draw
    from tunediff.studies.compare import suites_or_built_in
    from tunediff.studies.trace import CARD, measure_trace

    suites = suites_or_built_in(suite or (), options.one_file(data), axis or (), limit, False)
    opening = {"dtype": dtype, "device": device, "download": download, "revision": revision}
    with studying(out, as_json, template, max_new_tokens, opening) as (folder, told):
        card = measure_trace(
            base,
            adapter,
            suites,
            folder,
            by=by.value,
            alone=alone,
            seed=seed,
            max_length=max_length,
            allow_truncation=allow_truncation,
            **told,
        )
    say(card, out, CARD, as_json, draw)
    return 0
