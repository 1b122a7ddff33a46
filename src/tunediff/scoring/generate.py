"""How do two models answer many prompts at once, on one set of weights?

A batch holds base's rows in front and tuned's behind. The prompts are read as a packed row; then
every step is a row of one token per unfinished reply. The shared weights are thus read once for
all replies of both sides, which on a CPU is what a step costs. Of the hidden states only those
that the next token needs go through the head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from tunediff.errors import NumericsError
from tunediff.scoring import memory, packs, precision, sampling
from tunediff.scoring.attention import Memory
from tunediff.scoring.engine import Engine
from tunediff.scoring.packs import Pack
from tunediff.scoring.sampling import BOTH, Asked, Draft
from tunediff.values import Encoded, Generation, Reply

# Remembered tokens of one batch, prompts and replies of all its rows: what bounds its memory.
BUDGET = {"cpu": 8192, "mps": 8192, "cuda": 65536}


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides a reply beside the logits and the prompt.

    ``ends``: ids that end a reply. ``text``: what a side's ids read as behind a prompt.
    ``context``: the most tokens of prompt and reply together; None: no limit.
    """

    generation: Generation
    sample: int
    ends: frozenset[int]
    text: Callable[[Asked, Encoded, Sequence[int]], str]
    context: int | None

    def most(self, prompt: Encoded) -> int:
        """How many tokens a reply to a prompt may have."""
        room = self.generation.max_new_tokens
        return room if self.context is None else min(room, self.context - len(prompt.ids))

    def draft(self, side: Asked, prompt: Encoded) -> Draft:
        """A reply that has not begun."""
        return Draft(
            generation=self.generation,
            most=self.most(prompt),
            noise=sampling.noise(prompt, self.generation, self.sample),
            ends=self.ends,
            text=lambda ids: self.text(side, prompt, ids),
        )


def generate(
    engine: Engine,
    prompts: Sequence[Encoded],
    rules: Rules,
    sides: Sequence[Asked] = BOTH,
    budget: int = 0,
) -> Iterator[tuple[Reply | None, Reply | None]]:
    """Base's and tuned's reply to every prompt, in the order given; None of a side not asked.

    Args:
        engine: the streams, and the kernel and threads they run on.
        prompts: each with room for one token at least.
        rules: see :class:`Rules`.
        sides: who is asked.
        budget: remembered tokens of a batch; 0: what suits the device.

    Raises:
        NumericsError: logits that are not finite; memory that does not suffice for one prompt.

    """
    budget = budget or BUDGET.get(engine.streams.device.type, 8192)
    asked: list[Asked] = [side for side in BOTH if side in sides]
    first = 0
    while first < len(prompts):
        count = _fitting(prompts[first:], rules, len(asked), budget)
        batch = prompts[first : first + count]
        found = _answered(engine, batch, rules, asked)
        if found is not None:
            yield from zip(*found, strict=True)
            first += count
            continue
        memory.release()
        if count == 1:
            raise NumericsError(
                f"Memory ran out on the reply to item '{batch[0].item_id}', whose prompt has "
                f"{len(batch[0].ids)} tokens.",
                "Use fewer new tokens, a shorter prompt, a smaller --dtype, or another device.",
            )
        engine.halvings += 1
        budget = sum(_length(prompt, rules) for prompt in batch) * len(asked) // 2


def _length(prompt: Encoded, rules: Rules) -> int:
    return len(prompt.ids) + rules.most(prompt)


def _fitting(prompts: Sequence[Encoded], rules: Rules, sides: int, budget: int) -> int:
    """How many of the first prompts fit into the budget with their replies; one at least."""
    longest = 0
    for count, prompt in enumerate(prompts):
        longest = max(longest, _length(prompt, rules))
        if count and (count + 1) * sides * longest > budget:
            return count
    return len(prompts)


def _answered(
    engine: Engine, prompts: Sequence[Encoded], rules: Rules, sides: Sequence[Asked]
) -> list[list[Reply | None]] | None:
    """The replies of base and those of tuned; None where memory ran out."""
    together: list[Sequence[Asked]] = (
        [sides] if engine.streams.mixes else [[side] for side in sides]
    )
    found: dict[Asked, list[Reply | None]] = {side: [None] * len(prompts) for side in BOTH}
    try:
        with (
            precision.use(engine.kernel),
            precision.threads(engine.threads),
            torch.inference_mode(),
        ):
            for asked in together:
                rows = [_Row(side, p, rules.draft(side, p)) for side in asked for p in prompts]
                _write(engine, rows)
                for place, row in enumerate(rows):
                    found[row.side][place % len(prompts)] = row.draft.reply
    except (RuntimeError, MemoryError) as error:
        if not memory.ran_out(error):
            raise
        return None
    return [found[side] for side in BOTH]


@dataclass(frozen=True, slots=True)
class _Row:
    side: Asked
    prompt: Encoded
    draft: Draft


def _write(engine: Engine, rows: Sequence[_Row]) -> None:
    """Read the prompts of all rows, base's in front, and go on until every reply is over."""
    streams = engine.streams
    capacity = max(len(row.prompt.ids) + row.draft.most for row in rows)
    remembered = Memory(len(rows), capacity)
    _choose(engine, rows, _read(engine, rows, remembered))
    while live := [place for place, row in enumerate(rows) if row.draft.reply is None]:
        if len(live) < len(rows):
            remembered.select(live)
            rows = [rows[place] for place in live]
        step = Pack(
            ids=torch.tensor([row.draft.ids[-1] for row in rows], device=streams.device),
            positions=torch.tensor(remembered.lengths, device=streams.device),
            bounds=tuple((place, place + 1) for place in range(len(rows))),
        )
        with remembered.going_on(streams.device):
            h = streams.mixed(step, _bases(rows))
        _choose(engine, rows, h)


def _read(engine: Engine, rows: Sequence[_Row], remembered: Memory) -> torch.Tensor:
    """Remember all prompts, some at a time; the last hidden state of each, (R, H)."""
    found, first = [], 0
    for part in packs.plan([row.prompt for row in rows], lambda: engine.budget):
        pack = Pack.of([torch.from_numpy(p.ids) for p in part], engine.streams.device)
        here = rows[first : first + len(part)]
        split = sum(len(row.prompt.ids) for row in here if row.side == "base")
        with remembered.reading(pack.bounds, first):
            h = engine.streams.mixed(pack, split)
        found.append(h[[stop - 1 for _, stop in pack.bounds]])
        first += len(part)
    return torch.cat(found)


def _choose(engine: Engine, rows: Sequence[_Row], h: torch.Tensor) -> None:
    """Let every draft go on by its row's last hidden state, (R, H)."""
    for start in range(0, len(rows), engine.chunk):
        part = rows[start : start + engine.chunk]
        z = engine.streams.mixed_logits(h[start : start + len(part)], _bases(part))
        highest, likeliest = z.max(dim=1)
        for row, finite in zip(part, torch.isfinite(highest).tolist(), strict=True):
            if not finite:
                raise NumericsError(
                    f"After item '{row.prompt.item_id}' and {len(row.draft.ids)} tokens of its "
                    f"reply the {row.side} model's logits are not finite.",
                    "Try --dtype float32, and check the weights.",
                )
        if part[0].draft.generation.temperature == 0:
            for row, token in zip(part, likeliest.tolist(), strict=True):
                row.draft.take(token)
        else:
            for row, logits in zip(part, z.cpu().numpy(), strict=True):
                row.draft.go_on(logits)


def _bases(rows: Sequence[_Row]) -> int:
    return sum(row.side == "base" for row in rows)
