"""How do two folders become a pair that shares its weights, and is proven?

One backend for base + LoRA adapter, base + merged checkpoint and base + full fine-tune. A plain
LoRA shares every weight; other adapters are switched on and off in one model; a full checkpoint
shares the tensors that are equal.
"""

from __future__ import annotations

import warnings as python_warnings
from pathlib import Path

import torch

from tunediff.errors import AdapterError, CertificateError, PairError, UnsupportedError
from tunediff.pair import encoding
from tunediff.pair.adapter import WEIGHTS, Adapter, read_adapter
from tunediff.pair.certificate import Probe, certify, certify_apart
from tunediff.pair.hf import BytesPair, HfPair
from tunediff.pair.hf_load import (
    DTYPES,
    HfTokens,
    context_length,
    device_of,
    has_tokenizer,
    load_model,
    share_equal_tensors,
    stored_tensors,
)
from tunediff.pair.hf_probe import (
    Opened,
    library_logits,
    owners,
    probe_ids,
    relative_change,
    run_probe,
)
from tunediff.pair.template import find_template
from tunediff.scoring import attention, precision
from tunediff.scoring.engine import Engine
from tunediff.scoring.streams import (
    LowRank,
    Model,
    SeparateStreams,
    SharedStreams,
)
from tunediff.values import Check, Side
from tunediff.weights.checkpoint import Checkpoint
from tunediff.weights.config import require_equal_meaning
from tunediff.weights.files import hub_revision
from tunediff.weights.names import NameMatcher

ONLY_BYTES = "Bits per byte is the one figure that is fair: tunediff check --bits-per-byte-only."


def open_hf(
    base_path: Path,
    tuned_path: Path,
    kind: str,
    *,
    dtype: str = "float32",
    device: str = "auto",
    bits_per_byte_only: bool = False,
) -> HfPair:
    """Open two local folders as a pair.

    Args:
        base_path: a model folder.
        tuned_path: an adapter folder or a model folder.
        kind: "adapter" or "model", what ``tuned_path`` is.
        dtype: float32, bfloat16 or float16, of both sides.
        device: "auto", "cpu", "cuda", "mps".
        bits_per_byte_only: allow different tokenizers, and measure that one figure.

    """
    torch_dtype, where = DTYPES[dtype], device_of(device)
    base_files = Checkpoint.open(base_path)
    # whatever the files alone can refuse is refused before gigabytes are loaded
    adapter = read_adapter(tuned_path, base_files) if kind == "adapter" else None
    tuned_files = Checkpoint.open(tuned_path) if adapter is None else None
    tokens = HfTokens(base_path)
    tuned_tokens = HfTokens(tuned_path) if has_tokenizer(tuned_path) else tokens
    warnings = list(adapter.warnings) if adapter is not None else []
    template = find_template(base_path)
    if find_template(tuned_path) not in (None, template):
        warnings.append(
            "The tuned side brings another chat template than base's; messages are rendered with "
            "base's on both sides."
        )
    equal_tokens = _compare_tokenizers(tokens, tuned_tokens, bits_per_byte_only, warnings)

    model = _loaded(base_files, torch_dtype, where)
    base_side = Side(str(base_path), "base", base_files.fingerprint(), hub_revision(base_path))
    revision = hub_revision(tuned_path)
    common = {
        "tokens": tokens,
        "template": template,
        "context": context_length(model.config.to_dict()),
        "dtype": dtype,
        "base": base_side,
    }
    kernel = precision.choose(where, torch_dtype)
    threads = precision.useful_threads(model.num_parameters())

    if not equal_tokens:
        if tuned_files is None:
            raise PairError(
                "The adapter brings another tokenizer than its base's, so it is no model of its "
                "own that could be compared.",
                "Merge it into its base, and give the merged model with --bits-per-byte-only.",
            )
        other = _loaded(tuned_files, torch_dtype, where)
        with precision.threads(threads):
            (one, base_probe), (two, tuned_probe) = (_alone(m, kernel) for m in (model, other))
        limits = [context_length(m.config.to_dict()) for m in (model, other)]
        common["context"] = min((n for n in limits if n is not None), default=None)
        return BytesPair(
            (one, two),
            tuned_tokens,
            tuned=Side(str(tuned_path), "full", tuned_files.fingerprint(), revision),
            certificate=certify_apart(base_probe, tuned_probe),
            engine=Engine(one, kernel, threads),
            **common,
        )

    with precision.threads(threads):
        ids = probe_ids(model)
        before = library_logits(model, ids)
        if adapter is not None:
            fingerprint = adapter.fingerprint
            kind = "lora (switched)" if adapter.slow_reasons else "lora"
            opened = (_switched if adapter.slow_reasons else _shared)(model, adapter)
        else:
            assert tuned_files is not None
            fingerprint, kind = tuned_files.fingerprint(), "full"
            opened = _two_models(model, _loaded(tuned_files, torch_dtype, where))
        with opened.as_base():  # an adapter with added tokens has added columns
            unchanged = torch.equal(before, library_logits(model, ids)[:, : before.shape[1]])
        after = None if opened.tuned is None else library_logits(opened.tuned, ids)
        for m in (model, opened.tuned):
            if m is not None:
                use_packed_attention(m)
        with precision.use(kernel):
            probe = run_probe(model, opened, ids, before, after, unchanged)
    certificate = certify(
        kind,
        opened.checks,
        probe,
        weights_equal=opened.weights_equal,
        relative_change=lambda: None if adapter is None else relative_change(model, adapter),
        resolution=torch.finfo(torch_dtype).eps,
        warnings=tuple(warnings),
    )
    return HfPair(
        tuned=Side(str(tuned_path), kind, fingerprint, revision),
        certificate=certificate,
        engine=Engine(opened.streams, kernel, threads),
        **common,
    )


