"""Who is asked, when both models are Hugging Face folders?

``hf_open.py`` opens them; here they answer.
"""

from __future__ import annotations

import copy
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunediff.errors import NumericsError, PairError
from tunediff.pair import encoding
from tunediff.pair.hf_load import DTYPES, HfTokens, has_tokenizer
from tunediff.pair.rendering import prompt_renderer, renderer
from tunediff.pair.template import template_hash
from tunediff.scoring import floor, generate, head, memory, precision, sampling
from tunediff.scoring.engine import Engine
from tunediff.scoring.packs import Pack
from tunediff.scoring.sampling import BOTH, Asked
from tunediff.scoring.states import BaseStates
from tunediff.scoring.streams import SideName, Streams
from tunediff.values import (
    Candidates,
    Certificate,
    Encoded,
    Generation,
    Item,
    Reply,
    Scores,
    Side,
)


class HfPair:
    """Base and tuned of the transformers library, opened together; see ``contract.Pair``."""

    offers = frozenset({"scores", "nll", "weights", "replies"})

    def __init__(
        self,
        base: Side,
        tuned: Side,
        certificate: Certificate,
        engine: Engine,
        tokens: HfTokens,
        template: str | None,
        context: int | None,
        dtype: str,
    ) -> None:
        self.base, self.tuned, self.certificate = base, tuned, certificate
        self.engine = engine
        self.tokens = tokens
        self.template = template
        self.context = context
        self.dial: Mapping[str, Any] | None = None  # of an adapter at another strength
        self.floors: dict[bytes, Mapping[str, float]] | None = None  # where strengths share them
        self._dtype = dtype
        self._tuned_tokenizer: HfTokens | None = None

    def with_template(self, template: str) -> HfPair:
        """The same pair, whose messages are rendered by another chat template."""
        other = copy.copy(self)
        other.template = template
        return other

    def share_base(self, states: BaseStates) -> None:
        """Keep base's last hidden states there, for other tuned models that are asked the same."""
        self.engine.states = states
        self.engine.base = f"{self.base.fingerprint} {self._dtype} {self.engine.streams.device}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decides the numbers besides the weights and the texts."""
        streams = self.engine.streams
        return {
            "backend": "hf",
            "device": str(streams.device),
            "dtype": self._dtype,
            "kernel": self.engine.kernel,
            "fast_kernel": self.engine.kernel != "highest",
            "metrics_kernel": head.metrics_kernel(streams.device, streams.vocabulary),
            "threads": self.engine.threads,
            "budget": self.engine.budget,
            "chunk": self.engine.chunk,
            "halvings": self.engine.halvings,
            "ends": sorted(self._ends()),
            "first_doubled_layer": streams.first_layer,
            "base_once": self.engine.states is not None,
            "template": None if self.template is None else template_hash(self.template),
            "versions": versions(),
            **({} if self.dial is None else {"dial": self.dial}),
        }

    def encode(
        self, items: Sequence[Item], max_length: int | None, allow_truncation: bool
    ) -> list[Encoded]:
        """Token ids of the items and the positions scored."""
        limit = self._limit(max_length)
        render = renderer(self.template, items, **self.tokens.special)
        rows = self.engine.streams.vocabulary
        found = [encoding.encode(i, self.tokens, render, limit, allow_truncation) for i in items]
        return [encoding.within(encoded, rows) for encoded in found]

    def _limit(self, max_length: int | None) -> int | None:
        """At most so many tokens a text: never more than the context, past which models fail."""
        return min((n for n in (max_length, self.context) if n is not None), default=None)

    def prompts(self, items: Sequence[Item], max_length: int | None) -> list[Encoded]:
        """Token ids of what stands before each item's reply, with room for one token of it."""
        self._require_replies()
        room = None if self.context is None else self.context - 1
        limit = min((n for n in (max_length, room) if n is not None), default=None)
        render = prompt_renderer(self.template, items, **self.tokens.special)
        rows = self.engine.streams.vocabulary
        found = [encoding.prompt(i, self.tokens, render, limit) for i in items]
        return [encoding.within(encoded, rows) for encoded in found]

    def generate(
        self,
        prompts: Sequence[Encoded],
        generation: Generation,
        sample: int = 0,
        sides: Sequence[Asked] = BOTH,
    ) -> Iterator[tuple[Reply | None, Reply | None]]:
        """Base's and tuned's reply to every prompt, in the order given; see ``contract.Pair``.

        A reply ends at any end token of either side, of its generation settings or its tokenizer,
        so that one rule holds for both.
        """
        self._require_replies()
        sampling.check(generation)
        rules = generate.Rules(generation, sample, self._ends(), self._read, self.context)
        return generate.generate(self.engine, prompts, rules, sides)

    def _ends(self) -> frozenset[int]:
        own = (self.tokens.eos, self._tokens_of("tuned").eos)
        return frozenset({*self.engine.streams.ends, *(end for end in own if end is not None)})

    def continuation(self, prompt: Encoded, reply_ids: Sequence[int]) -> Encoded:
        """A prompt with the tokens of a reply behind it, which are scored as they are."""
        self._require_replies()
        text = _behind(prompt, reply_ids, self.tokens, skip_special=False)
        found = encoding.continuation(prompt, reply_ids, len(text.encode()))
        return encoding.within(found, self.engine.streams.vocabulary)

    def _require_replies(self) -> None:
        if "replies" not in self.offers:
            raise PairError(
                "Two models with different tokenizers do not answer the same prompts here.",
                "Compare recorded replies.",
            )

    def _read(self, side: Asked, prompt: Encoded, ids: Sequence[int]) -> str:
        return _behind(prompt, ids, self._tokens_of(side), skip_special=True)

    def _tokens_of(self, side: Asked) -> HfTokens:
        """A side's own tokenizer: tuned's may have more tokens than base's, and another end."""
        if side == "base":
            return self.tokens
        if self._tuned_tokenizer is None:
            path = Path(self.tuned.path)
            self._tuned_tokenizer = HfTokens(path) if has_tokenizer(path) else self.tokens
        return self._tuned_tokenizer

    def score(self, items: Sequence[Encoded]) -> Iterator[Scores]:
        """Every token metric of every item, in the order given."""
        return self.engine.score(items)

    def candidates(self, items: Sequence[Encoded], count: int) -> Iterator[Candidates]:
        """The likeliest next tokens of both sides at every scored position."""
        return self.engine.candidates(items, count)

    def noise_floor(self, items: Sequence[Encoded]) -> Mapping[str, float]:
        """The largest pooled figure of base against itself, by name; never 0."""
        if self.floors is None:
            return floor.noise_floor(self.engine, items)
        asked = b"".join(item.ids.tobytes() + item.scored.tobytes() for item in floor.sample(items))
        if asked not in self.floors:
            self.floors[asked] = floor.noise_floor(self.engine, items)
        return self.floors[asked]

    def continue_with(self, settings: Mapping[str, Any]) -> None:
        """Go on with the kernel, threads and pack sizes that a run began with."""
        kernel, device = settings["kernel"], self.engine.streams.device
        if kernel != "highest" and precision.choose(device, DTYPES[self._dtype]) == "highest":
            raise PairError(
                f"The run began with the product kernel '{kernel}', which is not exact on this "
                "machine.",
                "Continue it on the machine that began it, or start a new one with another --out.",
            )
        self.engine.kernel, self.engine.threads = kernel, settings["threads"]
        self.engine.budget, self.engine.chunk = settings["budget"], settings["chunk"]

    def speed(self, items: Sequence[Encoded]) -> Mapping[str, float]:
        """Tokens per second of either side alone, its logits included, on the floor's sample."""
        streams = self.engine.streams
        return {side: self._speed(streams, side, items) for side in ("base", "tuned")}

    def _speed(self, streams: Streams, side: SideName, items: Sequence[Encoded]) -> float:
        texts = [torch.from_numpy(item.ids) for item in floor.sample(items)]
        pack = Pack.of(texts, streams.device)
        seconds = math.inf
        with precision.use(self.engine.kernel), precision.threads(self.engine.threads):
            for _ in range(2):  # the better of two: the first is cold
                began = time.perf_counter()
                h = streams.one(pack, side)
                for start in range(0, len(h), self.engine.chunk):
                    z = streams.logits(h[start : start + self.engine.chunk], side)
                    z[-1, -1].item()  # a GPU answers when it is done
                seconds = min(seconds, time.perf_counter() - began)
        return len(pack.ids) / seconds

    def token_text(self, token_id: int) -> str:
        """The text of one token id, for people."""
        return self.tokens.text_of(token_id)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text, by base's tokenizer; see ``contract.Pair``."""
        return self.tokens.pieces(ids)


