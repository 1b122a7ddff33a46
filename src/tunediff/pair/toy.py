"""Which pair can be worked out by hand, without a download?

A vocabulary of 256 bytes. Base believes nothing: every logit is 0, so p = 1/256 everywhere. Tuned
has learned the commonest English letters: their m logits are raised by a strength δ, so with
Z = m·exp(δ) + 256 − m it gives each of them q = exp(δ)/Z and every other byte 1/Z. All metrics are
closed forms of δ; NLL falls on English text and rises on text of other bytes. Their likeliest
reply is one byte over and over: byte 0 from base, a blank from a tuned side with δ > 0.
"""

from __future__ import annotations

import codecs
import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tunediff.errors import InputError, LengthError, ModelError
from tunediff.pair import encoding
from tunediff.scoring import sampling
from tunediff.scoring.sampling import BOTH, Asked
from tunediff.values import (
    Candidates,
    Certificate,
    Check,
    Encoded,
    Generation,
    Item,
    Reply,
    Scores,
    Side,
)

VOCABULARY = 256
LEARNED = np.frombuffer(b" etaoinshrdlu", np.uint8)
TOP = 10


class ToyPair:
    """The pair of closed forms; see ``contract.Pair``.

    Args:
        strength: δ, the logit by which the learned bytes are raised; 0 changes nothing.

    """

    offers = frozenset({"scores", "nll", "replies"})

    def __init__(self, strength: float = 1.0) -> None:
        if not math.isfinite(strength):
            raise ModelError(f"The toy's strength is {strength}.", "Give a finite number.")
        self.strength = strength
        self.base = Side("toy", "base", _fingerprint(0.0))
        self.tuned = Side(f"toy:{strength:g}", "toy", _fingerprint(strength))
        equal = strength == 0
        self.certificate = Certificate(
            "toy",
            (Check("weights_differ", not equal, f"13 logits are raised by {strength:g}"),),
            weights_equal=equal,
        )
        self.settings: Mapping[str, Any] = {
            "backend": "toy",
            "device": "cpu",
            "dtype": "float64",
            "kernel": "closed form",
            "fast_kernel": False,
            "threads": 1,
        }

    def encode(
        self, items: Sequence[Item], max_length: int | None, allow_truncation: bool
    ) -> list[Encoded]:
        """The bytes of the items."""
        return [self._encode(item, max_length, allow_truncation) for item in items]

    def _encode(self, item: Item, max_length: int | None, allow_truncation: bool) -> Encoded:
        context = len((item.prompt or "").encode()) if item.text is None else 0
        ids = np.frombuffer(item.shown.encode(), np.uint8).astype(np.int64)
        total = len(ids)
        if max_length is not None and total > max_length:
            if not allow_truncation:
                raise LengthError(
                    f"Item '{item.id}' has {total} tokens; at most {max_length} fit.",
                    "Shorten it, or pass --allow-truncation.",
                )
            ids = ids[:max_length]
        scored = np.arange(max(context, 1), len(ids)) - 1
        if not len(scored):
            kind = LengthError if len(ids) < total else InputError
            raise kind(f"Item '{item.id}' has no scored position.", "Give a longer text.")
        probe = len(ids) - 1 if item.text is not None else int(scored[0])
        return Encoded(item.id, ids, scored, probe, len(scored), total - len(ids))

    def score(self, items: Sequence[Encoded]) -> Iterator[Scores]:
        """Every token metric, from its closed form."""
        for item in items:
            targets = item.ids[item.scored + 1]
            nll_base = np.full(len(targets), math.log(VOCABULARY))
            learned = np.isin(targets, LEARNED)
            nll_tuned = np.log(self._z()) - self.strength * learned
            same: dict[str, Any] = {
                name: np.full(len(targets), value) for name, value in self.closed_forms().items()
            }
            base, tuned = self._top(0.0), self._top(self.strength)
            yield Scores(
                item_id=item.item_id,
                positions=item.scored,
                targets=targets,
                nll_base=nll_base,
                nll_tuned=nll_tuned,
                delta_p=np.exp(-nll_tuned) - 1 / VOCABULARY,
                **same,
                bytes_scored=item.bytes_scored,
                probe_logit_mse=float(same["logit_mse"][0]),
                probe_logit_l2=float(same["logit_l2"][0]),
                probe_position=item.probe,
                probe_top_base=base,
                probe_top_tuned=tuned,
            )

    def candidates(self, items: Sequence[Encoded], count: int) -> Iterator[Candidates]:
        """The likeliest bytes, the same at every position; of equal ones the lowest first."""
        both = [np.array(self._top(strength)[:count]) for strength in (0.0, self.strength)]
        for item in items:
            shape = (len(item.scored), 1)
            arrays = [
                np.tile(column, shape)
                for top in both
                for column in (top[:, 0].astype(np.int64), top[:, 1])
            ]
            yield Candidates(item.item_id, item.scored, *arrays)

    def prompts(self, items: Sequence[Item], max_length: int | None) -> list[Encoded]:
        """The bytes of the prompts; the toy has no chat template."""
        if any(item.messages is not None for item in items):
            raise InputError("The toy has no chat template.", "Give prompts.")
        return [encoding.prompt(item, _Bytes(), str, max_length) for item in items]

    def generate(
        self,
        prompts: Sequence[Encoded],
        generation: Generation,
        sample: int = 0,
        sides: Sequence[Asked] = BOTH,
    ) -> Iterator[tuple[Reply | None, Reply | None]]:
        """Replies that never end of their own."""
        sampling.check(generation)
        strengths = {"base": 0.0, "tuned": self.strength}
        for prompt in prompts:
            noise = sampling.noise(prompt, generation, sample)
            replies: dict[str, Reply | None] = {"base": None, "tuned": None}
            for side in sides:
                draft = sampling.Draft(generation, generation.max_new_tokens, noise, (), _text)
                while draft.reply is None:
                    draft.go_on(_logits(strengths[side]))
                replies[side] = draft.reply
            yield replies["base"], replies["tuned"]

    def continuation(self, prompt: Encoded, reply_ids: Sequence[int]) -> Encoded:
        """A prompt with the bytes of a reply behind it."""
        return encoding.continuation(prompt, reply_ids, len(reply_ids))

    def closed_forms(self) -> dict[str, float]:
        """The divergences of every position, as functions of δ."""
        d, m, v, z = self.strength, len(LEARNED), VOCABULARY, self._z()
        q_in, q_out, p = math.exp(d) / z, 1 / z, 1 / v
        mixed_in, mixed_out = (p + q_in) / 2, (p + q_out) / 2

        def sum_over(inside: float, outside: float) -> float:
            return m * inside + (v - m) * outside

        return {
            "kl_base_tuned": sum_over(p * math.log(p / q_in), p * math.log(p / q_out)),
            "kl_tuned_base": sum_over(q_in * math.log(q_in / p), q_out * math.log(q_out / p)),
            "js": 0.5
            * sum_over(
                p * math.log(p / mixed_in) + q_in * math.log(q_in / mixed_in),
                p * math.log(p / mixed_out) + q_out * math.log(q_out / mixed_out),
            ),
            "logit_mse": m / v * d * d,
            "logit_mse_centred": m / v * (1 - m / v) * d * d,
            "logit_l2": math.sqrt(m) * abs(d),
            # base's first maximum is byte 0, tuned's the first learned byte once δ > 0
            "top1_agreement": 1.0 if d <= 0 else 0.0,
        }

    def noise_floor(self, items: Sequence[Encoded]) -> Mapping[str, float]:
        """One unit in the last place of a float64: closed forms have no other noise."""
        names = (
            *("nll_base", "nll_tuned", "delta_nll", "ppl_base", "ppl_tuned", "ppl_ratio"),
            *("bits_per_byte_base", "bits_per_byte_tuned", "delta_p", "logit_l2_last"),
            *self.closed_forms(),
        )
        floor = {name: float(np.finfo(np.float64).eps) for name in names}
        floor["top1_agreement"] = 1 / sum(len(item.scored) for item in items)
        return floor

    def continue_with(self, settings: Mapping[str, Any]) -> None:
        """Nothing was found that could differ."""

    def speed(self, items: Sequence[Encoded]) -> Mapping[str, float]:
        """Tokens per second of the closed forms."""
        began = time.perf_counter()
        tokens = sum(len(scores.positions) for scores in self.score(items))
        rate = tokens / max(time.perf_counter() - began, 1e-9)
        return {"base": rate, "tuned": rate}

    def token_text(self, token_id: int) -> str:
        """The character of a byte."""
        return chr(token_id)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The characters of the bytes, each at its last byte."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        last = len(ids) - 1
        return [decoder.decode(bytes([i]), at == last) for at, i in enumerate(ids)]

    def _z(self) -> float:
        return len(LEARNED) * math.exp(self.strength) + VOCABULARY - len(LEARNED)

    def _top(self, strength: float) -> tuple[tuple[int, float], ...]:
        z = _logits(strength)
        p = np.exp(z) / np.exp(z).sum()
        return tuple((int(i), float(p[i])) for i in np.argsort(-p, kind="stable")[:TOP])


class _Bytes:
    """Bytes as tokens, for ``encoding``."""

    bos: int | None = None
    special_texts: Sequence[str] = ()

    def __call__(
        self, text: str, *, special: bool, parse_special: bool
    ) -> tuple[list[int], list[tuple[int, int]]]:
        ids = list(text.encode())
        return ids, [(at, at + 1) for at in range(len(ids))]


def _text(ids: Sequence[int]) -> str:
    return "".join(map(chr, ids))


def _logits(strength: float) -> np.ndarray:
    z = np.zeros(VOCABULARY)
    z[LEARNED] = strength
    return z


def _fingerprint(strength: float) -> str:
    return hashlib.sha256(f"toy {strength!r}".encode()).hexdigest()
