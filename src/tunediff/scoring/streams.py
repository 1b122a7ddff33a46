"""How do two models read the same row of tokens through one set of weights?

:class:`SharedStreams` serves a plain LoRA. A row carries base's tokens in front and tuned's
behind. Every product with a shared weight runs once over the whole row; in each adapted module the
rear half alone gets s·B(A·x) added in place. Below the first adapted layer there is one copy of
the tokens; at it they are doubled.

:class:`SeparateStreams` serves all that cannot be told apart by an added low-rank term (full
fine-tunes, DoRA, saved modules, adapted embeddings): two forward passes, through one model
switched over or through two models that share every equal tensor.

Both yield last hidden states and never logits: those are far too large to keep.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import nn

from tunediff.errors import ModelError, UnsupportedError
from tunediff.scoring import attention
from tunediff.scoring.logits import Buffer, Head
from tunediff.scoring.packs import Pack

Model = Any
"""A ``PreTrainedModel``; torch would type each of its attributes as ``Tensor | Module``."""

SideName = Literal["base", "tuned", "merged"]
_Way = SideName | Literal["pair", "mixed"]


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds in one module: y += b(a·x), the scale being part of ``b``.

    ``a``: (r, in). ``b``: (out, r). Both float32, as peft keeps them.
    """

    module: str
    a: torch.Tensor
    b: torch.Tensor


