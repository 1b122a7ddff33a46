"""How many times faster and smaller than the naive way is tunediff on this machine?

Every measurement is a process of its own; the two sides take turns; a figure is the median of the
repetitions. Speed counts CPU seconds on a CPU (other work on the machine cannot bend a ratio of
them; wall seconds stand beside) and wall seconds on a GPU. Memory is the peak of resident memory
(VmHWM; on a GPU the allocator's peak) less what was resident after the imports.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import shapes

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
START, END = "<!-- bench:start -->", "<!-- bench:end -->"
PACKAGES = ("torch", "transformers", "peft", "numpy", "numba", "tunediff")
TARGETS = {  # what the project promises; a ratio on a GPU has no promise of its own
    "speed, fast exact kernel": 2.5,
    "speed, other kernel": 1.5,
    "memory": 0.5,
    "sharing": 1.3,
    "replies": 3,
    "training": 4,
    "several": 0.77,  # (1 + 3) / (2 · 3) of the naive cost, and 15 % of that
}
HEAD = ("figure", "naive", "tunediff", "ratio", "wanted")

Row = tuple[str, str, str, str, str]


def main() -> None:
    """Parse, measure, print, and write where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8 texts, one repetition")
    parser.add_argument("--shape", choices=shapes.SHAPES, action="append", help="only this shape")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="only this device")
    parser.add_argument("--threads", type=int, default=1, help="threads of a CPU run (1)")
    parser.add_argument("--no-pairs", action="store_true", help="only commands and geometry")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {PAGE.name}")
    options = parser.parse_args()
    repetitions, texts = (1, 8) if options.quick else (3, 32)
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(options.threads)

    head = _machine(options.threads, repetitions, texts)
    print(head, flush=True)
    rows: list[Row] = []
    if not options.no_pairs:
        settings = [s for s in _settings() if options.device in (None, s[0])]
        for device, dtype in settings:
            for shape in options.shape or shapes.SHAPES:
                rows += _shown(pair_rows(shape, device, dtype, repetitions, texts))
        for device, dtype in settings:
            rows += _shown(reply_rows("SmolLM2-135M", device, dtype, repetitions))
            rows += _shown([several_row("SmolLM2-135M", device, dtype, repetitions)])
            rows += _shown([once_row("SmolLM2-135M", device, dtype, repetitions)])
        for device in dict.fromkeys(device for device, _ in settings):
            for model in shapes.TRAINED:
                rows += _shown([training_row(model, device, repetitions)])
    rows += _shown(command_rows(repetitions))
    table = "\n".join([_line(HEAD), _line(["---"] * len(HEAD)), *map(_line, rows)])
    if options.write:
        keep(f"{head}\n\n{table}")