class BytesPair(HfPair):
    """Two models with different tokenizers, of which bits per byte alone can be compared."""

    offers = frozenset({"nll"})

    def __init__(self, sides: tuple[Streams, Streams], tuned_tokens: HfTokens, **common: Any):
        super().__init__(**common)
        self._sides = sides
        self._tuned_tokens = tuned_tokens

    def encode(
        self, items: Sequence[Item], max_length: int | None, allow_truncation: bool
    ) -> list[Encoded]:
        """Both sides' token ids, scored from the same byte on."""
        if allow_truncation:
            raise PairError(
                "Two tokenizers cut a text at different characters, so --allow-truncation does "
                "not go with --bits-per-byte-only.",
                "Shorten the texts.",
            )
        limit = self._limit(max_length)
        render = renderer(self.template, items, **self.tokens.special)
        both = (self.tokens, self._tuned_tokens)
        encoded = []
        for item in items:
            b, t = encoding.encode_bytes(item, both, render, limit)
            b, t = (
                encoding.within(side, streams.vocabulary)
                for side, streams in zip((b, t), self._sides, strict=True)
            )
            encoded.append(replace(b, tuned=t))
        return encoded

    def score(self, items: Sequence[Encoded]) -> Iterator[Scores]:
        """The NLL of either side, each over its own tokens."""
        for item in items:
            assert item.tuned is not None
            sides = [
                self._nll(streams, side)
                for streams, side in zip(self._sides, (item, item.tuned), strict=True)
            ]
            scores = head.failed(item, "")
            bad = [
                side for side, nll in zip("bt", sides, strict=True) if not np.isfinite(nll).all()
            ]
            if bad:
                name = "base" if bad[0] == "b" else "tuned"
                yield replace(scores, reason=f"the {name} model's logits are not finite")
                continue
            yield replace(
                scores,
                nll_base=sides[0],
                nll_tuned=sides[1],
                bytes_scored=item.bytes_scored,
                reason=None,
            )

    def noise_floor(self, items: Sequence[Encoded]) -> Mapping[str, float]:
        """The floor of base's bits per byte, for both sides."""
        found = floor.noise_floor(self.engine, items)
        return {k: v for k, v in found.items() if k.startswith("bits_per_byte")}

    def speed(self, items: Sequence[Encoded]) -> Mapping[str, float]:
        """Tokens per second of either model, each over its own tokens."""
        own = {"base": items, "tuned": [item.tuned for item in items if item.tuned is not None]}
        return {
            side: self._speed(streams, "base", own[side])
            for side, streams in zip(own, self._sides, strict=True)
        }

    def _nll(self, streams: Streams, item: Encoded) -> np.ndarray:
        """The NLL of an item's scored tokens, in smaller chunks where memory runs out."""
        while True:
            try:
                return self._nll_once(streams, item)
            except (RuntimeError, MemoryError) as error:
                if not memory.ran_out(error):
                    raise
            memory.release()
            if self.engine.chunk == 1:
                raise NumericsError(
                    f"Memory ran out on item '{item.item_id}' of {len(item.ids)} tokens alone.",
                    "Use --max-length, a smaller --dtype, or another device.",
                )
            self.engine.halvings += 1
            self.engine.chunk //= 2

    def _nll_once(self, streams: Streams, item: Encoded) -> np.ndarray:
        with precision.use(self.engine.kernel), precision.threads(self.engine.threads):
            h = streams.one(Pack.of([torch.from_numpy(item.ids)], streams.device), "base")
            parts = []
            for start in range(0, len(item.scored), self.engine.chunk):
                at = item.scored[start : start + self.engine.chunk]
                z = streams.logits(h[torch.from_numpy(at).to(h.device)], "base").cpu().double()
                y = torch.from_numpy(item.ids[at + 1])[:, None]
                parts.append((z.logsumexp(1) - z.gather(1, y)[:, 0]).numpy())
        return np.concatenate(parts)


def _behind(prompt: Encoded, ids: Sequence[int], tokens: HfTokens, *, skip_special: bool) -> str:
    """What ids read as behind a prompt: at a text's start many decoders strip the first blank."""

    def read(some: Sequence[int]) -> str:
        return tokens.tokenizer.decode(
            list(some), skip_special_tokens=skip_special, clean_up_tokenization_spaces=False
        )

    before, whole = read([int(prompt.ids[-1])]), read([int(prompt.ids[-1]), *ids])
    return whole[len(before) :] if whole.startswith(before) else read(ids)


def versions() -> dict[str, str]:
    """The libraries whose version can change a number."""
    names = ("tunediff", "torch", "transformers", "peft", "numpy", "numba")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
