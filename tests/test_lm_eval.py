"""Are log-likelihoods and grades of choices those of lm-evaluation-harness?

Its ``HFLM`` loads base alone, and base with the adapter by its own ``peft`` argument; it shares
PyTorch and transformers with us, and neither the texts' cutting into tokens nor the scoring. An
item's sum has to agree to 1e-4 nats, and 1e-6 of itself: the harness adds up in float32, which
holds a sum of 2,000 nats to 1e-4 at best.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunediff import specimens
from tunediff.items.named import read_suites
from tunediff.pair.contract import Pair
from tunediff.pair.open import open_pair
from tunediff.run.comparing import compare
from tunediff.specimens import load
from tunediff.values import Item, Suite

NATS, SHARE = 1e-4, 1e-6
CONTEXT = 512  # of stories260K, whose tokens are no more than a text's bytes and two


def suite_of(path: Path, name: str = "mine", most: int = 1000) -> Suite:
    """The first items of a file that fit whole into stories260K."""
    [suite] = read_suites([f"{name}={path}"])
    whole = [i for i in suite.items if max(len(p.shown.encode()) for p in posed([i])) < CONTEXT - 2]
    return replace(suite, items=tuple(whole[:most]))


def posed(items: Iterable[Item]) -> list[Item]:
    """Items with one reply each: every choice is one."""
    return [
        replace(item, id=f"{item.id}/{k}", reply=reply)
        for item in items
        for k, reply in enumerate(item.choices or (item.reply,))
    ]


def ours(pair: Pair, items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
    """ln p of every reply or text under base and tuned."""
    scored = list(pair.score(pair.encode(items, None, False)))
    assert [s.reason for s in scored] == [None] * len(items)
    base, tuned = ([-getattr(s, f"nll_{side}").sum() for s in scored] for side in ("base", "tuned"))
    return np.array(base), np.array(tuned)


def harness(base: Path, adapter: Path | None = None, batch: int = 8, **how: Any) -> Any:
    from lm_eval.models.huggingface import HFLM

    peft = None if adapter is None else str(adapter)
    return HFLM(str(base), peft=peft, dtype="float32", device="cpu", batch_size=batch, **how)


def theirs(lm: Any, items: Sequence[Item]) -> np.ndarray:
    from lm_eval.api.instance import Instance

    asked = [(item.prompt or "", item.reply or item.text) for item in items]
    requests = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(asked)]
    return np.array([found for found, _ in lm.loglikelihood(requests, disable_tqdm=True)])


def excess(found: np.ndarray, harness_found: np.ndarray) -> float:
    """The largest difference, as a multiple of what is allowed."""
    assert found.shape == harness_found.shape
    allowed = NATS + SHARE * np.abs(harness_found)
    return float((np.abs(found - harness_found) / allowed).max())


def held_together(base: Path, adapter: Path, items: Sequence[Item], batch: int) -> None:
    """Both sides of every item, and tuned differs from base by far more than is allowed."""
    found = ours(open_pair(base, adapter), items)
    assert excess(*found) > 1000
    for side, tuning in zip(found, (None, adapter), strict=True):
        assert excess(side, theirs(harness(base, tuning, batch), items)) < 1


@pytest.fixture
def stories(shared: Path) -> tuple[Path, Path]:
    """A base model, and its adapter."""
    return shared / "models/stories260K", shared / "models/stories260K-gsm8k-lora"


def choices_in(shared: Path, name: str) -> Suite:
    paths = {"mmlu": "mmlu_dev", "truthfulqa": "truthfulqa/TruthfulQA.csv"}
    return suite_of(shared / "data" / paths[name], name, 40)


# log-likelihoods


@pytest.mark.parametrize("batch", [1, 8])
def test_real_questions_choices_and_texts(
    shared: Path, stories: tuple[Path, Path], batch: int
) -> None:
    gsm8k = suite_of(shared / "data/gsm8k/test.jsonl", "gsm8k", 40).items
    told = (shared / "data/texts/tinystories_sample.txt").read_text().split("\n")
    texts = [Item(f"t{n}", text=text) for n, text in enumerate(told) if 40 < len(text) < CONTEXT]
    sets = {
        "gsm8k": posed(gsm8k),
        "mmlu": posed(choices_in(shared, "mmlu").items[:30]),
        "truthfulqa": posed(choices_in(shared, "truthfulqa").items[:20]),
        "texts": texts[:20],
    }
    assert [len(items) >= wanted for items, wanted in zip(sets.values(), (40, 120, 80, 20))]
    for items in sets.values():
        held_together(*stories, items, batch)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize(("suite", "adapter"), [("general", "forgetful"), ("target", "skill")])
def test_the_specimens(suite: str, adapter: str, batch: int) -> None:
    items = suite_of(load.suite(suite)).items
    held_together(load.base(), load.HERE / adapter, items, batch)
