"""What does a person read in the terminal?

Plain at 80 columns, without colour and in a log file; results go to standard output, progress and
warnings to standard error. Whatever a model or a file said is stripped of control characters.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

SIGNS = {
    "tuned": ("✅", "Adapter model is different — likely fine-tuned."),
    "identical": ("❌", "Adapter model is identical — its weights change nothing."),
    "indistinguishable": ("❌", "Adapter model is not different beyond noise."),
    "diverged_without_gain": ("⚠️ ", "Adapter model is different — without a gain on these texts."),
    "unclear": ("❔", "Adapter model is different — whether it gained is unclear."),
    "weights_differ": ("ℹ️ ", "The weights differ — give texts to see what that does."),
}
WIDTH = 80  # of what goes to a file or a pipe
_LAYERS = 3
_TABLE = (
    ("KL(base‖tuned)", "kl_base_tuned", "nats/token"),
    ("KL(tuned‖base)", "kl_tuned_base", "nats/token"),
    ("Jensen–Shannon", "js", "nats/token"),
    ("Logit MSE", "logit_mse", "logit²"),
    ("  up to a shift", "logit_mse_centred", "logit²"),
    ("Top-1 agreement", "top1_agreement", "share"),
    ("ΔNLL", "delta_nll", "nats/token"),
    ("PPL ratio", "ppl_ratio", ""),
    ("Bits/byte base", "bits_per_byte_base", "bits/byte"),
    ("Bits/byte tuned", "bits_per_byte_tuned", "bits/byte"),
)


class Printer:
    """Writes for people; ``quiet`` keeps standard output free for JSON."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        width = None if sys.stdout.isatty() else WIDTH
        self.console = console or Console(width=width, quiet=quiet, highlight=False, emoji=False)
        self.errors = Console(stderr=True, highlight=False, emoji=False)

    @contextmanager
    def progress(self) -> Iterator[Callable[[int, int], None]]:
        """A bar on standard error where that is a terminal; yields its update function."""
        bar = Progress(
            TextColumn("Scoring"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("tokens, left"),
            TimeRemainingColumn(),
            console=self.errors,
            transient=True,
            disable=not self.errors.is_terminal,
        )
        with bar:
            task = bar.add_task("", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def check(self, result: Mapping[str, Any], asked: str) -> None:
        """The answer of ``check``: the seed's lines first, then what the seed lacks."""
        say = self.console.print
        say("=== Model Comparison ===")
        if result["texts"] or result["failed"]:
            say(Text(f"Input: {clean(asked)}"))
        seed = result["seed"] or {
            "ppl_base": result["base"]["ppl"],
            "ppl_tuned": result["tuned"]["ppl"],
            "logit_mse": result["metrics"].get("logit_mse", {}).get("value"),
        }
        if seed["ppl_base"] is not None:
            say(f"Base Model Perplexity:    {seed['ppl_base']:.3f}")
            say(f"Adapter Model Perplexity: {seed['ppl_tuned']:.3f}")
            say(f"Logit MSE Difference:     {seed['logit_mse']:.6g}")
        sign, sentence = SIGNS[result["verdict"]]
        say(f"{sign} {sentence}")
        say()
        say(Text(f"Verdict: {result['verdict']}", style="bold"))
        say(Text(clean(result["reason"])))
        self._warnings(result)
        if result["metrics"]:
            self._metrics(result)
        if result["candidates"] is not None:
            self._candidates(result["candidates"])
        if result["weights"] is not None:
            self._weights(result["weights"])
        self._certificate(result)

    def _warnings(self, result: Mapping[str, Any]) -> None:
        for warning in result["certificate"]["warnings"]:
            self.console.print(Text(f"Warning: {clean(warning)}", style="yellow"))
        cut = result["truncated"]
        if cut["items"]:
            self.console.print(
                f"Truncated: {cut['items']} texts lost {cut['tokens']} tokens together."
            )
        for failed in result["failed"]:
            line = f"Not scored: {clean(failed['item'])}: {clean(failed['reason'])}"
            self.console.print(Text(line, style="yellow"))

    def _metrics(self, result: Mapping[str, Any]) -> None:
        texts, tokens = result["texts"], result["tokens"]
        self._title(f"{texts} text{'s' * (texts != 1)}, {tokens} scored tokens")
        table = _table()
        for title in ("figure", "value", "95 % interval", "noise floor", "unit"):
            table.add_column(title, justify="left" if title in ("figure", "unit") else "right")
        for label, name, unit in _TABLE:
            metric = result["metrics"].get(name)
            if metric is None:
                continue
            interval = "–"
            if metric["low"] is not None:
                interval = f"{metric['low']:.4g} … {metric['high']:.4g}"
            floor = metric["noise_floor"]
            table.add_row(
                label,
                f"{metric['value']:.4g}",
                interval,
                "–" if floor is None else f"{floor:.2g}",
                unit,
            )
        self.console.print(table)

    def _candidates(self, candidates: Mapping[str, Any]) -> None:
        self._title(f"Likeliest next tokens at the end of {clean(candidates['item'])}")
        table = _table()
        for title in ("base", "p", "tuned", "p"):
            table.add_column(title, justify="right" if title == "p" else "left")
        for b, t in zip(candidates["base"], candidates["tuned"], strict=True):
            table.add_row(
                Text(quoted(b["text"])), f"{b['p']:.4f}", Text(quoted(t["text"])), f"{t['p']:.4f}"
            )
        self.console.print(table)

    def _weights(self, weights: Mapping[str, Any]) -> None:
        layers = [part for part in weights["layers"] if part["frobenius"] is not None]
        layers.sort(key=lambda part: -(part["relative"] or part["frobenius"]))
        self._title("Layers that changed most")
        table = _table()
        for title in ("layer", "‖ΔW‖_F", "‖ΔW‖_F/‖W‖_F", "‖ΔW‖₂", "effective rank"):
            table.add_column(title, justify="left" if title == "layer" else "right")
        for part in [*layers[:_LAYERS], weights["total"]]:
            table.add_row(
                part["name"],
                *(
                    "–" if part[key] is None else f"{part[key]:.4g}"
                    for key in ("frobenius", "relative", "spectral", "effective_rank")
                ),
            )
        self.console.print(table)

    def _certificate(self, result: Mapping[str, Any]) -> None:
        self._title(f"Certificate ({result['certificate']['kind']})")
        for line in result["certificate"]["checks"]:
            sign = {True: "ok", False: "no", None: "--"}[line["passed"]]
            name = line["name"].replace("_", " ")
            text = Text(f"  {sign}  {name}: {clean(line['detail'])}")
            self.console.print(text, soft_wrap=False)
        settings = result["settings"]
        if "kernel" in settings:
            speed = settings.get("tokens_per_second")
            self.console.print(
                f"{settings['dtype']} on {settings['device']}, product kernel "
                f"'{settings['kernel']}', {settings['threads']} threads"
                + (
                    f"; base {speed['base']:,.0f}, tuned {speed['tuned']:,.0f} tokens/s"
                    if speed
                    else ""
                )
            )


    def _title(self, text: str) -> None:
        self.console.print()
        self.console.print(Text(text, style="bold"))


def clean(text: str | None, most: int = 2000) -> str:
    """Text without control characters (terminal escapes among them), at most so long."""
    kept = "".join(
        c if c == "\n" or c.isprintable() or c == " " else "\N{REPLACEMENT CHARACTER}"
        for c in text or ""
    )
    return kept if len(kept) <= most else kept[: most - 1] + "…"


def quoted(text: str) -> str:
    """A token as a person can tell it from its neighbours: quotes, and escapes for the unseen."""
    return repr(text)[:30]


def _table() -> Table:
    return Table(box=None, pad_edge=False)
