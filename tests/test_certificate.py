"""Is a pair refused whenever its two sides are not what they claim to be?

Each fault is planted for real, in the code or in the files, and seen to be refused. Of the first
table of known traps, these rows are covered by tests of the pair and of scoring:

* adapter not applied: ``test_an_adapter_that_is_not_applied``, ``test_nothing_is_not_a_fault``
* base stands in for tuned: ``test_nothing_stands_in_for_what_cannot_be_opened``
* base changed by loading: ``test_a_base_changed_by_loading``,
  ``test_saved_embeddings_of_a_new_size``
* wrong base: ``test_another_base``
* merging rounds; tied head lost on merge: ``test_merging_that_rounds``, ``test_a_wrong_merge``,
  ``test_a_tied_head_changes_on_merging``
* BOS twice or missing; labels shifted; truncation; prompt and reply merged; tokenizer differs:
  ``test_encoding.py``
* padding and positions; packed sequences see each other: ``test_texts_that_see_each_other``,
  ``test_positions_that_run_on``, and per architecture ``test_pair_hf.py``
* wrong denominators: ``test_encoding.py`` (bytes), ``test_pair_contract.py`` (positions)
* NaN or infinite weights or logits: ``test_weights_that_are_not_finite``, ``test_engine.py``
* dropout left on: ``test_dropout_left_on``
* dtype differs: ``test_both_sides_have_the_dtype_asked_for``
* bf16 noise read as a change: ``test_engine.py`` (floor), ``test_pair_hf.py`` (bfloat16)
* batch size changes the answer: ``test_engine.py`` (packs, order, memory)
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import factory
from tunediff.errors import (
    AdapterError,
    CertificateError,
    ModelError,
    NumericsError,
    PairError,
    TunediffError,
)
from tunediff.pair import hf_open
from tunediff.pair.certificate import Probe, certify
from tunediff.pair.from_files import certify_files
from tunediff.pair.hf import HfPair
from tunediff.pair.hf_probe import rms
from tunediff.pair.open import open_pair
from tunediff.scoring import streams
from tunediff.scoring.packs import Pack
from tunediff.values import Certificate, Item


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.tiny_model(tmp_path_factory.mktemp("base"), "llama")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.lora_adapter(tmp_path_factory.mktemp("adapter"), base)


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.full_finetune(tmp_path_factory.mktemp("full"), base)


def opened(base: Path, tuned: Path, **how: Any) -> HfPair:
    pair = open_pair(base, tuned, device="cpu", **how)
    assert isinstance(pair, HfPair)
    return pair


def checks(certificate: Certificate) -> dict[str, bool | None]:
    return {check.name: check.passed for check in certificate.checks}


PACKED = "packed logits differ from its own forward pass"


# --- the adapter


def test_an_adapter_that_is_not_applied(
    base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams.SharedStreams, "_adding", lambda *_: lambda *_: None)
    with pytest.raises(CertificateError) as error:
        opened(base, adapter)
    assert error.value.message.startswith("The adapter is not applied: its ΔW is not zero")


def test_a_switched_adapter_that_is_not_applied(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dora = factory.lora_adapter(tmp_path, base, dora=True)
    from peft import PeftModel

    load = PeftModel.from_pretrained

    def switched_off(*args: Any, **kwargs: Any) -> Any:
        model = load(*args, **kwargs)
        model.base_model.disable_adapter_layers()
        return model

    monkeypatch.setattr(PeftModel, "from_pretrained", switched_off)
    with pytest.raises(CertificateError, match="The adapter is not applied"):
        opened(base, dora)


@pytest.mark.parametrize(
    "how", [{}, {"dora": True}, {"modules_to_save": ["lm_head"]}, {"embeddings": True}], ids=str
)
def test_nothing_is_not_a_fault(base: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    # what peft saves before any training: ΔW is exactly zero
    pair = opened(base, factory.lora_adapter(tmp_path, base, trained=False, **how))
    assert pair.certificate.weights_equal
    found = checks(pair.certificate)
    assert (found["weights_differ"], found["logits_differ"]) == (False, False)
    assert found["base_unchanged"]
    (scores,) = pair.score(pair.encode([Item("a", text="the fox sleeps")], None, False))
    assert not scores.logit_l2.any()


@pytest.mark.parametrize(
    ("how", "key"),
    [
        ({"use_dora": True}, "lora_magnitude_vector"),
        ({"modules_to_save": ["norm"]}, "model.norm.weight"),
        ({"lora_bias": True}, "lora_B.bias"),
    ],
)
def test_a_change_outside_the_factors_is_a_change(
    base: Path, tmp_path: Path, how: dict[str, Any], key: str
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=2, target_modules=["q_proj", "o_proj"], **how)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft cannot merge a bias; nothing is merged here
        get_peft_model(model, config).save_pretrained(tmp_path)
        assert opened(base, tmp_path).certificate.weights_equal
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(k for k in tensors if k.endswith(key) and "q_proj" not in k)
    tensors[name] = tensors[name] * np.float32(1.01) + np.float32(0.01)
    save_file(tensors, file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = opened(base, tmp_path)
    assert not pair.certificate.weights_equal
    assert checks(pair.certificate)["logits_differ"]


@pytest.mark.parametrize(("dtype", "scale"), [("float32", 1e-12), ("bfloat16", 1e-7)])
def test_a_change_too_small_for_the_dtype_is_said_not_refused(
    base: Path, tmp_path: Path, dtype: str, scale: float
) -> None:
    pair = opened(base, factory.lora_adapter(tmp_path, base, scale=scale), dtype=dtype)
    found = checks(pair.certificate)
    assert not pair.certificate.weights_equal
    assert (found["weights_differ"], found["logits_differ"]) == (True, False)
    (warning,) = [w for w in pair.certificate.warnings if "resolution" in w]
    assert "it cannot show" in warning


def test_merged_equals_unmerged(base: Path, adapter: Path) -> None:
    pair = opened(base, adapter)
    assert checks(pair.certificate)["merged_equals_unmerged"] is True
    assert pair.certificate.warnings == ()


def test_merging_that_rounds(base: Path, tmp_path: Path) -> None:
    # ΔW far below a bfloat16 weight's last place: unmerged it counts, merged it is lost
    small = factory.lora_adapter(tmp_path, base, scale=3e-3)
    rough, fine = (opened(base, small, dtype=dtype) for dtype in ("bfloat16", "float32"))
    assert checks(rough.certificate)["logits_differ"]
    assert _merged_loss(rough) > 1e6 * _merged_loss(fine)


def _merged_loss(pair: HfPair) -> float:
    pack = Pack.of([torch.arange(20)], torch.device("cpu"))
    side = pair.engine.streams
    one, other = (side.logits(side.one(pack, s), s).clone() for s in ("merged", "tuned"))
    return float((one - other).square().mean())


def test_a_wrong_merge(base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = streams._merged
    monkeypatch.setattr(
        streams, "_merged", lambda m, part, *rest: right(m, replace(part, b=part.b * 1.05), *rest)
    )
    with pytest.raises(CertificateError, match="with ΔW beside them by"):
        opened(base, adapter)


def test_merging_that_rounds_is_said_not_refused() -> None:
    rounded = replace(GOOD, merged=1.1e-5)
    found = certified(rounded, resolution=2.0**-8)
    assert checks(found)["merged_equals_unmerged"] is False
    (warning,) = found.warnings
    assert warning.startswith("Merging this adapter in this dtype would move logits by")
    with pytest.raises(CertificateError):
        certified(rounded)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_module_left_out_of_the_pass_of_both_sides(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    adapter = factory.lora_adapter(tmp_path, base, scale=0.3)
    opened(base, adapter, dtype=dtype)
    right = streams.SharedStreams._adding

    def skipping(self: Any, part: Any) -> Any:
        hook = right(self, part)
        skipped = part.module.endswith("layers.1.mlp.down_proj")
        return lambda *a: None if skipped and self._pass.side == "pair" else hook(*a)

    monkeypatch.setattr(streams.SharedStreams, "_adding", skipping)
    with pytest.raises(CertificateError, match="between the pass of both sides and one of its own"):
        opened(base, adapter, dtype=dtype)


def test_a_module_left_out_unmerged(
    base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = streams.SharedStreams._adding

    def skipping(self: Any, part: Any) -> Any:
        hook = right(self, part)
        skipped = part.module.endswith("layers.1.mlp.down_proj")
        return lambda *a: None if skipped and self._pass.side != "merged" else hook(*a)

    monkeypatch.setattr(streams.SharedStreams, "_adding", skipping)
    with pytest.raises(CertificateError, match="with ΔW beside them by"):
        opened(base, adapter)


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_a_strong_adapter_is_not_refused(base: Path, tmp_path: Path, scale: float) -> None:
    pair = opened(base, factory.lora_adapter(tmp_path, base, scale=scale))
    assert checks(pair.certificate)["merged_equals_unmerged"]


def test_a_masked_vocabulary(base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = hf_open.load_model

    def masking(*args: Any) -> torch.nn.Module:
        model = load(*args)
        mask = torch.zeros(300)
        mask[[5, 280]] = -torch.inf
        model.lm_head.register_forward_hook(lambda _m, _a, out: out + mask)
        return model

    monkeypatch.setattr(hf_open, "load_model", masking)
    assert checks(opened(base, adapter).certificate)["packed_equals_single"]
    inf, x = torch.inf, torch.zeros(2, 4)
    assert rms(torch.tensor([[1.0, -inf]]), torch.tensor([[3.0, -inf, 7.0]])) == 2**0.5
    assert rms(x, x + torch.tensor([0, 0, 0, -inf])) == inf
    assert np.isnan(rms(x, x + torch.tensor([0, 0, 0, torch.nan])))


def test_a_tied_head_changes_on_merging(tmp_path: Path) -> None:
    base = factory.tiny_model(tmp_path / "base", "llama", tie=True)
    head = factory.lora_adapter(tmp_path / "adapter", base, targets=["lm_head"], scale=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft advises ensure_weight_tying
        merged = factory.merged_model(tmp_path / "merged", base, head)
    apart, together = opened(base, head), opened(base, merged)
    items = apart.encode([Item("a", text="the quick brown fox")], None, False)
    (one,), (other,) = (list(pair.score(items)) for pair in (apart, together))
    # one tensor serves as embedding and head: merged, the change reaches both or neither
    floor = apart.noise_floor(items)["kl_base_tuned"]
    assert abs(one.kl_base_tuned.mean() - other.kl_base_tuned.mean()) > 1e3 * floor
    assert checks(apart.certificate)["merged_equals_unmerged"] is None


def without_its_head(folder: Path, base: Path) -> Path:
    """An untied model as a careless merge saves it: tied, and its own head dropped."""
    shutil.copytree(base, folder)
    factory.edit_json(folder / "config.json", tie_word_embeddings=True)
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_head_lost_on_merging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = factory.tiny_model(tmp_path / "base", "llama", tie=False)
    lost = without_its_head(tmp_path / "lost", base)
    for one, other, who in ((base, lost, "tuned"), (lost, base, "base")):
        certificate = opened(one, other).certificate
        assert not certificate.weights_equal
        assert checks(certificate)["logits_differ"]
        detail = next(c.detail for c in certificate.checks if c.name == "shapes_fit")
        assert detail.endswith(f"; {who} alone ties its output head to its embedding")
        (_, _, certificate), geometry = certify_files(one, other, "model")
        assert not certificate.weights_equal
        assert [p.name for p in geometry.modules if p.frobenius] == ["lm_head.weight"]

    # a comparison that walks the tuned side's own parameters misses it: the logits do not
    def walk(base: torch.nn.Module, tuned: torch.nn.Module) -> list[str]:
        theirs = dict(base.named_parameters())
        return [n for n, p in tuned.named_parameters() if not torch.equal(theirs[n], p)]

    monkeypatch.setattr(hf_open, "share_equal_tensors", walk)
    with pytest.raises(CertificateError, match=r"Every weight is equal.*logits differ by"):
        opened(base, lost)


# --- the base


@pytest.mark.parametrize("how", ["_shared", "_two_models"])
def test_a_base_changed_by_loading(
    base: Path, adapter: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    right: Callable[..., Any] = getattr(hf_open, how)

    def spoiling(model: torch.nn.Module, other: Any) -> Any:
        found = right(model, other)
        with torch.no_grad():
            next(p for n, p in model.named_parameters() if "down_proj" in n).mul_(1.001)
        return found

    monkeypatch.setattr(hf_open, how, spoiling)
    with pytest.raises(CertificateError, match="changed the base model's own logits"):
        opened(base, adapter if how == "_shared" else tuned)


@pytest.mark.parametrize("moved", [False, True])
def test_saved_embeddings_of_a_new_size(tmp_path: Path, base: Path, moved: bool) -> None:
    # peft loads them over the base's own: harmless where the common rows are equal, else refused
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(305, mean_resizing=False)
    if moved:
        with torch.no_grad():
            model.get_input_embeddings().weight[:300] *= 1.01
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(tmp_path, save_embedding_layers=True)
    if moved:
        with pytest.raises(TunediffError, match="changed the base model's own logits"):
            opened(base, tmp_path)
    else:
        assert checks(opened(base, tmp_path).certificate)["base_unchanged"]


def test_another_base(base: Path, adapter: Path, tuned: Path, tmp_path: Path) -> None:
    wide = factory.tiny_model(tmp_path / "wide", "llama", hidden=64)
    with pytest.raises(AdapterError, match="do not fit"):
        opened(wide, adapter)
    with pytest.raises(PairError, match=r"not a derivative of the base: .*hidden_size"):
        opened(wide, tuned)
    other = factory.tiny_model(tmp_path / "mistral", "mistral")
    with pytest.raises(PairError, match="not a derivative"):
        opened(other, tuned)


def test_base_against_itself(base: Path) -> None:
    pair = opened(base, base)
    assert pair.certificate.weights_equal
    assert checks(pair.certificate)["weights_differ"] is False


# --- dropout


def test_dropout_left_on(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = factory.lora_adapter(tmp_path / "dora", base, dora=True)
    factory.edit_json(folder / "adapter_config.json", lora_dropout=0.3)
    opened(base, folder)  # in eval mode it is off, and all is well
    from peft import PeftModel

    monkeypatch.setattr(PeftModel, "eval", PeftModel.train)
    with pytest.raises(CertificateError, match="Two identical passes gave different logits"):
        opened(base, folder)


def test_dropout_left_on_in_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = factory.tiny_model(tmp_path / "base", "gpt2")  # GPT-2's default is a dropout of 0.1
    adapter = factory.lora_adapter(tmp_path / "adapter", base)
    load = hf_open.load_model

    def one_module_on(*args: Any) -> torch.nn.Module:
        model = load(*args)
        model.get_submodule("transformer.h.1.mlp.dropout").train()
        return model

    monkeypatch.setattr(hf_open, "load_model", one_module_on)
    with pytest.raises(CertificateError, match="Two identical passes gave different logits"):
        opened(base, adapter)


# --- packing, positions and the head


def test_texts_that_see_each_other(
    base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = streams.attention.packed

    @contextmanager
    def leaking(bounds: tuple[tuple[int, int], ...]) -> Iterator[None]:
        with right(((0, bounds[-1][1]),)):
            yield

    monkeypatch.setattr(streams.attention, "packed", leaking)
    with pytest.raises(CertificateError, match=f"The base model's {PACKED}"):
        opened(base, adapter)


def test_positions_that_run_on(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # learnt positions: rotary ones would not notice, since only distances count
    gpt2 = factory.tiny_model(tmp_path / "base", "gpt2")
    adapter = factory.lora_adapter(tmp_path / "adapter", gpt2)
    right = Pack.of

    def running(texts: Any, device: Any) -> Pack:
        pack = right(texts, device)
        return replace(pack, positions=torch.arange(len(pack.ids)))

    monkeypatch.setattr(Pack, "of", staticmethod(running))
    with pytest.raises(CertificateError, match=PACKED):
        opened(gpt2, adapter)


def test_a_leak_in_the_tuned_model_alone(
    base: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = streams.run_backbone
    first: list[torch.nn.Module] = []

    def leaking(model: torch.nn.Module, pack: Pack) -> torch.Tensor:
        first[:] = first or [model]
        bounds = pack.bounds if model is first[0] else ((0, len(pack.ids)),)
        return right(model, replace(pack, bounds=bounds))

    monkeypatch.setattr(streams, "run_backbone", leaking)
    with pytest.raises(CertificateError, match=f"The tuned model's {PACKED}"):
        opened(base, tuned)


@pytest.mark.parametrize(
    ("architecture", "scale"), [("granite", "logits_scaling"), ("cohere", "logit_scale")]
)
def test_a_head_that_is_not_the_models_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, scale: str
) -> None:
    base = factory.tiny_model(tmp_path / "base", architecture)
    factory.edit_json(base / "config.json", **{scale: 3.0})
    adapter = factory.lora_adapter(tmp_path / "adapter", base, targets=["q_proj", "down_proj"])
    opened(base, adapter)  # with its scale
    right = streams.Head.__init__

    def unscaled(self: streams.Head, model: torch.nn.Module) -> None:
        right(self, model)
        self.factor = 1.0

    monkeypatch.setattr(streams.Head, "__init__", unscaled)
    with pytest.raises(CertificateError, match=PACKED):
        opened(base, adapter)


def test_a_softcap_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = factory.tiny_model(tmp_path / "base", "gemma2")
    adapter = factory.lora_adapter(tmp_path / "adapter", base)
    right = streams.Head.__init__

    def uncapped(self: streams.Head, model: torch.nn.Module) -> None:
        right(self, model)
        self.softcap = None

    monkeypatch.setattr(streams.Head, "__init__", uncapped)
    with pytest.raises(CertificateError, match=PACKED):
        opened(base, adapter)


# --- files


def test_nothing_stands_in_for_what_cannot_be_opened(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="There is no folder"):
        opened(base, tmp_path / "nowhere")
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in adapter.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = broken / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(TunediffError, match="adapter_model"):
        opened(base, broken)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(base: Path, tuned: Path, tmp_path: Path, value: float) -> None:
    for file in tuned.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(NumericsError, match=r"layers\.1\.mlp\.up_proj\.weight holds NaN or inf"):
        opened(base, tmp_path)


def test_a_checkpoint_that_lacks_a_tensor(base: Path, tuned: Path, tmp_path: Path) -> None:
    for file in tuned.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks weights") as error:
        opened(base, tmp_path)
    assert "random numbers" in error.value.hint


def test_both_sides_have_the_dtype_asked_for(base: Path, tmp_path: Path) -> None:
    half = factory.tiny_model(tmp_path / "half", "llama", dtype="bfloat16")
    for dtype in ("float32", "bfloat16"):
        pair = opened(half, base, dtype=dtype)
        assert pair.settings["dtype"] == dtype
        for model in pair.engine.streams._models.values():  # type: ignore[attr-defined]
            assert {str(p.dtype) for p in model.parameters()} == {f"torch.{dtype}"}


# --- the rule itself

GOOD = Probe(1e-6, 2e-7, True, True, 0.1, merged=3e-7, tuned_packed=1e-7)


def certified(
    probe: Probe,
    kind: str = "lora",
    *,
    change: float | None = 0.1,
    weights_equal: bool = False,
    resolution: float = 1e-7,
) -> Certificate:
    return certify(
        kind,
        (),
        probe,
        weights_equal=weights_equal,
        relative_change=lambda: change,
        resolution=resolution,
    )


def test_a_good_probe_passes() -> None:
    assert all(checks(certified(GOOD)).values())


@pytest.mark.parametrize(
    "fault",
    [
        {"unchanged": False},
        {"repeated": False},
        {"packed": 1.1e-5},
        {"packed": float("nan")},
        {"tuned_packed": 1.1e-5},
        {"tuned_packed": float("nan")},
        {"difference": 0.0},
        {"merged": 1.1e-5},
        {"merged": float("nan")},
        {"alone": 1.1e-5},
        {"alone": float("nan")},
    ],
    ids=str,
)
def test_each_fault_is_refused(fault: dict[str, Any]) -> None:
    with pytest.raises(CertificateError):
        certified(replace(GOOD, **fault))


def test_equal_weights_have_equal_logits() -> None:
    with pytest.raises(CertificateError, match="logits differ by 1e-09"):
        certified(replace(GOOD, difference=1e-9), "full", weights_equal=True)
    # an adapter of nothing may round, and no more
    assert certified(replace(GOOD, difference=1e-9), weights_equal=True).weights_equal
    with pytest.raises(CertificateError, match=r"logits differ by 0.1"):
        certified(GOOD, weights_equal=True)


def test_what_may_have_equal_logits() -> None:
    still = replace(GOOD, difference=0.0)
    assert certified(still, weights_equal=True).weights_equal
    assert certified(still, change=9e-8).warnings
    assert checks(certified(still, "full"))["logits_differ"] is False
    with pytest.raises(CertificateError):
        certified(still, "lora (switched)", change=None)
