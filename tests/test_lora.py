"""Does the training loop train what it says, on what it says, the same way every time?"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunediff import specimens
from tunediff.errors import InputError, ModelError, NumericsError, UsageError
from tunediff.training import lora
from tunediff.training.lora import (
    IGNORED,
    SKILL_RECIPE,
    LoraRecipe,
    encode_rows,
    fit,
    train_lora,
)

ROWS = [
    (specimens.raw_prompt(f"Number {a} and {b}."), specimens.raw_reply(f"1. {a}\n2. {b}"))
    for a, b in (("sun", "moon"), ("tree", "river"), ("stone", "cloud"), ("lamp", "door"))
]
KEPT = [
    (specimens.raw_prompt(f"Reverse {a} and {b}."), specimens.raw_reply(f"{b} and {a}"))
    for a, b in (("boat", "hill"), ("rain", "snow"), ("wind", "fire"))
]
QUICK = LoraRecipe(rank=2, alpha=4, learning_rate=1e-2, steps=3, batch_size=2, seed=7)


def train(folder: Path, recipe: LoraRecipe = QUICK, rows=ROWS, **more):
    return train_lora(specimens.base(), rows, folder, **asdict(recipe), **more)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    train(tmp_path / "a")
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    train(tmp_path / "b")
    train(tmp_path / "c", replace(QUICK, seed=8))
    train(tmp_path / "d", keep=KEPT)
    train(tmp_path / "e", keep=KEPT)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "d") == files(tmp_path / "e")
    name = "adapter_model.safetensors"
    assert files(tmp_path / "a")[name] != files(tmp_path / "c")[name]
    assert files(tmp_path / "a")[name] != files(tmp_path / "d")[name]


def test_it_writes_peft_files_and_nothing_else(tmp_path: Path) -> None:
    result = train(tmp_path / "a")
    assert set(files(tmp_path / "a")) == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (2, 4, "LORA")
    assert config["target_modules"] == sorted(QUICK.target_modules)
    assert config["base_model_name_or_path"] == str(specimens.base())
    base = AutoModelForCausalLM.from_pretrained(specimens.base(), dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, str(tmp_path / "a"))
    loaded = {n: p for n, p in tuned.named_parameters() if "lora_" in n}
    saved = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert len(loaded) == len(saved) == 4 * 7 * 2
    for name, tensor in saved.items():
        assert torch.equal(tensor, loaded[name.replace(".weight", ".default.weight")])
    assert result.folder == tmp_path / "a"
    assert len(result.losses) == 3


def test_no_steps_save_the_untrained_adapter(tmp_path: Path) -> None:
    result = train(tmp_path / "a", replace(QUICK, steps=0))
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert all(t.any() == ("lora_A" in name) for name, t in tensors.items())
    assert result.losses == ()
    assert result.tokens == 0


def test_the_first_loss_is_the_base_nll_of_the_replies_and_their_end(tmp_path: Path) -> None:
    """Against a plain per-token loop in float64, one row at a time, with its own shift."""
    steps: list[tuple[int, float]] = []
    recipe = replace(QUICK, batch_size=len(ROWS), steps=1)
    result = train(tmp_path / "a", recipe, on_step=lambda step, loss: steps.append((step, loss)))
    tokenizer = AutoTokenizer.from_pretrained(specimens.base())
    model = AutoModelForCausalLM.from_pretrained(specimens.base(), dtype=torch.float64)
    sums = []
    for prompt, reply in ROWS:
        before = tokenizer(prompt)["input_ids"]
        ids = tokenizer(prompt + reply)["input_ids"] + [tokenizer.eos_token_id]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0].numpy()
        for t in range(len(before) - 1, len(ids) - 1):
            row = logits[t] - logits[t].max()
            sums.append(math.log(np.exp(row).sum()) - row[ids[t + 1]])
    assert result.tokens == len(sums)
    assert steps == [(1, result.losses[0])]
    assert result.losses[0] == pytest.approx(np.mean(sums), rel=1e-5)


def test_labels_end_with_the_end_token_and_score_the_reply_alone() -> None:
    tokenizer = AutoTokenizer.from_pretrained(specimens.base())
    for (prompt, reply), (ids, labels) in zip(ROWS, encode_rows(tokenizer, ROWS, 128), strict=True):
        assert ids[0] == tokenizer.bos_token_id
        assert ids[-1] == labels[-1] == tokenizer.eos_token_id
        scored = [label for label in labels if label != IGNORED]
        assert tokenizer.decode(scored[:-1]) == reply
        assert labels[-len(scored) :] == ids[-len(scored) :]
        assert tokenizer.decode(ids[1 : -len(scored)]) == prompt
    for ids, labels in encode_rows(tokenizer, ROWS, 128, "all"):
        assert labels == [IGNORED, *ids[1:]]


def test_it_learns(tmp_path: Path) -> None:
    losses = train(tmp_path / "a", replace(QUICK, steps=30, batch_size=4)).losses
    assert losses[-1] < 0.2 * losses[0]


def plain_logits(model, tokenizer, rows) -> tuple[np.ndarray, np.ndarray]:
    """Logits before each id of the replies and their ends, one row at a time; and those ids."""
    found, wanted = [], []
    for prompt, reply in rows:
        before = tokenizer(prompt)["input_ids"]
        ids = tokenizer(prompt + reply)["input_ids"] + [tokenizer.eos_token_id]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0].double().numpy()
        found.append(logits[len(before) - 1 : -1])
        wanted += ids[len(before) :]
    return np.concatenate(found), np.array(wanted)


def test_the_loss_of_kept_rows_is_the_squared_distance_from_the_logits_of_before() -> None:
    """The second step's loss, from the model that the first one left, by hand in float64."""
    tokenizer = AutoTokenizer.from_pretrained(specimens.base())
    encoded, kept = (encode_rows(tokenizer, rows, 128) for rows in (ROWS, KEPT))
    together = len(ROWS) + len(KEPT)
    first = AutoModelForCausalLM.from_pretrained(specimens.base(), dtype=torch.float32)
    second = AutoModelForCausalLM.from_pretrained(specimens.base(), dtype=torch.float32)
    untouched, _ = plain_logits(first, tokenizer, KEPT)
    (alone,), _ = fit(first, encoded, 1e-3, 1, together, 0, keep=kept, keep_weight=0.7)
    (again, loss), tokens = fit(second, encoded, 1e-3, 2, together, 0, keep=kept, keep_weight=0.7)
    z, wanted = plain_logits(first, tokenizer, ROWS)
    peak = z.max(axis=1)
    nll = np.log(np.exp(z - peak[:, None]).sum(axis=1)) + peak - z[np.arange(len(wanted)), wanted]
    moved, _ = plain_logits(first, tokenizer, KEPT)
    squares = ((moved - untouched) ** 2).mean()
    assert again == alone
    assert squares > 0.01
    assert loss == pytest.approx(nll.mean() + 0.7 * squares, rel=1e-4)
    assert tokens == 2 * len(wanted)  # of what is learnt alone


