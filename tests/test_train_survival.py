"""Does a training that was killed, or found the disk full, go on to the same bytes?"""

from __future__ import annotations

import errno
import gc
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from factory import texts, tiny_model
from faults import Disk, Killed
from training import QUICK, adapter_bytes, trained, write_rows
from tunediff.errors import NumericsError, RunError, UsageError
from tunediff.run import files
from tunediff.training.checkpoints import Checkpoint, Checkpoints, History, finished
from tunediff.training.forward import Forward

SETTINGS = {"schema": 1, "recipe": {"steps": 6, "rank": 2}}
LONG = replace(QUICK, held_out=0.2, evaluate_every=2, patience=3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts of many lengths, and replies."""
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", texts(11, words=(1, 20)))


@pytest.fixture(autouse=True)
def uncollected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers collect garbage at their start, which takes a second among so many modules."""
    monkeypatch.setattr(gc, "collect", lambda *_: 0)


def simple_training(out: Path, steps: int = 6, *, keep: bool = False) -> bytes:
    """A training without a model: its one weight and moment depend on every step before."""
    kept = Checkpoints(out)
    if (there := finished(out, SETTINGS)) is not None:
        kept.remove()
        return json.dumps(there).encode()
    with kept.begun(SETTINGS):
        start = kept.last()
        weight, moment = torch.ones(2), torch.zeros(2)
        history = History()
        if start is not None:
            weight, moment, history = start.adapter["w"], start.trainer["m"], start.history
        for step in range(start.step if start else 0, steps):
            moment = 0.9 * moment + weight * step
            weight = weight - 0.01 * moment
            history.losses.append(weight.sum().item())
            history.held_out.append((step + 1, 1.0 / (step + 1)))
            if (step + 1) % 2 == 0 and step + 1 < steps:
                from safetensors.torch import save

                adapter = {
                    "adapter_config.json": b"{}",
                    "adapter_model.safetensors": save({"w": weight}),
                }
                kept.save(step + 1, adapter, {"m": moment}, history, keep=keep)
        report = {"settings": SETTINGS, "w": weight.tolist(), "losses": history.losses}
        files.write_whole(out / "training.json", json.dumps(report).encode())
    if not keep:
        kept.remove()
    return json.dumps(report).encode()


def clean_trace(folder: Path) -> list[tuple[str, str]]:
    with Disk() as disk:
        simple_training(folder)
    return disk.trace


def test_a_training_killed_at_any_file_operation_ends_in_the_same_bytes(tmp_path: Path) -> None:
    whole = simple_training(tmp_path / "whole")
    operations = clean_trace(tmp_path / "traced")
    assert {name for name, _ in operations} == {
        "open_file", "write", "fsync", "rename", "mkdir", "unlink", "rmdir",
    }  # fmt: skip
    resumed = 0
    for torn, power_cut in ((False, False), (True, False), (True, True)):
        for n in range(1, len(operations) + 1):
            folder = tmp_path / f"{torn}-{power_cut}-{n}"
            with Disk(kill_at=n, torn=torn, power_cut=power_cut), pytest.raises(Killed):
                simple_training(folder)
            if not (folder / "training.json").exists():
                resumed += Checkpoints(folder).last() is not None  # whole, or not there
            assert simple_training(folder) == whole, (n, operations[n - 1])
            assert [p.name for p in folder.iterdir()] == ["training.json"]
    assert resumed > len(operations)


def test_a_full_disk_leaves_the_last_checkpoint_and_says_what_to_do(tmp_path: Path) -> None:
    whole = simple_training(tmp_path / "whole")
    operations = clean_trace(tmp_path / "traced")
    for n in range(1, len(operations) + 1):
        folder = tmp_path / str(n)
        with Disk(fail_at=n, error=errno.ENOSPC), pytest.raises(RunError) as error:
            simple_training(folder)
        assert "There is no room left to write" in error.value.message
        assert "run the same command again" in error.value.hint
        assert simple_training(folder) == whole, (n, operations[n - 1])


def test_checkpoints_are_kept_where_asked_for(tmp_path: Path) -> None:
    simple_training(tmp_path, keep=True)
    kept = tmp_path / "checkpoints"
    assert sorted(p.name for p in kept.glob("step-*")) == ["step-000002", "step-000004"]


def test_the_last_checkpoint_is_that_of_the_highest_step(tmp_path: Path) -> None:
    simple_training(tmp_path, keep=True)
    kept = tmp_path / "checkpoints"
    (kept / "step-000002").rename(kept / "step-999999")
    (kept / "step-000004").rename(kept / "step-1000000")
    assert Checkpoints(tmp_path).last().step == 1_000_000  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "trainer.safetensors"])
def test_a_checkpoint_that_was_damaged_is_refused_by_name(tmp_path: Path, name: str) -> None:
    simple_training(tmp_path, keep=True)
    (tmp_path / "checkpoints" / "step-000004" / name).write_bytes(b"\x80\x04nothing to unpickle")
    with pytest.raises(RunError, match="step-000004 cannot be read") as error:
        Checkpoints(tmp_path).last()
    assert "Remove the folder" in error.value.hint


