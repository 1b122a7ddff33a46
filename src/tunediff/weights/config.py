"""Do two configurations let equal weights compute the same?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunediff.errors import PairError

# What decides nothing about the logits, or what the tensors themselves tell: whether the output
# head is tied shows in the heads, the vocabulary's size in the shapes.
_PASSING = frozenset({
    "_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version",
    "use_cache", "vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "name_or_path",
    "initializer_range", "attention_dropout", "pretraining_tp", "attn_pdrop", "resid_pdrop",
    "embd_pdrop", "hidden_dropout", "classifier_dropout", "task_specific_params",
    "summary_type", "summary_use_proj", "summary_activation", "summary_first_dropout",
    "summary_proj_to_logits", "id2label", "label2id", "keys_to_ignore_at_inference",
    "unsloth_version", "unsloth_fixed", "model_name", "output_hidden_states",
    "output_attentions", "return_dict", "chunk_size_feed_forward", "is_encoder_decoder",
    "problem_type", "tie_word_embeddings",
})  # fmt: skip
# The longest text's length, which decides nothing but where rotary positions are scaled by it.
_BY_LENGTH = ("dynamic", "longrope", "yarn")
_LENGTHS = frozenset({"max_position_embeddings", "n_positions", "n_ctx"})


def meaningful(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that decides what the weights compute."""
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    passing = _PASSING if _scales(rope) else _PASSING | _LENGTHS
    return json.loads(json.dumps({k: v for k, v in config.items() if k not in passing}))


def require_equal_meaning(base: Mapping[str, Any], tuned: Mapping[str, Any]) -> None:
    """Raise PairError, naming the first few keys, where two configurations differ in meaning."""
    ours, theirs = meaningful(base), meaningful(tuned)
    different = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    if different:
        key = different[0]
        raise PairError(
            "The tuned model is not a derivative of the base: their configurations differ in "
            f"{', '.join(different[:4])} ({key}: {ours.get(key)!r} against {theirs.get(key)!r}).",
            "Give the base that it was tuned from.",
        )


def _scales(rope: Any) -> bool:
    if not isinstance(rope, dict):
        return False
    if any(isinstance(value, dict) for value in rope.values()):  # one for each kind of layer
        return any(_scales(value) for value in rope.values())
    return (rope.get("rope_type") or rope.get("type")) in _BY_LENGTH
