"""Is a folder a model or an adapter?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from tunediff.errors import ModelError, PairError, UnsupportedError
from tunediff.weights.files import existing_folder, has_adapter, has_full_weights

Kind = Literal["adapter", "model"]
_PREFIXES: dict[str, Kind] = {"adapter:": "adapter", "full:": "model"}


class Argument(NamedTuple):
    """A model as the command line names it: ``kind`` is None where the user did not say."""

    kind: Kind | None
    path: str


def parse_model_argument(text: str) -> Argument:
    """Split the prefixes ``adapter:`` and ``full:`` off a path or a hub name."""
    for prefix, kind in _PREFIXES.items():
        if text.startswith(prefix):
            return Argument(kind, text.removeprefix(prefix))
    return Argument(None, text)


def classify(path: Path | str, kind: Kind | None = None) -> Kind:
    """Return what the folder holds.

    ``kind``: what the user said that it holds; then that must be there. Raises ModelError where
    there is no such folder or nothing that can be opened, PairError where it holds both and the
    user did not say which is meant.
    """
    folder = existing_folder(Path(path), ModelError)
    holds: dict[Kind, bool] = {"adapter": has_adapter(folder), "model": has_full_weights(folder)}
    if not any(holds.values()):
        if (folder / "adapters.safetensors").exists():
            raise UnsupportedError(
                f"{folder} is an adapter in MLX's format, which is not supported yet.",
                "Convert it to PEFT's format first.",
            )
        raise ModelError(
            f"{folder} is neither a model folder nor an adapter folder: it has no "
            "model.safetensors and no adapter_config.json.",
            "Give a folder as save_pretrained of transformers or peft writes it.",
        )
    if kind is None:
        if all(holds.values()):
            raise PairError(
                f"{folder} holds full weights and an adapter; it is not clear which is meant.",
                f"Say adapter:{path} for base plus adapter, or full:{path} for the full weights.",
            )
        return "adapter" if holds["adapter"] else "model"
    if not holds[kind]:
        raise ModelError(
            f"{folder} holds no {kind}, though the prefix says so.",
            f"Give the path without a prefix, or a folder that holds the {kind}.",
        )
    return kind


def require_base(path: Path | str) -> None:
    """Raise ModelError where BASE is no model folder; where it is an adapter, say the order."""
    folder = existing_folder(Path(path), ModelError)
    if has_adapter(folder) and not has_full_weights(folder):
        raise ModelError(
            f"{folder} is an adapter, and BASE must be a model.",
            "BASE comes first, then the adapter.",
        )
    if not has_full_weights(folder):
        classify(folder)
