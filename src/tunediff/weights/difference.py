"""Where does a full fine-tune differ from its base, tensor by tensor?

Both checkpoints are streamed from their files, a block of each at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tunediff.weights.checkpoint import Checkpoint
from tunediff.weights.names import BUFFER, NameMatcher
from tunediff.weights.spectrum import Geometry, Measured, tabulate
from tunediff.weights.tensors import BLOCK_ELEMENTS, Tensor, widened

SPECTRUM_SIDE = 512
"""The longest shorter side of a matrix whose singular values are computed: about 30 ms each."""


def checkpoint_difference(
    base: Checkpoint, tuned: Checkpoint, *, spectrum_side: int = SPECTRUM_SIDE
) -> Geometry:
    """Return the geometry of ΔW = tuned − base for every tensor that both have.

    A vector counts as a matrix of one column. Matrices whose shorter side is longer than
    ``spectrum_side`` get Frobenius norms alone, and a reason. An output head that one side alone
    stores is compared with the embedding that the other side ties it to. Masks and rotary tables
    that older checkpoints carry are left out. Raises ModelError where a weight is not finite.
    """
    pairs, added, missing = _paired(base, tuned)
    reshaped, measured = [], []
    for name, here, there in pairs:
        old, new = base.tensors[here], tuned.tensors[there]
        if old.shape != new.shape:
            reshaped.append(name)
            reason = f"The shapes differ: {old.shape} in base, {new.shape} in tuned."
            measured.append(Measured(name, None, None, None, new.shape, reason=reason))
        else:
            measured.append(_measure(name, base, here, tuned, there, spectrum_side))
    parts, layers, total = tabulate(measured)
    same = not (added or missing or reshaped) and all(m.frobenius == 0 for m in measured)
    return Geometry(parts, layers, total, same, added, missing, tuple(reshaped))


def _paired(
    base: Checkpoint, tuned: Checkpoint
) -> tuple[list[tuple[str, str, str]], tuple[str, ...], tuple[str, ...]]:
    """Return (name, base's tensor, tuned's tensor), and the names that only one side has."""
    matcher = NameMatcher(base.names)
    pairs: list[tuple[str, str, str]] = []
    added: list[str] = []
    taken: set[str] = set()
    # exact names first, so that none that merely ends alike takes a tensor from them
    for there in sorted(tuned.names, key=lambda name: (name not in base.tensors, name)):
        here = matcher.find(there)
        if here in taken:
            here = None
        if here is not None:
            taken.add(here)
            pairs.append((there, here, there))
        elif there == tuned.head and base.head is None and base.input_embedding is not None:
            pairs.append((there, base.input_embedding, there))
        elif not BUFFER.search(there):
            added.append(there)
    left = set(base.names) - taken
    tied = tuned.config.get("tie_word_embeddings") is not False
    if base.head in left and tied and tuned.head is None and tuned.input_embedding is not None:
        left.discard(str(base.head))
        pairs.append((str(base.head), str(base.head), tuned.input_embedding))
    pairs = [pair for pair in pairs if not BUFFER.search(pair[0])]
    return pairs, tuple(added), tuple(sorted(n for n in left if not BUFFER.search(n)))


def _measure(
    name: str, base: Checkpoint, here: str, tuned: Checkpoint, there: str, side: int
) -> Measured:
    old, new = base.tensors[here], tuned.tensors[there]
    matrix = old.shape if len(old.shape) == 2 else (old.count, 1)
    small = len(old.shape) <= 2 and min(matrix) <= side
    squares = base_squares = 0.0
    kept: list[np.ndarray] = []
    for old_block, new_block in _blocks(old, new):
        change = new_block - old_block
        squares += float(change @ change)
        base_squares += float(old_block @ old_block)
        if not np.isfinite(base_squares):
            raise base.not_finite(here)
        if not np.isfinite(squares):
            raise tuned.not_finite(there)
        if small:
            kept.append(change)
    if squares == 0:
        sigma, reason = np.zeros(1), ""
    elif small:
        sigma = np.linalg.svd(np.concatenate(kept).reshape(matrix), compute_uv=False)
        reason = ""
    elif len(old.shape) > 2:
        sigma, reason = None, f"No matrix: it has {len(old.shape)} dimensions."
    else:
        sigma = None
        reason = f"Too large for its singular values: {old.shape}, and {side} is the limit."
    return Measured(name, sigma, squares**0.5, base_squares**0.5, new.shape, reason=reason)


def _blocks(old: Tensor, new: Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield both tensors' elements in flat float64 blocks of equal length, in order."""
    for start in range(0, old.count, BLOCK_ELEMENTS):
        stop = min(old.count, start + BLOCK_ELEMENTS)
        first = widened(old.raw(start, stop), old.dtype).astype(np.float64)
        second = widened(new.raw(start, stop), new.dtype).astype(np.float64)
        yield first, second
