"""Which kernel multiplies float32 matrices fastest without ceasing to be float32?

PyTorch's "medium" setting allows a product to be computed in bfloat16. On some processors it
merely selects another library whose product is faster and still exact to float32; on others it
really rounds. Nobody can tell by name, so a product is checked against float64 before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Kernel = Literal["highest", "medium"]

# Relative rms error of a product of random matrices: float32 sums in any order stay below 1e-6 at
# these depths; three bfloat16 products in float32's stead are near 1e-5, TF32 near 3e-4, bfloat16
# near 2e-3 (each from its unit roundoff 2^-24, 2^-17, 2^-11, 2^-9).
EXACT = 2e-6
SMALL = 10_000_000  # parameters
# Odd and even, few and many rows: kernels are chosen by shape.
_SHAPES = ((1, 577, 300), (7, 1024, 129), (64, 896, 1031), (200, 2048, 512))


@contextmanager
def use(kernel: Kernel) -> Iterator[None]:
    """Within: float32 products run on this kernel."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(kernel)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Within: PyTorch runs on this many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def useful_threads(parameters: int) -> int:
    """How many threads a model of this size can use.

    Products of a few million weights take microseconds: a second thread then costs more at its
    barriers than it brings, and on a busy machine many times more.
    """
    return 1 if parameters < SMALL else torch.get_num_threads()


def product_error(kernel: Kernel, device: torch.device) -> float:
    """The largest relative rms error of this kernel's products against float64, over shapes."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    with use(kernel):
        for rows, depth, columns in _SHAPES:
            a = torch.randn(rows, depth, generator=generator)
            b = torch.randn(columns, depth, generator=generator)
            found = torch.nn.functional.linear(a.to(device), b.to(device)).cpu().double()
            exact = a.double() @ b.double().T
            error = (found - exact).square().mean().sqrt() / exact.square().mean().sqrt()
            worst = max(worst, error.item())
    return worst


def choose(device: torch.device, dtype: torch.dtype) -> Kernel:
    """Return "medium" where it is exact to float32 on this machine, else "highest"."""
    if dtype != torch.float32 or device.type != "cpu":
        return "highest"  # on CUDA "medium" is TF32 by design, never exact
    return "medium" if product_error("medium", device) <= EXACT else "highest"
