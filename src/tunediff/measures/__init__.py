"""What is measured? One idea a file; a new measure is one file and one name in a tuple below."""

from __future__ import annotations

from tunediff.measures.adherence import ADHERENCE
from tunediff.measures.answers import ANSWERS
from tunediff.measures.choices import CHOICES
from tunediff.measures.consistency import CONSISTENCY
from tunediff.measures.coverage import COVERAGE
from tunediff.measures.format import FORMAT
from tunediff.measures.language import LANGUAGE
from tunediff.measures.lengths import LENGTHS
from tunediff.measures.refusals import REFUSALS
from tunediff.measures.refusing import OPENINGS
from tunediff.measures.repetition import REPETITIONS
from tunediff.measures.specificity import SPECIFICITY
from tunediff.measures.tokens import BITS_PER_BYTE, NLL, TOKENS
from tunediff.values import Measure

BUILT_IN: tuple[Measure, ...] = TOKENS

REPLIES: tuple[Measure, ...] = (
    *LENGTHS,
    *COVERAGE,
    *SPECIFICITY,
    *ADHERENCE,
    *FORMAT,
    *REPETITIONS,
    *LANGUAGE,
    *ANSWERS,
    *REFUSALS,
)
"""What one reply of either side is enough for."""

SAMPLES: tuple[Measure, ...] = CONSISTENCY
"""What needs several sampled replies of either side."""

ALL: tuple[Measure, ...] = (*TOKENS, *REPLIES, *SAMPLES, *CHOICES, *OPENINGS)

__all__ = [
    "ALL",
    "BITS_PER_BYTE",
    "BUILT_IN",
    "CHOICES",
    "NLL",
    "OPENINGS",
    "REPLIES",
    "SAMPLES",
    "TOKENS",
]
