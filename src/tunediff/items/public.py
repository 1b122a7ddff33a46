r"""What do the files of the public benchmarks ask?

One function a format, from a file's characters to rows of our own columns, which ``forms.py`` then
checks like any other row. Each file is read as its authors published it.

| name | file | prompt | reply |
|---|---|---|---|
| gsm8k | JSONL: question, answer | ``Question: …\nAnswer:`` | a space and the whole answer |
| mmlu | CSV: question, choices, answer | question, ``A. …`` to ``D. …``, ``Answer:`` | `` A`` … |
| truthfulqa | CSV: Question, Best Answer, … | ``Q: …\nA:`` | a space and the best answer |
| ifeval | JSONL: prompt, instruction_id_list, kwargs | as it is | none: constraints |
| xstest | CSV: id, prompt, type, label, … | as it is | none: a label |
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tunediff.errors import InputError
from tunediff.items.bounds import shown
from tunediff.items.formats import Row, csv_cells, from_csv, from_jsonl

_MMLU = ("question", "choice0", "choice1", "choice2", "choice3", "answer")
_LETTERS = "ABCD"


def gsm8k(text: str, name: str) -> Iterator[Row]:
    """GSM8K (Cobbe et al., 2021): the reply is a space and the answer up to its ``#### N``."""
    hint = 'A GSM8K line is {"question": "…", "answer": "… #### 12"}.'
    for row in from_jsonl(text, name):
        question, answer = _texts(row, ("question", "answer"), hint)
        if not re.search(r"\n#### *-?\$?\d[\d,]*(\.\d+)? *\n*\Z", "\n" + answer):
            raise InputError(
                f"{row.where}: answer ends in {shown(answer[-40:])}, not in a line of #### and a "
                "number.",
                hint,
            )
        yield Row(row.where, {"prompt": f"Question: {question}\nAnswer:", "reply": f" {answer}"})


def mmlu(text: str, name: str) -> Iterator[Row]:
    """MMLU (Hendrycks et al., 2021); the category is the file's name without its split.

    Two forms: with the header question, choice0 … choice3, answer, the answer from 0 to 3; and
    the original one without a header, the answer from A to D. The choices are the letters.
    """
    subject = re.sub(r"_(dev|val|test)\Z", "", Path(name).stem)
    rows = csv_cells(text, name)
    headed = bool(rows) and tuple(rows[0][1]) == _MMLU
    right = "0123" if headed else _LETTERS
    hint = (
        "An MMLU file has the header question,choice0,choice1,choice2,choice3,answer and answers "
        "from 0 to 3; or no header, the same six columns, and answers from A to D."
    )
    for where, cells in rows[1:] if headed else rows:
        if len(cells) != len(_MMLU):
            raise InputError(f"{where} has {len(cells)} cells, not {len(_MMLU)}.", hint)
        row = Row(where, dict(zip(_MMLU, cells, strict=True)))
        question, *choices, answer = _texts(row, _MMLU, hint)
        if answer.strip() not in tuple(right):
            raise InputError(f"{where}: answer is {shown(answer)}, not one of {right}.", hint)
        lettered = [f"{letter}. {c}" for letter, c in zip(_LETTERS, choices, strict=True)]
        yield Row(
            where,
            {
                "prompt": "\n".join([question, *lettered, "Answer:"]),
                "choices": [f" {letter}" for letter in _LETTERS],
                "answer": right.index(answer.strip()),
                "category": subject,
            },
        )


def truthfulqa(text: str, name: str) -> Iterator[Row]:
    """TruthfulQA (Lin et al., 2022), mc1: the best answer against each incorrect one.

    An incorrect answer that is listed twice is one choice. The choices stand in the order of their
    hashes with the question, so that a place says nothing and never changes.
    """
    hint = (
        "TruthfulQA.csv has the columns Question, Best Answer and Incorrect Answers, "
        "the last with a ; between its answers."
    )
    for row in from_csv(text, name):
        columns = ("Question", "Best Answer", "Incorrect Answers")
        question, best, incorrect = (t.strip() for t in _texts(row, columns, hint))
        wrong = {part.strip() for part in incorrect.split(";")} - {""}
        if not wrong or best in wrong:
            what = "is among the incorrect ones" if wrong else "has no incorrect one beside it"
            raise InputError(f"{row.where}: the best answer {what}.", hint)
        choices = sorted({best, *wrong}, key=lambda choice: _digest(question, choice))
        yield Row(
            row.where,
            {
                "prompt": f"Q: {question}\nA:",
                "choices": [f" {choice}" for choice in choices],
                "answer": choices.index(best),
                "category": row.values.get("Category"),
            },
        )


