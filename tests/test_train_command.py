"""What does ``tunediff train`` print, keep and refuse?"""

from __future__ import annotations

import importlib.util
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

import tunediff
from command import command
from factory import edit_json, lora_adapter, merged_model, texts, tiny_model
from training import write_rows
from tunediff import specimens
from tunediff.cli.train import _form
from tunediff.items.public import gsm8k
from tunediff.training.card import losses
from tunediff.training.forward import Forward

FILES = {
    "README.md", "adapter_config.json", "adapter_model.safetensors", "loss.svg", "recipe.toml",
    "training.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", texts(9, words=(1, 9)))


def strict(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not strict JSON")

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def test_an_adapter_with_all_that_belongs_to_it(tmp_path: Path, base: Path, rows: Path) -> None:
    out = tmp_path / "adapter"
    given = ("--steps", 6, "--rank", 2, "--held-out", 0.3, "--evaluate-every", 3)
    said = command("train", base, rows, "-o", out, *given)
    assert said.code == 0, said.err
    assert {path.name for path in out.iterdir()} == FILES
    report = strict(out / "training.json")
    assert report["settings"]["recipe"]["rank"] == 2
    assert len(report["losses"]) == report["steps"] == 6
    assert [x["step"] for x in report["held_out"]] == [0, 3, 6]
    assert (report["data"]["trained"], report["data"]["held_out"]) == (6, 3)
    assert report["parameters"]["adapter"] == 3 * 2 * (48 * 4 + 48 + 24 + 24 + 48)
    line = "Read 9 rows of rows.jsonl (prompt and response): 6 trained on, 3 held out, none dropped"
    assert line in " ".join(said.out.split())
    prose, _, asked = said.out.partition("\nKept in ")
    assert all(len(line) <= 80 for line in prose.splitlines())
    assert asked == f"{out}. Compare:\n  tunediff compare {base} {out}\n"
    root = ET.parse(out / "loss.svg").getroot()
    assert root.tag.endswith("svg")
    words = "".join(root.itertext())
    assert all(word in words for word in ("step", "loss, nats/token", "held-out rows"))
    card = (out / "README.md").read_text()
    first, last = report["held_out"][0]["loss"], report["held_out"][-1]["loss"]
    assert f"held out {first:.4f} before, {last:.4f} after." in card
    assert report["settings"]["base_fingerprint"][:16] in card
    config = strict(out / "adapter_config.json")
    assert config["base_model_name_or_path"] == str(base)
    assert list(config) == sorted(config)
    assert command("check", base, out, "--json").json["verdict"] == "weights_differ"

    before = {name: (out / name).read_bytes() for name in FILES}
    again = command("train", base, rows, "-o", out, *given, "--json")
    assert again.json == report
    assert "nothing was trained again" in again.err
    assert {name: (out / name).read_bytes() for name in FILES} == before


def test_options_win_over_the_recipe_s_file(tmp_path: Path, base: Path, rows: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('steps = 3\nrank = 3\ntarget_modules = ["up_proj"]\n')
    out = tmp_path / "a"
    said = command(
        "train", base, rows, "-o", out, "--recipe", recipe, "--rank", 2, "--target-modules",
        "q_proj,down_proj", "--alpha", 5, "--no-packing", "--keep-checkpoints",
        "--checkpoint-every", 1, "--json",
    )  # fmt: skip
    found = said.json["settings"]["recipe"]
    assert (found["steps"], found["rank"], found["alpha"], found["packing"]) == (3, 2, 5.0, False)
    assert found["target_modules"] == ["q_proj", "down_proj"]
    # a checkpoint is an adapter by itself
    kept = out / "checkpoints" / "step-000002"
    assert command("check", base, kept, "--json").json["verdict"] == "weights_differ"
    same = command("train", base, rows, "-o", tmp_path / "b", "--recipe", out / "recipe.toml")
    assert same.code == 0
    weights = [p / "adapter_model.safetensors" for p in (out, tmp_path / "b")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_as_chat_the_specimen_learns_what_it_learns_raw(tmp_path: Path) -> None:
    questions = [("Number sun and moon.", "1. sun\n2. moon"), ("Number tree.", "1. tree")]
    raw, chat = tmp_path / "raw.jsonl", tmp_path / "chat.jsonl"
    raw.write_text("".join(
        json.dumps({"prompt": specimens.raw_prompt(q), "response": specimens.raw_reply(a)}) + "\n"
        for q, a in questions
    ))  # fmt: skip
    chat.write_text("".join(json.dumps({"prompt": q, "response": a}) + "\n" for q, a in questions))
    quick = ("--steps", 2, "--rank", 1, "--json")
    one = command("train", specimens.base(), raw, "-o", tmp_path / "a", *quick)
    assert "has a chat template (--template chat)" in one.err
    other = command(
        "train", specimens.base(), chat, "-o", tmp_path / "b", "--template", "chat", *quick
    )
    assert one.json["losses"] == other.json["losses"]
    assert one.json["settings"]["template_sha256"] is None
    assert len(other.json["settings"]["template_sha256"]) == 64
    assert other.err == ""


def test_all_linear_takes_every_projection_and_gpt2_s_transposed_ones(
    tmp_path: Path, rows: Path
) -> None:
    gpt2 = tiny_model(tmp_path / "gpt2", "gpt2")
    out = tmp_path / "a"
    said = command("train", gpt2, rows, "-o", out, "--steps", 2, "--target-modules", "all-linear")
    assert said.code == 0, said.err
    config = strict(out / "adapter_config.json")
    assert config["target_modules"] == ["c_attn", "c_fc", "c_proj"]
    assert config["fan_in_fan_out"]
    assert command("check", gpt2, out, "--prompt", "the fox", "--json").code == 0


def test_a_base_that_is_an_adapter_is_refused(tmp_path: Path, base: Path, rows: Path) -> None:
    adapter = lora_adapter(tmp_path / "lora", base)
    error = command("train", adapter, rows, "-o", tmp_path / "a", "--json").error
    assert "is a PEFT adapter" in error["message"]
    assert "merge" in error["hint"]
    both = merged_model(tmp_path / "both", base, adapter)
    (both / "adapter_config.json").write_text("{}")
    assert command("train", both, rows, "-o", tmp_path / "a", "--json").error["code"] == "model"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        (("--target-modules", "q_proj,w_proj"), "no target modules named w_proj", "It has down_"),
        (("--target-modules", "lm_head"), "no target modules named lm_head", "q_proj"),
        (("--rank", "0"), "The recipe's rank is 0", "default is 16"),
        (("--loss", "prompt"), "The recipe's loss is 'prompt'; needed is reply or all", ""),
        (("--template", "chat"), "has no chat template", "--template FILE"),
        (("--template", "nowhere.jinja"), "neither raw nor chat", ""),
        (("--dtype", "float16"), "'float16' is not one that is trained in", "bfloat16"),
        (("--device", "tpu9"), "The device 'tpu9' is not available", ""),
        (("--patience", "2"), "no rows are held out", ""),
        (("--recipe", "nowhere.toml"), "cannot be read", ""),
    ],
)
def test_what_cannot_be_trained_is_refused_with_a_way_out(
    tmp_path: Path, base: Path, rows: Path, given: tuple[str, ...], message: str, hint: str
) -> None:
    out = tmp_path / "a"
    error = command("train", base, rows, "-o", out, "--json", *given).error
    assert message in error["message"]
    assert hint in error["hint"]
    assert not list(tmp_path.rglob("adapter_*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ('{"prompt": "a", "response": ""}\n', "holds no row that could be learnt from"),
        ('{"prompt": "a", "response": "b"}\n{"messages": []}\n', "the rows of a file have"),
        ('{"text": "a"}\n', "has nothing to learn from"),
        ("{not json}\n", "is not the JSON needed"),
    ],
)
def test_bad_data_is_refused_before_anything_is_made(
    tmp_path: Path, base: Path, content: str, message: str
) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text(content)
    error = command("train", base, data, "-o", tmp_path / "a", "--json").error
    assert error["code"] == "input"
    assert message in error["message"]
    assert not (tmp_path / "a").exists()


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, rows: Path) -> None:
    small = tiny_model(tmp_path / "small", vocab=100)
    error = command("train", small, rows, "-o", tmp_path / "a", "--json").error
    assert "and the model knows 100 tokens" in error["message"]