def pair_rows(shape: str, device: str, dtype: str, repetitions: int, texts: int) -> list[Row]:
    """Measure one shape on one device in one dtype: both ways, and the shared lower layers."""
    shapes.base(shape)  # made beforehand, so that no job's cost holds the making
    for top_third in (False, True):
        shapes.adapter(shape, top_third=top_third)
    job = {"shape": shape, "device": device, "dtype": dtype, "texts": texts}
    if device == "cuda":  # a start takes far longer than the work: one process repeats it
        repetitions, job = 1, job | {"repeat": repetitions}
    sides = {
        "naive": {"side": "naive"},
        "tunediff": {"side": "tunediff"},
        "top": {"side": "tunediff", "top_third": True},
        "ceiling": {"side": "ceiling"},
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for _ in range(repetitions):
        for name, side in sides.items():
            found[name].append(run_job(job | side))
    agree(found["naive"][0]["figures"], found["tunediff"][0]["figures"], dtype)

    unit = "wall" if device == "cuda" else "cpu"

    def cost(name: str, stages: Sequence[str], kind: str = unit) -> float:
        return statistics.median(sum(r["stages"][s][kind] for s in stages) for r in found[name])

    def peak(name: str, key: str = "peak") -> float:
        return statistics.median(r[key] for r in found[name]) / 1e9

    tokens = found["naive"][0]["tokens"]
    fast = bool(found["tunediff"][0]["settings"].get("fast_kernel"))
    wanted = TARGETS["speed, fast exact kernel" if fast else "speed, other kernel"]
    scored, whole = ("score",), ("score", "floor")
    best = statistics.median(r["gflops"] for r in found["ceiling"])
    limit = best * 1e9 / shapes.flop_per_token(shape)  # tokens a second
    names = {"cpu": "CPU second", "wall": "second"}
    title = f"{shape}, {device}, {dtype}"

    def speed(label: str, ours: Sequence[str], kind: str, target: str) -> Row:
        a, b = tokens / cost("naive", scored, kind), tokens / cost("tunediff", ours, kind)
        per = f"tokens per {names[kind]}"
        return (f"{title}: {per}, {label}", f"{a:.0f}", f"{b:.0f}", f"{b / a:.2f}", target)

    rows = [
        speed("noise floor counted in", whole, unit, f"≥ {wanted}"),
        speed("without the floor", scored, unit, ""),
    ]
    if unit == "cpu":
        rows.append(speed("noise floor counted in", whole, "wall", ""))
    for kind, name in names.items():
        a, b = (f"{cost(side, ('load',), kind):.1f}" for side in ("naive", "tunediff"))
        rows.append((f"{title}: {name}s to load", a, b, "", ""))
    for label, key, target in (
        ("peak memory, GB, imports not counted", "peak", f"≤ {TARGETS['memory']}"),
        ("peak memory of the whole process, GB", "peak_whole_process", ""),
    ):
        a, b = peak("naive", key), peak("tunediff", key)
        rows.append((f"{title}: {label}", f"{a:.2f}", f"{b:.2f}", f"{b / a:.2f}", target))
    a, b = (f"{tokens / cost(name, scored) / limit:.0%}" for name in ("naive", "tunediff"))
    how = found["ceiling"][0]["precision"]
    ceiling = f"product ceiling ({best:.0f} GFLOP/s, torch's {how!r})"
    rows.append((f"{title}: share of the {ceiling}", a, b, "", ""))
    shared = cost("tunediff", scored), cost("top", scored)
    rows.append(
        (
            f"{title}: {unit} seconds, LoRA on all layers → on the top third",
            "",
            f"{shared[0]:.1f} → {shared[1]:.1f}",
            f"{shared[0] / shared[1]:.2f}",
            f"≥ {TARGETS['sharing']}",
        )
    )
    return rows


def reply_rows(shape: str, device: str, dtype: str, repetitions: int) -> list[Row]:
    """Measure the replies of both models to a few prompts: one by one, and together."""
    shapes.adapter(shape)  # made beforehand, with its base
    job = {"side": "replies", "shape": shape, "device": device, "dtype": dtype}
    found: dict[str, list[dict[str, Any]]] = {"naive": [], "tunediff": []}
    for _ in range(repetitions):
        for way, results in found.items():
            results.append(run_job({**job, "way": way}))
    said = {way: results[0]["replies"] for way, results in found.items()}
    equal = sum(a == b for a, b in zip(said["naive"], said["tunediff"], strict=True))
    if equal < len(said["naive"]) / (2 if dtype == "float32" else 16):  # but for ties
        raise SystemExit(f"only {equal} of {len(said['naive'])} replies are the same both ways")

    def rate(way: str, kind: str) -> float:
        tokens = sum(map(len, said[way]))
        return tokens / statistics.median(result["cost"][kind] for result in found[way])

    rows: list[Row] = []
    cuda = device == "cuda"
    for kind, name, target in (
        ("cpu", "CPU second", "" if cuda else f"≥ {TARGETS['replies']}"),
        ("wall", "second", ""),
    ):
        if kind == "wall" or not cuda:
            a, b = rate("naive", kind), rate("tunediff", kind)
            what = f"{shape}, {device}, {dtype}: tokens of replies per {name}, {equal} of "
            what += f"{len(said['naive'])} equal"
            rows.append((what, f"{a:.0f}", f"{b:.0f}", f"{b / a:.2f}", target))
    return rows


def several_row(shape: str, device: str, dtype: str, repetitions: int) -> Row:
    """Measure what three adapters cost together, against three naive comparisons."""
    job = {"side": "several", "shape": shape, "device": device, "dtype": dtype}
    unit = "wall" if device == "cuda" else "cpu"
    found: dict[str, list[float]] = {"naive": [], "tunediff": []}
    for _ in range(repetitions):
        for way, costs in found.items():
            costs.append(run_job(job | {"way": way})["cost"][unit])
    a, b = (statistics.median(costs) for costs in found.values())
    what = f"{shape}, {device}, {dtype}: {unit} seconds, three adapters, scored and answered"
    return (what, f"{a:.1f}", f"{b:.1f}", f"{b / a:.2f}", f"≤ {TARGETS['several']}")


def once_row(shape: str, device: str, dtype: str, repetitions: int) -> Row:
    """Measure what reading base once saves where three adapters are scored."""
    shapes.adapter(shape)  # made beforehand, with its base
    job = {"side": "sharing", "shape": shape, "device": device, "dtype": dtype}
    unit = "wall" if device == "cuda" else "cpu"
    found: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(repetitions):
        for once, costs in found.items():
            costs.append(run_job(job | {"once": once})["cost"][unit])
    a, b = (statistics.median(costs) for costs in found.values())
    what = f"{shape}, {device}, {dtype}: {unit} seconds, three adapters scored, base thrice → once"
    return (what, "", f"{a:.1f} → {b:.1f}", f"{b / a:.2f}", "")


def training_row(model: str, device: str, repetitions: int) -> Row:
    """Measure the real tokens that a training reads in a second, padded and packed."""
    job = {"side": "training", "model": model, "device": device}
    unit = "wall" if device == "cuda" else "cpu"
    found: dict[str, list[dict[str, Any]]] = {"padded": [], "packed": []}
    for _ in range(repetitions):
        for way, results in found.items():
            results.append(run_job(job | {"way": way}))
    losses = [results[0]["losses"] for results in found.values()]
    worst = max(abs(a - b) for a, b in zip(*losses, strict=True))
    if worst > 1e-3:
        raise SystemExit(f"{model}: the losses padded and packed differ by {worst}")

    def rate(way: str) -> float:
        cost = statistics.median(result["cost"][unit] for result in found[way])
        return found[way][0]["tokens"] / cost

    a, b = rate("padded"), rate("packed")
    per = "second" if device == "cuda" else "CPU second"
    target = "" if device == "cuda" else f"≥ {TARGETS['training']}"
    what = f"training, {model}, {device}, float32: real tokens per {per}, padded to 512"
    return (what, f"{a:.0f}", f"{b:.0f}", f"{b / a:.2f}", target)


def command_rows(repetitions: int) -> list[Row]:
    """Measure what is not a pair: the geometry of a large adapter, and commands from cold."""
    shapes.pair_7b()
    found = [run_job({"side": "geometry"}) for _ in range(repetitions)]
    title = "7B-shaped LoRA (r = 16, 128 modules of 4096²)"
    rows = [
        _timed(f"{title}: geometry", [f["geometry"] for f in found], 1),
        _timed(f"{title}: read, checked and hashed", [f["read"] for f in found], None),
    ]
    program = Path(sys.executable).with_name("tunediff")
    rows.append(_timed("tunediff --help", _run_cold([program, "--help"], repetitions), 0.4))
    models = ROOT.parent / "shared" / "models"
    base, adapter = models / "stories260K", models / "stories260K-gsm8k-lora"
    if base.exists():
        check = [program, "check", base, adapter, "--prompt", "Once upon a time there was a cat."]
        rows.append(_timed("tunediff check, 260K model, cold", _run_cold(check, repetitions), 10))
    return rows


def agree(naive: Mapping[str, float], ours: Mapping[str, float], dtype: str) -> None:
    """Raise where the two sides did not compute the same figures: a ratio would mean nothing."""
    loose = 1 if dtype == "float32" else 50  # bf16's own noise; the floor says what it hides
    for name, tolerance in {"nll_base": 1e-4, "nll_tuned": 1e-4, "kl_base_tuned": 2e-2}.items():
        if abs(ours[name] / naive[name] - 1) > tolerance * loose:
            raise SystemExit(f"{name}: naive found {naive[name]}, tunediff {ours[name]}")


def run_job(job: Mapping[str, Any]) -> dict[str, Any]:
    """One job's result, from a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.job", json.dumps(job)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{json.dumps(job)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def keep(text: str) -> None:
    """Write the table between the markers of the performance page."""
    page = PAGE.read_text() if PAGE.exists() else f"# Performance\n\n{START}\n{END}\n"
    before, _, rest = page.partition(START)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{PAGE} needs the lines {START} and {END} to hold the table")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(f"{before}{START}\n{text}\n{END}{after}")


def _settings() -> list[tuple[str, str]]:
    import torch

    cuda = [("cuda", "bfloat16"), ("cuda", "float32")] if torch.cuda.is_available() else []
    return [("cpu", "float32"), *cuda]


def _machine(threads: int, repetitions: int, texts: int) -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    processor = found[1] if found else platform.processor() or platform.machine()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return (
        f"{datetime.date.today()} · {processor}, {os.cpu_count()} cores, {memory:.0f} GB, "
        f"{platform.system()} · Python {platform.python_version()}, {versions} · "
        f"{texts} texts of 16–512 tokens, {threads} thread(s), medians of {repetitions}"
    )


def _run_cold(command: Sequence[Path | str], repetitions: int) -> list[dict[str, float]] | str:
    costs = []
    for _ in range(repetitions):
        wall, cpu = time.perf_counter(), _children_cpu()
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stderr or done.stdout, file=sys.stderr)
            return f"failed, exit {done.returncode}"
        costs.append({"wall": time.perf_counter() - wall, "cpu": _children_cpu() - cpu})
    return costs


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _timed(label: str, costs: list[dict[str, float]] | str, limit: float | None) -> Row:
    if isinstance(costs, str):
        shown = costs
    else:
        wall, cpu = (statistics.median(c[kind] for c in costs) for kind in ("wall", "cpu"))
        shown = f"{wall:.2f} (CPU {cpu:.2f})"
    return (f"{label}: seconds", "", shown, "", f"< {limit}" if limit else "")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(rows: list[Row]) -> list[Row]:
    for row in rows:
        print(_line(row), flush=True)
    return rows


if __name__ == "__main__":
    main()
