"""Do both sides of a pair answer as transformers and peft would, whatever architecture and tuning?

The reference is plain: base loaded once, tuned once more (with peft's own adapter where there is
one), in float64, one text at a time, whole logits, and ``oracle.token_metrics`` over them.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import factory
import oracle
from tunediff.pair.hf import HfPair
from tunediff.pair.open import open_pair
from tunediff.scoring.floor import pooled
from tunediff.scoring.metrics import token_metrics
from tunediff.scoring.packs import Pack
from tunediff.scoring.streams import SeparateStreams, SharedStreams, SideName
from tunediff.values import TOKEN_METRICS, Encoded, Item, Scores

ALL = (*factory.ARCHITECTURES, *factory.MORE_ARCHITECTURES)
TEXTS = factory.texts(4, words=(4, 24))
# Relative to a metric's largest value; the reference itself takes norms and softmax in float32.
BOUND = 1e-4


@pytest.fixture(scope="session")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Tiny bases, each made once."""
    made: dict[str, Path] = {}

    def make(architecture: str, **how: Any) -> Path:
        key = f"{architecture} {sorted(how.items())}"
        if key not in made:
            folder = tmp_path_factory.mktemp(architecture)
            made[key] = factory.tiny_model(folder, architecture, **how)
        return made[key]

    return make


def load(folder: Path, dtype: torch.dtype = torch.float64) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", local_files_only=True
    ).eval()


