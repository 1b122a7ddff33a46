"""Does ``tunediff check`` answer, with one object, the seed's lines and the promised exit codes?"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import factory
import tunediff
from command import Said, check, command, environment, process, started
from faults import contents
from tunediff.findings.check import VERDICTS
from tunediff.pair import from_files
from tunediff.pair.toy import ToyPair
from tunediff.values import TOKEN_METRICS

PROMPT = "the quick brown fox jumps over a lazy dog"
EIGHT = [x for text in factory.texts(8) for x in ("--prompt", text)]

TOKEN_TABLE = {  # the names of DEFINITIONS.md's token table
    *("nll_base", "nll_tuned", "ppl_base", "ppl_tuned", "ppl_ratio"),
    *("bits_per_byte_base", "bits_per_byte_tuned", "kl_base_tuned", "kl_tuned_base", "js"),
    *("logit_mse", "logit_mse_centred", "logit_l2", "logit_l2_last", "top1_agreement", "delta_p"),
}


class Folders:
    """A tiny base and what can be tuned of it, each made once and only where it is asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def base(self, architecture: str = "llama") -> Path:
        return self._once(f"{architecture}-base", lambda p: factory.tiny_model(p, architecture))

    def lora(self, architecture: str = "llama", **options: Any) -> Path:
        name = f"{architecture}-lora-{sorted(options.items())}"
        return self._once(
            name, lambda p: factory.lora_adapter(p, self.base(architecture), **options)
        )

    def merged(self, architecture: str) -> Path:
        base, lora = self.base(architecture), self.lora(architecture)
        return self._once(f"{architecture}-m", lambda p: factory.merged_model(p, base, lora))

    def full(self, architecture: str = "llama") -> Path:
        base = self.base(architecture)
        return self._once(f"{architecture}-full", lambda p: factory.full_finetune(p, base))

    def _once(self, name: str, make: Callable[[Path], Path]) -> Path:
        folder = self.root / name
        return folder if folder.exists() else make(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("models"))


# the object of --json


def test_the_object_has_the_promised_keys(folders: Folders) -> None:
    said = check(folders.base(), folders.lora(), "--prompt", PROMPT, "--json")
    assert said.code == 0
    assert said.err == ""  # no bar, no warning of a library
    found = said.json
    assert found.keys() >= {
        *("schema_version", "verdict", "reason", "texts", "tokens", "base", "tuned", "metrics"),
        *("seed", "weights", "certificate", "settings"),
    }
    assert found["schema_version"] == 1
    assert found["verdict"] in VERDICTS
    assert found["texts"] == 1
    assert found["tokens"] > 10


def test_metrics_are_whole(folders: Folders) -> None:
    found = check(folders.base(), folders.lora(), *EIGHT, "--json").json
    assert found["metrics"].keys() >= TOKEN_TABLE
    for name, metric in found["metrics"].items():
        assert metric.keys() >= {"value", "low", "high", "noise_floor"}, name
        assert metric["low"] <= metric["value"] <= metric["high"], name
        assert metric["noise_floor"] > 0, name
        assert ("percentiles" in metric) == (name in ("kl_base_tuned", "delta_p")), name
    kl, delta_p = (found["metrics"][n]["percentiles"] for n in ("kl_base_tuned", "delta_p"))
    both = ["max", "99.9", "99", "95", "90", "50", "10", "5", "1", "0.1", "min"]
    assert list(kl) == both
    assert set(delta_p) == {*both, "75", "25"}
    for values in (kl, delta_p):
        assert list(values.values()) == sorted(values.values(), reverse=True)
    assert found["seed"] is None
    for side in ("base", "tuned"):
        assert set(found[side]) == {"path", "fingerprint", "nll", "ppl", "bits_per_byte"}
        assert found[side]["ppl"] == found["metrics"][f"ppl_{side}"]["value"]
        assert len(found[side]["fingerprint"]) == 64


def test_no_interval_is_null_with_few_texts(folders: Folders) -> None:
    found = check(folders.base(), folders.lora(), "--prompt", PROMPT, "--json").json
    assert {m["low"] for m in found["metrics"].values()} == {None}
    assert {m["high"] for m in found["metrics"].values()} == {None}
    assert set(found["seed"]) == {"ppl_base", "ppl_tuned", "logit_mse"}
    assert "one prompt is one observation" in found["reason"]


