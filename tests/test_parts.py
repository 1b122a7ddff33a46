"""Is every choice of an item scored from the same character on?"""

from __future__ import annotations

import pytest

from tunediff.run.parts import _choices
from tunediff.values import Item


@pytest.mark.parametrize(
    ("prompt", "choices", "asked"),
    [
        ("Answer:", (" A", " B"), ("Answer:", [" A", " B"])),
        ("Answer: ", ("A", "B"), ("Answer:", [" A", " B"])),
        ("Answer:\n ", ("A", "-"), ("Answer:", ["\n A", "\n -"])),
        (" ", ("A", "B"), (" ", ["A", "B"])),
    ],
)
def test_blanks_at_the_end_of_a_prompt_go_to_its_choices(
    prompt: str, choices: tuple[str, ...], asked: tuple[str, list[str]]
) -> None:
    found = _choices(Item("i", prompt=prompt, reply=choices[0], choices=choices, answer=0))
    assert {item.prompt for item in found} == {asked[0]}
    assert [item.reply for item in found] == asked[1]
    assert len({item.id for item in found}) == len(choices)