def reference(
    base: Path, tuned: Path, items: Sequence[Encoded], rows: int | None = None
) -> list[dict[str, np.ndarray]]:
    """Every token metric of every item, the slow way."""
    from peft import PeftModel

    sides = []
    for folder in (base, tuned):
        if (folder / "adapter_config.json").exists():
            model = load(base)
            if rows is not None:
                model.resize_token_embeddings(rows, mean_resizing=False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = PeftModel.from_pretrained(model, folder).eval().double()
        else:
            model = load(folder)
        with torch.inference_mode():
            sides.append(
                [
                    model(input_ids=torch.from_numpy(i.ids)[None], use_cache=False).logits[0]
                    for i in items
                ]
            )
    found = []
    for item, z_b, z_t in zip(items, *sides, strict=True):
        v = min(z_b.shape[1], z_t.shape[1])
        at = item.scored
        found.append(
            oracle.token_metrics(z_b[at, :v].numpy(), z_t[at, :v].numpy(), item.ids[at + 1])
        )
    return found


def texts_of(pair: HfPair, texts: Sequence[str] = TEXTS) -> list[Encoded]:
    return pair.encode([Item(f"t{i}", text=text) for i, text in enumerate(texts)], None, False)


def worst(found: Sequence[Scores], true: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
    """The largest difference of each metric from the reference, relative to its largest value."""
    errors = {}
    for name in TOKEN_METRICS:
        ours = np.concatenate([getattr(scores, name) for scores in found])
        theirs = np.concatenate([table[name] for table in true])
        assert ours.shape == theirs.shape
        # delta_p is a difference of probabilities, each of which keeps its own digits
        size = np.exp(-true[0]["nll_base"]) if name == "delta_p" else theirs
        errors[name] = float(np.abs(ours - theirs).max() / (np.abs(size).max() or 1))
    return errors


def check(
    base: Path, tuned: Path, *, rows: int | None = None, texts: Sequence[str] = TEXTS
) -> HfPair:
    """Open and score a pair, compare every metric of every token, and return the pair."""
    pair = opened(base, tuned)
    items = texts_of(pair, texts)
    found = list(pair.score(items))
    assert [s.reason for s in found] == [None] * len(items)
    true = reference(base, tuned, items, rows)
    assert max(t["kl_base_tuned"].max() for t in true) > 1e-5, "too small a change to test"
    errors = worst(found, true)
    assert {name: error for name, error in errors.items() if not error < BOUND} == {}
    return pair


def opened(base: Path, tuned: Path, **how: Any) -> HfPair:
    pair = open_pair(base, tuned, device="cpu", **how)
    assert isinstance(pair, HfPair)
    return pair


def checks(pair: HfPair) -> dict[str, bool | None]:
    return {check.name: check.passed for check in pair.certificate.checks}


def packed_and_alone(pair: HfPair, side: SideName) -> dict[str, float]:
    """How far a side's logits of one text between two others are from those of the text alone."""
    streams = pair.engine.streams
    ids = [torch.from_numpy(item.ids) for item in texts_of(pair)[:3]]

    def logits(texts: list[torch.Tensor], place: int) -> torch.Tensor:
        pack = Pack.of(texts, streams.device)
        hidden = dict(zip(("base", "tuned"), streams.pair(pack), strict=True))[side]
        start, stop = pack.bounds[place]
        return streams.logits(hidden[start:stop], side).clone()

    table = token_metrics(logits(ids, 1)[:-1], logits([ids[1]], 0)[:-1], ids[1][1:]).numpy()
    return pooled(table, len(table))


@pytest.mark.parametrize("architecture", ALL)
def test_lora_on_every_projection(
    base_of: Callable[..., Path], tmp_path: Path, architecture: str
) -> None:
    base = base_of(architecture)
    pair = check(base, factory.lora_adapter(tmp_path, base))
    assert pair.certificate.kind == "lora"
    assert isinstance(pair.engine.streams, SharedStreams)
    assert pair.settings["first_doubled_layer"] == 0
    assert all(passed for passed in checks(pair).values())
    # packed between two neighbours as alone, within ten times the floor of this very run
    floor = pair.noise_floor(texts_of(pair))
    for side in ("base", "tuned"):
        for name, value in packed_and_alone(pair, side).items():
            assert value <= 10 * floor[name], (side, name)


@pytest.mark.parametrize("architecture", ALL)
def test_lora_on_one_layer_shares_those_below(
    base_of: Callable[..., Path], tmp_path: Path, architecture: str
) -> None:
    base = base_of(architecture)
    first, *others = factory.TARGETS[architecture]
    adapter = peft_adapter(
        tmp_path,
        base,
        layers_to_transform=[1],
        use_rslora=True,
        rank_pattern={first: 2},
        alpha_pattern={others[0]: 3},
    )
    pair = check(base, adapter)
    assert isinstance(pair.engine.streams, SharedStreams)
    assert pair.engine.streams.first_layer == 1


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_lora_on_the_head_alone(
    base_of: Callable[..., Path], tmp_path: Path, architecture: str, tie: bool
) -> None:
    base = base_of(architecture, tie=tie)
    adapter = peft_adapter(tmp_path, base, target_modules=["lm_head"], fan_in_fan_out=False)
    pair = check(base, adapter)
    if tie:  # what is merged into a tied head would move the embedding too: peft's own way
        assert pair.certificate.kind == "lora (switched)"
        return
    assert isinstance(pair.engine.streams, SharedStreams)
    assert pair.engine.streams.first_layer == 3
    pack = Pack.of([torch.arange(5)], torch.device("cpu"))
    h_b, h_t = pair.engine.streams.pair(pack)
    assert h_b.data_ptr() == h_t.data_ptr()


@pytest.mark.parametrize("architecture", ALL)
def test_a_merged_adapter(base_of: Callable[..., Path], tmp_path: Path, architecture: str) -> None:
    base = base_of(architecture)
    adapter = factory.lora_adapter(tmp_path / "adapter", base)
    pair = check(base, factory.merged_model(tmp_path / "merged", base, adapter))
    assert pair.certificate.kind == "full"
    assert isinstance(pair.engine.streams, SeparateStreams)
    # and the same as the adapter unmerged
    apart = opened(base, adapter)
    items = texts_of(pair)
    for one, other in zip(pair.score(items), apart.score(items), strict=True):
        np.testing.assert_allclose(one.kl_base_tuned, other.kl_base_tuned, rtol=1e-3)


@pytest.mark.parametrize("architecture", ALL)
def test_a_full_fine_tune_shares_what_is_equal(
    base_of: Callable[..., Path], tmp_path: Path, architecture: str
) -> None:
    base = base_of(architecture)
    pair = check(base, factory.full_finetune(tmp_path, base, which="some tensors"))
    models = pair.engine.streams._models  # type: ignore[attr-defined]
    tuned = dict(models["tuned"].named_parameters())
    shared, own = set(), set()
    for name, parameter in models["base"].named_parameters():
        equal = torch.equal(parameter, tuned[name])
        assert (parameter.data_ptr() == tuned[name].data_ptr()) == equal, name
        (shared if equal else own).add(name)
    assert own
    assert all(".2." in name for name in own)
    assert any("embed" in name or "wte" in name for name in shared)


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
def test_every_tensor_changed(
    base_of: Callable[..., Path], tmp_path: Path, architecture: str, tie: bool
) -> None:
    base = base_of(architecture, tie=tie)
    check(base, factory.full_finetune(tmp_path, base))


# --- what an added low-rank term cannot say


@pytest.mark.parametrize("architecture", ALL)
def test_dora(base_of: Callable[..., Path], tmp_path: Path, architecture: str) -> None:
    base = base_of(architecture)
    pair = check(base, factory.lora_adapter(tmp_path, base, dora=True))
    assert pair.certificate.kind == "lora (switched)"
    assert isinstance(pair.engine.streams, SeparateStreams)
    assert checks(pair)["merged_equals_unmerged"] is None


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_saved_modules(base_of: Callable[..., Path], tmp_path: Path, architecture: str) -> None:
    base = base_of(architecture, tie=False)
    pair = check(base, factory.lora_adapter(tmp_path, base, modules_to_save=["lm_head"]))
    assert pair.certificate.kind == "lora (switched)"


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
def test_adapted_embeddings(
    base_of: Callable[..., Path], tmp_path: Path, architecture: str
) -> None:
    base = base_of(architecture, tie=False)
    pair = check(base, factory.lora_adapter(tmp_path, base, embeddings=True))
    assert pair.certificate.kind == "lora (switched)"


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_a_lora_with_biases(
    base_of: Callable[..., Path], tmp_path: Path, architecture: str
) -> None:
    base = base_of(architecture)
    pair = check(base, peft_adapter(tmp_path, base, lora_bias=True))
    assert pair.certificate.kind == "lora (switched)"


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
def test_an_adapter_with_added_tokens(
    base_of: Callable[..., Path], tmp_path: Path, tie: bool
) -> None:
    base = base_of("llama", tie=tie)
    more = added_tokens(tmp_path / "more", base)
    adapter = peft_adapter(tmp_path / "adapter", more, save_embedding_layers=True)
    pair = check(base, adapter, rows=305)
    assert pair.engine.streams.vocabulary == 300


def test_a_tied_head_that_changed_gets_noise_too(
    base_of: Callable[..., Path], tmp_path: Path
) -> None:
    for tie in (True, False):
        base = base_of("llama", tie=tie)
        pair = opened(base, factory.full_finetune(tmp_path / str(tie), base))
        streams = pair.engine.streams
        assert isinstance(streams, SeparateStreams)
        head = streams._heads["base"].module
        assert streams._noisy.count(head) == 1


def test_a_full_fine_tune_with_added_tokens(base_of: Callable[..., Path], tmp_path: Path) -> None:
    base = base_of("llama", tie=False)
    more = added_tokens(tmp_path / "more", base)
    pair = check(base, factory.full_finetune(tmp_path / "tuned", more))
    assert pair.engine.streams.vocabulary == 300
    assert [w for w in pair.certificate.warnings if "common vocabulary" in w]
    text = Item("a", text="the <more> fox")
    (found,) = pair.encode([text], None, False)
    assert (found.ids < 272).all(), "read with base's tokenizer"


def added_tokens(folder: Path, base: Path) -> Path:
    """Base with five rows more and one token more in its tokenizer."""
    from transformers import AutoTokenizer

    model = load(base, torch.float32)
    model.resize_token_embeddings(305, mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(folder)
    return folder


def peft_adapter(
    folder: Path, base: Path, *, save_embedding_layers: bool = False, **config: Any
) -> Path:
    """An adapter of peft with any configuration, all of its tensors random."""
    from peft import LoraConfig, get_peft_model

    model = load(base, torch.float32)
    kind = model.config.model_type
    options = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": list(factory.TARGETS[kind]),
        "fan_in_fan_out": kind == "gpt2",
        "task_type": "CAUSAL_LM",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on tied heads
        tuned = get_peft_model(model, LoraConfig(**options | config))
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if "lora" in name:
                    parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        tuned.save_pretrained(folder, save_embedding_layers=save_embedding_layers)
    return folder


# --- what an architecture does to attention and logits


@pytest.mark.parametrize("architecture", ["mistral", "phi3", "gemma2"])
def test_a_window_shorter_than_a_text(
    base_of: Callable[..., Path], tmp_path: Path, architecture: str
) -> None:
    base = base_of(architecture, sliding_window=7)
    pair = check(base, factory.lora_adapter(tmp_path / "a", base))
    assert min(len(item.ids) for item in texts_of(pair)) > 7
    # the window matters: without it the same weights would answer otherwise
    wide = shutil.copytree(base, tmp_path / "wide")
    factory.edit_json(wide / "config.json", sliding_window=256)
    ids = texts_of(pair)[:1]
    (narrow,), (open_,) = (reference(folder, folder, ids) for folder in (base, wide))
    assert np.abs(narrow["nll_base"] - open_["nll_base"]).max() > 1e-3


def test_a_window_in_some_layers(base_of: Callable[..., Path], tmp_path: Path) -> None:
    base = shutil.copytree(base_of("qwen2"), tmp_path / "base")
    kinds = ["full_attention", "sliding_attention", "sliding_attention"]
    factory.edit_json(
        base / "config.json", use_sliding_window=True, sliding_window=5, layer_types=kinds
    )
    check(base, factory.lora_adapter(tmp_path / "a", base))


def test_softcaps_that_bite(base_of: Callable[..., Path], tmp_path: Path) -> None:
    base = shutil.copytree(base_of("gemma2"), tmp_path / "base")
    factory.edit_json(base / "config.json", final_logit_softcapping=1.5, attn_logit_softcapping=0.5)
    pair = check(base, factory.lora_adapter(tmp_path / "a", base))
    ids = texts_of(pair)[:1]
    (ours,), (loose,) = (reference(folder, folder, ids) for folder in (base, base_of("gemma2")))
    assert np.abs(ours["nll_base"] - loose["nll_base"]).max() > 1e-2


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_bfloat16_stays_within_its_own_floor(
    base_of: Callable[..., Path], tmp_path: Path, architecture: str
) -> None:
    base = base_of(architecture, dtype="bfloat16")
    adapter = factory.lora_adapter(tmp_path, base, scale=0.1)
    pair = opened(base, adapter, dtype="bfloat16")
    items = texts_of(pair)
    floor, found = pair.noise_floor(items), list(pair.score(items))
    true = reference(base, adapter, items)

    def means(name: str) -> tuple[float, float]:
        ours = np.concatenate([getattr(scores, name) for scores in found])
        return float(ours.mean()), float(np.concatenate([t[name] for t in true]).mean())

    for name in ("nll_base", "nll_tuned", "delta_p"):
        ours, theirs = means(name)
        assert abs(ours - theirs) <= 3 * floor[name], name
    for name in ("logit_mse", "kl_base_tuned", "js"):  # squares: their roots obey the triangle
        ours, theirs = means(name)
        assert abs(ours**0.5 - theirs**0.5) <= floor[name] ** 0.5, name
    full = opened(base, adapter)  # the same weights, computed in float32
    for name, value in full.noise_floor(items).items():
        if name != "top1_agreement":
            assert floor[name] > 100 * value, name


def test_a_real_adapter_for_gpt2(shared: Path, tmp_path: Path) -> None:
    base = gpt2_shaped(tmp_path)
    pair = check(base, shared / "models/gpt2-tigrinya-lora", texts=TEXTS[:2])
    assert isinstance(pair.engine.streams, SharedStreams)


def gpt2_shaped(folder: Path) -> Path:
    """A random model with GPT-2's layers and a small vocabulary."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=300, bos_token_id=0, eos_token_id=1))
    model.save_pretrained(folder)
    return factory.tiny_tokenizer(folder)
