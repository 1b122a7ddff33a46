"""Is base read once where several tuned models are compared, with the same bits in every case?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import factory
from faults import contents
from passes import counted
from tunediff.errors import RunError
from tunediff.pair.hf import HfPair
from tunediff.pair.open import open_pair
from tunediff.run.comparing import compare
from tunediff.run.store import Run
from tunediff.scoring import states
from tunediff.scoring.packs import Pack
from tunediff.scoring.states import BaseStates
from tunediff.studies.compare import measure_compare
from tunediff.values import Generation, Item, Suite

COLOURS = (" red", " green", " pale blue")


def suites() -> tuple[Suite, ...]:
    """References, texts and choices, whose parts hold several packs."""
    asked = [Item(f"s{k}", prompt=text, reply=" it sleeps") for k, text in enumerate(TEXTS[:6])]
    texts = [Item(f"t{k}", text=text, axis="general") for k, text in enumerate(TEXTS[6:])]
    posed = [
        Item(f"c{k}", prompt=text, choices=COLOURS, answer=0, axis="general")
        for k, text in enumerate(TEXTS[:3])
    ]
    named = {"asked": asked, "texts": texts, "posed": posed}
    return tuple(Suite(name, tuple(items), "h" * 64) for name, items in named.items())


TEXTS = factory.texts(12, words=(3, 25))
GENERATION = Generation(max_new_tokens=5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return factory.tiny_model(tmp_path_factory.mktemp("base") / "base", "llama", layers=2)


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A plain adapter, one that is switched, and a full fine-tune."""
    root = tmp_path_factory.mktemp("tuned")
    return [
        str(factory.lora_adapter(root / "plain", base, scale=0.1)),
        str(factory.lora_adapter(root / "switched", base, seed=1, scale=0.1, dora=True)),
        str(factory.full_finetune(root / "full", base)),
    ]


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunediff.scoring.engine.BUDGET", {"cpu": 96})


def several(base: Path, tuned: list[str], out: Path, **options: Any) -> list[Run]:
    given: dict[str, Any] = {"generation": GENERATION, "part_tokens": 400, **options}
    return measure_compare(str(base), tuned, suites(), out, opening={"device": "cpu"}, **given)


@pytest.fixture(scope="module")
def together(base: Path, tuned: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "together"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tunediff.scoring.engine.BUDGET", {"cpu": 96})
        several(base, tuned, out)
    return out


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    return counted(monkeypatch)


def test_base_is_read_once_for_all(
    base: Path, tuned: list[str], scored: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    several(base, tuned, tmp_path / "runs", generation=None)
    passes = {side: [ids for name, ids in scored if name == side] for side in ("base", "tuned")}
    assert len(scored) == len(passes["base"]) + len(passes["tuned"])
    assert len(set(passes["base"])) == len(passes["base"]) > 3
    assert sorted(passes["tuned"]) == sorted(passes["base"] * len(tuned))


def test_one_tuned_model_shares_a_pass_with_base(
    base: Path, tuned: list[str], scored: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    (run,) = several(base, tuned[:1], tmp_path / "run", generation=None)
    assert {side for side, _ in scored} == {"both"}
    assert run.record["identity"]["settings"]["base_once"] is False


def test_the_numbers_are_those_of_each_alone(
    base: Path, tuned: list[str], together: Path, tmp_path: Path
) -> None:
    for path in tuned:
        (alone,) = several(base, [path], tmp_path / Path(path).name)
        run = Run.open(together / Path(path).name)
        assert run.record["identity"]["settings"]["base_once"] is True
        assert run.replies() == alone.replies()
        for a, b in zip(run.rows(), alone.rows(), strict=True):
            assert (a.item, a.measure, a.count) == (b.item, b.measure, b.count)
            assert (a.effect_sum is None) == (b.effect_sum is None)
            near = pytest.approx(b.effect_sum or 0.0, rel=1e-4, abs=1e-5 * a.count)
            assert (a.effect_sum or 0.0) == near


def unkept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BaseStates, "_keep", lambda *_: None)


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write)


def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BaseStates.__init__, "__defaults__", (0,))


