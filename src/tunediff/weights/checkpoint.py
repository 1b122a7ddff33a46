"""What weights does a local model folder hold?

Hugging Face's layout: ``config.json`` beside ``model.safetensors``, or beside shards that
``model.safetensors.index.json`` lists. Nothing is executed, and only safetensors are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tunediff.errors import ModelError
from tunediff.weights.files import (
    existing_folder,
    few,
    read_json_object,
    refuse_stray_links,
    safe_file,
    sha256_file,
    sha256_json,
)
from tunediff.weights.names import EMBEDDINGS, HEADS, last
from tunediff.weights.tensors import Tensor, read_header

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_NOT_MEANINGFUL = frozenset(
    {"_name_or_path", "transformers_version", "use_cache", "torch_dtype", "dtype"}
)  # fmt: skip
_POSITIVE_INTEGERS = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "n_embd", "n_layer",
    "n_head", "n_positions", "max_position_embeddings",
)  # fmt: skip
_BOOLEANS = ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_cache")
_OBJECTS = ("quantization_config", "rope_scaling", "rope_parameters", "auto_map")


@dataclass(frozen=True)
class Checkpoint:
    """A model folder's configuration, and where each of its tensors lies."""

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    files: tuple[Path, ...]  # the weight files, sorted

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Read the configuration and the headers of a model folder; no tensor is read.

        Raises ModelError where the folder is no model folder, or is unsafe or incomplete.
        """
        folder = existing_folder(Path(folder), ModelError)
        if not (folder / "config.json").exists():
            raise ModelError(
                f"{folder} is not a model folder: it has no config.json.",
                "Give a folder as save_pretrained of transformers writes it.",
            )
        refuse_stray_links(folder, ModelError)
        config = read_json_object(safe_file(folder, "config.json", ModelError), ModelError)
        _check_config(folder, config)
        tensors, files = _find_tensors(folder)
        return cls(folder, config, tensors, files)

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor's name, sorted."""
        return tuple(sorted(self.tensors))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._tensor(name).shape

    def dtype(self, name: str) -> str:
        """Return a tensor's type as safetensors names it: F32, BF16 …."""
        return self._tensor(name).dtype

    def read(self, name: str) -> np.ndarray:
        """Return a tensor as float32, exactly (float64 is rounded)."""
        return self._tensor(name).read().astype(np.float32, copy=False)

    def frobenius(self, name: str) -> float:
        """Return ‖W‖_F in float64, streamed. Raises ModelError where W is not finite."""
        total = 0.0
        for block in self._tensor(name).blocks():
            wide = block.astype(np.float64, copy=False)
            total += float(wide @ wide)
        if not np.isfinite(total):
            raise self.not_finite(name)
        return total**0.5

    def finite_check(self) -> None:
        """Read every weight once; raises ModelError that names the first one not finite."""
        for name in self.names:
            tensor = self.tensors[name]
            if tensor.is_float and not all(np.isfinite(b).all() for b in tensor.blocks()):
                raise self.not_finite(name)

    def not_finite(self, name: str) -> ModelError:
        """Return the error that says that a tensor holds NaN or infinity."""
        return ModelError(
            f"{self.path}: the tensor {name} holds NaN or infinity; finite numbers were needed.",
            "The training that made it diverged, or the file is damaged: use another checkpoint.",
        )

    @cached_property
    def file_hashes(self) -> Mapping[str, str]:
        """The sha256 of config.json and of each weight file, by name."""
        return {file.name: sha256_file(file) for file in (self.path / "config.json", *self.files)}

    def fingerprint(self) -> str:
        """Return the sha256 over the weight files and the settings that decide their meaning."""
        config = {key: value for key, value in self.config.items() if key not in _NOT_MEANINGFUL}
        hashes = [self.file_hashes[file.name] for file in self.files]
        return sha256_json({"config": config, "weights": hashes})

    @property
    def model_type(self) -> str:
        """The architecture as transformers names it, "" where the configuration is silent."""
        return self.config.get("model_type") or ""

    @property
    def quantization(self) -> str | None:
        """The method a quantised checkpoint is stored in (gptq, awq …), else None."""
        stored = self.config.get("quantization_config")
        return None if not stored else str(stored.get("quant_method") or "an unnamed method")

    @property
    def input_embedding(self) -> str | None:
        """The name of the input embedding's tensor, where it is known."""
        return self._only(EMBEDDINGS)

    @property
    def head(self) -> str | None:
        """The name of the output head's own tensor; None where it is tied to the embedding."""
        return self._only(HEADS)

    def _only(self, kinds: tuple[str, ...]) -> str | None:
        found = [
            name
            for name in self.names
            if name.endswith(".weight") and last(name.removesuffix(".weight")) in kinds
        ]
        return found[0] if len(found) == 1 else None

    def _tensor(self, name: str) -> Tensor:
        try:
            return self.tensors[name]
        except KeyError:
            raise ModelError(f"{self.path} has no tensor {name}.") from None