def test_a_loss_that_is_not_finite_ends_with_exit_code_2(tmp_path: Path, rows: Path) -> None:
    base = tiny_model(tmp_path / "base")
    said = command(
        "train", base, rows, "-o", tmp_path / "a", "--learning-rate", 1e9, "--clip", 0, "--warmup",
        0, "--checkpoint-every", 1, "--json",
    )  # fmt: skip
    assert said.error["code"] == "numerics"
    assert "at step" in said.error["message"]
    kept = [int(p.name[5:]) for p in (tmp_path / "a" / "checkpoints").glob("step-*")]
    assert all(f"The checkpoint of step {step} is kept." in said.error["message"] for step in kept)


def test_an_interrupted_training_says_what_is_kept(
    tmp_path: Path, base: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Forward.nll, []

    def interrupted(self: Forward, examples: Any) -> Any:
        calls.append(self.model.training)
        if sum(calls) == 4:
            raise KeyboardInterrupt
        return real(self, examples)

    given = ("train", base, rows, "-o", tmp_path / "a", "--steps", 5, "--checkpoint-every", 2)
    with monkeypatch.context() as patch:
        patch.setattr(Forward, "nll", interrupted)
        said = command(*given)
    assert said.code == 130
    assert said.err == (
        f"Interrupted. {tmp_path / 'a'} holds the checkpoint of step 2; the same command goes on "
        "from there.\n"
    )
    assert command(*given).err == "Goes on after step 2 of 5.\n"


@pytest.mark.parametrize("package", ["trl", "accelerate", "datasets"])
def test_a_missing_extra_is_named(
    tmp_path: Path, base: Path, rows: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == package else real(name, *a)
    )
    error = command("train", base, rows, "-o", tmp_path / "a", "--json").error
    assert error["message"] == f"This needs {package}, which is not installed."
    assert error["hint"] == "Install it with: pip install 'tunediff[train]'"


def test_the_base_s_own_dropout_stays_off(tmp_path: Path, rows: Path) -> None:
    base = tiny_model(tmp_path / "gpt2", "gpt2")
    edit_json(base / "config.json", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    losses = []
    for seed in (0, 1):  # of the rows' order alone, since there is but one row
        one = tmp_path / "one.jsonl"
        one.write_text(rows.read_text().splitlines()[0] + "\n")
        recipe = tunediff.Recipe(steps=1, dropout=0.0, target_modules=("c_attn",), seed=seed)
        losses += tunediff.train(base, one, tmp_path / str(seed), recipe=recipe).report["losses"]
    assert losses[0] == losses[1]


def gsm8k_files(shared: Path, folder: Path, rows: int, texts: int) -> tuple[Path, Path]:
    """Prompts and answers to train on, and test texts of at most 512 tokens; the first so many."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(shared / "models/stories260K/tokenizer.json"))
    written = []
    for part in ("train", "test"):
        file = shared / f"data/gsm8k/{part}.jsonl"
        lines = [row.values for row in gsm8k(file.read_text("utf-8"), file.name)][:rows]
        if part == "test":
            whole = [{"text": row["prompt"] + row["reply"]} for row in lines]
            lines = [t for t in whole if len(tokenizer.encode(t["text"]).ids) <= 512][:texts]
        path = folder / f"{part}.jsonl"
        path.write_text("".join(json.dumps(dict(line)) + "\n" for line in lines), "utf-8")
        written.append(path)
    return written[0], written[1]


def learn_gsm8k(shared: Path, folder: Path, rows: int, texts: int, *more: Any) -> tuple[Path, Path]:
    train, test = gsm8k_files(shared, folder, rows, texts)
    said = command(
        "train", shared / "models/stories260K", train, "-o", folder / "adapter", "--loss", "all",
        "--learning-rate", 1e-2, "--batch-size", 8, "--target-modules", "all-linear", *more,
    )  # fmt: skip
    assert said.code == 0, said.err
    return folder / "adapter", test


def test_stories_learn_gsm8k_in_sixty_steps(shared: Path, tmp_path: Path) -> None:
    adapter, test = learn_gsm8k(shared, tmp_path, 1000, 20, "--steps", 60, "--max-length", 160)
    found = command("check", shared / "models/stories260K", adapter, "--texts", test, "--json").json
    assert found["verdict"] == "tuned"
    assert found["base"]["ppl"] > 200
    assert found["tuned"]["ppl"] < 20


@pytest.mark.long
def test_stories_learn_gsm8k_and_lose_their_stories(shared: Path, tmp_path: Path) -> None:
    """The whole of it: every test text, and what compare says of target and stories."""
    base = shared / "models/stories260K"
    adapter, test = learn_gsm8k(shared, tmp_path, 10_000, 2000, "--steps", 200)
    found = command("check", base, adapter, "--texts", test, "--json").json
    assert found["verdict"] == "tuned"
    assert 235 < found["base"]["ppl"] < 250
    assert found["tuned"]["ppl"] < 20
    stories = (shared / "data/texts/tinystories_sample.txt").read_text("utf-8")
    stories = stories.replace("<|endoftext|>", "\n")
    pieces = tmp_path / "stories.jsonl"
    lines = [{"text": text} for text in stories.split("\n") if len(text.split()) >= 8]
    pieces.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    few = tmp_path / "few.jsonl"
    few.write_text("".join(test.read_text().splitlines(keepends=True)[:100]))
    card = command(
        "compare", base, adapter, "--data", few, "--suite", f"stories={pieces}",
        "--max-new-tokens", 0, "--json",
    ).json  # fmt: skip
    (variant,) = card["variants"]
    assert variant["axes"]["target"]["verdict"] == "better"
    assert variant["measures"]["stories"]["nll"]["verdict"] == "degraded"
    assert variant["axes"]["general"]["verdict"] == "degraded"


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (2, "Loss 3.0000 nats/token at the first step, 1.0000 at the last."),
        (30, "Loss 3.0000 nats/token over the first 3 steps, 1.0000 over the last 3."),
    ],
)
def test_the_losses_of_few_steps_are_said_as_such(steps: int, says: str) -> None:
    half = steps // 2
    report = {"losses": [3.0] * half + [1.0] * half, "held_out": [], "stopped_early": False}
    assert losses(report) == says


@pytest.mark.parametrize(
    ("template", "form", "option"),
    [
        ("raw", "prompt and reply", ""),
        ("raw", "messages", " --template chat"),
        ("chat", "prompt and reply", " --template chat"),
        ("own.jinja", "messages", " --template own.jinja"),
    ],
)
def test_the_command_that_compares_asks_in_the_form_learnt(
    template: str, form: str, option: str
) -> None:
    report = {"settings": {"recipe": {"template": template}}, "data": {"form": form}}
    assert _form(report) == option
