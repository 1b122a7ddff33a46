"""Does `check` say of the specimens what is known to be true of them?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tunediff.findings.summary import summarize
from tunediff.items.named import read_suites
from tunediff.items.read import read
from tunediff.pair.open import open_pair
from tunediff.run.measuring import measure
from tunediff.run.store import Run
from tunediff.specimens import load
from tunediff.studies.compare import measure_compare
from tunediff.values import Generation

REPLY_TOKENS = 32  # the specimens' answers have at most twenty


@dataclass(frozen=True, slots=True)
class Finding:
    """One verdict beside the truth; ``delta_nll`` in nats/token, tuned − base."""

    specimen: str
    suite: str
    truth: str
    verdict: str
    delta_nll: float
    kl: float
    reason: str

    @property
    def right(self) -> bool:
        """Whether the verdict is the truth."""
        return self.verdict == self.truth


def train_skill(folder: Path, on_step: Callable[[int, float], None]) -> load.Specimen:
    """Train the specimen ``skill`` again, live, into ``folder``; its truths are the same."""
    from tunediff.training.lora import SKILL_RECIPE, train_lora

    learnt, kept = load.skill_rows()
    train_lora(load.base(), learnt, folder, **asdict(SKILL_RECIPE), keep=kept, on_step=on_step)
    (shipped,) = (s for s in load.adapters() if s.name == "skill")
    return replace(shipped, name="skill (live)", path=folder)


def findings_of(specimen: load.Specimen) -> Iterator[Finding]:
    """The verdict on every suite for which the specimen's card states the truth."""
    pair = open_pair(load.base(), specimen.path)
    for suite, truth in specimen.truths.items():
        with tempfile.TemporaryDirectory() as folder:
            result = summarize(measure(pair, read(load.suite(suite)), out=Path(folder) / "run"))
        yield Finding(
            specimen.name,
            suite,
            truth,
            result["verdict"],
            result["metrics"]["delta_nll"]["value"],
            result["metrics"]["kl_base_tuned"]["value"],
            result["reason"],
        )


def comparison_of(specimens: Sequence[load.Specimen], folder: Path) -> list[Run]:
    """The runs of ``compare`` on specimens with their own suites, replies included."""
    return measure_compare(
        str(load.base()),
        [str(specimen.path) for specimen in specimens],
        read_suites([f"{name}={load.suite(name)}" for name in load.SUITES]),
        folder,
        generation=Generation(max_new_tokens=REPLY_TOKENS),
        opening={},
    )
