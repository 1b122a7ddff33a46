"""``tunediff check BASE TUNED``: is it really fine-tuned, and did it help?"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunediff.cli.output import interruptible, printing
from tunediff.errors import UsageError

if TYPE_CHECKING:
    from tunediff.values import Suite

_BOTH = (
    "Write: tunediff check BASE TUNED --prompt TEXT, where BASE is the model before tuning, and "
    "TUNED the adapter or the model after it."
)

Text = Annotated[
    list[str] | None, typer.Option("--prompt", metavar="TEXT", help="A text to ask. Repeatable.")
]
Files = Annotated[
    list[str] | None,
    typer.Option(
        "--texts",
        metavar="FILE",
        help="Texts: .txt, .jsonl, .json, .csv or .parquet; - is standard input. Repeatable.",
    ),
]


def check(
    base: Annotated[
        str | None, typer.Argument(metavar="BASE", help="Base model: a folder, or a hub name.")
    ] = None,
    tuned: Annotated[
        str | None,
        typer.Argument(
            metavar="TUNED",
            help="LoRA adapter, merged or fully fine-tuned model. adapter:PATH or full:PATH says "
            "which, where a folder holds both.",
        ),
    ] = None,
    prompt: Text = None,
    texts: Files = None,
    ppl_threshold: Annotated[
        float | None,
        typer.Option(
            "--ppl-threshold",
            "--ppl_threshold",
            help="Fewer than 6 texts: the smallest change of perplexity that counts. "
            "Default: the noise floor.",
        ),
    ] = None,
    mse_threshold: Annotated[
        float | None,
        typer.Option(
            "--mse-threshold",
            "--mse_threshold",
            help="Fewer than 6 texts: the smallest logit MSE that counts. Default: the floor.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="RUN", help="Keep the run here; go on where it stopped."),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length", min=2, help="Token ids a text, BOS included. Default: the context."
        ),
    ] = None,
    allow_truncation: Annotated[
        bool, typer.Option("--allow-truncation", help="Keep the first tokens of longer texts.")
    ] = False,
    dtype: Annotated[
        str, typer.Option("--dtype", help="float32, bfloat16 or float16, of both sides.")
    ] = "float32",
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the resampling.")] = 0,
    backend: Annotated[str, typer.Option("--backend", help="auto, hf or toy.")] = "auto",
    download: Annotated[
        bool, typer.Option("--download", help="Fetch hub names that are not local.")
    ] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="Of BASE on the hub.")] = None,
    bits_per_byte_only: Annotated[
        bool,
        typer.Option(
            "--bits-per-byte-only", help="Allow different tokenizers; compare that one figure."
        ),
    ] = False,
    expect: Annotated[
        str | None,
        typer.Option(
            "--expect",
            metavar="VERDICT",
            help="Exit with 1 unless the verdict is this one: identical, indistinguishable, tuned, "
            "diverged_without_gain, unclear or weights_differ.",
        ),
    ] = None,
    base_model_path: Annotated[
        str | None, typer.Option("--base_model_path", "--base-model-path", hidden=True)
    ] = None,
    adapter_path: Annotated[
        str | None, typer.Option("--adapter_path", "--adapter-path", hidden=True)
    ] = None,
) -> int:
    """Is TUNED really a fine-tuned BASE, and does it predict the texts better?

    --base_model_path BASE and --adapter_path TUNED may be written for the two arguments.

    Without texts the weights alone are compared. With 6 texts or more the verdict rests on an
    interval over texts; with fewer it is a point rule, and says so.

    Exit codes: 0 done, 1 expectation not met, 2 bad input or a refused pair, 70 a fault of
    tunediff itself, 130 interrupted.
    """
    from tunediff.findings.check import VERDICTS, refuse_thresholds
    from tunediff.findings.summary import summarize, without_texts
    from tunediff.report.terminal import Printer

    base = _one_of("BASE", base, "--base_model_path", base_model_path)
    tuned = _one_of("TUNED", tuned, "--adapter_path", adapter_path)
    if base is None or tuned is None:
        raise _missing(base, tuned)
    if expect is not None and expect not in VERDICTS:
        raise UsageError(
            f"--expect {expect} is not a verdict.", f"It is one of {', '.join(VERDICTS)}."
        )
    printer = Printer()
    if not prompt and not texts:
        _refuse_without_texts(out, mse_threshold, ppl_threshold, bits_per_byte_only)
        from tunediff.pair.from_files import certify_files
        from tunediff.pair.open import choose_backend, locate

        if choose_backend(backend, base, tuned) == "toy":
            raise UsageError("The toy has no weights to compare.", "Add --prompt TEXT.")
        base_path, tuned_path, kind = locate(base, tuned, download=download, revision=revision)
        sides, geometry = certify_files(base_path, tuned_path, kind)
        result = without_texts(*sides, geometry.as_dict())
        return _finish(result, "", printer, as_json, expect)

    from tunediff.items.read import read
    from tunediff.run.store import kept_parts
    from tunediff.studies.check import measure_check

    suite = read(*(texts or ()), prompts=prompt or ())
    refuse_thresholds(len(suite.items), mse_threshold, ppl_threshold)
    before = None if out is None else kept_parts(out)
    with interruptible(None if out is None else partial(_kept, out)), ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        with printer.progress() as progress:
            run = measure_check(
                base,
                tuned,
                suite,
                folder,
                seed=seed,
                max_length=max_length,
                allow_truncation=allow_truncation,
                progress=progress,
                backend=backend,
                dtype=dtype,
                device=device,
                download=download,
                revision=revision,
                bits_per_byte_only=bits_per_byte_only,
            )
        if before is not None:
            _say_reused(folder, *before)
        result = summarize(run, mse_threshold=mse_threshold, ppl_threshold=ppl_threshold)
        return _finish(result, _asked(suite), printer, as_json, expect)


def _finish(
    result: dict[str, Any],
    asked: str,
    printer: Any,
    as_json: bool,
    expect: str | None,
) -> int:
    with printing():
        if as_json:  # in ASCII alone, so that no locale has a say in it
            sys.stdout.write(json.dumps(result, allow_nan=False) + "\n")
        else:
            sys.stdout.write(printer.check(result, asked))
    if expect is not None and result["verdict"] != expect:
        sys.stderr.write(f"Expected {expect}; the verdict is {result['verdict']}.\n")
        return 1
    return 0


def _asked(suite: Suite) -> str:
    """The input's line: the prompt itself, or how many texts."""
    if len(suite.items) == 1:
        return suite.items[0].shown
    return f"{len(suite.items)} texts ({suite.name})"


