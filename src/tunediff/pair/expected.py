"""Which tensors must an adapter's file hold, given its configuration and its base?"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunediff.errors import AdapterError, UnsupportedError
from tunediff.pair.targets import targeted
from tunediff.weights.checkpoint import Checkpoint
from tunediff.weights.files import few
from tunediff.weights.names import BUFFER, EMBEDDINGS, HEADS, POSITIONS, NameMatcher, last
from tunediff.weights.tensors import Tensor

_CONV1D = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})  # W is (in, out)
EXPERTS = re.compile(r"(^|\.)(experts|block_sparse_moe)(\.|$)")
LORA_KEY = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector|token_adapter\.trainable_tokens_delta)"
    r"(?P<adapter>\.default)?(?P<leaf>\.weight|\.bias)?"
)


@dataclass(frozen=True, slots=True)
class BaseModule:
    """A matrix of the base that an adapter may change; a is (r, fan_in), b is (fan_out, r)."""

    tensor: str
    fan_in: int
    fan_out: int
    transposed: bool
    kind: str  # linear, embedding or head

    def parts(self, rank: int, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor that peft saves for this module."""
        a, b = (rank, self.fan_in), (self.fan_out, rank)
        if self.kind == "embedding":
            return {"lora_embedding_A": a, "lora_embedding_B": b}
        parts: dict[str, tuple[int, ...]] = {"lora_A.weight": a, "lora_B.weight": b}
        if config["use_dora"]:
            parts["lora_magnitude_vector"] = (self.fan_out,)
        if config["lora_bias"]:
            parts["lora_B.bias"] = (self.fan_out,)
        return parts


@dataclass(slots=True)
class Expected:
    """The keys that the file must hold with their shapes, and those that it may hold."""

    needed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    allowed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    resizable: set[str] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)


def base_modules(
    base: Checkpoint, config: Mapping[str, Any], keys: Mapping[str, Tensor]
) -> dict[str, BaseModule]:
    """Return the base's matrices by the names that their modules have in the model."""
    rename = _renamer(base, keys)
    found: dict[str, BaseModule] = {}
    for tensor in base.names:
        shape = base.shape(tensor)
        if not tensor.endswith(".weight") or len(shape) != 2:
            continue
        module = tensor.removesuffix(".weight")
        kind = "embedding" if last(module) in EMBEDDINGS + POSITIONS else "linear"
        kind = "head" if last(module) in HEADS else kind
        name = _head_name(module, base, keys) if kind == "head" else rename(module)
        transposed = kind == "embedding" or (kind == "linear" and base.model_type in _CONV1D)
        a = keys.get(f"{name}.lora_A.weight")
        if kind == "linear" and a is not None and a.shape[1:] != shape[1:]:
            # an architecture not listed above may store (in, out) too, if the adapter says so
            transposed |= config["fan_in_fan_out"] and a.shape[1:] == shape[:1]
        fan_in, fan_out = shape if transposed else shape[::-1]
        found[name] = BaseModule(tensor, fan_in, fan_out, transposed, kind)
    if base.head is None and base.input_embedding is not None:
        name = _head_name("lm_head", base, keys)
        fan_out, fan_in = base.shape(base.input_embedding)
        found[name] = BaseModule(base.input_embedding, fan_in, fan_out, False, "head")
    return found


def _head_name(stored: str, base: Checkpoint, keys: Mapping[str, Tensor]) -> str:
    """Return the head's name in the model: of GPT-NeoX's two, the one that the adapter uses."""
    if base.model_type != "gpt_neox":
        return stored
    # its checkpoints say embed_out; transformers 5 calls the module lm_head
    return "lm_head" if any("lm_head" in key.split(".") for key in keys) else "embed_out"


def _renamer(base: Checkpoint, keys: Mapping[str, Tensor]) -> Callable[[str], str]:
    """Return the function from a module's name in the checkpoint to its name in the model."""
    modules = {n.removesuffix(".weight") for n in base.names if n.endswith(".weight")}
    matcher = NameMatcher(modules)
    more, less = set(), set()
    for key in keys:
        match = LORA_KEY.fullmatch(key)
        name = match["module"] if match else ""
        known = matcher.find(name) if name and last(name) not in HEADS else None
        if known is not None:
            more.add(name.removesuffix(known) if name.endswith(known) else "")
            less.add(known.removesuffix(name) if known.endswith(name) else "")
    if len(more) > 1 or len(less) > 1:
        return lambda name: name  # the names contradict each other: the comparison will say so
    prefix, cut = more.pop() if more else "", less.pop() if less else ""
    return lambda name: prefix + name.removeprefix(cut)