def test_the_best_held_out_loss_is_the_first_lowest_after_the_base() -> None:
    history = History(held_out=[(0, 0.5), (2, 3.0), (4, 1.0), (6, 1.0), (8, 2.0)])
    assert history.best == (4, 1.0)
    assert history.stale == 2
    assert (History().best, History().stale) == (None, 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, base: Path, rows: Path) -> Path:
    return trained(base, rows, tmp_path_factory.mktemp("whole") / "a", LONG).folder


def killed_at(step: int) -> Any:
    def on_step(done: Any) -> None:
        if done.number == step:
            raise Killed

    return on_step


@pytest.mark.parametrize(("step", "every", "begins"), [(1, 2, 0), (4, 1, 3), (6, 2, 4)])
def test_a_killed_training_goes_on_to_the_same_adapter(
    tmp_path: Path,
    base: Path,
    rows: Path,
    whole: Path,
    step: int,
    every: int,
    begins: int,
) -> None:
    """With dropout, moments, the schedule and the best held-out loss all in play."""
    out = tmp_path / "a"
    with pytest.raises(Killed):
        trained(base, rows, out, LONG, checkpoint_every=every, on_step=killed_at(step))
    said: list[str] = []
    seen: list[int] = []
    done = trained(
        base, rows, out, LONG, checkpoint_every=every, notice=said.append,
        on_step=lambda s: seen.append(s.number),
    )  # fmt: skip
    assert seen == list(range(begins + 1, 7))
    assert said == ([f"Goes on after step {begins} of 6."] if begins else [])
    assert done.report["resumed_at"] == ([begins] if begins else [])
    assert adapter_bytes(out) == adapter_bytes(whole)
    before = json.loads((whole / "training.json").read_text())
    for same in ("losses", "held_out", "tokens", "scored_tokens", "adapter_step"):
        assert done.report[same] == before[same], same
    assert not (out / "checkpoints").exists()


@pytest.mark.parametrize("what", ["dropout", "moments", "rate"])
def test_a_resume_that_forgot_something_would_be_seen(
    tmp_path: Path,
    base: Path,
    rows: Path,
    whole: Path,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tunediff.training import trainer

    out = tmp_path / "a"
    with pytest.raises(Killed):
        trained(base, rows, out, LONG, checkpoint_every=2, on_step=killed_at(3))
    real = trainer.restore

    def forgetful(start: Checkpoint, model: Any, optimizer: Any, schedule: Any) -> None:
        if what == "moments":
            start = replace(start, trainer={n: 0 * t for n, t in start.trainer.items()})
        real(start, model, optimizer, schedule)
        if what == "rate":
            schedule.last_epoch = 0

    monkeypatch.setattr(trainer, "restore", forgetful)
    if what == "dropout":
        real_begin = trainer._Watch.on_step_begin

        def again(self: Any, args: Any, state: Any, *rest: Any, **others: Any) -> None:
            number, state.global_step = state.global_step, 0
            real_begin(self, args, state, *rest, **others)
            state.global_step = number

        monkeypatch.setattr(trainer._Watch, "on_step_begin", again)
    trained(base, rows, out, LONG, checkpoint_every=2)
    assert adapter_bytes(out) != adapter_bytes(whole)


def test_a_full_disk_in_a_real_checkpoint(
    tmp_path: Path,
    base: Path,
    rows: Path,
    whole: Path,
) -> None:
    out = tmp_path / "a"
    real, seen = files.write, []

    def full(descriptor: int, data: Any) -> int:
        seen.append(len(data))
        if len(seen) == 6:  # begun.json, a first checkpoint of three files, and into the second
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "write", full)
        with pytest.raises(RunError, match=r"no room left to write .*step-000004"):
            trained(base, rows, out, LONG, checkpoint_every=2)
    assert Checkpoints(out).last().step == 2  # type: ignore[union-attr]
    trained(base, rows, out, LONG, checkpoint_every=2)
    assert adapter_bytes(out) == adapter_bytes(whole)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path,
    base: Path,
    rows: Path,
    value: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, real, calls = tmp_path / "a", Forward.nll, []

    def spoilt(self: Forward, examples: Any) -> Any:
        total, count = real(self, examples)
        calls.append(self.model.training)
        return (total * value if sum(calls) == 6 else total), count

    monkeypatch.setattr(Forward, "nll", spoilt)
    with pytest.raises(NumericsError) as error:
        trained(base, rows, out, QUICK, checkpoint_every=2)
    message = error.value.message
    assert message.startswith(f"The loss became {value} at step 6 (rows rows.jsonl:")
    assert message.endswith("it must be finite. The checkpoint of step 4 is kept.")
    assert "0.02" in error.value.hint
    assert error.value.hint.endswith("Another recipe needs another folder.")
    assert Checkpoints(out).last().step == 4  # type: ignore[union-attr]
    assert sorted(p.name for p in out.iterdir()) == ["checkpoints"]


