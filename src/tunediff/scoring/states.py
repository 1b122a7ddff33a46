"""How is base read once, when several tuned models are compared with it?

Its last hidden states at the rows that are looked at are kept as files: they are some eighty times
smaller than log-probabilities. A pass that both sides share may round otherwise than one of base
alone; so wherever states are kept, base always has a pass of its own, and what is computed again
(after a kill, or where it was not kept) equals what is read back to the bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load, save

from tunediff.scoring.packs import Pack

ROOM = 16 * 2**30  # bytes of files; what does not fit is computed again


class BaseStates:
    """Last hidden states of base by what was asked, in files.

    Args:
        folder: an empty folder, whose owner removes it.
        room: bytes that the files may take.

    """

    def __init__(self, folder: Path, room: int = ROOM) -> None:
        self._folder, self._room = folder, room
        self._keeping = True

    @contextmanager
    def asked_once(self) -> Iterator[None]:
        """Within: what is asked belongs to one tuned model alone, and is not kept."""
        before, self._keeping = self._keeping, False
        try:
            yield
        finally:
            self._keeping = before

    def rows(
        self,
        way: Sequence[object],
        pack: Pack,
        rows: torch.Tensor,
        compute: Callable[[], torch.Tensor],
    ) -> torch.Tensor:
        """The states of a pack's rows, (R, H), read back or computed.

        Args:
            way: what decides their bits beside the pack: the model, dtype, device, kernel, threads.
            pack: the texts.
            rows: which of the pack's tokens, int64 (R,).
            compute: yields them.

        """
        path = self._folder / _key(way, pack, rows)
        if path.is_file():
            return load(path.read_bytes())["h"].to(pack.ids.device)
        found = compute()
        size = found.numel() * found.element_size()
        if self._keeping and size <= self._room:
            self._keep(path, found)
        return found

    def _keep(self, path: Path, found: torch.Tensor) -> None:
        data = save({"h": found.contiguous().cpu()})
        try:
            path.write_bytes(data)
        except OSError:  # no place is left: from here on all is computed again
            path.unlink(missing_ok=True)
            self._room = 0
        else:
            self._room -= len(data)


def _key(way: Sequence[object], pack: Pack, rows: torch.Tensor) -> str:
    digest = hashlib.sha256(repr((tuple(map(str, way)), pack.bounds)).encode())
    for ids in (pack.ids, rows):
        digest.update(ids.cpu().numpy().tobytes())
    return digest.hexdigest()
