"""How does a folder become a model of the transformers library, whole and unchanged?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from tunediff.errors import ModelError, NumericsError, UnsupportedError
from tunediff.scoring.streams import Model
from tunediff.weights.checkpoint import Checkpoint
from tunediff.weights.files import few, has_adapter
from tunediff.weights.names import BUFFER

_Loader: Any = AutoModelForCausalLM  # its stub knows no loading info

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_of(name: str) -> torch.device:
    """The device of this name; "auto" takes CUDA, then MPS, then the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()  # which a device without memory cannot do
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"The device {name!r} is not available: {str(error).splitlines()[0]}",
            "Use --device cpu, or leave it to auto.",
        ) from error
    return device


@contextmanager
def quiet() -> Iterator[None]:
    """Within, transformers draws no bars and logs errors alone: what counts is raised here."""
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def check_supported(checkpoint: Checkpoint) -> None:
    """Refuse by name what no test of ours covers.

    Raises:
        UnsupportedError: quantised weights, custom code, encoder-decoder models.

    """
    method = checkpoint.quantization
    if method is not None:
        raise UnsupportedError(
            f"{checkpoint.path} is quantised ({method}); tunediff does not read such weights.",
            "Give the unquantised checkpoint.",
        )
    config = checkpoint.config
    if config.get("auto_map"):
        raise UnsupportedError(
            f"{checkpoint.path} brings its own model code (auto_map), which is never run.",
            "Use a checkpoint of an architecture that transformers has built in.",
        )
    if config.get("is_encoder_decoder"):
        raise UnsupportedError(
            f"{checkpoint.path} is an encoder-decoder model ({config.get('model_type')}).",
            "tunediff compares decoder-only language models.",
        )
    if config.get("reorder_and_upcast_attn"):
        raise UnsupportedError(
            f"{checkpoint.path} sets reorder_and_upcast_attn, which bypasses packed attention.",
            "Set it to false in config.json: it changes rounding only.",
        )


