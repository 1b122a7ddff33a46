"""Do items become rows, once each, whatever their order and however often it was interrupted?"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faults import FakePair, Killed, contents, scores_of, texts
from tunediff.errors import InputError, NumericsError, PairError, RunError, UsageError
from tunediff.measures import BITS_PER_BYTE, BUILT_IN
from tunediff.run import asking
from tunediff.run.measuring import measure
from tunediff.run.store import Run
from tunediff.values import Encoded, Item, Scores, Suite


def suite_of(*items: Item) -> Suite:
    return Suite("texts", items, "h" * 64)


class KilledPair(FakePair):
    """A pair that dies after some items."""

    def __init__(self, after: int, **how: Any) -> None:
        super().__init__(**how)
        self.after = after

    def score(self, items: Sequence[Encoded]) -> Iterator[Scores]:
        for scores in super().score(items):
            if self.after == 0:
                raise Killed
            self.after -= 1
            yield scores


def test_every_item_has_a_row_for_every_measure(tmp_path: Path) -> None:
    suite = suite_of(
        Item("b", text="beta beta", axis="general", group="greek"), Item("a", text="alpha")
    )
    run = measure(FakePair(), suite, out=tmp_path, variant="rank 8")
    rows = run.rows()
    assert [(r.item, r.measure) for r in rows] == [
        (item, m) for item in "ab" for m in sorted(m.name for m in BUILT_IN)
    ]
    assert {(r.item, r.variant, r.suite, r.axis, r.group, r.sample) for r in rows} == {
        ("a", "rank 8", "texts", "target", "a", 0),
        ("b", "rank 8", "texts", "general", "greek", 0),
    }
    nll = next(r for r in rows if r.measure == "nll" and r.item == "b")
    tokens = run.tokens()
    mine = tokens["item"] == "b"
    assert nll.count == mine.sum() == 8
    assert nll.base_sum == pytest.approx(tokens["nll_base"][mine].sum(dtype=float), rel=1e-6)
    assert tokens["position"][mine].tolist() == list(range(8))
    assert bytes(tokens["token"][mine].tolist()) == b"eta beta"
    assert run.probes()[0]["probe_top_base"] == [[7, 0.5, "\x07"], [3, 0.25, "\x03"]]


def test_the_record_says_what_a_replay_needs(tmp_path: Path) -> None:
    run = measure(
        FakePair(kernel="fast"),
        texts(),
        out=tmp_path,
        seed=3,
        max_length=40,
        allow_truncation=True,
        weights={"total": {"frobenius": 0.5}},
    )
    identity, found = run.record["identity"], run.record["found"]
    assert identity["base"] == {"kind": "base", "fingerprint": "b" * 64, "revision": None}
    assert identity["settings"] == {"device": "cpu", "dtype": "float32"}
    assert (identity["seed"], identity["max_length"]) == (3, 40)
    assert identity["measures"]["nll"]["margin"] == 0.02
    assert identity["measures"]["nll"]["version"] == 1
    assert found["settings"] == {"kernel": "fast", "threads": 1}
    assert found["paths"] == {"base": "models/base", "tuned": "models/tuned"}
    assert found["weights"] == {"total": {"frobenius": 0.5}}
    assert found["certificate"]["weights_equal"] is False
    assert found["noise_floor"]["nll_base"] > 0
    lengths = [len(i.text or "") for i in texts().items]
    assert found["truncated"] == {
        "items": sum(n > 40 for n in lengths),
        "tokens": sum(max(0, n - 40) for n in lengths),
    }
    assert found["scored"] == sum(min(n, 40) - 1 for n in lengths)


def test_a_failed_item_is_counted_and_has_no_number(tmp_path: Path) -> None:
    run = measure(FakePair(bad="i2"), texts(), out=tmp_path)
    assert run.record["finished"] == {"failed": 1, "candidates": 0}
    bad = [r for r in run.rows() if r.item == "i2"]
    assert len(bad) == len(BUILT_IN)
    assert {(r.effect_sum, r.count, r.reason) for r in bad} == {
        (None, 0, "Its logits are not finite.")
    }
    assert "i2" not in run.tokens()["item"]
    probe = next(p for p in run.probes() if p["item"] == "i2")
    assert (probe["reason"], probe["probe_logit_l2"]) == ("Its logits are not finite.", None)


def test_every_item_failing_is_still_a_run(tmp_path: Path) -> None:
    run = measure(FakePair(bad="a"), suite_of(Item("a", text="abc")), out=tmp_path)
    assert run.record["finished"] == {"failed": 1, "candidates": 0}
    assert all(len(column) == 0 for column in run.tokens().values())


def shuffled(suite: Suite, seed: int) -> Suite:
    items = list(suite.items)
    random.Random(seed).shuffle(items)
    return replace(suite, items=tuple(items))


def test_shuffled_items_give_the_same_bytes(tmp_path: Path) -> None:
    measure(FakePair(), texts(12), out=tmp_path / "first", part_tokens=90)
    for seed in range(3):
        folder = tmp_path / f"shuffled-{seed}"
        measure(FakePair(), shuffled(texts(12), seed), out=folder, part_tokens=90)
        assert contents(folder) == contents(tmp_path / "first")


def test_without_the_sorting_shuffled_items_would_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsorted(values: Any, key: Any = None) -> list[Any]:
        return sorted(values) if key is None else list(values)

    monkeypatch.setattr(asking, "sorted", unsorted, raising=False)
    measure(FakePair(), texts(12), out=tmp_path / "first", part_tokens=90)
    measure(FakePair(), shuffled(texts(12), 0), out=tmp_path / "other", part_tokens=90)
    assert contents(tmp_path / "other") != contents(tmp_path / "first")


def test_measures_in_another_order_are_the_same_run(tmp_path: Path) -> None:
    measure(FakePair(), texts(), out=tmp_path)
    before = contents(tmp_path)
    measure(FakePair(), texts(), out=tmp_path, measures=BUILT_IN[::-1])
    assert contents(tmp_path) == before


def test_parts_hold_about_so_many_tokens(tmp_path: Path) -> None:
    items = [Item(f"i{k}", text="x" * n) for k, n in enumerate([10, 20, 30, 40, 200])]
    pair = FakePair()
    run = measure(pair, suite_of(*items), out=tmp_path, part_tokens=60)
    parts = [[p["item"] for p in part] for part in _probes_by_part(run)]
    assert parts == [["i0", "i1", "i2"], ["i3"], ["i4"]]
    assert [t["tokens"] for t in run.timing() if "part" in t] == [60, 40, 200]


def _probes_by_part(run: Run) -> list[list[dict[str, Any]]]:
    rows = iter(run.probes())
    counts = [
        len(p.read_text().splitlines()) for p in sorted((run.folder / "probes").glob("*.jsonl"))
    ]
    return [[next(rows) for _ in range(n)] for n in counts]


def test_a_finished_run_is_not_scored_again(tmp_path: Path) -> None:
    first = measure(FakePair(), texts(), out=tmp_path)
    pair = FakePair()
    again = measure(pair, texts(), out=tmp_path)
    assert (pair.asked, pair.floors) == ([], 0)
    assert again.rows() == first.rows()


def test_a_continued_run_scores_only_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        measure(KilledPair(after=5), texts(12), out=tmp_path, part_tokens=90)
    kept = len(list((tmp_path / "rows").iterdir()))
    assert kept >= 1
    pair = FakePair()
    run = measure(pair, texts(12), out=tmp_path, part_tokens=90)
    by_part = _probes_by_part(run)
    assert pair.floors == 0
    assert pair.asked == [p["item"] for part in by_part[kept:] for p in part]


def test_a_continued_run_keeps_the_kernel_that_it_began_with(tmp_path: Path) -> None:
    measure(FakePair(kernel="fast"), texts(12), out=tmp_path / "whole", part_tokens=90)
    with pytest.raises(Killed):
        measure(KilledPair(after=5, kernel="fast"), texts(12), out=tmp_path / "b", part_tokens=90)
    pair = FakePair(kernel="exact")  # what the self-check finds this time
    measure(pair, texts(12), out=tmp_path / "b", part_tokens=90)
    assert pair.settings["kernel"] == "fast"
    assert contents(tmp_path / "b") == contents(tmp_path / "whole")


def test_without_the_kernel_that_it_began_with_the_bytes_would_differ(tmp_path: Path) -> None:
    class Stubborn(FakePair):
        def continue_with(self, settings: Any) -> None:
            pass

    measure(FakePair(kernel="fast"), texts(12), out=tmp_path / "whole", part_tokens=90)
    with pytest.raises(Killed):
        measure(KilledPair(after=5, kernel="fast"), texts(12), out=tmp_path / "b", part_tokens=90)
    measure(Stubborn(kernel="exact"), texts(12), out=tmp_path / "b", part_tokens=90)
    assert contents(tmp_path / "b") != contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"suite": texts(6)}, "these differ: the texts"),
        ({"seed": 1}, r"seed \(0 there, 1 here\)"),
        ({"max_length": 4096}, r"max length \(none there, 4096 here\)"),
        ({"measures": (BITS_PER_BYTE,)}, "these differ: the measures"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    measure(FakePair(), texts(), out=tmp_path)
    before = contents(tmp_path)
    suite = change.pop("suite", texts())
    with pytest.raises(RunError, match=says):
        measure(FakePair(), suite, out=tmp_path, **change)
    assert contents(tmp_path) == before


def test_another_model_at_the_same_path_is_another_run(tmp_path: Path) -> None:
    measure(FakePair(), texts(), out=tmp_path)
    pair = FakePair()
    pair.tuned = replace(pair.tuned, fingerprint="u" * 64)
    with pytest.raises(RunError, match="these differ: the tuned model or adapter"):
        measure(pair, texts(), out=tmp_path)


def test_the_same_model_at_another_path_is_the_same_run(tmp_path: Path) -> None:
    measure(FakePair(), texts(), out=tmp_path)
    pair = FakePair()
    pair.tuned = replace(pair.tuned, path="elsewhere")
    assert measure(pair, texts(), out=tmp_path).record["found"]["paths"]["tuned"] == "models/tuned"


def test_progress_counts_tokens_up_to_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    total = sum(len(i.text or "") for i in texts().items)
    measure(FakePair(), texts(), out=tmp_path, progress=lambda d, t: seen.append((d, t)))
    assert len(seen) == len(texts().items)
    assert seen == sorted(seen)
    assert seen[-1] == (total, total)


def test_progress_of_a_continued_run_begins_with_what_is_done(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        measure(KilledPair(after=5), texts(12), out=tmp_path, part_tokens=90)
    seen: list[tuple[int, int]] = []
    run = measure(
        FakePair(), texts(12), out=tmp_path, part_tokens=90,
        progress=lambda d, t: seen.append((d, t)),
    )  # fmt: skip
    first = len(_probes_by_part(run)[0])
    assert len(seen) <= 12 - first
    assert seen[-1][0] == seen[-1][1]


def _nothing_written(folder: Path) -> bool:
    return not folder.exists()


@pytest.mark.parametrize(
    ("suite", "says"),
    [
        (suite_of(), "The suite 'texts' holds no item."),
        (
            suite_of(Item("a", text="x y", source="f:1"), Item("a", text="z w", source="f:2")),
            "f:2: the id 'a' was given before (f:1).",
        ),
        (
            suite_of(Item("a", text="x y"), Item("b", text="x" * 99, source="f:2")),
            "f:2: 99 tokens, allowed are 50.",
        ),
    ],
)
def test_a_bad_item_is_an_error_before_anything_is_written(
    tmp_path: Path, suite: Suite, says: str
) -> None:
    with pytest.raises(InputError) as error:
        measure(FakePair(), suite, out=tmp_path / "run", max_length=50)
    assert error.value.message == says
    assert _nothing_written(tmp_path / "run")


def test_a_measure_that_the_pair_cannot_serve_is_refused(tmp_path: Path) -> None:
    needy = replace(BITS_PER_BYTE, needs=("scores", "replies"))
    with pytest.raises(UsageError) as error:
        measure(FakePair(), texts(), out=tmp_path / "run", measures=(needy,))
    assert error.value.message == (
        "The measure 'bits_per_byte' needs replies; this pair offers nll, scores, weights."
    )
    assert _nothing_written(tmp_path / "run")


@pytest.mark.parametrize("measures", [(), (BITS_PER_BYTE, BITS_PER_BYTE)])
def test_no_measure_and_one_given_twice_are_refused(tmp_path: Path, measures: Any) -> None:
    with pytest.raises(UsageError, match="needed is at least one, and each name once"):
        measure(FakePair(), texts(), out=tmp_path / "run", measures=measures)
    assert _nothing_written(tmp_path / "run")


class Faulty(FakePair):
    """A backend that spoils the scores on their way out."""

    def __init__(self, spoil: Callable[[list[Scores]], list[Scores]]) -> None:
        super().__init__()
        self.spoil = spoil

    def score(self, items: Sequence[Encoded]) -> Iterator[Scores]:
        yield from self.spoil(list(super().score(items)))


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (lambda s: s[::-1], PairError, "was asked item 'i0' and yielded the scores of"),
        (lambda s: s[:-1], PairError, "was asked item 'i.' and yielded nothing"),
        (lambda s: [*s, s[0]], PairError, "yielded the scores of 'i0' after the last item asked"),
        (
            lambda s: [replace(s[0], js=s[0].js * np.nan), *s[1:]],
            NumericsError,
            "Item 'i0' has NaN or infinity in js and no reason",
        ),
        (
            lambda s: [replace(s[0], probe_logit_l2=math.inf), *s[1:]],
            NumericsError,
            "Item 'i0' has NaN or infinity in probe_logit_l2 and no reason",
        ),
        (
            lambda s: [replace(s[0], nll_tuned=s[0].nll_tuned[1:]), *s[1:]],
            NumericsError,
            "Item 'i0' has 11 scored positions and 10 values of nll_tuned",
        ),
    ],
)
def test_a_faulty_backend_is_an_error_and_never_a_row(
    tmp_path: Path, spoil: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        measure(Faulty(spoil), texts(), out=tmp_path)
    assert not list((tmp_path / "rows").iterdir())


def test_a_noise_floor_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    pair = FakePair()
    pair.noise_floor = lambda items: {"nll": math.nan}  # pyright: ignore
    with pytest.raises(NumericsError, match="NaN or infinite"):
        measure(pair, texts(), out=tmp_path)
    assert not (tmp_path / "run.json").exists()


def test_sides_with_different_tokenizers_have_bytes_and_no_token_rows(tmp_path: Path) -> None:
    class TwoTokenizers(FakePair):
        def score(self, items: Sequence[Encoded]) -> Iterator[Scores]:
            for e in items:
                whole = scores_of(e, np.random.default_rng(1))
                none = np.empty(0, dtype=np.int64)
                yield replace(
                    whole,
                    positions=none,
                    targets=none,
                    nll_tuned=whole.nll_tuned[1:],
                    probe_logit_mse=math.nan,
                )

    run = measure(TwoTokenizers(), texts(), out=tmp_path, measures=(BITS_PER_BYTE,))
    assert {r.measure for r in run.rows()} == {"bits_per_byte"}
    assert all(r.effect_sum is not None for r in run.rows())
    assert len(run.tokens()["item"]) == 0
    assert run.probes()[0]["probe_logit_mse"] is None


def test_the_tuned_sides_tokens_belong_to_what_was_asked(tmp_path: Path) -> None:
    class Otherwise(FakePair):
        def encode(self, items: Sequence[Item], *how: Any) -> list[Encoded]:
            return [replace(e, tuned=e) for e in super().encode(items, *how)]

    measure(FakePair(), texts(), out=tmp_path)
    with pytest.raises(RunError, match="these differ: the texts"):
        measure(Otherwise(), texts(), out=tmp_path)


def test_packs_that_were_halved_are_noted_beside_the_numbers(tmp_path: Path) -> None:
    class Halving(FakePair):
        def score(self, items: Sequence[Encoded]) -> Iterator[Scores]:
            self.settings["budget"] //= 2
            yield from super().score(items)

    pair = Halving()
    pair.settings["budget"] = 64
    run = measure(pair, texts(), out=tmp_path, part_tokens=90)
    noted = [t["settings"]["budget"] for t in run.timing() if "part" in t]
    assert noted == [64 >> k for k in range(1, len(noted) + 1)]
    assert run.record["found"]["settings"]["budget"] == 64