def _one_of(name: str, given: str | None, option: str, other: str | None) -> str | None:
    if given is not None and other is not None:
        raise UsageError(
            f"{name} came twice: as the argument {given!r} and as {option} {other!r}.", _BOTH
        )
    return other if given is None else given


def _missing(base: str | None, tuned: str | None) -> UsageError:
    if base is None and tuned is None:
        return UsageError("BASE and TUNED are missing: two models are compared.", _BOTH)
    name, came = ("BASE", tuned) if base is None else ("TUNED", base)
    return UsageError(f"{name} is missing: two models are compared, and only {came!r} came.", _BOTH)


def _kept(out: Path) -> str:
    """What an interrupted run left behind; its folder may also hold another run."""
    from tunediff.report.terminal import clean
    from tunediff.run.store import kept_parts

    folder = clean(str(out))
    if (kept := kept_parts(out)) is None:
        return f"Nothing was kept in {folder} yet."
    held = f"{kept[0]} of {kept[1]} parts"
    return f"{folder} holds {held}; the command that began it goes on from there."


def _say_reused(out: Path, there: int, parts: int) -> None:
    from tunediff.report.terminal import clean

    folder = clean(str(out))
    if there == parts:
        line = f"All parts were there in {folder}; nothing was scored again."
    else:
        line = f"Went on with the run in {folder}: {there} of {parts} parts were there."
    sys.stderr.write(line + "\n")


def _refuse_without_texts(
    out: Path | None, mse: float | None, ppl: float | None, bytes_only: bool
) -> None:
    given = {
        "--out": out is not None,
        "--mse-threshold": mse is not None,
        "--ppl-threshold": ppl is not None,
        "--bits-per-byte-only": bytes_only,
    }
    for option, came in given.items():
        if came:
            raise UsageError(
                f"{option} came without a text; without texts only the weights are compared.",
                "Add --prompt TEXT or --texts FILE.",
            )
