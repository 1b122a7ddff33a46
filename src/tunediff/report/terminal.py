"""What does a person read in the terminal?

Plain at 80 columns, without colour and in a log file; results go to standard output, progress and
warnings to standard error. Whatever a model or a file said is stripped of control characters.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from tunediff.findings.check import FEWEST_TEXTS

SIGNS = {
    "tuned": ("✅", "Adapter model is different — likely fine-tuned."),
    "identical": ("❌", "Adapter model is identical — its weights change nothing."),
    "indistinguishable": ("❌", "Adapter model is not measurably different."),
    "diverged_without_gain": ("⚠️ ", "Adapter model is different — but predicts this no better."),
    "unclear": ("❔", "Adapter model is different — whether it is better is unclear."),
    "weights_differ": ("ℹ️ ", "The weights differ — give texts to see what that does."),
}
ONLY_BYTES = "Only bits per byte was compared."
WIDTH = 80  # of what goes to a file or a pipe, and the least: below it figures would be cut
_QUIET = 20.0  # seconds until the first line of progress in a log
_PAUSE = 30.0  # seconds from one such line to the next
_INPUT = 400  # characters of the input that are shown
_LAYERS = 3
_TOKEN = 30  # columns of a token's text
_SHARE = "share"
_TABLE = (
    ("KL(base‖tuned)", "kl_base_tuned", "nats/token"),
    ("KL(tuned‖base)", "kl_tuned_base", "nats/token"),
    ("Jensen–Shannon", "js", "nats/token"),
    ("Logit MSE", "logit_mse", "logit²"),
    ("  up to a shift", "logit_mse_centred", "logit²"),
    ("Top-1 agreement", "top1_agreement", _SHARE),
    ("ΔNLL (below 0: gain)", "delta_nll", "nats/token"),
    ("Perplexity ratio", "ppl_ratio", ""),
    ("Bits per byte, base", "bits_per_byte_base", "bits/byte"),
    ("Bits per byte, tuned", "bits_per_byte_tuned", "bits/byte"),
)


_TRUTH = "{:13} {:8} {:>9} {:>8}  {:22} {}"


class Printer:
    """Draws for people; the width and the colours are those of standard output."""

    def __init__(self) -> None:
        width = None if sys.stdout.isatty() else WIDTH
        self.console = Console(width=width, highlight=False, emoji=False, markup=False)
        self.console.width = max(self.console.width, WIDTH)
        self.errors = Console(stderr=True, highlight=False, emoji=False)

    @contextmanager
    def progress(self, *, tokens: bool = True) -> Iterator[Callable[[int, int], None]]:
        """What is done, on standard error; yields the function that takes it and its total.

        A bar in a terminal; in a log a plain line now and then, and none of a short run. Where it
        is not tokens that are counted, a share is said.
        """
        if not (self.errors.is_interactive and sys.stderr.isatty()):
            with _spoken(self.errors, tokens) as update:
                yield update
            return
        bar = Progress(
            TextColumn("Scoring" if tokens else "Comparing"),
            BarColumn(),
            MofNCompleteColumn() if tokens else TaskProgressColumn(),
            TextColumn("tokens, left" if tokens else "left"),
            TimeRemainingColumn(),
            console=self.errors,
            transient=True,
        )
        with bar:
            task = bar.add_task("", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def note(self, sentence: str) -> None:
        """Say what a person should know of the input, on standard error."""
        self.errors.print(Text(clean(sentence)), soft_wrap=True)

    def check(self, result: Mapping[str, Any], asked: str) -> str:
        """The answer of ``check``: the seed's lines first, then what the seed lacks."""
        with self.console.capture() as captured:
            self._seed(result, asked)
            self._verdict(result)
            if result["metrics"]:
                self._metrics(result)
            if result["candidates"] is not None:
                self._candidates(result["candidates"], result["texts"])
            if result["weights"] is not None and not result["weights"]["delta_is_zero"]:
                self._weights(result["weights"])
            self._certificate(result["certificate"])
            self._settings(result)
        return "".join(line.rstrip() + "\n" for line in captured.get().splitlines())

    def _seed(self, result: Mapping[str, Any], asked: str) -> None:
        say = self.console.print
        say("=== Model Comparison ===")
        if asked:
            say(Text(f"Input: {clean(asked, _INPUT)}"))
        seed = result["seed"] or {
            "ppl_base": result["base"]["ppl"],
            "ppl_tuned": result["tuned"]["ppl"],
            "logit_mse": result["metrics"].get("logit_mse", {}).get("value"),
        }
        if seed["logit_mse"] is not None:
            say(f"Base Model Perplexity:    {number(seed['ppl_base'], '.3f')}")
            say(f"Adapter Model Perplexity: {number(seed['ppl_tuned'], '.3f')}")
            mse = seed["logit_mse"]
            say(f"Logit MSE Difference:     {number(mse, '.3g' if 0 < mse < 1e-4 else '.6f')}")
        sign, sentence = SIGNS[result["verdict"]]
        if result["verdict"] == "weights_differ" and result["texts"]:
            sentence = ONLY_BYTES
        say(f"{sign} {sentence}")

    def _verdict(self, result: Mapping[str, Any]) -> None:
        few = ""
        if 0 < result["texts"] < FEWEST_TEXTS and result["verdict"] != "identical":
            texts = f"{result['texts']} text{'s' * (result['texts'] != 1)}"
            few = f" ({texts}: chance is not ruled out)"
        self._title(f"Verdict: {result['verdict']}{few}")
        self.console.print(Text(clean(result["reason"])))
        for warning in result["certificate"]["warnings"]:
            self.console.print(Text(f"Warning: {clean(warning)}", style="yellow"))
        cut = result["truncated"]
        if cut["items"]:
            items = f"{cut['items']} text{'s' * (cut['items'] != 1)}"
            self.console.print(f"Truncated: {items}, {cut['tokens']} tokens left out.")
        for failed in result["failed"]:
            line = f"Not scored: item '{clean(failed['item'])}': {clean(failed['reason'])}"
            self.console.print(Text(line, style="yellow"))

    def _metrics(self, result: Mapping[str, Any]) -> None:
        texts, tokens = result["texts"], result["tokens"]
        few = ""
        metrics = [m for _, name, _ in _TABLE if (m := result["metrics"].get(name)) is not None]
        if all(m["low"] is None for m in metrics):
            few = ", too few for an interval"
        self._title(f"{texts} text{'s' * (texts != 1)}, {tokens} scored tokens{few}")
        table = columns("figure", "value", "95 % interval", "noise floor", "unit", left=(0, 4))
        for label, name, unit in _TABLE:
            metric = result["metrics"].get(name)
            if metric is None:
                continue
            style, low, high = ".1%" if unit == _SHARE else ".4g", metric["low"], metric["high"]
            table.add_row(
                label,
                number(metric["value"], style),
                "–" if low is None else f"{number(low, style)} … {number(high, style)}",
                number(metric["noise_floor"], ".1%" if unit == _SHARE else ".2g"),
                "" if unit == _SHARE else unit,
            )
        self.console.print(table)

    def _candidates(self, candidates: Mapping[str, Any], texts: int) -> None:
        where = "the input"
        if texts > 1:
            where = f"item '{clean(candidates['item'], 30)}' (where they differ most)"
        self._title(f"Likeliest next tokens at the end of {where}")
        table = columns("base", "p", "tuned", "p", left=(0, 2))
        for b, t in zip(candidates["base"], candidates["tuned"], strict=True):
            table.add_row(quoted(b), f"{b['p']:.4f}", quoted(t), f"{t['p']:.4f}")
        self.console.print(table)

    def _weights(self, weights: Mapping[str, Any]) -> None:
        # what lies outside the layers: embeddings, the head, the last norm
        outside = [part for part in weights["modules"] if part["layer"] is None]
        parts = [part for part in (*weights["layers"], *outside) if part["frobenius"]]
        known = all(part["relative"] is not None for part in parts)
        parts.sort(key=lambda part: -part["relative" if known else "frobenius"])
        self._title("Layers that changed most")
        table = columns("layer", "‖ΔW‖_F", "of ‖W‖_F", "‖ΔW‖₂", "effective rank", left=(0,))
        for part in [*parts[:_LAYERS], weights["total"]]:
            relative = part["relative"]
            table.add_row(
                clean(part["name"], 40),
                number(part["frobenius"]),
                "–" if relative is None else f"{100 * relative:.3g} %",
                number(part["spectral"]),
                number(part["effective_rank"], ".1f"),
            )
        self.console.print(table)

    def _certificate(self, certificate: Mapping[str, Any]) -> None:
        self._title(f"Certificate ({certificate['kind']})")
        table = columns(None, None, None, left=(0, 1, 2))
        for line in certificate["checks"]:
            sign = {True: "ok", False: "no", None: "–"}[line["passed"]]
            table.add_row(sign, line["name"].replace("_", " "), clean(line["detail"]))
        self.console.print(table)

    def _settings(self, result: Mapping[str, Any]) -> None:
        settings = result["settings"]
        self._title("Settings")
        table = columns(None, None, left=(0, 1))
        for side in ("base", "tuned"):
            table.add_row(side, clean(result[side]["path"]))
        if settings.get("kernel") is not None:
            count = settings.get("threads")
            table.add_row(
                "scored",
                f"{settings['dtype']} on {settings['device']}, product kernel "
                f"'{settings['kernel']}'"
                + ("" if count is None else f", {count} thread{'s' * (count != 1)}"),
            )
        if speed := settings.get("tokens_per_second"):
            rates = ", ".join(f"{side} {speed[side]:,.0f}" for side in ("base", "tuned"))
            table.add_row("tokens/s", f"{rates}, each alone")
        self.console.print(table)

    def _title(self, text: str) -> None:
        self.console.print()
        self.console.print(Text(text, style="bold"))