def _check_config(folder: Path, config: Mapping[str, Any]) -> None:
    def need(key: str, fits: bool, what: str) -> None:
        if not fits:
            raise ModelError(
                f"{folder / 'config.json'}: {key} is {config[key]!r}; {what} was needed.",
                "Restore the file that belongs to these weights.",
            )

    given = {key for key, value in config.items() if value is not None}
    for key in given.intersection(_POSITIVE_INTEGERS):
        need(key, type(config[key]) is int and config[key] > 0, "a positive integer")
    for key in given.intersection(_BOOLEANS):
        need(key, isinstance(config[key], bool), "true or false")
    for key in given.intersection(_OBJECTS):
        need(key, isinstance(config[key], dict), "an object")
    if "model_type" in given:
        need("model_type", isinstance(config["model_type"], str), "a string")
    if "architectures" in given:
        names = config["architectures"]
        listed = isinstance(names, list) and all(isinstance(name, str) for name in names)
        need("architectures", listed, "a list of strings")


def _find_tensors(folder: Path) -> tuple[dict[str, Tensor], tuple[Path, ...]]:
    """Return tensors and files, the single file before the index, as transformers chooses."""
    if (folder / WEIGHTS).exists() or (folder / WEIGHTS).is_symlink():
        file = safe_file(folder, WEIGHTS, ModelError)
        return read_header(file, ModelError), (file,)
    if not (folder / INDEX).exists():
        raise _no_weights(folder)
    index = safe_file(folder, INDEX, ModelError)
    where = read_json_object(index, ModelError).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(f, str) for f in where.values()):
        raise ModelError(f"{index}: weight_map must map tensor names to file names.")
    files = tuple(safe_file(folder, name, ModelError) for name in sorted(set(where.values())))
    tensors: dict[str, Tensor] = {}
    for file in files:
        if file.suffix != ".safetensors":
            raise ModelError(f"{index} names {file.name}; only .safetensors files are read.")
        found = read_header(file, ModelError)
        if twice := tensors.keys() & found.keys():
            raise ModelError(f"{folder}: more than one shard holds {few(twice)}.")
        tensors |= found
    lost = {
        name
        for name, file in where.items()
        if name not in tensors or tensors[name].file != folder / file
    }
    if lost:
        raise ModelError(
            f"{folder}: {len(lost)} tensors are not in the shard that the index names: "
            f"{few(lost)}.",
            "Download the folder again, completely.",
        )
    return tensors, files


def _no_weights(folder: Path) -> ModelError:
    pickled = [file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern)]
    if pickled:
        return ModelError(
            f"{folder} holds weights only as {few(pickled)}, a format that can run code when it "
            "is loaded; it is never loaded here.",
            "If you trust it, convert it once: transformers.AutoModelForCausalLM."
            f"from_pretrained({str(folder)!r}).save_pretrained('converted'), and give that folder.",
        )
    return ModelError(
        f"{folder} is not a model folder: it has no {WEIGHTS} and no {INDEX}.",
        "Give a folder as save_pretrained of transformers writes it.",
    )