def _loaded(files: Checkpoint, dtype: torch.dtype, device: torch.device) -> Model:
    model = load_model(files, dtype, device)
    if not model._supports_attention_backend:
        raise UnsupportedError(
            f"{type(model).__name__} computes attention in a way of its own, into which packed "
            "attention cannot be put.",
            "Compare recorded replies instead.",
        )
    return model


def use_packed_attention(model: Model) -> None:
    """Let a model of the transformers library attend text by text over packed rows."""
    model.config._attn_implementation = attention.NAME
    text = model.config.get_text_config()
    text._attn_implementation = attention.NAME


def _alone(model: Model, kernel: precision.Kernel) -> tuple[SeparateStreams, Probe]:
    """One of two unrelated models, and what the probe shows of it."""
    ids = probe_ids(model)
    before = library_logits(model, ids)
    use_packed_attention(model)
    streams = SeparateStreams(model, model, compared=owners(model))
    with precision.use(kernel):
        return streams, run_probe(model, Opened(streams, (), True), ids, before, None, True)


def _shared(model: Model, adapter: Adapter) -> Opened:
    device = next(model.parameters()).device
    find = NameMatcher(name for name, _ in model.named_modules())
    low_rank = []
    for part in adapter.modules:
        module = find.find(part.name)
        if module is None:
            raise AdapterError(
                f"The adapter's module {part.name} is not in the base model.",
                "The adapter was made for another base.",
            )
        a = torch.from_numpy(part.a).to(device, torch.float32)
        b = torch.from_numpy(part.b).to(device, torch.float32) * part.scale
        low_rank.append(LowRank(module, a, b))
    checks = (
        Check(
            "tensors_used",
            True,
            f"all {2 * len(low_rank)} tensors of the adapter are used, none is missing or extra",
        ),
        Check("shapes_fit", True, f"{len(low_rank)} modules fit the base's shapes and names"),
    )
    return Opened(SharedStreams(model, low_rank), checks, adapter.delta_is_zero, mergeable=True)


def _switched(model: Model, adapter: Adapter) -> Opened:
    """What an added low-rank term cannot say: peft's own model, switched over by peft."""
    from peft import PeftModel

    base_rows = model.get_input_embeddings().weight.shape[0]
    rows = _resized_rows(model, adapter)
    if rows is not None:
        model.resize_token_embeddings(rows, mean_resizing=False)
    with python_warnings.catch_warnings(record=True) as said:
        python_warnings.simplefilter("always")
        wrapped = PeftModel.from_pretrained(model, adapter.path).eval()
    for warning in said:
        if "missing" in str(warning.message).lower():
            raise AdapterError(
                f"peft did not find all of the adapter's tensors: {warning.message}",
                "The adapter was made for another base.",
            )
    count = _loaded_as_stored(wrapped, adapter)
    inner = wrapped.get_base_model()
    compared = [
        module
        for module in inner.modules()
        if hasattr(module, "lora_A") or hasattr(module, "modules_to_save")
    ]
    streams = SeparateStreams(inner, inner, wrapped.disable_adapter, compared, base_rows)
    checks = (
        Check(
            "tensors_used",
            True,
            f"all {count} tensors of the adapter are in the model, equal bit by bit",
        ),
        Check(
            "shapes_fit",
            True,
            f"served by switching, since it has {', '.join(adapter.slow_reasons)}",
        ),
    )
    return Opened(streams, checks, adapter.delta_is_zero, as_base=wrapped.disable_adapter)