@contextmanager
def _spoken(console: Console, tokens: bool) -> Iterator[Callable[[int, int], None]]:
    """Say how far a run is after ``_QUIET`` seconds and then every ``_PAUSE``, if it went on.

    From a thread: the first text may be minutes away, while a large model is opened.
    """
    words = "Opening the models and measuring the noise floor"
    ended = threading.Event()

    def speak() -> None:
        said, pause = "", _QUIET
        while not ended.wait(pause):
            if words != said:
                console.print(words, markup=False)
            said, pause = words, _PAUSE

    def update(done: int, total: int) -> None:
        nonlocal words
        words = f"Scored {done:,} of {total:,} tokens"
        if not tokens:
            words = f"{100 * done // total} % of the work is done"

    speaker = threading.Thread(target=speak, name="progress", daemon=True)
    speaker.start()
    try:
        yield update
    finally:
        ended.set()
        speaker.join()


def clean(text: str | None, most: int = 2000) -> str:
    """One line without control characters (terminal escapes among them), at most so long."""
    marks = {"\n": "⏎", "\t": " "}
    kept = "".join(
        c if c.isprintable() else marks.get(c, "\N{REPLACEMENT CHARACTER}")
        for c in (text or "")[: most + 1]
    )
    return kept if len(kept) <= most else kept[: most - 1] + "…"


def quoted(token: Mapping[str, Any]) -> str:
    """A token as a person can tell it from its neighbours: quotes, and escapes for the unseen.

    Its id where it has no text of its own, such as one byte of a longer character.
    """
    text = repr(token["text"])
    if not token["text"] or "\N{REPLACEMENT CHARACTER}" in text:
        return f"id {token['id']}"
    return text if len(text) <= _TOKEN else text[: _TOKEN - 1] + "…"


def number(value: float | None, style: str = ".4g") -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else format(value, style).replace("%", " %")


def columns(*titles: str | None, left: Sequence[int]) -> Table:
    """An empty table without borders; ``left``: the columns that are not numbers."""
    table = Table(box=None, pad_edge=False, show_header=any(titles))
    for i, title in enumerate(titles):
        table.add_column(title or "", justify="left" if i in left else "right", overflow="fold")
    return table
