"""How often does each side of a Hugging Face pair read something that is scored?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tunediff.scoring.engine import Engine
from tunediff.scoring.packs import Pack
from tunediff.scoring.streams import SeparateStreams, SharedStreams


def counted(patch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """From now on: the side ("both" in one pass) and the token ids of every pass that yields
    scores, but of none of a probe, a floor, a reply or the candidates of the items that differ most
    (which are others for each tuned model).
    """
    passes: list[tuple[str, bytes]] = []
    scoring, looking = False, False
    hidden, candidates = Engine._hidden, Engine.candidates

    def count(kind: type, name: str, side: Callable[..., str]) -> None:
        real = getattr(kind, name)

        def call(self: Any, pack: Pack, *rest: Any, **more: Any) -> Any:
            if scoring:
                passes.append((side(*rest), pack.ids.numpy().tobytes()))
            return real(self, pack, *rest, **more)

        patch.setattr(kind, name, call)

    def score(self: Engine, *arguments: Any) -> Any:
        nonlocal scoring
        scoring = not looking
        try:
            return hidden(self, *arguments)
        finally:
            scoring = False

    def look(self: Engine, *arguments: Any) -> Any:
        nonlocal looking
        looking = True
        yield from candidates(self, *arguments)
        looking = False

    patch.setattr(Engine, "_hidden", score)
    patch.setattr(Engine, "candidates", look)
    for kind in (SharedStreams, SeparateStreams):
        count(kind, "one", lambda side, *_: side)
    count(SharedStreams, "pair", lambda: "both")
    return passes
