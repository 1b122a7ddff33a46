"""Does the bar of a comparison show the work: never backwards, at its end when all is done?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunediff.items.named import read_suites
from tunediff.run.progress import MADE, WHOLE, Gauge
from tunediff.specimens import load
from tunediff.studies.compare import measure_compare
from tunediff.values import Generation, Reply


def part(way: str, lengths: Sequence[int]) -> Any:
    asked = [SimpleNamespace(encoded=SimpleNamespace(ids=[0] * n)) for n in lengths]
    return SimpleNamespace(way=way, asked=asked)


def replies(*lengths: int) -> list[tuple[Reply, Reply]]:
    return [(Reply("", ids=(0,) * n), Reply("", ids=(0,) * n)) for n in lengths]


def gauge(parts: Sequence[Any], missing: Sequence[int] | None = None, samples: int = 1) -> Any:
    seen: list[int] = []

    def hear(done: int, whole: int) -> None:
        assert whole == WHOLE
        seen.append(done)

    left = range(len(parts)) if missing is None else missing
    made = Gauge(parts, left, Generation(max_new_tokens=100), samples, hear)
    return made, seen


def test_a_made_token_weighs_more_than_a_read_one() -> None:
    parts = [part("scores", [49, 50]), part("replies", [9])]
    measured, seen = gauge(parts)
    measured.ended(0)
    # 100 read; 3 times a prompt of 10, and a reply as long as it may be
    assert seen == [0, int(1000 * 100 / (100 + 30 + (MADE + 2) * 100))]
    list(measured.counted(replies(20)))
    whole = 100 + 30 + (MADE + 2) * 20
    assert seen[2] == int(1000 * (100 + MADE * 20) / whole)  # short replies, so more is done
    measured.ended(1)
    assert seen[3:] == [1000]


def test_it_never_goes_back() -> None:
    parts = [part("replies", [5] * 4)] * 3
    measured, seen = gauge(parts, samples=2)
    for k, lengths in enumerate(([1] * 8, [100] * 8, [3] * 8)):  # suddenly long: more is ahead
        list(measured.counted(replies(*lengths)))
        measured.ended(k)
    assert seen == sorted(set(seen))
    assert len(seen) > 8
    assert seen[-1] == 1000


def test_what_is_done_already_counts() -> None:
    parts = [part("scores", [99]), part("scores", [99]), part("choices", [199])]
    measured, seen = gauge(parts, missing=[1, 2])
    measured.ended(1)
    measured.ended(2)
    assert seen == [250, 500, 1000]


def test_what_is_read_again_is_one_more_part() -> None:
    seen: list[int] = []
    parts = [part("scores", [99]), part("scores", [99])]
    made = Gauge(parts, [0, 1], None, 1, lambda done, _: seen.append(done), again=50)
    for k in range(3):
        made.ended(k)
    assert seen == [0, 400, 800, 1000]
    Gauge(parts, [], None, 1, lambda done, _: seen.append(done), again=50)
    assert seen[-1] == 1000  # nothing is missing


def test_recorded_replies_without_tokens_are_counted() -> None:
    parts = [part("replies", [0] * 3)] * 2
    made = Gauge(parts, [0, 1], None, 1, None)  # nobody listens
    made.ended(0)
    measured, seen = gauge(parts)
    list(measured.counted([(Reply("a"), Reply("b"))] * 3))
    measured.ended(0)
    measured.ended(1)
    assert seen[-1] == 1000


@pytest.mark.parametrize("done_before", [False, True])
def test_several_models_share_one_bar(done_before: bool, tmp_path: Path) -> None:
    suites = read_suites([f"general={load.suite('general')}"], limit=4)

    def run(tuned: list[str]) -> list[tuple[int, int]]:
        seen: list[tuple[int, int]] = []
        measure_compare(
            *("toy", tuned, suites, tmp_path / "runs"),
            generation=Generation(max_new_tokens=4),
            progress=lambda done, whole: seen.append((done, whole)),
            opening={},
        )
        return seen

    models = ["toy:1", "toy:2"]
    if done_before:
        run(models)
    seen = run(models)
    assert seen == sorted(seen)
    assert {whole for _, whole in seen} == {2 * WHOLE}
    assert seen[-1][0] == 2 * WHOLE
    assert done_before or any(done < WHOLE for done, _ in seen)
