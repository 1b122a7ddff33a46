"""Is every bad input a clear error with a way out, exit code 2, and nothing half-written?

End to end, by the command; what the parts say on their own is tested beside them.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import factory
from command import Said, check, process

PROMPT = ("--prompt", "the quick brown fox jumps over a lazy dog")
ADAPTER, WEIGHTS = "adapter_model.safetensors", "model.safetensors"
Edit = Callable[[Path], Any]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.tiny_model(tmp_path_factory.mktemp("bad") / "base")


@pytest.fixture(scope="module")
def lora(base: Path) -> Path:
    return factory.lora_adapter(base.parent / "lora", base)


@pytest.fixture(scope="module")
def full(base: Path) -> Path:
    return factory.full_finetune(base.parent / "full", base)


def refused(*arguments: Any, out: Path | None = None) -> dict[str, str]:
    """The error, the same with and without texts for what files alone can show; no traces."""
    more = () if out is None else ("--out", out)
    error = check(*arguments, "--json", *more).error
    if out is not None:
        assert not out.exists(), "a refused check left something behind"
    plain = check(*arguments, *more)
    assert (plain.code, plain.out) == (2, "")
    shown = plain.err.replace("\ufffd", "")
    assert shown.startswith("Error: ")
    assert "Traceback" not in shown
    return error


def tensors(file: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """Change the tensors of a safetensors file in place."""
    found = load_file(file)
    save_file(change(found) or found, file, metadata={"format": "pt"})


def each(part: str, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    """The edit of an adapter that changes the first tensor with this in its name."""

    def edit(folder: Path) -> None:
        def first(found: dict[str, np.ndarray]) -> None:
            name = next(key for key in sorted(found) if part in key)
            found[name] = np.ascontiguousarray(change(found[name]))

        tensors(folder / ADAPTER, first)

    return edit


def poisoned(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(x: np.ndarray) -> np.ndarray:
        x = x.copy()
        x.flat[3] = value
        return x

    return change


def config(**changes: Any) -> Edit:
    return lambda folder: factory.edit_json(folder / "adapter_config.json", **changes)


def renamed(folder: Path) -> None:
    tensors(folder / ADAPTER, lambda t: {k.replace("q_proj", "qq_proj"): v for k, v in t.items()})


def dropped(folder: Path) -> None:
    tensors(folder / ADAPTER, lambda t: {k: t[k] for k in sorted(t)[1:]})


def added(folder: Path) -> None:
    extra = {"base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": np.ones((4, 48))}
    tensors(folder / ADAPTER, lambda t: {**t, **extra})


def pickled(folder: Path) -> None:
    (folder / ADAPTER).rename(folder / "adapter_model.bin")


def linked(name: str) -> Edit:
    def edit(folder: Path) -> None:
        outside = folder.parent / f"outside-{name}"
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return edit


def torn(folder: Path) -> None:
    file = folder / ADAPTER
    file.write_bytes(file.read_bytes()[:-100])


def pointer(folder: Path) -> None:
    (folder / ADAPTER).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


def lying_header(folder: Path) -> None:
    """A header that claims more than the whole disk holds."""
    (folder / ADAPTER).write_bytes(struct.pack("<Q", 2**60) + b"{}")


BAD_ADAPTERS: dict[str, tuple[Edit, str, str]] = {
    "missing tensor": (dropped, "1 missing", "Save the adapter again"),
    "renamed tensors": (renamed, "modules that the base does not have", "Give the base"),
    "extra tensors": (added, "modules that the base does not have", "Give the base"),
    "wrong shape": (each("lora_A", lambda x: x[:, 1:]), "tensors do not fit", "Give the base"),
    "wrong rank": (config(r=5), "tensors do not fit", "Give the base"),
    "NaN": (each("lora_B", poisoned(np.nan)), "holds NaN or infinity", "use another adapter"),
    "infinity": (each("lora_A", poisoned(np.inf)), "holds NaN or infinity", "another adapter"),
    "rank beyond the cap": (config(r=10**6), "a rank of 1,000,000 is asked for; the cap is", ""),
    "pickled": (pickled, "only as adapter_model.bin, a format that can run code", "convert it"),
    "weights linked": (linked(ADAPTER), "is a link that leaves its folder", "Replace the link"),
    "settings linked": (linked("adapter_config.json"), "is a link that leaves its folder", "Repl"),
    "torn file": (torn, "but its header speaks of", "partial download"),
    "lfs pointer": (pointer, "is not a safetensors file", "git-lfs pointer"),
    "lying header": (lying_header, "is not a safetensors file", "partial download"),
    "r is text": (config(r="8"), "r is '8'; a positive integer was needed.", "Restore the file"),
    "r is true": (config(r=True), "r is True; a positive integer was needed.", "Restore the file"),
    "alpha is NaN": (
        lambda f: (f / "adapter_config.json").write_text('{"peft_type":"LORA","lora_alpha":NaN}'),
        "is not valid JSON: NaN is not JSON",
        "",
    ),
    "targets are a number": (config(target_modules=7), "target_modules is 7; a string or", "Rest"),
    "config is a list": (
        lambda folder: (folder / "adapter_config.json").write_text("[]"),
        "holds a JSON list; an object was needed.",
        "",
    ),
    "peft_type": (config(peft_type="IA3"), "peft_type is 'IA3'; only LORA is supported", "Merge"),
    "task_type": (config(task_type="SEQ_CLS"), "task_type is 'SEQ_CLS'; only CAUSAL_LM", "causal"),
    "PiSSA": (config(init_lora_weights="pissa"), "init_lora_weights is 'pissa'", "plain LoRA"),
    "unknown field": (config(use_new_thing=True), "use_new_thing is True, a field that", "Remove"),
}


@pytest.mark.parametrize("texts", [PROMPT, ()], ids=["with a text", "weights alone"])
@pytest.mark.parametrize("fault", BAD_ADAPTERS)
def test_bad_adapters(
    base: Path, lora: Path, tmp_path: Path, fault: str, texts: tuple[str, ...]
) -> None:
    edit, message, hint = BAD_ADAPTERS[fault]
    bad = Path(shutil.copytree(lora, tmp_path / "adapter"))
    edit(bad)
    error = refused(base, bad, *texts, out=tmp_path / "run" if texts else None)
    assert message in error["message"]
    assert hint in error["hint"]
    assert error["code"] in ("adapter", "unsupported")


def test_a_file_beyond_the_cap(
    base: Path, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunediff.pair.adapter.FILE_BYTES_CAP", 1000)
    assert "bytes; at most 1,000 are read." in refused(base, lora, *PROMPT)["message"]


def test_task_type_may_be_null(base: Path, lora: Path, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(lora, tmp_path / "adapter"))
    config(task_type=None)(adapter)
    assert check(base, adapter, *PROMPT).code == 0


@pytest.mark.parametrize("texts", [PROMPT, ()], ids=["with a text", "weights alone"])
@pytest.mark.parametrize(
    "other", [{"hidden": 64}, {"architecture": "gpt2"}, {"layers": 2}], ids=lambda x: str(x)
)
def test_an_adapter_or_a_model_of_another_base(
    base: Path, lora: Path, full: Path, tmp_path: Path, other: dict[str, Any], texts: tuple[str]
) -> None:
    strange = factory.tiny_model(tmp_path / "other", **other)
    error = refused(strange, lora, *texts)
    assert error["code"] == "adapter"
    assert "base" in error["message"]
    error = refused(strange, full, *texts)
    assert error["code"] == "pair"
    assert "is not a derivative of" in error["message"]
    assert error["hint"] == "Give the base that it was tuned from."


# models


def model_config(**changes: Any) -> Edit:
    return lambda folder: factory.edit_json(folder / "config.json", **changes)


def model_tensor(change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    def edit(folder: Path) -> None:
        def inner(found: dict[str, np.ndarray]) -> None:
            name = "model.layers.1.mlp.up_proj.weight"
            found[name] = np.ascontiguousarray(change(found[name]))

        tensors(folder / WEIGHTS, inner)

    return edit


def without_a_layer(folder: Path) -> None:
    tensors(folder / WEIGHTS, lambda t: {k: v for k, v in t.items() if "layers.1.mlp" not in k})


def quantised(method: str) -> Edit:
    return model_config(quantization_config={"quant_method": method, "bits": 4})


BAD_MODELS: dict[str, tuple[Edit, str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "is not a model folder: it has no conf"),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{"), "is not valid JSON"),
    "hidden_size is text": (model_config(hidden_size="48"), "hidden_size is '48'; a positive int"),
    "vocab_size is 0": (model_config(vocab_size=0), "vocab_size is 0; a positive integer"),
    "rope is a list": (model_config(rope_parameters=[]), "rope_parameters is []; an object"),
    "model_type is 7": (model_config(model_type=7), "model_type is 7; a string was needed."),
    "NaN": (model_tensor(poisoned(np.nan)), "NaN or infinity"),
    "infinity": (model_tensor(poisoned(-np.inf)), "NaN or infinity"),
    "torn file": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-8]),
        "but its header speaks of",
    ),
    "weights linked": (linked(WEIGHTS), "is a link that leaves its folder"),
    "tokenizer linked": (linked("tokenizer.json"), "is a link that leaves its folder"),
    "pickled": (
        lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"),
        "holds weights only as pytorch_model.bin, a format that can run code",
    ),
    **{
        method: (quantised(method), f"is quantised ({method}); tunediff does not read such")
        for method in ("gptq", "awq", "bitsandbytes")
    },
}


@pytest.mark.parametrize("texts", [PROMPT, ()], ids=["with a text", "weights alone"])
@pytest.mark.parametrize("side", ["base", "tuned"])
@pytest.mark.parametrize("fault", BAD_MODELS)
def test_bad_models(
    base: Path, full: Path, tmp_path: Path, fault: str, side: str, texts: tuple[str, ...]
) -> None:
    edit, message = BAD_MODELS[fault]
    bad = Path(shutil.copytree(base if side == "base" else full, tmp_path / "model"))
    edit(bad)
    pair = (bad, full) if side == "base" else (base, bad)
    error = refused(*pair, *texts, out=tmp_path / "run" if texts else None)
    assert message in error["message"]
    assert str(bad) in error["message"]
    assert error["hint"] or "JSON" in message


@pytest.mark.parametrize("side", ["base", "tuned"])
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without_a_layer, "lacks weights or has misshapen ones"),
        (model_tensor(lambda x: x[:, 1:]), ""),
        (model_config(model_type="neverheard"), "could not be loaded by transformers"),
        (model_config(auto_map={"AutoModelForCausalLM": "evil.Model"}), "brings its own model cod"),
        (model_config(is_encoder_decoder=True), "is an encoder-decoder model"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "has no tokenizer that transformers"),
    ],
)
def test_models_that_cannot_be_loaded(
    base: Path, full: Path, tmp_path: Path, side: str, edit: Edit, message: str
) -> None:
    bad = Path(shutil.copytree(base if side == "base" else full, tmp_path / "model"))
    edit(bad)
    pair = (bad, full) if side == "base" else (base, bad)
    error = refused(*pair, *PROMPT, out=tmp_path / "run")
    assert message in error["message"]
    assert error["hint"]


def test_a_quantised_base_of_an_adapter(base: Path, lora: Path, tmp_path: Path) -> None:
    bad = Path(shutil.copytree(base, tmp_path / "model"))
    quantised("gptq")(bad)
    for texts in (PROMPT, ()):
        assert "gptq" in refused(bad, lora, *texts)["message"]


# paths


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("/no/such/folder", "There is no folder /no/such/folder.", "Give the path of a model"),
        ("./nothing", "There is no folder ./nothing.", "on the hub a name has its owner"),
        ("owner/name-that-is-not-here", "nor in the hub's local cache", "--download"),
        ("~nobody-of-this-name/x", "cannot be looked at", "Check the path."),
        ("a" * 5000, "cannot be looked at", "Check the path."),
        ("{here}", "is neither a model folder nor an adapter folder", "save_pretrained"),
        ("{here}/file", "is a file; a folder was needed.", "Give the folder that holds it."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("side", ["base", "tuned"])
def test_paths_that_lead_nowhere(
    base: Path, lora: Path, tmp_path: Path, side: str, path: str, message: str, hint: str
) -> None:
    (tmp_path / "file").write_text("")
    path = path.format(here=tmp_path)
    pair = (path, lora) if side == "base" else (base, path)
    for texts in (PROMPT, ()):
        error = refused(*pair, *texts)
        assert message in error["message"]
        assert hint in error["hint"]
        assert error["code"] == "model"


def test_a_folder_that_holds_both(base: Path, full: Path, lora: Path, tmp_path: Path) -> None:
    both = Path(shutil.copytree(full, tmp_path / "both"))
    for name in ("adapter_config.json", ADAPTER):
        shutil.copy(lora / name, both / name)
    error = refused(base, both, *PROMPT)
    assert "holds full weights and an adapter; it is not clear which is meant" in error["message"]
    assert error["hint"] == (
        f"Say adapter:{both} for base plus adapter, or full:{both} for the full weights."
    )
    for prefix, alone in (("adapter", lora), ("full", full)):
        named = check(base, f"{prefix}:{both}", *PROMPT, "--json").json
        assert named["metrics"] == check(base, alone, *PROMPT, "--json").json["metrics"]
        # such a folder as the base is its full weights alone
        swapped = check(both, f"{prefix}:{both}", *PROMPT, "--json").json
        assert swapped["metrics"] == check(full, alone, *PROMPT, "--json").json["metrics"]
    wrong = refused(base, f"full:{lora}", *PROMPT)
    assert "holds no model, though the prefix says so" in wrong["message"]
    swapped = refused(lora, base, *PROMPT)
    assert swapped["message"] == f"{lora} is an adapter, and BASE must be a model."
    assert swapped["hint"] == "BASE comes first, then the adapter."


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "meta", "cpu:x"])
def test_devices_that_are_not_there(base: Path, lora: Path, device: str) -> None:
    error = refused(base, lora, *PROMPT, "--device", device)
    assert f"The device '{device}' is not available" in error["message"]
    assert error["hint"] == "Use --device cpu, or leave it to auto."


# texts


def jsonl(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


FOUND = "has nothing to ask (columns found: 'Q', 'A')."
NEEDED = "Give each row one of: text; prompt and reply"
LONG = "word " * 300
BAD_TEXTS: dict[str, tuple[str, bytes, str, str]] = {
    "empty file": ("t.txt", b"", "t.txt is empty", "Give at least one text."),
    "blank file": ("t.txt", b" \n\n", "t.txt is empty", "Give at least one text."),
    "empty text": ("t.jsonl", jsonl({"text": "a b"}, {"text": ""}), ":2: text is empty;", ""),
    "blank text": ("t.jsonl", jsonl({"text": " \n"}), ":1: text is only white space", "Fill"),
    "empty reply": ("t.jsonl", jsonl({"prompt": "a", "reply": ""}), "t.jsonl:1", ""),
    "invalid UTF-8": ("t.txt", b"fine\nnot \xff fine", "t.txt:2 is not UTF-8: byte 0xff", "Save"),
    "UTF-16": ("t.txt", "hello".encode("utf-16"), "t.txt:1 is not UTF-8", "begins like UTF-16"),
    "duplicate ids": (
        "t.jsonl",
        jsonl({"id": 1, "text": "a b"}, {"id": "1", "text": "c d"}),
        "The id '1' occurs twice: t.jsonl:1 and t.jsonl:2.",
        "an item without one is called by its row, counted from 0",
    ),
    "not JSON": ("t.jsonl", b"{text}\n", "t.jsonl:1", ""),
    "NaN": ("t.jsonl", b'{"text": "a", "id": NaN}\n', "t.jsonl:1", ""),
    "other columns of a CSV": ("t.csv", b"Q,A\na,b\n", f"t.csv:2 {FOUND}", NEEDED),
    "other columns of JSONL": ("t.jsonl", jsonl({"Q": "a", "A": "b"}), f":1 {FOUND}", NEEDED),
    "other columns of JSON": ("t.json", b'[{"Q": "a", "A": "b"}]', f":1 {FOUND}", NEEDED),
    "a list of texts": ("t.json", b'["a text"]', "t.json:1 holds 'a text'", '{"text": "…"}'),
    "a CSV of its header alone": ("t.csv", b"text\n", "t.csv is empty", "first line of a .csv"),
    "unknown kind": ("t.docx", b"x", "t.docx ends in '.docx'", "Give a file that ends in .txt"),
    "too long": ("t.jsonl", jsonl({"text": LONG}), "at most 256 fit", "--allow-truncation"),
    "messages without a template": (
        "t.jsonl",
        jsonl({"messages": [{"role": role, "content": "a"} for role in ("user", "assistant")]}),
        "template",
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_TEXTS)
def test_bad_texts(base: Path, lora: Path, tmp_path: Path, fault: str) -> None:
    name, content, message, hint = BAD_TEXTS[fault]
    (tmp_path / name).write_bytes(content)
    error = refused(base, lora, "--texts", tmp_path / name, out=tmp_path / "run")
    assert message in error["message"]
    assert hint in error["hint"]


def test_no_text_file(base: Path, lora: Path, tmp_path: Path) -> None:
    error = refused(base, lora, "--texts", tmp_path / "t.txt")
    assert f"There is no file {tmp_path / 't.txt'}." in error["message"]
    assert (
        "is a folder, and a file was needed"
        in (refused(base, lora, "--texts", tmp_path)["message"])
    )


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "prompt 1: text is empty; there is nothing to score."),
        ("  ", "prompt 1: text is only white space"),
        ("\udcff", "half of a surrogate pair"),
    ],
)
def test_bad_prompts(base: Path, lora: Path, prompt: str, message: str) -> None:
    assert message in refused(base, lora, "--prompt", prompt)["message"]


def test_a_text_without_a_scored_position(tmp_path: Path) -> None:
    base = factory.tiny_model(tmp_path / "base", add_bos=False)
    lora = factory.lora_adapter(tmp_path / "lora", base)
    error = refused(base, lora, "--prompt", "x", out=tmp_path / "run")
    assert "has no scored position: 1 token, none of them" in error["message"]
    assert "Give a longer text" in error["hint"]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_text_beyond_the_context(tmp_path: Path, architecture: str) -> None:
    """Whatever --max-length says, a model never reads more than its context."""
    base = factory.tiny_model(tmp_path / "base", architecture, max_positions=32)
    lora = factory.lora_adapter(tmp_path / "lora", base)
    for more in ((), ("--max-length", "5000")):
        error = refused(base, lora, "--prompt", LONG, *more)
        assert "Item 'prompt-1' (prompt 1) has " in error["message"]
        assert "at most 32 fit." in error["message"]
        cut = check(base, lora, "--prompt", LONG, *more, "--allow-truncation", "--json").json
        assert cut["tokens"] == 31
        assert cut["truncated"]["items"] == 1
    error = refused(base, lora, "--prompt", LONG, "--max-length", "8")
    assert "at most 8 fit." in error["message"]


# the disk

LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
"""