@contextmanager
def _without_adapter(folder: Path) -> Iterator[Path]:
    """A folder's files but those of an adapter, which transformers would silently load on top."""
    if not has_adapter(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        for file in folder.iterdir():
            if not file.name.startswith("adapter_"):
                (Path(place) / file.name).symlink_to(file.resolve())
        yield Path(place)


def full_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The configuration with every default that transformers fills in.

    Raises:
        ModelError: where transformers does not know it.

    """
    try:
        with quiet():
            config = AutoConfig.from_pretrained(
                checkpoint.path, local_files_only=True, trust_remote_code=False
            )
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise ModelError(
            f"{checkpoint.path / 'config.json'} could not be read by transformers: "
            f"{_first_line(error)}",
            "Check that the folder is of an architecture that transformers knows.",
        ) from error
    return config.to_dict()


def load_model(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> Model:
    """The model in eval mode, every weight from the files and finite.

    Raises:
        ModelError: weights missing, unexpected or misshapen; NumericsError where not finite.

    """
    check_supported(checkpoint)
    try:
        with quiet(), _without_adapter(checkpoint.path) as folder:
            model, report = _Loader.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation="eager",  # the reference that the packed way is held against
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        raise ModelError(
            f"{checkpoint.path} could not be loaded by transformers: {_first_line(error)}",
            "Check that the folder is whole and of an architecture that transformers knows.",
        ) from error
    for kind in ("missing_keys", "mismatched_keys"):
        if report.get(kind):
            raise ModelError(
                f"{checkpoint.path} lacks weights or has misshapen ones: "
                f"{few(str(k) for k in report[kind])} ({len(report[kind])} in all).",
                "transformers would fill them with random numbers. Fetch the folder again.",
            )
    extra = [k for k in report.get("unexpected_keys", ()) if not BUFFER.search(k)]
    if extra:
        raise ModelError(
            f"{checkpoint.path} holds tensors that its architecture does not have: {few(extra)} "
            f"({len(extra)} in all).",
            "transformers would ignore them. Rename them as the architecture does, or, where they "
            "are an adapter, merge it before saving.",
        )
    model.eval()
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter.sum()) and not torch.isfinite(parameter).all():
            raise NumericsError(
                f"{checkpoint.path}: the weight {name} holds NaN or infinity.",
                "Fetch the folder again, or ask whoever trained it.",
            )
    return model.to(device)


def stored_tensors(model: Model) -> dict[str, torch.Tensor]:
    """Every tensor that a model saves, under every name it has: a tied head under its own too."""
    return model.state_dict(keep_vars=True)


def share_equal_tensors(base: Model, tuned: Model) -> list[str]:
    """Let ``tuned`` use base's memory for every equal tensor.

    Returns the names of the tensors that differ, or that only one side has, sorted.
    """
    ours, theirs = stored_tensors(base), stored_tensors(tuned)
    different = set(ours.keys() ^ theirs.keys())
    for name in ours.keys() & theirs.keys():
        one, other = ours[name], theirs[name]
        if one.shape == other.shape and torch.equal(one, other):
            other.data = one.data
        else:
            different.add(name)
    return sorted(different)


class HfTokens:
    """The tokenizer of a model folder, as ``encoding.Tokens``."""

    def __init__(self, folder: Path) -> None:
        try:
            with quiet():
                self.tokenizer = AutoTokenizer.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
        except (ValueError, KeyError, OSError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{folder} has no tokenizer that transformers can load: {_first_line(error)}",
                "Put tokenizer.json and tokenizer_config.json beside the weights.",
            ) from error
        if not self.tokenizer.is_fast:
            raise UnsupportedError(
                f"{folder} has a tokenizer without character offsets "
                f"({type(self.tokenizer).__name__}).",
                "Save its fast version (tokenizer.json).",
            )
        self._texts: dict[int, str] = {}  # of ids that were asked for
        self.bos: int | None = self.tokenizer.bos_token_id
        self.eos: int | None = self.tokenizer.eos_token_id
        # all that a template's text would be parsed for, named in the configuration or not
        added = self.tokenizer.added_tokens_decoder.values()
        self.special_texts: tuple[str, ...] = tuple(
            dict.fromkeys(
                (*self.tokenizer.all_special_tokens, *(t.content for t in added if t.special))
            )
        )

    def __call__(
        self, text: str, *, special: bool, parse_special: bool
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, and the characters of each."""
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = not parse_special
        found = backend.encode(text, add_special_tokens=special)
        return found.ids, found.offsets

    @property
    def special(self) -> dict[str, str | None]:
        """What a chat template's ``bos_token`` and ``eos_token`` stand for."""
        return {"bos_token": self.tokenizer.bos_token, "eos_token": self.tokenizer.eos_token}

    @property
    def serialised(self) -> str:
        """The tokenizer's JSON form."""
        return self.tokenizer.backend_tokenizer.to_str()

    def text_of(self, token_id: int) -> str:
        """The text of one id, as it reads behind another: many decoders strip the first blank."""
        if token_id not in self._texts:
            once, twice = (self.tokenizer.decode([token_id] * n) for n in (1, 2))
            self._texts[token_id] = twice[len(once) :] or once
        return self._texts[token_id]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text; joined, it is the decoded text, special tokens too.

        A character of several tokens is the last one's, and the others add "".
        """
        backend = self.tokenizer.backend_tokenizer
        stream = DecodeStream(skip_special_tokens=False)
        found = [stream.step(backend, int(i)) or "" for i in ids]
        whole, ready = backend.decode(list(ids), skip_special_tokens=False), "".join(found)
        if found and whole.startswith(ready):  # what the stream holds back as unfinished
            found[-1] += whole[len(ready) :]
        return found


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder brings a tokenizer of its own."""
    names = ("tokenizer.json", "vocab.json", "vocab.txt")
    return any((folder / name).is_file() for name in names) or any(folder.glob("*.model"))


def context_length(config: dict[str, Any]) -> int | None:
    """The longest text that a model of this configuration reads, in tokens.

    Rotary tables of type dynamic and longrope depend on the longest text of a pass, once one is
    longer than those of the original training: only up to there are packed texts independent.
    """
    ropes = config.get("rope_parameters") or config.get("rope_scaling") or {}
    originals = [
        rope.get("original_max_position_embeddings")
        or config.get("original_max_position_embeddings")
        for rope in (ropes, *ropes.values())  # some configurations have one for each type of layer
        if isinstance(rope, dict) and rope.get("rope_type") in ("dynamic", "longrope")
    ]
    whole = next(
        (config[k] for k in ("max_position_embeddings", "n_positions") if k in config), None
    )
    return min((n for n in (whole, *originals) if isinstance(n, int)), default=None)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
