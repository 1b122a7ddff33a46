"""What is measured? One idea a file; a new measure is one file and one name in the tuple below."""

from __future__ import annotations

from tunediff.measures.tokens import BITS_PER_BYTE, NLL, TOKENS
from tunediff.values import Measure

BUILT_IN: tuple[Measure, ...] = TOKENS

__all__ = ["BITS_PER_BYTE", "BUILT_IN", "NLL", "TOKENS"]
