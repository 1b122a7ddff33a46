"""Does an adapter folder hold every tensor that it should, and none besides?

peft loads what fits and warns about the rest at most. Here the configuration and the base say
which tensors there must be, and the file must hold exactly those.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunediff.errors import AdapterError, UnsupportedError
from tunediff.pair.adapter_config import checked_config
from tunediff.pair.expected import (
    EXPERTS,
    LORA_KEY,
    BaseModule,
    Expected,
    adapted_modules,
    base_modules,
    expected_tensors,
)
from tunediff.pair.targets import by_pattern
from tunediff.weights.checkpoint import Checkpoint
from tunediff.weights.files import (
    existing_folder,
    few,
    read_json_object,
    refuse_stray_links,
    safe_file,
    sha256_file,
    sha256_json,
)
from tunediff.weights.geometry import is_zero
from tunediff.weights.names import NameMatcher
from tunediff.weights.tensors import Tensor, read_header

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
FILE_BYTES_CAP = 16 * 2**30  # rank 256 on a 70B model, in float32


@dataclass(frozen=True, slots=True)
class LoraModule:
    """One adapted module: ΔW = scale · b @ a, shape (out, in).

    ``name`` is the module's in the model, ``base_tensor`` the weight's in the checkpoint. Where
    ``fan_in_fan_out`` holds, the base stores W as (in, out), and ΔW is transposed before it is
    added. ``embedding``: in is the vocabulary, and the rows of W are looked up.
    """

    name: str
    a: np.ndarray  # float32 (r, in)
    b: np.ndarray  # float32 (out, r)
    rank: int
    alpha: float
    scale: float
    fan_in_fan_out: bool
    base_tensor: str
    embedding: bool = False


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter whose files were proven to fit its base.

    ``slow_reasons``: why base plus s·B·A alone is not the whole adapter; empty where it is.
    ``extra_tensors``: the tensors in the file beside the factors of ``modules``, by key.
    ``extras_equal_base``: whether they only repeat the base (of none it holds as well).
    """

    path: Path
    config: Mapping[str, Any]
    modules: tuple[LoraModule, ...]
    slow_reasons: tuple[str, ...]
    extra_tensors: Mapping[str, tuple[int, ...]]
    file_hashes: Mapping[str, str]
    fingerprint: str
    extras_equal_base: bool
    warnings: tuple[str, ...] = ()

    @property
    def delta_is_zero(self) -> bool:
        """Whether ΔW is exactly zero everywhere, and all else in the adapter repeats the base."""
        return self.extras_equal_base and all(is_zero(module) for module in self.modules)


def read_adapter(folder: Path, base: Checkpoint) -> Adapter:
    """Read a PEFT LoRA folder and prove that its tensors are those that ``base`` needs.

    Raises AdapterError where files are unsafe, incomplete or made for another base, and
    UnsupportedError, by name, for what exists and is not served.
    """
    folder = existing_folder(Path(folder), AdapterError)
    config_file, weights_file = _files(folder)
    raw = read_json_object(config_file, AdapterError)
    config = checked_config(config_file, raw)
    tensors = read_header(weights_file, AdapterError, bytes_cap=FILE_BYTES_CAP)
    if base.quantization is not None:
        raise UnsupportedError(
            f"{base.path} is stored quantised ({base.quantization}); an adapter cannot be checked "
            "against packed weights.",
            "Give the base in float32, float16 or bfloat16.",
        )
    keys, default_keys = _normalised(weights_file, tensors)
    modules = base_modules(base, config, keys)
    chosen = adapted_modules(config, modules, base)
    ranks = by_pattern(config["rank_pattern"], chosen, config["r"])
    alphas = by_pattern(config["alpha_pattern"], chosen, config["lora_alpha"])
    expected = expected_tensors(config, base, modules, ranks)
    _compare(weights_file, keys, expected, modules)
    lora = tuple(
        _read_module(name, modules[name], ranks[name], alphas[name], config, keys, folder)
        for name in chosen
    )
    factors = {f"{m}.{part}" for m in chosen for part in modules[m].parts(1, config)}
    factors = {key for key in factors if not key.endswith(("_vector", ".bias"))}
    extra = {key: tensor.shape for key, tensor in keys.items() if key not in factors}
    find = NameMatcher(base.names).find
    repeated = [
        _repeats(key, _finite(folder, key, keys[key].read()), modules, base, find) for key in extra
    ]
    reasons = _slow_reasons(folder, expected, keys, modules, base)
    if default_keys and reasons:
        raise UnsupportedError(
            f"{weights_file} carries the adapter's name 'default' in its keys, which peft would "
            f"not load, and needs peft ({reasons[0]}).",
            "Take .default out of the tensors' names, as save_pretrained of peft does.",
        )
    if config["ensure_weight_tying"] and reasons:
        raise UnsupportedError(
            f"{config_file}: ensure_weight_tying with {reasons[0]} is not supported.",
            "Merge the adapter into its base, and compare the merged model.",
        )
    hashes = {file.name: sha256_file(file) for file in (config_file, weights_file)}
    return Adapter(
        path=folder,
        config=config,
        modules=lora,
        slow_reasons=reasons,
        extra_tensors=extra,
        file_hashes=hashes,
        fingerprint=sha256_json({"config": config, "weights": hashes[WEIGHTS]}),
        extras_equal_base=all(repeated),
        warnings=_warnings(raw, base, folder, default_keys),
    )


