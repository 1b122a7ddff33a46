"""What if nobody reads what is printed, it cannot be written, or the reader says stop?"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(Exception):
    """The user said stop; the message says what is left of the work, in a sentence."""


@contextmanager
def printing() -> Iterator[None]:
    """Print within; a reader who has gone (``| head``) is no error.

    Raises:
        OSError: standard output cannot be written for another reason, such as a full disk.

    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # else Python flushes again at its end, and fails again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise


@contextmanager
def interruptible(left: Callable[[], str] | None) -> Iterator[None]:
    """Say at Ctrl-C what is left of the work; ``left`` is None where nothing is kept."""
    try:
        yield
    except KeyboardInterrupt:
        nothing = "Nothing is kept without --out RUN; with it, a run goes on where it stopped."
        raise Interrupted(nothing if left is None else left()) from None
