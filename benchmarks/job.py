"""What does one measured process do, and what does it cost?

Each job runs in a process of its own, so that its peak memory is nobody else's:
`python -m benchmarks.job '{"side": "naive", "shape": "SmolLM2-135M", ...}'` prints one JSON line.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

EXACT = 2e-6  # a float32 product's largest error over the largest entry; bf16 is 1,000 times off


def main() -> None:
    """Run the job that the first argument describes."""
    job = json.loads(sys.argv[1])
    others = {
        "ceiling": ceiling,
        "geometry": geometry,
        "replies": replies,
        "several": several,
        "sharing": sharing,
        "training": training,
    }
    run = others.get(job["side"], compare)
    print(json.dumps(run(job)), flush=True)


def compare(job: dict[str, Any]) -> dict[str, Any]:
    """Score the texts of a shape the naive way or tunediff's; costs by stage, and the figures."""
    import peft  # noqa: F401  # what both sides import belongs to the baseline
    import torch
    import transformers

    from benchmarks import shapes

    transformers.logging.disable_progress_bar()
    cuda = job["device"] == "cuda"
    base = shapes.base(job["shape"])
    adapter = shapes.adapter(job["shape"], top_third=job.get("top_third", False))
    texts = shapes.text_ids(shapes.SHAPES[job["shape"]]["vocab_size"], count=job["texts"])
    options = {"dtype": job["dtype"], "device": job["device"]}
    clock = Clock(torch.cuda.synchronize if cuda else lambda: None)
    repeat = job.get("repeat", 1)
    stages: dict[str, dict[str, float]] = {}
    extra: dict[str, Any] = {}
    if job["side"] == "naive":
        from benchmarks import naive

        before = _memory("VmRSS")
        (one, other), stages["load"] = clock(lambda: naive.load(base, adapter, **options))
        if cuda:  # the first passes of a process pay for the device's own start
            naive.score(one, other, texts[:2])
        figures, stages["score"] = clock(lambda: naive.score(one, other, texts), repeat)
    else:
        from tunediff.pair.open import open_pair
        from tunediff.values import TOKEN_METRICS, Encoded

        items = [
            Encoded(str(i), np.array(ids), np.arange(len(ids) - 1), len(ids) - 1, len(ids))
            for i, ids in enumerate(texts)
        ]
        before = _memory("VmRSS")
        pair, stages["load"] = clock(lambda: open_pair(base, adapter, **options))
        if cuda:
            list(pair.score(items[:2]))
        scores, stages["score"] = clock(lambda: list(pair.score(items)), repeat)
        floor, stages["floor"] = clock(lambda: dict(pair.noise_floor(items)), repeat)
        failed = [s.reason for s in scores if s.reason is not None]
        if failed:
            raise RuntimeError(f"items failed: {failed}")
        figures = {
            name: float(np.concatenate([getattr(s, name) for s in scores]).mean())
            for name in TOKEN_METRICS
        }
        extra = {"floor": floor, "settings": dict(pair.settings)}
    peak = _memory("VmHWM")
    return {
        "stages": stages,
        "figures": figures,
        "tokens": sum(map(len, texts)),
        "peak": torch.cuda.max_memory_allocated() if cuda else peak - before,
        "peak_whole_process": peak,
        **extra,
    }


def ceiling(job: dict[str, Any]) -> dict[str, Any]:
    """GFLOP per CPU second (GPU: second) of the best product that is exact to its dtype.

    Each of torch's float32 precision settings is tried on a layer's product and on the head's;
    one that is not exact to float32 is left out.
    """
    import torch

    from benchmarks import shapes

    c = shapes.SHAPES[job["shape"]]
    device, dtype = job["device"], getattr(torch, job["dtype"])
    clock = Clock(torch.cuda.synchronize if device == "cuda" else lambda: None)
    found: dict[str, float] = {}
    torch.manual_seed(0)
    for inner, outer in (
        (c["hidden_size"], c["intermediate_size"]),
        (c["hidden_size"], c["vocab_size"] // 8),
    ):
        x = torch.randn(512, inner, device=device, dtype=dtype)
        w = torch.randn(outer, inner, device=device, dtype=dtype)
        truth = x[:32].double() @ w[:512].double().T
        for precision in ("highest", "high", "medium"):
            torch.set_float32_matmul_precision(precision)
            error = (torch.nn.functional.linear(x, w)[:32, :512].double() - truth).abs().max()
            if dtype == torch.float32 and error / truth.abs().max() > EXACT:
                continue
            repeats = max(1, math.ceil(2e10 / (2 * 512 * inner * outer)))

            def products(x=x, w=w, repeats=repeats) -> None:
                for _ in range(repeats):
                    torch.nn.functional.linear(x, w)

            costs = [clock(products)[1]["wall" if device == "cuda" else "cpu"] for _ in range(5)]
            rate = 2 * 512 * inner * outer * repeats / statistics.median(costs) / 1e9
            found[precision] = max(rate, found.get(precision, 0))
    best = max(found, key=lambda precision: found[precision])
    return {"gflops": found[best], "precision": best, "all": found}


def geometry(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds from the files of a 7B-shaped adapter to its geometry, checks and hashes included."""
    from benchmarks import shapes
    from tunediff.pair.adapter import read_adapter
    from tunediff.weights.checkpoint import Checkpoint
    from tunediff.weights.geometry import lora_geometry

    base, adapter = shapes.pair_7b()
    clock = Clock()
    read, reading = clock(lambda: read_adapter(adapter, Checkpoint.open(base)))
    found, measuring = clock(lambda: lora_geometry(read.modules))
    if len(found.modules) != 128:
        raise RuntimeError(f"geometry of {len(found.modules)} modules; 128 were needed")
    return {"read": reading, "geometry": measuring}


def replies(job: dict[str, Any]) -> dict[str, Any]:
    """Both models' replies to a few prompts; see ``benchmarks/replies.py``."""
    from benchmarks.replies import answer

    return answer(job)


def several(job: dict[str, Any]) -> dict[str, Any]:
    """Three adapters of one base; see ``benchmarks/replies.py``."""
    from benchmarks.replies import several

    return several(job)


def sharing(job: dict[str, Any]) -> dict[str, Any]:
    """Three adapters scored, base read each time or once; see ``benchmarks/replies.py``."""
    from benchmarks.replies import sharing

    return sharing(job)


def training(job: dict[str, Any]) -> dict[str, Any]:
    """A few steps of a training; see ``benchmarks/training.py``."""
    from benchmarks.training import speed

    return speed(job)


class Clock:
    """Wall and CPU seconds of a call, all threads counted."""

    def __init__(self, settle: Callable[[], None] = lambda: None) -> None:
        self.settle = settle

    def __call__(self, work: Callable[[], Any], repeat: int = 1) -> tuple[Any, dict[str, float]]:
        """The work's last result, and the medians of what it took."""
        result, costs = None, []
        for _ in range(repeat):
            result = None  # what was made before would stand in the next one's memory
            self.settle()
            wall, cpu = time.perf_counter(), time.process_time()
            result = work()
            self.settle()
            costs.append((time.perf_counter() - wall, time.process_time() - cpu))
        walls, cpus = zip(*costs, strict=True)
        return result, {"wall": statistics.median(walls), "cpu": statistics.median(cpus)}


def _memory(key: str) -> int:
    """Bytes of resident memory: VmRSS now, VmHWM at its peak (Linux)."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{key}:\s+(\d+) kB", status)
    if found is None:
        raise RuntimeError(f"/proc/self/status holds no {key}; peak memory is measured on Linux")
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