@pytest.mark.parametrize("texts", [(), ("--prompt", PROMPT)])
def test_settings_name_the_kernel(folders: Folders, texts: tuple[str, ...]) -> None:
    settings = check(folders.base(), folders.lora(), *texts, "--json").json["settings"]
    assert isinstance(settings["fast_kernel"], bool)
    assert (settings["kernel"] is None) == (not texts)
    if texts:
        assert settings["kernel"] in ("highest", "medium", "high")
        assert settings["fast_kernel"] == (settings["kernel"] != "highest")


def test_the_object_is_ascii_and_alone_whatever_the_texts_hold(tmp_path: Path) -> None:
    said = check("toy", "toy:0.5", "--prompt", "\x1b[2J \x9b \u202e \u2028 grün 読", "--json")
    assert said.out.isascii()
    assert "\x1b" not in said.out
    assert said.json["texts"] == 1


def test_a_process_of_its_own_writes_nothing_else(folders: Folders) -> None:
    said = process("check", folders.base(), folders.lora(), "--prompt", PROMPT, "--json")
    assert said.code == 0, said.err
    assert said.json["texts"] == 1
    assert said.err == ""


# errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "--nope", "a", "b"], "No such option: --nope"),
        (["check"], "BASE and TUNED are missing: two models are compared."),
        (["check", "a"], "TUNED is missing: two models are compared, and only 'a' came."),
        (
            ["check", "--adapter_path", "b"],
            "BASE is missing: two models are compared, and only 'b'",
        ),
        (["check", "a", "b", "c"], "Got unexpected extra argument"),
        (
            ["check", "a", "b", "--adapter_path", "c"],
            "TUNED came twice: as the argument 'b' and as --adapter_path 'c'.",
        ),
        (["check", "a", "b", "--seed", "x"], "Invalid value for '--seed'"),
        (["check", "a", "b", "--seed", "-1"], "Invalid value for '--seed'"),
        (["check", "a", "b", "--max-length", "1"], "Invalid value for '--max-length'"),
        (["check", "a", "b", "--expect", "good"], "--expect good is not a verdict."),
        (["nothing"], "No such command 'nothing'."),
        ([], "No such option: --json"),
        (["check", "a", "b", "--mse-threshold", "1"], "--mse-threshold came without a text"),
        (["check", "a", "b", "--out", "r"], "--out came without a text"),
        (["check", "a", "b", "--bits-per-byte-only"], "--bits-per-byte-only came without a text"),
        (["check", "toy", "toy:1"], "The toy has no weights to compare."),
        (["check", "toy", "toy:one", "--prompt", "x y"], "'toy:one' is not a toy."),
        (["check", "toy", "toy:nan", "--prompt", "x y"], "The toy's strength is nan."),
        (["check", "a", "b", "--backend", "gguf"], "The backend 'gguf' is not one of hf, toy"),
        (["check", "a", "b", "--prompt", "x", "--dtype", "int8"], "The dtype 'int8' is not one"),
        (
            ["check", "toy", "toy:1", "--prompt", "x y", "--mse-threshold", "nan"],
            "--mse-threshold nan came; a finite number of at least 0 is needed.",
        ),
        (
            ["check", "toy", "toy:1", *EIGHT, "--ppl_threshold", "0.1"],
            "--ppl-threshold came with 8 texts; the thresholds belong to the point rule",
        ),
    ],
)
def test_misuse_is_an_error_object_or_two_lines(arguments: list[str], message: str) -> None:
    error = command(*arguments, "--json").error
    assert message in error["message"]
    if arguments:
        plain = command(*arguments)
        assert plain.code == 2
        assert plain.out == ""
        assert plain.err.startswith("Error: ")
        assert message in plain.err
        assert "Traceback" not in plain.err


def test_without_arguments_it_explains_itself() -> None:
    said = command()
    assert said.code == 0
    assert "check" in said.out
    assert "demo" in said.out