@pytest.mark.parametrize("size", [0, 1000, 5000])
def test_a_full_disk(tmp_path: Path, size: int) -> None:
    run = tmp_path / "run"
    texts = [x for text in factory.texts(8) for x in ("--prompt", text)]
    ask = ("check", "toy", "toy:0.5", *texts, "--out", run)
    said = process(*ask, "--json", before=LIMITED.format(size=size))
    error = said.error
    assert error["code"] == "run"
    assert f"There is no room left to write {run}" in error["message"]
    assert "Free some space" in error["hint"]
    assert said.err == ""
    half = [p.name for p in run.rglob("*") if p.name.endswith(".tmp")]
    assert half == []
    done: Said = check(*ask[1:], "--json")  # the disk has room again
    assert done.json["verdict"] == "tuned"


@pytest.mark.long
def test_a_full_disk_with_a_real_pair(base: Path, lora: Path, tmp_path: Path) -> None:
    ask = ("check", base, lora, *PROMPT, "--json")
    said = process(*ask, before=LIMITED.format(size=1000), env={"TMPDIR": str(tmp_path)})
    assert "There is no room left to write" in said.error["message"]
    assert "Traceback" not in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    ask = ("toy", "toy:0.5", "--prompt", "hello", "--json", "--out")
    error = check(*ask, tmp_path).error
    assert f"{tmp_path} is not empty and not a run folder" in error["message"]
    assert os.listdir(tmp_path) == ["thesis.txt"]
    error = check(*ask, tmp_path / "thesis.txt").error
    assert "is a file; a run needs a folder" in error["message"]
    assert (tmp_path / "thesis.txt").read_text() == "precious"