def ifeval(text: str, name: str) -> Iterator[Row]:
    """IFEval (Zhou et al., 2023): prompts with constraints and no reply.

    The constraint ``kind`` is the instruction's id and ``details`` its kwargs, nulls left out.
    """
    hint = (
        'An IFEval line is {"prompt": "…", "instruction_id_list": ["…"], "kwargs": [{…}]}, '
        "with as many kwargs as ids."
    )
    for row in from_jsonl(text, name):
        [prompt] = _texts(row, ("prompt",), hint)
        kinds, details = (_list(row, column, hint) for column in ("instruction_id_list", "kwargs"))
        if len(kinds) != len(details):
            raise InputError(
                f"{row.where} has {len(kinds)} ids in instruction_id_list and {len(details)} "
                "kwargs.",
                hint,
            )
        pairs = zip(kinds, details, strict=True)
        constraints = [{"kind": kind, "details": detail} for kind, detail in pairs]
        yield Row(row.where, {"prompt": prompt, "constraints": constraints})


def xstest(text: str, name: str) -> Iterator[Row]:
    """XSTest (Röttger et al., 2024): safe prompts to comply with, unsafe ones to refuse.

    On the axis safety; the category is the type. A safe prompt and the unsafe ones that were
    written against it have a kind and the focus word in common, and are one group.
    """
    hint = "XSTest's file has the columns id, prompt, type, label (safe or unsafe) and focus."
    labels = {"safe": "comply", "unsafe": "refuse"}
    for row in from_csv(text, name):
        own, prompt, kind, label = _texts(row, ("id", "prompt", "type", "label"), hint)
        if label not in labels:
            raise InputError(f"{row.where}: label is {shown(label)}, not safe or unsafe.", hint)
        focus = row.values.get("focus")
        yield Row(
            row.where,
            {
                "id": own,
                "axis": "safety",
                "prompt": prompt,
                "label": labels[label],
                "category": kind,
                "group": f"{_CONTRASTS.get(kind, kind)}: {focus}" if focus else None,
            },
        )


# XSTest's types that are set against another one of another name.
_CONTRASTS = {
    **{f"contrast_{kind}": kind for kind in ("homonyms", "figurative_language", "safe_targets",
                                             "safe_contexts", "definitions", "historical_events")},
    **dict.fromkeys(("nons_group_real_discr", "real_group_nons_discr", "contrast_discr"), "discr"),
    **dict.fromkeys(("privacy_public", "privacy_fictional", "contrast_privacy"), "privacy"),
}  # fmt: skip

FORMATS: dict[str, tuple[str, Callable[[str, str], Iterator[Row]]]] = {
    "gsm8k": (".jsonl", gsm8k),
    "mmlu": (".csv", mmlu),
    "truthfulqa": (".csv", truthfulqa),
    "ifeval": (".jsonl", ifeval),
    "xstest": (".csv", xstest),
}
"""The name of each public benchmark, what its files end in, and their reader."""


def _texts(row: Row, columns: Sequence[str], hint: str) -> list[str]:
    """The row's columns, each a text that is not blank."""
    texts = []
    for column in columns:
        value = row.values.get(column)
        if not isinstance(value, str) or not value.strip():
            what = f"has no column {shown(column)}"
            if column in row.values:
                what = f"has {'nothing' if not value else shown(value)} as its {shown(column)}"
            found = ", ".join(map(shown, list(row.values)[:20])) or "none"
            raise InputError(f"{row.where} {what} (columns found: {found}).", hint)
        texts.append(value)
    return texts


def _list(row: Row, column: str, hint: str) -> list[Any]:
    value = row.values.get(column)
    if not isinstance(value, list) or not value:
        raise InputError(f"{row.where}: {column} is {shown(value)}, not a list of some.", hint)
    return value


def _digest(question: str, choice: str) -> str:
    return hashlib.sha256(f"{question}\0{choice}".encode("utf-8", "surrogatepass")).hexdigest()
