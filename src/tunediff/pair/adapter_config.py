"""What does an adapter_config.json ask for, and can it be honoured exactly?

Every field of peft 0.21's LoraConfig is known here. A field that could change a number and is not
served is refused by name; so is a field that nobody here has heard of, unless it is empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunediff.errors import AdapterError, UnsupportedError

RANK_CAP = 4096

_SAFE_INITS = ("gaussian", "orthogonal", "eva")  # they set A and B alone, never the base
_MERGE_HINT = (
    "Merge the adapter into its base with the tool that made it, and compare the merged model."
)
_CONVERT_HINT = (
    "Convert it to a plain LoRA: save_pretrained(..., "
    "path_initial_model_for_weight_conversion=...) of peft."
)
_REFUSED: Mapping[str, str] = {  # fields that must be empty, and what they would turn on
    "target_parameters": "LoRA on bare parameters, as in mixtures of experts",
    "layer_replication": "replicated layers",
    "alora_invocation_tokens": "activated LoRA (aLoRA)",
    "use_qalora": "QALoRA",
    "megatron_config": "Megatron's parallel layers",
    "monteclora_config": "MonteCLoRA",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA, which changes the base's weights",
    "velora_config": "VeLoRA",
}


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _rank(value: Any) -> bool:
    return type(value) is int and value > 0


def _size(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _index(value: Any) -> bool:
    return type(value) is int and value >= 0


def _many(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(fits(item) for item in value)


def _mapped(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(fits(item) for item in value.values())


def _either(*choices: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: any(fits(value) for fits in choices)


_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "peft_type": (_text, "a string"),
    "task_type": (_text, "a string or null"),
    "base_model_name_or_path": (_text, "a string or null"),
    "revision": (_text, "a string or null"),
    "peft_version": (_text, "a string or null"),
    "megatron_core": (_text, "a string or null"),
    "auto_mapping": (_object, "an object or null"),
    "inference_mode": (_boolean, "true or false"),
    "r": (_rank, "a positive integer"),
    "lora_alpha": (_size, "a number, zero or more"),
    "lora_dropout": (_size, "a number, zero or more"),
    "target_modules": (_either(_text, _many(_text)), "a string or a list of strings"),
    "exclude_modules": (_either(_text, _many(_text)), "a string, a list of strings or null"),
    "fan_in_fan_out": (_boolean, "true or false"),
    "bias": (_text, '"none", "all" or "lora_only"'),
    "use_rslora": (_boolean, "true or false"),
    "use_dora": (_boolean, "true or false"),
    "lora_bias": (_boolean, "true or false"),
    "ensure_weight_tying": (_boolean, "true or false"),
    "modules_to_save": (_many(_text), "a list of strings or null"),
    "init_lora_weights": (_either(_boolean, _text), "true, false or a string"),
    "layers_to_transform": (_either(_index, _many(_index)), "an index, a list of them or null"),
    "layers_pattern": (_either(_text, _many(_text)), "a string, a list of strings or null"),
    "rank_pattern": (_mapped(_rank), "an object of positive integers"),
    "alpha_pattern": (_mapped(_size), "an object of numbers, zero or more"),
    "trainable_token_indices": (
        _either(_many(_index), _mapped(_many(_index))),
        "a list of token ids, an object of such lists or null",
    ),
    "qalora_group_size": (_index, "an integer"),
    "loftq_config": (_object, "an object"),
    "eva_config": (_object, "an object or null"),
    "corda_config": (_object, "an object or null"),
    "lora_ga_config": (_object, "an object or null"),
    "runtime_config": (_object, "an object"),
    "use_qalora": (_boolean, "true or false"),
}
_SORTED = ("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform")


def checked_config(path: Path, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that decide what the adapter computes, normalised.

    Raises AdapterError for a wrong type or value, UnsupportedError for what is not served.
    """
    for key, value in raw.items():
        rule = _RULES.get(key)
        if value is not None and rule and not rule[0](value):
            raise AdapterError(
                f"{path}: {key} is {value!r}; {rule[1]} was needed.",
                "Restore the file that was saved with these weights.",
            )
    given = {key: value for key, value in raw.items() if value is not None}
    _check_kind(path, given)
    _check_unknown(path, given)
    _check_values(path, given)
    config = {
        "fan_in_fan_out": False, "use_rslora": False, "use_dora": False, "lora_bias": False,
        "ensure_weight_tying": False, "bias": "none", "rank_pattern": {}, "alpha_pattern": {},
        "exclude_modules": [], "modules_to_save": [], "layers_to_transform": None,
        "layers_pattern": [], "trainable_token_indices": None, "r": 8, "lora_alpha": 8,
    }  # fmt: skip
    config |= {key: value for key, value in given.items() if key in config}
    config["target_modules"] = given["target_modules"]
    if isinstance(config["layers_pattern"], str):
        config["layers_pattern"] = [config["layers_pattern"]]
    if isinstance(config["layers_to_transform"], int):
        config["layers_to_transform"] = [config["layers_to_transform"]]
    for key in _SORTED:  # peft keeps sets, so the order in a saved file is arbitrary
        if isinstance(config[key], list):
            config[key] = sorted(set(config[key]))
    return config