def _loaded_as_stored(wrapped: Model, adapter: Adapter) -> int:
    """How many tensors the adapter's file holds, all found again in the model that peft made."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    def plain(key: str) -> str:
        return key.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")

    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")  # advice on saving; nothing is saved here
        state = get_peft_model_state_dict(wrapped, save_embedding_layers=True)
    loaded = {plain(key): tensor.cpu() for key, tensor in state.items()}
    stored = {plain(key): x for key, x in load_file(adapter.path / WEIGHTS).items()}
    lost = sorted(
        key
        for key, x in stored.items()
        if key not in loaded or not torch.equal(loaded[key], x.to(loaded[key].dtype))
    )
    if lost:
        raise CertificateError(
            f"{len(lost)} of the adapter's {len(stored)} tensors are not in the model as they lie "
            f"in the file ({lost[0]}).",
            "Merge the adapter into its base, and compare the merged model.",
        )
    return len(stored)


def _resized_rows(model: Model, adapter: Adapter) -> int | None:
    """The vocabulary that the adapter's own embeddings have, where it is not the base's."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    names = {name for name, module in model.named_modules() if module in ends}
    own = ends[0].weight.shape[0]
    for key, shape in adapter.extra_tensors.items():
        module = key.removesuffix(".weight").removesuffix(".base_layer")
        if module in names and shape[0] != own:
            return shape[0]
    return None


def _two_models(base: Model, tuned: Model) -> Opened:
    _same_architecture(base, tuned)
    names = sorted(stored_tensors(base).keys() | stored_tensors(tuned).keys())
    different = share_equal_tensors(base, tuned)
    # where nothing differs, everything was compared
    owners = {name.rpartition(".")[0] for name in different or names}
    compared = [module for name, module in base.named_modules() if name in owners]
    equal = f"{len(names) - len(different)} of {len(names)} tensors are equal and shared"
    ties = [bool(m.config.get_text_config().tie_word_embeddings) for m in (base, tuned)]
    if ties[0] != ties[1]:
        equal += f"; {'base' if ties[0] else 'tuned'} alone ties its output head to its embedding"
    checks = (
        Check("tensors_used", True, f"{len(names)} tensors, none missing or extra in the files"),
        Check("shapes_fit", True, equal),
    )
    return Opened(
        SeparateStreams(base, tuned, compared=compared),
        checks,
        weights_equal=not different,
        tuned=tuned,
    )


def _same_architecture(base: Model, tuned: Model) -> None:
    """Equal configurations, and equal shapes but for the number of tokens."""
    require_equal_meaning(base.config.to_dict(), tuned.config.to_dict())
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    rows = {f"{name}.{leaf}" for name, module in base.named_modules() if module in ends
            for leaf in ("weight", "bias")}  # fmt: skip
    ours, theirs = stored_tensors(base), stored_tensors(tuned)
    for name in sorted(ours.keys() & theirs.keys()):
        here, there = tuple(ours[name].shape), tuple(theirs[name].shape)
        if here != there and not (name in rows and here[1:] == there[1:]):
            raise PairError(
                f"The tensor {name} has shape {there} in the tuned model and {here} in the base.",
                "Give the base that it was tuned from.",
            )


def _compare_tokenizers(
    base: HfTokens, tuned: HfTokens, bits_per_byte_only: bool, warnings: list[str]
) -> bool:
    """Whether both sides read a text as the same tokens."""
    if tuned is base:
        return True
    different = encoding.tokenizer_differences(
        encoding.tokenizer_identity(base.serialised), encoding.tokenizer_identity(tuned.serialised)
    )
    if different == ["added_tokens"]:
        warnings.append(
            "The tuned side has added tokens; texts are read with base's tokenizer, and logit "
            "metrics are taken over the common vocabulary."
        )
        different = []
    if different and not bits_per_byte_only:
        raise PairError(
            f"The two tokenizers differ ({', '.join(different)}), so the models do not predict the "
            "same tokens.",
            ONLY_BYTES,
        )
    return not different