@pytest.mark.parametrize("planted", [unkept, full_disk, no_room])
def test_what_is_computed_again_is_what_would_be_read_back(
    base: Path,
    tuned: list[str],
    together: Path,
    planted: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    scored: list[tuple[str, bytes]],
    tmp_path: Path,
) -> None:
    planted(monkeypatch)
    several(base, tuned, tmp_path / "runs")
    assert contents(tmp_path / "runs") == contents(together)
    own = [ids for side, ids in scored if side == "base"]
    assert len(own) > len(set(own))  # the fault was there: base was read again


@pytest.mark.parametrize("lost", ["plain", "switched", "full"])
def test_a_run_that_goes_on_ends_in_the_same_bytes(
    base: Path, tuned: list[str], together: Path, lost: str, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(together, out)
    parts = sorted((out / lost / "rows").iterdir())
    for part in parts[::2]:  # of one run some parts are missing, which the others have
        part.unlink()
    several(base, tuned, out)
    assert contents(out) == contents(together)


def test_a_run_that_began_alone_does_not_go_on_among_several(
    base: Path, tuned: list[str], together: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    several(base, tuned[:1], out / "plain")
    shutil.copy(together / "variants.json", out)
    with pytest.raises(RunError, match=r"base once \(false there, true here\)"):
        several(base, tuned, out)
    with pytest.raises(RunError, match=r"base once \(true there, false here\)"):
        several(base, tuned[:1], together / "plain")
    assert json.loads((out / "variants.json").read_bytes()) == ["plain", "switched", "full"]


def test_what_is_never_asked_again_is_not_kept(
    base: Path, tuned: list[str], scored: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    """Tuned's own replies belong to one model; base's are read by base once."""
    kept = BaseStates(tmp_path)
    replies, files, passes = [], [], []
    for k, path in enumerate(tuned[::2]):
        pair = open_pair(base, path, device="cpu")
        assert isinstance(pair, HfPair)
        pair.share_base(kept)
        scored.clear()
        out = tmp_path / f"run-{k}"
        replies.append(
            compare(pair, suites(), out=out, generation=GENERATION, states=kept).replies()
        )
        files.append(sum(p.is_file() for p in tmp_path.iterdir()))
        passes.append({side: [s for s, _ in scored].count(side) for side in ("base", "tuned")})
    assert [r["base"] for r in replies[0]] == [r["base"] for r in replies[1]]
    assert [r["tuned"] for r in replies[0]] != [r["tuned"] for r in replies[1]]
    assert files[0] == files[1] < passes[0]["base"]
    # fewer, where a reply of tuned's is one of base's
    assert 0 < passes[1]["base"] <= passes[1]["tuned"] - files[0]


@pytest.mark.parametrize("changed", ["way", "texts", "cut", "rows"])
def test_states_of_another_question_are_not_taken(changed: str, tmp_path: Path) -> None:
    kept = BaseStates(tmp_path)
    ids = [torch.tensor([1, 2, 3]), torch.tensor([4])]
    asked: dict[str, Any] = {
        "way": ("model", "highest", 1),
        "pack": Pack.of(ids, torch.device("cpu")),
        "rows": torch.tensor([0, 2]),
    }
    others: dict[str, dict[str, Any]] = {
        "way": {"way": ("model", "highest", 2)},
        "texts": {"pack": Pack.of([ids[0], torch.tensor([5])], torch.device("cpu"))},
        "cut": {"pack": Pack.of([torch.tensor([1, 2]), torch.tensor([3, 4])], torch.device("cpu"))},
        "rows": {"rows": torch.tensor([0, 3])},
    }
    values = iter(torch.arange(12.0).view(3, 2, 2).bfloat16())

    def rows(**more: Any) -> torch.Tensor:
        return kept.rows(**{**asked, **more}, compute=lambda: next(values))

    first = rows()
    assert torch.equal(rows(), first)
    assert not torch.equal(rows(**others[changed]), first)
    assert rows().dtype == torch.bfloat16


def test_states_have_a_bound() -> None:
    assert 2**30 <= states.ROOM < 2**36
