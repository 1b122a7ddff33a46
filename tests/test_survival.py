"""Does a run that was killed, or that met a full disk, end in the same bytes when run again?

A campaign puts one fault after another at every file operation of the store; then real processes
are really killed. Each campaign is itself tried on a store with a planted fault.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faults import Disk, Killed, contents, slow_run, small_run
from tunediff.errors import RunError
from tunediff.run import files, store


def _reference(tmp_path: Path) -> tuple[dict[str, bytes], list[tuple[str, str]]]:
    with Disk() as disk:
        small_run(tmp_path / "reference")
    return contents(tmp_path / "reference"), disk.trace


def _whole(folder: Path, reference: dict[str, bytes]) -> None:
    """Nothing half-written stands under a name that a reader would open."""
    for name, data in contents(folder).items():
        if name != "run.json" and not name.endswith(files.TEMPORARY):
            assert data == reference[name], f"{name} is half-written"


def campaign(tmp_path: Path, **kill: bool) -> None:
    """Kill a small run after each of its operations, run it again, and compare every byte."""
    reference, trace = _reference(tmp_path)
    assert len(trace) > 60
    for k in range(1, len(trace) + 1):
        if kill.get("torn") and trace[k - 1][0] != "write":
            continue
        folder = tmp_path / f"killed-{k}"
        with Disk(kill_at=k, **kill), pytest.raises(Killed):
            small_run(folder)
        if folder.exists():
            _whole(folder, reference)
        with Disk():
            small_run(folder)
        assert contents(folder) == reference, f"killed after operation {k}, {trace[k - 1]}"


def test_killed_after_every_operation_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    campaign(tmp_path)


def test_killed_in_the_middle_of_every_write_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    campaign(tmp_path, torn=True)


def test_a_power_cut_after_every_operation_ends_in_the_same_bytes(tmp_path: Path) -> None:
    campaign(tmp_path, power_cut=True)


def _write_in_place(path: Path, data: bytes) -> None:
    descriptor = files.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    files.write(descriptor, data[: len(data) // 2])
    files.write(descriptor, data[len(data) // 2 :])
    files.fsync(descriptor)
    for _ in range(9):  # as many operations as the real one has, and more
        files.fsync(descriptor)
    os.close(descriptor)


def test_the_campaign_catches_a_write_that_is_not_atomic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "write_whole", _write_in_place)
    with pytest.raises((AssertionError, RunError), match=r"half-written|damaged"):
        campaign(tmp_path)


def test_the_campaign_catches_a_write_that_is_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_sync(path: Path, data: bytes) -> None:
        temporary = path.with_name(path.name + files.TEMPORARY)
        descriptor = files.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        files.write(descriptor, data)
        os.close(descriptor)
        files.rename(temporary, path)
        files._sync_folder(path.parent)

    monkeypatch.setattr(files, "write_whole", without_sync)
    with pytest.raises((AssertionError, RunError), match=r"half-written|damaged"):
        campaign(tmp_path, power_cut=True)


def test_the_campaign_catches_a_part_that_exists_by_its_first_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_file(folder: Path, _record: object, k: int) -> bool:
        return (folder / "probes" / f"part-{k:05d}.jsonl").is_file()

    monkeypatch.setattr(store, "_has_part", first_file)
    with pytest.raises(AssertionError, match="killed after operation"):
        campaign(tmp_path)


def test_every_file_is_synced_before_its_name_and_its_folder_after(tmp_path: Path) -> None:
    _, trace = _reference(tmp_path)
    renames = [k for k, (name, _) in enumerate(trace) if name == "rename"]
    assert len(renames) > 9
    for k in renames:
        temporary = trace[k][1]
        assert trace[k - 1] == ("fsync", temporary)
        assert trace[k + 2] == ("fsync", str(Path(temporary).parent))


def test_a_full_disk_at_every_operation_says_what_to_do(tmp_path: Path) -> None:
    reference, trace = _reference(tmp_path)
    for k in range(1, len(trace) + 1):
        folder = tmp_path / f"full-{k}"
        with Disk(fail_at=k), pytest.raises(RunError) as raised:
            small_run(folder)
        assert raised.value.message.startswith("There is no room left to write ")
        assert raised.value.hint == (
            "Free some space (or raise the quota or the file size limit) and run the same "
            "command again; it goes on where it stopped."
        )
        if folder.exists():
            _whole(folder, reference)
            assert not list(folder.rglob("*" + files.TEMPORARY))
        with Disk():
            small_run(folder)
        assert contents(folder) == reference


@pytest.mark.parametrize("error", [errno.EDQUOT, errno.EFBIG])
def test_a_quota_and_a_size_limit_are_no_room_too(tmp_path: Path, error: int) -> None:
    with Disk(fail_at=5, error=error), pytest.raises(RunError, match="There is no room left"):
        small_run(tmp_path / "run")


def test_another_error_of_the_disk_is_named(tmp_path: Path) -> None:
    with (
        Disk(fail_at=5, error=errno.EIO),
        pytest.raises(RunError, match=r"could not be written: Input/output error") as error,
    ):
        small_run(tmp_path / "run")
    assert error.value.hint == (
        "Check the folder's permissions and its disk, or choose another folder."
    )


def test_a_file_size_limit_is_an_error_and_not_a_kill(tmp_path: Path) -> None:
    """Under RLIMIT_FSIZE the system sends SIGXFSZ, which Python ignores: the write fails."""
    code = (
        "import resource, sys; from pathlib import Path; from faults import small_run\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))\n"
        "small_run(Path(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "RunError: There is no room left to write" in done.stderr
    assert "File too large" in done.stderr
    assert not list((tmp_path / "run").rglob("*" + files.TEMPORARY))
    small_run(tmp_path / "run")
    assert contents(tmp_path / "run") == _reference(tmp_path)[0]


def test_killed_at_twenty_random_moments_it_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_run(tmp_path / "reference", pause=0.0)
    reference = contents(tmp_path / "reference")
    parts = len(list((tmp_path / "reference" / "rows").iterdir()))
    assert parts > 5
    # The server imports everything once; without the path it would leave that to every child.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["faults", "pyarrow.parquet"])
    moments = random.Random(20)
    unfinished = 0
    for k in range(20):
        folder = tmp_path / f"killed-{k}"
        process = processes.Process(target=slow_run, args=[folder])
        process.start()
        while not (folder / "rows" / "part-00000.parquet").exists():
            assert process.is_alive()
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.25))
        process.kill()
        process.join()
        unfinished += len(list((folder / "rows").glob("*.parquet"))) < parts
        with Disk():
            slow_run(folder, pause=0.0)
        assert contents(folder) == reference
    assert unfinished >= 5
