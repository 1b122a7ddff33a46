"""How does a file come to lie on disk whole, or not at all?

Every change that tunediff makes to a run folder goes through the seven operations below, looked up
by name at each call, so that a test can count them and put a fault at every one.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunediff.errors import RunError

open_file = os.open
write = os.write
fsync = os.fsync
rename = os.replace
mkdir = os.mkdir
unlink = os.unlink
rmdir = os.rmdir

TEMPORARY = ".tmp"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_whole(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``: temporary name, write, sync, rename, sync of the folder.

    Whoever reads ``path`` sees the old content or the new one, and after a power cut too.

    Raises:
        RunError: it could not be written; nothing of it is left behind.

    """
    temporary = path.with_name(path.name + TEMPORARY)
    with _explained(path):
        try:
            descriptor = open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[write(descriptor, rest) :]
                fsync(descriptor)
            finally:
                os.close(descriptor)
            rename(temporary, path)
        except OSError:
            if temporary.exists():
                unlink(temporary)
            raise
        _sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with _explained(path):
        try:
            mkdir(path)
        except FileExistsError:
            if not path.is_dir():
                raise
        _sync_folder(path.parent)


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed :func:`write_whole` left in ``folder``."""
    for path in sorted(folder.glob("*" + TEMPORARY)):
        with _explained(path):
            unlink(path)


def move_folder(made: Path, path: Path) -> None:
    """Give a folder that was made whole under another name its own; ``path`` is free."""
    with _explained(path):
        rename(made, path)
        _sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it."""
    with _explained(path):
        for inside in sorted(path.iterdir()):
            if inside.is_dir() and not inside.is_symlink():
                remove_folder(inside)
            else:
                unlink(inside)
        rmdir(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``; the system frees it when the process ends, however it ends.

    The file stays: to remove it would let a third process lock a new one beside a second
    process that waits on the old.
    """
    with _explained(path):
        descriptor = open_file(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with _explained(path):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(
                    f"Another process is writing to the run folder {path.parent}.",
                    "Wait until it has ended, or choose another folder.",
                ) from error
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = open_file(folder, os.O_RDONLY)
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise RunError(
                f"There is no room left to write {path}: {error.strerror}.",
                "Free some space (or raise the quota or the file size limit) and run the same "
                "command again; it goes on where it stopped.",
            ) from error
        raise RunError(
            f"{path} could not be written: {error.strerror}.",
            "Check the folder's permissions and its disk, or choose another folder.",
        ) from error