def _files(folder: Path) -> tuple[Path, Path]:
    if not (folder / CONFIG).exists() and not (folder / CONFIG).is_symlink():
        raise AdapterError(
            f"{folder} is not an adapter folder: it has no {CONFIG}.",
            "Give a folder as save_pretrained of peft writes it.",
        )
    refuse_stray_links(folder, AdapterError)
    if not (folder / WEIGHTS).exists():
        pickled = [f.name for f in folder.iterdir() if f.suffix in (".bin", ".pt", ".pth")]
        if pickled:
            raise AdapterError(
                f"{folder} holds its weights only as {few(pickled)}, a format that can run code "
                "when it is loaded; it is never loaded here.",
                "If you trust it, convert it once: safetensors.torch.save_file(torch.load("
                f"{few(pickled)!r}, weights_only=True), {WEIGHTS!r}).",
            )
        raise AdapterError(
            f"{folder} has no {WEIGHTS}.", "Download or save the adapter again, completely."
        )
    return safe_file(folder, CONFIG, AdapterError), safe_file(folder, WEIGHTS, AdapterError)


def _normalised(file: Path, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Return tensors by key without peft's prefix and adapter name, and whether it had one."""
    found: dict[str, Tensor] = {}
    named = False
    for key, tensor in tensors.items():
        # peft would not find a tensor without its prefix: it must not be found here either
        plain = key.removeprefix(_PREFIX) if key.startswith(_PREFIX) else f"{key} (no {_PREFIX})"
        if match := LORA_KEY.fullmatch(plain):
            leaf = "" if "vector" in match["part"] else match["leaf"] or ""
            named |= match["adapter"] is not None
            plain = f"{match['module']}.{match['part']}{leaf}"
        elif ".modules_to_save." in plain:
            named = True
            plain = re.sub(r"\.modules_to_save(\.default)?\.", ".", plain)
        if plain in found:
            raise AdapterError(f"{file} holds the tensor {plain} twice, under two names.")
        found[plain] = tensor
    if not found:
        raise AdapterError(f"{file} holds no tensor.", "Save the adapter again.")
    return found, named


def _compare(
    file: Path,
    keys: Mapping[str, Tensor],
    expected: Expected,
    modules: Mapping[str, BaseModule],
) -> None:
    """Raise AdapterError unless the file holds every expected tensor in its shape, and no other."""
    if experts := [key for key in keys if EXPERTS.search(key)]:
        raise UnsupportedError(
            f"{file} changes experts of a mixture ({few(experts)}), which is not supported.",
            "Merge the adapter into its base, and compare the merged model.",
        )
    known = expected.needed | expected.allowed
    missing = expected.needed.keys() - keys.keys()
    extra = keys.keys() - known.keys()
    foreign = {m["module"] for key in extra if (m := LORA_KEY.fullmatch(key))} - modules.keys()
    if foreign:
        raise AdapterError(
            f"{file} changes {len(foreign)} modules that the base does not have: {few(foreign)}. "
            "The adapter is for another base, or its tensors were renamed.",
            "Give the base that the adapter was trained on.",
        )
    if missing or extra:
        lost = f"{len(missing)} missing ({few(missing)})" if missing else "none missing"
        more = f"{len(extra)} not expected ({few(extra)})" if extra else "none not expected"
        raise AdapterError(
            f"{file} does not hold the tensors that its configuration asks for on this base: "
            f"{lost}, {more}.",
            "Save the adapter again with the configuration that it was trained with.",
        )
    wrong = []
    for key, tensor in keys.items():
        need, have = known[key], tensor.shape
        if have != need and not (key in expected.resizable and have[1:] == need[1:]):
            wrong.append(f"{key} is {have}, {need} was needed")
        elif not tensor.is_float:
            wrong.append(f"{key} is of type {tensor.dtype}, floating point was needed")
    if wrong:
        raise AdapterError(
            f"{file}: {len(wrong)} tensors do not fit: {few(wrong)}. The rank differs from the "
            "configuration's, or the adapter is for another base.",
            "Give the base that the adapter was trained on, and the configuration saved with it.",
        )


def _read_module(
    name: str,
    module: BaseModule,
    rank: int,
    alpha: float,
    config: Mapping[str, Any],
    keys: Mapping[str, Tensor],
    folder: Path,
) -> LoraModule:
    a, b = (
        _finite(folder, f"{name}.{part}", keys[f"{name}.{part}"].read())
        for part in list(module.parts(rank, config))[:2]
    )
    return LoraModule(
        name=name,
        a=a,
        b=b,
        rank=rank,
        alpha=float(alpha),
        scale=alpha / (rank**0.5 if config["use_rslora"] else rank),
        fan_in_fan_out=module.transposed,
        base_tensor=module.tensor,
        embedding=module.kind == "embedding",
    )


def _finite(folder: Path, key: str, values: np.ndarray) -> np.ndarray:
    """Return the values as float32; raises AdapterError where one is NaN or infinite."""
    with np.errstate(over="ignore"):  # float64 beyond float32's range becomes infinite: refused
        values = values.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise AdapterError(
            f"{folder}: the tensor {key} holds NaN or infinity; finite numbers were needed.",
            "The training that made it diverged, or the file is damaged: use another adapter.",
        )
    return values


def _repeats(
    key: str,
    values: np.ndarray,
    modules: Mapping[str, BaseModule],
    base: Checkpoint,
    find: Callable[[str], str | None],
) -> bool:
    """Return whether a tensor beside the factors leaves the base as it is."""
    if key.endswith(".lora_B.bias"):
        return not values.any()
    if key.endswith(".lora_magnitude_vector"):
        module = modules[key.removesuffix(".lora_magnitude_vector")]
        weight = base.read(module.tensor).astype(np.float64)
        norms = np.linalg.norm(weight, axis=0 if module.transposed else 1)
        # peft stores the norm of each row of W, rounded to float32 on its way
        return np.allclose(values, norms, rtol=1e-6, atol=0)
    name = key.removesuffix(".weight").removesuffix(".base_layer")
    tensor = modules[name].tensor if name in modules else find(key)
    if tensor is None or base.shape(tensor) != values.shape:
        return False
    return np.array_equal(base.read(tensor).astype(np.float32, copy=False), values)


def _slow_reasons(
    folder: Path,
    expected: Expected,
    keys: Mapping[str, Tensor],
    modules: Mapping[str, BaseModule],
    base: Checkpoint,
) -> tuple[str, ...]:
    """Return why s·B·A is not all; embeddings that merely repeat the base's are no reason."""
    reasons = list(expected.reasons)
    for key in sorted(keys.keys() & expected.resizable):
        name = key.removesuffix(".weight").removesuffix(".base_layer")
        stored, own = keys[key].read(), base.read(modules[name].tensor)
        if stored.shape != own.shape:
            reasons.append("a resized vocabulary")
        elif key not in expected.needed and not np.array_equal(stored, own):
            if key.endswith(".base_layer.weight"):
                raise AdapterError(
                    f"{folder}: {key}, the base's own tensor that the adapter keeps a copy of, "
                    "differs from this base's. The adapter is for another base.",
                    "Give the base that the adapter was trained on.",
                )
            reasons.append("whole embeddings stored beside the factors")
    return tuple(dict.fromkeys(reasons))


def _warnings(
    raw: Mapping[str, Any], base: Checkpoint, folder: Path, default_keys: bool
) -> tuple[str, ...]:
    found = []
    named = raw.get("base_model_name_or_path")
    here = base.path.resolve()
    if here.parent.name == "snapshots":  # a hub cache: models--owner--name/snapshots/REVISION
        here = Path(here.parent.parent.name.replace("--", "/"))
    if named and Path(named).name.lower() != here.name.lower():
        found.append(
            f"The adapter names its base {named}; the base given is {here.name}. Every tensor "
            "fits, which does not prove that it is the same one."
        )
    if default_keys:
        found.append(
            "The adapter's keys carry its name 'default'; peft itself would not load them."
        )
    if any(f.suffix in (".bin", ".pt", ".pth") for f in folder.iterdir()):
        found.append(f"{folder} also holds pickled files, which were not read.")
    return tuple(found)