def test_nobody_reads_what_is_printed() -> None:
    """``| head`` is no error, and an expectation that failed still counts."""
    for expect, code in (("tuned", 0), ("identical", 1)):
        words = started("check", "toy", "toy:0.5", "--prompt", PROMPT, "--expect", expect)
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment({})
        ) as running:
            assert running.stdout is not None
            running.stdout.close()
            assert running.stderr is not None
            err = running.stderr.read().decode()
        assert running.returncode == code, err
        assert "Traceback" not in err
        assert "BrokenPipe" not in err


def test_standard_output_is_full() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            started("check", "toy", "toy:0.5", "--prompt", PROMPT),
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment({}),
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.decode().startswith("Error: The system refused: [Errno 28] No space left")
    assert b"Traceback" not in done.stderr


# the seed


def seed_script(base: Path, adapter: Path, prompt: str) -> dict[str, float]:
    """What the seed document describes, in plain transformers and peft."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def load() -> Any:
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()

    encoded = AutoTokenizer.from_pretrained(base)(prompt, return_tensors="pt")
    models = {"base": load(), "tuned": PeftModel.from_pretrained(load(), adapter).eval()}
    logits, ppl = {}, {}
    with torch.no_grad():
        for side, model in models.items():
            out = model(**encoded, labels=encoded["input_ids"])
            logits[side], ppl[f"ppl_{side}"] = out.logits, out.loss.exp().item()
    mse = torch.nn.functional.mse_loss(logits["base"], logits["tuned"]).item()
    return {**ppl, "logit_mse": mse}


def seed_command(base: Path, adapter: Path, *more: str) -> Said:
    """The seed's own command line, word for word but for the program's name."""
    return check(
        *("--base_model_path", base, "--adapter_path", adapter, "--prompt", PROMPT),
        *("--ppl_threshold", "0.01", "--mse_threshold", "0.0001", *more),
    )


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_seeds_figures_are_found_again(folders: Folders, architecture: str) -> None:
    base, adapter = folders.base(architecture), folders.lora(architecture)
    script = seed_script(base, adapter, PROMPT)
    found = seed_command(base, adapter, "--json").json["seed"]
    assert found == pytest.approx(script, rel=1e-5)
    # all T positions are averaged: those that are scored give another number
    scored = check(base, adapter, "--prompt", PROMPT, "--json").json["metrics"]["logit_mse"]
    assert abs(scored["value"] / script["logit_mse"] - 1) > 1e-3


def test_the_seeds_lines_come_first(folders: Folders) -> None:
    script = seed_script(folders.base(), folders.lora(), PROMPT)
    lines = seed_command(folders.base(), folders.lora()).out.splitlines()
    assert lines[:2] == ["=== Model Comparison ===", f"Input: {PROMPT}"]
    labels = (
        "Base Model Perplexity:    ",
        "Adapter Model Perplexity: ",
        "Logit MSE Difference:     ",
    )
    for line, label, figure, digits in zip(lines[2:5], labels, script.values(), "336", strict=True):
        assert line.startswith(label)
        shown = line.removeprefix(label)
        assert shown == f"{float(shown):.{digits}f}"
        assert float(shown) == pytest.approx(figure, rel=1e-5, abs=10.0 ** -int(digits))
    assert lines[5][0] in "✅⚠"
    assert lines[6] == ""
    assert lines[7].startswith("Verdict: ")


@pytest.mark.parametrize(
    ("strength", "options", "verdict"),
    [
        (0.5, [], "tuned"),
        (-0.5, [], "diverged_without_gain"),
        # d = 0.001: logit MSE 5.1e-8, perplexity 256 to about 255.8
        (0.001, ["--mse_threshold", "1", "--ppl_threshold", "1"], "indistinguishable"),
        (0.001, ["--mse_threshold", "0", "--ppl_threshold", "1"], "diverged_without_gain"),
        (0.001, ["--mse-threshold", "1", "--ppl-threshold", "0.01"], "tuned"),
    ],
)
def test_the_point_rule(strength: float, options: list[str], verdict: str) -> None:
    said = check("toy", f"toy:{strength}", "--prompt", PROMPT, *options, "--json")
    assert said.json["verdict"] == verdict


# weights alone

WITHOUT_TORCH = (
    "loaded = {'torch', 'transformers', 'peft', 'numba', 'scipy'} & set(sys.modules); "
    "assert not loaded, loaded"
)


@pytest.mark.parametrize(
    ("tuned", "verdict"),
    [
        ("lora", "weights_differ"),
        ("full", "weights_differ"),
        ("untrained", "identical"),
        ("self", "identical"),
    ],
)
def test_weights_alone(folders: Folders, tuned: str, verdict: str) -> None:
    base = folders.base()
    path = {
        "lora": folders.lora,
        "full": folders.full,
        "untrained": lambda: folders.lora(trained=False),
        "self": lambda: base,
    }[tuned]()
    found = check(base, path, "--json").json
    assert found["verdict"] == verdict
    assert found["certificate"]["weights_equal"] == (verdict == "identical")
    assert found["weights"]["delta_is_zero"] == (verdict == "identical")
    assert (found["texts"], found["tokens"], found["seed"]) == (0, 0, None)
    assert found["metrics"] == {}
    assert found["base"]["ppl"] is None
    assert len({found[side]["fingerprint"] for side in ("base", "tuned")}) == 2 - (tuned == "self")
    # with a text it is the same answer, or a more telling one; the sides are the same
    with_text = check(base, path, "--prompt", PROMPT, "--json").json
    if verdict == "identical":
        assert with_text["verdict"] == "identical"
    assert with_text["weights"] == found["weights"]
    for side in ("base", "tuned"):
        assert with_text[side]["fingerprint"] == found[side]["fingerprint"]
    for name in ("tensors_used", "weights_differ"):
        here, there = (
            next(c["passed"] for c in f["certificate"]["checks"] if c["name"] == name)
            for f in (found, with_text)
        )
        assert here == there


@pytest.mark.parametrize("tuned", ["lora", "full"])
def test_weights_alone_need_no_torch(folders: Folders, tuned: str) -> None:
    path = getattr(folders, tuned)()
    said = process("check", folders.base(), path, "--json", after=WITHOUT_TORCH)
    assert said.code == 0, said.err
    assert said.json["verdict"] == "weights_differ"


# who is not refused

KINDS = [(a, kind) for a in factory.ARCHITECTURES for kind in ("lora", "merged", "full")]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"dora": True}),
    ("qwen2", {"rslora": True, "rank": 1}),
    ("llama", {"modules_to_save": ["lm_head"]}),
    ("mistral", {"embeddings": True}),
    ("llama", {"layers": [2], "targets": ["v_proj"]}),
    ("gpt2", {"layers": [0], "targets": ["c_attn"]}),
]


@pytest.mark.parametrize(("architecture", "kind"), KINDS)
def test_valid_pairs_are_not_refused(folders: Folders, architecture: str, kind: str) -> None:
    base, tuned = folders.base(architecture), getattr(folders, kind)(architecture)
    said = check(base, tuned, "--prompt", PROMPT, "--json")
    assert said.code == 0, said
    assert said.json["verdict"] in ("tuned", "diverged_without_gain")
    assert said.err == ""


@pytest.mark.parametrize(("architecture", "options"), VARIANTS)
def test_valid_variants_are_not_refused(
    folders: Folders, architecture: str, options: dict[str, Any]
) -> None:
    base, tuned = folders.base(architecture), folders.lora(architecture, **options)
    said = check(base, tuned, "--prompt", PROMPT, "--json")
    assert said.code == 0, said
    assert said.json["verdict"] in ("tuned", "diverged_without_gain")
    assert said.err == ""
    assert said.json["seed"] == pytest.approx(seed_script(base, tuned, PROMPT), rel=1e-4)


def test_few_adapted_modules_of_a_deep_model_are_not_refused(tmp_path: Path) -> None:
    """Rounding adds up over all layers, whichever of them is adapted."""
    base = factory.tiny_model(tmp_path / "base", layers=24)
    tuned = factory.lora_adapter(tmp_path / "lora", base, layers=[23], targets=["k_proj"])
    found = check(base, tuned, "--prompt", PROMPT, "--json").json
    line = next(c for c in found["certificate"]["checks"] if c["name"] == "packed_equals_single")
    apart, noise = (float(word.rstrip(";")) for word in line["detail"].split() if "e-" in word)
    assert apart < 2 * noise  # ten times would be refused


# expectations, run folders, interruptions


@pytest.mark.parametrize(("expect", "code"), [("tuned", 0), ("identical", 1), ("unclear", 1)])
def test_expect(expect: str, code: int) -> None:
    said = check("toy", "toy:0.5", *EIGHT, "--json", "--expect", expect)
    assert said.code == code
    assert said.json["verdict"] == "tuned"
    assert said.err == ("" if code == 0 else f"Expected {expect}; the verdict is tuned.\n")


def test_a_run_is_kept_and_read_again(folders: Folders, tmp_path: Path) -> None:
    ask = (folders.base(), folders.lora(), *EIGHT, "--json", "--out", tmp_path / "run")
    first = check(*ask)
    before = contents(tmp_path / "run")
    kept = {"run.json", "rows", "tokens", "texts", "probes"}
    assert {Path(name).parts[0] for name in before} == kept
    again = check(*ask)
    assert again.json == first.json
    assert contents(tmp_path / "run") == before
    assert first.err == ""
    assert again.err == f"All parts were there in {ask[-1]}; nothing was scored again.\n"
    (tmp_path / "run" / "rows" / "part-00000.parquet").unlink()
    assert check(*ask).err == f"Went on with the run in {ask[-1]}: 0 of 1 parts were there.\n"
    # without the folder, and with the texts in another order: the same numbers
    pairs = [EIGHT[i : i + 2] for i in range(0, 16, 2)]
    alone = check(*ask[:2], *EIGHT, "--json").json
    assert alone["metrics"] == first.json["metrics"]
    assert len(pairs) == 8


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["toy:0.5", *EIGHT[:14]], "the texts."),
        (["toy:0.25", *EIGHT], "the tuned model or adapter."),
        (["toy:0.5", *EIGHT, "--seed", "1"], "seed (0 there, 1 here)."),
        (["toy:0.5", *EIGHT, "--max-length", "999"], "max length (none there, 999 here)."),
        (
            # a limit changes the tokens that are asked; the texts may be the same
            ["toy:0.5", *EIGHT, "--max-length", "9", "--allow-truncation"],
            "allow truncation (false there, true here); max length (none there, 9 here).",
        ),
    ],
)
def test_another_run_does_not_go_into_the_folder(
    tmp_path: Path, change: list[str], named: str
) -> None:
    run = tmp_path / "run"
    assert check("toy", "toy:0.5", *EIGHT, "--out", run).code == 0
    before = contents(run)
    error = check("toy", *change, "--out", run, "--json").error
    assert error["code"] == "run"
    assert error["message"] == f"{run} belongs to another run; these differ: {named}"
    assert "Choose another folder" in error["hint"]
    assert contents(run) == before


def test_thresholds_may_change_afterwards(tmp_path: Path) -> None:
    ask = ("toy", "toy:0.001", "--prompt", PROMPT, "--out", tmp_path / "run", "--json")
    assert check(*ask).json["verdict"] == "tuned"
    wide = ("--mse-threshold", "1", "--ppl-threshold", "9")
    assert check(*ask, *wide).json["verdict"] == "indistinguishable"


def many_texts(folder: Path, texts: int, words: int) -> Path:
    file = folder / "many.jsonl"
    lines = [
        {"id": i, "text": f"{text} {'word ' * words}"}
        for i, text in enumerate(factory.texts(texts))
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def begin(ask: list[Any], run: Path) -> subprocess.Popen[bytes]:
    """Start a check, and wait until its first part exists."""
    running = subprocess.Popen(
        started("check", *ask, "--out", run),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment({}),
        # a test run in the background of a shell ignores SIGINT, and its children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (run / "rows" / "part-00000.parquet").exists():
        assert running.poll() is None, running.communicate()[1].decode()
        time.sleep(0.005)
    return running


def kill_and_go_on(ask: list[Any], folder: Path, moments: int, longest: float) -> None:
    whole = folder / "whole"
    assert check(*ask, "--out", whole).code == 0
    dice, cut_short = random.Random(7), 0
    for k in range(moments):
        run = folder / f"killed-{k}"
        with begin(ask, run) as running:
            time.sleep(dice.uniform(0, longest))
            running.send_signal(signal.SIGKILL)
        record = json.loads((run / "run.json").read_bytes())
        cut_short += record["finished"] is None
        assert check(*ask, "--out", run).code == 0
        assert contents(run) == contents(whole)
    assert cut_short >= moments // 2, "the kills came too late to be of use"


def test_a_killed_check_goes_on(tmp_path: Path) -> None:
    file = many_texts(tmp_path, 30, 800)
    kill_and_go_on(["toy", "toy:0.5", "--texts", file], tmp_path, moments=3, longest=0.1)


@pytest.mark.long
def test_a_killed_check_of_a_real_network_goes_on(tmp_path: Path, folders: Folders) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # the same number of threads here as there
    import torch

    torch.set_num_threads(1)
    base = factory.tiny_model(tmp_path / "base", layers=4, hidden=128, max_positions=2048)
    lora = factory.lora_adapter(tmp_path / "lora", base)
    file = many_texts(tmp_path, 90, 70)
    kill_and_go_on([base, lora, "--texts", file], tmp_path, moments=20, longest=1.5)


def test_an_interrupted_check_says_so(tmp_path: Path) -> None:
    ask = ["toy", "toy:0.5", "--texts", many_texts(tmp_path, 80, 1500)]
    run = tmp_path / "run"
    with begin(ask, run) as running:
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        said = running.stderr.read().decode()
    assert running.returncode == 130, said
    parts = json.loads((run / "run.json").read_bytes())["found"]["parts"]
    there = len(list((run / "rows").glob("*.parquet")))
    holds = f"{run} holds {there} of {parts} parts"
    assert said == f"Interrupted. {holds}; the command that began it goes on from there.\n"
    again = check(*ask, "--out", run)
    assert again.code == 0
    assert again.err == (
        f"Went on with the run in {run}: {there} of {parts} parts were there.\n"
        if there < parts
        else f"All parts were there in {run}; nothing was scored again.\n"
    )


@pytest.mark.parametrize(
    ("out", "when", "left"),
    [
        (False, "score", "Nothing is kept without --out RUN; with it, a run goes on where it sto"),
        (True, "noise_floor", "Nothing was kept in {run} yet."),
        (True, "score", "{run} holds 0 of 1 parts; the command that began it goes on from there."),
    ],
)
def test_what_an_interrupted_check_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: bool, when: str, left: str
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ToyPair, when, interrupted)
    run = tmp_path / "run"
    said = check("toy", "toy:0.5", *EIGHT, *(("--out", run) if out else ()))
    assert (said.code, said.out) == (130, "")
    assert said.err.startswith("Interrupted. " + left.format(run=run))
    assert said.err.count("\n") == 1


def test_an_interrupted_check_of_weights_promises_nothing(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(from_files, "certify_files", interrupted)
    said = check(folders.base(), folders.lora())
    assert (said.code, said.err) == (130, "Interrupted.\n")


def keys_of(tree: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The way to each key of nested objects."""
    for key in tree if isinstance(tree, dict) else ():
        yield (*above, key)
        yield from keys_of(tree[key], (*above, key))


