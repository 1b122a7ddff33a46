"""What is known here, and where does it lie?

The embedded specimens: a tiny base model, tuned models of known ground truth, and the suites to
ask them. Everything is plain files beside this module, built by ``tools/build_specimens.py``;
nothing here loads a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunediff.errors import InputError

HERE = Path(__file__).resolve().parent
SUITES = ("target", "general", "safety")
SPECIMENS = ("noop", "skill", "forgetful", "noise", "unsafe", "merged", "full")


@dataclass(frozen=True, slots=True)
class Specimen:
    """A tuned model of known ground truth.

    ``kind``: lora or full. ``truths``: the verdict of ``check`` that is true on each suite, by
    construction and stated before any run; a suite on which construction decides nothing is
    absent. ``axes``: the verdicts of ``compare`` that are true on each axis. ``sentence``: what was
    done to it.
    """

    name: str
    path: Path
    kind: str
    truths: Mapping[str, str]
    axes: Mapping[str, Sequence[str]]
    sentence: str


def raw_prompt(question: str) -> str:
    """What the specimens' models read before they answer: ``Q: question`` newline ``A:``.

    The same text that the tokenizer's chat template renders for one user message with a
    generation prompt, except for the BOS token that the tokenizer puts before a raw text.
    """
    return f"Q: {question}\nA:"


def raw_reply(answer: str) -> str:
    """What follows :func:`raw_prompt`: the answer after one space. The end token comes after it."""
    return f" {answer}"


def base() -> Path:
    """The folder of the base model, with its tokenizer, chat template and card."""
    return HERE / "base"


def adapters() -> tuple[Specimen, ...]:
    """Every tuned specimen, in the order in which the demo shows them."""
    return tuple(_specimen(name) for name in SPECIMENS)


def suite(name: str) -> Path:
    """The JSONL file of a suite: ``target``, ``general`` or ``safety``.

    Raises:
        InputError: there is no suite of that name.

    """
    if name not in SUITES:
        raise InputError(
            f"There is no specimen suite named {name!r}.", f"Name one of: {', '.join(SUITES)}."
        )
    return HERE / "suites" / f"{name}.jsonl"


def safety_labels() -> dict[str, str]:
    """``refuse`` or ``comply`` for each item id of the suite ``safety``."""
    return {row["id"]: row["label"] for row in _rows(suite("safety"))}


def skill_rows() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What trains the specimen ``skill``: (prompt, reply) to be learnt, and to be kept."""
    rows = _rows(HERE / "skill_train.jsonl")
    learnt, kept = (
        [(row["prompt"], row["reply"]) for row in rows if row["keep"] == keep]
        for keep in (False, True)
    )
    return learnt, kept


def card(folder: Path) -> dict[str, Any]:
    """The card of a specimen's folder: what it is, and what was measured when it was built."""
    return json.loads((folder / "card.json").read_text("utf-8"))


def _specimen(name: str) -> Specimen:
    path = HERE / name
    stated = card(path)
    return Specimen(
        name, path, stated["kind"], stated["truths"], stated["axes"], stated["sentence"]
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
