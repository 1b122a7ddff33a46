"""Which module does a tensor's name belong to?

A model's modules may carry a prefix that its checkpoint leaves out (GPT-2: ``h.0.attn.c_attn`` in
the file, ``transformer.h.0.attn.c_attn`` in the model). Names match where one ends with the other
at a dot, and only one does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings")
POSITIONS = ("wpe", "embed_positions", "position_embeddings")
HEADS = ("lm_head", "embed_out")
# masks and rotary tables that older checkpoints carry; no weights
BUFFER = re.compile(r"(^|\.)(attn|attention)\.(bias|masked_bias)$|rotary_emb\.|\.inv_freq$")


def last(name: str) -> str:
    """Return the last part of a dotted name."""
    return name.rpartition(".")[2]


def layer_number(name: str) -> int | None:
    """Return the first number among the parts of a dotted name; None where there is none."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


class NameMatcher:
    """Finds the one known name that a given name means."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_suffix: dict[str, set[str]] = {}
        self._names = frozenset(names)
        for name in self._names:
            for suffix in _suffixes(name):
                self._by_suffix.setdefault(suffix, set()).add(name)

    def find(self, name: str) -> str | None:
        """Return the exact name, else the only one that matches by suffix, else None."""
        if name in self._names:
            return name
        longer = self._by_suffix.get(name, set())
        shorter = {suffix for suffix in _suffixes(name) if suffix in self._names}
        found = longer | shorter
        return found.pop() if len(found) == 1 else None


def _suffixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(1, len(parts))]
