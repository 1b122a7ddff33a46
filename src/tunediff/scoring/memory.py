"""When does memory run out, and what does it cost to take and give back?"""

from __future__ import annotations

import ctypes
import gc
import sys

import torch

# glibc's mallopt parameters (malloc.h), and the size up to which freed memory is kept
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 256 * 2**20


def keep_freed_pages() -> None:
    """Let the C library keep what is freed, instead of giving it back and faulting it in again.

    Activations and chunks of logits of some megabytes are taken and freed thousands of times; by
    default each comes as fresh pages, which took an eighth of a scoring run's time. Only glibc has
    this setting; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "not enough memory" in text or "can't allocate" in text


def release() -> None:
    """Give unused memory back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
