"""How large is a change of weights, and how many directions does it use?

    frobenius       ‖ΔW‖_F = √Σσ²
    spectral        ‖ΔW‖₂ = max σ
    relative        ‖ΔW‖_F / ‖W‖_F
    effective_rank  exp(H(σ/Σσ)), H the entropy in nats (Roy & Vetterli 2007)
    energy_rank     the fewest singular values that carry 99 % of Σσ²

A layer is taken as the block-diagonal matrix of its modules: the singular values together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np

from tunediff.weights.names import layer_number

ENERGY = 0.99
ZERO = "ΔW is exactly zero, so it has no directions."


@dataclass(frozen=True, slots=True)
class Part:
    """The geometry of one module, one tensor or one layer. A figure that is None has a reason."""

    name: str
    layer: int | None
    frobenius: float | None
    spectral: float | None
    relative: float | None
    effective_rank: float | None
    energy_rank: int | None
    shape: tuple[int, ...] | None = None  # of ΔW as the base stores W; None for a layer
    rank: int | None = None  # of the LoRA factors
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a change of weights sits: modules, layers, and the whole.

    ``added``, ``missing``, ``reshaped``: tensors that only one side has, or that differ in shape.
    ``delta_is_zero``: every ΔW is exactly zero and nothing is added, missing or reshaped.
    """

    modules: tuple[Part, ...]
    layers: tuple[Part, ...]
    total: Part
    delta_is_zero: bool
    added: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Measured:
    """One ΔW before it is pooled.

    ``sigma``: its singular values, or None with a ``reason``. ``frobenius`` is None where shapes
    differ. ``base``: ‖W‖_F, or None where it is unknown.
    """

    name: str
    sigma: np.ndarray | None
    frobenius: float | None
    base: float | None
    shape: tuple[int, ...]
    rank: int | None = None
    reason: str = ""


def tabulate(measured: Sequence[Measured]) -> tuple[tuple[Part, ...], tuple[Part, ...], Part]:
    """Return the parts of modules, of layers in order, and of the whole."""
    ordered = sorted(measured, key=lambda m: (_layer(m), m.name))
    modules = tuple(
        _part([m], m.name, layer_number(m.name), shape=m.shape, rank=m.rank) for m in ordered
    )
    layers = tuple(
        _part(list(members), f"layer {number}", number)
        for number, members in groupby(ordered, _layer)
        if number >= 0
    )
    return modules, layers, _part(ordered, "all", None)


def _layer(measured: Measured) -> int:
    number = layer_number(measured.name)
    return -1 if number is None else number


def _part(
    members: Sequence[Measured],
    name: str,
    layer: int | None,
    *,
    shape: tuple[int, ...] | None = None,
    rank: int | None = None,
) -> Part:
    """Pool the members: Frobenius by root of summed squares, spectral by the largest."""
    reason = next((m.reason for m in members if m.reason), "")
    frobenius = _root_of_squares(m.frobenius for m in members)
    base = _root_of_squares(m.base for m in members)
    sigmas = [m.sigma for m in members if m.sigma is not None]
    known = bool(sigmas) and len(sigmas) == len(members)
    sigma = np.concatenate(sigmas) if known else np.empty(0)
    ranks = sigma[sigma > 0]
    if known and not ranks.size:
        reason = ZERO
    return Part(
        name=name,
        layer=layer,
        frobenius=frobenius,
        spectral=float(sigma.max(initial=0.0)) if known else None,
        relative=frobenius / base if frobenius is not None and base else None,
        effective_rank=effective_rank(ranks) if ranks.size else None,
        energy_rank=energy_rank(ranks) if ranks.size else None,
        shape=shape,
        rank=rank,
        reason=reason,
    )


def _root_of_squares(values: Iterable[float | None]) -> float | None:
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value * value
    return total**0.5


def effective_rank(sigma: np.ndarray) -> float:
    """Return exp(H(σ/Σσ)) of positive singular values, between 1 and their number."""
    share = sigma / sigma.sum()
    share = share[share > 0]  # what underflows carries nothing
    return float(np.exp(-(share * np.log(share)).sum()))


def energy_rank(sigma: np.ndarray) -> int:
    """Return the fewest positive singular values that carry 99 % of Σσ²."""
    energy = np.sort(sigma / sigma.max())[::-1] ** 2
    carried = np.cumsum(energy) / energy.sum()
    # a count that carries 99 % but for rounding is enough
    return int(np.searchsorted(carried, ENERGY - 1e-12)) + 1