def adapted_modules(
    config: Mapping[str, Any], modules: Mapping[str, BaseModule], base: Checkpoint
) -> list[str]:
    """Return the names of the modules that the configuration adapts, sorted.

    Raises AdapterError where it adapts none, UnsupportedError for experts of a mixture.
    """
    linear = frozenset(name for name, module in modules.items() if module.kind == "linear")
    chosen = sorted(targeted(config, list(modules), linear))
    if experts := [name for name in chosen if EXPERTS.search(name)]:
        raise UnsupportedError(
            f"The adapter changes experts of a mixture ({few(experts)}), which is not supported.",
            "Merge the adapter into its base, and compare the merged model.",
        )
    if not chosen:
        raise AdapterError(
            f"target_modules of the adapter names no module of {base.path}: "
            f"{str(config['target_modules'])[:200]}. The adapter is for another base.",
            "Give the base that the adapter was trained on.",
        )
    if config["use_dora"] and any(modules[name].kind == "embedding" for name in chosen):
        raise UnsupportedError("DoRA on an embedding is not supported.", "Merge the adapter.")
    return chosen


def expected_tensors(
    config: Mapping[str, Any],
    base: Checkpoint,
    modules: Mapping[str, BaseModule],
    ranks: Mapping[str, int],
) -> Expected:
    """Return what the file must and may hold, for the ranks of the adapted modules."""
    expected = Expected()
    for name, rank in ranks.items():
        for part, shape in modules[name].parts(rank, config).items():
            expected.needed[f"{name}.{part}"] = shape
    if config["use_dora"]:
        expected.reasons.append("DoRA")
    if config["lora_bias"]:
        expected.reasons.append("lora_bias")
    kinds = {name: modules[name].kind for name in ranks}
    if "embedding" in kinds.values():
        expected.reasons.append("an adapted embedding")
    if "head" in kinds.values() and base.head is None:
        expected.reasons.append("an adapted output head that is tied to the embedding")
    if config["bias"] != "none" and any(n.endswith(".bias") for n in base.names):
        raise UnsupportedError(
            f"bias is {config['bias']!r}: loading the adapter would change the base's own biases.",
            "Merge the adapter into its base, and compare the merged model.",
        )
    _expect_whole(config, base, modules, expected)
    _expect_tokens(config, base, modules, expected)
    for name, module in modules.items():  # peft may save these whole beside the factors
        if module.kind != "linear":
            for key in (f"{name}.weight", f"{name}.base_layer.weight"):
                expected.allowed[key] = base.shape(module.tensor)
                expected.resizable.add(key)
    return expected


def _expect_whole(
    config: Mapping[str, Any],
    base: Checkpoint,
    modules: Mapping[str, BaseModule],
    expected: Expected,
) -> None:
    """Add every tensor below a module whose name ends with one of ``modules_to_save``."""
    wanted = tuple(config["modules_to_save"])
    if not wanted:
        return
    names = {module.tensor: name for name, module in modules.items() if module.kind != "head"}
    # the model's prefix, as any matrix shows it, for the vectors that are no module here
    tensor, name = next(iter(names.items()))
    prefix = name.removesuffix(tensor.removesuffix(".weight"))
    shapes = {
        f"{names[t]}.weight" if t in names else prefix + t: base.shape(t)
        for t in base.names
        if not BUFFER.search(t) and t != base.head
    }
    shapes |= {f"{n}.weight": base.shape(m.tensor) for n, m in modules.items() if m.kind == "head"}
    used = set()
    for key, shape in shapes.items():
        parts = key.split(".")[:-1]
        above = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        hits = {w for w in wanted if any(module.endswith(w) for module in above)}
        if hits:
            used |= hits
            expected.needed[key] = shape
            if last(above[-1]) in EMBEDDINGS + HEADS:
                expected.resizable.add(key)
    if unused := set(wanted) - used:
        raise AdapterError(
            f"modules_to_save names {few(unused)}, which {base.path} does not have. The adapter "
            "is for another base.",
            "Give the base that the adapter was trained on.",
        )
    expected.reasons.append("modules_to_save")


def _expect_tokens(
    config: Mapping[str, Any],
    base: Checkpoint,
    modules: Mapping[str, BaseModule],
    expected: Expected,
) -> None:
    wanted = config["trainable_token_indices"]
    if wanted is None:
        return
    if isinstance(wanted, dict) and len(wanted) != 1:
        raise UnsupportedError(
            f"trainable_token_indices names {len(wanted)} modules; one is supported.",
            "Merge the adapter into its base, and compare the merged model.",
        )
    end, tokens = next(iter(wanted.items())) if isinstance(wanted, dict) else ("", wanted)
    found = [n for n, m in modules.items() if m.kind == "embedding" and n.endswith(end)]
    found = [n for n in found if last(n) in EMBEDDINGS]
    if len(found) != 1:
        raise AdapterError(f"trainable_token_indices: {base.path} has no one embedding {end!r}.")
    rows, width = base.shape(modules[found[0]].tensor)
    if not tokens or len(set(tokens)) != len(tokens) or max(tokens) >= rows:
        raise AdapterError(
            f"trainable_token_indices must be different token ids below {rows}; "
            f"{str(tokens)[:100]} was given."
        )
    key = f"{found[0]}.token_adapter.trainable_tokens_delta"
    expected.needed[key] = (len(tokens), width)
    expected.reasons.append("trainable_token_indices")