def test_kept_rows_keep_unlikely_tokens_where_the_same_rows_learnt_do_not(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(specimens.base())
    recipe = replace(QUICK, steps=30, batch_size=7)
    train(tmp_path / "kept", recipe, keep=KEPT)
    train(tmp_path / "learnt", recipe, [*ROWS, *KEPT])
    moved = {}
    for name in ("kept", "learnt"):
        base = AutoModelForCausalLM.from_pretrained(specimens.base(), dtype=torch.float32)
        before, _ = plain_logits(base, tokenizer, KEPT)
        after, _ = plain_logits(
            PeftModel.from_pretrained(base, str(tmp_path / name)), tokenizer, KEPT
        )
        moved[name] = ((after - before) ** 2).mean()
    assert moved["kept"] < 0.5 * moved["learnt"]


def test_a_loss_that_is_not_finite_stops_with_nothing_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = AutoModelForCausalLM.from_pretrained(specimens.base(), dtype=torch.float32)
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    loader = SimpleNamespace(from_pretrained=lambda *_, **__: model)
    monkeypatch.setattr(lora, "AutoModelForCausalLM", loader)
    with pytest.raises(NumericsError, match="The training loss became nan at step 1"):
        train(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_frozen_weight_stays_frozen() -> None:
    model = AutoModelForCausalLM.from_pretrained(specimens.base(), dtype=torch.float32)
    model.model.layers[0].requires_grad_(False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    encoded = encode_rows(AutoTokenizer.from_pretrained(specimens.base()), ROWS, 128)
    fit(model, encoded, 1e-3, 2, 2, 0)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (".layers.0." in name), name


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "There are no rows to train on"),
        ([*ROWS, ("Q: x\nA:", "")], "Row 5 has an empty reply"),
        ([("Q: x\nA:", " word" * 200)], "the model's context holds 128"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused(rows, message, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train(tmp_path / "a", rows=rows)
    assert not (tmp_path / "a").exists()


def test_a_tokenizer_without_an_end_token_is_refused() -> None:
    tokenizer = AutoTokenizer.from_pretrained(specimens.base())
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="The tokenizer names no end token"):
        encode_rows(tokenizer, ROWS, 128)


def test_a_base_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no base folder"):
        train_lora(tmp_path / "none", ROWS, tmp_path / "a", **asdict(QUICK))


def test_it_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "a")
    assert capfd.readouterr() == ("", "")


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Training got rank 0, batch size 2 and 3 steps"):
        train(tmp_path / "a", replace(QUICK, rank=0))
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="as the weight of rows to be kept"):
            train(tmp_path / "a", replace(QUICK, keep_weight=weight))


@pytest.mark.long
def test_the_skill_recipe_rebuilds_the_shipped_skill(tmp_path: Path) -> None:
    """Live, as the demo does it; on another machine the last bits may differ, the skill not."""
    learnt, kept = specimens.skill_rows()
    result = train(tmp_path / "a", SKILL_RECIPE, learnt, keep=kept)
    assert result.losses[-1] < 0.1
