"""What if nobody reads what is printed, or it cannot be written?"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
