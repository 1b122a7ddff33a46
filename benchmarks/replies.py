"""How long do two models take to answer, one prompt after the other, and together?

The peer: both models loaded, ``generate`` of the transformers library on one prompt at a time.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks import naive, shapes
from benchmarks.job import Clock
from tunediff.pair.hf import HfPair
from tunediff.pair.open import open_pair
from tunediff.scoring.sampling import BOTH
from tunediff.scoring.states import BaseStates
from tunediff.values import Encoded, Generation

PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 8, 32, 24
ADAPTERS = 3


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Greedy replies of both models to the same prompts; the better of two costs, after one."""
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    base, adapter = shapes.base(job["shape"]), shapes.adapter(job["shape"])
    options = {"dtype": job["dtype"], "device": job["device"]}
    texts = shapes.text_ids(shapes.SHAPES[job["shape"]]["vocab_size"], count=PROMPTS, seed=1)
    # a short text is said several times: every prompt has as many tokens
    prompts = [(ids * PROMPT_TOKENS)[:PROMPT_TOKENS] for ids in texts]
    if job["way"] == "naive":
        models = naive.load(base, adapter, **options)

        def work() -> list[list[int]]:
            return [_one(model, ids) for model in models for ids in prompts]
    else:
        pair = open_pair(base, adapter, **options)
        none = np.empty(0, np.int64)
        asked = [
            Encoded(str(i), np.array(ids), none, len(ids) - 1, 0) for i, ids in enumerate(prompts)
        ]

        def work() -> list[list[int]]:
            found = list(pair.generate(asked, Generation(max_new_tokens=NEW_TOKENS)))
            sides = zip(*found, strict=True)
            return [list(reply.ids or ()) for side in sides for reply in side if reply is not None]

    clock = Clock(torch.cuda.synchronize if job["device"] == "cuda" else lambda: None)
    work()
    measured = [clock(work) for _ in range(2)]
    return {
        "replies": measured[0][0],
        "cost": min((c for _, c in measured), key=lambda c: c["cpu"]),
    }


def several(job: dict[str, Any]) -> dict[str, Any]:
    """References scored and prompts answered by base and three adapters, loading counted in.

    The naive way compares each adapter with base anew; here base's replies and its last hidden
    states are kept. The same adapter stands for three: what it says has no say in the cost.
    """
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    base, adapter = shapes.base(job["shape"]), shapes.adapter(job["shape"])
    options = {"dtype": job["dtype"], "device": job["device"]}
    texts = shapes.text_ids(shapes.SHAPES[job["shape"]]["vocab_size"], count=PROMPTS, seed=1)
    prompts = [(ids * PROMPT_TOKENS)[:PROMPT_TOKENS] for ids in texts]
    none, items = np.empty(0, np.int64), _items(texts)

    def naively() -> None:
        for _ in range(ADAPTERS):
            models = naive.load(base, adapter, **options)
            naive.score(*models, texts)
            for model in models:
                for ids in prompts:
                    _one(model, ids)

    def ours() -> None:
        asked = [
            Encoded(str(i), np.array(ids), none, len(ids) - 1, 0) for i, ids in enumerate(prompts)
        ]
        with TemporaryDirectory() as kept:
            states = BaseStates(Path(kept))
            for k in range(ADAPTERS):
                pair = _pair(base, adapter, options)
                pair.share_base(states)
                pair.noise_floor(items)
                list(pair.score(items))
                sides = BOTH if k == 0 else ("tuned",)
                list(pair.generate(asked, Generation(max_new_tokens=NEW_TOKENS), sides=sides))

    clock = Clock(torch.cuda.synchronize if job["device"] == "cuda" else lambda: None)
    return {"cost": clock(naively if job["way"] == "naive" else ours)[1]}


def sharing(job: dict[str, Any]) -> dict[str, Any]:
    """References scored by base and three adapters, without loading: base each time, and once."""
    base, adapter = shapes.base(job["shape"]), shapes.adapter(job["shape"])
    texts = shapes.text_ids(shapes.SHAPES[job["shape"]]["vocab_size"], count=PROMPTS, seed=1)
    items = _items(texts)
    pair = _pair(base, adapter, {"dtype": job["dtype"], "device": job["device"]})
    clock = Clock(torch.cuda.synchronize if job["device"] == "cuda" else lambda: None)

    def work() -> None:
        for _ in range(ADAPTERS):
            list(pair.score(items))

    list(pair.score(items[:1]))
    with TemporaryDirectory() as kept:
        if job["once"]:
            pair.share_base(BaseStates(Path(kept)))
        return {"cost": clock(work)[1]}


def _items(texts: list[list[int]]) -> list[Encoded]:
    return [
        Encoded(str(i), np.array(ids), np.arange(len(ids) - 1), len(ids) - 1, len(ids))
        for i, ids in enumerate(texts)
    ]


def _pair(base: Path, adapter: Path, options: dict[str, Any]) -> HfPair:
    pair = open_pair(base, adapter, **options)
    assert isinstance(pair, HfPair)
    return pair


@torch.no_grad()
def _one(model: Any, ids: list[int]) -> list[int]:
    tokens = torch.tensor([ids], device=model.device)
    out = model.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
    )[0, len(ids) :].tolist()
    return out[:-1] if out[-1] == model.generation_config.eos_token_id else out
