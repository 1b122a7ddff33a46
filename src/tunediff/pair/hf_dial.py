"""How does an opened pair answer at another strength of its adapter, or with parts of it off?

Nothing is loaded again: base and ΔW stay where they are, and a factor stands before each module's
ΔW. Only a plain LoRA can be dialled so: what it adds is a sum, and a share of it is a share.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from tunediff.errors import UnsupportedError
from tunediff.pair.hf import HfPair
from tunediff.scoring.streams import SharedStreams
from tunediff.values import Certificate, Check
from tunediff.weights.files import sha256_json

_OF_ALL = ("weights_differ", "logits_differ", "merged_equals_unmerged")


def adapted(pair: Any) -> Mapping[str, int | None]:
    """The decoder layer of each module that the adapter changes; None of the output head.

    Raises:
        UnsupportedError: the pair is not a base with a plain LoRA.

    """
    return _streams(pair).layers


def dialled(pair: Any, strength: float = 1.0, off: Collection[str] = ()) -> HfPair:
    """The same pair, whose tuned side is base + ``strength`` · ΔW, without the modules ``off``.

    Strength 1 with nothing off is the adapter itself, strength 0 is base, both to the bit.

    Raises:
        UnsupportedError: the pair is not a base with a plain LoRA.

    """
    streams = _streams(pair)
    assert isinstance(pair, HfPair)
    factors = {module: 0.0 if module in off else strength for module in streams.layers}
    other = copy.copy(pair)
    other.dial = {"strength": strength, "off": sorted(off)}
    if other.floors is None:  # base's own noise is the same at every strength
        pair.floors = other.floors = {}
    other.engine = replace(pair.engine, streams=streams.scaled(factors))
    if strength != 1 or off:
        fingerprint = sha256_json({"adapter": pair.tuned.fingerprint, "factors": factors})
        other.tuned = replace(pair.tuned, fingerprint=fingerprint)
        other.certificate = _certificate(pair.certificate, factors)
    return other


def _streams(pair: Any) -> SharedStreams:
    streams = pair.engine.streams if isinstance(pair, HfPair) else None
    if isinstance(streams, SharedStreams):
        return streams
    kind = pair.tuned.kind
    what = {
        "full": "is a whole model",
        "lora (switched)": "is an adapter that holds more than a low-rank sum (DoRA, whole modules "
        "or embeddings)",
    }.get(kind, f"is of the kind {kind!r}")
    raise UnsupportedError(
        f"{pair.tuned.path} {what}; only what a plain LoRA adds can be scaled or switched off.",
        "Give the LoRA adapter that was trained, not the model it was merged into.",
    )


def _certificate(whole: Certificate, factors: Mapping[str, float]) -> Certificate:
    """What a share of the adapter is; the checks of the adapter as it is stand before it."""
    alive = sum(factor != 0 for factor in factors.values())
    if not alive:
        checks = [c for c in whole.checks if c.name not in _OF_ALL]
        checks.append(Check("weights_differ", False, "ΔW times 0 is exactly zero"))
        return replace(whole, checks=tuple(checks), weights_equal=True)
    by = next(factor for factor in factors.values() if factor != 0)
    said = f"ΔW times {by:g} in {alive} of {len(factors)} modules; the checks before are of all"
    return replace(whole, checks=(*whole.checks, Check("dialled", True, said)))