def test_a_held_out_loss_that_is_not_finite_stops_too(
    tmp_path: Path, base: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Forward.nll, []

    def spoilt(self: Forward, examples: Any) -> Any:
        total, count = real(self, examples)
        calls.append(self.model.training)
        return (total if self.model.training or not any(calls) else total * float("nan")), count

    monkeypatch.setattr(Forward, "nll", spoilt)
    recipe = replace(LONG, evaluate_every=4)
    with pytest.raises(NumericsError) as error:
        trained(base, rows, tmp_path / "a", recipe, checkpoint_every=4)
    message = error.value.message
    assert message.startswith("The held-out loss became nan at step 4 (rows rows.jsonl:")
    assert message.endswith("No checkpoint was made yet.")  # it is looked at before one is
    assert Checkpoints(tmp_path / "a").last() is None


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(
    tmp_path: Path,
    base: Path,
    rows: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tunediff.training import forward

    real = forward._Nll.backward
    monkeypatch.setattr(
        forward._Nll, "backward", lambda ctx, *g: real(ctx, *(x * float("nan") for x in g))
    )
    with pytest.raises(NumericsError, match="gradient's norm became nan at step 1; it must be"):
        trained(base, rows, tmp_path / "a", QUICK)


def test_stopping_early_keeps_the_best_adapter(tmp_path: Path, base: Path, rows: Path) -> None:
    """A rate that ruins the adapter: the first held-out loss after the base's stays the lowest."""
    wild = replace(LONG, learning_rate=5.0, clip=0.0, steps=40, patience=2, warmup=0.1)
    done = trained(base, rows, tmp_path / "a", wild)
    report = done.report
    assert report["stopped_early"]
    assert report["steps"] < 40
    after = [x for x in report["held_out"] if x["step"]]
    best = min(after, key=lambda x: x["loss"])
    assert report["adapter_step"] == best["step"] == report["steps"] - 4
    same = trained(base, rows, tmp_path / "b", replace(wild, patience=0)).report
    assert same["losses"][: report["steps"]] == report["losses"]
    assert not same["stopped_early"]


def test_the_same_call_again_trains_nothing(
    tmp_path: Path,
    base: Path,
    rows: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "a"
    first = trained(base, rows, out)
    monkeypatch.setattr(Forward, "nll", lambda *_: pytest.fail("trained again"))
    said: list[str] = []
    assert trained(base, rows, out, notice=said.append).report == first.report
    assert any("nothing was trained again" in line for line in said)
    with pytest.raises(
        RunError, match=r"holds another training: it differs in recipe\.rank"
    ) as error:
        trained(base, rows, out, replace(QUICK, rank=3))
    assert "another folder" in error.value.hint


def test_what_ended_before_its_first_checkpoint_does_not_keep_its_folder(
    tmp_path: Path, base: Path, rows: Path
) -> None:
    out, wrong = tmp_path / "a", replace(QUICK, target_modules=("nothing",))
    with pytest.raises(UsageError, match="no target modules named nothing"):
        trained(base, rows, out, wrong)
    with pytest.raises(Killed):
        trained(base, rows, out, replace(QUICK, rank=3), on_step=killed_at(1))
    with pytest.raises(Killed):  # now with a checkpoint, after step 2
        trained(base, rows, out, checkpoint_every=2, on_step=killed_at(3))
    with pytest.raises(RunError, match=r"it differs in recipe\.rank"):
        trained(base, rows, out, replace(QUICK, rank=3))
    assert trained(base, rows, out).report["settings"]["recipe"] == QUICK.as_dict()
    trained(base, rows, tmp_path / "b")
    name = "adapter_model.safetensors"
    assert (out / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_folder_of_something_else_is_refused(tmp_path: Path, base: Path, rows: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("x")
    with pytest.raises(RunError, match="is not empty"):
        trained(base, rows, tmp_path / "a")
    with pytest.raises(RunError, match="is a file"):
        trained(base, rows, tmp_path / "a" / "thesis.txt")
    with pytest.raises(Killed):
        trained(base, rows, tmp_path / "b", checkpoint_every=1, on_step=killed_at(2))
    with pytest.raises(RunError, match=r"it differs in recipe\.seed"):
        trained(base, rows, tmp_path / "b", replace(QUICK, seed=8))
    with (
        Checkpoints(tmp_path / "b").begun(_settings(tmp_path / "b")),
        pytest.raises(RunError, match="Another process"),
    ):
        trained(base, rows, tmp_path / "b")


def _settings(out: Path) -> dict[str, Any]:
    return json.loads((out / "checkpoints" / "begun.json").read_text())


def test_the_generators_are_left_as_they_were(tmp_path: Path, base: Path, rows: Path) -> None:
    import random

    import numpy as np

    torch.manual_seed(5), random.seed(5), np.random.seed(5)  # noqa: NPY002
    before = torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(5), random.seed(5), np.random.seed(5)  # noqa: NPY002
    one = trained(base, rows, tmp_path / "a").folder
    assert before == (torch.rand(1), random.random(), np.random.rand())  # noqa: NPY002
    torch.manual_seed(6)
    assert adapter_bytes(trained(base, rows, tmp_path / "b").folder) == adapter_bytes(one)
