"""How is an adapter saved at another strength, so that plain peft loads it?

ΔW is proportional to alpha, for rsLoRA too: every alpha is scaled, and the weights stay the bytes
that they were.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tunediff.errors import AdapterError, UsageError
from tunediff.pair.adapter import CONFIG, WEIGHTS
from tunediff.weights.files import read_json_object

_BESIDE = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt")
_BESIDE += ("chat_template.jinja", "*.model")


def require_new(folder: Path) -> None:
    """Refuse a folder that exists, since nothing is overwritten, or that cannot be made.

    Raises:
        UsageError: there is something of that name, or its parent is no folder to write to.

    """
    if folder.exists() or folder.is_symlink():
        raise UsageError(
            f"{folder} exists already; an adapter is written into a new folder only.",
            "Choose another --write, or remove it.",
        )
    if not folder.absolute().parent.is_dir():
        raise UsageError(f"{folder.parent} is not a folder.", "Make it first.")
    try:  # now, and not after hours of measuring
        with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".tunediff-"):
            pass
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made: {error.strerror}.", "Choose another --write."
        ) from error


def write_rescaled(adapter: Path, strength: float, folder: Path) -> None:
    """Save an adapter at ``strength`` times its own, whole or not at all.

    Raises:
        UsageError: the folder exists.
        AdapterError: the configuration cannot be read.

    """
    require_new(folder)
    config = read_json_object(adapter / CONFIG, AdapterError)
    config["lora_alpha"] = _scaled(config.get("lora_alpha", 8), strength)
    if config.get("alpha_pattern"):
        config["alpha_pattern"] = {
            name: _scaled(alpha, strength) for name, alpha in config["alpha_pattern"].items()
        }
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".tunediff-") as place:
        made = Path(place) / folder.name
        made.mkdir()
        for file in {file for pattern in (WEIGHTS, *_BESIDE) for file in adapter.glob(pattern)}:
            if file.is_file():
                shutil.copyfile(file, made / file.name)
        (made / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        made.rename(folder)


def _scaled(alpha: Any, strength: float) -> float | int:
    """A whole number stays one where it can: some readers of the file take nothing else."""
    found = alpha * strength
    return int(found) if found == int(found) else found
