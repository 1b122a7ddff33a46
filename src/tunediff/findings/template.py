"""How much of a change did the prompt's form make, and how much the tuning?

Where base and tuned were both asked in the raw form and by the chat template (the 2×2 of
``compare --template both``), the template's share is base_chat − base_raw: what the form does to a
model that was never tuned. Beside it stands tuned − base within each form. Points, no intervals;
and where the primary measure is per token, the reference's tokens may differ a little between the
forms (the blank before it, the end token behind it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def template_shares(variants: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By tuned model and axis, the four figures of the primary measure and their differences.

    ``template``: base_chat − base_raw; ``tuning_raw`` and ``tuning_chat``: tuned − base in that
    form; all in the measure's unit, None where a form has no figure. Empty where only one form was
    asked.

    Args:
        variants: those of the scorecard, each with its name, axes and settings.

    """
    models: dict[str, dict[str, Mapping[str, Any]]] = {}
    for variant in variants:
        form = variant["settings"]["form"]
        models.setdefault(variant["name"].removesuffix(f"-{form}"), {})[form] = variant["axes"]
    return {
        name: {
            axis: _shares(forms["raw"][axis], forms["chat"][axis])
            for axis in forms["raw"]
            if axis in forms["chat"]
            and forms["raw"][axis]["primary"] == forms["chat"][axis]["primary"]
        }
        for name, forms in models.items()
        if len(forms) > 1
    }


def _shares(raw: Mapping[str, Any], chat: Mapping[str, Any]) -> dict[str, Any]:
    def less(one: float | None, other: float | None) -> float | None:
        return None if one is None or other is None else one - other

    return {
        "primary": raw["primary"],
        "unit": raw["unit"],
        "base_raw": raw["base"],
        "base_chat": chat["base"],
        "tuned_raw": raw["tuned"],
        "tuned_chat": chat["tuned"],
        "template": less(chat["base"], raw["base"]),
        "tuning_raw": less(raw["tuned"], raw["base"]),
        "tuning_chat": less(chat["tuned"], chat["base"]),
    }
