"""What does whoever finds the adapter's folder need to know of it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PART = 10  # the mean loss of the first tenth of the steps stands for the start


def card(report: Mapping[str, Any]) -> str:
    """The model card, ``README.md``, of the contents of ``training.json``."""
    recipe, data, base = report["settings"]["recipe"], report["data"], report["base"]
    dropped = sum(data["dropped"].values())
    lines = [
        "---",
        "library_name: peft",
        "tags: [lora, sft]",
        "---",
        "",
        "# A LoRA adapter",
        "",
        f"Made by {report['made_by']}.",
        "",
        f"- Base: `{base['path']}`" + (f" at `{base['revision']}`" if base["revision"] else "")
        + f", fingerprint `{report['settings']['base_fingerprint'][:16]}`",
        f"- Data: `{data['file']}`, {data['rows']} rows of {data['form']}: {data['trained']} "
        f"trained on, {data['held_out']} held out, {dropped} dropped, {data['cut']} cut",
        f"- Recipe: r = {recipe['rank']}, alpha = {recipe['alpha']:g}, dropout "
        f"{recipe['dropout']:g} on {', '.join(recipe['target_modules'])}; AdamW at "
        f"{recipe['learning_rate']:g}, {recipe['schedule']} schedule; batches of "
        f"{recipe['batch_size'] * recipe['accumulation']}; loss on "
        f"{'the reply' if recipe['loss'] == 'reply' else 'all tokens'}; all of it in `recipe.toml`",
        f"- Steps: {report['steps']} of {recipe['steps']}, {report['tokens']} tokens",
        f"- {losses(report)}",
        "",
        "Whether it does what it should, and what else it changed, this training does not show. "
        "Compare it with its base: `tunediff compare BASE ADAPTER`.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def losses(report: Mapping[str, Any]) -> str:
    """The losses in a sentence."""
    found = report["losses"]
    count = -(-len(found) // _PART)
    first, last = (sum(part) / count for part in (found[:count], found[-count:]))
    text = (
        f"Loss {first:.4f} nats/token at the first step, {last:.4f} at the last"
        if count == 1
        else f"Loss {first:.4f} nats/token over the first {count} steps, {last:.4f} over the last "
        f"{count}"
    )
    if report["held_out"]:
        first = report["held_out"][0]
        kept = next(x for x in report["held_out"] if x["step"] == report["adapter_step"])
        text += f"; held out {first['loss']:.4f} before, {kept['loss']:.4f} after"
    if report["stopped_early"]:
        text += f"; stopped early, the adapter is that of step {report['adapter_step']}"
    return text + "."