def test_a_record_without_any_one_of_its_keys(tmp_path: Path) -> None:
    run = tmp_path / "run"
    ask = ("toy", "toy:0.5", "--prompt", PROMPT, "--out", run)
    assert check(*ask).code == 0
    whole = (run / "run.json").read_bytes()
    refused = set()
    for keys in list(keys_of(json.loads(whole))):
        record = json.loads(whole)
        inner = record
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        for how in ((), ("--json",)):
            (run / "run.json").write_text(json.dumps(record))
            said = check(*ask, *how)
            assert said.code in (0, 2), (keys, said.err)
            if said.code == 2 and how:
                assert said.error["hint"], keys
                if said.error["code"] == "run":
                    refused.add(keys)
    assert {("schema_version",), ("found",), ("found", "items"), ("finished",)} <= refused
    assert ("identity", "seed") in refused


def test_help_names_the_seeds_options() -> None:
    said = " ".join(command("check", "--help").out.split())
    assert "--base_model_path BASE and --adapter_path TUNED may be written" in said


def test_the_program_says_which_it_is() -> None:
    said = command("--version")
    assert (said.code, said.out, said.err) == (0, f"tunediff {tunediff.__version__}\n", "")


def test_every_token_metric_is_in_the_table() -> None:
    assert set(TOKEN_METRICS) <= TOKEN_TABLE