class Streams(Protocol):
    """Two models over one row."""

    device: torch.device
    first_layer: int  # below it both sides share one copy of the tokens
    vocabulary: int  # the common one: columns of both models' logits
    mixes: bool  # whether one row may hold tokens of both sides
    ends: tuple[int, ...]  # the tokens that end a text, by both models' generation settings

    def pair(self, pack: Pack) -> tuple[torch.Tensor, torch.Tensor]:
        """Last hidden states of base and tuned, (N, H) each."""
        ...

    def one(self, pack: Pack, side: SideName, noise: int | None = None) -> torch.Tensor:
        """Last hidden states of one side, (N, H); ``noise`` seeds rounding-size noise."""
        ...

    def logits_pair(self, h_b: torch.Tensor, h_t: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits of base and tuned, (C, V) float32 each, in a buffer that the next call reuses."""
        ...

    def logits(self, h: torch.Tensor, side: SideName, noise: int | None = None) -> torch.Tensor:
        """Logits of one side, (C, V) float32."""
        ...

    def mixed(self, pack: Pack, split: int) -> torch.Tensor:
        """Last hidden states of a row, (N, H): base's for ``split`` tokens, then tuned's."""
        ...

    def mixed_logits(self, h: torch.Tensor, split: int) -> torch.Tensor:
        """Logits of such a row over each side's whole vocabulary, (C, V) float32."""
        ...


def backbone(model: Model) -> nn.Module:
    """The part of a causal language model that ends in the last hidden states."""
    inner = model.base_model
    if inner is model:
        raise ModelError(
            f"{type(model).__name__} has no backbone apart from its head.",
            "tunediff compares causal language models of the transformers library.",
        )
    return inner


def decoder_layers(model: Model) -> tuple[str, nn.ModuleList]:
    """The name and the list of the decoder's layers."""
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise ModelError(f"No list of {count} decoder layers was found in {type(model).__name__}.")


def run_backbone(model: Model, pack: Pack) -> torch.Tensor:
    """Last hidden states of a packed row, (N, H), or (2N, H) where it was doubled on its way."""
    with attention.packed(pack.bounds):
        out = backbone(model)(
            input_ids=pack.ids[None], position_ids=pack.positions[None], use_cache=False
        ).last_hidden_state
    return out.reshape(-1, out.shape[-1])


def end_tokens(model: Model) -> tuple[int, ...]:
    """The ids that end a text by a model's generation settings; none, one or several."""
    found = model.generation_config.eos_token_id
    return tuple(found) if isinstance(found, list) else () if found is None else (found,)


def noisy_(out: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    """Multiply by 1 ± one unit in the last place of the dtype, in place, with random signs."""
    # a bit a sign: drawing an integer for each would cost a third of the floor's time
    bits = np.frombuffer(random.bytes(-(-out.numel() // 8)), np.uint8)
    signs = torch.from_numpy(np.unpackbits(bits, count=out.numel())).view(out.shape)
    step = torch.finfo(out.dtype).eps
    return out.mul_(signs.to(out.device, out.dtype).mul_(2 * step).add_(1 - step))


@contextmanager
def rounding(modules: Sequence[nn.Module], seed: int | None) -> Iterator[None]:
    """Within, rounding-size noise on the outputs of these modules; none where ``seed`` is None.

    Modules that yield several tensors, as a router of experts does, keep theirs.
    """
    random = np.random.default_rng(seed or 0)

    def hook(_module: nn.Module, _args: Any, out: Any) -> torch.Tensor | None:
        return noisy_(out, random) if torch.is_tensor(out) else None

    handles = [m.register_forward_hook(hook) for m in ([] if seed is None else modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(slots=True)
class _Pass:
    """The pass under way, as the hooks of a model see it; one for all strengths of an adapter.

    ``tokens``: base's of the row; in a pair, which is doubled, N. ``factors``: of ΔW by module;
    1 where there is none.
    """

    side: _Way = "base"
    tokens: int = 0
    factors: Mapping[str, float] = field(default_factory=dict)


class SharedStreams:
    """One model, one set of weights, a LoRA added to the rear half of the row.

    ``layers``: of each adapted module its decoder layer, None of the head.

    Args:
        model: the base model, in eval mode, with packed attention.
        low_rank: what the adapter adds, module by module; modules outside the decoder's layers
            and the head are not served here.

    """

    def __init__(self, model: Model, low_rank: Sequence[LowRank]) -> None:
        self.device = next(model.parameters()).device
        self._model = model
        self._pass = _Pass()
        self._factors: Mapping[str, float] = {}
        self._buffer = Buffer()
        adapted = []
        for part in low_rank:
            module = model.get_submodule(part.module)
            adapted.append(module)
            module.register_forward_hook(self._adding(part))
        self.head = Head(model)
        self.vocabulary = self.head.module.weight.shape[0]
        self.mixes, self.ends = True, end_tokens(model)
        self._noisy = adapted

        prefix, layers = decoder_layers(model)
        self.layers: dict[str, int | None] = {}
        for part, module in zip(low_rank, adapted, strict=True):
            self.layers[part.module] = None
            if part.module.startswith(prefix + "."):
                within = part.module.removeprefix(prefix + ".")
                self.layers[part.module] = int(within.split(".")[0])
            elif module is not self.head.module:
                raise UnsupportedError(
                    f"The adapter changes {part.module}, outside the decoder's layers and head.",
                    "Merge the adapter into its base, and compare the merged model.",
                )
        # A LoRA on the head alone leaves every layer shared.
        touched = (layer for layer in self.layers.values() if layer is not None)
        self.first_layer = min(touched, default=len(layers))
        for layer in layers[self.first_layer :]:
            layer.register_forward_pre_hook(self._doubled, with_kwargs=True)

    def scaled(self, factors: Mapping[str, float]) -> SharedStreams:
        """The same model, whose tuned side adds ΔW times a factor in some modules; 0: nothing."""
        other = copy.copy(self)
        other._factors = dict(factors)
        return other

    def pair(self, pack: Pack) -> tuple[torch.Tensor, torch.Tensor]:
        """Last hidden states of base and tuned, (N, H) each."""
        with self._as("pair", len(pack.ids)):
            h = run_backbone(self._model, pack)
        if len(h) == len(pack.ids):
            return h, h
        return h[: len(pack.ids)], h[len(pack.ids) :]

    def one(self, pack: Pack, side: SideName, noise: int | None = None) -> torch.Tensor:
        """Last hidden states of one side, (N, H)."""
        with self._as(side, len(pack.ids)), rounding(self._noisy, noise):
            return run_backbone(self._model, pack)

    def logits_pair(self, h_b: torch.Tensor, h_t: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """One product for both sides; where tuned adds nothing, base's logits are its own."""
        count = len(h_b)
        if not any(self._factors.get(module, 1.0) for module in self.layers):
            with self._as("base", count):
                z = self.head(h_b, self._buffer.rows(count, h_b, self.vocabulary)).float()
            return z, z
        with self._as("pair", count):
            rows = torch.cat([h_b, h_t])
            z = self.head(rows, self._buffer.rows(2 * count, rows, self.vocabulary)).float()
        return z[:count], z[count:]

    def logits(self, h: torch.Tensor, side: SideName, noise: int | None = None) -> torch.Tensor:
        """Logits of one side, (C, V) float32."""
        with self._as(side, len(h)), rounding(self._noisy, noise):
            return self.head(h).float()

    def mixed(self, pack: Pack, split: int) -> torch.Tensor:
        """Base and tuned one behind the other in one pass; (N, H)."""
        with self._as("mixed", split):
            return run_backbone(self._model, pack)

    def mixed_logits(self, h: torch.Tensor, split: int) -> torch.Tensor:
        """Logits of such a row, (C, V) float32, in a buffer that the next call reuses."""
        with self._as("mixed", split):
            return self.head(h, self._buffer.rows(len(h), h, self.vocabulary)).float()

    @contextmanager
    def _as(self, side: _Way, tokens: int) -> Iterator[None]:
        now = self._pass
        now.side, now.tokens, now.factors = side, tokens, self._factors
        try:
            with torch.inference_mode():
                yield
        finally:
            now.side = "base"

    def _adding(self, part: LowRank) -> Callable[..., torch.Tensor | None]:
        def hook(
            module: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor
        ) -> torch.Tensor | None:
            now = self._pass
            factor = now.factors.get(part.module, 1.0)
            if now.side == "base" or factor == 0:
                return None
            x = args[0].reshape(-1, args[0].shape[-1])
            if now.side == "merged":
                return _merged(module, part, args[0], factor)
            rows = out.reshape(-1, out.shape[-1])
            if now.side in ("pair", "mixed"):
                x, rows = x[now.tokens :], rows[now.tokens :]
            low = x.to(part.a.dtype) @ part.a.T
            if rows.dtype == part.b.dtype:
                rows.addmm_(low, part.b.T, alpha=factor)
            else:  # as peft: the sum in float32, rounded once
                rows.copy_(torch.addmm(rows.to(part.b.dtype), low, part.b.T, alpha=factor))
            return out

        return hook

    def _doubled(
        self, _layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Double whatever still has N tokens: hidden states, position ids, rotary tables."""
        if self._pass.side != "pair":
            return None
        return tuple(self._twice(x) for x in args), {k: self._twice(x) for k, x in kwargs.items()}

    def _twice(self, x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(self._twice(y) for y in x)
        if torch.is_tensor(x) and x.dim() >= 2 and x.shape[:2] == (1, self._pass.tokens):
            return torch.cat([x, x], dim=1)
        return x


def _merged(module: Any, part: LowRank, x: torch.Tensor, factor: float) -> torch.Tensor:
    """The module's output with ΔW added to the weight itself, rounded to the weight's dtype."""
    delta = factor * (part.b @ part.a)  # (out, in)
    weight = module.weight
    if isinstance(module, nn.Linear):
        merged = (weight.to(delta.dtype) + delta).to(weight.dtype)
        return nn.functional.linear(x, merged, module.bias)
    merged = (weight.to(delta.dtype) + delta.T).to(weight.dtype)  # Conv1D keeps (in, out)
    return x @ merged + module.bias


class SeparateStreams:
    """Two forward passes, one per side.

    Args:
        base: the base model, or the model that is switched over.
        tuned: the tuned model; may be the same object as ``base``.
        as_base: opens the context in which the model(s) answer as base.
        compared: modules whose outputs get rounding-size noise for the floor.
        vocabulary: base's columns of the logits; by default as many as its head has.

    """

    def __init__(
        self,
        base: Model,
        tuned: Model,
        as_base: Callable[[], AbstractContextManager[Any]] = nullcontext,
        compared: Sequence[nn.Module] = (),
        vocabulary: int | None = None,
    ) -> None:
        self.device = next(base.parameters()).device
        self._models: Mapping[str, Model] = {"base": base, "tuned": tuned}
        self._as_base = as_base
        self._noisy = compared
        self._heads = {side: Head(model) for side, model in self._models.items()}
        self._buffers = {side: Buffer() for side in self._models}
        rows = [m.get_output_embeddings().weight.shape[0] for m in (base, tuned)]
        self._rows = {"base": vocabulary or rows[0], "tuned": rows[1]}
        self.vocabulary = min(self._rows.values())
        self.first_layer = 0
        self.mixes, self.ends = False, (*end_tokens(base), *end_tokens(tuned))

    def pair(self, pack: Pack) -> tuple[torch.Tensor, torch.Tensor]:
        """Last hidden states of base and tuned, (N, H) each."""
        return self.one(pack, "base"), self.one(pack, "tuned")

    def one(self, pack: Pack, side: SideName, noise: int | None = None) -> torch.Tensor:
        """Last hidden states of one side, (N, H)."""
        with self._as(side), rounding(self._noisy, noise):
            return run_backbone(self._models[side], pack)

    def logits_pair(self, h_b: torch.Tensor, h_t: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Two products, one per side."""
        return self.logits(h_b, "base"), self.logits(h_t, "tuned")

    def logits(self, h: torch.Tensor, side: SideName, noise: int | None = None) -> torch.Tensor:
        """Logits of one side over the common vocabulary, (C, V) float32."""
        with rounding(self._noisy, noise):
            return self._own_logits(h, side)[:, : self.vocabulary]

    def mixed(self, pack: Pack, split: int) -> torch.Tensor:
        """Last hidden states of a row of one side alone, (N, H)."""
        return self.one(pack, _only(split, len(pack.ids)))

    def mixed_logits(self, h: torch.Tensor, split: int) -> torch.Tensor:
        """Logits of one side over its whole vocabulary, (C, V) float32."""
        return self._own_logits(h, _only(split, len(h)))

    def _own_logits(self, h: torch.Tensor, side: SideName) -> torch.Tensor:
        head = self._heads[side]
        with self._as(side):
            rows = head.module.weight.shape[0]
            out = self._buffers[side].rows(len(h), h, rows) if head.plain else None
            return head(h, out)[:, : self._rows[side]].float()

    @contextmanager
    def _as(self, side: SideName) -> Iterator[None]:
        with torch.inference_mode(), self._as_base() if side == "base" else nullcontext():
            yield


def _only(split: int, count: int) -> SideName:
    assert split in (0, count), "these streams do not mix sides"
    return "base" if split else "tuned"
