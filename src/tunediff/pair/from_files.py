"""What can be said of a pair from its files alone, without loading a model?"""

from __future__ import annotations

from pathlib import Path

from tunediff.errors import PairError, UnsupportedError
from tunediff.pair.adapter import read_adapter
from tunediff.values import Certificate, Check, Side
from tunediff.weights.checkpoint import Checkpoint
from tunediff.weights.difference import checkpoint_difference
from tunediff.weights.geometry import lora_geometry
from tunediff.weights.spectrum import Geometry

_NOT_RUN = "not run: no text was given"


def weigh(base: Path, tuned: Path, kind: str) -> Geometry:
    """Where and how much the weights differ; every weight is read once and must be finite.

    Args:
        base: a model folder.
        tuned: an adapter folder or a model folder.
        kind: "adapter" or "model", what ``tuned`` is.

    Raises:
        PairError: where tuned's tensors cannot have come from base's.

    """
    base_files = _unpacked(base)
    if kind == "adapter":
        return lora_geometry(read_adapter(tuned, base_files).modules, base_files)
    geometry = checkpoint_difference(base_files, _unpacked(tuned))
    strange = [*geometry.reshaped, *geometry.missing, *geometry.added]
    if len(strange) > 2:  # a resized vocabulary reshapes embedding and head, nothing else
        raise PairError(
            f"{tuned} is not a derivative of {base}: {len(strange)} tensors are missing, added or "
            f"of another shape ({', '.join(strange[:3])} …).",
            "Give the base that it was tuned from.",
        )
    return geometry


def _unpacked(folder: Path) -> Checkpoint:
    checkpoint = Checkpoint.open(folder)
    if checkpoint.quantization is not None:
        raise UnsupportedError(
            f"{folder} is quantised ({checkpoint.quantization}); tunediff does not read such "
            "weights.",
            "Give the unquantised checkpoint.",
        )
    return checkpoint


def certify_files(
    base: Path, tuned: Path, kind: str, geometry: Geometry
) -> tuple[Side, Side, Certificate]:
    """The sides, and the half of the certificate that needs no model."""
    base_files = Checkpoint.open(base)
    equal = geometry.delta_is_zero
    alone = ", ".join((*geometry.missing, *geometry.added))
    if kind == "adapter":
        adapter = read_adapter(tuned, base_files)
        equal = adapter.delta_is_zero
        side = Side(str(tuned), "lora", adapter.fingerprint)
        count = 2 * len(adapter.modules) + len(adapter.extra_tensors)
        used = f"all {count} tensors are expected, none is missing or extra"
        warnings = adapter.warnings
    else:
        side = Side(str(tuned), "full", Checkpoint.open(tuned).fingerprint())
        used, warnings = (
            f"{len(geometry.modules)} tensors compared, {alone or 'none'} left over",
            (),
        )
    checks = (
        Check("tensors_used", not alone, used),
        Check("shapes_fit", not geometry.reshaped, "names and shapes fit the base's"),
        Check("base_unchanged", None, _NOT_RUN),
        Check("weights_differ", not equal, "ΔW is exactly zero" if equal else "ΔW is not zero"),
        Check("logits_differ", None, _NOT_RUN),
        Check("merged_equals_unmerged", None, _NOT_RUN),
    )
    base_side = Side(str(base), "base", base_files.fingerprint())
    return base_side, side, Certificate(side.kind, checks, equal, tuple(warnings))