def _check_kind(path: Path, given: Mapping[str, Any]) -> None:
    if "peft_type" not in given:
        raise AdapterError(
            f"{path} has no peft_type; LORA was needed.",
            "Give an adapter folder as save_pretrained of peft writes it.",
        )
    if given["peft_type"] != "LORA":
        raise UnsupportedError(
            f"{path}: peft_type is {given['peft_type']!r}; only LORA is supported.", _MERGE_HINT
        )
    if given.get("task_type", "CAUSAL_LM") != "CAUSAL_LM":
        raise UnsupportedError(
            f"{path}: task_type is {given['task_type']!r}; only CAUSAL_LM (or null) is supported.",
            "Give an adapter of a causal language model.",
        )


def _check_unknown(path: Path, given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        empty = value is False or value in ("", [], {})
        if key in _REFUSED and not empty:
            raise UnsupportedError(
                f"{path}: {key} is set ({_REFUSED[key]}), which is not supported.", _MERGE_HINT
            )
        if key not in _RULES and key not in _REFUSED and not empty:
            raise UnsupportedError(
                f"{path}: {key} is {value!r}, a field that is not known here; it could change "
                "what the adapter computes.",
                f"Remove the field if it has no effect on a trained adapter. {_MERGE_HINT}",
            )


def _check_values(path: Path, given: Mapping[str, Any]) -> None:
    start = given.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _SAFE_INITS:
        raise UnsupportedError(
            f"{path}: init_lora_weights is {start!r}, which changes the base's own weights or is "
            "not known here.",
            _CONVERT_HINT,
        )
    if not given.get("target_modules"):
        raise AdapterError(
            f"{path}: target_modules is empty; without it no one can tell which tensors belong "
            "to the adapter.",
            "Write the list of adapted modules into the file.",
        )
    if given.get("bias", "none") not in ("none", "all", "lora_only"):
        raise AdapterError(f"{path}: bias is {given['bias']!r}; {_RULES['bias'][1]} was needed.")
    if isinstance(given["target_modules"], str) and given.get("layers_to_transform") is not None:
        raise AdapterError(
            f"{path}: layers_to_transform needs target_modules as a list, and it is a string."
        )
    if given.get("layers_pattern") and given.get("layers_to_transform") is None:
        raise AdapterError(f"{path}: layers_pattern is set, and layers_to_transform is not.")
    for rank in (given.get("r", 8), *given.get("rank_pattern", {}).values()):
        if rank > RANK_CAP:
            raise AdapterError(f"{path}: a rank of {rank:,} is asked for; the cap is {RANK_CAP:,}.")
